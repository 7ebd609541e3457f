"""The report in a real browser: at phone and desk width, light and dark, printed, with hostile names.

Where no Chromium is installed these tests are skipped: nothing in them can be seen without one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from anchorhold.audit.log import Log
from anchorhold.audit.redact import redact
from anchorhold.audit.report.gather import gather
from anchorhold.audit.report.page import Frame, render
from anchorhold.cli.main import main
from tests.integration.browser import Browser, installed
from tests.unit.audit.report.entries import HOSTILE, RESULT, START, Maker, many

pytestmark = pytest.mark.skipif(installed() is None, reason="no Chromium is installed on this machine")

PHONE, DESK = (390, 844), (1280, 900)
VIEWS = [(*size, dark) for size in (PHONE, DESK) for dark in (False, True)]
VIEW_NAMES = ["phone", "phone-dark", "desk", "desk-dark"]
PAGES = ("office", "hostile", "bad", "empty", "big")

views = pytest.mark.parametrize(("width", "height", "dark"), VIEWS, ids=VIEW_NAMES)
OPEN_ALL = "document.querySelectorAll('details').forEach(one => { one.open = true })"

OVERFLOWING = """
(() => {
  const wide = innerWidth, found = [];
  // The headings of tables that are shown as cards are there for screen readers only.
  const hidden = one => { const head = one.closest('thead'); return head && head.offsetWidth <= 1 };
  for (const one of document.body.querySelectorAll('*')) {
    if (!one.checkVisibility()) continue;  // in a folder that is closed
    const box = one.getBoundingClientRect();
    if (box.width && (box.right > wide + 1 || box.left < -1) && !hidden(one))
      found.push(one.outerHTML.slice(0, 200));
  }
  return {page: document.documentElement.scrollWidth, wide, found: found.slice(0, 5), count: found.length};
})()
"""

# WCAG 2: of the text that is in view, the lowest contrast with what is behind it.
CONTRAST = """
(() => {
  const part = c => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4 };
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const behind = one => {
    for (; one; one = one.parentElement) {
      const colour = numbers(getComputedStyle(one).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
      if (colour[3] !== 0) throw new Error('half transparent');
    }
    throw new Error('no background');
  };
  let lowest = 99, where = '', seen = 0, smallest = 99;
  for (const one of [...document.querySelectorAll('body *')].slice(0, 6000)) {
    if (one.tagName === 'STYLE' || one.tagName === 'title' || !one.checkVisibility()) continue;
    if (![...one.childNodes].some(node => node.nodeType === 3 && node.data.trim())) continue;
    const style = getComputedStyle(one);
    const text = numbers(one instanceof SVGElement ? style.fill : style.color);
    const a = light(text), b = light(behind(one));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    seen += 1;
    smallest = Math.min(smallest, parseFloat(style.fontSize));
    if (ratio < lowest) { lowest = ratio; where = one.outerHTML.slice(0, 160) }
  }
  return {lowest, where, seen, smallest};
})()
"""


def an_office(state: Path) -> None:
    """A real log of some sessions, with a breach, a kill and a redaction."""
    log = Log.open(state)
    for number in range(30):
        session = f"{number:016x}"
        start = Maker().start(policy=("office", "strict")[number % 2])
        fields = {name: start[name] for name in ("policy", "policy_sha256", "model", "model_path")}
        log.append("session.start", session, fields)
        log.append("session.sealed", session, {})
        log.append("request.start", session, {"request": 1})
        for file in range(number % 9):
            path = f"/home/anna/{('taxes/2025', 'board', 'clients/Müller GmbH')[file % 3]}/letter {file}.pdf"
            log.append("grant", session, {
                "path": path, "resolved": path, "class": "data", "sha256": f"{file:064x}", "size": 4711,
                "mode": "snapshot", "phase": "sealed", "request": 1,
            })  # fmt: skip
        refused = {
            "call": "openat",
            "path": "/etc/shadow",
            "reason": "no rule",
            "count": 2,
            "phase": "sealed",
        }
        log.append("denial", session, refused)
        log.append("request.end", session, {"request": 1})
        if number == 7:
            log.append("breach", session, {"call": "execve", "path": "/bin/sh", "reason": "no programs"})
        if number == 8:
            log.append("kill", session, {"reason": "Ctrl-C", "microseconds": 3412})
        if number != 9:
            log.append("session.end", session, {"reason": "done"})
    log.checkpoint()
    log.close()
    redact(state, lambda entry: "board" in str(entry.get("path")), ["names"], reason="asked to", by="anna")


def hostile_entries() -> Iterator[dict[str, Any]]:
    make = Maker()
    for number, text in enumerate(HOSTILE):
        session = f"{number}{text}"
        make.at += timedelta(hours=5)
        yield make.start(session, policy=text, policy_sha256=text, model_path=text, model={"sha256": text})
        yield make.grant(f"/home/{text}/{text}", session, sha256=text)
        yield make.grant(text, session)
        yield make("denial", session, call=text, path=text, reason=f"no rule for {text}", phase="sealed")
        yield make("breach", session, call=text, path=text, reason=text)
        yield make("limit", session, limit=text, detail=text)
        yield make("redaction", "", count=1, what=[text], reason=text, by=text)
        yield make("clock", "", step=text)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Reports by name, each made once."""
    folder = tmp_path_factory.mktemp("reports")
    frame = Frame(START, "0.1", checkpoint="origin\n3\nroot=\n\n— name " + "sig" * 60)

    def made(name: str) -> bytes:
        bad = {**RESULT, "ok": False, "proven": False, "notes": [*HOSTILE], "origin": HOSTILE[10]}
        bad["findings"] = [{"seq": 1, "last": 9, "place": text, "problem": text} for text in HOSTILE]
        if name == "hostile":
            return render(gather(hostile_entries()), RESULT, frame)
        if name == "bad":
            return render(gather(hostile_entries()), bad, Frame(START, "0.1", session=HOSTILE[0]))
        if name == "empty":
            return render(gather([]), RESULT, Frame(START, "0.1", since=START, until=START))
        return render(gather(many(100_000)), RESULT, frame)

    def page(name: str) -> Path:
        file = folder / f"{name}.html"
        if not file.exists():
            if name == "office":
                an_office(folder / "state")
                assert (
                    main(["--state-dir", str(folder / "state"), "audit", "report", "--html", str(file)]) == 0
                )
            else:
                file.write_bytes(made(name))
        return file

    return page


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = installed()
    assert program is not None
    one = Browser(program, tmp_path_factory.mktemp("browser"))
    yield one
    one.close()


