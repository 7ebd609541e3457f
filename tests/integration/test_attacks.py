"""Attacks from inside the sealed worker. Each runs outside the cell first, where it must succeed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from anchorhold.broker.paths import PATH_ARGUMENTS
from anchorhold.cell import filters
from anchorhold.errors import BreachError
from anchorhold.kernel.syscalls import NR
from anchorhold.supervisor import spawn
from tests.integration import cells

ATTACKS = '''
import ctypes, json, mmap, os, socket, threading
libc = ctypes.CDLL(None, use_errno=True)
OURS = {"OPENBLAS_NUM_THREADS", "GOMP_SPINCOUNT", "HOME", "LC_CTYPE"}
libc.syscall.restype = ctypes.c_long

def call(number, *args):
    """The result, or minus errno."""
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    result = libc.syscall(ctypes.c_long(number), *converted)
    return -ctypes.get_errno() if result == -1 else result

def child_made(number, *args):
    result = call(number, *args)
    if result == 0:
        os._exit(0)
    if result > 0:
        os.waitpid(result, 0)
    return result

def opened(path):
    os.close(os.open(path, os.O_RDONLY))
    return True

def exec_anonymous():
    return call(NR["mmap"], 0, 4096, 5, 0x22, -1, 0) > 0

def exec_by_mprotect():
    page = call(NR["mmap"], 0, 4096, 3, 0x22, -1, 0)
    return call(NR["mprotect"], page, 4096, 5) == 0

def exec_by_pkey():
    page = call(NR["mmap"], 0, 4096, 3, 0x22, -1, 0)
    return call(NR["pkey_mprotect"], page, 4096, 5, -1) == 0

def exec_of_a_file():
    fd = os.open(GRANTED, os.O_RDONLY)
    return call(NR["mmap"], 0, 4096, 5, 2, fd, 0) > 0

def through_a_folder():
    return os.open("../secret.txt", os.O_RDONLY, dir_fd=os.open(FOLDER, os.O_RDONLY)) > 0

def read_by_tracing():
    return call(NR["process_vm_readv"], os.getpid(), None, 0, None, 0, 0) == 0

def one_more_filter():
    return call(NR["seccomp"], 2, 0, (0x7FFF0000).to_bytes(4, "little")) == 0

def a_socket(family, kind=1, protocol=0):
    return lambda: call(NR["socket"], family, kind, protocol) >= 0

TRIALS = {
    "open /etc/passwd": lambda: opened("/etc/passwd"),
    "open /proc/self/environ": lambda: opened("/proc/self/environ"),
    "open /proc/1/status": lambda: opened("/proc/1/status"),
    "open by ..": lambda: opened(FOLDER + "/../secret.txt"),
    "open a link out": lambda: opened(FOLDER + "/out.txt"),
    "open a second name": lambda: opened(FOLDER + "/hard.txt"),
    "open through a folder": through_a_folder,
    "list /etc": lambda: "passwd" in os.listdir("/etc"),
    "stat /etc/passwd": lambda: bool(os.stat("/etc/passwd")),
    "read a link": lambda: bool(os.readlink(FOLDER + "/out.txt")),
    "fork": lambda: child_made(NR["clone"], 17, 0, 0, 0, 0) > 0,
    "vfork by clone": lambda: child_made(NR["clone"], 0x100 | 17, 0, 0, 0, 0) > 0,
    "user namespace": lambda: child_made(NR["clone"], 0x10000000 | 17, 0, 0, 0, 0) > 0,
    "unshare": lambda: call(NR["unshare"], 0x200) == 0,
    "socketpair": lambda: bool(socket.socketpair()),
    "unix socket": a_socket(1), "inet": a_socket(2), "inet6": a_socket(10), "netlink": a_socket(16, 3),
    "udp": a_socket(2, 2),
    "executable memory": exec_anonymous,
    "mprotect to executable": exec_by_mprotect,
    "pkey_mprotect to executable": exec_by_pkey,
    "executable mapping of a granted file": exec_of_a_file,
    "mremap": lambda: call(NR["mremap"], call(NR["mmap"], 0, 4096, 3, 0x22, -1, 0), 4096, 8192, 1) > 0,
    "memfd": lambda: call(NR["memfd_create"], b"x", 0) >= 0,
    "shmget": lambda: call(NR["shmget"], 0, 4096, 0o1600) >= 0,
    "inotify": lambda: call(NR["inotify_init1"], 0) >= 0,
    "epoll": lambda: call(NR["epoll_create1"], 0) >= 0,
    "eventfd": lambda: call(NR["eventfd2"], 0, 0) >= 0,
    "pidfd of itself": lambda: call(NR["pidfd_open"], os.getpid(), 0) >= 0,
    "signal its parent": lambda: call(NR["kill"], os.getppid(), 0) == 0,
    "read its own memory as a tracer": read_by_tracing,
    "personality": lambda: call(NR["personality"], 0xFFFFFFFF) >= 0,
    "set a limit": lambda: call(NR["setrlimit"], 7, (ctypes.c_ulong * 2)(64, 64)) == 0,
    "end death with the parent": lambda: call(NR["prctl"], 1, 0, 0, 0, 0) == 0,
    "one more filter": one_more_filter,
    "terminal": lambda: bool(os.open("/dev/ptmx", os.O_RDWR)),
    "create a file": lambda: os.open("/tmp/anchorhold-attack", os.O_CREAT | os.O_WRONLY | os.O_EXCL) > 0,
    "its host name": lambda: os.uname().nodename != "anchorhold",
    "environment": lambda: bool(set(os.environ) - OURS),
}

def run(names):
    results = {}
    for name in names:
        try:
            results[name] = bool(TRIALS[name]())
        except OSError as error:
            results[name] = False
    return results
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "granted.txt").write_text("granted" * 1000)
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "out.txt").symlink_to(tmp_path / "secret.txt")
    os.link(tmp_path / "secret.txt", folder / "hard.txt")
    return folder


def attacks(folder: Path) -> str:
    names = f"NR = {NR!r}\nFOLDER = {str(folder)!r}\nGRANTED = FOLDER + '/granted.txt'\n"
    return names + textwrap.dedent(ATTACKS)


def outside(folder: Path) -> dict[str, bool]:
    """The same attacks in a plain process."""
    code = attacks(folder) + "\nprint(json.dumps(run(TRIALS)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
        env={"PATH": "/x"},
    )
    Path("/tmp/anchorhold-attack").unlink(missing_ok=True)
    results: dict[str, bool] = json.loads(done.stdout)
    return results


# Refused outside as well where the tests run, by the environment and not by us: they show nothing here.
NOT_SHOWN = {"one more filter", "user namespace", "its host name"}


def test_what_works_outside_fails_inside(state_dir: Path, demo_model: Path, folder: Path) -> None:
    plain = outside(folder)
    assert {name for name, worked in plain.items() if not worked} <= NOT_SHOWN
    source = attacks(folder) + "\ndef attempt():\n    return json.dumps(run(TRIALS))\n"
    out = cells.run(state_dir, cells.policy(demo_model, read=(folder,)), source)
    inside = json.loads(out.answer)
    assert {name for name, worked in inside.items() if worked} == set()
    # Each attempt on a path is on record as what it was.
    paths = {str(entry.get("path")) for entry in out.denials()}
    assert {"/etc/passwd", "/proc/self/environ", f"{folder}/out.txt", f"{folder}/hard.txt"} <= paths
    calls = {entry["call"] for entry in out.denials()}
    assert {
        "socket",
        "socketpair",
        "clone",
        "unshare",
        "mmap",
        "mprotect",
        "kill",
        "prctl",
        "seccomp",
    } <= calls


def test_no_path_call_reaches_anything_outside(state_dir: Path, demo_model: Path, folder: Path) -> None:
    """Every system call that takes a path, with a path outside: refused, and each one is on record."""
    present = {name: where for name, where in PATH_ARGUMENTS.items() if name in NR}
    source = attacks(folder) + textwrap.dedent(
        f"""
        PATHS = {present!r}
        def attempt():
            text = ctypes.create_string_buffer(b"/etc/passwd")
            answers = {{}}
            for name, where in PATHS.items():
                args = [0] * 6
                for index in where:
                    args[index] = ctypes.addressof(text)
                if name == "openat2":
                    how = (ctypes.c_uint64 * 3)()
                    args[2], args[3] = ctypes.addressof(how), 24
                answers[name] = call(NR[name], *args)
            return json.dumps(answers)
        """
    )
    out = cells.run(state_dir, cells.policy(demo_model, read=(folder,)), source)
    answers = json.loads(out.answer)
    assert {name for name, result in answers.items() if result >= 0} == set()
    named = {entry["call"] for entry in out.denials() if "/etc/passwd" in str(entry.get("path"))}
    silent = {"statfs"}  # answered "not here" without a look at its path
    assert set(present) - named <= silent


def test_there_or_not_there_is_one_answer_outside(state_dir: Path, demo_model: Path, folder: Path) -> None:
    source = attacks(folder) + textwrap.dedent(
        """
        def attempt():
            answers = []
            for path in (b"/etc/passwd", b"/etc/no-such-file", b"/root", b"/root/x/y", b"/nowhere"):
                text = ctypes.create_string_buffer(path)
                buffer = ctypes.create_string_buffer(256)
                found = call(NR["newfstatat"], -100, text, buffer, 0)
                answers.append([call(NR["openat"], -100, text, 0), found])
            return json.dumps(answers)
        """
    )
    out = cells.run(state_dir, cells.policy(demo_model, read=(folder,)), source)
    assert json.loads(out.answer) == [[-13, -13]] * 5


def test_the_supervisor_writes_no_result_into_code(state_dir: Path, demo_model: Path, folder: Path) -> None:
    """getcwd(2) with a buffer in code: elsewhere the kernel refuses it, here the supervisor must."""
    source = attacks(folder) + textwrap.dedent(
        """
        code = ctypes.cast(libc.getpid, ctypes.c_void_p).value
        before = ctypes.string_at(code, 64)
        def attempt():
            text = ctypes.create_string_buffer(GRANTED.encode())
            results = [call(NR["getcwd"], code, 64), call(NR["uname"], code)]
            results.append(call(NR["newfstatat"], -100, text, ctypes.c_void_p(code), 0))
            return json.dumps([results, ctypes.string_at(code, 64) == before])
        """
    )
    out = cells.run(state_dir, cells.policy(demo_model, read=(folder,)), source)
    assert json.loads(out.answer) == [[-14, -14, -14], True]


def test_a_path_swapped_by_a_second_thread_never_opens_the_other(
    state_dir: Path, demo_model: Path, folder: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "swapped-secret"
    assert len(str(folder / "granted.txt")) > 0
    allowed = str(folder / "granted.txt").encode()
    denied = str(secret).encode().ljust(len(allowed), b"\0")
    secret.write_text("secret")
    source = attacks(folder) + textwrap.dedent(
        f"""
        def attempt():
            buffer = ctypes.create_string_buffer({allowed!r} + b"\\0" * 64)
            stop = []
            def swap():
                while not stop:
                    ctypes.memmove(buffer, {denied!r} + b"\\0", {len(denied) + 1})
                    ctypes.memmove(buffer, {allowed!r} + b"\\0", {len(allowed) + 1})
            thread = threading.Thread(target=swap)
            thread.start()
            wrong = good = 0
            for _ in range(20000):
                fd = call(NR["openat"], -100, buffer, 0)
                if fd >= 0:
                    good += 1
                    wrong += os.read(fd, 6) != b"grante"
                    os.close(fd)
            stop.append(1)
            thread.join()
            return f"{{wrong}} {{good > 0}}"
        """
    )
    out = cells.run(state_dir, cells.policy(demo_model, read=(folder,)), source)
    assert out.answer == "0 True"


def test_a_hundred_thousand_denials_are_counted_exactly(
    state_dir: Path, demo_model: Path, folder: Path
) -> None:
    source = attacks(folder) + textwrap.dedent(
        """
        def attempt():
            text = ctypes.create_string_buffer(b"/etc/shadow")
            for _ in range(100_000):
                call(NR["openat"], -100, text, 0)
            return str(open(GRANTED).read(7))
        """
    )
    out = cells.run(state_dir, cells.policy(demo_model, read=(folder,)), source)
    assert out.answer == "granted"
    counts = [entry["count"] for entry in out.denials() if entry.get("path") == "/etc/shadow"]
    assert sum(int(str(count)) for count in counts) == 100_000
    assert len(counts) < 200
    assert out.summary.refused_total == 100_000


def test_descriptors_from_the_start_are_the_channel_and_nothing_else(
    state_dir: Path, demo_model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The launcher itself, also while the tests are measured: that leaves a descriptor of its own open.
    monkeypatch.setattr(spawn, "LAUNCHER", str(Path(filters.__file__).with_name("launcher.py")))
    with (folder / "granted.txt").open() as inherited:
        os.set_inheritable(inherited.fileno(), True)
        source = attacks(folder) + textwrap.dedent(
            """
            def attempt():
                return json.dumps([fd for fd in range(1024) if call(NR["fcntl"], fd, 1) >= 0])
            """
        )
        out = cells.run(state_dir, cells.policy(demo_model, read=(folder,)), source)
    assert json.loads(out.answer) == [0, 1, 2, 5, 6]


def test_the_first_denied_open_kills_where_the_policy_says_so(
    state_dir: Path, demo_model: Path, folder: Path
) -> None:
    source = attacks(folder) + "\ndef attempt():\n    opened('/etc/passwd')\n    return 'alive'\n"
    with pytest.raises(BreachError, match="/etc/passwd"):
        cells.run(state_dir, cells.policy(demo_model, read=(folder,), kill=True), source)
