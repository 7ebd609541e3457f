"""The page: well formed, needs nothing else, says what was counted, and stays small."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest

from anchorhold.audit.report import tables
from anchorhold.audit.report.gather import Gathered, gather
from anchorhold.audit.report.page import MARK, Frame, render, summary
from anchorhold.audit.report.style import STYLE
from tests.unit.audit.report.entries import HOSTILE, RESULT, START, Maker, many

MEGABYTE = 1_000_000

TAGS = {
    "html", "head", "meta", "title", "style", "body", "header", "main", "footer", "nav", "section", "div",
    "p", "span", "b", "i", "em", "strong", "code", "pre", "bdi", "a", "h1", "h2", "h3", "ul", "ol", "li",
    "dl", "dt", "dd", "table", "thead", "tbody", "tr", "th", "td", "br", "figure", "figcaption",
    "details", "summary", "svg", "line", "rect", "text", "circle", "path",
}  # fmt: skip
ATTRIBUTES = {
    "lang", "charset", "http-equiv", "content", "name", "class", "id", "href", "open", "role",
    "aria-label", "aria-hidden", "data-l", "viewbox", "height", "width", "x", "y", "rx", "x1", "x2", "y1",
    "y2", "cx", "cy", "r", "d", "fill", "stroke", "stroke-width", "stroke-linejoin", "stroke-linecap",
}  # fmt: skip
ENDS_ITSELF = {
    "meta",
    "br",
    "p",
    "li",
    "dt",
    "dd",
    "tr",
    "th",
    "td",
    "thead",
    "tbody",
    "line",
    "circle",
    "path",
}


class Reader(HTMLParser):
    """Fails on anything that no report has; keeps the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.ids: set[str] = set()
        self.links: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, tag
        for name, value in attrs:
            assert name in ATTRIBUTES, (tag, name)
            if name == "href":
                assert value is not None and re.fullmatch(r"#[a-z]+", value), value
                self.links.add(value[1:])
            if name == "id":
                assert value is not None and value not in self.ids
                self.ids.add(value)
        if tag not in ENDS_ITSELF or tag == "title":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag in TAGS, tag
        if tag not in ENDS_ITSELF:
            assert self.open and self.open.pop() == tag, (tag, self.open[-5:])

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text.append(data)


def read(page: bytes) -> str:
    """The page's text, once it is seen to be well formed and to need nothing else."""
    html = page.decode("utf-8")
    assert html.startswith(MARK)
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert not reader.open
    assert reader.links <= reader.ids
    assert "<script" not in html
    assert "url(" not in STYLE and "@import" not in STYLE and "//" not in STYLE
    return " ".join("".join(reader.text).split())


def page_of(*entries: dict[str, Any], result: dict[str, Any] | None = None, **frame: Any) -> str:
    found = gather(entries)
    return read(render(found, result or RESULT, Frame(START, "0.1", **frame)))


def an_example() -> list[dict[str, Any]]:
    make = Maker()
    return [
        make.start("aaaa1111bbbb"),
        make("denial", "aaaa1111bbbb", call="openat", path="/etc/localtime", reason="no", phase="boot"),
        make("session.sealed", "aaaa1111bbbb"),
        make("request.start", "aaaa1111bbbb", request=1),
        *(make.grant(f"/home/a/letter {number}.pdf", "aaaa1111bbbb") for number in range(41)),
        make.grant("/home/a/letter 0.pdf", "aaaa1111bbbb"),
        make.grant("/usr/lib/x.py", "aaaa1111bbbb", **{"class": "runtime"}),
        make("denial", "aaaa1111bbbb", call="openat", path="/etc/shadow", reason="no rule", count=2,
             phase="sealed"),
        make("request.end", "aaaa1111bbbb", request=1),
        make("session.end", "aaaa1111bbbb", reason="done"),
    ]  # fmt: skip


def test_it_says_what_happened() -> None:
    text = page_of(*an_example())
    assert "In 1 session with 1 question the model was shown 41 files, 42 times in all." in text
    assert "2 requests were refused." in text
    assert "The log verifies" in text and "NOT" not in text
    assert "100,000 entries checked: up to the signed head none was changed, removed or put in." in text
    assert "What this does not show" in text
    for said in (
        "/etc/shadow", "no rule", "open a file (openat)", "letter 0.pdf", "small.gguf", "office", "ee" * 32,
        "0f" * 32, "aaaa1111", "2026-01-05 08:00", RESULT["key"], RESULT["root"],
        "python -m anchorhold.verify",
        "anchorhold audit verify --key", "While the program was starting: 1 request refused",
    ):  # fmt: skip
        assert said in text, said


