"""RFC 6962 and tlog-tiles, against published values and a direct transcription of the RFC."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from anchorhold.audit import tree
from anchorhold.errors import AuditError

# The reference vectors of Certificate Transparency (certificate-transparency-go merkletree tests, also in
# RFC 9162's implementations): the roots of the first n of these eight leaves.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def mth(hashes: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word, on leaf hashes."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return hashlib.sha256(b"\x01" + mth(hashes[:split]) + mth(hashes[split:])).digest()


class Memory(tree.Tiles):
    """Tiles of a made-up tree: only level 0 exists, the rest is computed."""

    def __init__(self, hashes: list[bytes]) -> None:
        super().__init__("/nonexistent", lambda: (-1, []))
        self.leaves = hashes

    def hashes(self, level: int, number: int, width: int) -> list[bytes]:
        if level == 0:
            return self.leaves[number * 256 : number * 256 + width]
        return [self.root(level - 1, number * 256 + at) for at in range(width)]


@pytest.mark.parametrize("count", range(1, 9))
def test_roots_are_the_reference_ones(count: int) -> None:
    hashes = [tree.leaf_hash(leaf) for leaf in LEAVES[:count]]
    assert tree.fold([hashes]).hex() == ROOTS[count - 1]
    assert mth(hashes).hex() == ROOTS[count - 1]


def test_the_empty_root() -> None:
    assert tree.fold([]) == tree.fold([[], []]) == tree.EMPTY_ROOT
    assert tree.EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 700, 65_535, 65_536, 65_537, 66_000, 70_000])
def test_the_edge_gives_the_root(size: int) -> None:
    hashes = [number.to_bytes(32, "big") for number in range(size)]
    assert tree.fold(Memory(hashes).right_edge(size)) == mth(hashes)


@pytest.mark.parametrize(
    ("number", "path"), [(0, "000"), (5, "005"), (999, "999"), (1000, "x001/000"), (1234067, "x001/x234/067")]
)
def test_paths(number: int, path: str) -> None:
    assert tree.number_path(number) == path
    assert tree.tile_path(1, number) == f"tile/1/{path}"
    assert tree.tile_path("entries", number, 7) == f"tile/entries/{path}.p/7"


def test_the_specifications_example_of_partial_tiles() -> None:
    # tlog-tiles: 70,000 entries are 273 full level-0 tiles and widths 112, 17 and 1
    hashes = [number.to_bytes(32, "big") for number in range(70_000)]
    assert [len(level) for level in Memory(hashes).right_edge(70_000)] == [112, 17, 1]


def test_bundles_with_a_wrong_length_are_refused() -> None:
    assert tree.split_entries(b"\0\1a\0\0\0\2bc") == [b"a", b"", b"bc"]
    for bad in (b"\0", b"\0\2a", b"\0\1a\0"):
        with pytest.raises(AuditError):
            tree.split_entries(bad)


def test_missing_and_short_tiles_are_refused(tmp_path: Path) -> None:
    tiles = tree.Tiles(str(tmp_path), lambda: (5, [b"x" * 32]))
    assert tiles.hashes(0, 5, 1) == [b"x" * 32]
    with pytest.raises(AuditError, match="tile/0/000"):
        tiles.hashes(0, 0, 256)
    (tmp_path / "tile/0").mkdir(parents=True)
    (tmp_path / "tile/0/000").write_bytes(b"y" * 8191)
    with pytest.raises(AuditError, match="tile/0/000"):
        tiles.root(0, 0)
    (tmp_path / "tile/0/000").write_bytes(b"y" * 8192)
    assert tiles.root(0, 0) == mth([b"y" * 32] * 256) == tiles.roots[0]
    (tmp_path / "tile/0/000").unlink()
    assert tiles.hashes(1, 0, 1) == [tiles.roots[0]]  # remembered


def test_partial_tiles_are_used_and_damaged_ones_are_not(tmp_path: Path) -> None:
    tiles = tree.Tiles(str(tmp_path), lambda: (9, []))
    for number in range(3):
        (tmp_path / "tile/0").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"tile/0/00{number}").write_bytes(bytes([number]) * 8192)
    folder = tmp_path / "tile/1/000.p"
    folder.mkdir(parents=True)
    (folder / "1").write_bytes(b"p" * 32)
    (folder / "2").write_bytes(b"short")
    (folder / "notes").write_bytes(b"")
    assert tree.partial_widths(str(tmp_path), 1, 0) == [1, 2]
    found = tiles.hashes(1, 0, 3)
    assert found[0] == b"p" * 32  # from the partial tile
    assert found[2] == mth([b"\2" * 32] * 256)  # computed
    assert set(tiles.roots) == {1, 2}


def test_remembered_roots_are_bounded() -> None:
    tiles = tree.Tiles("/nonexistent", lambda: (0, []))
    for number in range(1000):
        tiles.remember(number, b"")
    assert len(tiles.roots) == 256
