"""The C library, loaded once, and the plain ``syscall()`` door into the kernel.

The calls go through ``syscall(2)`` rather than through glibc's wrappers: their numbers and structures are
the kernel's, the same on every C library, and new calls need no new glibc.
"""

from __future__ import annotations

import ctypes
import errno

from anchorhold.kernel.errors import kernel_error
from anchorhold.kernel.syscalls import name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)

get_errno = ctypes.get_errno

_long = ctypes.c_long
_syscall: Any = LIBC["syscall"]
_syscall.restype = ctypes.c_long


def prepare(*argtypes: Any) -> Callable[..., int]:
    """``syscall(number, …)`` with fixed argument types: half the price of the general form below.

    The result is −1 on failure, with the error in ``get_errno()``. ``c_char_p`` arguments take bytes by
    pointer, uncopied; whoever passes a path must see to it that it holds no NUL.
    """
    function: Any = LIBC["syscall"]  # a new object each time, so the types are this caller's own
    function.restype = ctypes.c_long
    function.argtypes = (ctypes.c_long, *argtypes)
    prepared: Callable[..., int] = function
    return prepared


def raw_syscall(number: int, *args: Any) -> int:
    """The result, or −errno. Integers go as longs (ctypes would cut them to 32 bits), bytes by pointer."""
    result: int = _syscall(_long(number), *[_long(arg) if isinstance(arg, int) else arg for arg in args])
    return -get_errno() if result == -1 else result


def syscall(number: int, *args: Any, subject: str = "", hint: str = "") -> int:
    """The result; raises KernelError with ``subject`` and ``hint`` when the call fails."""
    result = raw_syscall(number, *args)
    if result < 0:
        raise kernel_error(-result, name(number), subject, hint)
    return result


def path_bytes(path: str | bytes, call: str) -> bytes:
    """``path`` as the kernel wants it. Raises KernelError (EINVAL) for a NUL: the kernel would stop there."""
    raw = path.encode("utf-8", "surrogateescape") if isinstance(path, str) else path
    if b"\0" in raw:
        raise kernel_error(errno.EINVAL, call, repr(path), "A path must not contain a NUL byte")
    return raw


def buffer(size: int) -> ctypes.Array[ctypes.c_char]:
    """Memory of ``size`` zero bytes for the kernel to write into; its ``raw`` is what it wrote."""
    return buffer_type(size)()


def buffer_type(size: int) -> type[ctypes.Array[ctypes.c_char]]:
    """The type of such memory, made once: making one costs more than a system call, above all after a fork.

    A module that runs between fork and seal asks for its types when it is loaded.
    """
    kind = _types.get(size)
    if kind is None:
        kind = _types[size] = ctypes.c_char * size
    return kind


_types: dict[int, type[ctypes.Array[ctypes.c_char]]] = {}