@views
@pytest.mark.parametrize("name", PAGES)
def test_it_fits_and_asks_for_nothing(
    browser: Browser, pages: Callable[[str], Path], name: str, width: int, height: int, dark: bool
) -> None:
    page = pages(name)
    browser.open(page, width, height, dark=dark)
    for way in ("as it opens", "all folders open"):
        found = browser.ask(OVERFLOWING)
        assert found["wide"] == width
        assert found["page"] <= width, (way, found)
        assert found["count"] == 0, (way, found)
        browser.ask(OPEN_ALL)
    assert browser.requests == [page.as_uri()]
    assert browser.complaints == []
    assert browser.ask("document.scripts.length") == 0
    assert browser.ask("typeof window.owned") == "undefined"
    assert (
        browser.ask("document.querySelectorAll('img, iframe, object, embed, link, form, base').length") == 0
    )
    sections = browser.ask(
        "[...document.querySelectorAll('body > main > section')].map(one => one.offsetHeight)"
    )
    assert len(sections) == 10 and min(sections) > 60


@views
@pytest.mark.parametrize("name", PAGES)
def test_it_can_be_read(
    browser: Browser, pages: Callable[[str], Path], name: str, width: int, height: int, dark: bool
) -> None:
    browser.open(pages(name), width, height, dark=dark)
    browser.ask(OPEN_ALL)
    found = browser.ask(CONTRAST)
    assert found["seen"] > 50
    assert found["lowest"] >= 4.5, found
    assert found["smallest"] >= 11.5, found


@views
def test_it_is_not_blank(
    browser: Browser, pages: Callable[[str], Path], width: int, height: int, dark: bool
) -> None:
    browser.open(pages("office"), width, height, dark=dark)
    seen = browser.colours(browser.picture())
    assert (seen["width"], seen["height"]) == (width, height)
    assert seen["colours"] > 100
    assert seen["inked"] > 0.02
    assert (seen["light"] < 0.25) if dark else (seen["light"] > 0.75), seen


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_folders_open_and_links_lead_without_a_script(
    browser: Browser, pages: Callable[[str], Path], size: tuple[int, int]
) -> None:
    browser.open(pages("big"), *size)
    closed = "document.querySelector('#files .tree details:not([open])')"
    browser.ask(f"{closed}.scrollIntoView({{block: 'center'}})")
    browser.ask(f"window.one = {closed}, 0")
    before = browser.ask("document.documentElement.scrollHeight")
    browser.click("window.one.querySelector('summary')")
    assert browser.ask("window.one.open") is True
    assert browser.ask("document.documentElement.scrollHeight") > before
    browser.ask("scrollTo(0, 0)")
    browser.click("document.querySelector('nav a[href=\"#sessions\"]')")
    top = browser.ask("document.getElementById('sessions').getBoundingClientRect().top")
    assert 0 <= top < 60
    assert browser.ask("document.querySelector('summary').getBoundingClientRect().height") >= 24


