"""QR codes for the terminal, read again: from the drawn blocks by this test, and by zbar, another's code."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from anchorhold.cli import qr
from anchorhold.errors import UsageError

CHECKPOINT = (
    "anchorhold/0123456789abcdef\n1234567\nqQ8hXm5Q8dC1oY0w3o0w1H9fF3Yw2dVtq0b5r0r1c2s=\n\n"
    "\u2014 anchorhold/0123456789abcdef 6Bf2Q" + "Zm9vYmFyYmF6" * 7 + "=\n"
)
"""In form and size what ``audit checkpoint`` prints, the dash of a C2SP note included."""

COSIGNED = CHECKPOINT + "".join(
    f"\u2014 witness-{number}.example {'QUJDREVGR0g' * 10}=\n" for number in range(4)
)
HALVES = {" ": (False, False), "▄": (False, True), "▀": (True, False), "█": (True, True)}


def drawn(text: str, *, colour: bool = False, light: bool = True) -> list[list[bool]]:
    """The modules, border included, that a reader sees who takes a light ground for light."""
    rows: list[list[bool]] = []
    for line in qr.lines(text, colour=colour, light=light):
        if colour:
            found = re.fullmatch(r"\x1b\[38;5;16;48;5;231m([ ▄▀█]+)\x1b\[0m", line)
            assert found
            line = found[1]
        halves = [HALVES[character] for character in line]
        rows += [[upper for upper, _ in halves], [lower for _, lower in halves]]
    return rows


def scanned(rows: list[list[bool]], folder: Path) -> bytes:
    """What zbar reads from a picture of these modules."""
    if shutil.which("zbarimg") is None:
        pytest.skip("this machine has no zbarimg (Debian: zbar-tools)")
    scale = 4
    wide = [b"".join((b"\0" if dark else b"\xff") * scale for dark in row) for row in rows]
    picture = folder / "code.pgm"
    header = f"P5 {len(rows[0]) * scale} {len(rows) * scale} 255\n".encode()
    picture.write_bytes(header + b"".join(row * scale for row in wide))
    done = subprocess.run(
        [
            "zbarimg",
            "--quiet",
            "--raw",
            "--oneshot",
            "-Sdisable",
            "-Sqrcode.enable",
            "-Sqrcode.binary",
            picture,
        ],
        capture_output=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("text", ["x", CHECKPOINT, COSIGNED, "\udcff\n\0", "a" * 700, "b" * 1500, "c" * 2953])
def test_another_decoder_reads_it(text: str, tmp_path: Path) -> None:
    assert scanned(drawn(text), tmp_path) == text.encode("utf-8", "surrogateescape")


@pytest.mark.parametrize("text", ["x", CHECKPOINT, COSIGNED])
def test_the_drawing_is_the_matrix_in_a_quiet_zone(text: str) -> None:
    modules = qr.matrix(text)
    size = len(modules)
    for colour, light in ((True, False), (True, True), (False, True)):
        rows = drawn(text, colour=colour, light=light)
        assert len(rows) in (size + 8, size + 9) and {len(row) for row in rows} == {size + 8}
        assert [row[4:-4] for row in rows[4 : 4 + size]] == modules
        border = rows[:4] + rows[4 + size :] + [row[:4] + row[-4:] for row in rows]
        assert not any(any(row) for row in border)


def test_a_dark_terminal_is_drawn_the_other_way_round() -> None:
    dark, light = drawn("x", light=False), drawn("x", light=True)
    assert [[not module for module in row] for row in dark] == light


def test_the_matrix_is_a_qr_code() -> None:
    modules = qr.matrix(CHECKPOINT)
    size = len(modules)
    assert size % 4 == 1 and all(len(row) == size for row in modules)
    finder = ["1111111", "1000001", "1011101", "1011101", "1011101", "1000001", "1111111"]
    for top, left in ((0, 0), (0, size - 7), (size - 7, 0)):
        square = [modules[top + row][left : left + 7] for row in range(7)]
        assert ["".join("01"[dark] for dark in row) for row in square] == finder
    assert [modules[6][at] for at in range(8, size - 8)] == [at % 2 == 0 for at in range(8, size - 8)]


def test_a_checkpoint_fits_an_ordinary_terminal() -> None:
    lines = list(qr.lines(CHECKPOINT, colour=True))
    assert max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in lines) <= 80
    assert len(list(qr.lines("x" * 700, colour=False))[0]) <= 120


def test_less_is_mended_where_it_makes_the_code_smaller() -> None:
    """At level M 700 bytes need version 21 (101 modules), at L version 18 (89): ISO/IEC 18004, table 7."""
    assert len(qr.matrix("x" * 700)) == 89
    assert len(qr.matrix("x" * 200)) == 57  # version 10, M: it is narrow enough
    assert len(qr.matrix("x" * 360)) == 65  # version 12, L, where M would need 81 columns


def test_what_does_not_fit() -> None:
    with pytest.raises(UsageError, match="holds 2953 bytes, these are 2954"):
        qr.matrix("x" * 2954)
    with pytest.raises(UsageError, match="nothing to put"):
        qr.matrix("")
