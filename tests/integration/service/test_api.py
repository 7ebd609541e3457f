"""The API in front of real workers, by the real openai package."""

from __future__ import annotations

import json

import pytest

from tests.integration.service.conftest import Driven


@pytest.mark.timeout(150)
def test_the_api_with_real_workers(served: Driven) -> None:
    seen = served("over_http")
    assert seen["models"] == ["taxes"] and seen["pieces"] > 2, seen
    assert seen["shown"][0]["path"].endswith("paper.txt") and seen["receipt"] == seen["request"]
    found = json.loads(seen["json"])
    assert set(found) == {"town", "year"} and isinstance(found["year"], int)
    assert seen["denied"] == [403, "file_not_granted"], "and the worker that was not asked lives on"
    assert seen["busy"] and seen["stopped after"] < 1.0
    assert seen["unix"][0] == 200 and "-" in seen["unix"][1] and seen["other"] in (403, 404)
    assert seen["no token"] == 401
    assert seen["gateway back"] and seen["same worker"] and seen["unended"] == 0
