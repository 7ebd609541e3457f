"""What would a worker get for a path, which rule decides, and how the way there was resolved.

Goes the broker's way on the real file system, step by step, without granting anything; a test holds the two
to the same answers. The text of the path is decided on first; outside the policy the file system is not
touched.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from anchorhold.kernel.openat2 import (
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    openat2,
)
from anchorhold.policy.match import Matcher
from anchorhold.policy.schema import Policy
from anchorhold.policy.values import shown

MOST_LINKS = 40  # path_resolution(7)
_LOOK = os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


class Explanation:
    """``outcome``: ``snapshot``, ``direct``, ``listing``, ``nothing`` (allowed, not there) or ``refusal``.

    ``breach``: the refusal is one that the policy answers with ``answer`` (``kill`` or ``deny``).
    """

    __slots__ = ("answer", "breach", "hint", "outcome", "path", "reason", "resolved", "rule", "size", "steps")

    def __init__(self, path: bytes) -> None:
        self.path = path
        self.rule = ""
        self.steps: list[str] = []
        self.resolved: bytes | None = None
        self.outcome = "refusal"
        self.reason = ""
        self.hint = ""
        self.breach = False
        self.answer = "deny"
        self.size: int | None = None

    def as_dict(self) -> dict[str, object]:
        return {
            "path": os.fsdecode(self.path),
            "rule": self.rule,
            "resolved": None if self.resolved is None else os.fsdecode(self.resolved),
            "steps": self.steps,
            "outcome": self.outcome,
            "reason": self.reason,
            "size": self.size,
            "breach": self.breach,
            "answer": self.answer,
        }


class _Refused(Exception):
    def __init__(self, reason: str, hint: str, *, breach: bool = True, rule: str = "") -> None:
        super().__init__(reason)
        self.hint = hint
        self.breach = breach
        self.rule = rule


class _Nothing(Exception):
    """Allowed, and nothing is there."""


def explain(policy: Policy, path: bytes) -> Explanation:
    """path: absolute and clean."""
    found = Explanation(path)
    try:
        _explain(policy, path, found)
    except _Refused as refused:
        found.outcome, found.reason, found.hint = "refusal", str(refused), refused.hint
        found.rule = refused.rule or found.rule
        found.breach = refused.breach
        found.answer = policy.breach.on_denied_open if refused.breach else "deny"
    except _Nothing as nothing:
        found.outcome, found.reason, found.hint = "nothing", str(nothing), "Name a file that exists."
    return found


def _explain(policy: Policy, path: bytes, found: Explanation) -> None:
    if path == os.fsencode(policy.model.path):
        found.rule = f"model.path {shown(policy.model.path)}"
        found.outcome, found.resolved = "direct", os.path.realpath(path)
        found.reason = "the model: the file itself, read-only; its digest is recorded first"
        return
    matcher = Matcher(policy.data)
    decision = matcher.decide(path)
    found.rule = decision.rule
    if not decision.allowed:
        if decision.root < 0:
            raise _Refused(decision.rule, "What the runtime itself needs is answered apart from the policy.")
        raise _Refused(decision.rule, "A deny rule hides it; it is not in listings either.")
    root = matcher.roots[decision.root]
    base = os.path.dirname(root.path) if root.is_file else root.path
    try:
        fd = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _Refused(
            f"{shown(os.fsdecode(base))}: {error.strerror}", "No worker starts so.", breach=False
        ) from None
    try:
        walk = _Walk(fd, base, policy.data.cross_mounts, found.steps)
        relative = os.path.basename(root.path) if root.is_file else decision.relative
        handle, resolved = walk.go(relative, links=not root.is_file)
        try:
            found.resolved = os.path.join(walk.real, resolved) if resolved else walk.real
            rule = None if root.is_file else matcher.hidden(decision.root, resolved)
            if rule is not None:
                raise _Refused(
                    f"a link to what {rule} hides", "The rule holds for where a path leads.", rule=rule
                )
            _judge(policy, handle, found)
        finally:
            os.close(handle)
    finally:
        os.close(fd)


def _judge(policy: Policy, handle: int, found: Explanation) -> None:
    status = os.fstat(handle)
    if stat.S_ISDIR(status.st_mode):
        found.outcome = "listing"
        found.reason = "the names in it that the policy shows, recorded first"
        return
    if not stat.S_ISREG(status.st_mode):
        kind = KINDS.get(stat.S_IFMT(status.st_mode), "a special file")
        raise _Refused(f"no regular file: {kind}", "Only regular files and folders are granted.")
    found.size = status.st_size
    if status.st_nlink > 1 and policy.data.hardlinks == "deny":
        raise _Refused(
            f'it has {status.st_nlink} names (data.hardlinks = "deny")',
            'Copy it, or use a policy with data.hardlinks = "allow".',
            breach=False,
        )
    if status.st_size > policy.data.max_file:
        raise _Refused(
            f"{status.st_size} bytes, over data.max_file = {policy.data.max_file}",
            "Use a policy with a larger data.max_file.",
            breach=False,
        )
    try:
        os.close(os.open(f"/proc/self/fd/{handle}", _READ))
    except OSError as error:
        raise _Refused(
            f"this user may not read it: {error.strerror}", "Check its mode.", breach=False
        ) from None
    found.outcome = "snapshot"
    found.reason = f"a sealed copy of its {status.st_size} bytes, hashed and recorded first"


class _Walk:
    """One walk below one root; each link and its target is a step."""

    def __init__(self, fd: int, base: bytes, cross_mounts: bool, steps: list[str]) -> None:
        self.fd = fd
        self.base = base
        self.real = os.readlink(b"/proc/self/fd/%d" % fd)
        self.cross_mounts = cross_mounts
        self.steps = steps
        self.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS
        if not cross_mounts:
            self.resolve |= RESOLVE_NO_XDEV

    def go(self, relative: bytes, *, links: bool) -> tuple[int, bytes]:
        """A descriptor of what is there, and its path below the root. The caller closes it."""
        pending = _parts(relative)
        done: list[bytes] = []
        followed = 0
        handle = self._open(b".")
        try:
            while pending:
                part = pending.pop()
                if part == b"..":
                    if not done:
                        raise _out("a link leads out of its root")
                    done.pop()
                    continue
                os.close(handle)
                handle = -1
                handle = self._open(b"/".join((*done, part)))
                if not stat.S_ISLNK(os.fstat(handle).st_mode):
                    done.append(part)
                    continue
                if not links:
                    raise _out("a link stands where the granted file was")
                followed += 1
                if followed > MOST_LINKS:
                    raise _Nothing("too many links, one after the other")
                pending += self._target(os.readlink(b"", dir_fd=handle), done, part)
            os.close(handle)
            handle = -1
            resolved = b"/".join(done)
            handle = self._open(resolved or b".")
        except BaseException:
            if handle >= 0:
                os.close(handle)
            raise
        return handle, resolved

    def _target(self, target: bytes, done: list[bytes], name: bytes) -> list[bytes]:
        """The components to go instead of the link, last first."""
        link = os.fsdecode(b"/".join((*done, name)))
        self.steps.append(f"{shown(link)} is a link to {shown(os.fsdecode(target))}")
        if not target.startswith(b"/"):
            return _parts(target)
        for root in (self.base, self.real):
            if target == root or target.startswith(root.rstrip(b"/") + b"/"):
                done.clear()
                return _parts(target[len(root) :])
        raise _out("a link leads out of its root")

    def _open(self, relative: bytes) -> int:
        try:
            return openat2(self.fd, relative, _LOOK, 0, self.resolve)
        except OSError as error:
            code = error.errno
        if code in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            raise _Nothing(os.strerror(code))
        if code == errno.EXDEV and not self.cross_mounts:
            raise _Refused(
                "lies on another mount (data.cross_mounts = false)",
                "Name the mounted folder itself, or use a policy with data.cross_mounts = true.",
                breach=False,
            )
        raise _Refused(
            f"this user may not reach it: {os.strerror(code or 0)}", "Check the modes.", breach=False
        )


def _parts(path: bytes) -> list[bytes]:
    """Components, last first."""
    return [part for part in path.split(b"/") if part not in (b"", b".")][::-1]


def _out(reason: str) -> _Refused:
    return _Refused(reason, "Only what lies in the root itself is granted; add a root, or copy the file.")


__all__: Sequence[str] = ["Explanation", "explain"]
