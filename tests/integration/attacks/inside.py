"""``python -m tests.integration.attacks.inside``: one cell in a process of its own, so that any user may.

On standard input a JSON object: state, model, read, source, if need be kill, require, question, limits,
unmeasured, deny.
On standard output one too: answer, log, layers, missing, refused; or error, kind, exit, log.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anchorhold.errors import AnchorholdError
from anchorhold.policy.schema import Limits
from tests.cellcoverage import counting
from tests.integration import cells
from tests.support import session_entries


def run(wanted: Mapping[str, Any]) -> dict[str, Any]:
    state = Path(wanted["state"])
    rules = cells.policy(
        Path(wanted["model"]),
        read=tuple(map(Path, wanted["read"])),
        kill=wanted.get("kill", False),
        require=tuple(wanted.get("require", ("seccomp", "landlock"))),
        limits=Limits(**wanted.get("limits", {})),
        **({"deny": tuple(wanted["deny"])} if "deny" in wanted else {}),
    )
    try:
        out = cells.run(state, rules, wanted["source"], question=wanted.get("question", "go"))
    except AnchorholdError as error:
        log = session_entries(state) if state.exists() else []
        return {"error": str(error), "kind": type(error).__name__, "exit": error.exit_code, "log": log}
    return {
        "answer": out.answer,
        "log": out.log,
        "layers": out.summary.layers,
        "missing": out.summary.missing,
        "refused": out.summary.refused_total,
    }


def main() -> None:
    wanted = json.load(sys.stdin)
    # Unmeasured: the launcher itself, which keeps no descriptor for what was counted.
    with contextlib.nullcontext() if wanted.get("unmeasured") else counting():
        json.dump(run(wanted), sys.stdout)


if __name__ == "__main__":
    main()
