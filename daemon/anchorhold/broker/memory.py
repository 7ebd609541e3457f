"""The worker's memory, read and written through the descriptor that it opened itself.

The descriptor is bound to one address space and the worker cannot make another (no fork, no exec),
so a recycled process id can never lead here. Everything read is a copy: a decision is taken on the
copy, never on memory that another thread may change meanwhile.
Source: proc_pid_mem(5).
"""

from __future__ import annotations

import bisect
import errno
import os

PATH_MAX = 4096
_TOP = 1 << 63


class Fault(Exception):
    """The address is not the worker's, or the text there is too long."""

    def __init__(self, code: int) -> None:
        super().__init__(os.strerror(code))
        self.errno = code


class Memory:
    """Reads paths from the worker, writes results to it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._code_starts: list[int] = []
        self._code_ends: list[int] = []

    def protect_code(self, maps: str) -> None:
        """From now on never write where ``maps`` (proc_pid_maps(5)) says that there is code.

        /proc/<pid>/mem ignores page protection, so without this a worker could have the supervisor put
        bytes of its choice into executable pages by naming them as the buffer of a call. The list stays
        true because the sealed filter lets no executable mapping come or move.

        Raises ValueError if a page is both writable and executable.
        """
        ranges: list[tuple[int, int]] = []
        for line in maps.splitlines():
            span, rights = line.split(" ", 2)[:2]
            if rights[2] == "x":
                if rights[1] == "w":
                    raise ValueError(f"memory is both writable and executable: {line}")
                start, end = span.split("-")
                ranges.append((int(start, 16), int(end, 16)))
        ranges.sort()
        self._code_starts = [start for start, _end in ranges]
        self._code_ends = [end for _start, end in ranges]

    def path(self, address: int) -> bytes:
        """The NUL-terminated path at ``address``, read once.

        Raises Fault as the kernel would: EFAULT at an unmapped page, ENAMETOOLONG past 4096 bytes.
        """
        if address >= _TOP:
            raise Fault(errno.EFAULT)
        try:
            data = os.pread(self.fd, PATH_MAX, address)
        except OSError:
            raise Fault(errno.EFAULT) from None
        end = data.find(b"\0")
        if end >= 0:
            return data[:end]
        raise Fault(errno.ENAMETOOLONG if len(data) == PATH_MAX else errno.EFAULT)

    def read(self, address: int, size: int) -> bytes:
        """Exactly ``size`` bytes. Raises Fault(EFAULT)."""
        if address >= _TOP:
            raise Fault(errno.EFAULT)
        try:
            data = os.pread(self.fd, size, address)
        except OSError:
            raise Fault(errno.EFAULT) from None
        if len(data) != size:
            raise Fault(errno.EFAULT)
        return data

    def write(self, address: int, data: bytes) -> None:
        """All of ``data``. Raises Fault(EFAULT), also where there is code.

        Read-only private mappings are written through as a debugger may: that changes the worker's own
        copy only, never a file, since it holds no shared mapping of anything writable.
        """
        if address >= _TOP:
            raise Fault(errno.EFAULT)
        after = bisect.bisect_left(self._code_starts, address + len(data))
        if after and self._code_ends[after - 1] > address:
            raise Fault(errno.EFAULT)
        try:
            written = os.pwrite(self.fd, data, address)
        except OSError:
            raise Fault(errno.EFAULT) from None
        if written != len(data):
            raise Fault(errno.EFAULT)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
