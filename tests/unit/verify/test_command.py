"""``python -m anchorhold.verify``, the verifier as one file, and what it may import."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from anchorhold.audit.log import Log
from anchorhold.verify.__main__ import main
from anchorhold.verify.rules import step_words
from tests.second.verifier import Log as Second
from tests.support import TOP
from tests.unit.audit.logs import filled, session

TESTS = Path(__file__).parents[2]
DAEMON = TESTS.parent / "daemon"
PAGE = TESTS.parent / "docs/audit-log.md"
NAME = "a" * 16


def test_exit_codes_and_text(state_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(state_dir)]) == 1
    assert "there is no audit log" in capsys.readouterr().err
    filled(state_dir, 3).close()
    assert main([str(state_dir)]) == 0
    assert "the log verifies" in capsys.readouterr().out
    vkey = (state_dir / "log/vkey").read_text()
    assert main([str(state_dir), "--key", vkey, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["ok"], result["entries"], result["signed"], result["first_bad"]) == (True, 3, 3, None)
    bundle = state_dir / "log/0/tile/entries/000.p/3"
    bundle.write_bytes(bundle.read_bytes().replace(b'"number":0', b'"number":7'))
    assert main([str(state_dir)]) == 5
    text = capsys.readouterr().out
    assert "WRONG    entry 1 (0/tile/entries/000" in text
    assert "1 entry before the first bad one, 1 after it" in text
    assert main([str(state_dir), "--json"]) == 5
    assert json.loads(capsys.readouterr().out)["first_bad"]["seq"] == 1
    assert main([str(state_dir), "--key", str(state_dir / "log/vkey")]) == 5
    for wrong in ([], [str(state_dir), "--key", "vkey"], [str(state_dir), "--key", str(bundle)]):
        with pytest.raises(SystemExit) as stopped:
            main(wrong)
        assert stopped.value.code == 2


def test_a_copy_without_names(state_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = Log.open(state_dir)
    session(log, NAME)
    log.checkpoint()
    log.close()
    for name in ("openings", "key"):
        path = state_dir / "log/0" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert main([str(state_dir / "log")]) == 5
    assert "openings/000): the file is missing" in capsys.readouterr().out
    assert main([str(state_dir / "log"), "--without-names"]) == 0
    assert "not in this copy" in capsys.readouterr().out


def test_what_is_not_signed_or_settled_is_counted(
    state_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = filled(state_dir, 5)
    session(log, NAME, 2)
    assert main([str(state_dir), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["entries"], result["signed"], result["unsigned"], result["unsettled"]) == (13, 5, 8, 8)
    log.close()


Event = tuple[str, dict[str, object]]
START: Event = ("session.start", {})
SEALED: Event = ("session.sealed", {})
END: Event = ("session.end", {})
DATA: Event = ("grant", {"class": "data", "path": "/x"})
RUNTIME: Event = ("grant", {"class": "runtime", "path": "/x"})


def broken(state: Path, kinds: list[Event]) -> str:
    """What verify says of a log that the writer itself wrote wrongly."""
    log = Log.open(state)
    for kind, fields in kinds:
        log.append(kind, NAME, fields)
    log.checkpoint()
    log.close()
    from anchorhold.verify.check import verify

    result = verify(str(state))
    return "" if result.ok else str(result.first_bad)


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ([START, SEALED, DATA, END], ""),
        ([START, RUNTIME, END], ""),
        ([("kill", {}), ("limit", {})], ""),
        ([DATA], "entry 1 (0/tile/entries/000.p/2): grant before its session's start"),
        ([START, DATA], "a grant of class data before session.sealed"),
        ([START, ("list", {"class": "model"})], "a list of class model before session.sealed"),
        ([START, ("grant", {"path": "/x"})], "a grant has no class"),
        ([START, START], "a session starts that has started before"),
        ([START, SEALED, END, DATA], "entry 4 (0/tile/entries/000.p/5)"),
        ([START, ("request.end", {"request": 1})], "request.end without its request.start"),
        ([START, ("request.start", {"request": 1}), ("request.start", {"request": 1})], "has started before"),
        ([START, ("request.start", {})], "request.start names no request"),
        ([START, ("redaction", {"what": [], "ranges": []})], "a redaction belongs to no session"),
    ],
)
def test_rules_of_sessions(state_dir: Path, kinds: list[Event], words: str) -> None:
    said = broken(state_dir, kinds)
    assert (words in said) if words else said == ""


def test_a_clock_that_was_set(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    from anchorhold.verify.check import verify

    log = Log.open(state_dir)
    real = time.time_ns
    log.append("session.start", NAME, {})
    for step in (0, -3_600, -3_600, 7_200):
        monkeypatch.setattr(time, "time_ns", lambda step=step: real() + step * 10**9)
        log.append("denial", NAME, {"call": "open"})
    monkeypatch.setattr(time, "time_ns", real)
    log.checkpoint()
    log.close()
    result = verify(str(state_dir))
    notes = [note for note in result.notes if "clock" in note]
    assert result.ok and len(notes) == 2
    assert "set back by 3600.0 s before entry 3" in notes[0]
    assert "set forward by 10800.0 s before entry 5" in notes[1]


def clock_notes(
    state: Path, monkeypatch: pytest.MonkeyPatch, steps: list[tuple[str, str, float]]
) -> list[str]:
    """What is told of sessions (name, boot, seconds by which the clock is off), one entry each time."""
    import time

    from anchorhold.verify.check import verify

    real, log, begun = time.time_ns, Log.open(state), set()
    for name, boot, seconds in steps:
        monkeypatch.setattr(time, "time_ns", lambda off=seconds: real() + round(off * 10**9))
        if name in begun:
            log.append("denial", name, {"call": "open"})
        else:
            log.append("session.start", name, {"boot": boot} if boot else {})
        begun.add(name)
    monkeypatch.setattr(time, "time_ns", real)
    log.checkpoint()
    log.close()
    result = verify(str(state))
    assert result.ok
    second = Second(state)
    notes = [note for note in result.notes if "the clock" in note]
    assert notes == [step_words(seq, moved) for seq, moved in second.clocks]
    return notes


A, B, C = "a" * 16, "b" * 16, "c" * 16


def test_a_clock_that_was_set_forward_between_two_sessions(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = clock_notes(state_dir, monkeypatch, [(A, "x", 0), (B, "x", 3_600), (C, "x", 3_600)])
    assert notes == ["the clock was set forward by 3600.0 s before entry 2"]


@pytest.mark.parametrize("boots", [("x", "y"), ("", ""), ("x", ""), ("x" * 65, "x" * 65)])
def test_a_restart_is_no_clock_that_was_set_forward(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, boots: tuple[str, str]
) -> None:
    """Time since boot begins anew with it; back it is told even then."""
    steps = [(A, boots[0], 0.0), (B, boots[1], 3_600.0), (C, boots[1], 0.0)]
    notes = clock_notes(state_dir, monkeypatch, steps)
    assert notes == ["the clock was set back by 3600.0 s before entry 3"]


def test_small_steps_are_not_told(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a clock that is kept right does: no two neighbours are more than a second apart."""
    steps = [(f"{number:016x}", "x", 0.9 * number) for number in range(20)]
    assert clock_notes(state_dir, monkeypatch, steps) == []


