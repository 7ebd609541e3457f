"""JSON Schema as grammar: what the answer must be.

Supported: type (also a list), properties, required, additionalProperties, items, prefixItems, minItems,
maxItems, enum, const, anyOf, oneOf (as anyOf), allOf (of objects, merged), $ref within the schema (also
recursive), pattern, minLength, maxLength, format (date, time, date-time, uuid), minimum and maximum of
integers. Properties come in the order of the schema. An object with ``properties`` has no others unless
additionalProperties says so.

What a grammar cannot hold (not, if, uniqueItems, multipleOf …) is left aside, or refused with not_supported
where the client wants it strict. Sources: JSON Schema 2020-12 (core, validation); OpenAI's structured
outputs guide.

The schema is hostile until proven otherwise: each of its parts costs one of ``MOST_PARTS``, depth is
bounded, and the rules themselves are (``grammar.Rules``).
"""

from __future__ import annotations

import json
from typing import Any

from anchorhold.worker.automaton import pattern_rule
from anchorhold.worker.failure import Failure
from anchorhold.worker.grammar import Rules, json_literal

MOST_PARTS = 5_000  # sub-schemas, enum's values and properties in all
MOST_DEPTH = 60

_NOTED = frozenset(
    {"$schema", "$id", "$comment", "$defs", "$anchor", "definitions", "title", "description", "default",
     "examples", "deprecated", "readOnly", "writeOnly", "name", "strict"}
)  # fmt: skip
_HELD: dict[str, frozenset[str]] = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems"}),
    "string": frozenset({"pattern", "minLength", "maxLength", "format"}),
    "integer": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}),
    "number": frozenset(),
    "boolean": frozenset(),
    "null": frozenset(),
}
_BASES = {"number": "number", "boolean": "bool", "null": "null"}
_DATE = '[0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | [12] [0-9] | "3" [01])'
_TIME = (
    '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,6})? '
    '("Z" | [+-] ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9])'
)
_FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f'{_DATE} "T" {_TIME}',
    "uuid": 'hex{8} "-" hex{4} "-" hex{4} "-" hex{4} "-" hex{12}',
}
_DIGITS = 15  # of an integer that has no bound

Schema = dict[str, Any]


def grammar_of(schema: object, *, strict: bool = False) -> str:
    """The grammar for one value that the schema allows. Raises Failure bad_request, not_supported."""
    rules = Rules()
    return rules.text(SchemaRules(rules, schema, strict=strict).root())