def test_a_summary_has_the_right_words() -> None:
    make = Maker()

    def said(*entries: dict[str, Any]) -> str:
        found = gather(entries)
        found.documents.total()
        return re.sub("</?b>", "", summary(found))

    assert said() == "The log has no entry in this time: no model was shown anything."
    assert said(make.start()) == "In 1 session the model was shown no file. No request was refused."
    one = said(make.start(), make.grant("/a"), make("denial", call="openat", phase="sealed"))
    assert one == "In 1 session the model was shown 1 file. 1 request was refused."
    hiding = make("list", **{"class": "data", "path": "/a", "listed": 3, "hidden": 2})
    told = said(make.start(), hiding)
    assert told.endswith("No request was refused. 2 names left out of listings.")
    text = tables.refused(gather([make.start(), hiding]))
    assert "2 names were left out of listings" in text and "Nothing was refused.<" not in text
    assert said(
        make.start(), make("breach", call="x"), make("kill"), make("kill"), make("limit"),
        make("list", **{"class": "data", "path": "/a", "listed": 3}), make("redaction", "", count=1),
    ) == (
        "In 1 session the model was shown no file. It was told the names in folders 1 time. No request was"
        " refused. On record: 1 breach, 2 kills, 1 exceeded limit. 1 entry had names or other details"
        " redacted."
    )  # fmt: skip


def test_only_its_own_style_may_apply() -> None:
    html = render(gather(an_example()), RESULT, Frame(START, "0.1")).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert policy and style and html.count("<style") == 1
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy[1] == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert html.index("Content-Security-Policy") < html.index("<title>")


@pytest.mark.parametrize(
    "field", ["path", "session", "policy", "policy_sha256", "call", "reason", "by", "all"]
)
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_everywhere(text: str, field: str) -> None:
    make = Maker()

    def has(name: str, else_: str) -> str:
        return text if field in (name, "all") else else_

    session = has("session", "5e55")
    entries = [
        make.start(session, policy=has("policy", "p"), policy_sha256=has("policy_sha256", "0f" * 32),
                   model_path=has("path", "/m"), model={"sha256": has("policy_sha256", "ee" * 32)}),
        make.grant(has("path", "/a"), session, sha256=has("policy_sha256", "ab" * 32)),
        make("grant", session, **{"class": text, "path": "/home/" + has("path", "b") + "/c"}),
        make("denial", session, call=has("call", "openat"), path=has("path", "/x"), reason=has("reason", "r"),
             phase="sealed"),
        make("breach", session, call=has("call", "x"), path=has("path", "/x"), reason=has("reason", "r")),
        make("limit", session, limit=has("call", "memory"), detail=has("reason", "r")),
        make("kill", session, reason=has("reason", "r")),
        make("redaction", "", count=1, what=[has("call", "names")], reason=has("reason", "r"),
             by=has("by", "a")),
        make("session.end", session, reason=has("reason", "done")),
    ]  # fmt: skip
    result = {
        **RESULT,
        "ok": field != "all",
        **{name: has("all", "x") for name in ("origin", "key", "root", "log")},
        "notes": [has("all", "n")],
        "findings": [{"seq": 1, "last": 2, "place": has("all", "p"), "problem": has("all", "q")}],
        "witnesses": [{has("all", "w"): has("all", "v")}, has("all", "s")],
    }
    if field == "all":
        entries.append(make.grant(text, session, time=text))
    shown = page_of(
        *entries,
        result=result,
        session=has("session", "5e55"),
        checkpoint=has("all", "origin\n3\nroot\n\n— sig"),
    )
    for character in "\u202e\u202c\u2066\x1b\x07\u200b\ufeff":
        assert character not in shown
    assert "\u0301" * 9 not in shown


def test_commands_to_copy_hold_no_text_of_the_log() -> None:
    evil = "x'; rm -rf ~; '"
    text = page_of(*an_example(), result={**RESULT, "key": evil}, session=evil)
    assert "--key 'KEY'" in text
    assert "anchorhold audit report --html again.html" in text
    shown = page_of(*an_example(), session="aaaa-1", since=START, until=datetime(2026, 2, 1, tzinfo=UTC))
    assert (
        "anchorhold audit report --since 2026-01-05T08:00:00Z --until 2026-02-01T00:00:00Z --session aaaa-1"
        " --html again.html"
    ) in shown


