"""Plain text of any kind: txt, md, csv, json, source code. The bytes say the encoding.

In this order: a byte-order mark; UTF-8; UTF-16 without a mark, told by its zero bytes; else, if nothing but
the letters is strange, Windows-1252, the usual 8-bit text. All else is no text. No byte is dropped: what
cannot be decoded is refused or shown as U+FFFD.
"""

from __future__ import annotations

import codecs

from anchorhold.worker.documents.skip import Skip

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins like UTF-16's
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
MARKS = tuple(mark for mark, _encoding in _MARKS)
_SAMPLE = 1 << 16  # bytes
_CONTROLS = bytes(byte for byte in (*range(32), 127) if byte not in b"\t\n\r\f\b\x1b")
_CP1252_HOLES = bytes.fromhex("818d8f909d")  # bytes that mean nothing in Windows-1252


def decode(data: bytes) -> str:
    """The text, without a byte-order mark. Raises Skip for what is none."""
    try:
        # Most files, in one go: UTF-8 without controls is what all others are told apart from.
        if b"\0" not in data:
            return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError:
        pass
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    sample = data[:_SAMPLE]
    if b"\0" in data:
        return _utf16(data, sample)
    controls = len(sample) - len(sample.translate(None, _CONTROLS + _CP1252_HOLES))
    if controls * 50 > len(sample):
        raise Skip("binary: it is no text")
    if _is_cut_utf8(data):
        return data.decode("utf-8", "replace")
    return data.decode("cp1252", "replace")


def _utf16(data: bytes, sample: bytes) -> str:
    """UTF-16 without a mark: in most languages nearly all zero bytes are at odd, or at even, places."""
    for encoding, zeros, others in (
        ("utf-16-le", sample[1::2], sample[0::2]),
        ("utf-16-be", sample[0::2], sample[1::2]),
    ):
        if zeros.count(0) * 2 > len(zeros) and not others.count(0):
            try:
                return data.decode(encoding)
            except UnicodeDecodeError:
                break
    raise Skip("binary: it is no text")


def _is_cut_utf8(data: bytes) -> bool:
    """UTF-8 with a rare slip (a log cut in the middle of a character), rather than 8-bit text."""
    text = data[:_SAMPLE].decode("utf-8", "replace")
    slips = text.count("\ufffd")
    letters = len(text) - len(text.encode("ascii", "ignore"))
    return slips * 10 < letters
