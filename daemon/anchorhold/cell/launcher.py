"""Builds the cell around itself and becomes the worker. Run as a file, by the supervisor only.

``python -I -S -B launcher.py`` with an empty environment and these descriptors: 0 /dev/null, 1 and
2 a pipe that the supervisor reads, 3 the configuration (marshal, read to its end), 4 the setup
socket, 5 the channel from the supervisor, 6 the channel to it. All others are closed first.

Single-threaded until the engine is imported, no way back, and every child path ends in
``os._exit``. What it tells the supervisor on the setup socket is text, one ``key<TAB>value`` a
line, first line the kind of message: the supervisor trusts none of it with more than words.

The process that the supervisor started stays outside the new PID namespace as the parent of the
worker, waits for it and passes on how it ended.
It holds one end of a pipe, by which the worker knew it alive, and nothing else.
"""

from __future__ import annotations

import marshal
import os
import select
import sys

sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

import _socket  # noqa: E402  (socket.py costs several ms and adds nothing needed here)

from anchorhold.cell import above, filters, layers  # noqa: E402  (found by the path set above)
from anchorhold.kernel import libc, namespaces, pidfd, prctl, syscalls  # noqa: E402  (the same)

CONFIG_FD = 3
SETUP_FD = filters.SETUP_FD
FROM_SUPERVISOR_FD = 5
TO_SUPERVISOR_FD = 6
FIRST_FREE_FD = 7

EPERM = 1
SIGKILL = 9
PROT_READ_EXEC = 0x5
MAP_PRIVATE_ANONYMOUS = 0x22
SCM_RIGHTS = 1


class Setup:
    """The setup socket: short texts, with descriptors beside them."""

    def __init__(self, fd: int) -> None:
        self.socket = _socket.socket(fileno=fd)

    def tell(self, kind: str, words: dict[str, str], fds: tuple[int, ...] = ()) -> None:
        lines = [kind]
        for key, value in words.items():
            lines.append(f"{key}\t{value}".replace("\n", " "))
        data = "\n".join(lines).encode("utf-8", "replace")
        rights = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
        control = [(_socket.SOL_SOCKET, SCM_RIGHTS, rights)] if fds else []
        self.socket.sendmsg([data], control)

    def wait_for_seal(self) -> None:
        """Block until the supervisor has closed the boot listener. read(2): the filter allows no recvmsg."""
        if os.read(SETUP_FD, 16) != b"seal":
            os._exit(1)

    def close(self) -> None:
        self.socket.close()


def main() -> None:
    config = read_config()
    os.chdir("/")
    os.closerange(FIRST_FREE_FD, 1 << 16)
    libc.syscall(syscalls.NR["close_range"], FIRST_FREE_FD, 0xFFFFFFFF, 0)
    setup = Setup(SETUP_FD)
    die_with(config["supervisor"])

    held: dict[str, str] = dict(config["held"])
    missing: dict[str, str] = {}
    put_on(layers.Rlimits(config["rlimits"]), held, missing)
    look_above(config)
    if os.getuid() == 0 and config["user"] is not None:
        # Giving up uid 0 also gives up the right to namespaces without a user namespace: try first.
        if user_namespaces_work(*config["user"]):
            put_on(layers.User(*config["user"]), held, missing)
            die_with(config["supervisor"])
        enter_namespaces(held, missing)
    else:
        enter_namespaces(held, missing)

    alive_read, alive_write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(alive_write)
            become_worker(config, setup, held, missing, alive_read)
        except BaseException as error:
            say_error(error)
        finally:
            os._exit(1)
    setup.tell("child", {"pid": str(child)}, (pidfd.pidfd_open(child),))
    for fd in (SETUP_FD, FROM_SUPERVISOR_FD, TO_SUPERVISOR_FD, alive_read):
        os.close(fd)
    layers.Capabilities().apply()
    _pid, status = os.waitpid(child, 0)
    os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


