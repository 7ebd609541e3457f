"""Resolution below the policy's roots: never out of them, whatever links, mounts and races there are.

A path without links is opened in one call that follows none. Where there are links, they are
followed here, one at a time and on our own copy: a target that stays below the same root is taken,
relative or absolute; one that leaves is refused from its text, without a look at what it names.
Source: openat2(2), path_resolution(7).
"""

from __future__ import annotations

import errno
import os
import stat

from anchorhold.broker.refusal import Absent, Refusal, outside
from anchorhold.kernel import openat2 as _openat2
from anchorhold.kernel.openat2 import (
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    openat2,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MAX_LINKS = 40  # path_resolution(7)
_PATH_ONLY = os.O_PATH | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_STRICT = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS

assert _openat2.RESOLVE_BENEATH == 0x08


class Root:
    """One root of the policy, pinned by a descriptor: a folder put in its place later is not followed."""

    __slots__ = ("fd", "is_file", "name", "path", "real", "resolve")

    def __init__(self, path: bytes, *, is_file: bool, cross_mounts: bool) -> None:
        """Opens the folder, or the folder that a single granted file lies in. Raises OSError."""
        self.path = path
        self.is_file = is_file
        self.name = os.path.basename(path) if is_file else b""
        folder = os.path.dirname(path) if is_file else path
        self.fd = os.open(folder, _PATH_ONLY | os.O_DIRECTORY)
        self.real = os.readlink(b"/proc/self/fd/%d" % self.fd)
        self.resolve = _STRICT if cross_mounts else _STRICT | RESOLVE_NO_XDEV

    def close(self) -> None:
        os.close(self.fd)

    def open_path(
        self, relative: bytes, hidden: Callable[[bytes], str | None] = lambda _path: None
    ) -> tuple[int, bytes]:
        """An ``O_PATH`` descriptor and the resolved path below the root.

        hidden: the rule that hides a path below the root, if any; asked of each path that a link leads to,
        before it is looked at, so that a link does not tell whether something hidden is there.
        Raises Absent if there is nothing, Refusal if the way leads out or cannot be gone.
        """
        name = self.name if self.is_file else relative or b"."
        if self.is_file and relative:
            raise Absent(errno.ENOTDIR)
        for _attempt in range(3):
            try:
                return openat2(self.fd, name, _PATH_ONLY, 0, self.resolve), relative
            except OSError as error:
                if error.errno == errno.ELOOP:
                    if self.is_file:
                        raise outside("a link stands where the granted file was") from None
                    return self._follow(relative, hidden)
                if error.errno != errno.EAGAIN:  # openat2(2): a rename elsewhere got in the way
                    raise self._explain(error, name) from None
        raise Refusal(errno.EACCES, "the folder kept changing while it was resolved", breach=False)

    def _explain(self, error: OSError, name: bytes) -> Exception:
        code = error.errno or errno.EACCES
        if code in (errno.ENOENT, errno.ENOTDIR):
            return Absent(code)
        if code == errno.ENAMETOOLONG:
            return Absent(code)
        if code == errno.EXDEV and self.resolve & RESOLVE_NO_XDEV:
            try:
                os.close(openat2(self.fd, name, _PATH_ONLY, 0, self.resolve & ~RESOLVE_NO_XDEV))
            except OSError:
                return outside("leads out of its root")
            return Refusal(errno.EACCES, "lies on another mount (data.cross_mounts = false)", breach=False)
        if code == errno.EXDEV:
            return outside("leads out of its root")
        return Refusal(errno.EACCES, f"this user may not reach it: {os.strerror(code)}", breach=False)

    def _follow(self, relative: bytes, hidden: Callable[[bytes], str | None]) -> tuple[int, bytes]:
        pending = relative.split(b"/")[::-1]
        done: list[bytes] = []
        links = 0
        while pending:
            part = pending.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                if not done:
                    raise outside("a link leads out of its root")
                done.pop()
                continue
            here = b"/".join((*done, part))
            if links and (rule := hidden(here)) is not None:
                raise Refusal(errno.EACCES, f"a link to what {rule} hides", breach=True, rule=rule)
            target = self._link(here)
            if target is None:
                done.append(part)
                continue
            links += 1
            if links > MAX_LINKS:
                raise Absent(errno.ELOOP)
            if target.startswith(b"/"):
                target = self._inside(target)
                done.clear()
            pending += target.split(b"/")[::-1]
        resolved = b"/".join(done)
        try:
            return openat2(self.fd, resolved or b".", _PATH_ONLY, 0, self.resolve), resolved
        except OSError as error:
            raise self._explain(error, resolved or b".") from None

    def _inside(self, target: bytes) -> bytes:
        """What is below the root of an absolute link target; refused from its text if it is not below."""
        for root in (self.path, self.real):
            if target == root:
                return b""
            if target.startswith(root.rstrip(b"/") + b"/"):
                return target[len(root.rstrip(b"/")) + 1 :]
        raise outside("a link leads out of its root")

    def _link(self, name: bytes) -> bytes | None:
        """The target if ``name`` is a link; None if it is anything else that is there."""
        try:
            fd = openat2(self.fd, name, _PATH_ONLY | os.O_NOFOLLOW, 0, self.resolve)
        except OSError as error:
            raise self._explain(error, name) from None
        try:
            if not stat.S_ISLNK(os.fstat(fd).st_mode):
                return None
            return os.readlink(b"", dir_fd=fd)
        finally:
            os.close(fd)


def reopen(fd: int) -> int:
    """A readable descriptor of what an ``O_PATH`` one stands for, once it is known to be harmless to open.

    Raises Refusal if this user may not read it.
    """
    try:
        return os.open(b"/proc/self/fd/%d" % fd, _READ)
    except OSError as error:
        raise Refusal(errno.EACCES, f"this user may not read it: {error.strerror}", breach=False) from None
