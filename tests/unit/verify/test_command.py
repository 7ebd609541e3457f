"""``python -m anchorhold.verify``, and what it may import."""

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
from tests.unit.audit.logs import filled, session

TESTS = Path(__file__).parents[2]
DAEMON = TESTS.parent / "daemon"
PAGE = TESTS.parent / "docs/audit-log.md"


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
    tail = state_dir / "log/tail"
    tail.write_bytes(tail.read_bytes().replace(b'"n":1}', b'"n":7}'))
    assert main([str(state_dir)]) == 5
    text = capsys.readouterr().out
    assert "WRONG    entry 1 (tail)" in text and "1 entries before the first bad one, 1 after it" in text
    assert main([str(state_dir), "--json"]) == 5
    assert json.loads(capsys.readouterr().out)["first_bad"]["seq"] == 1
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2


def test_rules_reach_the_verdict(state_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = Log.open(state_dir)
    session(log, "one")
    log.append("grant", "one", {"class": "data", "path": "/x"})
    log.append("limit", "one", {})
    log.checkpoint()
    log.close()
    assert main([str(state_dir)]) == 5
    text = capsys.readouterr().out
    assert "entry 9 (tail): grant after its session's end" in text
    assert "9 entries before the first bad one, 1 after it" in text


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


def test_the_pages_commands_work_by_hand(state_dir: Path, tmp_path: Path) -> None:
    """The shell commands of docs/audit-log.md, but openssl's own line, which Python does here."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    filled(state_dir, 7).close()
    shutil.copytree(state_dir / "log", tmp_path / "copy")
    blocks = [part.split("```")[0] for part in PAGE.read_text().split("```sh\n")[1:]]
    script = "set -e\n" + "\n".join(line for line in "".join(blocks).splitlines() if "openssl" not in line)
    run = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path / "copy", capture_output=True, text=True, timeout=30, check=True
    )
    lines = run.stdout.splitlines()
    (digest,) = [line.split()[0] for line in lines if line.endswith("  -")]
    assert "".join("".join(lines[-2:]).split()) == digest
    key = load_der_public_key((tmp_path / "copy/key.der").read_bytes())
    assert isinstance(key, Ed25519PublicKey)
    key.verify((tmp_path / "copy/signature").read_bytes(), (tmp_path / "copy/text").read_bytes())


def test_each_guarantee_of_the_page_names_a_test_that_exists() -> None:
    text = PAGE.read_text()
    rows = [line for line in text.splitlines() if line.startswith("| L")]
    assert len(rows) == 12
    for row in rows:
        file = ""
        for name in re.findall(r"`([\w/.]*(?:::\w+)?)`", row.split("|")[3]):
            file = name.partition("::")[0] or file
            base = TESTS if file == "test_architecture.py" else TESTS / "unit"
            test = name.partition("::")[2]
            assert f"def {test}" in (base / file).read_text() if test else (base / file).exists(), name