class SchemaRules:
    """Adds the rules for one schema to others."""

    def __init__(self, rules: Rules, schema: object, *, strict: bool) -> None:
        self._rules, self._schema, self._strict = rules, schema, strict
        self._refs: dict[str, str] = {}
        self._parts = 0

    def root(self) -> str:
        """The expression for a whole value. Raises Failure."""
        return self._visit(self._schema, 0)

    def _visit(self, schema: object, depth: int) -> str:
        """The name of the rule for one (sub-)schema."""
        self._count(1)
        if depth > MOST_DEPTH:
            raise Failure("bad_request", f"the schema is more than {MOST_DEPTH} levels deep")
        if schema is True or schema == {}:
            return self._rules.base("value")
        if type(schema) is not dict:
            raise _wrong("a schema is an object, or true")
        if "$ref" in schema:
            return self._referred(schema["$ref"], depth)
        if "const" in schema:
            return self._rules.one_of([_value(schema["const"])])
        if "enum" in schema:
            values = _list(schema, "enum")
            self._count(len(values))
            return self._rules.one_of([_value(value) for value in values])
        for name in ("anyOf", "oneOf"):
            if name in schema:
                self._refuse_others(schema, {name, "type"})
                return self._any(_list(schema, name), depth)
        if "allOf" in schema:
            return self._object(self._merged(schema, depth), depth)
        kind = schema["type"] if "type" in schema else _kind_of(schema)
        if type(kind) is list:
            if not 0 < len(kind) <= len(_HELD):
                raise _wrong("type is a list of none, or of too many")
            return self._any([{**schema, "type": one} for one in kind], depth)
        if type(kind) is not str or kind not in _HELD:
            raise _wrong(f"type is {str(kind)[:40]!r}")
        self._refuse_others(schema, {*_HELD[kind], "type"})
        return self._typed(kind, schema, depth)

    def _typed(self, kind: str, schema: Schema, depth: int) -> str:
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            return self._array(schema, depth)
        if kind == "string":
            return self._string(schema)
        if kind == "integer":
            return self._integer(schema)
        return self._rules.base(_BASES[kind])

    def _any(self, options: list[Any], depth: int) -> str:
        return self._rules.add(" | ".join(self._visit(option, depth + 1) for option in options))

    def _referred(self, ref: object, depth: int) -> str:
        """The rule of what is referred to; it is made once, and may refer to itself."""
        if type(ref) is not str or not (ref == "#" or ref.startswith("#/")):
            raise Failure("not_supported", "a $ref that leads out of the schema")
        name = self._refs.get(ref)
        if name is None:
            name = self._refs[ref] = self._rules.reserve()
            target = self._at(ref)
            if type(target) is dict and "$ref" in target and self._leads_nowhere(target):
                raise _wrong("a $ref that leads to itself")
            self._rules.set(name, self._visit(target, depth + 1))
        return name

    def _at(self, ref: str) -> object:
        target: object = self._schema
        for word in ref.split("/")[1:]:
            key = word.replace("~1", "/").replace("~0", "~")
            if type(target) is dict and key in target:
                target = target[key]
            elif type(target) is list and key.isascii() and key.isdigit() and int(key[:6]) < len(target):
                target = target[int(key[:6])]
            else:
                raise _wrong(f"$ref {ref[:80]!r} leads nowhere")
        return target

    def _leads_nowhere(self, target: object) -> bool:
        seen: set[str] = set()
        while type(target) is dict and type(target.get("$ref")) is str:
            ref = target["$ref"]
            if ref in seen or not ref.startswith("#"):
                return ref in seen
            seen.add(ref)
            target = self._at(ref)
        return False

    # ---- objects ------------------------------------------------------------------------------

    def _merged(self, schema: Schema, depth: int) -> Schema:
        """``allOf`` of objects as one object."""
        self._refuse_others(schema, {"allOf", "type", *_HELD["object"]})
        found: Schema = {"type": "object", "properties": {}, "required": []}
        waiting: list[tuple[object, int]] = [
            ({key: value for key, value in schema.items() if key != "allOf"}, depth),
            *((part, depth + 1) for part in _list(schema, "allOf")),
        ]
        while waiting:
            part, level = waiting.pop(0)
            self._count(1)
            if level > MOST_DEPTH:
                raise Failure("bad_request", f"the schema is more than {MOST_DEPTH} levels deep")
            if type(part) is not dict:
                raise _wrong("a schema is an object, or true")
            if "$ref" in part:
                ref = part["$ref"]
                if type(ref) is not str or not ref.startswith("#"):
                    raise Failure("not_supported", "a $ref that leads out of the schema")
                waiting.insert(0, (self._at(ref), level + 1))
                continue
            if "allOf" in part:
                waiting[:0] = [(one, level + 1) for one in _list(part, "allOf")]
            if part.get("type", "object") != "object" or not {"anyOf", "oneOf", "enum", "const"}.isdisjoint(
                part
            ):
                raise Failure("not_supported", "allOf of anything but plain objects")
            found["properties"].update(_dict(part, "properties"))
            found["required"] += _list(part, "required") if "required" in part else []
            if "additionalProperties" in part:
                found["additionalProperties"] = part["additionalProperties"]
        return found

    def _object(self, schema: Schema, depth: int) -> str:
        properties = _dict(schema, "properties")
        required = _list(schema, "required") if schema.get("required") else []
        if not all(type(name) is str for name in required):
            raise _wrong("required is a list of names")
        more = schema.get("additionalProperties", not properties)
        if more is True and not properties and not required:
            return self._rules.base("object")
        self._count(len(properties) + len(required))
        self._rules.base("ws")
        # A required property that is not described is of any kind, and comes after the others.
        described = {**properties, **{name: True for name in required if name not in properties}}
        needed = set(required)
        pairs = [
            (self._pair(json_literal(name), value, depth), name in needed)
            for name, value in described.items()
            if value is not False
        ]
        other = None
        if more is not False:
            other = self._pair(self._rules.base("string"), more, depth)
        return self._rules.add(self._members(pairs, other))

    def _pair(self, name: str, schema: object, depth: int) -> str:
        return self._rules.add(f'{name} ":" ws {self._visit(schema, depth + 1)}')

    def _members(self, pairs: list[tuple[str, bool]], other: str | None) -> str:
        """An object's text. Built from its end: what may follow once a property stands there (it begins with
        a comma), and what may stand where none does yet. So there is one way to read each text, and the rules
        grow with the number of properties, not with its square."""
        after = self._rules.add(f'("," ws {other})*') if other else '""'
        first = f"{other} {after}" if other else ""
        for pair, needed in reversed(pairs):
            here, start = f'"," ws {pair} {after}', f"{pair} {after}"
            if needed:
                after, first = self._rules.add(here), self._rules.add(start)
            else:
                after = self._rules.add(f"{here} | {after}")
                first = self._rules.add(f"{start} | {first}" if first else start)
        if not first:
            return '"{" ws "}"'
        if any(needed for _pair, needed in pairs):
            return f'"{{" ws {first} ws "}}"'
        return f'"{{" ws ({first} ws)? "}}"'

    # ---- the others ---------------------------------------------------------------------------

    def _array(self, schema: Schema, depth: int) -> str:
        self._rules.base("ws")
        least, most = _bounds(schema, "minItems", "maxItems")
        fixed: list[str] = []
        if "prefixItems" in schema or type(schema.get("items")) is list:
            listed = _list(schema, "prefixItems" if "prefixItems" in schema else "items")
            fixed = [self._visit(item, depth + 1) for item in listed]
        if fixed:
            return self._rules.add('"[" ws ' + ' "," ws '.join(fixed) + ' ws "]"')
        items = schema.get("items", True)
        if items is False or most == 0:
            return self._rules.add('"[" ws "]"')
        item = self._visit(items, depth + 1)
        rest = self._rules.repeat(f'"," ws {item}', max(0, least - 1), None if most is None else most - 1)
        some = f"{item} {rest}"
        return self._rules.add(f'"[" ws {some} ws "]"' if least else f'"[" ws ({some} ws)? "]"')

    def _string(self, schema: Schema) -> str:
        if "pattern" in schema:
            if type(schema["pattern"]) is not str:
                raise _wrong("pattern is a text")
            if self._strict and ("minLength" in schema or "maxLength" in schema):
                raise Failure("not_supported", "a pattern and a length in one schema")
            return self._rules.add(f'"\\"" {pattern_rule(self._rules, schema["pattern"])} "\\""')
        form = schema.get("format")
        if type(form) is str and form in _FORMATS:
            self._rules.base("hex")
            return self._rules.add(f'"\\"" {_FORMATS[form]} "\\""')
        if form is not None and self._strict:
            raise Failure("not_supported", f"the format {str(form)[:40]!r}")
        least, most = _bounds(schema, "minLength", "maxLength")
        if least == 0 and most is None:
            return self._rules.base("string")
        return self._rules.add(f'"\\"" {self._rules.repeat(self._rules.base("char"), least, most)} "\\""')

    def _integer(self, schema: Schema) -> str:
        least, most = _number(schema, "minimum"), _number(schema, "maximum")
        over, under = _number(schema, "exclusiveMinimum"), _number(schema, "exclusiveMaximum")
        if over is not None:
            least = over + 1 if least is None else max(least, over + 1)
        if under is not None:
            most = under - 1 if most is None else min(most, under - 1)
        if least is None and most is None:
            return self._rules.base("int")
        if least is not None and most is not None and least > most:
            raise _wrong("no integer lies between minimum and maximum")
        return self._rules.add(" | ".join(_between(least, most)))

    def _count(self, number: int) -> None:
        self._parts += number
        if self._parts > MOST_PARTS:
            raise Failure("bad_request", f"the schema has more than {MOST_PARTS:,} parts")

    def _refuse_others(self, schema: Schema, held: set[str]) -> None:
        if self._strict:
            for name in schema:
                if name not in held and name not in _NOTED:
                    raise Failure("not_supported", f"a grammar cannot hold {name[:40]!r} of the schema")


