"""A pattern as a deterministic automaton, and that as rules: one for each state.

The engine follows every way in which a grammar can read a text at the same time: patterns such as
``(a|aa)+``, or ``a?`` five hundred times, would cost it minutes for a word. Of a deterministic automaton
there is one way at each moment. What it costs to make one is bounded here: by the states, and by the steps
taken.

Sources: Thompson's construction, subset construction (Aho, Sethi, Ullman: Compilers, 3.6 and 3.7).
"""

from __future__ import annotations

import bisect

from anchorhold.worker.failure import Failure
from anchorhold.worker.grammar import Rules, chars
from anchorhold.worker.pattern import Node, Ranges, read

MOST_PLACES = 4_000  # of the pattern, with its repetitions written out
MOST_STATES = 1_000
MOST_STEPS = 2_000_000
_SHORT = {0x22: '"', 0x5C: "\\", 8: "b", 9: "t", 10: "n", 12: "f", 13: "r"}
_LONG = {code: f"{code:02x}" for code in [*range(0x20), 0x7F] if code not in _SHORT}


def pattern_rule(rules: Rules, pattern: str) -> str:
    """The expression for the inside of a JSON string that matches. Raises Failure bad_request,
    not_supported."""
    tree = read(pattern)
    if _size(tree) > MOST_PLACES:
        raise Failure(
            "bad_request", f"a pattern of more than {MOST_PLACES:,} places, its repetitions written out"
        )
    return _Deterministic(_Places(tree)).write(rules)


def _size(node: Node) -> int:
    """Places that it takes; never far more than MOST_PLACES, which is enough to know."""
    inner = 1 if node.ranges is not None else 2 + sum(_size(part) for part in node.parts)
    times = max(1, node.least + (1 if node.most is None else node.most - node.least))
    return min(inner * times, 10 * MOST_PLACES)


class _Places:
    """The automaton that can be in many places at once. ``free``: ways that cost no character."""

    def __init__(self, tree: Node) -> None:
        self.free: list[list[int]] = []
        self.moves: list[tuple[Ranges, int] | None] = []
        self.start = self._place()
        self.end = self._add(tree, self.start)

    def _place(self) -> int:
        self.free.append([])
        self.moves.append(None)
        return len(self.free) - 1

    def _add(self, node: Node, start: int) -> int:
        """The place after the node, which begins at ``start``."""
        at = start
        for _time in range(node.least):
            at = self._once(node, at)
        if node.most is None:
            loop = self._place()
            self.free[at].append(loop)
            self.free[self._once(node, loop)].append(loop)
            return loop
        if node.most > node.least:
            end = self._place()
            for _time in range(node.most - node.least):
                self.free[at].append(end)
                at = self._once(node, at)
            self.free[at].append(end)
            return end
        return at

    def _once(self, node: Node, start: int) -> int:
        if node.ranges is not None:
            end = self._place()
            here = self._place()
            self.free[start].append(here)
            self.moves[here] = (node.ranges, end)
            return end
        if node.row:
            at = start
            for part in node.parts:
                at = self._add(part, at)
            return at
        end = self._place()
        for part in node.parts:
            begin = self._place()
            self.free[start].append(begin)
            self.free[self._add(part, begin)].append(end)
        return end


