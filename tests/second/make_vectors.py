"""Writes docs/vectors/ anew, by the program itself: a log with a pruned epoch, an erased name, an epoch that
goes on; receipts; a cosignature. ``python -m tests.second.make_vectors``: only when the format changes, for
the keys are drawn anew each time.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from anchorhold.audit import prune, redact
from anchorhold.audit.log import Log
from tests.second.forms import Head, Key, leaf, root
from tests.second.verifier import Log as Second
from tests.unit.audit.logs import session

PLACE = Path(__file__).parents[2] / "docs" / "vectors"
SESSION = "00000000000000cc"


def anchorhold(state: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "anchorhold", "--state-dir", str(state), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        state, witness = Path(folder, "state"), Path(folder, "witness")
        log = Log.open(state)
        session(log, "00000000000000aa", 2)
        log.checkpoint(rotate=True)
        log.close()
        prune.prune(state, "2999-01-01T00:00:00.000000Z", reason="old", by="me")
        log = Log.open(state)
        session(log, "00000000000000bb", 2)
        log.checkpoint(rotate=True)
        session(log, SESSION, 3)
        log.checkpoint()
        redact.redact(
            state, lambda entry: entry.get("path") == "/home/a/1", ("names",), reason="asked to", by="me"
        )
        log.append("session.start", "00000000000000dd", {})  # unsettled
        log.close()
        vkey = (state / "log" / "vkey").read_text().strip()
        anchorhold(state, "audit", "receipt", f"{SESSION}-1", "-o", str(PLACE / "receipt.json"))
        hidden = str(PLACE / "receipt-without-names.json")
        anchorhold(state, "audit", "receipt", f"{SESSION}-1", "--hide-paths", "-o", hidden)
        cosigned = str(PLACE / "cosigned.txt")
        anchorhold(
            witness, "audit", "cosign", str(state / "log"), "--key", vkey, "--as", "w.example", "-o", cosigned
        )
        seen = anchorhold(witness, "audit", "cosign", "--vkey").strip()
        second = Second(state)
        key = Key((state / "log" / "2" / "vkey").read_text().strip())
        head = Head((state / "log" / "2" / "checkpoint").read_bytes(), key)
        hashes = [leaf(entry.data) for entry in second.entries if entry.seq >= second.size - head.size]
        assert second.sound and root(hashes) == head.root
        shutil.copytree(state / "log", PLACE / "log", ignore=shutil.ignore_patterns("lock", "key", ".tmp-*"))
    told = {
        "vkey": vkey,
        "witness": seen,
        "sizes": [second.size, head.size],
        "root": head.root.hex(),
        "leaves": [one.hex() for one in hashes],
        "roots": [root(hashes[:size]).hex() for size in range(len(hashes) + 1)],
        "erased": {str(seq): sorted(names) for seq, names in second.erased.items()},
        "session": SESSION,
    }
    (PLACE / "expected.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
