"""Files that change while they are granted: the digest on record is that of what the worker read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from anchorhold.audit.log import Log
from anchorhold.errors import BreachError
from anchorhold.supervisor import events
from anchorhold.supervisor.session import Request, Session
from tests.integration import cells
from tests.support import session_entries

OPENS = 1500
SIZE = 200_000

# Reads each copy twice, through read and through a mapping, some time apart: a copy never changes.
READS = f"""
import hashlib, json, mmap
def attempt():
    digests = []
    for number in range({OPENS}):
        try:
            file = open(QUESTION, "rb", buffering=0)
        except OSError as error:
            digests.append(str(error.errno))
            continue
        with file:
            first = hashlib.sha256(file.read()).hexdigest()
            file.seek(0)
            second = hashlib.sha256(file.read()).hexdigest()
            try:
                with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
                    third = hashlib.sha256(mapped).hexdigest()
            except ValueError:
                third = first  # an empty file cannot be mapped
        digests.append(first if first == second == third else f"{{first}} {{second}} {{third}}")
    return json.dumps(digests)
"""

# Without a cell, as any program reads: what is read first need not be what is read next.
WITHOUT = (
    READS
    + """
import sys
QUESTION = sys.argv[1]
print(attempt())
"""
)

WRITE = """
import os, sys, itertools
path, how, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("begin", flush=True)
file = os.open(path, os.O_RDWR)
for number in itertools.count():
    data = bytes([number % 251]) * size
    if how == "rewritten":
        os.pwrite(file, data, 0)
    elif how == "truncated":
        os.ftruncate(file, number * 7919 % size)
        os.pwrite(file, data, 0)
    elif how == "grown":
        if number % 50 == 0:
            os.ftruncate(file, 10)
        os.lseek(file, 0, os.SEEK_END)
        os.write(file, data[: size // 50])
    else:
        with open(path + ".new", "wb") as new:
            new.write(data[: size // 2 + number % 1000])
        os.rename(path + ".new", path)
"""


@pytest.fixture
def changing(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A file that a process changes without end, as the parameter says."""
    papers = tmp_path / "papers"
    papers.mkdir()
    paper = papers / "paper.txt"
    paper.write_bytes(b"x" * SIZE)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(paper), request.param, str(SIZE)], stdout=subprocess.PIPE
    )
    assert writer.stdout is not None and writer.stdout.readline() == b"begin\n"
    yield paper
    writer.kill()
    writer.wait()
    writer.stdout.close()


@pytest.mark.parametrize("changing", ["rewritten", "truncated", "grown", "replaced"], indirect=True)
def test_the_digest_is_that_of_what_was_read(state_dir: Path, demo_model: Path, changing: Path) -> None:
    out = cells.run(
        state_dir, cells.policy(demo_model, read=(changing.parent,)), READS, question=str(changing)
    )
    read = json.loads(out.answer)
    granted = [str(entry["sha256"]) for entry in out.log if entry.get("class") == "data"]
    assert len(read) == OPENS
    assert [digest for digest in read if len(digest) == 64] == granted
    refused = [digest for digest in read if len(digest) != 64]
    assert all(digest.isdigit() for digest in refused), "a copy changed under the worker"
    assert len(granted) > OPENS // 2 and len(set(granted)) > 20, "the file hardly changed"


@pytest.mark.parametrize("changing", ["rewritten"], indirect=True)
def test_without_copies_it_would_not_be(changing: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(changing)], capture_output=True, text=True, timeout=50, check=True
    )
    assert [digest for digest in json.loads(done.stdout) if " " in digest]


class Standing:
    """A sealed worker whose model file can be changed before it asks for it. The model is no model: nobody
    parses it here."""

    def __init__(self, folder: Path, *, kill: bool) -> None:
        self.model = folder / "model.gguf"
        self.model.write_bytes(b"first" * 1000)
        self.state = folder / "state"
        self.log = Log.open(self.state)
        source = (
            "import hashlib\ndef attempt():\n"
            "    with open(QUESTION, 'rb') as file: return hashlib.sha256(file.read()).hexdigest()\n"
        )
        self.session = Session(
            cells.policy(self.model, kill=kill), self.log, state_dir=self.state, entry=cells.PROBE,
            config={"source": source},
        )  # fmt: skip
        self.session.start()

    def ask(self) -> str:
        seen = list(self.session.ask(Request(str(self.model))))
        return "".join(event.text for event in seen if isinstance(event, events.Token))

    def end(self) -> list[dict[str, Any]]:
        self.session.close()
        self.log.close()
        return session_entries(self.state)


def test_the_model_that_is_granted_is_the_one_on_record(tmp_path: Path) -> None:
    standing = Standing(tmp_path, kill=True)
    answer = standing.ask()
    log = standing.end()
    (grant,) = [entry for entry in log if entry.get("class") == "model"]
    assert answer == grant["sha256"] == log[0]["model"]["sha256"]


@pytest.mark.parametrize("kill", [False, True])
@pytest.mark.parametrize("how", ["written", "grown", "touched", "replaced"])
def test_a_model_that_changed_since_is_refused(tmp_path: Path, how: str, kill: bool) -> None:
    standing = Standing(tmp_path, kill=kill)
    if how == "replaced":  # the old one, of which a descriptor is held, has lost its name
        (tmp_path / "other").write_bytes(b"second" * 1000)
        os.rename(tmp_path / "other", standing.model)
    elif how == "touched":
        os.utime(standing.model, (1, 1))
    else:
        with open(standing.model, "r+b") as file:
            file.seek(0, os.SEEK_SET if how == "written" else os.SEEK_END)
            file.write(b"other")
    if kill:
        with pytest.raises(BreachError, match="changed after its digest was taken"):
            standing.ask()
    else:
        assert standing.ask().startswith("PermissionError")
    log = standing.end()
    assert not [entry for entry in log if entry.get("class") == "model"]
    assert [entry for entry in log if entry["kind"] == "denial" and "changed" in entry["reason"]]
