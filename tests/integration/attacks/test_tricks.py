"""Tricks on the broker: memory that changes, threads that die, names that are swapped, everything used up."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from anchorhold.supervisor.spawn import ENVIRONMENT
from anchorhold.verify.check import verify
from tests.integration.attacks.conftest import Caged, text_of
from tests.support import TOP

SWAPS = 20_000


def source(place: Path, body: str) -> str:
    return text_of("files", place) + "\nimport json, threading, mmap, time\n" + body


def whole(place: Path, out: dict[str, object]) -> list[dict[str, object]]:
    """The entries of a run that nothing may have broken."""
    assert "error" not in out, out
    log = out["log"]
    assert isinstance(log, list) and log[-1]["kind"] == "session.end"
    assert verify(str(place / "state")).ok
    return log


def test_a_path_swapped_by_a_second_thread(place: Path, caged: Caged) -> None:
    out = caged(
        source(
            place,
            f"""
def attempt():
    allowed, denied = GRANTED.encode(), SECRET.encode()
    size = max(len(allowed), len(denied)) + 1
    buffer = ctypes.create_string_buffer(allowed, size)
    stop = []
    def swap():
        while not stop:
            ctypes.memmove(buffer, denied.ljust(size, b"\\0"), size)
            ctypes.memmove(buffer, allowed.ljust(size, b"\\0"), size)
    thread = threading.Thread(target=swap)
    thread.start()
    wrong = good = 0
    for _ in range({SWAPS}):
        fd = syscall("openat", -100, buffer, 0)
        if fd >= 0:
            good += 1
            wrong += os.read(fd, 7) != b"granted"
            os.close(fd)
    stop.append(1)
    thread.join()
    return json.dumps([wrong, good])
""",
        )
    )
    wrong, good = json.loads(out["answer"])
    assert wrong == 0 and good > 0
    log = whole(place, out)
    granted = [entry for entry in log if entry.get("class") == "data"]
    assert len(granted) == good
    denied = sum(int(str(entry["count"])) for entry in log if entry["kind"] == "denial")
    assert good + denied <= SWAPS  # the rest was a torn path below the folder, where nothing is


def test_looking_before_opening_would_not_do(place: Path) -> None:
    """What a checker on the worker's own memory would meet: the path is right when it is looked at."""
    right, wrong = str(place / "papers" / "granted.txt").encode(), str(place / "secret.txt").encode()
    size = max(len(right), len(wrong)) + 1
    buffer = ctypes.create_string_buffer(right, size)
    stop: list[int] = []

    def swap() -> None:
        while not stop:
            ctypes.memmove(buffer, wrong.ljust(size, b"\0"), size)
            ctypes.memmove(buffer, right.ljust(size, b"\0"), size)

    thread = threading.Thread(target=swap)
    thread.start()
    read, end = b"", time.monotonic() + 20
    try:
        while read != b"secret" and time.monotonic() < end:
            if buffer.value != right:
                continue
            time.sleep(0)  # whatever the checker does before the kernel looks again
            with contextlib.suppress(OSError), open(buffer.value, "rb") as file:
                read = file.read(6)
    finally:
        stop.append(1)
        thread.join()
    assert read == b"secret"


SWAPPER = """
import os, sys
folder, secret = sys.argv[1:]
name = folder + "/swapped.txt"
def link():
    os.symlink(secret, name + ".new"); os.rename(name + ".new", name)
def file():
    with open(name + ".new", "w") as new: new.write("granted")
    os.rename(name + ".new", name)
def second():
    os.link(secret, name + ".new"); os.rename(name + ".new", name)
os.mkdir(folder + "/turning"); os.mkdir(folder + "/away")
open(folder + "/turning/f.txt", "w").write("granted")
os.symlink(os.path.dirname(secret), folder + "/way-out")
print("ready", flush=True)
while True:
    for act in (file, link, file, second):
        act()
    os.rename(folder + "/turning", folder + "/away/x")
    os.rename(folder + "/way-out", folder + "/turning")
    os.rename(folder + "/turning", folder + "/way-out")
    os.rename(folder + "/away/x", folder + "/turning")
"""