def _between(least: int | None, most: int | None) -> list[str]:
    """Expressions for the integers from least to most (None: no end)."""
    found: list[str] = []
    bound = 10**_DIGITS
    low, high = (-bound if least is None else least), (bound if most is None else most)
    if low < 0:
        upper = -low if least is not None else None
        lower = max(1, -high)
        found += [f'"-" ({option})' for option in _digits(lower, upper)]
    if high >= 0:
        found += _digits(max(0, low), high if most is not None else None)
    return found


def _digits(low: int, high: int | None) -> list[str]:
    """Expressions for the decimal digits of low to high, both at least 0; by equal numbers of digits."""
    found: list[str] = []
    if high is None:
        size = len(str(low))
        found = _digits(low, 10**size - 1)
        return [*found, f"[1-9] [0-9]{{{size},{max(size, _DIGITS)}}}"]
    while low <= high:
        top = min(high, 10 ** len(str(low)) - 1)
        found += _same_size(str(low), str(top))
        low = top + 1
    return found


def _same_size(low: str, high: str) -> list[str]:
    if not low:
        return ['""']
    if low[0] == high[0]:
        return [f'"{low[0]}" {rest}' for rest in _grouped(_same_size(low[1:], high[1:]))]
    rest = len(low) - 1
    tail = f" [0-9]{{{rest}}}" if rest else ""
    if set(low[1:]) <= {"0"} and set(high[1:]) <= {"9"}:
        return [f"[{low[0]}-{high[0]}]{tail}"]
    found: list[str] = []
    first, last = int(low[0]), int(high[0])
    if set(low[1:]) - {"0"}:
        found += [f'"{low[0]}" {one}' for one in _grouped(_same_size(low[1:], "9" * rest))]
        first += 1
    upper: list[str] = []
    if set(high[1:]) - {"9"}:
        upper = [f'"{high[0]}" {one}' for one in _grouped(_same_size("0" * rest, high[1:]))]
        last -= 1
    if first <= last:
        found.append(f"[{first}-{last}]{tail}")
    return found + upper


