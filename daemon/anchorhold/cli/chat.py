"""``anchorhold chat``: a conversation with a sealed model.

The conversation is kept here, in memory only, and sent along with each question; the worker keeps nothing
between questions that we rely on. So after Ctrl-C, which kills the worker in the middle of an answer, the
next question starts a fresh cell that gets the same conversation up to the last complete answer: the
question that was interrupted is forgotten. ``/reset`` forgets all, and starts a fresh cell too, so that
nothing of one conversation can reach the next.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import click

from anchorhold.cli.cell import Cell
from anchorhold.cli.inputs import MOST_QUESTION
from anchorhold.cli.options import Choices, shared_options
from anchorhold.cli.output import STDIN, Answer, Notes
from anchorhold.cli.signals import Again, Guard, Stop, interruptions
from anchorhold.cli.state import state_dir
from anchorhold.cli.summary import SESSION_DIGITS, end_of_answer, seen_line
from anchorhold.cli.terminal import clean, count, human_size, quote
from anchorhold.errors import AnchorholdError, LimitError, UsageError, WorkerError

if TYPE_CHECKING:
    from pathlib import Path

PROMPT = "> "
MOST_LISTED = 50
HELP = """\
/files   what the model of this conversation was shown
/reset   forget the conversation, start with a fresh cell
/quit    leave (also /bye, Ctrl-D)
Ctrl-C during an answer kills the model; the next question starts a fresh cell and keeps the conversation."""

EPILOG = """\
Lines are edited with readline; what was typed is kept in memory only. Ctrl-C during an answer kills
the model and says so; the next question starts a fresh cell, which gets the conversation up
to the last complete answer. At an empty line Ctrl-C leaves (exit 130).

Where standard input is no terminal, each of its lines is one question.
"""


@click.command(epilog=EPILOG)
@shared_options
@click.pass_context
def chat(ctx: click.Context, /, **values: Any) -> None:
    """Talk with a sealed model about your files.

    \b
    anchorhold chat --data ~/notes
    """
    choices = Choices(**values)
    if choices.stdin_asked:
        raise UsageError("--file - is for ask: chat reads its questions from standard input")
    notes = Notes()
    with Guard() as guard, interruptions(guard):
        Chat(choices, state_dir(ctx), guard, notes).run()


class _Said(AnchorholdError):
    """A failure that was told when it came: only its exit code is left."""

    def __init__(self, failure: AnchorholdError) -> None:
        super().__init__("")
        self.exit_code = failure.exit_code


class Chat:
    """The conversation and, while one lives, the cell that serves it."""

    def __init__(self, choices: Choices, state: Path, guard: Guard, notes: Notes) -> None:
        self._choices = choices
        self._policy = choices.policy(state)
        self._state = state
        self._guard = guard
        self._notes = notes
        self._interactive = os.isatty(STDIN)
        self._history: list[dict[str, str]] = []
        self._cell: Cell | None = None
        self._failure: AnchorholdError | None = None

    def run(self) -> None:
        """Until the end of input. Raises what ended it early and, without a terminal, the first failure."""
        if self._interactive:
            self._notes.line("A sealed model. /help lists the commands; Ctrl-D leaves.")
        try:
            try:
                self._start()
                while (line := self._read()) is not None:
                    if not self._obey(line):
                        break
            finally:
                self._guard.closing()
        finally:
            self._end("interrupted" if self._guard.stopped else "done")
        if self._failure is not None and not self._interactive:
            raise _Said(self._failure)

    def _read(self) -> str | None:
        """The next line, None at the end of input."""
        while True:
            try:
                if not self._interactive:
                    return _decode(sys.stdin.buffer.readline(MOST_QUESTION))
                return self._edit()
            except Again:
                self._notes.write("\n")
            except EOFError:
                self._notes.write("\n")
                return None

    def _edit(self) -> str | None:
        """One line from a terminal; readline edits it where standard output is the terminal too."""
        if not os.isatty(1):
            self._notes.write(PROMPT)
            return _decode(sys.stdin.buffer.readline(MOST_QUESTION))
        import readline

        self._guard.typing = lambda: bool(readline.get_line_buffer())
        try:
            return input(PROMPT).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        finally:
            self._guard.typing = None

    def _obey(self, line: str) -> bool:
        """One line: a command or a question. False to leave."""
        line = line.strip()
        if line in ("/quit", "/bye", "/exit"):
            return False
        if line == "/help":
            self._notes.line(HELP)
        elif line == "/files":
            self._list_files()
        elif line == "/reset":
            self._history.clear()
            self._end("reset")
            self._notes.line("Forgotten. The next question starts a fresh cell.")
        elif line.startswith("/"):
            self._notes.line(f"{quote(line.split()[0])} is no command; /help lists them")
        elif line:
            self._question(line)
        return True

    def _question(self, question: str) -> None:
        try:
            self._answer(question)
        except Stop as stop:
            if stop.number != signal.SIGINT:
                raise
            self._guard.closing()
            self._end("interrupted")
            self._guard.settle()
            self._notes.mark("killed: the model is gone. The next question starts a fresh cell.")
        except (WorkerError, LimitError) as error:
            self._end("failed")
            self._failure = self._failure or error
            self._notes.line("\n".join(part for part in (f"anchorhold: {error}", error.hint) if part))

    def _answer(self, question: str) -> None:
        cell = self._cell or self._start()
        result = cell.ask(self._choices.request(question, history=self._history), Answer())
        self._history += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": result.text},
        ]
        for line in end_of_answer(result, cell.summary):
            self._notes.mark(line)

    def _start(self) -> Cell:
        self._cell = Cell(self._policy, self._state, self._choices.named_files(), self._guard, self._notes)
        self._cell.start()
        self._guard.watch_output()
        return self._cell

    def _end(self, reason: str) -> None:
        """Close the cell, if there is one, and say what it had been shown."""
        cell, self._cell = self._cell, None
        if cell is not None:
            try:
                cell.close(reason)
            finally:
                if cell.started:
                    self._notes.mark(seen_line(cell.summary, cell.result.documents))
                cell.tell_witnesses()

    def _list_files(self) -> None:
        shown = self._cell.summary.shown if self._cell is not None else []
        if self._cell is None or not shown:
            self._notes.line("The model of this conversation has been shown no file yet.")
            return
        for path, sha256, size in shown[:MOST_LISTED]:
            self._notes.line(clean(f"{quote(path)}  {human_size(size)}  sha256 {sha256[:SESSION_DIGITS]}…"))
        if len(shown) > MOST_LISTED:
            session = self._cell.summary.session[:SESSION_DIGITS]
            rest = count(len(shown) - MOST_LISTED, "more file")
            self._notes.line(f"… and {rest}: anchorhold audit show {session}")


def _decode(line: bytes) -> str | None:
    return line.decode("utf-8", "replace") if line else None