class _Deterministic:
    """The same language with one state at a time. Raises Failure bad_request when that takes too much."""

    def __init__(self, places: _Places) -> None:
        self._places = places
        self._steps = 0
        # Where any range begins or has just ended: between two of these all characters are treated alike.
        cuts = {0}
        for move in places.moves:
            for first, last in move[0] if move else []:
                cuts |= {first, last + 1}
        self._cuts = sorted(cuts)
        self._states: dict[frozenset[int], int] = {}
        self.edges: list[dict[int, Ranges]] = []
        self.accepting: set[int] = set()
        waiting = [self._closed({places.start})]
        self._state(waiting[0])
        while waiting:
            current = waiting.pop()
            edges = self.edges[self._states[current]]
            for first, last, targets in self._moves(current):
                following = self._closed(targets)
                if following not in self._states:
                    waiting.append(following)
                edges.setdefault(self._state(following), []).append((first, last))

    def _state(self, held: frozenset[int]) -> int:
        number = self._states.get(held)
        if number is None:
            if len(self._states) == MOST_STATES:
                raise _too_complex()
            number = self._states[held] = len(self._states)
            self.edges.append({})
            if self._places.end in held:
                self.accepting.add(number)
        return number

    def _step(self, number: int = 1) -> None:
        self._steps += number
        if self._steps > MOST_STEPS:
            raise _too_complex()

    def _closed(self, held: set[int]) -> frozenset[int]:
        """With all places that cost no character; only those that matter are kept."""
        found, waiting = set(held), list(held)
        while waiting:
            for free in self._places.free[waiting.pop()]:
                self._step()
                if free not in found:
                    found.add(free)
                    waiting.append(free)
        self._step(len(found))
        end, moves = self._places.end, self._places.moves
        return frozenset(place for place in found if place == end or moves[place] is not None)

    def _moves(self, held: frozenset[int]) -> list[tuple[int, int, set[int]]]:
        """Ranges of characters, and where each leads."""
        by_cut: dict[int, set[int]] = {}
        for place in held:
            move = self._places.moves[place]
            for first, last in move[0] if move else []:
                assert move is not None
                begin = bisect.bisect_left(self._cuts, first)
                end = bisect.bisect_right(self._cuts, last)
                self._step(end - begin + 1)
                for cut in range(begin, end):
                    by_cut.setdefault(cut, set()).add(move[1])
        found: list[tuple[int, int, set[int]]] = []
        for cut in sorted(by_cut):
            first, last = self._cuts[cut], self._cuts[cut + 1] - 1
            if found and found[-1][1] == first - 1 and found[-1][2] == by_cut[cut]:
                found[-1] = (found[-1][0], last, by_cut[cut])
            else:
                found.append((first, last, by_cut[cut]))
        return found

    def _alive(self) -> set[int]:
        """The states from which an end can be reached: in any other, the engine would be stuck."""
        into: dict[int, list[int]] = {}
        for state, edges in enumerate(self.edges):
            for target in edges:
                into.setdefault(target, []).append(state)
        alive, waiting = set(self.accepting), list(self.accepting)
        while waiting:
            for state in into.get(waiting.pop(), []):
                if state not in alive:
                    alive.add(state)
                    waiting.append(state)
        return alive

    def write(self, rules: Rules) -> str:
        """One rule for each state; returns the name of the first."""
        alive = self._alive()
        if 0 not in alive:
            raise Failure("bad_request", "a pattern that nothing matches")
        names = {state: rules.reserve() for state in sorted(alive)}
        for state, name in names.items():
            options = ['""'] if state in self.accepting else []
            for target, ranges in self.edges[state].items():
                if target in alive:
                    options += [f"{one} {names[target]}" for one in written(rules, ranges)]
            rules.set(name, " | ".join(options))
        return names[0]


def written(rules: Rules, ranges: Ranges) -> list[str]:
    """One character of these as it stands in JSON: as itself, and as an escape where JSON wants one."""
    plain: Ranges = []
    special = sorted([*_SHORT, *_LONG])
    for first, last in ranges:
        at = first
        for code in special[bisect.bisect_left(special, first) : bisect.bisect_right(special, last)]:
            if code > at:
                plain.append((at, code - 1))
            at = code + 1
        if at <= last:
            plain.append((at, last))
    inside = [code for code in special if any(first <= code <= last for first, last in ranges)]
    escapes: list[str] = []
    short = [(ord(_SHORT[code]), ord(_SHORT[code])) for code in inside if code in _SHORT]
    if short:
        escapes.append(chars(short))
    for digit in "017":
        ends = [ord(_LONG[code][1]) for code in inside if code in _LONG and _LONG[code][0] == digit]
        if ends:
            escapes.append(f'"u00{digit}" {chars([(end, end) for end in ends])}')
    found = [rules.add(chars(plain))] if plain else []
    if escapes:
        found.append(rules.add(f'"\\\\" ({" | ".join(escapes)})'))
    return found


def _too_complex() -> Failure:
    return Failure("bad_request", "a pattern that is too complex to be followed")
