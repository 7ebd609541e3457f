from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from anchorhold.kernel import cgroup
from anchorhold.kernel.cgroup import Cgroup, Survey
from anchorhold.kernel.errors import KernelError

Child = Callable[..., Any]

UNIFIED = "30 24 0:26 / {mount} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "31 24 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"


def proc(directory: Path, membership: str, mountinfo: str) -> str:
    (directory / "cgroup").write_text(membership)
    (directory / "mountinfo").write_text(f"24 1 0:22 / /sys rw - sysfs sysfs rw\n{mountinfo}")
    return str(directory)


def group(path: Path, given: str = "", controllers: str = "cpu memory pids") -> Cgroup:
    """A directory with the files that the kernel makes in one of version 2."""
    path.mkdir(parents=True, exist_ok=True)
    texts = {
        "cgroup.procs": "",
        "cgroup.controllers": f"{controllers}\n",
        "cgroup.subtree_control": f"{given}\n",
        "cgroup.kill": "",
        "cgroup.freeze": "0\n",
        "cgroup.events": "populated 1\nfrozen 0\n",
        "memory.max": "max\n",
        "memory.oom.group": "0\n",
        "memory.swap.max": "max\n",
        "memory.events": "low 0\noom_kill 3\n",
        "cpu.max": "max 100000\n",
        "pids.max": "max\n",
        "pids.events": "max 2\n",
    }
    for name, text in texts.items():
        (path / name).write_text(text)
    return Cgroup(str(path))


# What the machine has.


def test_this_machine_is_reported_as_it_is() -> None:
    found = cgroup.survey()
    assert found.mode in ("unified", "hybrid", "v1", "none")
    mounted = [
        line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if " cgroup2 " in line
    ]
    assert (found.mount in mounted) if mounted else found.mount == ""
    held = Path("/proc/self/cgroup").read_text()
    assert all(name in held for name in found.v1)


@pytest.mark.parametrize(
    ("membership", "mountinfo", "expected"),
    [
        ("0::/user.slice/a\n", UNIFIED, ("unified", "/sys/fs/cgroup", "/sys/fs/cgroup/user.slice/a", ())),
        ("0::/\n", UNIFIED, ("unified", "/sys/fs/cgroup", "/sys/fs/cgroup", ())),
        (
            "9:name=systemd:/\n4:memory:/x\n3:cpu,cpuacct:/\n0::/\n",
            UNIFIED + V1,
            ("hybrid", "/sys/fs/cgroup", "/sys/fs/cgroup", ("memory", "cpu", "cpuacct")),
        ),
        ("4:memory:/\n", V1, ("v1", "", "", ("memory",))),
        ("", "", ("none", "", "", ())),
        # outside of the part that is mounted here, as in a container
        ("0::/../other\n", UNIFIED, ("unified", "/sys/fs/cgroup", "", ())),
    ],
)
def test_each_kind_of_machine(
    tmp_path: Path, membership: str, mountinfo: str, expected: tuple[str, str, str, tuple[str, ...]]
) -> None:
    found = cgroup.survey(proc(tmp_path, membership, mountinfo.format(mount="/sys/fs/cgroup")))
    assert (found.mode, found.mount, found.own, found.v1) == expected


@pytest.mark.parametrize(
    ("path", "own"), [("/docker/x/y", "/cg/y"), ("/docker/x", "/cg"), ("/docker/xy", ""), ("/elsewhere", "")]
)
def test_a_mount_of_a_part_of_the_tree(tmp_path: Path, path: str, own: str) -> None:
    line = "30 24 0:26 /docker/x /cg rw - cgroup2 cgroup2 rw\n"
    assert cgroup.survey(proc(tmp_path, f"0::{path}\n", line)).own == own


def test_a_mount_with_a_space_in_its_name(tmp_path: Path) -> None:
    assert cgroup.survey(proc(tmp_path, "0::/a\n", UNIFIED.format(mount=r"/a\040b"))).own == "/a b/a"