def look_above(config) -> None:  # type: ignore[no-untyped-def]  # as read_config
    """Make the sealed program end the worker for what a filter above would refuse without our hearing of it.

    Adds to the configuration ``above``: what is then said of the seccomp layer, ``above_unknown``: why it is
    not known what that filter refuses, and ``lethal``: the calls, if the supervisor did not know them yet.
    """
    config["above"] = config["above_unknown"] = ""
    try:
        if not above.present():
            return
        if config["answered"] is None:
            config["above"] = "; what a filter above the cell refuses fails without a question"
            return
        lethal = config["lethal"]
        if lethal is None:
            lethal = config["lethal"] = sorted(above.refused(config["answered"]))
    except OSError as error:
        config["above_unknown"] = str(error)
        return
    if lethal:
        config["filters"] = config["filters"][0], filters.sealed_filter(lethal)
        config["above"] = (
            f"; {len(lethal)} calls that a filter above the cell refuses end the worker without a question"
        )


def say_error(error: BaseException | None) -> None:
    """An exception in words, without its source lines: those would have to be opened, in the cell."""
    while error is not None:
        frame = error.__traceback__
        while frame is not None:
            code = frame.tb_frame.f_code
            os.write(
                2, f"{code.co_filename}:{frame.tb_lineno} in {code.co_name}\n".encode("utf-8", "replace")
            )
            frame = frame.tb_next
        os.write(2, f"{type(error).__name__}: {error}\n".encode("utf-8", "replace"))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def say_errors_plainly() -> None:
    sys.excepthook = lambda _kind, error, _trace: say_error(error)
    sys.unraisablehook = lambda failed: say_error(failed.exc_value)
    if "threading" in sys.modules:
        vars(sys.modules["threading"])["excepthook"] = lambda failed: say_error(failed.exc_value)


def read_config() -> dict:  # type: ignore[type-arg]  # typing is not imported here; the supervisor wrote it
    chunks = []
    while chunk := os.read(CONFIG_FD, 1 << 16):
        chunks.append(chunk)
    os.close(CONFIG_FD)
    config = marshal.loads(b"".join(chunks))
    assert isinstance(config, dict)
    return config


