"""PDF, by pypdfium2: the text of all pages. Scans hold no text and are skipped with that reason.

The library is started without the system's folders of fonts: there are none in a cell, and text needs none.
"""

from __future__ import annotations

import ctypes

import pypdfium2
import pypdfium2.raw as pdfium

from anchorhold.worker.documents.skip import MOST_PAGES, Budget, Skip

_no_folders = (ctypes.POINTER(ctypes.c_char) * 1)()  # a list of folders that ends at once; kept alive here


def start() -> None:
    """Start the library anew, with no folder to look for fonts in."""
    pdfium.FPDF_DestroyLibrary()
    config = pdfium.FPDF_LIBRARY_CONFIG(version=2, m_pUserFontPaths=_no_folders)
    pdfium.FPDF_InitLibraryWithConfig(config)


def text(data: bytes, budget: Budget) -> str:
    """The text, pages apart by form feeds. Raises Skip: encrypted, broken, without text, too many pages."""
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if error.err_code == pdfium.FPDF_ERR_PASSWORD:
            raise Skip("encrypted: it needs a password") from None
        raise Skip("broken: it cannot be read as a PDF") from None
    try:
        if len(document) > MOST_PAGES:
            raise Skip(f"too large: {len(document)} pages (limit: {MOST_PAGES})")
        pages = [_page(document, number, budget) for number in range(len(document))]
    except pypdfium2.PdfiumError:
        raise Skip("broken: a page of it cannot be read") from None
    finally:
        document.close()
    if not any(pages):
        raise Skip(
            f"no text: {len(pages)} pages of images only (a scan?)" if len(pages) > 1 else "no text: a scan?"
        )
    return "\n\f\n".join(pages)


def _page(document: pypdfium2.PdfDocument, number: int, budget: Budget) -> str:
    budget.check()
    page = document[number]
    try:
        words = page.get_textpage()
        try:
            found: str = words.get_text_bounded()
        finally:
            words.close()
    finally:
        page.close()
    budget.check(len(found))
    return found.replace("\r\n", "\n").replace("\0", "").strip()