def test_without_proc_nothing_is_claimed(tmp_path: Path) -> None:
    assert cgroup.survey(str(tmp_path)).mode == "none"
    assert cgroup.find(cgroup.survey(str(tmp_path))) is None


# Where a child can be made.


def test_the_nearest_that_limits_is_found(tmp_path: Path) -> None:
    group(tmp_path, given="memory")
    group(tmp_path / "slice", given="cpu memory pids")
    group(tmp_path / "slice" / "app")
    found = cgroup.find(Survey("unified", str(tmp_path), str(tmp_path / "slice" / "app"), ()))
    assert found is not None
    assert found.path == str(tmp_path / "slice")


def test_one_that_limits_nothing_is_better_than_none(tmp_path: Path) -> None:
    group(tmp_path, given="io")
    group(tmp_path / "own")
    found = cgroup.find(Survey("unified", str(tmp_path), str(tmp_path / "own"), ()))
    assert found is not None
    assert found.path == str(tmp_path / "own")


def test_the_search_ends_at_what_systemd_delegated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group(tmp_path, given="cpu memory pids")
    group(tmp_path / "service" / "own")
    group(tmp_path / "service")
    survey = Survey("unified", str(tmp_path), str(tmp_path / "service" / "own"), ())
    assert str(cgroup.find(survey)) == f"Cgroup({str(tmp_path)!r})"

    def getxattr(path: str, name: str) -> bytes:
        if path.endswith("service") and name == "trusted.delegate":
            return b"1"
        raise OSError(errno.ENODATA, "")

    monkeypatch.setattr(os, "getxattr", getxattr)
    assert str(cgroup.find(survey)) == f"Cgroup({str(tmp_path / 'service' / 'own')!r})"


