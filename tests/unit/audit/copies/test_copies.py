"""Sending, against real sockets: one that reads, one that never does, one that is not there."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from anchorhold.audit.copies import Copies
from anchorhold.audit.copies.outlet import MOST_ENTRIES, MOST_SIZE
from tests.unit.audit.copies.receiving import Receiver, journal_fields, syslog_parts, until
from tests.unit.audit.export.examples import ENTRIES, HOSTILE, example


@pytest.fixture
def receive(tmp_path: Path) -> Iterator[Callable[..., tuple[Receiver, str]]]:
    """Makes receivers, each with the words that name it to `Copies`."""
    made: list[Receiver] = []

    def receive(form: str = "syslog", family: int = socket.AF_UNIX) -> tuple[Receiver, str]:
        path = tmp_path / f"socket{len(made)}"
        receiver = Receiver(path if family == socket.AF_UNIX else None, family=family)
        made.append(receiver)
        if family == socket.AF_UNIX:
            return receiver, f"{form}:unix://{path}"
        host = "[::1]" if family == socket.AF_INET6 else "127.0.0.1"
        return receiver, f"{form}:udp://{host}:{receiver.port}"

    yield receive
    for receiver in made:
        receiver.close()


@pytest.fixture
def copies() -> Iterator[Callable[..., Copies]]:
    made: list[Copies] = []

    def copies(*targets: str, **options: Any) -> Copies:
        made.append(Copies(targets, **options))
        return made[-1]

    yield copies
    for one in made:
        one.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "anchorhold-copies"]


Make = Callable[..., Copies]
Receive = Callable[..., tuple[Receiver, str]]


def test_to_journald_and_syslog_at_once(receive: Receive, copies: Make) -> None:
    journal, at_journal = receive("journald")
    syslog, at_syslog = receive()
    sender = copies(at_journal, at_syslog)
    for entry in ENTRIES:
        sender.send(entry)
    for entry in ENTRIES:
        (data,) = journal.read()
        fields = journal_fields(data)
        parts = syslog_parts(syslog.read()[0])
        if isinstance(entry.get("seq"), int):
            assert fields["ANCHORHOLD_SEQ"].decode() == parts["params"]["seq"] == str(entry["seq"])
    sender.close()
    assert (sender.lost, journal.empty(), syslog.empty()) == (0, True, True)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_over_udp(receive: Receive, copies: Make, family: int) -> None:
    if family == socket.AF_INET6 and not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("this machine has no IPv6")
    syslog, where = receive(family=family)
    sender = copies(where)
    for number in range(20):
        sender.send(example("grant", seq=number, path=HOSTILE))
    assert [syslog_parts(data)["params"]["seq"] for data in syslog.read(20)] == [str(at) for at in range(20)]
    assert sender.lost == 0


def test_in_order_and_whole_though_the_reader_is_slow(receive: Receive, copies: Make) -> None:
    syslog, where = receive()
    sender = copies(where)
    for number in range(3_000):
        sender.send(example("grant", seq=number))
    seen = []
    for _ in range(3_000):
        seen.append(int(syslog_parts(syslog.read()[0])["params"]["seq"]))
        if len(seen) % 500 == 0:
            time.sleep(0.01)
    assert seen == list(range(3_000)) and sender.lost == 0


def test_an_entry_comes_soon_after_silence(receive: Receive, copies: Make) -> None:
    syslog, where = receive()
    sender = copies(where)
    for _ in range(3):
        assert until(lambda: sender._asleep)
        start = time.monotonic()
        sender.send(example("grant"))
        syslog.read()
        assert time.monotonic() - start < 1


def spend(sender: Copies, count: int = 10_000) -> float:
    """Seconds that so many entries take."""
    entry = example("grant")
    start = time.perf_counter()
    for _ in range(count):
        sender.send(entry)
    return time.perf_counter() - start


@pytest.mark.parametrize("form", ["syslog", "journald"])
def test_a_reader_that_never_reads_costs_nothing(
    receive: Receive, copies: Make, tmp_path: Path, form: str
) -> None:
    _reader, where = receive(form)
    nobody, stuck = [], []
    for _ in range(5):
        absent = copies(f"{form}:unix://{tmp_path}/missing")
        nobody.append(spend(absent))
        blocked = copies(where)
        stuck.append(spend(blocked))
        absent.close()
        blocked.close()
        assert absent.lost == 10_000
        assert 10_000 - 1_000 < blocked.lost <= 10_000  # what the kernel's queue took is not lost yet
    assert min(stuck) < 3 * min(nobody) + 0.02
    assert min(stuck) < 0.2  # 20 microseconds each; a blocking send would never end


def test_sending_makes_no_system_call_that_waits(receive: Receive, copies: Make) -> None:
    """Even while the thread is held up altogether, entries are taken, and then dropped and counted."""
    _reader, where = receive()
    sender = copies(where, most=10)
    outlet = sender._outlets[0]
    held = threading.Event()
    make = outlet._make

    def wait(entry: dict[str, Any]) -> bytes:
        held.wait(30)
        return make(entry)

    outlet._make = wait
    try:
        assert spend(sender, 1_000) < 1
        assert sender.lost in (1_000 - 10, 1_000 - 11)  # one may be in the thread's hand
    finally:
        held.set()


def test_close_waits_for_who_is_slow_but_not_long(receive: Receive, copies: Make) -> None:
    _reader, where = receive()
    sender = copies(where)
    spend(sender, 2_000)
    start = time.monotonic()
    sender.close()
    assert time.monotonic() - start < 2
    assert sender.lost > 0


def test_close_does_not_wait_for_who_is_not_there(copies: Make, tmp_path: Path) -> None:
    sender = copies(f"syslog:unix://{tmp_path}/missing", "journald:unix:///nowhere/at/all")
    sender.send(example("grant"))
    start = time.monotonic()
    sender.close(seconds=30)
    assert time.monotonic() - start < 5
    assert sender.lost == 2
    assert sender.lost_by_target() == {
        f"syslog:unix://{tmp_path}/missing": 1,
        "journald:unix:///nowhere/at/all": 1,
    }


def test_close_sends_what_is_queued(receive: Receive, copies: Make) -> None:
    syslog, where = receive()
    sender = copies(where)
    for number in range(5):
        sender.send(example("grant", seq=number))
    sender.close()
    assert len(syslog.read(5)) == 5 and sender.lost == 0
    sender.send(example("grant"))
    sender.close()
    assert sender.lost == 1 and syslog.empty()


def test_a_reader_that_comes_late_gets_what_was_queued(copies: Make, tmp_path: Path) -> None:
    path = tmp_path / "late"
    sender = copies(f"syslog:unix://{path}")
    sender.send(example("grant", seq=1))
    assert until(lambda: sender._outlets[0]._retry_at > 0)
    late = Receiver(path)
    try:
        assert syslog_parts(late.read()[0])["params"]["seq"] == "1"
        assert sender.lost == 0
    finally:
        late.close()


def test_a_reader_that_starts_again_is_found_again(copies: Make, tmp_path: Path) -> None:
    path = tmp_path / "again"
    first = Receiver(path)
    sender = copies(f"syslog:unix://{path}")
    sender.send(example("grant", seq=1))
    first.read()
    first.close()
    path.unlink()
    sender.send(example("grant", seq=2))
    assert until(lambda: sender._outlets[0]._socket is None)
    second = Receiver(path)
    try:
        assert syslog_parts(second.read()[0])["params"]["seq"] == "2"
        assert sender.lost == 0
    finally:
        second.close()


def test_one_that_is_stuck_does_not_hold_up_the_others(receive: Receive, copies: Make) -> None:
    _stuck, at_stuck = receive()
    syslog, at_syslog = receive()
    sender = copies(at_stuck, "syslog:unix:///nowhere/at/all", at_syslog)
    for number in range(2_000):
        sender.send(example("grant", seq=number))
    assert [int(syslog_parts(data)["params"]["seq"]) for data in syslog.read(2_000)] == list(range(2_000))
    assert sender.lost_by_target()[at_syslog] == 0


def test_what_is_too_large_is_dropped_and_counted(receive: Receive, copies: Make) -> None:
    syslog, where = receive(family=socket.AF_INET)
    journal, at_journal = receive("journald")
    sender = copies(where, at_journal)
    sender.send(example("limit", text="x" * 70_000))
    sender.send(example("limit", text="y" * 400_000))
    sender.send(example("grant", seq=3))
    assert syslog_parts(syslog.read()[0])["params"]["seq"] == "3"
    assert [journal_fields(data)["ANCHORHOLD_KIND"] for data in journal.read(2)] == [b"limit", b"grant"]
    assert sender.lost_by_target() == {where: 2, at_journal: 1}


def test_the_queue_has_a_bound_in_memory_too(copies: Make, tmp_path: Path) -> None:
    sender = copies(f"syslog:unix://{tmp_path}/missing")
    assert until(lambda: sender._asleep)
    for _ in range(300):
        sender.send(example("limit", text="x" * 60_000, more=["y" * 10_000]))
    assert 300 - MOST_SIZE // 70_000 - 2 <= sender.lost <= 300 - MOST_SIZE // 70_000 + 2
    small = copies(f"syslog:unix://{tmp_path}/missing")
    spend(small)
    assert abs(10_000 - MOST_ENTRIES - small.lost) <= 1


def test_udp_that_nobody_listens_to_is_counted(copies: Make) -> None:
    gone = Receiver(family=socket.AF_INET)
    port = gone.port
    gone.close()
    sender = copies(f"syslog:udp://127.0.0.1:{port}")
    spend(sender, 100)
    sender.close()
    assert sender.lost == 100


def test_an_entry_that_cannot_be_made_into_a_message_is_counted(receive: Receive, copies: Make) -> None:
    syslog, where = receive()
    sender = copies(where)
    loop: list[Any] = []
    loop.append(loop)
    sender.send(example("limit", loop=loop))
    sender.send(example("grant", seq=2))
    assert syslog_parts(syslog.read()[0])["params"]["seq"] == "2"
    assert sender.lost == 1


def test_many_threads(receive: Receive, copies: Make) -> None:
    syslog, where = receive()
    sender = copies(where)
    threads = [threading.Thread(target=spend, args=(sender, 200)) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert len(syslog.read(1_600)) == 1_600
    for thread in threads:
        thread.join(10)
    assert sender.lost == 0


def test_without_names(receive: Receive, copies: Make) -> None:
    syslog, at_syslog = receive()
    journal, at_journal = receive("journald")
    sender = copies(at_syslog, at_journal, names=False)
    sender.send(example("grant"))
    for data in (*syslog.read(), *journal.read()):
        assert b"/home" not in data and b"roof" not in data and b"ab" * 32 not in data
        assert b"grant" in data and b"12345" in data


def test_no_target_no_thread(copies: Make) -> None:
    before = threading.active_count()
    sender = copies()
    sender.send(example("grant"))
    assert threading.active_count() == before and sender.lost == 0 and sender.lost_by_target() == {}


def test_the_same_target_twice_is_one(receive: Receive, copies: Make) -> None:
    syslog, where = receive()
    sender = copies(where, where)
    sender.send(example("grant"))
    sender.close()
    syslog.read()
    assert syslog.empty()


def test_descriptors_are_given_back(receive: Receive, tmp_path: Path) -> None:
    _syslog, where = receive()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        sender = Copies([where, f"syslog:unix://{tmp_path}/missing", "syslog:udp://127.0.0.1:9"])
        sender.send(example("grant"))
        sender.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("names", [True, False])
def test_a_policy_says_whether_copies_hold_names(
    names: bool, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anchorhold.audit.log import Log
    from anchorhold.policy.schema import Audit, ModelPolicy, Policy
    from anchorhold.supervisor.session import Session

    made = []
    monkeypatch.setattr("anchorhold.audit.copies.Copies", lambda targets, **how: made.append((targets, how)))
    log = Log.open(state_dir)
    policy = Policy("p", ModelPolicy("/model"), audit=Audit(copy=("journald",), copy_names=names))
    Session(policy, log, state_dir=state_dir)
    log.close()
    assert made == [(("journald",), {"names": names})]
