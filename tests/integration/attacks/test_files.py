"""What a granted folder does not give: denied names, special files, odd ways to ask, what answers tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from anchorhold.verify.check import verify
from tests.integration.attacks.conftest import Caged
from tests.integration.attacks.test_tricks import source, whole
from tests.support import TOP, unprivileged_prefix

ANSWER = """
def answer(path, flags=0):
    return syscall("openat", -100, cstring(path if isinstance(path, bytes) else path.encode()), flags)
"""


def test_a_queue_that_nobody_writes_to_blocks_nobody(place: Path, caged: Caged) -> None:
    """Opened for reading, and without O_NONBLOCK: whoever does that outside waits for a writer."""
    plain = subprocess.Popen([sys.executable, "-c", f"open({str(place / 'papers/fifo.txt')!r})"])
    body = (
        ANSWER
        + """
def attempt():
    start = time.monotonic()
    got = [answer(FOLDER + "/fifo.txt", flags) for flags in (0, os.O_PATH, os.O_NOFOLLOW)]
    return json.dumps([got, time.monotonic() - start, open(GRANTED).read(7)])
"""
    )
    try:
        out = caged(source(place, body))
        assert plain.poll() is None  # the control: it still waits
    finally:
        plain.kill()
        plain.wait()
    got, took, after = json.loads(out["answer"])
    assert all(one < 0 for one in got) and took < 2 and after == "granted"
    whole(place, out)


def test_a_denied_name_is_nowhere(place: Path, caged: Caged) -> None:
    papers = place / "papers"
    for name in ("my.key", "sub/deep.key", "b\udcff.key"):
        (papers / name).write_text("secret")
    (papers / "to-key.txt").symlink_to("my.key")
    body = (
        ANSWER
        + """
WAYS = ("my.key", "sub/deep.key", "b\\udcff.key", "to-key.txt", "./my.key", "sub/../my.key", "my.key/")
def attempt():
    there = {way.encode("utf-8", "replace").decode(): answer(os.fsencode(FOLDER + "/" + way)) for way in WAYS}
    pairs = [[answer(FOLDER + one), answer(FOLDER + other)]
             for one, other in (("/my.key", "/none.key"), ("/sub/deep.key", "/sub/none.key"))]
    listed = [[name.encode("utf-8", "replace").decode() for name in os.listdir(folder)]
              for folder in (FOLDER, FOLDER + "/sub")]
    return json.dumps([there, pairs, listed])
"""
    )
    out = caged(source(place, body), deny=["**/*.key"])
    assert "error" not in out, out
    there, pairs, listed = json.loads(out["answer"])
    assert all(got < 0 for got in there.values()), there
    assert not [name for names in listed for name in names if "key" in name], listed
    assert [pair for pair in pairs if pair[0] != pair[1]] == []
    whole(place, out)
    free = caged(source(place, body), deny=[], state=str(place / "state-free"))
    assert json.loads(free["answer"])[0]["my.key"] >= 0, free  # the control: only the pattern holds it


def test_a_link_does_not_tell_whether_a_denied_name_is_there(place: Path, caged: Caged) -> None:
    papers = place / "papers"
    (papers / "my.key").write_text("secret")
    (papers / "to-key.txt").symlink_to("my.key")
    (papers / "to-none.txt").symlink_to("none.key")
    body = (
        ANSWER
        + """
def attempt():
    return json.dumps([answer(FOLDER + "/to-key.txt"), answer(FOLDER + "/to-none.txt")])
"""
    )
    out = caged(source(place, body), deny=["**/*.key"])
    there, absent = json.loads(out["answer"])
    assert there == absent < 0
    whole(place, out)


def test_where_a_link_leads_out_to_is_not_told(place: Path, caged: Caged) -> None:
    """A target that is there and one that is not: one answer, through links of every kind."""
    papers = place / "papers"
    for name, target in {
        "p": "/etc/passwd",
        "n": "/etc/passwx",
        "P": "../secret.txt",
        "N": "../sekret.txt",
    }.items():
        (papers / f"link-{name}").symlink_to(target)
    body = (
        ANSWER
        + """
