"""RFC 6962 and tlog-tiles, against published values and a direct transcription of the RFC."""

from __future__ import annotations

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anchorhold.audit import tree
from anchorhold.errors import AuditError
from anchorhold.verify.merkle import ProofError, proved_root

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


@pytest.mark.parametrize("count", range(1, 9))
def test_roots_are_the_reference_ones(count: int) -> None:
    hashes = [tree.leaf_hash(leaf) for leaf in LEAVES[:count]]
    assert tree.fold([hashes]).hex() == ROOTS[count - 1]
    assert mth(hashes).hex() == ROOTS[count - 1]


def test_the_empty_root() -> None:
    assert tree.fold([]) == tree.fold([[], []]) == tree.EMPTY_ROOT
    assert tree.EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def stored(folder: Path, leaves: list[bytes]) -> None:
    """Write the tiles of a tree as tlog-tiles says, from the leaf hashes alone."""
    level, hashes = 0, leaves
    while hashes:
        for number in range(0, len(hashes), 256):
            row = hashes[number : number + 256]
            path = folder / tree.tile_path(level, number // 256, len(row))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"".join(row))
        hashes = [mth(hashes[at : at + 256]) for at in range(0, len(hashes) - 255, 256)]
        level += 1


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 511, 512, 700, 65_535, 65_536, 65_537, 70_000])
def test_the_edge_gives_the_root(tmp_path: Path, size: int) -> None:
    hashes = [number.to_bytes(32, "big") for number in range(size)]
    stored(tmp_path, hashes)
    assert tree.fold(tree.load_edge(str(tmp_path), size)) == mth(hashes)


def test_the_specifications_example_of_partial_tiles(tmp_path: Path) -> None:
    # tlog-tiles: 70,000 entries are 273 full level-0 tiles and widths 112, 17 and 1
    stored(tmp_path, [number.to_bytes(32, "big") for number in range(70_000)])
    assert [len(level) for level in tree.load_edge(str(tmp_path), 70_000)] == [112, 17, 1]
    # a smaller tree's edge lies in the wider tiles
    assert [len(level) for level in tree.load_edge(str(tmp_path), 65_793)] == [1, 1, 1]


def recursion(low: int, high: int, leaves: dict[int, bytes], proof: list[bytes]) -> bytes:
    """docs/audit-log.md, Proofs, word for word."""
    if not any(low <= index < high for index in leaves):
        return proof.pop(0)
    if high - low == 1:
        return leaves[low]
    split = 1
    while split * 2 < high - low:
        split *= 2
    left = recursion(low, low + split, leaves, proof)
    return hashlib.sha256(b"\x01" + left + recursion(low + split, high, leaves, proof)).digest()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_proofs_lead_to_the_root_and_nothing_else_does(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 1500))
    wanted = sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=40)))
    hashes = [hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(size)]
    with TemporaryDirectory() as folder:
        stored(Path(folder), hashes)
        proof = tree.multiproof(folder, size, wanted)
    leaves = [(index, hashes[index]) for index in wanted]
    assert proved_root(size, leaves, proof) == mth(hashes)
    left = list(proof)
    assert recursion(0, size, dict(leaves), left) == mth(hashes) and left == []
    for bad in ([*proof, bytes(32)], proof[:-1], [bytes(32), *proof[1:]]):
        if bad != proof:
            try:
                assert proved_root(size, leaves, bad) != mth(hashes)
            except ProofError:
                continue


@pytest.mark.parametrize(
    ("number", "path"), [(0, "000"), (5, "005"), (999, "999"), (1000, "x001/000"), (1234067, "x001/x234/067")]
)
def test_paths(number: int, path: str) -> None:
    assert tree.number_path(number) == path
    assert tree.tile_path(1, number) == f"tile/1/{path}"
    assert tree.tile_path("entries", number, 7) == f"tile/entries/{path}.p/7"


def test_bundles_with_a_wrong_length_are_refused() -> None:
    assert tree.split_entries(b"\0\1a\0\0\0\2bc") == [b"a", b"", b"bc"]
    for bad in (b"\0", b"\0\2a", b"\0\1a\0"):
        with pytest.raises(AuditError):
            tree.split_entries(bad)


def test_missing_and_short_tiles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="tile/0/000"):
        tree.load_hashes(str(tmp_path), 0, 0, 256)
    (tmp_path / "tile/0").mkdir(parents=True)
    (tmp_path / "tile/0/000").write_bytes(b"y" * 8191)
    with pytest.raises(AuditError, match="tile/0/000"):
        tree.load_hashes(str(tmp_path), 0, 0, 256)
    assert len(tree.load_hashes(str(tmp_path), 0, 0, 255)) == 255
