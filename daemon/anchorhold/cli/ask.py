"""``anchorhold ask``: one question, one cell, one answer."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from anchorhold.cli import place
from anchorhold.cli.cell import Cell, Result, writing
from anchorhold.cli.inputs import read_material, read_question
from anchorhold.cli.options import Choices, shared_options
from anchorhold.cli.output import STDOUT, Answer, Notes, write_all
from anchorhold.cli.signals import Guard, interruptions
from anchorhold.cli.state import state_dir
from anchorhold.cli.summary import as_json, end_of_answer, seen_line
from anchorhold.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

EPILOG = """\
The answer goes to standard output as it is generated; all else goes to standard error: progress,
files that could not be read, and at the end the names of the files whose text was in the prompt and one line
on what the model was shown and refused. On a terminal that is the end of the answer; in a pipe
the answer stays clean.

On a terminal, control and escape sequences in the answer are shown instead of obeyed. A pipe or file gets the
model's text unchanged, --json has it as a string; there is no option to send it raw to a terminal.

With a QUESTION, standard input is material to show the model, if it is a pipe or a regular file. A pipe that
sends nothing for 2 seconds is left alone (a note says so); --file - waits for it. Without a QUESTION,
standard input is the question.

--json prints one object when the answer is complete: v, answer, reason, session, model, policy, usage,
files, documents, shown, refused, layers, missing, hidden, left_out. After an error there is none.
"""


@click.command(epilog=EPILOG)
@shared_options
@click.option("--json", "as_object", is_flag=True, help="Print one JSON object instead of the text.")
@click.option(
    "--receipt", metavar="FILE", help="Write what the answer was made from, with the proof, to FILE."
)
@click.argument("question", required=False)
@click.pass_context
def ask(
    ctx: click.Context, /, question: str | None, as_object: bool, receipt: str | None, **values: Any
) -> None:
    """Ask a sealed model one question about your files.

    \b
    anchorhold ask --data ~/notes "Which notes mention the harbour?"
    anchorhold ask --file ~/taxes/2025.pdf "What did I pay for the roof?"
    git diff | anchorhold ask "What does this change?"
    """
    started = time.monotonic()
    choices = Choices(**values)
    if receipt is not None:
        place.check(receipt)  # before a model is asked in vain
    request = run(choices, question, as_object, state_dir(ctx), started)
    if receipt is not None:
        from anchorhold.audit.receipt import make

        place.write(receipt, make(state_dir(ctx), request))


def run(choices: Choices, question: str | None, as_object: bool, state: Path, started: float) -> str:
    """Answer, and raise what ended it early. The cell is closed when this returns, whichever way.

    Returns the name that the request has in the log.
    """
    notes = Notes()
    with Guard() as guard, interruptions(guard):
        policy = choices.policy(state)
        typed = question is None
        if question is None:
            if choices.stdin_asked:
                raise UsageError(
                    "--file - needs the question as an argument: standard input is one thing only"
                )
            question = read_question(notes.line)
        elif not question.strip():
            raise UsageError("no question: it is empty")
        cell = Cell(policy, state, choices.named_files(), guard, notes)
        outcome = "failed"
        try:
            try:
                cell.start()
                guard.watch_output()
                material = None
                if not typed:
                    material = read_material(notes.line, asked=choices.stdin_asked, started=started)
                request = choices.request(question, material=material)
                result = cell.ask(request, None if as_object else Answer())
                outcome = "done"
            finally:
                guard.closing()
        finally:
            try:
                cell.close("interrupted" if guard.stopped else outcome)
            finally:
                for line in end_of_answer(cell.result, cell.summary) if cell.result.complete else []:
                    notes.mark(line)
                if cell.started:
                    notes.mark(seen_line(cell.summary, cell.result.documents))
                if not as_object or outcome != "done":
                    cell.tell_witnesses()
    if as_object:
        try:
            print_object(cell, result)
        finally:
            cell.tell_witnesses()
    return f"{cell.summary.session}-1"


def print_object(cell: Cell, result: Result) -> None:
    """The result as JSON, all ASCII: safe on a terminal, and escaped bytes of paths survive."""
    done = result.done
    usage = {
        "prompt_tokens": done.prompt_tokens,
        "output_tokens": done.output_tokens,
        "seconds": round(done.prompt_seconds + done.output_seconds, 3),
    }
    rows = as_json(
        answer=result.text,
        reason=done.reason,
        files=done.files,
        documents=result.documents,
        usage=usage,
        summary=cell.summary,
        policy=cell.policy.digest,
        model=cell.policy.model.path,
    )
    line = json.dumps(rows, ensure_ascii=True).replace("\x7f", "\\u007f") + "\n"
    writing(lambda: write_all(STDOUT, line.encode("ascii")))
