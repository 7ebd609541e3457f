"""A refusal is an exception: whatever a handler raises, the worker gets nothing."""

from __future__ import annotations

import errno


class Refusal(Exception):
    """The worker gets ``errno``; the log gets ``reason``.

    breach: the policy may answer it with a kill. A file that is within the policy but cannot be had
    (unreadable, too large) is refused without being a breach. answer: which key of ``[breach]`` decides.
    """

    def __init__(
        self, code: int, reason: str, *, breach: bool, rule: str = "", answer: str = "on_denied_open"
    ) -> None:
        super().__init__(reason)
        self.errno = code
        self.reason = reason
        self.breach = breach
        self.rule = rule
        self.answer = answer


class Absent(Exception):
    """Within what the worker may see, and not there. An answer like any other, no refusal."""

    def __init__(self, code: int = errno.ENOENT) -> None:
        super().__init__(code)
        self.errno = code


def outside(what: str = "outside the policy") -> Refusal:
    """The one answer to every path outside the policy, whether anything is there or not."""
    return Refusal(errno.EACCES, what, breach=True)
