"""Which reader for which file; reading one file whole, in one open, a few reads and one close."""

from __future__ import annotations

import errno
import importlib
import os
from collections.abc import Callable, Iterable
from typing import Any

from anchorhold.worker.documents import plain
from anchorhold.worker.documents.skip import MOST_TEXT, Budget, Skip

_LIBRARIES = {
    ".pdf": "pdf",
    ".docx": "word",
    ".html": "markup",
    ".htm": "markup",
    ".xhtml": "markup",
}
LIBRARY_SUFFIXES = frozenset(_LIBRARIES)

# Not worth opening: the name says that there is no text to be had.
_KINDS = {
    "an image": "png jpg jpeg gif webp bmp tif tiff ico heic avif psd",
    "sound": "mp3 flac ogg opus wav m4a aac",
    "a film": "mp4 mkv mov avi webm m4v",
    "an archive": "zip gz tgz bz2 xz zst 7z rar tar jar whl deb rpm iso",
    "a program": "exe dll so o a pyc class wasm bin dylib",
    "a model": "gguf safetensors onnx pt pth",
    "a font": "ttf otf woff woff2",
    "a database": "sqlite sqlite3 db",
    "a kind that is not read here": "doc odt ods odp xls xlsx ppt pptx epub mobi rtf pages numbers",
}
_UNREAD = {"." + suffix: kind for kind, suffixes in _KINDS.items() for suffix in suffixes.split()}
_PIECE = 1 << 20  # bytes a read

Reader = Callable[[bytes, Budget], str]


class Readers:
    """The readers that were imported before the seal."""

    def __init__(self) -> None:
        self._modules: dict[str, Any] = {}

    def prepare(self, suffixes: Iterable[str] | None) -> None:
        """Import the libraries for these suffixes; None: for all. Their shared libraries are mapped now."""
        wanted = _LIBRARIES.values() if suffixes is None else {_LIBRARIES.get(name) for name in suffixes}
        for name in sorted({name for name in wanted if name}):
            module = importlib.import_module(f"anchorhold.worker.documents.{name}")
            if name == "pdf":
                module.start()
            self._modules[name] = module

    def read(self, path: str, stopped: Callable[[], bool]) -> str:
        """The whole text of one file. Raises Skip with the reason, Cancelled when stopped."""
        suffix = os.path.splitext(path)[1].lower()
        if suffix in _UNREAD:
            raise Skip(f"not text: {_UNREAD[suffix]}")
        data = read_bytes(path)
        if not data:
            raise Skip("empty")
        name = _LIBRARIES.get(suffix)
        if data.startswith(b"%PDF-"):
            name = "pdf"  # whatever its name says
        if name is None:
            text = plain.decode(data)
        elif name in self._modules:
            text = self._modules[name].text(data, Budget(stopped))
        else:
            raise Skip("not read: nothing of its kind was there when the worker started")
        if len(text) > MOST_TEXT:
            raise Skip(f"too large: more than {MOST_TEXT >> 20} million characters")
        if not text or text.isspace():
            raise Skip("empty" if name is None else "empty: there is no text in it")
        return text


def read_bytes(path: str) -> bytes:
    """All bytes of a file. Raises Skip when it cannot be read.

    By os.open, since open() asks for the file's status and for a terminal at each file.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            data = os.read(fd, _PIECE)
            if len(data) < _PIECE:
                return data
            pieces = [data]
            while data:
                data = os.read(fd, _PIECE)
                pieces.append(data)
            return b"".join(pieces)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise Skip("too large: over the policy's data.max_file") from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise Skip("refused: the policy or the file's owner does not allow it") from None
        raise Skip(f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise Skip("cannot be read: its name holds a zero byte") from None
