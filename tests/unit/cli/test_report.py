"""``anchorhold audit report`` through the whole command line, on real logs."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from anchorhold.audit.log import Log
from anchorhold.audit.redact import redact
from anchorhold.cli.main import main

Answer = tuple[int, str, str]

GRANT: dict[str, object] = {
    "class": "data", "sha256": "ab" * 32, "size": 12345, "mode": "snapshot", "phase": "sealed",
}  # fmt: skip
HOSTILE = "/home/a/\x1b]0;owned\x07\u202egpj.exe <script>alert(1)</script>\udcff\ud83d"


def write_session(log: Log, name: str, *paths: str) -> None:
    log.append("session.start", name, {
        "policy": "office", "policy_sha256": "0f" * 32, "model": {"sha256": "ee" * 32, "size": 98},
        "model_path": "/m/small.gguf",
    })  # fmt: skip
    log.append("session.sealed", name, {})
    log.append("request.start", name, {"request": 1})
    for path in paths:
        log.append("grant", name, {**GRANT, "path": path, "resolved": path, "request": 1})
    refused = {"call": "openat", "path": "/etc/shadow", "reason": "no rule", "count": 2, "phase": "sealed"}
    log.append("denial", name, refused)
    log.append("request.end", name, {"request": 1})
    log.append("session.end", name, {"reason": "done"})


@pytest.fixture
def state(state_dir: Path) -> Path:
    log = Log.open(state_dir)
    write_session(log, "aaaa1111aaaa1111", *(f"/home/a/taxes/{number}.pdf" for number in range(40)))
    write_session(log, "aaaa2222aaaa2222", HOSTILE)
    log.checkpoint()
    log.close()
    return state_dir


@pytest.fixture
def run(state: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    def run(*arguments: str) -> Answer:
        code = main(["--state-dir", str(state), "audit", "report", *arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return run


def test_a_report(run: Callable[..., Answer], tmp_path: Path, state: Path) -> None:
    file = tmp_path / "month.html"
    code, out, err = run("--html", str(file))
    assert (code, out) == (0, "")
    page = file.read_bytes().decode("utf-8")
    assert f"{len(file.read_bytes()):,} bytes" in err and "41 files shown" in err
    assert "<b>2 sessions</b> with 2 questions the model was shown <b>41 files</b>." in page
    assert "<b>4 requests</b> were refused" in page
    assert "The log verifies" in page
    assert (state / "log" / "vkey").read_text().strip() in page
    assert "<script" not in page and "\u202e" not in page and "\x1b" not in page
    assert "<b>\\xff</b>" in page and "<b>\\ud83d</b>" in page
    assert "Keep the signed head." in page
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if path != state] == ["month.html"]


def test_standard_output(run: Callable[..., Answer], tmp_path: Path) -> None:
    code, out, err = run("--html", "-")
    assert (code, err) == (0, "")
    assert out.startswith("<!doctype html>") and out.endswith("</html>\n")
    assert not (tmp_path / "-").exists()


def test_time_and_session(run: Callable[..., Answer], tmp_path: Path) -> None:
    file = tmp_path / "r.html"

    def page(*arguments: str) -> str:
        code, _, err = run("--html", str(file), *arguments)
        assert code == 0, err
        return file.read_text()

    assert "<b>1 session</b> with 1 question the model was shown <b>40 files</b>" in page(
        "--session", "aaaa1"
    )
    assert "Session <bdi>aaaa1111aaaa1111</bdi> only." in page("--session", "aaaa1")
    assert "<b>2 sessions</b>" in page("--since", "-1h")
    assert "no entry in this time: no model was shown anything" in page("--until", "-1h")
    assert "1 January 2020, 00:00, to 1 January 2021, 00:00" in page(
        "--since", "2020-01-01T00:00:00Z", "--until", "2021-01-01T00:00:00Z"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--session", "aaaa"], 2, "2 sessions begin with 'aaaa'"),
        (["--session", "bbbb"], 1, "no session 'bbbb' has an entry in this time"),
        (["--session", ""], 2, "2 sessions begin with ''"),
        (["--session", "aaaa1111", "--until", "-1d"], 1, "no session"),
        (["--since", "yesterday"], 2, "is no time"),
        (["--since", "-1h", "--until", "-2h"], 2, "--since is not before --until"),
    ],
)
def test_a_slip_makes_no_report(
    run: Callable[..., Answer], tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    file = tmp_path / "r.html"
    found, _, err = run("--html", str(file), *arguments)
    assert (found, file.exists()) == (code, False)
    assert said in err


def test_an_earlier_report_is_replaced_and_nothing_else(run: Callable[..., Answer], tmp_path: Path) -> None:
    file = tmp_path / "r.html"
    assert run("--html", str(file))[0] == 0
    file.chmod(0o644)
    assert run("--html", str(file), "--session", "aaaa2222")[0] == 0
    assert "<b>1 session</b>" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_bytes(b"")
    assert run("--html", str(file))[0] == 0
    precious = tmp_path / "precious.html"
    precious.write_text("<!doctype html><p>mine")
    code, _, err = run("--html", str(precious))
    assert code == 2 and "is no report: not overwritten" in err
    assert precious.read_text() == "<!doctype html><p>mine"


def test_what_is_no_file(run: Callable[..., Answer], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "to folder").symlink_to(folder)
    os.mkfifo(tmp_path / "pipe")
    for name, said in (
        ("folder", "is a folder"),
        ("folder/", "is a folder"),
        ("link", "is a link or a device"),
        ("to folder", "is a link or a device"),
        ("pipe", "is a link or a device"),
    ):
        code, _, err = run("--html", f"{tmp_path}/{name}")
        assert code == 2 and said in err, name
    assert run("--html", "/dev/null")[0] == 2
    code, _, err = run("--html", str(tmp_path / "none" / "r.html"))
    assert code == 1 and "cannot be written" in err and "No such file" in err
    assert list(folder.iterdir()) == []
    assert not (tmp_path / "elsewhere").exists()


def test_never_into_the_state_directory(run: Callable[..., Answer], state: Path, tmp_path: Path) -> None:
    (tmp_path / "way").symlink_to(state / "log")
    before = sorted(state.rglob("*"))
    for place in (state / "r.html", state / "log" / "r.html", tmp_path / "way" / "r.html"):
        code, _, err = run("--html", str(place))
        assert code == 2 and "a redaction would not reach it" in err
    assert sorted(state.rglob("*")) == before


def test_a_write_that_fails_leaves_the_earlier_report(
    run: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "r.html"
    assert run("--html", str(file))[0] == 0
    before = file.read_bytes()

    def fails(*paths: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fails)
        code, _, err = run("--html", str(file))
    assert code == 1 and "No space left on device" in err
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name != "state"] == ["r.html"]


def damage(state: Path) -> None:
    """One number of one entry, as whoever can write the folder could."""
    changed = 0
    for path in state.rglob("tile/entries/**/*"):
        if path.is_file() and b'"size":12345' in (data := path.read_bytes()):
            path.write_bytes(data.replace(b'"size":12345', b'"size":12346', 1))
            changed += 1
    assert changed


def test_a_log_that_does_not_verify(run: Callable[..., Answer], state: Path, tmp_path: Path) -> None:
    damage(state)
    file = tmp_path / "r.html"
    code, _, err = run("--html", str(file))
    page = file.read_text()
    assert code == 5 and "does not verify" in err
    assert "The log does NOT verify" in page and "The log verifies" not in page
    code, out, err = run("--html", "-", "--session", "aaaa2222")
    assert code == 5 and "The log does NOT verify" in out


def test_another_key(run: Callable[..., Answer], state: Path, tmp_path: Path) -> None:
    right = (state / "log" / "vkey").read_text().strip()
    file = tmp_path / "r.html"
    assert run("--html", str(file), "--key", right)[0] == 0
    assert "named as the right one" in file.read_text()
    other = Log.open(tmp_path / "other")
    other.close()
    wrong = (tmp_path / "other" / "log" / "vkey").read_text().strip()
    assert run("--html", str(file), "--key", wrong)[0] == 5
    assert "The log does NOT verify" in file.read_text()


def test_names_that_were_redacted(run: Callable[..., Answer], state: Path, tmp_path: Path) -> None:
    redact(
        state,
        lambda entry: "/taxes/" in str(entry.get("path")),
        ["names"],
        reason="the client asked",
        by="anna",
    )
    code, out, err = run("--html", "-")
    assert (code, err) == (0, "")
    assert "taxes" not in out
    assert "name redacted" in out and "the client asked" in out and "anna" in out
    assert "40 entries" in out
    assert "The log verifies" in out


def test_no_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "r.html"
    assert main(["--state-dir", str(tmp_path / "none"), "audit", "report", "--html", str(file)]) == 1
    assert "there is no audit log" in capfd.readouterr().err
    assert not file.exists()


def test_the_log_is_not_changed(run: Callable[..., Answer], state: Path, tmp_path: Path) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}

    before = content()
    assert run("--html", str(tmp_path / "r.html"))[0] == 0
    assert content() == before


def test_a_session_that_is_still_running(run: Callable[..., Answer], state: Path) -> None:
    log = Log.open(state)
    log.append("session.start", "bbbb3333bbbb3333", {"policy": "office"})
    log.append("session.sealed", "bbbb3333bbbb3333", {})
    log.append(
        "grant", "bbbb3333bbbb3333", {**GRANT, "path": "/home/a/now.pdf", "resolved": "/home/a/now.pdf"}
    )
    code, out, err = run("--html", "-")
    log.close()
    assert (code, err) == (0, "")
    assert "now.pdf" in out and "<b>42 files</b>" in out
    assert "The log verifies" in out and "not signed yet" in out
    assert "1 session has <span class='tag a'>no end</span> here" in out
