"""Questions to a log of a million entries, from process start to last line, over what Python itself takes to
start; how fast the index is made, and the bytes of log and index.

Every path and every content occurs once, but for one file that each thousandth grant is of: the most that an
index can be asked to hold. ``scattered`` answers lie in a thousand places of the log.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from anchorhold.audit.entry import encode_grant
from anchorhold.audit.index.build import rebuild
from anchorhold.audit.index.schema import path_of
from anchorhold.audit.log import Log
from anchorhold.audit.query import entries, log_size
from tests.bench.measure import TOP, Row, environment, folder, in_turn, median, shown, spread

ENTRIES = 1_000_000
SESSION = 2_000
"""Grants in a session."""

OFTEN = 1_000
"""Grants from one of the file that is read again and again to the next, and from one refusal to the next."""

LETTER = "/home/somebody/documents/roof-letter.pdf"
REBUILD, START, BYTES = 100_000, 200.0, 2.0


def _name(number: int) -> str:
    return f"{number * 2654435761 % 2**64:016x}"


def fill(place: Path, total: int = ENTRIES) -> None:
    """Write the log."""
    log = Log.open(place)
    session = ""
    for number in range(total - 5 * (total // SESSION) - total // OFTEN):
        at = number % SESSION
        if at == 0:
            if session:
                log.append("request.end", session, {"request": 1, "reason": "stop"})
                log.append("session.end", session, {"reason": "done"})
            session = _name(number + 1)
            model = number // SESSION % 9
            digest = hashlib.sha256(b"%d" % model).hexdigest()
            fields = {"policy": "taxes", "policy_sha256": "cd" * 32, "layers": {"seccomp": "on"}}
            told: dict[str, object] = {"sha256": digest, "size": 98_000_000}
            path = f"/models/{model}.gguf"
            log.append("session.start", session, {**fields, "model": told, "model_path": path})
            log.append("session.sealed", session, {})
            log.append("request.start", session, {"request": 1, "files": [LETTER]})
        if number % OFTEN == 500:
            denied: dict[str, object] = {"call": "openat", "path": f"/etc/shadow-{number}", "count": 1}
            log.append("denial", session, {**denied, "reason": "outside every root", "request": 1})
        path = f"/home/somebody/documents/{number % 97}/letter-{number}.txt"
        if number % OFTEN == 7:
            path = LETTER
        cls = "stdin" if number % OFTEN == 11 else "data"
        public, names = encode_grant(cls, 4096 + number % 5000, "snapshot", "sealed", 1, path, path)
        content = hashlib.sha256(path.encode()).hexdigest()
        log.write("grant", session, public, names, b'{"sha256":"%b"}' % content.encode("ascii"))
    log.checkpoint()
    log.close()


def _time(place: Path, *arguments: str) -> float:
    """Milliseconds of a process from its start to its end."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        env={**environment(), "PYTHONPATH": str(TOP / "daemon")},
        cwd=place,
        timeout=120,
        check=True,
    )
    taken = (time.perf_counter() - started) * 1e3
    assert done.stderr in (b"", b"no entry matches\n"), done.stderr
    return taken


def _questions(place: Path) -> dict[str, list[str]]:
    middle = next(entries(place, first=ENTRIES // 2 + 1))
    session, second = str(middle["session"]), str(middle["time"])[:23] + "Z"
    later = f"{second[:20]}{int(second[20:23]) // 10 * 10 + 9:03d}Z"
    (place / "letter").write_bytes(LETTER.encode())
    return {
        "--path, a name (scattered)": ["--path", "roof-letter.pdf"],
        "--path, whole": ["--path", "/home/somebody/documents/13/letter-500111.txt"],
        "--path '*77777.txt'": ["--path", "*77777.txt"],
        "--path '/home/**/letter-1??7?9.txt'": ["--path", "/home/**/letter-1??7?9.txt"],
        "--path, folder, since": [
            "--path",
            "/home/somebody/documents/13",
            "--since",
            second,
            "--limit",
            "999",
        ],
        "--file (scattered)": ["--file", "letter"],
        "--digest": ["--digest", hashlib.sha256(b"x").hexdigest()[:5]],
        "--session, first thousand": ["--session", session, "--limit", "1000"],
        "--request, last thousand": ["--request", f"{session}-1", "--last", "1000"],
        "--model, --refused": ["--model", "/models/3.gguf", "--refused"],
        "--class stdin (scattered)": ["--class", "stdin"],
        "--kind request.start (scattered)": ["--kind", "request.start"],
        "--refused (scattered)": ["--refused"],
        "--refused --json": ["--refused", "--json"],
        "--refused --csv": ["--refused", "--csv"],
        "--since, --until": ["--since", second, "--until", later, "--limit", "1000"],
        "--last 1000": ["--last", "1000"],
        "nothing matches": ["--path", "/nowhere/at/all"],
    }


def rows(rounds: int) -> list[Row]:
    with folder() as place:
        fill(place)
        size = log_size(place)
        rates = []
        for _ in range(max(3, rounds // 2)):
            started = time.perf_counter()
            rebuild(place)
            rates.append(size / (time.perf_counter() - started))
        enough = median(rates) >= REBUILD
        table = [Row("index rebuild", shown(rates, "/s", 0), "", "", "", f"≥ {REBUILD}", enough)]
        for what, words in _questions(place).items():
            command = ["-m", "anchorhold", "--state-dir", str(place), "audit", "list", *words]
            found = in_turn(
                rounds,
                {
                    "ours": lambda command=command: _time(place, *command),  # type: ignore[misc]  # its default
                    "pass": lambda: _time(place, "-c", "pass"),
                },
            )
            over = [one - other for one, other in zip(found["ours"], found["pass"], strict=True)]
            low, high = spread(over)
            table.append(
                Row(
                    f"audit list {what}", shown(found["ours"], "ms", 0), "python -c pass",
                    shown(found["pass"], "ms", 0), f"+{median(over):.0f} ms ({low:.0f} to {high:.0f})",
                    f"< +{START:.0f} ms", median(over) < START,
                )
            )  # fmt: skip
        log = sum(path.stat().st_blocks * 512 for path in Path(place, "log").rglob("*"))
        index = os.stat(path_of(place)).st_blocks * 512
        lines = sum(len(json.dumps(entry, separators=(",", ":"))) + 1 for entry in entries(place))
    both = (log + index) / lines
    table.append(Row("log and index / JSON lines", f"{both:.2f}", "", "", "", f"≤ {BYTES}", both <= BYTES))
    table.append(Row("index / JSON lines", f"{index / lines:.2f}", "", "", "", "", None))
    return table
