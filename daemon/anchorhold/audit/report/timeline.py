"""When files were shown and when something was refused: bars, by hour, day, week, month or year.

Two rows of bars with a scale each, since one refusal among thousands of grants must be seen. Positions across
are in per cent and heights in pixels, so the drawing fits any width without its text being scaled.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from anchorhold.audit.report.text import count, long_date, moment, month_name, number

MOST_BARS = 62
HEIGHT = 120
LOW_HEIGHT = 56


def _hour(at: datetime) -> datetime:
    return at.replace(minute=0, second=0)


def _day(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0)


def _week(at: datetime) -> datetime:
    return _day(at) - timedelta(days=at.weekday()) if at.toordinal() > 7 else _day(at)


def _month(at: datetime) -> datetime:
    return _day(at).replace(day=1)


def _year(at: datetime) -> datetime:
    return _month(at).replace(month=1)


class Unit:
    """A length of time that one bar stands for."""

    def __init__(
        self,
        word: str,
        start: Callable[[datetime], datetime],
        step: timedelta,
        label: Callable[[datetime], str],
        long: Callable[[datetime], str],
    ) -> None:
        self.word, self.start, self.step, self.label, self.long = word, start, step, label, long

    def after(self, at: datetime) -> datetime:
        """The start of the next one."""
        return self.start(at + self.step)

    def bars(self, first: datetime, last: datetime) -> int:
        """About how many there are."""
        return int((self.start(last) - self.start(first)) / self.step) + 1


UNITS = (
    Unit(
        "hour", _hour, timedelta(hours=1), lambda at: f"{at:%H}:00", lambda at: f"{long_date(at)}, {at:%H}:00"
    ),
    Unit("day", _day, timedelta(days=1), lambda at: f"{at.day} {month_name(at)[:3]}", long_date),
    Unit(
        "week",
        _week,
        timedelta(days=7),
        lambda at: f"{at.day} {month_name(at)}",
        lambda at: f"week of {long_date(at)}",
    ),
    Unit("month", _month, timedelta(days=32), month_name, month_name),
    Unit("year", _year, timedelta(days=367), lambda at: str(at.year), lambda at: str(at.year)),
)


def bars(hours: dict[str, list[int]]) -> tuple[Unit, list[tuple[datetime, int, int]]]:
    """The unit that gives a readable number of bars, and each bar's time, grants and refusals."""
    found: dict[datetime, list[int]] = {}
    moments = [(at, counts) for hour, counts in hours.items() if (at := moment(hour + ":00:00"))]
    if not moments:
        return UNITS[1], []
    first, last = min(at for at, _ in moments), max(at for at, _ in moments)
    unit = next((unit for unit in UNITS if unit.bars(first, last) <= MOST_BARS), UNITS[-1])
    for at, counts in moments:
        sums = found.setdefault(unit.start(at), [0, 0])
        sums[0] += counts[0]
        sums[1] += counts[1]
    if unit.bars(first, last) > MOST_BARS:  # a clock that jumped through centuries: only what there is
        return unit, [(at, *_pair(found[at])) for at in sorted(found)[:MOST_BARS]]
    row = []
    at, end = unit.start(first), unit.start(last)
    while at <= end:
        row.append((at, *_pair(found.get(at, [0, 0]))))
        try:
            at = unit.after(at)
        except OverflowError:  # the year 9999
            break
    return unit, row


def _pair(counts: list[int]) -> tuple[int, int]:
    return counts[0], counts[1]


def draw(hours: dict[str, list[int]]) -> str:
    """The whole picture, with its numbers as a table that is closed at first."""
    unit, row = bars(hours)
    if not row:
        return "<p class=none>No file was shown and nothing was refused in this time.</p>"
    shown, refused = sum(bar[1] for bar in row), sum(bar[2] for bar in row)
    parts = [f"<p>Each bar is one {unit.word}, in UTC.</p>"]
    parts.append("<figure><figcaption><i class=key></i>Files shown to the model</figcaption>")
    if shown:
        parts.append(_svg(unit, [(at, value) for at, value, _ in row], HEIGHT))
    else:
        parts.append("<p class=none>None in this time.</p>")
    parts.append("<figcaption><i class='key r'></i>Requests refused</figcaption>")
    if refused:
        parts.append(_svg(unit, [(at, value) for at, _, value in row], LOW_HEIGHT, refused=True))
    else:
        parts.append("<p class=none>None in this time.</p>")
    parts.append(_labels(unit, row) + "</figure>")
    parts.append(_table(unit, row))
    return "".join(parts)


def _svg(unit: Unit, row: list[tuple[datetime, int]], height: int, *, refused: bool = False) -> str:
    most = max(value for _, value in row)
    width = 100 / len(row)
    thick = min(width * 0.78, 8)
    total = sum(value for _, value in row)
    what = "requests refused" if refused else "times that a file was shown"
    parts = [
        f'<svg class="bars{" r" if refused else ""}" height="{height + 22}" role="img"'
        f' aria-label="{number(total)} {what},'
        f' at most {number(most)} in one {unit.word}">'
        f'<line x1="0" x2="100%" y1="20" y2="20"/>'
        f'<text x="0" y="14">{number(most)}</text>'
    ]
    for place, (at, value) in enumerate(row):
        if not value:
            continue
        tall = max(3.0, height * value / most)
        x = place * width + (width - thick) / 2
        word = f"{number(value)} refused" if refused else "shown " + count(value, "time")
        parts.append(
            f'<rect x="{x:.2f}%" y="{20 + height - tall:.1f}" width="{thick:.2f}%" height="{tall:.1f}"'
            ' rx="1.5">'
            f"<title>{unit.long(at)}: {word}</title></rect>"
        )
    parts.append(f'<line class=base x1="0" x2="100%" y1="{20 + height}" y2="{20 + height}"/></svg>')
    return "".join(parts)


def _labels(unit: Unit, row: list[tuple[datetime, int, int]]) -> str:
    """First, middle and last time below the bars."""
    places = sorted({0, len(row) // 2, len(row) - 1}) if len(row) > 4 else sorted({0, len(row) - 1})
    labels = [unit.label(row[place][0]) for place in places]
    if unit.word == "hour":
        labels = [
            f"{UNITS[1].label(row[place][0])} {label}" for place, label in zip(places, labels, strict=True)
        ]
    if len(labels) == 1:
        return f"<div class='axis one'><span>{unit.long(row[0][0])}</span></div>"
    return "<div class=axis>" + "".join(f"<span>{label}</span>" for label in labels) + "</div>"


def _table(unit: Unit, row: list[tuple[datetime, int, int]]) -> str:
    lines = [
        f"<tr><td>{unit.long(at)}<td class=n>{number(shown)}<td class=n>{number(refused)}"
        for at, shown, refused in row
        if shown or refused
    ]
    return (
        f"<details class=more><summary>The same as numbers</summary><table class=plain><thead><tr>"
        f"<th>{unit.word.capitalize()}<th class=n>Shown<th"
        f" class=n>Refused<tbody>{''.join(lines)}</table></details>"
    )