def test_sessions_at_once_and_a_clock_that_is_set(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session's first entry is held against the entry before it, not against what came after it."""
    steps = [(A, "x", 0.0), (B, "x", 0), (A, "x", 3_600), (C, "x", 3_600), (B, "x", 3_600)]
    assert clock_notes(state_dir, monkeypatch, steps) == [
        "the clock was set forward by 3600.0 s before entry 3",
        "the clock was set forward by 3600.0 s before entry 5",
    ]


def test_it_runs_alone(state_dir: Path, tmp_path: Path) -> None:
    """Only this package is copied away, and the interpreter sees nothing else of ours."""
    filled(state_dir, 300).close()
    package = tmp_path / "alone/anchorhold"
    shutil.copytree(DAEMON / "anchorhold/verify", package / "verify")
    (package / "__init__.py").touch()
    run = subprocess.run(
        [sys.executable, "-P", "-m", "anchorhold.verify", str(state_dir)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "alone")},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert run.returncode == 0, run.stderr
    assert "300 signed" in run.stdout


def test_where_cryptography_is_missing_it_says_so(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(state_dir, 3).close()
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert main([str(state_dir)]) == 1
    out, err = capsys.readouterr()
    assert out == "" and "needs the Python package cryptography" in err


def test_the_verifier_as_one_file(state_dir: Path, tmp_path: Path) -> None:
    filled(state_dir, 300).close()
    target = tmp_path / "verify.pyz"
    for name in (target, tmp_path / "again.pyz"):
        subprocess.run(
            [TOP / "tools/verifier", name], check=True, env={**os.environ, "PYTHON": sys.executable}
        )
    assert target.read_bytes() == (tmp_path / "again.pyz").read_bytes()
    for arguments, code in (([state_dir], 0), ([tmp_path], 1), (["receipt", target, "--key", "x"], 2)):
        run = subprocess.run(
            [sys.executable, "-P", target, *arguments], env={"PATH": os.environ["PATH"]}, timeout=30,
            capture_output=True, text=True,
        )  # fmt: skip
        assert run.returncode == code, run.stderr
        assert "Traceback" not in run.stderr


def test_the_one_file_says_its_own_name(tmp_path: Path) -> None:
    """As it was called: whoever has the file alone has no ``anchorhold.verify``."""
    (tmp_path / "folder").mkdir()
    for name in ("verify.pyz", "%d \u00e9.pyz"):
        subprocess.run(
            [TOP / "tools/verifier", tmp_path / name],
            check=True,
            env={**os.environ, "PYTHON": sys.executable},
        )
    for called, shown in (
        ("../verify.pyz", "../verify.pyz"),
        (str(tmp_path / "verify.pyz"), str(tmp_path / "verify.pyz")),
        ("../%d \u00e9.pyz", r"../%d \xe9.pyz"),
    ):
        for arguments in ([], ["receipt"]):
            run = subprocess.run(
                [sys.executable, "-P", called, *arguments, "--help"],
                env={"PATH": os.environ["PATH"], "COLUMNS": "500"}, cwd=tmp_path / "folder", timeout=30,
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            assert run.stdout.startswith(" ".join(["usage:", shown, *arguments, "[-h]"])), run.stdout
            assert "python -m" not in run.stdout
            assert arguments or f"A receipt: {shown} receipt --help" in run.stdout


def test_the_pages_commands_work_by_hand(state_dir: Path, tmp_path: Path) -> None:
    """The shell commands of docs/audit-log.md, but openssl's own line, which Python does here."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    filled(state_dir, 7).close()
    shutil.copytree(state_dir / "log", tmp_path / "copy")
    blocks = [part.split("```")[0] for part in PAGE.read_text().split("```sh\n")[1:]]
    script = "set -e\n" + "\n".join(line for line in "".join(blocks).splitlines() if "openssl" not in line)
    run = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path / "copy/0", capture_output=True, text=True, timeout=30, check=True
    )
    lines = run.stdout.splitlines()
    (digest,) = [line.split()[0] for line in lines if line.endswith("  -")]
    assert "".join("".join(lines[-2:]).split()) == digest
    key = load_der_public_key((tmp_path / "copy/0/key.der").read_bytes())
    assert isinstance(key, Ed25519PublicKey)
    key.verify((tmp_path / "copy/0/signature").read_bytes(), (tmp_path / "copy/0/text").read_bytes())


def test_each_guarantee_of_the_page_names_a_test_that_exists() -> None:
    text = PAGE.read_text()
    rows = [line for line in text.splitlines() if re.match(r"\| L\d", line)]
    assert len(rows) >= 12
    for row in rows:
        file = ""
        names = re.findall(r"`([\w/.]*(?:::\w+)?)`", row.split("|")[3])
        assert names, row
        for name in names:
            file = name.partition("::")[0] or file
            base = TESTS if file == "test_architecture.py" else TESTS / "unit"
            test = name.partition("::")[2]
            assert f"def {test}" in (base / file).read_text() if test else (base / file).exists(), name


def test_receipts_without_anchorhold(
    state_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from anchorhold.audit.receipt import make

    log = Log.open(state_dir)
    session(log, NAME, 2)
    log.checkpoint()
    log.close()
    file, key = tmp_path / "r.json", (state_dir / "log/vkey").read_text()
    file.write_bytes(make(state_dir, NAME))
    assert main(["receipt", str(file), "--key", key]) == 0
    assert "the receipt verifies" in capsys.readouterr().out
    assert main(["receipt", str(file), "--key", key, "--with", str(file), "--json"]) == 5
    assert json.loads(capsys.readouterr().out)["ok"] is False
    file.write_bytes(b"{}")
    for arguments in ([], ["--json"]):
        assert main(["receipt", str(file), "--key", key, *arguments]) == 5
    assert "does NOT verify" in capsys.readouterr().out
    assert main(["receipt", str(tmp_path / "none"), "--key", key]) == 1