def die_with(parent: int) -> None:
    """Die when the supervisor does; also if it died before this line (prctl(2), PR_SET_PDEATHSIG)."""
    prctl.set_pdeathsig(SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def put_on(layer, held: dict[str, str], missing: dict[str, str]) -> bool:  # type: ignore[no-untyped-def]  # as read_config
    """Apply a layer, or note by name why it is missing. The supervisor decides what that means."""
    try:
        layer.apply()
    except OSError as error:
        missing[layer.name] = str(error)
        return False
    held[layer.name] = layer.describe()
    return True


def user_namespaces_work(uid: int, gid: int) -> bool:
    """Whether that user could enter a user namespace: tried in a child that becomes it and ends at once."""
    child = os.fork()
    if child == 0:
        try:
            layers.User(uid, gid).apply()
            namespaces.unshare(namespaces.CLONE_NEWUSER)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def enter_namespaces(held: dict[str, str], missing: dict[str, str]) -> None:
    """All namespaces at once; else each that can be had, with the reason for each that cannot."""
    every = layers.Namespaces()
    try:
        every.apply()
        held.update(every.describe())
        return
    except OSError as error:
        if every.held:
            raise
        reason = str(error)
    for name in layers.NAMESPACES:
        single = layers.Namespaces((name,))
        try:
            single.apply()
            held.update(single.describe())
        except OSError as error:
            if name == "userns":
                missing[name] = reason
            elif error.errno == EPERM and "userns" in missing:
                missing[name] = "needs a user namespace, or root"
            else:
                missing[name] = str(error)


def die_with_parent(alive: int) -> None:
    """Die when the waiting parent does, which is in another process namespace: its end of a pipe tells."""
    prctl.set_pdeathsig(SIGKILL)
    poller = select.poll()
    poller.register(alive, 0)
    if poller.poll(0):  # it was gone before the line above
        os._exit(1)


def become_worker(config, setup: Setup, held: dict[str, str], missing: dict[str, str], alive: int) -> None:  # type: ignore[no-untyped-def]  # as read_config
    die_with_parent(alive)
    if "userns" in held:
        # Counted within the user namespace, so it must come after it (user_namespaces(7), since Linux 5.14).
        layers.Rlimits({"NPROC": config["tasks"]}).apply()
    os.environ.pop("GLIBC_TUNABLES", None)  # libc has read it; the worker sees nothing of its supervisor's
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    # A thread that waits at the engine's barrier gives its processor up soon: much faster on a machine that
    # is busy with other things too, the same on an idle one (libgomp manual, GOMP_SPINCOUNT).
    os.environ["GOMP_SPINCOUNT"] = "1000"
    os.environ["HOME"] = "/"
    # Opened here, by the process itself: whoever holds it needs no right to trace, whatever Yama says.
    memory = os.open("/proc/self/mem", os.O_RDWR | os.O_CLOEXEC)
    maps = os.open("/proc/self/maps", os.O_RDONLY | os.O_CLOEXEC)
    if "utsns" in held:
        try:
            namespaces.sethostname("anchorhold")
        except OSError:
            # A service's ProtectHostname= refuses it. uname(2) is answered without a name anyway.
            held["utsns"] += " (of the same name: it could not be changed)"
    if "mountns" in held:
        put_on(layers.Root(), held, missing)
    else:
        missing["root"] = "needs a mount namespace"
    if os.getuid() == 0 and config["user"] is not None:
        # Without user namespaces the layers so far needed root's rights; from here on none does.
        put_on(layers.User(*config["user"]), held, missing)
        die_with_parent(alive)  # a change of user took that off
    os.close(alive)
    put_on(layers.Capabilities(), held, missing)
    put_on(layers.NoNewPrivileges(), held, missing)
    put_on(layers.Landlock(), held, missing)
    put_on(layers.Dumpable(), held, missing)

    tgid = os.getpid()
    boot_program, sealed_program = (filters.for_process(program, tgid) for program in config["filters"])
    boot = layers.Seccomp(boot_program)
    if not put_on(boot, held, missing):
        setup.tell("failed", {"seccomp": missing["seccomp"]})
        os._exit(1)
    if config["above_unknown"]:
        reason = f"what the filter above the cell refuses cannot be found out: {config['above_unknown']}"
        setup.tell("failed", {"seccomp": reason})
        os._exit(1)
    held[boot.name] += config["above"]
    words = {"tgid": str(tgid)}
    if config["lethal"] is not None:
        words["lethal"] = " ".join(map(str, config["lethal"]))
    words.update({f"held.{name}": text for name, text in held.items()})
    words.update({f"missing.{name}": text for name, text in missing.items()})
    setup.tell("cell", words, (boot.listener, memory))
    for fd in (boot.listener, memory):
        os.close(fd)

    say_errors_plainly()
    sys.path[:] = config["path"]
    sys.argv[:] = ["worker"]
    entry = __import__(config["entry"], fromlist=["prepare"])
    versions = entry.prepare(config["worker"]) or {}
    say_errors_plainly()
    setup.tell("ready", {str(name): str(version) for name, version in versions.items()})
    setup.wait_for_seal()
    seal(setup, sealed_program, maps)
    os._exit(entry.serve(FROM_SUPERVISOR_FD, TO_SUPERVISOR_FD, config["worker"]))


def seal(setup: Setup, program: bytes, maps: int) -> None:
    """Boot is over: nothing becomes executable any more, and the kernel asks on a listener of its own.

    The supervisor gets the map of this memory along, reads it now that nothing executable can be added, and
    refuses the worker if anything is both writable and executable. Ends the process rather than go on
    unsealed if the trial mapping at the end is not refused.
    """
    words: dict[str, str] = {}
    missing: dict[str, str] = {}
    put_on(layers.Mdwe(), words, missing)
    sealed = layers.Seccomp(program, all_threads=True)
    sealed.apply()
    told = {f"held.{name}": value for name, value in words.items()}
    told.update({f"missing.{name}": value for name, value in missing.items()})
    setup.tell("sealed", told, (sealed.listener, maps))
    os.close(sealed.listener)
    os.close(maps)
    setup.close()
    # The supervisor waits for this very question on the new listener before it calls the worker sealed.
    trial = libc.raw_syscall(syscalls.NR["mmap"], 0, 4096, PROT_READ_EXEC, MAP_PRIVATE_ANONYMOUS, -1, 0)
    if trial >= 0:
        os._exit(1)


if __name__ == "__main__":
    main()
