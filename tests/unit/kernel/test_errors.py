from __future__ import annotations

import errno
import pickle

import pytest

from anchorhold.kernel.errors import KernelError, from_oserror, kernel_error


@pytest.mark.parametrize(
    ("number", "builtin"),
    [
        (errno.EPERM, PermissionError),
        (errno.EACCES, PermissionError),
        (errno.ENOENT, FileNotFoundError),
        (errno.EEXIST, FileExistsError),
        (errno.ENOTDIR, NotADirectoryError),
        (errno.EISDIR, IsADirectoryError),
        (errno.EINTR, InterruptedError),
        (errno.EAGAIN, BlockingIOError),
        (errno.EINPROGRESS, BlockingIOError),
        (errno.ESRCH, ProcessLookupError),
        (errno.ECHILD, ChildProcessError),
        (errno.EPIPE, BrokenPipeError),
        (errno.ETIMEDOUT, TimeoutError),
        (errno.EXDEV, KernelError),
    ],
)
def test_the_error_is_also_pythons_own_for_the_errno(number: int, builtin: type[OSError]) -> None:
    error = kernel_error(number, "openat2", "a/b")
    assert isinstance(error, KernelError)
    assert isinstance(error, builtin)
    assert isinstance(error, OSError)
    assert error.errno == number


def test_the_text_says_which_call_on_what_why_and_what_to_do() -> None:
    error = kernel_error(errno.EXDEV, "openat2", "../x", "Stay inside")
    assert str(error) == "openat2(../x): Invalid cross-device link. Stay inside"
    assert (error.call, error.subject, error.hint) == ("openat2", "../x", "Stay inside")


def test_a_hint_is_given_even_where_the_call_has_none() -> None:
    assert "ulimit -n" in str(kernel_error(errno.EMFILE, "openat2"))


def test_without_any_hint_the_text_ends_after_the_reason() -> None:
    assert str(kernel_error(errno.EXDEV, "openat2", "x")) == "openat2(x): Invalid cross-device link"


def test_it_survives_pickling() -> None:
    error = kernel_error(errno.ENOENT, "mount", "proc", "do this")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)


def test_a_foreign_error_keeps_its_errno() -> None:
    error = from_oserror(FileNotFoundError(errno.ENOENT, "x"), "read", "/x", "h")
    assert isinstance(error, FileNotFoundError)
    assert error.hint == "h"


def test_a_foreign_error_without_errno_becomes_an_input_output_error() -> None:
    assert from_oserror(OSError("no number"), "read", "/x").errno == errno.EIO