@contextlib.contextmanager
def swapping(place: Path) -> Iterator[None]:
    (place / "f.txt").write_text("secret")
    command = [sys.executable, "-c", SWAPPER, str(place / "papers"), str(place / "secret.txt")]
    swapper = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert swapper.stdout is not None and swapper.stdout.readline() == "ready\n"
        yield
    finally:
        swapper.kill()
        swapper.wait()
        if swapper.stdout is not None:
            swapper.stdout.close()


RACE = """
def race(times):
    seen, opened = set(), 0
    for number in range(times):
        name = FOLDER + ("/swapped.txt" if number % 2 else "/turning/f.txt")
        try:
            fd = os.open(name, os.O_RDONLY)
        except OSError:
            continue
        opened += 1
        seen.add(os.read(fd, 16).decode())
        os.close(fd)
    return json.dumps([sorted(seen), opened])
"""


def test_a_name_swapped_by_somebody_outside(place: Path, caged: Caged) -> None:
    with swapping(place):
        out = caged(source(place, RACE + f"\ndef attempt():\n    return race({SWAPS})\n"))
    seen, opened = json.loads(out["answer"])
    assert set(seen) <= {"granted", ""} and opened > SWAPS // 20
    log = whole(place, out)
    assert len([entry for entry in log if entry.get("class") == "data"]) == opened


def test_without_the_cell_the_swapped_name_gives_the_secret(place: Path) -> None:
    namespace: dict[str, object] = {"FOLDER": str(place / "papers"), "os": os, "json": json}
    exec(RACE, namespace)
    race = namespace["race"]
    assert callable(race)
    with swapping(place):
        seen: set[str] = set()
        end = time.monotonic() + 20
        while "secret" not in seen and time.monotonic() < end:
            seen |= set(json.loads(race(2000))[0])
    assert "secret" in seen


def test_there_or_not_is_one_answer_in_value_and_in_time(place: Path, caged: Caged) -> None:
    """Each pair in turn; were the disk looked at, the two would differ as they do for a plain process."""
    body = """
PAIRS = [(b"/etc/passwd", b"/etc/passwx"), (b"/usr/share/doc/x/y/z", b"/usr/share/dxx/x/y/z")]
CALLS = {"openat": lambda path: syscall("openat", -100, path, 0),
         "newfstatat": lambda path: syscall("newfstatat", -100, path, ctypes.create_string_buffer(256), 0),
         "faccessat": lambda path: syscall("faccessat", -100, path, 0)}
def measure(times):
    found = []
    for call in CALLS.values():
        for pair in PAIRS:
            texts, took, answers = [cstring(path) for path in pair], ([], []), set()
            for number in range(times):
                for which in (0, 1) if number % 2 else (1, 0):
                    started = time.perf_counter_ns()
                    answers.add(call(texts[which]))
                    took[which].append(time.perf_counter_ns() - started)
            found.append([sorted(answers), *took])
    return json.dumps(found)
def attempt():
    return measure(400)
"""
    told: list[list[float]] = []
    for _ in range(TRIES):
        out = caged(source(place, body))
        whole(place, out)
        found = json.loads(out["answer"])
        assert all(len(answers) == 1 for answers, _there, _absent in found)
        told.append([told_apart(there, absent) for _answers, there, absent in found])
        if max(told[-1]) < CHANCE:
            return
    assert max(map(min, zip(*told, strict=True))) < CHANCE, told


TRIES = 4
"""A machine that is busy shifts times for a while; what is really there shows every time."""
CHANCE = 0.6


