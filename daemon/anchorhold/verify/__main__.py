"""The verifier as a command, without anchorhold.

``python -m anchorhold.verify DIR [--key VKEY|FILE] [--witness VKEY|FOLDER]… [--without-names] [--json]``
``python -m anchorhold.verify receipt FILE --key VKEY|FILE [--with FILE]… [--json]``

As one file (``tools/verifier``) it is called by that file's name.

Exit codes: 0 it verifies, 5 it does not, 1 it cannot be read, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import sys

from anchorhold.verify.check import verify
from anchorhold.verify.note import NoteError, given_key
from anchorhold.verify.receipt import ReceiptError, report, text, verify_receipt
from anchorhold.verify.result import LogUnreadable, WitnessUnusable

NAME = "python -m anchorhold.verify"


def main(arguments: list[str] | None = None, *, name: str = NAME) -> int:
    """The command; returns the exit code. ``arguments``: default those of the process. ``name``: what it was
    called by, for its usage."""
    given = sys.argv[1:] if arguments is None else arguments
    name = ascii(name)[1:-1]
    try:
        return _receipt(given[1:], name) if given[:1] == ["receipt"] else _log(given, name)
    except BrokenPipeError:
        return 1
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "cryptography":
            raise
        print("error: it needs the Python package cryptography to check signatures", file=sys.stderr)
        return 1
    except WitnessUnusable as error:
        print(f"error: {ascii(str(error))[1:-1]}", file=sys.stderr)
        return 2
    except (LogUnreadable, OSError) as error:
        print(f"error: {ascii(str(error))[1:-1]}", file=sys.stderr)
        return 1


def _key(given: str) -> str:
    try:
        return given_key(given)
    except NoteError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _log(arguments: list[str], name: str) -> int:
    parser = argparse.ArgumentParser(
        prog=name, description="Verify an audit log.", epilog="A receipt: %(prog)s receipt --help"
    )
    parser.add_argument("directory", help="a state directory, or a log's own folder")
    parser.add_argument(
        "--key",
        metavar="VKEY|FILE",
        type=_key,
        help="the verifier key to trust; default: the one beside the log",
    )
    parser.add_argument(
        "--witness", action="append", default=[], metavar="VKEY|FOLDER|FILE",
        help="the vkey of a witness that must have cosigned, or a folder or file of checkpoints kept"
             " elsewhere",
    )  # fmt: skip
    parser.add_argument(
        "--without-names", action="store_true", help="this copy of the log was made without names and digests"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args(arguments)
    result = verify(
        options.directory, vkey=options.key, witnesses=options.witness, names=not options.without_names
    )
    print(json.dumps(result.as_dict()) if options.json else result.text())
    return 0 if result.ok else 5


def _receipt(arguments: list[str], name: str) -> int:
    parser = argparse.ArgumentParser(prog=f"{name} receipt", description="Verify a receipt.")
    parser.add_argument("file", help="the receipt")
    parser.add_argument("--key", metavar="VKEY|FILE", type=_key, required=True, help="the log's verifier key")
    parser.add_argument(
        "--with",
        action="append",
        default=[],
        dest="files",
        metavar="FILE",
        help="a document or an answer to look for",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args(arguments)
    with open(options.file, "rb") as file:
        data = file.read()
    files = []
    for path in options.files:
        with open(path, "rb") as file:
            files.append((path, file.read()))
    try:
        result, known = report(verify_receipt(data, options.key), files)
    except ReceiptError as error:
        if options.json:
            print(json.dumps({"ok": False, "problem": str(error)}))
        else:
            print(f"result   the receipt does NOT verify: {ascii(str(error))[1:-1]}")
        return 5
    print(json.dumps(result) if options.json else text(result))
    return 0 if known else 5


if __name__ == "__main__":
    sys.exit(main())
