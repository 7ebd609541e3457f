"""Schemas and patterns as grammar: what they allow, what they do not, and that no hostile one costs much."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anchorhold.worker.failure import Failure
from anchorhold.worker.grammar import any_object
from anchorhold.worker.schema import grammar_of
from tests.unit.worker.grammars import Vocabulary

OBJECT: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "string"}, "b": {"type": "integer"}, "c": {"type": "boolean"}},
}
NODE = {
    "type": "object",
    "properties": {"v": {"type": "number"}, "next": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}},
    "required": ["v", "next"],
}


@pytest.fixture(scope="module")
def vocabulary(demo_model: Path) -> Iterator[Vocabulary]:
    made = Vocabulary(demo_model)
    yield made
    made.close()


def text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def test_json_mode_takes_objects_and_nothing_else(vocabulary: Vocabulary) -> None:
    grammar = any_object()
    for good in ("{}", "{ }", '{"a": 1}', '{\n  "a": [1, -2.5e-3, true, null, {"b": "\\u00e9\\n€"}]\n}'):
        assert vocabulary.takes(grammar, good), good
        json.loads(good)
    for bad in ("[]", '{"a": 1', '{"a": NaN}', "{} ", '"x"', '{"a": 01}', '{"a": "\\ud800"}', '{"a": "\n"}'):
        assert not vocabulary.takes(grammar, bad), bad


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (OBJECT, [{}, {"a": "x"}, {"b": 1}, {"a": "", "c": True}], [{"b": 1, "a": "x"}, {"d": 1}, {"a": 1}]),
        (
            {**OBJECT, "required": ["b"]},
            [{"b": 1}, {"a": "x", "b": 2, "c": False}],
            [{}, {"a": "x"}, {"c": True}],
        ),
        (
            {**OBJECT, "additionalProperties": {"type": "null"}},
            [{"a": "x", "z": None}, {"z": None}],
            [{"z": 1}],
        ),
        ({**OBJECT, "required": ["a", "z"]}, [{"a": "x", "z": [1]}], [{"a": "x"}]),
        ({"type": "object"}, [{}, {"x": {"y": [1]}}], [[], 1]),
        ({"properties": {}, "additionalProperties": False}, [{}], [{"a": 1}]),
        ({}, [1, "x", None, [], {"a": 1}], []),
        (
            {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3},
            [[1, 2], [1, 2, 3]],
            [[1], [1] * 4],
        ),
        (
            {"type": "array", "items": {"type": "null"}, "minItems": 250, "maxItems": 451},
            [[None] * n for n in (250, 251, 449, 450, 451)],
            [[None] * n for n in (249, 452)],
        ),
        (
            {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]},
            [[1, "x"]],
            [[1], ["x", 1]],
        ),
        ({"type": "array", "items": False}, [[]], [[1]]),
        (
            {"type": "string", "minLength": 2, "maxLength": 450},
            ["ab", "é\n" * 100, "x" * 450],
            ["a", "x" * 451],
        ),
        ({"type": "string", "maxLength": 0}, [""], ["x"]),
        ({"type": "string", "format": "date"}, ["2025-01-31"], ["2025-13-01", "x"]),
        ({"type": "string", "format": "date-time"}, ["2025-01-31T10:00:00.5Z"], ["2025-01-31"]),
        ({"type": "string", "format": "uuid"}, ["01234567-89ab-cdef-0123-456789abcdef"], ["x"]),
        (
            {"enum": ["a", "ab", "abc", 'q"\\\n', "é", None, 1.5, {"k": [1]}]},
            ["a", "ab", "abc", 'q"\\\n', "é", None, 1.5, {"k": [1]}],
            ["b", "abcd", 1],
        ),
        ({"const": "x"}, ["x"], ["y"]),
        ({"type": ["string", "null"], "maxLength": 3}, ["abc", None], ["abcd", 1]),
        (
            {"$defs": {"n": NODE}, "$ref": "#/$defs/n"},
            [{"v": 1, "next": {"v": -2.5, "next": None}}],
            [{"v": 1}],
        ),
        (
            {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"$ref": "#"}}]},
            [1, [[1], [], 2]],
            ["x"],
        ),
        (
            {
                "allOf": [
                    {"$ref": "#/definitions/x"},
                    {"properties": {"b": {"const": 1}}, "required": ["b"]},
                ],
                "definitions": {"x": {"type": "object", "properties": {"a": {"const": 2}}}},
            },
            [{"b": 1}, {"a": 2, "b": 1}],
            [{"a": 2}],
        ),
        ({"title": "T", "description": "d", "type": "boolean", "default": True}, [True, False], [None]),
    ],
)
def test_what_a_schema_allows(vocabulary: Vocabulary, schema: Any, good: list[Any], bad: list[Any]) -> None:
    grammar = grammar_of(schema)
    for value in good:
        assert vocabulary.takes(grammar, text(value)), value
    for value in bad:
        assert not vocabulary.takes(grammar, text(value)), value


@given(st.integers(-2000, 2000), st.integers(0, 3000), st.integers(-2100, 5100))
@settings(max_examples=60, deadline=None)
def test_the_bounds_of_integers(vocabulary: Vocabulary, least: int, more: int, value: int) -> None:
    for schema, inside in (
        ({"minimum": least, "maximum": least + more}, least <= value <= least + more),
        ({"minimum": least}, value >= least),
        ({"exclusiveMaximum": least}, value < least),
    ):
        grammar = grammar_of({"type": "integer", **schema})
        assert vocabulary.takes(grammar, str(value)) == inside, (schema, value)


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        (r"^\d{3}-[A-Z]+$", ["123-AB"], ["12-A", "123-", "123-a"]),
        ("ab+", ["xxabbz", "ab"], ["xxa"]),
        (r'^(a|b\\"){2}[^x-z\n]?$', ["aa", 'ab\\"', 'aa"', "aa\t"], ["aax", "a"]),
        (r"^[\w.]+@[\w.]+\.[a-z]{2,}$", ["me@example.org"], ["me@", "me@example"]),
        (r"^(?:foo|bar){1,2}$", ["foo", "foobar"], ["", "foobarfoo"]),
        (r"^.*$", ["", 'any "thing" \\ é'], ["a\nb"]),
        (r"^a{0}b*?$", ["", "bb"], ["a"]),
        (r"^\u00e9\x41\/\.$", ["éA/."], ["eA/x"]),
        (r"a\$", ["a$"], ["a"]),
        (r"^[\b\S]+$", ["\b", "x"], [" "]),
    ],
)
def test_what_a_pattern_allows(vocabulary: Vocabulary, pattern: str, good: list[str], bad: list[str]) -> None:
    grammar = grammar_of({"type": "string", "pattern": pattern})
    for value in good:
        assert vocabulary.takes(grammar, text(value)), value
    for value in bad:
        assert not vocabulary.takes(grammar, text(value)), value


PIECES = st.sampled_from(["a", "b", "[ab]", "[^a]", "(a|b)", "(ab|c)*", "a?", "b+", "c{1,2}", "."])


@given(st.lists(PIECES, max_size=5).map("".join), st.text("abc", max_size=5))
@settings(max_examples=150, deadline=None)
def test_a_pattern_means_what_pythons_re_says(vocabulary: Vocabulary, pattern: str, value: str) -> None:
    grammar = grammar_of({"type": "string", "pattern": f"^{pattern}$"})
    assert vocabulary.takes(grammar, text(value)) == bool(re.fullmatch(pattern, value))


@pytest.mark.parametrize(
    ("schema", "code"),
    [
        ({"type": "string", "pattern": pattern}, code)
        for pattern, code in (
            ("(?=a)", "not_supported"),
            (r"(a)\1", "not_supported"),
            (r"\bx", "not_supported"),
            ("a^b", "not_supported"),
            ("^a|b", "not_supported"),
            ("(a", "bad_request"),
            ("a)", "bad_request"),
            ("[a", "bad_request"),
            ("*a", "bad_request"),
            ("a{2", "bad_request"),
            ("a{3,2}", "bad_request"),
            ("a**", "bad_request"),
            ("[z-a]", "bad_request"),
            ("\\", "bad_request"),
            ("\\u12", "bad_request"),
            ("[]", "bad_request"),
            ("a{x}", "bad_request"),
            ("x" * 2001, "bad_request"),
            ("^a{100000}$", "bad_request"),
            ("((a{1000}){1000}){1000}", "bad_request"),
            ("(" * 500 + ")" * 500, "bad_request"),
            ("^(a|b)*a(a|b){20}$", "bad_request"),
        )
    ]
    + [
        (5, "bad_request"),
        ([], "bad_request"),
        ({"type": "x"}, "bad_request"),
        ({"type": []}, "bad_request"),
        ({"type": ["string"] * 50}, "bad_request"),
        ({"enum": []}, "bad_request"),
        ({"enum": [float("nan")]}, "bad_request"),
        ({"anyOf": []}, "bad_request"),
        ({"$ref": "#"}, "bad_request"),
        ({"$ref": "#/nowhere"}, "bad_request"),
        ({"$ref": "https://example.org/s"}, "not_supported"),
        ({"not": {}}, "not_supported"),
        ({"type": "integer", "minimum": 2, "maximum": 1}, "bad_request"),
        ({"type": "integer", "minimum": 10**40}, "bad_request"),
        ({"type": "array", "maxItems": 10**9}, "bad_request"),
        ({"type": "string", "minLength": -1}, "bad_request"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "bad_request"),
        ({"type": "object", "properties": []}, "bad_request"),
        ({"type": "object", "required": [1]}, "bad_request"),
        ({"allOf": [{"type": "string"}]}, "not_supported"),
        ({"allOf": [{"$ref": "#"}, {"$ref": "#"}]}, "bad_request"),
        ({"enum": ["x" * 1000 + str(n) for n in range(500)], "type": "string"}, None),
        ({"enum": [str(n) * 200 for n in range(4000)]}, "bad_request"),
        ({"enum": list(range(6000))}, "bad_request"),
    ],
)
def test_what_cannot_be_held_is_an_error_and_soon(schema: Any, code: str | None) -> None:
    start = time.process_time()
    if code is None:
        assert len(grammar_of(schema)) < 200_000
    else:
        with pytest.raises(Failure) as caught:
            grammar_of(schema)
        assert caught.value.code == code
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    "pattern",
    ["a?" * 500 + "b", "(a|a)" * 30 + "b", "(a|aa)+b", "(a+)+b", "(a*)*b", "(.*a){12}", ".*" * 60],
)
def test_patterns_that_explode_elsewhere_are_followed_quickly(vocabulary: Vocabulary, pattern: str) -> None:
    start = time.process_time()
    grammar = grammar_of({"type": "string", "pattern": f"^{pattern}$"})
    vocabulary.takes(grammar, '"' + "a" * 400, whole=False)
    assert time.process_time() - start < 3


def test_the_engine_alone_does_explode(vocabulary: Vocabulary) -> None:
    """What the automaton is for: a small part of the first pattern above, as a grammar just as it is
    written."""
    start = time.process_time()
    vocabulary.takes('root ::= "\\"" ' + '"a"? ' * 120 + '"b"', '"' + "a" * 100, whole=False)
    plain = time.process_time() - start
    start = time.process_time()
    vocabulary.takes(
        grammar_of({"type": "string", "pattern": f"^{'a?' * 120}b$"}), '"' + "a" * 100, whole=False
    )
    assert plain > 5 * (time.process_time() - start)


def test_deep_and_wide_schemas(vocabulary: Vocabulary) -> None:
    deep: Any = {"type": "string"}
    for _level in range(50):
        deep = {"type": "array", "items": deep}
    assert vocabulary.takes(grammar_of(deep), "[" * 50 + '"x"' + "]" * 50)
    for _level in range(500):
        deep = {"type": "array", "items": deep}
    with pytest.raises(Failure, match="levels deep"):
        grammar_of(deep)
    wide = {"type": "object", "properties": {f"p{number}": {"type": "null"} for number in range(1000)}}
    assert vocabulary.takes(grammar_of(wide), '{"p3": null, "p500": null, "p999": null}')
    assert not vocabulary.takes(grammar_of(wide), '{"p500": null, "p3": null}')


def test_what_refers_only_to_itself_is_nothing_the_engine_can_read(vocabulary: Vocabulary) -> None:
    assert not vocabulary.reads(grammar_of({"anyOf": [{"$ref": "#"}, {"type": "string"}]}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "properties",
                    "items",
                    "anyOf",
                    "enum",
                    "$ref",
                    "required",
                    "minItems",
                    "pattern",
                    "allOf",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
@settings(max_examples=300, deadline=None)
def test_any_json_is_a_grammar_or_a_failure(schema: Any) -> None:
    for strict in (False, True):
        try:
            assert grammar_of(schema, strict=strict).isascii()
        except Failure as failure:
            assert failure.code in ("bad_request", "not_supported")
