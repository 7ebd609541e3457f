"""Documents as text: encodings, Word, HTML, folders, and every reason to leave one out."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import docx
import pytest

from anchorhold.worker import folder
from anchorhold.worker.documents import markup, plain, word
from anchorhold.worker.documents.readers import Readers, read_bytes
from anchorhold.worker.documents.skip import MOST_TEXT, Budget, Skip
from anchorhold.worker.failure import Cancelled, Failure
from anchorhold.worker.template import ChatTemplate


def budget() -> Budget:
    return Budget(lambda: False)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_every_unicode_encoding_is_told(encoding: str) -> None:
    text = "Rechnung für das Dach: 4.860 Euro\n" * 3
    assert plain.decode(text.encode(encoding)) == text


def test_western_8_bit_text_is_read_as_windows_1252() -> None:
    assert plain.decode("Gebühr 5 €".encode("cp1252")) == "Gebühr 5 €"


def test_utf8_with_a_slip_stays_utf8() -> None:
    data = ("Müller Gebühr Straße " * 20).encode() + b"\xc3"
    assert plain.decode(data) == "Müller Gebühr Straße " * 20 + "�"


@pytest.mark.parametrize("data", [os.urandom(64) + bytes(range(32)) * 9, b"ab\0\0\0cd\0ef" * 9])
def test_binary_is_no_text(data: bytes) -> None:
    with pytest.raises(Skip, match="binary"):
        plain.decode(data)


def _word(**parts: str) -> bytes:
    document = docx.Document()
    document.add_paragraph("Before\tthe table")
    table = document.add_table(rows=1, cols=2)
    table.cell(0, 0).text, table.cell(0, 1).text = "roof", "4,860"
    document.add_paragraph("after").add_run().add_break()
    document.sections[0].header.paragraphs[0].text = "the header"
    held = io.BytesIO()
    document.save(held)
    return held.getvalue()


def test_word_gives_paragraphs_tables_and_headers() -> None:
    text = word.text(_word(), budget())
    assert text.splitlines()[:3] == ["Before\tthe table", "roof | 4,860", "after"]
    assert "the header" in text


def _zip(names: dict[str, bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in names.items():
            archive.writestr(name, data)
    return held.getvalue()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (bytes.fromhex("d0cf11e0a1b11ae1") + b"x" * 600, "encrypted, or"),
        (b"PK\3\4 not at all", "broken"),
        (_zip({"a.txt": b"x"}), "broken"),
        (_zip({f"{number}": b"" for number in range(10_001)}), "too large"),
        (_zip({"[Content_Types].xml": b"<not xml", "_rels/.rels": b"<"}), "broken"),
    ],
)
def test_what_is_no_word_file_is_left_out_with_its_reason(data: bytes, why: str) -> None:
    with pytest.raises(Skip, match=why):
        word.text(data, budget())


def test_an_archive_that_needs_a_password_is_left_out() -> None:
    data = bytearray(_zip({"word/document.xml": b"x"}))
    at = data.find(b"PK\1\2")
    data[at + 8] |= 1
    with pytest.raises(Skip, match="password"):
        word.text(bytes(data), budget())


def test_html_gives_what_a_reader_sees() -> None:
    page = (
        b"<html><head><title>T</title><style>p {}</style></head><body><script>no()</script><h1>Roof</h1>"
        b"<ul><li>one</li><li>two</li></ul><table><tr><td>a</td><td>b</td></tr></table>"
        b"<img alt='a picture'><pre>x\n  y</pre><p>paid&nbsp;4,860</p></body></html>"
    )
    text = markup.text(page, budget())
    for part in ("Roof", "- one", "- two", "a | b", "a picture", "x\n", "4,860"):
        assert part in text
    assert "no()" not in text and "p {}" not in text


def test_a_budget_ends_in_time_size_or_by_request() -> None:
    with pytest.raises(Skip, match="takes more than"):
        Budget(lambda: False, seconds=-1.0).check()
    with pytest.raises(Skip, match="characters"):
        budget().check(MOST_TEXT + 1)
    with pytest.raises(Cancelled):
        Budget(lambda: True).check()


def test_files_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "blank.txt").write_text(" \n")
    (tmp_path / "a.pdf").write_text("x")
    readers = Readers()
    for name, why in (
        ("empty.txt", "empty"),
        ("blank.txt", "empty"),
        ("a.pdf", "not read"),
        ("gone", "No such"),
    ):
        with pytest.raises(Skip, match=why):
            readers.read(str(tmp_path / name), lambda: False)
    with pytest.raises(Skip, match="zero byte"):
        read_bytes("a\0b")
    large = tmp_path / "large"
    large.write_bytes(b"x" * (3 << 20))
    assert len(read_bytes(str(large))) == 3 << 20


def test_a_walk_lists_each_folder_once_and_names_what_it_leaves_out(tmp_path: Path) -> None:
    deep = tmp_path
    (tmp_path / "a.txt").touch()
    (tmp_path / ".git").mkdir()
    (tmp_path / "again").symlink_to(tmp_path)
    for _ in range(folder.MOST_DEPTH + 2):
        deep = deep / "d"
        deep.mkdir()
    found = folder.walk([str(tmp_path), str(tmp_path), str(tmp_path / "a.txt"), "/nowhere"], lambda: False)
    assert found.files == [str(tmp_path / "a.txt")]
    reasons = {os.path.basename(path): why for path, why in found.skipped}
    assert reasons[".git"] == "kept by version control"
    assert "deep" in reasons["d"] and "cannot be listed" in reasons["nowhere"]
    with pytest.raises(Cancelled):
        folder.walk([str(tmp_path)], lambda: True)


def test_a_template_that_cannot_be_used_is_a_failure_of_the_model() -> None:
    with pytest.raises(Failure):
        ChatTemplate("{% for %}", "", "")
    turns = [{"role": "user", "content": "x"}]
    with pytest.raises(Failure):
        ChatTemplate("{{ raise_exception('no') }}", "", "").render(turns)
    with pytest.raises(Failure, match="leaves out"):
        ChatTemplate("nothing", "", "").render(turns)


def test_a_template_without_a_system_turn_keeps_its_text() -> None:
    only_user = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    segments = ChatTemplate(only_user, "", "").render(turns)
    assert [text for text, _special in segments] == ["Be brief.\n\nHello"]