PAIRS = (("/link-p", "/link-n"), ("/link-P", "/link-N"), ("/way/secret.txt", "/way/sekret.txt"),
         ("/magic/etc/passwd", "/magic/etc/passwx"), ("/../secret.txt", "/../sekret.txt"))
def attempt():
    found = {}
    for pair in PAIRS:
        texts = [cstring((FOLDER + name).encode()) for name in pair]
        for title, call in {
            "open": lambda path: syscall("openat", -100, path, 0),
            "path": lambda path: syscall("openat", -100, path, os.O_PATH),
            "stat": lambda path: syscall("newfstatat", -100, path, ctypes.create_string_buffer(256), 0),
            "access": lambda path: syscall("faccessat", -100, path, 0),
            "statx": lambda path: syscall("statx", -100, path, 0, 2047, ctypes.create_string_buffer(256)),
            "readlink": lambda path: syscall("readlinkat", -100, path, ctypes.create_string_buffer(256), 256),
        }.items():
            found[title + " " + pair[0]] = [call(text) for text in texts]
    return json.dumps(found)
"""
    )
    out = caged(source(place, body))
    found = json.loads(out["answer"])
    assert {what: pair for what, pair in found.items() if pair[0] != pair[1] or pair[0] >= 0} == {}
    whole(place, out)


def test_openat2_with_every_flag_and_size(place: Path, caged: Caged) -> None:
    body = """
def ask(path, flags=0, mode=0, resolve=0, size=24, tail=b""):
    how = ctypes.create_string_buffer(struct.pack("=QQQ", flags, mode, resolve) + tail, max(size, 24) + 8)
    return syscall("openat2", -100, cstring(path.encode()), how, size)
def attempt():
    resolves = [0, 1, 2, 4, 8, 0x10, 0x20, 0x3F, 1 << 40, (1 << 62)]
    ways = (SECRET, FOLDER + "/out.txt", FOLDER + "/../secret.txt")
    out = [ask(path, resolve=one) for one in resolves for path in ways]
    sizes = {size: ask(GRANTED, size=size) for size in (0, 8, 16, 23, 24, 32, 4096, 4104)}
    larger = [ask(SECRET, size=32), ask(SECRET, size=4096)]
    odd = [ask(SECRET, flags=1 << 40), ask(GRANTED, flags=os.O_RDWR)]
    odd += [ask(GRANTED, flags=os.O_CREAT, mode=0o7777)]
    return json.dumps([out, sizes, larger, odd, ask(GRANTED) >= 0])
"""
    out = caged(source(place, body))
    outside, sizes, larger, odd, after = json.loads(out["answer"])
    assert all(got < 0 for got in (*outside, *larger, *odd)) and after, (outside, larger, odd)
    # openat2(2): EINVAL below the first size.
    assert {size: sizes[size] for size in ("0", "8", "16", "23")} == dict.fromkeys(
        ("0", "8", "16", "23"), -22
    )
    assert sizes["24"] >= 0, sizes
    whole(place, out)


def test_openat2_that_asks_for_what_nobody_knows(place: Path, caged: Caged) -> None:
    """openat2(2): E2BIG where a part that the kernel does not know is not zero."""
    body = """
def attempt():
    how = ctypes.create_string_buffer(struct.pack("=QQQ", 0, 0, 0) + b"\\1" * 8, 32)
    return json.dumps(syscall("openat2", -100, cstring(GRANTED.encode()), how, 32))
"""
    assert json.loads(caged(source(place, body))["answer"]) == -7


def test_own_descriptors_lead_nowhere_else(place: Path, caged: Caged) -> None:
    body = (
        ANSWER
        + """
