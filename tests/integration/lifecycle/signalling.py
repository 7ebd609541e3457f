"""``python -m tests.integration.lifecycle.signalling``: signal a running ``ask``, look what is left.

On standard input a JSON object: state, model, papers, signal (a name, or "pipe": standard output is closed),
stages. On standard output, for each stage, how the program ended.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anchorhold.errors import AnchorholdError
from anchorhold.verify.check import verify
from tests.integration.lifecycle.processes import children, descendants, lives, members, wait_until
from tests.support import session_entries

DEADLY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def kinds(state: Path) -> list[str]:
    try:
        return [entry["kind"] for entry in session_entries(state)]
    except AnchorholdError:  # there is no log yet
        return []


def reached(stage: str, ask: subprocess.Popen[bytes], state: Path) -> bool:
    if stage == "starting":
        return bool(children(ask.pid))
    if stage == "loading":
        return "session.sealed" in kinds(state)
    assert stage == "answering" and ask.stdout is not None
    return bool(select.select([ask.stdout], [], [], 0.01)[0])


def one(wanted: Mapping[str, Any], stage: str) -> dict[str, Any]:
    state = Path(wanted["state"], stage)
    with tempfile.TemporaryFile() as stderr:
        command = [sys.executable, "-m", "anchorhold", "--state-dir", str(state), "ask"]
        command += ["--model", wanted["model"], "--file", wanted["papers"] + "/paper.txt"]
        command += ["--max-tokens", "900", "--temperature", "1", "Tell a very long story about this."]
        ask = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr)
        assert ask.stdout is not None
        wait_until(lambda: reached(stage, ask, state))
        cell, launchers = descendants(ask.pid), set(children(ask.pid))
        sent = time.monotonic()
        if wanted["signal"] == "pipe":
            ask.stdout.close()
        else:
            os.kill(ask.pid, signal.Signals[wanted["signal"]])
        code = ask.wait(20)
        seconds = time.monotonic() - sent
        left = [pid for pid in cell if lives(pid)] + members(launchers)
        stderr.seek(0)
        said = stderr.read().decode()
        if not ask.stdout.closed:
            ask.stdout.close()
    result = verify(str(state))
    whole = result.ok and result.signed == result.size
    log = kinds(state)
    return {"code": code, "seconds": seconds, "cell": cell, "left": left, "stderr": said, "kinds": log,
            "verified": whole or result.text()}  # fmt: skip


def main() -> None:
    for number in DEADLY:  # whoever started us may have ignored them
        signal.signal(number, signal.SIG_DFL)
    wanted = json.load(sys.stdin)
    json.dump({stage: one(wanted, stage) for stage in wanted["stages"]}, sys.stdout)


if __name__ == "__main__":
    main()
