"""Class ``runtime``: what the interpreter, the engine and their libraries are made of.

Computed from where this very program was loaded from, never from the working directory or from
``sys.path`` as a whole: a folder that happens to be on it is not for the worker.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import sysconfig

from anchorhold.broker.refusal import Absent, outside

EXACT = (b"/etc/ld.so.cache",)
_TRIPLES = (b"x86_64-linux-gnu", b"aarch64-linux-gnu")
_HWCAPS = (
    b"",
    b"glibc-hwcaps",
    b"glibc-hwcaps/x86-64-v2",
    b"glibc-hwcaps/x86-64-v3",
    b"glibc-hwcaps/x86-64-v4",
)
LIBRARY_FOLDERS = tuple(
    b"/".join(part for part in (base, triple, hwcaps) if part)
    for base in (b"/lib", b"/lib64", b"/usr/lib", b"/usr/lib64", b"/usr/local/lib", b"/usr/local/lib64")
    for triple in (b"", *_TRIPLES)
    for hwcaps in _HWCAPS
)
"""Where the dynamic loader looks (ld.so(8)). Exactly these: more would tell what is installed here."""
_SHARED_OBJECT = re.compile(rb"\.so(\.[0-9.]+)?$")
_LOCALE = (
    b"/usr/lib/locale",
    b"/usr/share/locale",
    *(b"/usr/lib/" + triple + b"/gconv" for triple in (b"x86_64-linux-gnu", b"aarch64-linux-gnu")),
)
_PROBE_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Runtime:
    """Which paths belong to the runtime; whole folders, or shared objects only."""

    def __init__(self, folders: tuple[bytes, ...]) -> None:
        """folders: absolute, where everything regular belongs to the runtime."""
        whole: list[bytes] = []
        for folder in (*folders, *_LOCALE):
            for form in (folder, os.path.realpath(folder)):
                if form not in whole:
                    whole.append(form)
        self.whole = tuple(whole)
        self._prefixes = tuple(folder + b"/" for folder in whole)
        self._libraries = frozenset(LIBRARY_FOLDERS)
        parents: set[bytes] = set()
        for folder in (*whole, *LIBRARY_FOLDERS, *EXACT):
            while folder not in (b"/", b""):
                folder = os.path.dirname(folder)
                parents.add(folder)
        self.parents = frozenset(parents)

    @classmethod
    def of_this_program(cls) -> Runtime:
        return cls(tuple(os.fsencode(folder) for folder in (*python_folders(), *package_folders())))

    def owns(self, path: bytes) -> bool:
        """Whether a cleaned absolute path is runtime, by its text alone."""
        if path.startswith(self._prefixes) or path in self.whole or path in EXACT:
            return True
        return os.path.dirname(path) in self._libraries and _SHARED_OBJECT.search(path) is not None

    def knows(self, path: bytes) -> bool:
        """Whether its existence may be told: runtime, a library folder, or a folder on the way to one."""
        return self.owns(path) or path in self.parents or path in self._libraries

    def look(self, path: bytes) -> os.stat_result:
        """What is at a path of the runtime. Raises Absent, also for a link that leads out of the runtime."""
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except NotADirectoryError:
            raise Absent(errno.ENOTDIR) from None
        except OSError:
            raise Absent from None
        try:
            if not self._stays(path, os.readlink(b"/proc/self/fd/%d" % fd)):
                raise Absent
            return os.fstat(fd)
        finally:
            os.close(fd)

    def _stays(self, path: bytes, real: bytes) -> bool:
        return self.knows(real) or self._library_elsewhere(path, real)

    def open(self, path: bytes) -> tuple[int, os.stat_result, bytes]:
        """A read-only descriptor, what it is, and where it really lies.

        Raises Absent, or Refusal if the way leads out of the runtime.
        """
        try:
            fd = os.open(path, _PROBE_FLAGS)
        except FileNotFoundError:
            raise Absent from None
        except NotADirectoryError:
            raise Absent(errno.ENOTDIR) from None
        except OSError:
            raise outside("runtime file that this user cannot open") from None
        try:
            found = os.fstat(fd)
            real = os.readlink(b"/proc/self/fd/%d" % fd)
            if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
                raise outside("runtime path that is no regular file")
            if not self._stays(path, real):
                raise Absent  # the same as if what the link names were not there
        except BaseException:
            os.close(fd)
            raise
        return fd, found, real

    def _library_elsewhere(self, path: bytes, real: bytes) -> bool:
        """A library of the system may be a link into a folder of its own (alternatives, usr merge)."""
        return (
            os.path.dirname(path) in self._libraries
            and real.startswith((b"/usr/lib", b"/lib", b"/usr/local/lib"))
            and _SHARED_OBJECT.search(real) is not None
        )

    def shows(self, folder: bytes, name: bytes) -> bool:
        """Whether a listing of ``folder`` has ``name``."""
        path = (folder if folder != b"/" else b"") + b"/" + name
        return self.owns(path) or path in self.parents or path in LIBRARY_FOLDERS


def python_folders() -> list[str]:
    """The standard library of this interpreter, with its compiled modules."""
    folders = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
    folders += [path for path in sys.path if path.endswith(("lib-dynload", ".zip"))]
    folders.append(os.path.join(sys.base_prefix, sys.platlibdir, "python" + sysconfig.get_python_version()))
    return _unique(folders)


def package_folders() -> list[str]:
    """Where installed packages are: only folders of that name, and this package's own folder."""
    folders = [path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")]
    folders.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return _unique(folders)


def search_path() -> list[str]:
    """``sys.path`` for the worker: the same places, and nothing else."""
    packages = package_folders()
    return _unique(
        [
            *(path for path in sys.path if path in python_folders()),
            *packages[:-1],
            os.path.dirname(packages[-1]),
        ]
    )


def _unique(paths: list[str]) -> list[str]:
    return list(dict.fromkeys(os.path.abspath(path) for path in paths if path))
