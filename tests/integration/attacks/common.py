"""What attacks share. Its text is put before that of a category, so it imports nothing of the tests.

An attack is a function without arguments: a true result means that it got what it wanted, anything else,
an ``OSError`` included, that it did not.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

# Given before the text runs: where things lie, and the system calls of this machine by name.
NR: dict[str, int] = {}
FOLDER = ""
"""The granted folder; ``GRANTED`` lies in it."""
GRANTED = ""

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


class Trial:
    """One attack: how to do it, which refused call the log must show, why outside it may not work here."""

    def __init__(self, attempt: Callable[[], Any], call: str, path: str, not_shown: str) -> None:
        self.attempt, self.call, self.path, self.not_shown = attempt, call, path, not_shown


TRIALS: dict[str, Trial] = {}


def trial(
    title: str, *, call: str = "", path: str = "", not_shown: str = "", only_with: str = ""
) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Register an attack; one that needs a system call that this architecture has not is left out.

    call: the system call that the log must show as refused; "" where no call is: the filter answers it.
    path: the path that a refusal in the log must name.
    not_shown: why it need not succeed outside on every machine; it must fail inside all the same.
    """

    def register(attempt: Callable[[], Any]) -> Callable[[], Any]:
        if only_with and only_with not in NR:
            return attempt
        assert title not in TRIALS, title
        TRIALS[title] = Trial(attempt, call, path, not_shown)
        return attempt

    return register


def syscall(name: str, *args: Any) -> int:
    """The kernel's answer, or minus errno. Integers go as registers, bytes and buffers as pointers."""
    converted = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    result = int(libc.syscall(ctypes.c_long(NR[name]), *converted))
    return -ctypes.get_errno() if result == -1 else result


def cstring(text: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(text)


def pointers(*texts: bytes) -> ctypes.Array[ctypes.c_char_p]:
    """A list of strings that ends with a null pointer, as execve(2) takes."""
    return (ctypes.c_char_p * (len(texts) + 1))(*texts, None)


def memory(size: int = 4096, protection: int = 3) -> int:
    """The address of fresh private memory."""
    return syscall("mmap", 0, size, protection, 0x22, -1, 0)


def child_of(name: str, *args: Any) -> bool:
    """Whether a call made a process; the process ends at once."""
    result = syscall(name, *args)
    if result == 0:
        os._exit(0)
    if result > 0:
        os.waitpid(result, 0x40000000)  # __WALL: also one that sends no SIGCHLD
    return result > 0


def run_trials(names: list[str]) -> dict[str, list[Any]]:
    """Title → whether it succeeded, and what came of it in words."""
    results: dict[str, list[Any]] = {}
    for name in names:
        try:
            got = TRIALS[name].attempt()
        except Exception as error:  # whatever stops an attack has stopped it
            results[name] = [False, f"{type(error).__name__}: {error}"]
        else:
            results[name] = [bool(got), repr(got)[:200]]
    return results