def told_apart(one: list[int], other: list[int]) -> float:
    """How often, of two single samples, the one from the pair's slower side is the slower: 0.5 is chance.

    The rank statistic of Mann and Whitney, over the number of pairs.
    """
    ranks = sorted([(value, 0) for value in one] + [(value, 1) for value in other])
    total = sum(rank for rank, (_value, side) in enumerate(ranks, 1) if side == 0)
    share = (total - len(one) * (len(one) + 1) / 2) / (len(one) * len(other))
    return max(share, 1 - share)


def test_a_look_at_the_disk_would_be_told_apart() -> None:
    """The same statistic on a plain process, every time; and of one path with itself, nothing."""
    same = []
    for _ in range(TRIES):
        took: tuple[list[int], list[int]] = ([], [])
        for number in range(400):
            for which in (0, 1) if number % 2 else (1, 0):
                path = ("/etc/passwd", "/etc/passwx")[which]
                started = time.perf_counter_ns()
                os.access(path, os.F_OK)
                took[which].append(time.perf_counter_ns() - started)
        assert told_apart(*took) > CHANCE
        some = [value for number, value in enumerate(took[0]) if number % 4 in (0, 3)]
        others = [value for number, value in enumerate(took[0]) if number % 4 in (1, 2)]
        same.append(told_apart(some, others))
    assert min(same) < CHANCE


def test_paths_at_the_end_of_memory_and_pointers_to_nowhere(place: Path, caged: Caged) -> None:
    body = """
def attempt():
    page, spare = memory(8192), memory()
    syscall("munmap", page + 4096, 4096)
    end = page + 4096
    path = GRANTED.encode()
    ctypes.memmove(end - len(path) - 1, path + b"\\0", len(path) + 1)
    fits = syscall("openat", -100, end - len(path) - 1, 0)
    ctypes.memmove(end - len(path), path, len(path))
    runs_over = syscall("openat", -100, end - len(path), 0)
    good = cstring(path)
    folder = os.open(FOLDER, os.O_RDONLY)
    bad = []
    for address in (0, 1, end, -1, -4096, 1 << 47, (1 << 63) + 8, end - 1):
        ctypes.memset(end - 1, 47, 1)
        bad += [
            syscall("openat", -100, address, 0), syscall("newfstatat", -100, address, spare, 0),
            syscall("readlinkat", -100, address, spare, 64), syscall("faccessat", -100, address, 0),
            # From here on bytes are written, as far as there is room.
            syscall("openat2", -100, good, address, 24), syscall("newfstatat", -100, good, address, 0),
            syscall("statx", -100, good, 0, 2047, address), syscall("getdents64", folder, address, 4096),
            syscall("getcwd", address, 64), syscall("uname", address), syscall("sysinfo", address),
        ]
    long = [syscall("openat", -100, cstring(b"/" + b"x" * size), 0) for size in (255, 4094, 4095, 9000)]
    after = syscall("openat", -100, good, 0)
    return json.dumps([fits >= 0, runs_over, bad, long, after >= 0])
"""
    out = caged(source(place, body))
    fits, runs_over, bad, long, after = json.loads(out["answer"])
    assert fits and runs_over == -14 and after
    assert {number: answer for number, answer in enumerate(bad) if answer != -14} == {}
    assert long == [-13, -13, -36, -36]
    whole(place, out)


def test_descriptors_used_up(place: Path, caged: Caged) -> None:
    body = """
def attempt():
    held, code = [], 0
    while not code:
        try:
            held.append(os.open(GRANTED, os.O_RDONLY))
        except OSError as error:
            code = error.errno
    more = [syscall("openat", -100, cstring(GRANTED.encode()), 0) for _ in range(50)]
    for fd in held:
        os.close(fd)
    return json.dumps([len(held), code, more, open(GRANTED).read(7)])
"""
    out = caged(source(place, body))
    held, code, more, after = json.loads(out["answer"])
    assert 200 < held < 260 and code == 24 and set(more) == {-24} and after == "granted"
    log = whole(place, out)
    assert len([entry for entry in log if entry.get("class") == "data"]) == held + 1 + 50 + 1