class Delegated:
    """A directory that systemd handed over, and what happens in it when controllers are enabled."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, answers: list[int]) -> None:
        self.path, self.moved = path, 0
        self.one = group(path)
        (path / "cgroup.procs").write_text("11\n12\n")
        self.found = Survey("unified", str(path.parent), str(path), ())
        write = Cgroup._write

        def answer(cgroup: Cgroup, file: str, text: str, hint: str = "") -> None:
            if file == "cgroup.procs":
                self.moved += 1
                return
            number = answers.pop(0)
            if number:
                raise OSError(number, os.strerror(number))
            write(cgroup, file, text, hint)

        monkeypatch.setattr(Cgroup, "_write", answer)
        monkeypatch.setattr(os, "getxattr", lambda path, name: b"1")

    def enabled(self) -> str:
        return (self.path / "cgroup.subtree_control").read_text().strip()


def test_what_systemd_delegated_is_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Delegated(tmp_path / "service", monkeypatch, [0])
    assert cgroup.divide_own("leaf", own.found)
    assert own.enabled() == "+cpu +memory +pids"
    assert own.moved == 2
    (own.path / "cgroup.subtree_control").write_text("cpu memory pids\n")
    assert not cgroup.divide_own("leaf", own.found)
    assert own.moved == 2


def test_a_fork_while_it_is_divided_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Delegated(tmp_path / "service", monkeypatch, [errno.EBUSY, errno.EBUSY, 0])
    assert cgroup.divide_own("leaf", own.found)
    assert own.moved == 6


@pytest.mark.parametrize("answers", [[errno.EACCES], [errno.EBUSY] * cgroup.DIVIDE_TRIALS])
def test_a_division_that_fails_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: list[int]
) -> None:
    own = Delegated(tmp_path / "service", monkeypatch, answers)
    with pytest.raises(OSError):
        cgroup.divide_own("leaf", own.found)
    assert answers == []


def test_what_systemd_kept_is_not_divided(tmp_path: Path) -> None:
    one = group(tmp_path / "session")
    (tmp_path / "session" / "cgroup.procs").write_text("11\n")
    assert not cgroup.divide_own("leaf", Survey("unified", str(tmp_path), one.path, ()))
    assert not cgroup.divide_own("leaf", Survey("none", "", "", ()))
    assert not (tmp_path / "session" / "leaf").exists()


def _find(mount: str) -> str | None:
    found = cgroup.find(Survey("unified", mount, mount, ()))
    return None if found is None else found.path


def test_what_is_not_writable_is_not_offered(unprivileged: Child, child: Child, public: Path) -> None:
    group(public, given="memory")
    assert child(_find, str(public)) == str(public)
    for path in public.iterdir():
        path.chmod(0o444)
    assert unprivileged(_find, str(public)) is None


# What is written, against a directory.


def test_limits_are_written_as_the_kernel_reads_them(tmp_path: Path) -> None:
    one = group(tmp_path)
    one.set_memory(1 << 30, 0)
    one.set_cpu(0.5)
    one.set_pids(64)
    assert (tmp_path / "memory.max").read_text() == "1073741824"
    assert (tmp_path / "memory.oom.group").read_text() == "1"
    assert (tmp_path / "memory.swap.max").read_text() == "0"
    assert (tmp_path / "cpu.max").read_text() == "50000 100000"
    assert (tmp_path / "pids.max").read_text() == "64"
    one.set_cpu(2.0)
    assert (tmp_path / "cpu.max").read_text() == "200000 100000"


def test_a_limit_that_is_not_given_is_left_alone(tmp_path: Path) -> None:
    one = group(tmp_path)
    one.set_memory(None)
    assert (tmp_path / "memory.max").read_text() == "max\n"
    one.set_memory(None, 5)
    assert ((tmp_path / "memory.max").read_text(), (tmp_path / "memory.swap.max").read_text()) == (
        "max\n",
        "5",
    )


def test_less_cpu_than_the_kernel_can_give_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match=r"least is 0\.01"):
        group(tmp_path).set_cpu(0.001)


@pytest.mark.parametrize(
    ("file", "call", "advice"),
    [
        ("memory.max", lambda one: one.set_memory(1), "controller is not enabled"),
        ("memory.swap.max", lambda one: one.set_memory(None, 0), "account swap"),
        ("cpu.max", lambda one: one.set_cpu(1.0), "controller is not enabled"),
        ("pids.max", lambda one: one.set_pids(1), "controller is not enabled"),
    ],
)
def test_a_limit_that_nothing_holds_is_an_error_with_advice(
    tmp_path: Path, file: str, call: Callable[[Cgroup], None], advice: str
) -> None:
    one = group(tmp_path)
    call(one)
    (tmp_path / file).unlink()
    with pytest.raises(FileNotFoundError, match=advice) as caught:
        call(one)
    assert file in str(caught.value)


def test_only_missing_controllers_are_enabled(tmp_path: Path) -> None:
    one = group(tmp_path, given="memory")
    one.enable("memory")
    assert one.given == ("memory",)
    one.enable("memory", "pids", "cpu")
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+pids +cpu"
    assert one.controllers == ("cpu", "memory", "pids")


def test_processes_move_into_a_leaf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = group(tmp_path)
    (tmp_path / "cgroup.procs").write_text("11\n12\n")
    group(tmp_path / "leaf")
    moved = []

    def add(self: Cgroup, pid: int) -> None:
        if pid == 11:
            raise ProcessLookupError
        moved.append((self.path, pid))

    monkeypatch.setattr(Cgroup, "add", add)
    assert one.vacate("leaf").path == str(tmp_path / "leaf")
    assert moved == [(str(tmp_path / "leaf"), 12)]
    (tmp_path / "cgroup.procs").write_text("")
    assert one.vacate("fresh").path == str(tmp_path / "fresh")
    assert (tmp_path / "fresh").is_dir()


def test_freezing_and_thawing(tmp_path: Path) -> None:
    one = group(tmp_path)
    one.freeze()
    assert (tmp_path / "cgroup.freeze").read_text() == "1"
    one.thaw()
    assert (tmp_path / "cgroup.freeze").read_text() == "0"


def test_events_are_told_of_each_controller_that_is_there(tmp_path: Path) -> None:
    one = group(tmp_path)
    assert one.events() == {
        "populated": 1,
        "frozen": 0,
        "memory.low": 0,
        "memory.oom_kill": 3,
        "pids.max": 2,
    }
    (tmp_path / "memory.events").unlink()
    assert one.events() == {"populated": 1, "frozen": 0, "pids.max": 2}


def test_a_kernel_without_cgroup_kill_has_its_processes_killed_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = group(tmp_path)
    group(tmp_path / "below")
    (tmp_path / "cgroup.procs").write_text("0\n21\n22\n")
    (tmp_path / "below" / "cgroup.procs").write_text("23\n")
    killed = []

    def kill(pid: int, number: int) -> None:
        assert (tmp_path / "cgroup.freeze").read_text() == "1"
        killed.append((pid, number))
        if pid == 21:
            raise ProcessLookupError

    monkeypatch.setattr(os, "kill", kill)
    one.kill()
    assert (tmp_path / "cgroup.kill").read_text() == "1"
    assert killed == []
    (tmp_path / "cgroup.kill").unlink()
    one.kill()
    assert killed == [(21, signal.SIGKILL), (22, signal.SIGKILL), (23, signal.SIGKILL)]
    assert (tmp_path / "cgroup.freeze").read_text() == "0"


def test_a_cgroup_still_in_use_is_waited_for_and_then_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [errno.EBUSY, errno.EBUSY, 0]

    def rmdir(path: str) -> None:
        number = answers.pop(0) if len(answers) > 1 else answers[0]
        if number:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "rmdir", rmdir)
    Cgroup("/cg/a").remove()
    answers[:] = [errno.EBUSY]
    start = time.monotonic()
    with pytest.raises(KernelError, match=r"rmdir\(/cg/a\).*holds processes"):
        Cgroup("/cg/a").remove(timeout=0.05)
    assert 0.05 <= time.monotonic() - start < 2
    answers[:] = [errno.EACCES]
    with pytest.raises(PermissionError, match="delegated"):
        Cgroup("/cg/a").remove()


def test_removing_what_is_gone_is_no_error(tmp_path: Path) -> None:
    Cgroup(str(tmp_path)).create("x").remove()
    Cgroup(str(tmp_path / "x")).remove()
    assert not (tmp_path / "x").exists()


def _create(path: str) -> str:
    try:
        Cgroup(path).create("x")
    except PermissionError as error:
        return str(error)
    return ""


def test_what_is_taken_or_forbidden_is_told(unprivileged: Child, public: Path) -> None:
    one = Cgroup(str(public))
    one.create("x")
    with pytest.raises(FileExistsError, match="mkdir"):
        one.create("x")
    (public / "closed").mkdir(0o555)
    assert "delegated to this user" in unprivileged(_create, str(public / "closed"))


# The real thing, where this user may make one.


@pytest.fixture
def real() -> Iterator[Cgroup]:
    parent = cgroup.find()
    if parent is None:
        pytest.skip("this user may create no cgroup of version 2 on this machine")
    made = parent.create(f"anchorhold-test-{os.getpid()}")
    yield made
    made.kill()
    made.remove()


@pytest.fixture
def sleeper() -> Iterator[int]:
    pid = os.fork()
    if pid == 0:
        try:
            time.sleep(30)
        finally:
            os._exit(0)
    yield pid
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def test_a_real_process_is_frozen_thawed_and_killed(real: Cgroup, sleeper: int) -> None:
    assert real.events()["populated"] == 0
    real.add(sleeper)
    assert real.processes == (sleeper,)
    real.freeze()
    assert eventually(lambda: real.events()["frozen"] == 1)
    real.thaw()
    assert eventually(lambda: real.events()["frozen"] == 0)
    real.kill()
    assert os.WTERMSIG(os.waitpid(sleeper, 0)[1]) == signal.SIGKILL
    assert eventually(lambda: real.events()["populated"] == 0)


def test_a_real_limit_holds_or_is_refused_by_name(real: Cgroup) -> None:
    if "pids" in real.controllers:
        real.set_pids(7)
        assert Path(real.path, "pids.max").read_text() == "7\n"
    else:
        with pytest.raises(FileNotFoundError, match="controller is not enabled"):
            real.set_pids(7)