def _grouped(options: list[str]) -> list[str]:
    return [f"({' | '.join(options)})"]


def _kind_of(schema: Schema) -> str:
    """The type that a schema without one speaks of; only notes mean any value."""
    for kind, held in _HELD.items():
        if not held.isdisjoint(schema):
            return kind
    raise Failure("not_supported", "a schema without a type")


def _value(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        raise _wrong("a value that is no JSON") from None


def _list(schema: Schema, name: str) -> list[Any]:
    found = schema[name]
    if type(found) is not list or not found:
        raise _wrong(f"{name} is a list, and not empty")
    return found


def _dict(schema: Schema, name: str) -> Schema:
    found = schema.get(name, {})
    if type(found) is not dict:
        raise _wrong(f"{name} is an object")
    return found


def _bounds(schema: Schema, least: str, most: str) -> tuple[int, int | None]:
    low, high = schema.get(least, 0), schema.get(most)
    if type(low) is not int or low < 0 or not (high is None or (type(high) is int and high >= 0)):
        raise _wrong(f"{least} and {most} are whole numbers")
    return low, high


def _number(schema: Schema, name: str) -> int | None:
    value = schema.get(name)
    if type(value) is float and value.is_integer():
        value = int(value)
    if value is None or (type(value) is int and abs(value) < 10**_DIGITS):
        return value
    raise _wrong(f"{name} of an integer is a whole number of {_DIGITS} digits at most")


def _wrong(what: str) -> Failure:
    return Failure("bad_request", f"the schema cannot be read: {what}")