def test_threads_that_die_unmap_and_race(place: Path, caged: Caged) -> None:
    body = """
def attempt():
    opened = [0] * 16
    def race(number):
        paths = [cstring(path) for path in (GRANTED.encode(), b"/etc/passwd", SECRET.encode())]
        for turn in range(150):
            fd = syscall("openat", -100, paths[turn % 3], 0)
            if fd >= 0:
                opened[number] += 1
                os.close(fd)
    def unmap():
        for _ in range(300):
            page = memory()
            ctypes.memmove(page, GRANTED.encode() + b"\\0", len(GRANTED) + 1)
            other = threading.Thread(target=lambda: syscall("munmap", page, 4096))
            other.start()
            fd = syscall("openat", -100, page, 0)
            other.join()
            if fd >= 0:
                opened.append(1)
                os.close(fd)
    def brief():  # exit(2) of a thread, as soon as it has asked
        syscall("openat", -100, cstring(b"/etc/shadow"), 0)
        syscall("exit", 0)
    threads = [threading.Thread(target=race, args=(number,)) for number in range(16)]
    threads += [threading.Thread(target=unmap)]
    for _ in range(40):
        threading.Thread(target=brief, daemon=True).start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return json.dumps([sum(opened), open(GRANTED).read(7)])
"""
    out = caged(source(place, body))
    opened, after = json.loads(out["answer"])
    assert after == "granted" and opened >= 16 * 50
    log = whole(place, out)
    granted = [entry for entry in log if entry.get("class") == "data"]
    assert len(granted) == opened + 1
    counted = sum(int(str(entry["count"])) for entry in log if entry["kind"] == "denial")
    assert counted == 16 * 100 + 40 and out["refused"] == counted


def test_a_process_that_ends_with_questions_open(place: Path, caged: Caged) -> None:
    body = """
def attempt():
    text = cstring(GRANTED.encode())
    def ask():
        while True:
            fd = syscall("openat", -100, text, 0)
            if fd >= 0:
                os.close(fd)
    for _ in range(12):
        threading.Thread(target=ask, daemon=True).start()
    time.sleep(0.3)
    os._exit(7)
"""
    out = caged(source(place, body))
    assert out["kind"] == "WorkerError" and "exit 7" in out["error"], out
    assert out["log"][-1]["kind"] == "session.end"
    assert verify(str(place / "state")).ok


def test_signals_in_the_middle_of_a_question(place: Path, caged: Caged) -> None:
    body = """
import signal
def attempt():
    got = []
    signal.signal(signal.SIGUSR1, lambda *_: got.append(1))
    process, main, stop = os.getpid(), threading.get_native_id(), []
    def hit():
        while not stop:
            libc.syscall(ctypes.c_long(NR["tgkill"]), process, main, signal.SIGUSR1)
            time.sleep(0.0002)
    thread = threading.Thread(target=hit)
    thread.start()
    opened = 0
    for _ in range(2000):
        with open(GRANTED, "rb") as file:
            opened += file.read(7) == b"granted"
    stop.append(1)
    thread.join()
    return json.dumps([opened, len(got)])
"""
    out = caged(source(place, body))
    opened, got = json.loads(out["answer"])
    assert opened == 2000 and got > 10
    granted = [entry for entry in whole(place, out) if entry.get("class") == "data"]
    assert len(granted) >= 2000  # before Linux 5.19 a signal makes the worker ask twice


@pytest.mark.parametrize(("different", "threads"), [(1, 1), (50, 1), (5, 8)])
def test_a_hundred_thousand_denials_are_counted_exactly(
    different: int, threads: int, place: Path, caged: Caged
) -> None:
    body = f"""
def attempt():
    texts = [cstring(b"/etc/shadow%d" % number) for number in range({different})]
    def flood():
        for turn in range({100_000 // threads}):
            libc.syscall(ctypes.c_long(NR["openat"]), -100, texts[turn % {different}], 0)
    several = [threading.Thread(target=flood) for _ in range({threads})]
    for thread in several:
        thread.start()
    for thread in several:
        thread.join()
    return open(GRANTED).read(7)
"""
    out = caged(source(place, body))
    assert out["answer"] == "granted" and out["refused"] == 100_000
    counts = [int(str(entry["count"])) for entry in whole(place, out) if entry["kind"] == "denial"]
    assert sum(counts) == 100_000
    assert len(counts) < 300 * different


