"""Bars: the right unit, and no entry lost between them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anchorhold.audit.report.timeline import MOST_BARS, bars, draw

START = datetime(2026, 1, 5, 8, tzinfo=UTC)


def hours(*afters: timedelta) -> dict[str, list[int]]:
    return {(START + after).strftime("%Y-%m-%dT%H"): [3, 1] for after in afters}


@pytest.mark.parametrize(
    ("span", "unit"),
    [
        (timedelta(0), "hour"),
        (timedelta(hours=48), "hour"),
        (timedelta(days=7), "day"),
        (timedelta(days=31), "day"),
        (timedelta(days=90), "week"),
        (timedelta(days=365), "week"),
        (timedelta(days=800), "month"),
        (timedelta(days=365 * 10), "year"),
    ],
)
def test_the_unit_suits_the_time(span: timedelta, unit: str) -> None:
    found, row = bars(hours(timedelta(0), span))
    assert found.word == unit
    assert 1 <= len(row) <= MOST_BARS + 1
    assert sum(bar[1] for bar in row) == (3 if not span else 6)


@given(st.dictionaries(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)), st.just([1, 2]), max_size=30))
def test_any_time(found: dict[datetime, list[int]]) -> None:
    given_hours = {at.isoformat()[:13]: counts for at, counts in found.items()}
    unit, row = bars(given_hours)
    starts = [at for at, _, _ in row]
    assert starts == sorted(set(starts))
    assert len(row) <= MOST_BARS + 3
    if unit.word != "year":
        assert sum(bar[1] for bar in row) == len(given_hours)
    draw(given_hours)


def test_every_bar_begins_where_the_last_one_ends() -> None:
    for span in (timedelta(hours=30), timedelta(days=60), timedelta(days=400), timedelta(days=1500)):
        unit, row = bars(hours(timedelta(0), span))
        for (at, _, _), (following, _, _) in zip(row, row[1:], strict=False):
            assert unit.after(at) == following == unit.start(following), unit.word


def test_the_last_year_that_there_is() -> None:
    for first in ("9998-12-31T01", "9990-01-01T00", "9999-12-31T22"):
        row = bars({first: [1, 0], "9999-12-31T23": [1, 0]})[1]
        assert sum(bar[1] for bar in row) == 2
    assert sum(bar[1] for bar in bars({"0001-01-01T00": [1, 0], "0001-02-20T00": [1, 0]})[1]) == 2


def test_what_is_not_there_is_said() -> None:
    assert "No file was shown and nothing was refused" in draw({})
    assert draw({"2026-01-05T08": [3, 0]}).count("None in this time") == 1
    assert draw({"2026-01-05T08": [0, 3]}).count("None in this time") == 1
    assert "None" not in draw({"2026-01-05T08": [1, 1]})


def test_few_among_many_can_be_seen() -> None:
    html = draw({"2026-01-05T08": [10_000, 0], "2026-01-06T08": [1, 0]})
    heights = [float(height) for height in re.findall(r'<rect [^>]*height="([\d.]+)"', html)]
    assert heights == [120.0, 3.0]
    assert "shown 10,000 times" in html and "shown 1 time<" in html
