"""The daemon keeps workers: serves, restarts, gives up, unloads, reloads, stops. With the real model."""

from __future__ import annotations

import pytest

from tests.integration.service.conftest import Driven

pytestmark = pytest.mark.timeout(150)


def test_it_answers_says_what_was_shown_and_gives_a_receipt(served: Driven) -> None:
    seen = served("answers")
    assert seen["ended"] and seen["text"] and seen["reason"] in ("stop", "length"), seen
    assert seen["shown"] and seen["shown"][0].endswith("papers/paper.txt")
    assert seen["name"].endswith("-1") and seen["second"].endswith("-2") and seen["receipt"] == seen["name"]
    status = seen["status"]
    assert (
        status["state"] == "serving" and status["served"] == 2 and status["session"]["exposure"]["files"] == 1
    )
    assert (
        status["session"]["layers"]
        and status["session"]["mapped"] > 0
        and status["policy"]["problem"] is None
    )
    assert seen["loads"] == ["first"] and seen["ends"] == ["service stopped"] and seen["unended"] == 0


def test_an_answer_that_nobody_waits_for_stops(served: Driven) -> None:
    seen = served("cancels")
    assert seen["reason"] == "cancelled" and seen["seconds"] < 1.0 and seen["ends_of"] == 1
    assert seen["waiting"] == "nobody waits for it" and seen["next"] and seen["starts"] == 1


def test_a_worker_that_dies_is_recorded_and_started_again(served: Driven) -> None:
    seen = served("crashes")
    assert "SIGKILL" in seen["error_of"] and seen["again"] and seen["other"] and seen["next"], seen
    assert seen["restarts"] == 1 and seen["starts"] == 2 and "SIGKILL" in seen["ends"][0]
    assert seen["unended"] == 0, "what it was answering has its end in the log"


def test_one_that_dies_again_and_again_is_given_up(served: Driven) -> None:
    seen = served("gives_up")
    assert seen["failed"] and seen["refused"] == [503, "failed"] and seen["starts"] == 2, seen
    assert any("given up" in line for line in seen["said"])
    assert "WorkerError" in seen["error"], "when there is nothing left to serve, it ends"


def test_an_idle_model_is_unloaded_and_comes_back(served: Driven) -> None:
    seen = served("idles")
    assert seen["idle"] and not seen["alive"] and seen["next"] and seen["state"] == "serving", seen
    assert seen["ends"][0] == "idle" and seen["starts"] == 2


def test_a_policy_that_changes(served: Driven) -> None:
    """Wider: after the answer. Wrong: refused, the old one goes on. Narrower: cut off at once."""
    seen = served("reloads")
    assert seen["wider"] and seen["finished"] == "length" and seen["granted"][0].endswith("more.txt"), seen
    assert "nonsense: unknown key" in seen["problem"] and seen["state_then"] == "serving"
    assert "narrower" in seen["cut"] and not seen["alive"]
    assert seen["refused"] == [403, "file_not_granted"] and seen["next"]
    assert seen["loads"] == ["first", "wider", "refused", "narrower"] and seen["starts"] == 3
    documents = seen["documents"]
    assert documents["new"] == 1 and documents["newest"][0]["path"].endswith("new.txt")


def test_a_narrower_policy_that_cannot_be_put_on_record_ends_what_it_takes_away(served: Driven) -> None:
    """Not the daemon, and not another policy's worker; and it is taken as soon as it can be."""
    seen = served("reloads_without_a_record")
    assert seen["failed"] and seen["cut"] and "No space left" in seen["problem"], seen
    assert seen["other"] == "serving" and seen["other lives"]
    assert seen["again"] == {"taxes": "narrower"} and seen["back"] and seen["roots"] == 1 and seen["next"]


def test_more_than_may_wait_are_refused_and_a_stop_ends_each_once(served: Driven) -> None:
    seen = served("fills")
    assert seen["refused"] == [429, "queue_full", 1.0]
    assert seen["each ended once"] and seen["unended"] == 0, seen
    assert all("stopped" in words for words in seen["words"])


def test_no_second_service_beside_the_first(served: Driven) -> None:
    seen = served("second_service")
    assert "another service runs here" in seen["second"] and seen["next"]