def attempt():
    file, folder = os.open(GRANTED, os.O_RDONLY), os.open(FOLDER, os.O_RDONLY)
    through = [answer(f"/proc/{who}/fd/{fd}{rest}") for who in ("self", "thread-self", os.getpid())
               for fd in (file, folder, 0) for rest in ("", "/..", "/../secret.txt")]
    empty, buffer = cstring(b""), ctypes.create_string_buffer(256)
    upgraded = [syscall("openat", fd, empty, 0x1000 | flags)
                for fd in (file, folder) for flags in (0, os.O_PATH, os.O_RDWR)]
    stats = [syscall("newfstatat", fd, empty, buffer, 0x1000) for fd in (file, folder)]
    return json.dumps([through, upgraded, stats, os.read(file, 7).decode()])
"""
    )
    out = caged(source(place, body))
    through, upgraded, stats, text = json.loads(out["answer"])
    assert all(got < 0 for got in (*through, *upgraded)), (through, upgraded)
    assert stats == [0, 0] and text == "granted"
    whole(place, out)


def test_two_threads_read_one_listing(place: Path, caged: Caged) -> None:
    body = """
def attempt():
    found = []
    for _ in range(200):
        fd = os.open(FOLDER, os.O_RDONLY)
        def take():
            buffer = ctypes.create_string_buffer(64)
            while (length := syscall("getdents64", fd, buffer, 64)) > 0:
                at = 0
                while at < length:
                    size = struct.unpack_from("=H", buffer.raw, at + 16)[0]
                    found.append(buffer.raw[at + 19 : at + size].split(b"\\0")[0].decode())
                    at += size
        threads = [threading.Thread(target=take) for _ in range(2)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        os.close(fd)
    return json.dumps([sorted(set(found)), len(found)])
"""
    out = caged(source(place, body))
    shown, _count = json.loads(out["answer"])
    assert set(shown) == {".", "..", "granted.txt", "sub"}
    whole(place, out)


def test_denials_of_many_different_paths_are_counted_exactly(place: Path, caged: Caged) -> None:
    body = """
def attempt():
    for number in range(20_000):
        syscall("openat", -100, cstring(b"/etc/%d" % number), 0)
    return open(GRANTED).read(7)
"""
    out = caged(source(place, body))
    assert out["answer"] == "granted" and out["refused"] == 20_000
    denials = [entry for entry in whole(place, out) if entry["kind"] == "denial"]
    assert sum(int(str(entry["count"])) for entry in denials) == 20_000


MOUNT = (
    "mkdir -p {p}/mounted && mount --bind /etc {p}/mounted && touch {p}/onto.txt && "
    'mount --bind {s} {p}/onto.txt && exec "$@"'
)


@pytest.mark.parametrize("who", ["root", "unprivileged"])
def test_mounts_below_a_root_made_by_either_user(who: str, place: Path, demo_model: Path) -> None:
    isolated = (
        ["unshare", "--mount"]
        if who == "root" and os.geteuid() == 0
        else [*unprivileged_prefix(), "unshare", "--user", "--map-current-user", "--mount", "--keep-caps"]
    )
    body = (
        ANSWER
        + """
def attempt():
    ways = ("/mounted", "/mounted/passwd", "/onto.txt")
    return json.dumps([sorted(os.listdir(FOLDER)), [answer(FOLDER + way) for way in ways]])
"""
    )
    given = {"state": str(place / "state"), "model": str(demo_model), "read": [str(place / "papers")]}
    words = ["sh", "-c", MOUNT.format(p=place / "papers", s=place / "secret.txt"), "sh"]
    control = subprocess.run(
        [*isolated, *words, "cat", f"{place}/papers/onto.txt"], capture_output=True, text=True, timeout=20
    )
    assert control.stdout == "secret", control.stderr
    done = subprocess.run(
        [*isolated, *words, sys.executable, "-m", "tests.integration.attacks.inside"],
        input=json.dumps({**given, "source": source(place, body)}),
        capture_output=True,
        text=True,
        timeout=50,
        cwd=TOP,
    )
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)
    assert "error" not in out, out
    listed, answers = json.loads(out["answer"])
    assert answers == [-13] * 3 and not {"mounted", "onto.txt"} & set(listed) and "granted.txt" in listed
    assert verify(str(place / "state")).ok