def test_the_period() -> None:
    assert "The whole log: 5 January 2026, 08:00 to 08:00 (UTC)" in page_of(*an_example())
    until = datetime(2026, 2, 1, tzinfo=UTC)
    text = page_of(*an_example(), since=datetime(2026, 1, 1, tzinfo=UTC), until=until, session="aaaa")
    assert "1 January 2026, 00:00, to 1 February 2026, 00:00 (UTC) Session aaaa only." in text
    assert "No entry in this time" in page_of(since=None, session="aaaa")


def test_a_log_that_does_not_verify() -> None:
    findings = [{"seq": 3, "last": 9, "place": "0/tile", "problem": "its hash differs"}]
    findings += [{"seq": None, "last": None, "place": "vkey", "problem": "it is gone"}] * 80
    bad = {**RESULT, "ok": False, "proven": False, "findings": findings, "findings_left_out": 5, "signed": 1}
    text = page_of(*an_example(), result=bad)
    assert "The log does NOT verify" in text and "The log verifies" not in text
    assert text.index("NOT verify") < text.index("1 session")
    assert "entries 3 to 9: its hash differs (0/tile)" in text
    assert "it is gone (vkey)" in text and "and 26 more" in text
    assert "no entry is proven" in text
    assert "99,999 of them" not in text


@pytest.mark.parametrize("ok", [None, 1, "true", 0])
def test_only_true_is_a_good_verdict(ok: object) -> None:
    assert "does NOT verify" in page_of(*an_example(), result={**RESULT, "ok": ok})
    assert "does NOT verify" in page_of(*an_example(), result={"origin": "x"})


def test_what_could_not_be_read_is_said_everywhere() -> None:
    found = gather([])
    found.unreadable, found.problem = 7, "entry <3> cannot be read"
    for result in ({**RESULT, "ok": False}, RESULT):
        text = read(render(found, result, Frame(START, "1")))
        assert "7 entries could not be read (entry <3> cannot be read)" in text
        assert text.count("As far as the log could be read.") == 7
        assert "No entry of this time could be read." in text
        assert "no model was shown anything" not in text
        assert "The log verifies" not in text
    assert "This report is NOT complete" in text


def test_unsigned_entries_are_told_of() -> None:
    assert "The last one is not signed yet." in page_of(*an_example(), result={**RESULT, "signed": 99_999})
    text = page_of(*an_example(), result={**RESULT, "signed": 99_000})
    assert "The last 1,000 of them are not signed yet." in text


def test_redacted_names_are_shown_as_that() -> None:
    make = Maker()
    text = page_of(
        make("grant", **{"class": "data", "sha256": "ab" * 32, "redacted": ["names"]}),
        make("grant", **{"class": "data", "redacted": ["names", "digests"]}),
        make("denial", call="openat", phase="sealed", redacted=["names"]),
        make("redaction", "", count=2, what=["names"], reason="client asked", by="anna"),
    )
    assert text.count("name redacted") >= 4
    assert "1 time a file was shown whose name and digest are redacted" in text
    assert "reason redacted" in text
    assert "client asked" in text and "anna" in text
    assert "2 entries: names" in text


def test_a_full_key_of_ones_own() -> None:
    assert "named as the right one" in page_of(*an_example(), key_given=True)
    assert "lies beside the log" in page_of(*an_example())


def test_a_small_log_is_shown_whole() -> None:
    html = render(gather(an_example()), RESULT, Frame(START, "1")).decode()
    tree = html[html.index('id="files"') : html.index("The program's own files")]
    assert tree.count("class=row>") == 41
    assert tree.count("<details open>") == tree.count("</details>") == 1


def test_upper_folders_are_open_where_there_are_few() -> None:
    make = Maker()
    few = [make.grant(f"/home/{who}/{what}/{n}") for who in "ab" for what in "xy" for n in range(40)]
    html = render(gather(few), RESULT, Frame(START, "1")).decode()
    assert re.findall(r"<details( open)?><summary><bdi>([^<]*)</bdi>", html)[:7] == [
        (" open", "/home/"), (" open", "a/"), ("", "x/"), ("", "y/"), (" open", "b/"), ("", "x/"), ("", "y/"),
    ]  # fmt: skip
    many_clients = [make.grant(f"/srv/{who}/letter {n}") for who in range(40) for n in range(3)]
    html = render(gather(many_clients), RESULT, Frame(START, "1")).decode()
    assert html.count("<details open><summary>") == 1