def test_a_listing_has_no_back_door(place: Path, caged: Caged) -> None:
    (Path(place) / "papers" / "b\udcff.txt").write_text("odd")
    body = """
def names(fd, size):
    found, buffer = [], ctypes.create_string_buffer(size)
    while (length := syscall("getdents64", fd, buffer, size)) > 0:
        at = 0
        while at < length:
            record = struct.unpack_from("=QqHB", buffer.raw, at)
            found.append(buffer.raw[at + 19 : at + record[2]].split(b"\\0")[0])
            at += record[2]
    return sorted(found), length
def attempt():
    plain = sorted(os.fsencode(name) for name in os.listdir(FOLDER))
    fd = os.open(FOLDER, os.O_RDONLY)
    small = names(fd, 48)[0]
    os.lseek(fd, 0, 0)
    again = names(fd, 4096)[0]
    other = os.dup(os.open(FOLDER, os.O_RDONLY))
    copied = names(other, 4096)
    tiny = syscall("getdents64", os.open(FOLDER, os.O_RDONLY), ctypes.create_string_buffer(8), 8)
    ways = (b"..", b"../secret.txt", b"./../secret.txt")
    beside = [syscall("openat", fd, cstring(name), 0) for name in ways]
    shown = [[name.decode("latin-1") for name in one] for one in (plain, small, again, copied[0])]
    return json.dumps([shown, tiny, beside, open(FOLDER + "/b\\udcff.txt").read()])
"""
    out = caged(source(place, body))
    (plain, small, again, copied), tiny, beside, odd = json.loads(out["answer"])
    allowed = {"granted.txt", "sub", "b\xff.txt"}
    assert set(plain) == allowed and set(small) == allowed | {".", ".."}
    for more in (again, copied):  # a second reading may end at once, it may not show more
        assert set(more) <= allowed | {".", ".."}
    assert tiny == -22 and set(beside) == {-13} and odd == "odd"
    recorded = [str(entry["path"]) for entry in whole(place, out) if entry["kind"] == "grant"]
    assert f"{place}/papers/b\udcff.txt" in recorded


def test_descriptors_from_the_start_are_the_channel_and_nothing_else(place: Path, caged: Caged) -> None:
    body = """
def attempt():
    return json.dumps([fd for fd in range(1024) if syscall("fcntl", fd, 1) >= 0])
"""
    out = caged(source(place, body), unmeasured=True)
    assert json.loads(out["answer"]) == [0, 1, 2, 5, 6]


def test_what_is_not_closed_would_be_there(place: Path) -> None:
    """A program started plainly, with a descriptor that may be inherited, has it."""
    with (place / "secret.txt").open() as inherited:
        code = f"import os; print(os.read({inherited.fileno()}, 6))"
        done = subprocess.run(
            [sys.executable, "-c", code],
            pass_fds=[inherited.fileno()],
            capture_output=True,
            text=True,
            check=True,
        )
    assert "secret" in done.stdout


FORGED = (
    '{"v":1,"seq":0,"time":"2026-01-01T00:00:00.000000Z","session":"forged","kind":"session.end","nonce":""}'
)


def test_an_answer_that_looks_like_the_log_is_an_answer(place: Path, caged: Caged) -> None:
    """On its channel, on its standard error, and as the name of a file that it asks for."""
    body = f"""
def attempt():
    forged = {FORGED!r} + "\\n"
    os.write(2, (forged * 3).encode())
    for path in ("/" + forged, FOLDER + "/" + forged):
        syscall("openat", -100, cstring(path.encode()), 0)
    return "\\n" + forged + "\x1b]0;forged\x07" + forged
"""
    out = caged(source(place, body))
    assert out["answer"].count("forged") == 3
    log = whole(place, out)
    assert [entry["kind"] for entry in log].count("session.end") == 1
    assert {entry["session"] for entry in log} == {log[0]["session"]}
    (denial,) = [entry for entry in log if entry["kind"] == "denial"]
    assert denial["path"] == "/" + FORGED + "\n"