def test_the_policy_holds(browser: Browser, pages: Callable[[str], Path], tmp_path: Path) -> None:
    """What would get past the escaping is stopped all the same; without the policy it is not."""
    attack = (
        "<style>h1{color:rgb(1, 2, 3)}</style><script>window.owned = 1</script>"
        "<img src=x onerror='window.owned = 2'>"
        "<h1 id=attacked style='margin-left: 77px' onclick='window.owned = 3'>x</h1>"
    )
    html = pages("office").read_text()
    policy = re.search(r"<meta http-equiv=.*?>", html)
    assert policy
    seen = []
    for name, text in (("with", html), ("without", html.replace(policy[0], ""))):
        file = tmp_path / f"{name}.html"
        file.write_text(text.replace("<main>", f"{attack}<main>"))
        browser.open(file, *DESK)
        browser.ask("document.getElementById('attacked').click()")
        style = "getComputedStyle(document.getElementById('attacked'))"
        seen.append(browser.ask(f"[window.owned ?? 0, {style}.color, {style}.marginLeft]"))
        if name == "with":
            assert browser.requests == [file.as_uri()]
            assert any("Content Security Policy" in complaint for complaint in browser.complaints)
        else:
            assert (tmp_path / "x").as_uri() in browser.requests
    with_policy, without = seen
    assert with_policy[0] == 0 and with_policy[1] != "rgb(1, 2, 3)" and with_policy[2] != "77px"
    assert without == [3, "rgb(1, 2, 3)", "77px"]


@pytest.mark.parametrize(("name", "most"), [("office", 12), ("hostile", 45), ("big", 30)])
def test_it_prints(browser: Browser, pages: Callable[[str], Path], name: str, most: int) -> None:
    browser.open(pages(name), *DESK, dark=True)
    pdf = browser.pdf()
    assert pdf.startswith(b"%PDF")
    count = len(re.findall(rb"/Type\s*/Page\b", pdf))
    assert 2 <= count <= most
    browser.print_media(dark=True)
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.ask("getComputedStyle(document.querySelector('nav')).display") == "none"


def test_names_do_not_reorder_what_is_around_them(browser: Browser, pages: Callable[[str], Path]) -> None:
    """A name in another direction stays within its own box, and what stands after it stays after it."""
    browser.open(pages("hostile"), *DESK)
    browser.ask(OPEN_ALL)
    wrong = browser.ask(
        """[...document.querySelectorAll('#files .row')].filter(row => {
            const cells = [...row.children].map(cell => cell.getBoundingClientRect().left);
            return cells.some((left, at) => at && left <= cells[at - 1]);
        }).map(row => row.textContent).slice(0, 3)"""
    )
    assert wrong == []
    assert browser.ask(
        "[...document.querySelectorAll('bdi')].map(one => getComputedStyle(one))"
        ".every(style => style.unicodeBidi === 'isolate' && style.direction === 'ltr')"
    )
    hidden = (
        "/[\\u0000-\\u0009\\u000b-\\u001f\\u007f-\\u009f\\u200b-\\u200f"
        "\\u202a-\\u202e\\u2060-\\u2069\\ufeff\\ud83d]/"
    )
    assert (
        browser.ask(f"{hidden}.test(document.querySelector('main').innerText.replace(/\\t/g, ' '))") is False
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_real_log_of_100_000_entries(browser: Browser, tmp_path: Path, capfd: Any) -> None:
    """Written, signed, verified, reported, looked at."""
    state, file = tmp_path / "state", tmp_path / "r.html"
    common = {"v", "seq", "time", "session", "kind"}
    log = Log.open(state)
    written = shown = 0
    for entry in many(100_000):
        fields = {name: value for name, value in entry.items() if name not in common}
        if "request" in fields:
            fields["request"] = 1
        log.append(entry["kind"], entry["session"], fields)
        written += 1
        shown += entry["kind"] == "grant"
    log.checkpoint()
    log.close()
    assert main(["--state-dir", str(state), "audit", "report", "--html", str(file)]) == 0
    assert file.stat().st_size < 5_000_000
    text = file.read_text()
    assert "The log verifies" in text and f"<b>{shown:,} files</b>" in text
    for width, height in (PHONE, DESK):
        browser.open(file, width, height)
        found = browser.ask(OVERFLOWING)
        assert found["page"] <= width and found["count"] == 0, found
        assert browser.requests == [file.as_uri()] and browser.complaints == []
    assert written >= 100_000
