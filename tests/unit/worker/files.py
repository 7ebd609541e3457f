"""Documents of all kinds, made for tests."""

from __future__ import annotations

import io
import zipfile

import docx


def pdf(*pages: str, encrypted: bool = False) -> bytes:
    """A PDF with one line of text per page; an empty one is a page of nothing, as in a scan."""
    kids = " ".join(f"{10 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        "1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj",
        f"2 0 obj<</Type/Pages/Kids[{kids}]/Count {len(pages)}>>endobj",
        "3 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj",
    ]
    for number, text in enumerate(pages):
        content = f"BT /F1 12 Tf 20 200 Td ({text}) Tj ET" if text else "0 0 9 9 re f"
        objects += [
            f"{10 + 2 * number} 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 300]"
            f"/Contents {11 + 2 * number} 0 R"
            "/Resources<</Font<</F1 3 0 R>>>>>>endobj",
            f"{11 + 2 * number} 0 obj<</Length {len(content)}>>stream\n{content}\nendstream endobj",
        ]
    lock = ""
    if encrypted:  # a password that no one knows
        objects.append(f"5 0 obj<</Filter/Standard/V 1/R 2/P -4/O<{'ab' * 32}>/U<{'cd' * 32}>>>endobj")
        lock = f"/Encrypt 5 0 R/ID[<{'00' * 16}><{'00' * 16}>]"
    return ("%PDF-1.4\n" + "\n".join(objects) + f"\ntrailer<</Root 1 0 R{lock}>>\n").encode("latin-1")


def word(*paragraphs: str, rows: list[list[str]] | None = None, header: str = "") -> bytes:
    """A Word file."""
    document = docx.Document()
    for paragraph in paragraphs:
        document.add_paragraph(paragraph)
    if rows:
        table = document.add_table(len(rows), len(rows[0]))
        for number, row in enumerate(rows):
            for column, text in enumerate(row):
                table.cell(number, column).text = text
    if header:
        document.sections[0].header.paragraphs[0].text = header
    stream = io.BytesIO()
    document.save(stream)
    return stream.getvalue()


def repacked(data: bytes, **members: bytes) -> bytes:
    """The same archive with other members; ``word__document`` stands for ``word/document.xml``."""
    changed = {name.replace("__", "/") + ".xml": content for name, content in members.items()}
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as old,
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, changed.get(name, old.read(name)))
    return stream.getvalue()