@pytest.mark.parametrize(
    ("call", "named"),
    [
        ("open('/etc/passwd')", "/etc/passwd"),
        ("syscall('socket', 2, 1, 0)", "socket"),
        ("os.fork()", "clone"),
        ("memory(4096, 7)", "mmap"),
        ("syscall('kill', -1, 9)", "kill"),
        ("syscall('mount', 0, 0, 0, 0, 0)", "mount"),
    ],
)
def test_the_first_breach_ends_it_where_the_policy_says_so(
    call: str, named: str, place: Path, caged: Caged
) -> None:
    out = caged(source(place, f"\ndef attempt():\n    {call}\n    return 'alive'\n"), kill=True)
    assert (out["kind"], out["exit"]) == ("BreachError", 3) and named in out["error"], out
    kinds = [entry["kind"] for entry in out["log"]]
    assert kinds[-4:] == ["denial", "breach", "request.end", "session.end"], kinds
    assert verify(str(place / "state")).ok


def test_nothing_of_the_parents_environment_is_in_its_memory(
    place: Path, caged: Caged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel puts arguments and environment of a program at the end of its stack."""
    monkeypatch.setenv("ANCHORHOLD_TEST_MARK", "a-password-of-the-parent")
    body = """
def attempt():
    libc = ctypes.CDLL(None)
    libc.getauxval.restype = ctypes.c_ulong
    start = at = ctypes.c_void_p.in_dll(libc, "__libc_stack_end").value & ~4095
    found = b""
    while syscall("madvise", at, 4096, 0) == 0:
        found += ctypes.string_at(at, 4096)
        at += 4096
    random = libc.getauxval(25) - start  # AT_RANDOM: 16 bytes of chance, which may look like anything
    assert 0 <= random <= len(found) - 16
    found = found[:random] + bytes(16) + found[random + 16 :]
    return json.dumps([word.decode("latin-1") for word in found.split(b"\\0") if len(word) > 3])
"""
    out = caged(source(place, body))
    words = json.loads(out["answer"])
    assert any(word.endswith("launcher.py") for word in words)  # its own arguments are there
    ours = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
    # A pointer on the stack can be four letters and a "=", of at most eight bytes before the next zero.
    variable = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
    found = [word for word in words if "password" in word or (len(word) > 8 and variable.match(word))]
    assert found == ours, "nothing but what the supervisor puts there"


TERMINAL = """
import sys
from pathlib import Path
from anchorhold.audit.log import Log
from anchorhold.supervisor.session import Session
from tests.integration import cells
state, model = map(Path, sys.argv[1:])
log = Log.open(state)
rules = cells.policy(model)
session = Session(rules, log, state_dir=state, entry=cells.PROBE, config={"source": "def attempt(): pass"})
session.start()
def terminal(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[4])
print("found", terminal("self"), terminal(session._launched.pid), terminal(session._loop.child_pid))
session.close()
log.close()
"""


def test_started_from_a_terminal_it_has_none(place: Path, demo_model: Path) -> None:
    script = place / "terminal.py"
    script.write_text(TERMINAL)
    command = f"{sys.executable} {script} {place / 'state'} {demo_model}"
    environment = {**os.environ, "PYTHONPATH": f"{TOP}:{TOP / 'daemon'}"}
    done = subprocess.run(
        ["script", "-q", "-e", "-c", command, "/dev/null"],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    ours, launcher, worker = map(int, done.stdout.split("found ")[1].split()[:3])
    assert ours != 0 and launcher == worker == 0
