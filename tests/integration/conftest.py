"""The three ways to start a cell. Cells of these tests are measured from inside, when the tests are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cellcoverage import counting
from tests.support import Runner, runner

MODES = ("root", "unprivileged", "no_userns")


@pytest.fixture(scope="session", autouse=True)
def _count_in_the_cell() -> Iterator[None]:
    with counting():
        yield


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """As whom the cell is started; "root" is oneself when the tests are not run by root."""
    return str(request.param)


@pytest.fixture
def started_by(mode: str, request: pytest.FixtureRequest) -> Runner:
    return runner([]) if mode == "root" else request.getfixturevalue(mode)
