"""Paths against rules: by examples, against a second matcher, and against paths chosen to be slow."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anchorhold.errors import PolicyError
from anchorhold.policy.glob import BadPattern, escape, parse
from anchorhold.policy.match import OUTSIDE, UNCLEAN, Decision, Matcher
from anchorhold.policy.schema import DataPolicy

_spec = importlib.util.spec_from_file_location("policy_slow_matcher", Path(__file__).parent / "slow.py")
assert _spec is not None and _spec.loader is not None
slow = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(slow)


def matcher(*deny: str, read: tuple[str, ...] = ("/r",), files: tuple[str, ...] = ()) -> Matcher:
    return Matcher(DataPolicy(read=read, files=files, deny=deny))


def denied(pattern: str, relative: str) -> bool:
    return not matcher(pattern).decide(f"/r/{relative}".encode("utf-8", "surrogateescape")).allowed


@pytest.mark.parametrize(
    ("pattern", "hits", "misses"),
    [
        (".git", [".git", "a/.git", ".git/config", "a/.git/b/c"], ["git", ".gitignore", "a.git", "x/.gi"]),
        ("a/", ["a", "b/a", "a/b"], ["ab", "b"]),
        ("./a", ["a", "a/b"], ["b/a", "ab"]),
        ("a/b", ["a/b", "a/b/c"], ["x/a/b", "a", "a/bc", "b"]),
        ("a/**", ["a", "a/b", "a/b/c"], ["b/a", "ab"]),
        ("**/a/**", ["a", "a/b", "x/y/a/z"], ["b", "ab"]),
        ("**/.git/**", [".git", ".git/x", "a/.git/b"], ["a.git", "git/x"]),
        ("**/*.key", ["a.key", ".key", "x/y.key", "d.key/inside"], ["akey", "a.key2", "a.KEY"]),
        ("*.key", ["a.key", ".key", "x/y.key", "a.b.key"], ["akey", "a.keys", "a.Key"]),
        ("*.tar.gz", ["a.tar.gz", "x/.tar.gz"], ["a.gz", "tar.gz"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b/z"], ["b", "a/x", "x/a/b"]),
        ("a/**/**/b", ["a/b", "a/x/b"], ["ab"]),
        ("a/*/b", ["a/x/b", "a/x/b/c"], ["a/b", "a/x/y/b"]),
        ("*", ["a", ".a", "a/b"], []),
        ("*/x", ["a/x", ".b/x"], ["x", "a/b/x"]),
        ("a?c", ["abc", "a\u00e4c", "x/abc", "a\udcffc"], ["ac", "abbc"]),
        ("a*b*c", ["abc", "aXbXc", "abcbc", "a\nbc"], ["ab", "acb", "a/b/c"]),
        ("a*b*c/d", ["abc/d", "abbc/d/e"], ["abc", "abcd/d"]),
        ("[ab]x", ["ax", "bx"], ["cx", "abx"]),
        ("[!ab]x", ["cx", "-x"], ["ax", "x"]),
        ("[^ab]x", ["cx"], ["ax"]),
        ("[a-c]x", ["bx"], ["dx", "-x"]),
        ("[]a]x", ["]x", "ax"], ["bx"]),
        ("[a-]x", ["-x", "ax"], ["bx"]),
        ("[*]", ["*"], ["a"]),
        ("[[]x", ["[x"], ["x"]),
        ("[\\]x", ["\\x"], ["x"]),
        ("[+-0]x", ["+x", "0x"], ["/x".strip("/")]),
        ("/r/a", ["a", "a/b"], ["b/a", "r/a"]),
        ("/r/*/a", ["x/a"], ["a"]),
        ("/**/a", ["a", "x/a"], ["b"]),
        ("/elsewhere", [], ["elsewhere"]),
        ("\u00e4", ["\u00e4"], ["a\u0308"]),
        ("a.b", ["a.b"], ["axb"]),
        ("new\nline", ["new\nline"], ["new", "newline"]),
    ],
)
def test_patterns(pattern: str, hits: list[str], misses: list[str]) -> None:
    assert [one for one in hits if not denied(pattern, one)] == []
    assert [one for one in misses if denied(pattern, one)] == []


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("", "empty"),
        ("**", "everything"),
        ("/", "empty component"),
        ("/**", "everything"),
        ("./**", "everything"),
        ("a//b", "empty component"),
        ("a/../b", "component '..'"),
        ("a/./b", "component '.'"),
        ("..", "component '..'"),
        ("a**", "beside other characters"),
        ("a/**b", "beside other characters"),
        ("[a", "no ]"),
        ("[]", "no ]"),
        ("[!]", "no ]"),
        ("[z-a]", "backwards"),
        ("a\\*", "backslash"),
        ("~other/x", "home"),
    ],
)
def test_a_wrong_pattern_is_refused(pattern: str, why: str) -> None:
    with pytest.raises(BadPattern, match=why.replace("[", r"\[")) as caught:
        parse(pattern)
    assert caught.value.allowed
    with pytest.raises(PolicyError, match="data.deny"):
        matcher(pattern)


def test_home_stands_for_itself_whatever_letters_it_has() -> None:
    assert parse("~/x", "/h/a[b]*").fixed == ("h",)
    assert parse("~", "/h").parts == ("h",)
    assert escape("a[b]*?c") == "a[[]b][*][?]c"
    data = DataPolicy(read=("/h/a[b]*",), deny=(escape("/h/a[b]*") + "/x",))
    assert not Matcher(data).decide(b"/h/a[b]*/x").allowed
    assert parse("a/b").fixed == ("a", "b")


@pytest.mark.parametrize(
    ("pattern", "literal"),
    [
        (".env.*", ".env."),
        ("a/*bc[de]f", "bc"),
        ("**/*", ""),
        ("[!]]x", "x"),
        ("[]]", ""),
        ("a?b", "a"),
        ("[[]xy", "xy"),
    ],
)
def test_the_text_that_a_path_needs_to_match(pattern: str, literal: str) -> None:
    assert parse(pattern).literal == literal


def test_the_rule_is_named() -> None:
    found = matcher("*.key", "a*", ".git", "/r/b*")
    for path, wanted in {
        b"/r/x": 'data.read "/r"',
        b"/r": 'data.read "/r"',
        b"/r/x.key": 'data.deny "*.key"',
        b"/r/aa": 'data.deny "a*"',
        b"/r/aa.key": 'data.deny "*.key"',
        b"/r/x/.git/y": 'data.deny ".git"',
        b"/r/bb": 'data.deny "/r/b*"',
        b"/rx": OUTSIDE,
        b"/": OUTSIDE,
        b"": OUTSIDE,
        b"r/x": OUTSIDE,
    }.items():
        assert found.decide(path).rule == wanted
    decision = found.decide(b"/r/x")
    assert (decision.root, decision.relative) == (0, b"x")
    assert repr(decision) == """Decision(True, 0, b'x', 'data.read "/r"')"""


@pytest.mark.parametrize(
    "path", [b"/r/", b"/r//x", b"/r/x/", b"/r/./x", b"/r/../etc", b"/r/..", b"/r/x\0y", b"/r/x/../y"]
)
def test_an_unclean_path_is_never_allowed(path: bytes) -> None:
    for deny in ((), ("*.key",), ("a*",)):
        decision = matcher(*deny).decide(path)
        assert not decision.allowed and decision.rule == UNCLEAN


def test_names_that_only_look_unclean() -> None:
    for path in (b"/r/...", b"/r/..a", b"/r/.a", b"/r/a.", b"/r/\n", b"/r/\xff", b"/r/a b"):
        assert matcher("*.key").decide(path).allowed, path


def test_a_nested_root_serves_what_is_below_it_under_the_rules_of_both() -> None:
    found = matcher("b/x", "./y", read=("/r", "/r/b"))
    assert found.decide(b"/r/b/z").root == 1
    assert found.decide(b"/r/b").root == 1
    assert found.decide(b"/r/c").root == 0
    assert not found.decide(b"/r/b/x").allowed  # b/x from /r
    assert not found.decide(b"/r/b/y").allowed  # y right below /r/b
    assert found.hidden(1, b"x") == 'data.deny "b/x"'
    assert found.hidden(1, b"y") == 'data.deny "./y"'
    assert found.hidden(1, b"z") is None
    assert found.hidden(1, b"") is None
    assert matcher("b/x", read=("/r/b",)).decide(b"/r/b/x").allowed  # the attack: without the outer root


def test_a_root_below_a_denied_folder_is_denied_and_a_root_by_itself_is_not() -> None:
    assert matcher(".git", read=("/r/.git",)).decide(b"/r/.git").allowed
    assert matcher(".git", read=("/r/.git",)).decide(b"/r/.git/config").allowed
    nested = matcher(".git", read=("/r", "/r/.git"))
    assert nested.decide(b"/r/.git").rule == 'data.deny ".git"'
    assert not nested.decide(b"/r/.git/config").allowed
    assert not matcher("/r/a", read=("/r/a/b",)).decide(b"/r/a/b").allowed


def test_single_files() -> None:
    found = matcher("*.key", read=(), files=("/r/a", "/r/x.key"))
    assert found.decide(b"/r/a").allowed and found.roots[0].is_file
    assert found.decide(b"/r/a").rule == 'data.files "/r/a"'
    assert found.decide(b"/r/x.key").rule == 'data.deny "*.key"'
    for path in (b"/r", b"/r/b", b"/r/a/b", b"/r/ab"):
        assert found.decide(path).rule == OUTSIDE
    assert not matcher("sub/x", files=("/r/sub/x",)).decide(b"/r/sub/x").allowed
    assert found.hidden(0, b"") is None


def test_the_root_directory_as_a_root_is_still_matched_right() -> None:
    found = matcher("*.key", read=("/",))
    assert found.decide(b"/a/b").relative == b"a/b"
    assert not found.decide(b"/a.key").allowed
    assert found.hidden(0, b"a.key") == 'data.deny "*.key"'


LETTERS = st.sampled_from(["a", "b", ".", "-", "\u00e4", "\udcff", "\n", "*", "]"])
NAMES = st.text(LETTERS, min_size=1, max_size=4)
PATHS = st.lists(NAMES, max_size=5).map(lambda parts: "/" + "/".join(["r", *parts]))
WORDS = st.lists(
    st.sampled_from(["a", "b", ".", "-", "?", "*", "[ab]", "[!a]", "[a-c]", "\u00e4", "[*]"]),
    min_size=1,
    max_size=4,
).map("".join)
PATTERNS = st.builds(
    lambda lead, words, end: lead + "/".join(words) + end,
    st.sampled_from(["", "", "./", "/r/", "/", "**/"]),
    st.lists(st.one_of(WORDS, st.just("**")), min_size=1, max_size=4),
    st.sampled_from(["", "", "/", "/**"]),
)


def _is_right(pattern: str) -> bool:
    try:
        parse(pattern)
    except BadPattern:
        return False
    return True


@settings(max_examples=800, deadline=None, database=None)
@given(
    st.lists(PATTERNS.filter(_is_right), max_size=4),
    st.lists(st.sampled_from(["/r", "/r/a", "/r/a/b", "/s"]), max_size=3, unique=True),
    st.lists(st.sampled_from(["/r/a.b", "/t/b"]), max_size=1),
    PATHS,
)
def test_it_decides_as_the_slow_matcher(
    deny: list[str], read: list[str], files: list[str], path: str
) -> None:
    raw = path.encode("utf-8", "surrogateescape")
    found = Matcher(DataPolicy(read=tuple(read), files=tuple(files), deny=tuple(deny)))
    assert found.decide(raw).allowed == slow.allowed(raw, read, files, deny)


@settings(max_examples=300, deadline=None, database=None)
@given(st.lists(PATTERNS.filter(_is_right), max_size=4), PATHS)
def test_hidden_agrees_with_decide(deny: list[str], path: str) -> None:
    raw = f"{path}/x".encode("utf-8", "surrogateescape")
    found = Matcher(DataPolicy(read=("/r",), deny=tuple(deny)))
    decision = found.decide(raw)
    assert (found.hidden(0, raw[3:]) is None) == decision.allowed


@settings(max_examples=300, deadline=None, database=None)
@given(st.binary(max_size=40))
def test_any_bytes_are_answered(path: bytes) -> None:
    assert isinstance(matcher("*.key", "a/**/b*", ".git").decide(path), Decision)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a*a*a*a*a*a*a*a*b", "a" * 4000),
        ("**/a/**/a/**/a/**/a/**/b", "a/" * 2000 + "c"),
        ("**/*a/*a/*a/*a/b", "aa/" * 1300 + "c"),
        ("*[ab]*[ab]*[ab]*[ab]*[ab]*c", "ab" * 2000),
        ("**/?*?*?*?*?*?x", "y" * 4000),
    ],
)
def test_no_path_is_slow(pattern: str, path: str) -> None:
    """As a plain regular expression the first of these takes longer than anybody waits."""
    found = matcher(pattern)
    start = time.process_time()
    assert found.decide(f"/r/{path}".encode()).allowed
    assert time.process_time() - start < 1


def test_the_usual_case_is_fast() -> None:
    """Bound: 2 microseconds on a quiet machine; ten times that here, so that a busy one passes."""
    found = Matcher(DataPolicy(read=("/home/a/taxes", "/home/a/notes")))
    best = 1.0
    for _ in range(5):
        start = time.process_time()
        for _ in range(2000):
            found.decide(b"/home/a/taxes/2025/letter.pdf")
        best = min(best, (time.process_time() - start) / 2000)
    assert best < 20e-6
