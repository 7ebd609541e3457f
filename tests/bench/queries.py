"""Questions to a log of a million entries, from process start to last line, over what Python itself takes to
start; how fast the index is made, and the bytes of log and index.

Every path and every content occurs once, but for one file that each thousandth grant is of: the most that an
index can be asked to hold. ``scattered`` answers lie in a thousand places of the log. Each question's lines
are counted, since one that finds nothing, or not all, is soon answered.
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

MODELS = 9
FOLDERS = 97
HOME = "/home/somebody/documents"
LETTER = f"{HOME}/roof-letter.pdf"
REBUILD, START, BYTES = 100_000, 200.0, 2.0

Question = tuple[int | None, list[str]]
"""How many entries it has to find (None: some, which depends on when the log was made), and its words."""


def _name(number: int) -> str:
    return f"{number * 2654435761 % 2**64:016x}"


def _grants(total: int) -> int:
    return total - 5 * (total // SESSION) - total // OFTEN


def fill(place: Path, total: int = ENTRIES) -> None:
    """Write the log."""
    log = Log.open(place)
    session = ""
    for number in range(_grants(total)):
        at = number % SESSION
        if at == 0:
            if session:
                log.append("request.end", session, {"request": 1, "reason": "stop"})
                log.append("session.end", session, {"reason": "done"})
            session = _name(number + 1)
            model = number // SESSION % MODELS
            fields = {"policy": "taxes", "policy_sha256": "cd" * 32, "layers": {"seccomp": "on"}}
            told: dict[str, object] = {"sha256": _model(model), "size": 98_000_000}
            path = f"/models/{model}.gguf"
            log.append("session.start", session, {**fields, "model": told, "model_path": path})
            log.append("session.sealed", session, {})
            log.append("request.start", session, {"request": 1, "files": [LETTER]})
        if number % OFTEN == 500:
            denied: dict[str, object] = {"call": "openat", "path": f"/etc/shadow-{number}", "count": 1}
            log.append("denial", session, {**denied, "reason": "outside every root", "request": 1})
        path = _path(number)
        cls = "stdin" if number % OFTEN == 11 else "data"
        public, names = encode_grant(cls, 4096 + number % 5000, "snapshot", "sealed", 1, path, path)
        log.write("grant", session, public, names, b'{"sha256":"%b"}' % _content(path).encode("ascii"))
    log.checkpoint()
    log.close()


def _path(number: int) -> str:
    return LETTER if number % OFTEN == 7 else f"{HOME}/{number % FOLDERS}/letter-{number}.txt"


def _content(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()


def _model(number: int) -> str:
    return hashlib.sha256(b"%d" % number).hexdigest()


def _time(place: Path, *arguments: str, lines: int | None = 0) -> float:
    """Milliseconds of a process from its start to its end. ``lines``: how many it must write; None: some."""
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
    found = done.stdout.count(b"\n")
    if found != lines if lines is not None else found < 2:
        raise RuntimeError(f"{arguments} wrote {found} lines, not {lines}: {done.stderr!r}")
    if done.stderr not in (b"", b"no entry matches\n"):  # said where nothing is to be found
        raise RuntimeError(f"{arguments} said {done.stderr!r}")
    return taken


def questions(place: Path, total: int = ENTRIES) -> dict[str, Question]:
    """Every filter of ``audit list``, alone and with others."""
    middle = next(entries(place, first=total // 2 + 1))
    session, second = str(middle["session"]), str(middle["time"])[:23] + "Z"
    later = f"{second[:20]}{int(second[20:23]) // 10 * 10 + 9:03d}Z"
    (place / "letter").write_bytes(LETTER.encode())
    numbers = range(_grants(total))
    run = next(number // SESSION for number in numbers[::SESSION] if _name(number + 1) == session)
    inside = numbers[run * SESSION : (run + 1) * SESSION]
    letters, refused = len(numbers[7::OFTEN]), len(numbers[500::OFTEN])
    runs = len(numbers[::SESSION])
    thirteen = [number for number in inside if number % FOLDERS == 13 and number % OFTEN != 7]
    third = [one for one in range(runs) if one % MODELS == 3]
    in_third = sum(number // SESSION % MODELS == 3 for number in numbers[500::OFTEN])
    begin = _content(_path(0))[:4]
    same = sum(_content(_path(number)).startswith(begin) for number in numbers)
    sevens = sum(str(number).endswith("77777") and number % OFTEN != 7 for number in numbers)
    one = inside[-2]  # neither the letter nor one of a kind
    since, until = ["--since", second], ["--until", later]
    return {
        "--path, whole": (1, ["--path", _path(one)]),
        "--path, a name (scattered)": (letters, ["--path", "roof-letter.pdf"]),
        "--path '*.pdf' (scattered)": (letters, ["--path", "*.pdf"]),
        "--path '*.txt', --last 20": (20, ["--path", "*.txt", "--last", "20"]),
        "--path '*77777.txt'": (sevens, ["--path", "*77777.txt"]),
        "--path '/home/**/letter-1??7?9.txt'": (
            sum(_fits(number) for number in numbers),
            ["--path", "/home/**/letter-1??7?9.txt"],
        ),
        "--path '/etc/**' (scattered)": (refused, ["--path", "/etc/**"]),
        "--path '…/13/**', first thousand": (1000, ["--path", f"{HOME}/13/**", "--limit", "1000"]),
        "--path '/home/**', last thousand": (1000, ["--path", "/home/**", "--last", "1000"]),
        "--path, folder, since": (999, ["--path", f"{HOME}/13", *since, "--limit", "999"]),
        "--path, nowhere": (0, ["--path", "/nowhere/at/all"]),
        "--path '*.docx', nowhere": (0, ["--path", "*.docx"]),
        "--file (scattered)": (letters, ["--file", "letter"]),
        "--digest, whole": (1, ["--digest", _content(_path(one))]),
        "--digest, four digits": (same, ["--digest", begin]),
        "--session, first thousand": (1000, ["--session", session, "--limit", "1000"]),
        "--session, --kind denial": (len(inside) // OFTEN, ["--session", session, "--kind", "denial"]),
        "--request, last thousand": (1000, ["--request", f"{session}-1", "--last", "1000"]),
        "--model, a path, --refused": (in_third, ["--model", "/models/3.gguf", "--refused"]),
        "--model, a digest, --kind session.end": (
            len(third) - (runs - 1 in third),  # the last one does not end
            ["--model", _model(3)[:8], "--kind", "session.end"],
        ),
        "--model, first thousand": (1000, ["--model", "3.gguf", "--limit", "1000"]),
        "--class stdin (scattered)": (len(numbers[11::OFTEN]), ["--class", "stdin"]),
        "--class data, --last 20": (20, ["--class", "data", "--last", "20"]),
        "--kind request.start (scattered)": (runs, ["--kind", "request.start"]),
        "--kind breach, none": (0, ["--kind", "breach"]),
        "--refused (scattered)": (refused, ["--refused"]),
        "--refused --json": (refused, ["--refused", "--json"]),
        "--refused --csv": (refused, ["--refused", "--csv"]),
        "--since, --until": (None, [*since, *until, "--limit", "1000"]),
        "--since, first thousand": (1000, [*since, "--limit", "1000"]),
        "--until, last thousand": (1000, [*until, "--last", "1000"]),
        "--since, --refused": (None, [*since, "--refused"]),
        "--limit 20": (20, ["--limit", "20"]),
        "--last 20": (20, ["--last", "20"]),
        "--last 1000": (1000, ["--last", "1000"]),
        "--path, --session": (len(thirteen), ["--path", f"{HOME}/13", "--session", session]),
        "--path, --class, --until": (None, ["--path", "*.pdf", "--class", "data", *until]),
        "--path, --model, --refused": (
            in_third,
            ["--path", "/etc/**", "--model", "/models/3.gguf", "--refused"],
        ),
        "--file, --request": (
            len(inside) // OFTEN,
            ["--file", "letter", "--request", f"{session}-1"],
        ),
    }


def _fits(number: int) -> bool:
    """Whether the path of a grant is like ``letter-1??7?9.txt``."""
    text = str(number)
    return len(text) == 6 and text[0] == "1" and text[3] == "7" and text[5] == "9" and number % OFTEN != 7


def asked(rounds: int, place: Path) -> list[Row]:
    """A row for each question to the log at ``place``, which `fill` wrote."""
    table = []
    for what, (count, words) in questions(place).items():
        command = ["-m", "anchorhold", "--state-dir", str(place), "audit", "list", *words]
        lines = count + 1 if count and "--csv" in words else count  # one is the heading

        def ours(command: list[str] = command, lines: int | None = lines) -> float:
            return _time(place, *command, lines=lines)

        found = in_turn(rounds, {"ours": ours, "pass": lambda: _time(place, "-c", "pass")})
        over = [one - other for one, other in zip(found["ours"], found["pass"], strict=True)]
        low, high = spread(over)
        table.append(
            Row(
                f"audit list {what}", shown(found["ours"], "ms", 0), "python -c pass",
                shown(found["pass"], "ms", 0), f"+{median(over):.0f} ms ({low:.0f} to {high:.0f})",
                f"< +{START:.0f} ms", median(over) < START,
            )
        )  # fmt: skip
    return table


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
        table += asked(rounds, place)
        log = sum(path.stat().st_blocks * 512 for path in Path(place, "log").rglob("*"))
        index = os.stat(path_of(place)).st_blocks * 512
        lines = sum(len(json.dumps(entry, separators=(",", ":"))) + 1 for entry in entries(place))
    both = (log + index) / lines
    table.append(Row("log and index / JSON lines", f"{both:.2f}", "", "", "", f"≤ {BYTES}", both <= BYTES))
    table.append(Row("index / JSON lines", f"{index / lines:.2f}", "", "", "", "", None))
    return table
