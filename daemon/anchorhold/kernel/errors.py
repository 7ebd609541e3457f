"""The error every kernel wrapper raises: which call, on what, why, and what to do.

``KernelError`` is an ``OSError``. ``kernel_error()`` picks the subclass that is also Python's own for
that errno, so ``except FileNotFoundError`` and ``except PermissionError`` go on working.
"""

from __future__ import annotations

import errno as _errno
import os

# What to do, where the call itself gives no better advice. Only what is true for any call.
_HINTS = {
    _errno.EPERM: "The process lacks the privilege, or a security module forbids it",
    _errno.EACCES: "Check the permissions of the object and of the directories above it",
    _errno.ENOSYS: "The kernel lacks this call or a filter above this process hides it; use a newer kernel",
    _errno.EOPNOTSUPP: "The running kernel has this built in but switched off, or the object cannot do it",
    _errno.EMFILE: "Raise the limit on open files (ulimit -n) or close some",
    _errno.ENFILE: "The whole system is out of file descriptors; raise fs.file-max",
    _errno.ENOMEM: "The machine or its memory limit has no memory left",
    _errno.ENOSPC: "The device or a kernel quota is full; free some space or raise the quota",
    _errno.EINVAL: "The kernel refused the arguments; an older kernel may not know a flag",
    _errno.ENOENT: "Check that it exists and that the name is right",
    _errno.ESRCH: "The process has ended already",
    _errno.EAGAIN: "Try again; a limit or a race made it fail this time",
    _errno.EBUSY: "Something still uses it; end that first",
    _errno.EBADF: "The descriptor is closed or was opened for something else",
}


class KernelError(OSError):
    """A system call failed.

    Attributes: ``errno``, ``call`` (its name), ``subject`` (what it was about), ``hint`` (what to do).
    """

    call: str
    subject: str
    hint: str

    def __init__(self, errno: int, call: str, subject: str = "", hint: str = "") -> None:
        super().__init__(errno, os.strerror(errno))
        self.call = call
        self.subject = subject
        self.hint = hint or _HINTS.get(errno, "")

    def __str__(self) -> str:
        text = f"{self.call}({self.subject}): {self.strerror}"
        return f"{text}. {self.hint}" if self.hint else text

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.errno, self.call, self.subject, self.hint))


class KernelPermissionError(KernelError, PermissionError):
    """EPERM, EACCES."""


class KernelFileNotFoundError(KernelError, FileNotFoundError):
    """ENOENT."""


class KernelFileExistsError(KernelError, FileExistsError):
    """EEXIST."""


class KernelNotADirectoryError(KernelError, NotADirectoryError):
    """ENOTDIR."""


class KernelIsADirectoryError(KernelError, IsADirectoryError):
    """EISDIR."""


class KernelInterruptedError(KernelError, InterruptedError):
    """EINTR."""


class KernelBlockingIOError(KernelError, BlockingIOError):
    """EAGAIN, EINPROGRESS."""


class KernelProcessLookupError(KernelError, ProcessLookupError):
    """ESRCH."""


class KernelChildProcessError(KernelError, ChildProcessError):
    """ECHILD."""


class KernelBrokenPipeError(KernelError, BrokenPipeError):
    """EPIPE."""


class KernelTimeoutError(KernelError, TimeoutError):
    """ETIMEDOUT."""


_CLASSES: dict[int, type[KernelError]] = {
    _errno.EPERM: KernelPermissionError,
    _errno.EACCES: KernelPermissionError,
    _errno.ENOENT: KernelFileNotFoundError,
    _errno.EEXIST: KernelFileExistsError,
    _errno.ENOTDIR: KernelNotADirectoryError,
    _errno.EISDIR: KernelIsADirectoryError,
    _errno.EINTR: KernelInterruptedError,
    _errno.EAGAIN: KernelBlockingIOError,
    _errno.EINPROGRESS: KernelBlockingIOError,
    _errno.ESRCH: KernelProcessLookupError,
    _errno.ECHILD: KernelChildProcessError,
    _errno.EPIPE: KernelBrokenPipeError,
    _errno.ETIMEDOUT: KernelTimeoutError,
}


def kernel_error(errno: int, call: str, subject: str = "", hint: str = "") -> KernelError:
    """The error for ``errno``, of the subclass that Python's own handlers expect."""
    return _CLASSES.get(errno, KernelError)(errno, call, subject, hint)


def from_oserror(error: OSError, call: str, subject: str = "", hint: str = "") -> KernelError:
    """The same for an error that a standard-library function raised."""
    return kernel_error(error.errno or _errno.EIO, call, subject, hint)
