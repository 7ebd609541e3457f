"""Word files (.docx), by python-docx: body, tables, text boxes, headers, footers and notes.

The archive's own directory is looked at first, so that a bomb is refused before anything is unpacked; zipfile
unpacks no more of a member than that directory says.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import docx
from docx.opc.exceptions import OpcError
from docx.oxml import parse_xml
from docx.oxml.ns import qn
from lxml import etree

from anchorhold.worker.documents.skip import MOST_UNPACKED, Budget, Skip

_MOST_MEMBERS = 10_000
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")  # what an encrypted docx is kept in, and an old .doc
_NOTES = re.compile(r"/word/(header|footer|footnotes|endnotes)\d*\.xml")
_P, _T, _TAB, _BR, _CR = qn("w:p"), qn("w:t"), qn("w:tab"), qn("w:br"), qn("w:cr")
_TBL, _TR, _TC = qn("w:tbl"), qn("w:tr"), qn("w:tc")
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_TAB_STOPS = qn("w:tabs")


def text(data: bytes, budget: Budget) -> str:
    """The text. Raises Skip: encrypted, broken, a bomb."""
    if data.startswith(_OLE):
        raise Skip("encrypted, or of Word's old format")
    _check_size(data)
    try:
        document = docx.Document(io.BytesIO(data))
        pieces = list(_lines(document.element.body, budget))
        for part in document.part.package.iter_parts():
            if _NOTES.fullmatch(str(part.partname)):
                root = part.element if hasattr(part, "element") else parse_xml(part.blob)
                pieces += _lines(root, budget)
    except (zipfile.BadZipFile, OpcError, etree.LxmlError) as error:
        raise Skip(f"broken: {type(error).__name__}") from None
    except (
        KeyError,
        ValueError,
        AttributeError,
        IndexError,
        NotImplementedError,
        OSError,
        EOFError,
    ) as error:
        # What python-docx and zipfile raise for archives that are no Word file inside.
        raise Skip(f"broken: it is no Word file ({type(error).__name__})") from None
    return "\n".join(pieces).strip()


def _check_size(data: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        raise Skip(f"broken: it is no archive ({type(error).__name__})") from None
    if any(member.flag_bits & 1 for member in members):
        raise Skip("encrypted: it needs a password")
    size = sum(member.file_size for member in members)
    if size > MOST_UNPACKED or len(members) > _MOST_MEMBERS:
        raise Skip(f"too large: unpacked it has {size >> 20} MiB in {len(members)} parts")


def _lines(root: Any, budget: Budget) -> Iterator[str]:
    """One line per paragraph and per row of a table, in the order of the document."""
    for child in root:
        budget.check()
        if child.tag == _P:
            found = _paragraph(child)
            budget.check(len(found))
            yield found
        elif child.tag == _TBL:
            for row in _nearest(child, _TR, _TBL):
                cells = (" ".join(_paragraph(cell).split()) for cell in _nearest(row, _TC, _TR))
                found = " | ".join(cells)
                budget.check(len(found))
                yield found
        elif isinstance(child.tag, str):
            yield from _lines(child, budget)


def _nearest(outer: Any, tag: str, outer_tag: str) -> Iterator[Any]:
    """The rows of a table, or the cells of a row, but not those of a table within."""
    return (found for found in outer.iter(tag) if next(found.iterancestors(outer_tag)) is outer)


def _paragraph(root: Any) -> str:
    """All text below: of a paragraph with its text boxes, or of a cell."""
    parts: list[str] = []
    stack = [root]
    while stack:
        element = stack.pop()
        tag = element.tag
        if tag == _T:
            parts.append(element.text or "")
        elif tag == _TAB:
            parts.append("\t")
        elif tag in (_BR, _CR):
            parts.append("\n")
        elif tag not in (_FALLBACK, _TAB_STOPS):
            if tag == _P and element is not root:
                parts.append("\n")
            stack.extend(reversed(element))
    return "".join(parts)
