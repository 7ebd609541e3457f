"""Cells of these tests are measured from inside, when the tests are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cellcoverage import counting


@pytest.fixture(scope="session", autouse=True)
def _count_in_the_cell() -> Iterator[None]:
    with counting():
        yield
