"""One cell as the commands see it: log and session opened, watched and closed together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from anchorhold.cli.inputs import suffixes
from anchorhold.cli.output import Answer, Notes
from anchorhold.cli.progress import Progress
from anchorhold.cli.signals import Guard
from anchorhold.cli.summary import skipped_line, weaker_line
from anchorhold.cli.terminal import clean
from anchorhold.errors import AnchorholdError, WorkerError

if TYPE_CHECKING:
    from anchorhold.policy.schema import Policy
    from anchorhold.supervisor.events import Document, Done
    from anchorhold.supervisor.session import Request
    from anchorhold.supervisor.summary import Summary

MOST_DOCUMENTS = 1_000_000  # reports of one request that are kept
MOST_ANSWER = 64 << 20  # characters of one answer that are kept
MOST_SKIPPED = 20  # skipped files named on the terminal; --json has all


class OutputError(AnchorholdError):
    """The answer cannot be written."""


class Result:
    """What came of one request."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.size = 0
        self.documents: list[Document] = []
        self.ended: Done | None = None

    @property
    def complete(self) -> bool:
        return self.ended is not None

    @property
    def done(self) -> Done:
        """How it ended. Only for a complete one."""
        assert self.ended is not None
        return self.ended

    @property
    def text(self) -> str:
        return "".join(self.parts)


class Cell:
    """Owns the log and the session of one worker."""

    def __init__(self, policy: Policy, state: Path, files: list[str], guard: Guard, notes: Notes) -> None:
        from anchorhold.audit.log import Log
        from anchorhold.supervisor.session import Session

        self.policy = policy
        self.result = Result()
        self._guard = guard
        self._notes = notes
        self._progress = Progress(notes)
        self.started = False
        self._skipped = 0
        self._log = Log.open(
            state,
            durability=policy.audit.durability,
            epoch_seconds=policy.audit.epoch,
            epoch_entries=policy.audit.epoch_entries,
        )
        self._delivery = None
        if policy.audit.witness:
            from anchorhold.audit.delivery import Delivery

            self._delivery = Delivery(state, policy.audit.witness)
            self._log.signed = self._delivery.wake
            self._delivery.wake()  # what was signed since the last run, and while the log was opened
        folders = () if files else policy.data.read
        self._session = Session(
            policy, self._log, state_dir=state, suffixes=suffixes(folders, files or policy.data.files)
        )
        guard.watch(self._session)

    def start(self) -> None:
        self._progress.show("start")
        try:
            self._session.start()
            self.started = True
        finally:
            self._progress.clear()
        if line := weaker_line(self.summary):
            self._notes.line(line)

    def ask(self, request: Request, answer: Answer | None) -> Result:
        """Serve one request; its tokens go to `answer` as they come. The session's errors pass through."""
        self.result = Result()
        self._skipped = 0
        late: list[Document] = []
        try:
            # Closed here and not whenever it is collected: an interruption there would be lost.
            with contextlib.closing(self._session.ask(request)) as events:
                for event in events:
                    self._take(event, answer, late)
        finally:
            self._progress.clear()
            if answer is not None and self.result.parts and not (self._guard.stopped and answer.blocked()):
                writing(answer.end)
            for document in late:
                self._tell(document)
            if self._skipped > MOST_SKIPPED:
                self._notes.line(f"skipped: … and {self._skipped - MOST_SKIPPED} more")
        if self.result.ended is None:
            raise WorkerError("the worker ended without finishing its answer")
        return self.result

    def _take(self, event: object, answer: Answer | None, late: list[Document]) -> None:
        """One event. What the worker says is kept within bounds."""
        from anchorhold.supervisor import events

        result = self.result
        if isinstance(event, events.Token):
            result.size += len(event.text)
            if result.size > MOST_ANSWER:
                raise WorkerError("the worker sends an answer without end")
            result.parts.append(event.text)
            if answer is not None:
                self._progress.clear()
                writing(lambda: answer.text(event.text))
        elif isinstance(event, events.Document):
            if len(result.documents) >= MOST_DOCUMENTS:
                raise WorkerError("the worker reports files without end")
            result.documents.append(event)
            if event.outcome == "skipped":
                late.append(event) if result.parts else self._tell(event)
        elif isinstance(event, events.Unused):
            if len(result.documents) + len(event.paths) > MOST_DOCUMENTS:
                raise WorkerError("the worker reports files without end")
            result.documents += [events.Document(path, "unused", event.reason, 0) for path in event.paths]
        elif isinstance(event, events.Done):
            result.ended = event
        elif result.parts:
            return  # the line of progress would run into the answer
        elif isinstance(event, events.Progress):
            self._progress.show(event.stage, event.done, event.total)
        else:
            assert isinstance(event, events.Phase)
            self._progress.show(event.name)

    def _tell(self, document: Document) -> None:
        """Name a file that could not be read. Only the first ones: a folder may hold thousands."""
        self._skipped += 1
        if self._skipped <= MOST_SKIPPED:
            self._progress.clear()
            self._notes.line(clean(skipped_line(document)))

    @property
    def summary(self) -> Summary:
        return self._session.summary

    def close(self, reason: str = "done") -> None:
        """End the session and close the log. Whatever happens to the one, the other is closed."""
        try:
            self._session.close(reason)
        finally:
            self._log.close()
            self._guard.watch(None)

    def tell_witnesses(self) -> None:
        """After `close`, and after all that the user waits for: let the witnesses take the last head, for a
        moment, and say what did not arrive. The answer stands all the same."""
        delivery, self._delivery = self._delivery, None
        for problem in delivery.close() if delivery is not None else []:
            self._notes.line(f"warning: {clean(str(problem))}")
        if self.policy.audit.copy and self._session.copies_lost:
            self._notes.line(
                f"note: {self._session.copies_lost} copies of entries did not arrive; the log has all"
            )


def writing(write: Callable[[], object]) -> None:
    """A failed write of the answer, told apart from every other OSError. A closed pipe stays what it is."""
    try:
        write()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write the answer to standard output: {error.strerror}") from error
