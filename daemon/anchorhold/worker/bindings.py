"""The engine's C functions, and the little of C that it is handed.

Only the module of bindings is imported: the package's own first module brings numpy and eight times the time
(210 ms instead of 27), for a Python interface that is not used here.

The engine wants functions to call: one that says whether to stop, one that takes its log. A function made by
ctypes from Python would need a page of memory that is executable, and in the prompt phase it would be called
some thousand times a second under Python's lock. Two functions of libc do as well: ``strlen`` of a buffer
is 0 until somebody writes a byte there, and ``abs`` of a log level has no effect.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import sys
from typing import Any


def load() -> Any:
    """The module of bindings; maps the shared libraries. ImportError when the engine is not installed."""
    if "llama_cpp" not in sys.modules:
        spec = importlib.util.find_spec("llama_cpp")
        if spec is None:
            raise ImportError("llama-cpp-python is not installed")
        sys.modules["llama_cpp"] = importlib.util.module_from_spec(spec)
    return importlib.import_module("llama_cpp.llama_cpp")


class StopFlag:
    """Set by any thread, read by the engine at every step of a computation, without Python's lock."""

    def __init__(self) -> None:
        self._byte = ctypes.create_string_buffer(2)  # a C string: empty, or one character

    def set(self) -> None:
        self._byte[0] = b"\1"

    def clear(self) -> None:
        self._byte[0] = b"\0"

    def __bool__(self) -> bool:
        return self._byte[0] != b"\0"

    @property
    def address(self) -> int:
        return ctypes.addressof(self._byte)


_libc = ctypes.CDLL(None)


def _address(function: Any) -> int:
    found = ctypes.cast(function, ctypes.c_void_p).value
    assert found is not None
    return found


def stop_callback(c: Any) -> Any:
    """For ``llama_context_params.abort_callback``, with a StopFlag's address as its data."""
    return c.ggml_abort_callback(_address(_libc.strlen))


def silence(c: Any) -> None:
    """The engine's log goes nowhere: it says much, and nothing of it is for the user."""
    c.llama_log_set(c.llama_log_callback(_address(_libc.abs)), None)