@pytest.mark.parametrize("hostile", [False, True])
@pytest.mark.parametrize("files", [0, 3_000])
def test_100_000_entries_are_below_5_megabytes(hostile: bool, files: int) -> None:
    found = gather(many(100_000, hostile=hostile, files=files))
    page = render(found, RESULT, Frame(START, "1"))
    assert len(page) < 5 * MEGABYTE
    text = read(page)
    assert f"{found.documents.times:,} time" in text
    rows = page.count(b"class=row>")
    assert rows == found.documents.files or (rows > 2_000 and text.count("more") > 20)


def test_the_worst_names_are_below_5_megabytes() -> None:
    """Every name differs, each is as long as the page lets it be, in every place that shows one."""
    make = Maker()

    def entries() -> Any:
        for number in range(8_000):
            worst = f"{number}" + "\U000e0041" * 3000
            session = f"{number // 10}{worst}"
            yield make.start(session, policy=worst, policy_sha256=worst, model={"sha256": worst})
            yield make.grant(f"/{worst}/{worst}/{worst}", session)
            yield make(
                "denial", session, call=worst, path=worst, reason=f"{number // 9} {worst}", phase="sealed"
            )
            yield make("breach", session, call=worst, path=worst, reason=worst)

    page = render(gather(entries()), RESULT, Frame(START, "1"))
    assert 3 * MEGABYTE < len(page) < 5 * MEGABYTE  # if it is far less, this is not the worst any more
    page.decode("utf-8")


def test_every_folder_of_a_wide_tree_is_accounted_for() -> None:
    """Counts of what is shown and of what is said to be left out add up."""
    found: Gathered = gather(many(30_000))
    html = render(found, RESULT, Frame(START, "1")).decode()
    tree = html[html.index('id="files"') : html.index('id="refused"')]
    rows = tree.count("class=row>")
    more = sum(int(n.replace(",", "")) for n in re.findall(r"<p class=rest>and ([\d,]+) more, shown", tree))
    alone = sum(int(n.replace(",", "")) for n in re.findall(r"<p class=rest>([\d,]+) files?, shown", tree))
    below = sum(
        int(n.replace(",", "")) for n in re.findall(r"<p class=rest>[^<]*folders? with ([\d,]+) file", tree)
    )
    assert rows + more + alone + below == found.documents.files > 28_000
    assert rows > 2_000 and below > 2_000


def test_refusals_of_the_start_alone() -> None:
    make = Maker()
    text = page_of(
        make.start(), make("denial", call="openat", path="/etc/x", reason="r", count=3, phase="boot")
    )
    assert "No request was refused." in text
    assert "Nothing was refused while documents could be read." in text
    assert "While the program was starting: 3 requests refused" in text and "/etc/x" in text


def test_listings_kills_and_what_was_pruned_or_witnessed() -> None:
    make = Maker()
    result = {
        **RESULT,
        "epochs": 12,
        "pruned_epochs": 3,
        "redacted": 2,
        "witnesses": [{"name": "notary", "size": 9}],
    }
    text = page_of(
        make.start(),
        make("list", path="/home/a/taxes", listed=4, **{"class": "data"}),
        make("list", path="/usr/lib", listed=4, **{"class": "runtime"}),
        make("kill", reason="Ctrl-C", microseconds=3412),
        make("limit", limit="memory", detail="too much"),
        make("breach", call="execve", redacted=["names"]),
        make("log.recovered", ""),
        make("prune", "", epochs=[0, 2], reason="older than a year", by="anna"),
        result=result,
    )
    assert "It was told the names in folders 1 time." in text
    assert "/home/a/taxes/" in text and "names listed 1×" in text
    assert "Ctrl-C · dead after 3 ms" in text and "limit on memory · too much" in text
    assert "tried to start a program (execve) · details redacted" in text
    assert "3 epochs, signed heads kept" in text and "name notary, size 9" in text
    assert "all entries of the epochs 0 to 2; their signed heads are kept" in text
    assert "older than a year" in text
    assert "After 1 crash the log was put in order again" in text
