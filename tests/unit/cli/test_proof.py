"""``anchorhold audit key | checkpoint | cosign | receipt | verify-receipt | redact | prune``, as commands."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pty
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from anchorhold.audit.log import Log
from anchorhold.audit.query import entries
from anchorhold.cli.main import main
from tests.unit.audit.logs import GRANT, all_bytes, good, session

NAME, OTHER = "aaaa111100000000", "bbbb222200000000"

Answer = tuple[int, str, str]


@pytest.fixture
def state(state_dir: Path) -> Path:
    log = Log.open(state_dir)
    session(log, NAME, 5)
    log.checkpoint(rotate=True)
    session(log, OTHER, 2)
    log.checkpoint()
    log.close()
    return state_dir


@pytest.fixture
def run(state: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    def run(*arguments: str, at: Path = state) -> Answer:
        code = main(["--state-dir", str(at), "audit", *arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return run


def test_key(run: Callable[..., Answer], state: Path, tmp_path: Path) -> None:
    root = (state / "log/vkey").read_text()
    assert run("key") == (0, root, "")
    assert run("key", "--epoch", "1") == (0, (state / "log/1/vkey").read_text(), "")
    assert run("key", "--epoch", "2")[0] == 2
    assert run("key", "--export-public", str(tmp_path / "keys"))[0] == 0
    assert (tmp_path / "keys").read_text().splitlines()[0] == root.strip()
    assert run("key", "--rotate") == (0, root, "")
    assert not (state / "log/1/key").exists() and (state / "log/2/key").exists()
    good(state)


def test_a_key_is_given_as_it_is_or_in_a_file(
    run: Callable[..., Answer], state: Path, tmp_path: Path
) -> None:
    """A file that is not there is a slip, not a log that was changed."""
    keys, receipt, copy = tmp_path / "keys", tmp_path / "r.json", str(state / "log")
    assert run("key", "--export-public", str(keys))[0] == 0
    assert run("receipt", NAME, "-o", str(receipt))[0] == 0
    commands = (
        ("verify",),
        ("verify-receipt", str(receipt)),
        ("report", "--html", str(tmp_path / "r.html")),
        ("cosign", copy, "--as", "a.example/b", "--memory", str(tmp_path / "witness")),
    )
    (tmp_path / "none").write_text("+")
    for command in commands:
        for key in (keys.read_text().splitlines()[0], str(keys)):
            assert run(*command, "--key", key)[0] == 0
        for key in ("", "vkey", str(tmp_path), str(tmp_path / "none"), "a\0", "a" * 5000):
            code, out, err = run(*command, "--key", key)
            assert (code, out) == (2, "") and "key" in err, (command, key)


def test_checkpoint_and_a_witness(run: Callable[..., Answer], state: Path, tmp_path: Path) -> None:
    (tmp_path / "heads").mkdir()
    code, out, err = run("checkpoint", "--qr", "--to", f"folder:{tmp_path / 'heads'}")
    assert (code, err) == (0, "") and out.startswith((state / "log/1/checkpoint").read_text())
    assert len(out.splitlines()) > 20
    assert run("verify", "--witness", str(tmp_path / "heads"))[0] == 0
    code, _, err = run("checkpoint", "--to", "folder:/nonexistent")
    assert code == 1 and "the folder is not there" in err and "1 of 1 witness did not" in err
    for wrong in ("folder:heads", "frob:/x"):  # told before anything is signed: it is no witness that failed
        code, out, err = run("checkpoint", "--to", wrong)
        assert (code, out) == (2, "") and "folder:" in err
    assert run("checkpoint", at=tmp_path / "none")[0] == 1 and not (tmp_path / "none").exists()


def test_a_checkpoint_goes_to_the_witnesses_of_a_policy(
    run: Callable[..., Answer], state: Path, tmp_path: Path
) -> None:
    """For what commands without a policy sign."""
    heads, model, policy = tmp_path / "heads", tmp_path / "model.gguf", tmp_path / "p.toml"
    heads.mkdir()
    model.write_bytes(b"GGUF")
    text = f'version = 1\nname = "p"\n[model]\npath = "{model}"\n'
    policy.write_text(text + f'[audit]\nwitness = ["folder:{heads}"]\n')
    assert run("key", "--rotate")[0] == 0
    assert run("checkpoint", "--policy", str(policy))[0] == 0
    assert len(list(heads.iterdir())) == 3
    policy.write_text(text)
    code, _, err = run("checkpoint", "--policy", str(policy))
    assert code == 2 and "names no witness" in err


def test_a_checkpoint_for_a_public_witness(run: Callable[..., Answer], state: Path) -> None:
    head = (state / "log/1/checkpoint").read_text()
    assert run("checkpoint", "--for-witness", "0") == (0, f"old 0\n\n{head}", "")
    code, out, _ = run("checkpoint", "--for-witness", "3")
    assert code == 0 and out.startswith("old 3\n") and out.endswith(f"\n\n{head}")
    assert run("checkpoint", "--for-witness", "99")[0] == 2


def test_a_checkpoint_that_a_witness_contradicts(
    run: Callable[..., Answer], state: Path, tmp_path: Path
) -> None:
    """The one case in which a witness says something of the log itself."""
    heads, old = tmp_path / "heads", tmp_path / "old"
    heads.mkdir()
    shutil.copytree(state, old)
    assert run("key", "--rotate")[0] == 0
    assert run("checkpoint", "--to", f"folder:{heads}")[0] == 0
    code, _, err = run("checkpoint", "--to", f"folder:{heads}", at=old)
    assert code == 5 and "rolled back" in err and "what 1 witness saw" in err


def test_a_second_person_cosigns_a_copy_without_names(
    run: Callable[..., Answer], state: Path, tmp_path: Path
) -> None:
    vkey = (state / "log/vkey").read_text().strip()
    copy = tmp_path / "copy"
    without = shutil.ignore_patterns("journal", "key", "openings")
    shutil.copytree(state / "log", copy, ignore=without)
    anna = tmp_path / "anna"
    code, _, err = run("cosign", str(copy), "--key", vkey, at=anna)
    assert code == 1 and "Say --as " in err  # she has no name yet
    assert not anna.exists()  # and nothing is left of the try
    code, out, err = run("cosign", str(copy), "--key", vkey, "--as", "witness.example/anna", at=anna)
    assert (code, err) == (0, "") and out.startswith((state / "log/1/checkpoint").read_text())
    (tmp_path / "note").write_text(out)
    assert run("cosign", "--add", str(tmp_path / "note"))[0] == 0
    code, hers, _ = run("cosign", "--vkey", at=anna)
    assert code == 0 and run("verify", "--witness", hers.strip())[0] == 0
    # the log is put back to what it was before, and goes on otherwise: she does not sign that
    older = tmp_path / "older"
    log = Log.open(older)
    log.close()
    shutil.rmtree(copy)
    path = next((state / "log/1/tile/entries/000.p").iterdir())
    path.write_bytes(path.read_bytes().replace(b'"size":12345', b'"size":12346', 1))
    shutil.copytree(state / "log", copy, ignore=without)
    code, out, err = run("cosign", str(copy), "--key", vkey, at=anna)
    assert code == 5 and out == "" and "nothing was signed" in err
    code, out, err = run("cosign", str(older), "--key", vkey, at=anna)
    assert code == 5 and "nothing was signed" in err
    assert run("cosign", at=anna)[0] == 2


@pytest.mark.parametrize("rotated", [False, True])
def test_a_second_person_says_since_when_a_log_was_rolled_back(
    run: Callable[..., Answer], state: Path, tmp_path: Path, rotated: bool
) -> None:
    """Each of the two logs verifies by itself."""
    older, witness, vkey = tmp_path / "older", tmp_path / "anna", (state / "log/vkey").read_text()
    shutil.copytree(state, older)
    log = Log.open(state)
    session(log, "cccc333300000000", 4)
    log.checkpoint(rotate=rotated)
    log.close()
    chosen = ("--key", vkey, "--as", "a.example/anna", "--memory", str(witness))
    assert run("cosign", str(state), *chosen)[0] == 0
    for path in witness.glob("*.seen"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    good(older)
    code, out, err = run("cosign", str(older), *chosen)
    assert (code, out) == (5, "") and "rolled back" in err and "it was seen on 2023-11-14" in err
    assert run("cosign", str(state), *chosen)[0] == 0


def test_a_witness_of_one_file(run: Callable[..., Answer], state: Path, tmp_path: Path) -> None:
    """From paper or by mail, and what it says of a log that was put back to before it was cosigned."""
    older, anna, note = tmp_path / "older", tmp_path / "anna", tmp_path / "note.txt"
    shutil.copytree(state, older)
    log = Log.open(state)
    session(log, "cccc333300000000", 4)
    log.checkpoint()
    log.close()
    vkey = (state / "log/vkey").read_text()
    chosen = ("--key", vkey, "--as", "a.example/anna", "--memory", str(anna))
    assert run("cosign", str(state), *chosen, "-o", str(note))[0] == 0
    hers = run("cosign", "--vkey", "--memory", str(anna))[1].strip()
    os.utime(note, (1_700_000_000, 1_700_000_000))
    mailed = tmp_path / "mail.txt"
    mailed.write_bytes(b"\r\n" + note.read_bytes().replace(b"\n", b" \r\n") + b"\r\n")
    for path in (note, mailed):
        code, out, err = run("verify", "--witness", str(path))
        assert (code, err) == (0, "") and "; 0 came since" in out
        assert run("verify", "--witness", str(path), "--witness", hers)[0] == 0
    # by the key alone there is no time but the log's own end; by what she cosigned there is
    code, out, err = run("verify", "--witness", hers, at=older)
    last = list(entries(older))[-1]["time"][:16].replace("T", " ")
    assert code == 5 and f"to what it was on {last} UTC" in err and "--witness FILE" in err
    code, out, err = run("verify", "--witness", str(note), at=older)
    assert code == 5 and "rolled back" in err and "it was seen on 2023-11-14" in err
    code, out, err = run("verify", "--witness", str(note), "--witness", hers, at=older)
    today = time.strftime("%Y-%m-%d", time.gmtime())
    assert code == 5 and f"a.example/anna saw another log on {today}" in out and "2023" not in out
    # what is none
    (tmp_path / "other").write_text("hello\n")
    (tmp_path / "key").write_text(hers + "\n")
    for wrong in ("/nonexistent", str(tmp_path / "other"), "", "a\0", "x" * 9000):
        code, out, err = run("verify", "--witness", wrong)
        assert (code, out) == (2, "") and "--state-dir" not in err and "is n" in err, wrong
    assert run("verify", "--witness", str(tmp_path / "key"))[0] == 5  # a vkey in a file is a vkey
    code, out, _ = run("checkpoint", at=older)
    foreign = tmp_path / "foreign"
    Log.open(foreign).close()
    code, _, err = run("verify", "--witness", str(foreign / "log/0/checkpoint"))
    assert code == 5 and "the checkpoint of another log" in err


def test_receipts(run: Callable[..., Answer], state: Path, tmp_path: Path) -> None:
    vkey, file = (state / "log/vkey").read_text(), str(tmp_path / "r.json")
    assert run("receipt", f"{NAME}-1", "-o", file) == (0, "", "")
    assert os.stat(file).st_mode & 0o777 == 0o600
    code, out, err = run("verify-receipt", file, "--key", vkey, at=tmp_path / "elsewhere")
    assert (code, err) == (0, "") and "the receipt verifies" in out and "'/home/a/3'" in out
    code, out, _ = run("verify-receipt", file, "--key", vkey, "--with", file, "--json")
    assert code == 5 and json.loads(out)["with"][0]["is"] == []
    code, out, _ = run("receipt", f"{NAME}-1", "--hide-paths", "--hide-digests")
    assert code == 0 and "/home/a" not in out and "abab" not in out
    Path(file).write_text(out)
    code, told, err = run("verify-receipt", file, "--key", vkey, "--with", file)
    assert (
        code == 5 and "digests are withheld" in told and "NOT in this receipt" not in told
    )  # who could know?
    assert "withholds digests" in err
    Path(file).write_text(out.replace('"size":12345', '"size":12346', 1))
    code, out, err = run("verify-receipt", file, "--key", vkey)
    assert code == 5 and out == "" and "does not verify" in err
    assert run("receipt", NAME, "-o", str(tmp_path))[0] == 2
    assert run("receipt", NAME, "-o", "/proc/nowhere")[0] == 1
    assert run("verify-receipt", "/nonexistent", "--key", vkey)[0] == 1


def test_a_receipt_goes_to_a_descriptor_and_replaces_no_device(
    run: Callable[..., Answer], tmp_path: Path
) -> None:
    whole = run("receipt", NAME)[1]
    assert run("receipt", NAME, "-o", "/dev/stdout") == (0, whole, "")
    read_end, write_end = os.pipe()
    assert run("receipt", NAME, "-o", f"/dev/fd/{write_end}") == (0, "", "")
    os.close(write_end)
    with open(read_end, "rb") as file:
        assert file.read().decode() == whole
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert run("receipt", NAME, "-o", str(tmp_path / "pipe"))[0] == 0
    assert os.read(reader, 1 << 20).decode() == whole and (tmp_path / "pipe").is_fifo()
    os.close(reader)
    assert run("receipt", NAME, "-o", str(tmp_path / "none/r.json"))[0] == 1
    assert not (tmp_path / "none").exists()  # a slip of the hand makes no folder


def test_the_beginning_of_a_name_is_enough(run: Callable[..., Answer], state: Path) -> None:
    """`ask` ends with twelve digits of it."""
    whole = run("receipt", f"{NAME}-1")
    assert whole[0] == 0 and run("receipt", f"{NAME[:12]}-1") == whole
    assert run("receipt", NAME[:6]) == run("receipt", NAME)
    log = Log.open(state)
    session(log, "aaaa222200000000", 1)
    log.checkpoint()
    log.close()
    for command in (
        ("receipt", "aaaa-1"),
        ("redact", "--session", "aaaa", "--yes"),
        ("list", "--request", "aaaa-1"),
        ("diff", "aaaa-1", OTHER),
    ):
        code, out, err = run(*command)
        assert (code, out) == (2, "") and "2 sessions begin with 'aaaa'" in err and "'aaaa2222" in err
    assert run("list", "--json", "--request", "bbbb-1")[1].count("\n") == 4
    assert run("diff", "aaaa1-1", "aaaa2-1")[0] == 0
    assert run("receipt", "cccc")[0] == 2 and run("list", "--request", "cccc-1")[1] == ""
    assert run("redact", "--session", "bbbb", "--yes")[0] == 0
    assert not any("path" in entry for entry in entries(state, session=OTHER))
    assert any("path" in entry for entry in entries(state, session=NAME))


def test_a_mistyped_folder_is_no_new_log(run: Callable[..., Answer], tmp_path: Path) -> None:
    for command in (("key", "--rotate"), ("key",), ("checkpoint",), ("receipt", "aaaa")):
        code, out, err = run(*command, at=tmp_path / "typo")
        assert (code, out) == (1, "") and "there is no audit log" in err, command
    assert not (tmp_path / "typo").exists()


def test_redact_asks_first(run: Callable[..., Answer], state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = list(entries(state))
    chosen = ("redact", "--path", "/home/a/3", "--reason", "asked to")
    code, _, err = run(*chosen)
    assert code == 2 and "nobody to ask" in err and list(entries(state)) == before
    master, slave = pty.openpty()
    saved = os.dup(0)
    try:
        os.dup2(slave, 0)
        monkeypatch.setattr("click.confirm", lambda *_, **__: False)
        assert run(*chosen)[0] == 0 and list(entries(state)) == before
        monkeypatch.setattr("click.confirm", lambda *_, **__: True)
        assert run(*chosen)[:2] == (0, "redacted 1 entry\n")
    finally:
        os.dup2(saved, 0)
        for fd in (master, slave, saved):
            os.close(fd)
    assert b"/home/a/3" not in all_bytes(state) and good(state).redacted == 1


def test_nothing_matches_is_not_said_while_a_name_is_left(
    run: Callable[..., Answer], state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entries are redacted, the copies are not: nobody could choose them again."""
    chosen = ("redact", "--path", "/home/a/3", "--yes")
    copy = state / "index.sqlite"

    def failing(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    copy.write_text("/home/a/3")
    with monkeypatch.context() as patch:
        patch.setattr("anchorhold.audit.redact._forget_copies", failing)
        assert run(*chosen)[0] == 1 and copy.exists()
        code, _, err = run(*chosen)
        assert code == 1 and "Input/output error" in err
    code, _, err = run(*chosen)
    assert code == 0 and "no entry matches" in err and not copy.exists()
    good(state)


def test_redact_by_session_and_time(run: Callable[..., Answer], state: Path) -> None:
    assert run("redact", "--yes")[0] == 2
    assert run("redact", "--session", NAME, "--digests", "--yes")[0] == 0
    mine = [entry for entry in entries(state, session=NAME)]
    assert not any("path" in entry or (entry["kind"] == "grant" and "sha256" in entry) for entry in mine)
    assert any("path" in entry for entry in entries(state, session=OTHER))
    assert run("redact", "--since", "2000-01-01", "--until", "2001-01-01", "--yes")[1] == ""
    assert run("redact", "--since", "-1h", "--yes")[0] == 0
    assert not any("path" in entry for entry in entries(state))
    assert run("redact", "--complete")[0] == 0
    good(state)


def test_a_folder_is_forgotten_with_its_own_name(
    run: Callable[..., Answer], state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example of the documentation: '~/taxes/2019/**'."""
    monkeypatch.setenv("HOME", "/home/anna")
    third = "cccc333300000000"
    folder = "/home/anna/taxes/2019-with-berta"
    log = Log.open(state_dir)
    log.append("session.start", third, {})
    log.append("session.sealed", third, {})
    for path in (folder, folder + "/", "/home/anna/taxes"):
        log.append("list", third, {"path": path, "resolved": path, "class": "data", "listed": 2, "hidden": 0})
    log.append("denial", third, {"call": "open", "path": f"{folder}/a", "reason": "x", "count": 1})
    log.append("breach", third, {"call": "open", "path": "/x", "reason": f"it asked for {folder} again"})
    log.append(
        "grant", third, {**GRANT, "path": f"{folder}/sub/roof.pdf", "resolved": f"{folder}/sub/roof.pdf"}
    )
    log.append("grant", third, {**GRANT, "path": f"{folder}s/other", "resolved": f"{folder}s/other"})
    log.checkpoint()
    log.append("list", third, {"path": folder, "resolved": folder, "class": "data", "listed": 2, "hidden": 0})
    log.close()
    assert run("top")[0] == 0 and run("index")[0] == 0  # an index, which is a file of the state directory
    asked: list[str] = []

    def agree(question: str, _yes: bool) -> bool:
        asked.append(question)
        return True

    monkeypatch.setattr("anchorhold.cli.forget._sure", agree)
    code, out, _ = run("redact", "--path", "~/taxes/2019-with-berta/**")
    assert (code, out) == (0, "redacted 6 entries\n")
    assert asked == [
        f"Forget the names in 6 entries, those of the folder {folder} itself among them, for ever?"
    ]
    left = all_bytes(state_dir).replace(f"{folder}s/other".encode(), b"")
    assert b"with-berta" not in left and b"roof" not in left.replace(b"/home/a/taxes/2025/roof.pdf", b"")
    good(state_dir)


def test_a_digest_is_forgotten_after_its_names(
    run: Callable[..., Answer], state: Path, tmp_path: Path
) -> None:
    """Who redacted names first could not name the entries again."""
    letter = tmp_path / "letter"
    letter.write_bytes(b"Dear Berta")
    content = hashlib.sha256(b"Dear Berta").hexdigest()
    log = Log.open(state)
    third = "cccc333300000000"
    log.append("session.start", third, {})
    log.append("session.sealed", third, {})
    log.append("grant", third, {**GRANT, "path": "/l/letter", "resolved": "/l/letter", "sha256": content})
    log.append("denial", third, {"call": "open", "path": "/l/letter", "reason": "x", "count": 1})
    log.append("grant", third, {**GRANT, "path": "/l/other", "resolved": "/l/other", "sha256": "ef" * 32})
    log.append("grant", third, {**GRANT, "path": "/l/other", "resolved": "/l/other", "sha256": "12" * 32})
    log.close()
    assert run("redact", "--path", "/l/letter", "--yes")[1] == "redacted 2 entries\n"
    assert run("redact", "--path", "/l/letter", "--digests", "--yes")[1] == ""
    assert content.encode() in all_bytes(state)
    assert run("redact", "--file", str(letter), "--yes")[1] == ""  # its names are gone
    assert run("redact", "--file", str(letter), "--digests", "--yes")[1] == "redacted 1 entry\n"
    assert content.encode() not in all_bytes(state)
    # names by content, wherever they stand; the digest of another content stays
    assert run("redact", "--digest", "EF" * 16, "--digests", "--yes")[1] == "redacted 2 entries\n"
    assert b"/l/other" not in all_bytes(state) and b"ef" * 32 not in all_bytes(state)
    assert [one.get("sha256") for one in entries(state, session=third)].count("12" * 32) == 1
    assert run("redact", "--digest", "ef" * 7, "--yes")[0] == 2
    assert run("redact", "--digest", "ef" * 8, "--file", str(letter), "--yes")[0] == 2
    assert run("redact", "--file", "/nonexistent", "--yes")[0] == 1
    good(state)


def test_what_was_pruned_is_not_called_unknown(run: Callable[..., Answer], state: Path) -> None:
    """Whoever asks for what was there learns that it can have gone, with what, and until when."""
    size = len(list(entries(state)))
    assert run("show", str(size))[2].startswith(f"anchorhold: the log has no entry and no session '{size}'\n")
    ended = [entry["time"] for entry in entries(state) if entry["kind"] == "epoch.end"][0][:19] + "Z"
    assert run("prune", "--before", "2999-01-01", "--yes")[0] == 0
    before = f"the entries before 13 were pruned, with epoch 0, which ended {ended}\n"
    for which, words in (
        ("5", f"anchorhold: entry 5 was pruned, with epoch 0, which ended {ended}\n"),
        ("12", "anchorhold: entry 12 was pruned, with epoch 0, which"),
        (NAME, f"no session '{NAME}'; such a session may have been pruned: {before}"),
        (NAME[:4], f"; such a session may have been pruned: {before}"),
        ("999", f"; such a session may have been pruned: {before}"),
    ):
        code, out, err = run("show", which)
        assert (code, out) == (1, "") and words in err and "list --kind prune" in err, which
    assert run("show", "nobody")[2].startswith("anchorhold: the log has no entry and no session 'nobody'\n")
    assert run("show", "13")[0] == 0
    for which, code in ((NAME, 1), (f"{NAME}-1", 1), (NAME[:4], 2), (f"{NAME[:4]}-1", 2)):
        found = run("receipt", which)
        assert found[:2] == (code, "") and f" may have been pruned: {before}" in found[2], which
    assert "pruned" not in run("receipt", "nobody")[2] and run("receipt", OTHER)[0] == 0
    assert run("diff", NAME, OTHER)[0] == 2 and before in run("diff", NAME, OTHER)[2]
    end = state / "log/0/end"
    end.write_bytes(end.read_bytes().replace(b"time", b"emit"))
    assert "entry 12 of the audit log cannot be read" in run("show", "5")[2]


def test_a_session_whose_beginning_was_pruned_has_no_receipt(run: Callable[..., Answer], state: Path) -> None:
    third = "cccc333300000000"
    log = Log.open(state)
    session(log, third, 1, end=False)
    log.checkpoint(rotate=True)
    log.append("session.end", third, {})
    log.checkpoint()
    log.close()
    assert run("prune", "--before", "2999-01-01", "--yes")[0] == 0
    code, out, err = run("receipt", third)
    assert (code, out) == (1, "") and "its beginning was pruned: the entries before " in err
    assert "with the epochs 0 to 1, the last of which ended 2" in err


def test_prune(run: Callable[..., Answer], state: Path) -> None:
    assert run("prune", "--before", "2001-01-01", "--yes")[1] == ""
    assert run("prune", "--before", "2999-01-01")[0] == 2
    code, out, _ = run("prune", "--before", "2999-01-01", "--yes", "--reason", "a year")
    assert code == 0 and out == "removed 13 entries in 1 epoch\n"
    assert good(state).pruned == 1


def test_a_pruning_that_was_cut_short_is_finished(
    run: Callable[..., Answer], state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = ("prune", "--before", "2999-01-01", "--yes")

    def failing(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    assert run("key", "--rotate")[0] == 0
    copy = state / "index.sqlite"
    copy.write_text("/home/a/3")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", failing)
        assert run(*chosen)[0] == 1 and run(*chosen)[0] == 1
    assert "prune again" in " ".join(good(state).notes)
    code, _, err = run(*chosen)
    assert code == 0 and "no epoch ended before that" in err
    assert good(state).notes == [] and not (state / "log/0/openings").exists() and not copy.exists()
