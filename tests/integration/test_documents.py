"""A folder as people have them, in the real cell: what can be read is read, the rest is named."""

from __future__ import annotations

import os
from pathlib import Path

import docx
import pytest

from anchorhold.audit.log import Log
from anchorhold.supervisor import events
from anchorhold.supervisor.session import Request, Session
from tests.integration import cells

TEXT = b"BT /F1 12 Tf 20 200 Td (The dentist was paid 77 pounds in May.) Tj ET"
OBJECTS = (
    b"<</Type/Catalog/Pages 2 0 R>>",
    b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
    b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
    b"<</Length %d>>stream\n%s\nendstream" % (len(TEXT), TEXT),
    b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
)
PDF = b"%PDF-1.4\n" + b"".join(b"%d 0 obj%sendobj\n" % pair for pair in enumerate(OBJECTS, 1))
PDF += b"trailer<</Root 1 0 R>>\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mixed"
    folder.mkdir()
    document = docx.Document()
    document.add_paragraph("The plumber was paid 320 pounds in March.")
    document.save(str(folder / "plumber.docx"))
    (folder / "dentist.pdf").write_bytes(PDF)
    (folder / "page.html").write_text("<html><body><p>The gardener comes on Tuesday.</p></body></html>")
    Path(os.fsdecode(os.fsencode(folder) + b"/odd\xff\nname.txt")).write_text("The cat is called Minka.")
    (folder / "empty.txt").touch()
    (folder / "broken.pdf").write_text("%PDF-1.4 broken")
    (folder / "out.txt").symlink_to("/etc/passwd")
    (folder / "in.html").symlink_to("page.html")
    (folder / "hard.txt").write_text("hard")
    os.link(folder / "hard.txt", folder / "hard2.txt")
    os.mkfifo(folder / "fifo.txt")
    return folder


def test_every_format_is_read_in_the_cell_and_the_rest_is_named(
    state_dir: Path, demo_model: Path, folder: Path
) -> None:
    log = Log.open(state_dir)
    rules = cells.policy(
        demo_model, read=(folder,), kill=True
    )  # a library that asks for too much is a breach
    session = Session(rules, log, state_dir=state_dir, suffixes=(".pdf", ".docx", ".html", ".txt"))
    seen: list[events.Event] = []
    try:
        session.start()
        seen += session.ask(Request("What was the plumber paid?", max_tokens=24, seed=1))
    finally:
        session.close()
        log.close()
    documents = {
        os.path.basename(event.path): (event.outcome, event.reason)
        for event in seen
        if isinstance(event, events.Document)
    }
    used = {name for name, (outcome, _reason) in documents.items() if outcome == "used"}
    assert used == {"plumber.docx", "dentist.pdf", "in.html", "odd\udcff\nname.txt"}
    skipped = {name: reason for name, (outcome, reason) in documents.items() if outcome == "skipped"}
    assert set(skipped) == {
        "empty.txt",
        "broken.pdf",
        "out.txt",
        "hard.txt",
        "hard2.txt",
        "fifo.txt",
        "page.html",
    }
    assert skipped["page.html"] == "the same text as in.html"
    assert skipped["out.txt"] == "a link leads out of its root"
    assert "320" in "".join(event.text for event in seen if isinstance(event, events.Token))
    assert session.summary.refused_total == 0
