"""``python -m anchorhold.verify DIR [--key VKEY] [--json]``.

Exit codes: 0 the log verifies, 5 it does not, 1 it cannot be read, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import sys

from anchorhold.verify.check import verify
from anchorhold.verify.result import LogUnreadable


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m anchorhold.verify", description="Verify an audit log.")
    parser.add_argument("directory", help="a state directory, or a log's own folder")
    parser.add_argument("--key", help="the verifier key (vkey) to trust; default: the one beside the log")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args(arguments)
    try:
        result = verify(options.directory, vkey=options.key)
    except LogUnreadable as error:
        print(f"error: {ascii(str(error))[1:-1]}", file=sys.stderr)
        return 1
    print(json.dumps(result.as_dict()) if options.json else result.text())
    return 0 if result.ok else 5


if __name__ == "__main__":
    sys.exit(main())
