"""Entry of the command line, and the one place where errors become text and exit codes.

Imports almost nothing: until `main()` runs, Ctrl-C would print a traceback of whatever is being
imported. It first lets SIGINT end the process in the ordinary way, then imports the commands.
"""

from __future__ import annotations

import errno
import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what writing to a redirected standard output can give
DEBUG_VARIABLE = "ANCHORHOLD_DEBUG"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code comes back. `arguments` are those after the program's name."""
    before = signal.getsignal(signal.SIGINT)
    if before != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from anchorhold.cli import output

    output.open_standard_descriptors()
    from anchorhold.cli import root

    if before != signal.SIG_IGN:
        signal.signal(signal.SIGINT, before)
    code = _answer_for(root.root, list(sys.argv[1:] if arguments is None else arguments))
    return _flush(code)


def _answer_for(command: _Command, arguments: list[str]) -> int:
    import click

    from anchorhold.cli.signals import INTERRUPTED
    from anchorhold.errors import AnchorholdError

    try:
        return _run(command, arguments)
    except click.exceptions.Exit as finished:
        return finished.exit_code
    except click.ClickException as error:
        _say(_usage_text(error))
        return error.exit_code
    except AnchorholdError as error:
        if str(error):
            _say(f"anchorhold: {error}")
        if error.hint:
            _say(error.hint)
        if error.detail and _debugging():
            _say(error.detail)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        _say("anchorhold: interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return INTERRUPTED
    except OSError as error:
        return _full(error) if error.errno in FULL and error.filename is None else _unexpected(error)
    except Exception as error:  # the last line of defence: a user gets one line, not a traceback
        return _unexpected(error)


def _run(command: _Command, arguments: list[str]) -> int:
    from anchorhold.cli.root import COMPLETE_VARIABLE

    instruction = os.environ.get(COMPLETE_VARIABLE)
    if instruction:
        from click.shell_completion import shell_complete

        return shell_complete(command, {}, "anchorhold", COMPLETE_VARIABLE, instruction)
    with command.make_context("anchorhold", arguments) as context:
        command.invoke(context)
    return 0


def _usage_text(error: _ClickException) -> str:
    """What `ClickException.show` prints, as text."""
    import click

    lines = [f"Error: {error.format_message()}"]
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None:
        lines = [context.get_usage(), f"Try '{context.command_path} -h' for help.", "", *lines]
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error.format_message()
    return "\n".join(lines)


def _full(error: OSError) -> int:
    from anchorhold.cli import output

    output.discard_standard_output()
    _say(f"anchorhold: cannot write to standard output: {error.strerror}")
    return 1


def _unexpected(error: Exception) -> int:
    if _debugging():
        import traceback

        _say("".join(traceback.format_exception(error)).rstrip("\n"))
    else:
        _say(f"anchorhold: unexpected {type(error).__name__}: {error}")
        _say(f"This is a defect. {DEBUG_VARIABLE}=1 shows where it happened.")
    return 1


def _debugging() -> bool:
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


def _say(text: str) -> None:
    from anchorhold.cli.output import Notes

    Notes().line(text)


def _flush(code: int) -> int:
    """Write out what Python buffered, here, where a closed pipe or a full disk is still an exit code."""
    from anchorhold.cli import output, signals

    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            output.discard_standard_output()
            return signals.INTERRUPTED
        return _full(error)
    return code


if TYPE_CHECKING:
    from click import ClickException as _ClickException
    from click import Command as _Command
