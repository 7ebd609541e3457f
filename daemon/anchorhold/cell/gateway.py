"""Becomes the gateway: imports what it needs, then confines itself. Run as a file, by the supervisor only.

``python -I -S -B gateway.py`` with an empty environment and these descriptors: 0 /dev/null, 1 and 2 a
pipe that the supervisor reads, 3 the configuration (marshal, read to its end), 4 the socket on which the
layers are told and, later, connections come in, 5 the channel, from 6 on the listening sockets and memory
files that the configuration counts. All others are closed first.

The order is the other way round than the worker's: what the gateway runs is trusted code until a stranger's
first byte, so it is imported in the open, and nothing is read from a connection before the last layer is on.
No broker stands behind this cell: there is no file in it to ask for.

As in `launcher`: single thread, no way back, every child path ends in ``os._exit``, and the process that the
supervisor started stays outside the process namespace, waits, and passes on how it ended.
"""

from __future__ import annotations

import os
import sys

sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from anchorhold.cell import gateway_filter, launcher, layers  # noqa: E402  (found by the path set above)
from anchorhold.kernel import libc, namespaces, pidfd, seccomp, syscalls  # noqa: E402  (the same)

HANDOVER_FD = launcher.SETUP_FD
CHANNEL_FD = 5
FIRST_EXTRA_FD = 6


class Filter:
    """A filter without a listener: it allows, refuses, or ends the process."""

    name = "seccomp"

    def __init__(self, program: bytes) -> None:
        self.program = program

    def apply(self) -> None:
        seccomp.set_filter(self.program)

    def describe(self) -> str:
        return "no system call but those that serve open connections; making a socket or a process is deadly"


def main() -> None:
    config = launcher.read_config()
    first_free = FIRST_EXTRA_FD + config["extra"]
    close_others(first_free)
    launcher.die_with(config["supervisor"])
    setup = launcher.Setup(HANDOVER_FD)
    entry = prepare(config)

    held: dict[str, str] = {}
    missing: dict[str, str] = {}
    launcher.put_on(layers.Rlimits(config["rlimits"]), held, missing)
    if os.getuid() == 0 and config["user"] is not None and launcher.user_namespaces_work(*config["user"]):
        launcher.put_on(layers.User(*config["user"]), held, missing)
        launcher.die_with(config["supervisor"])
    launcher.enter_namespaces(held, missing)

    alive_read, alive_write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(alive_write)
            become_gateway(config, entry, setup, held, missing, alive_read)
        except BaseException as error:
            launcher.say_error(error)
        finally:
            os._exit(1)
    setup.tell("child", {"pid": str(child)}, (pidfd.pidfd_open(child),))
    for fd in (HANDOVER_FD, CHANNEL_FD, *range(FIRST_EXTRA_FD, first_free), alive_read):
        os.close(fd)
    layers.Capabilities().apply()
    _pid, status = os.waitpid(child, 0)
    os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


def close_others(first: int) -> None:
    """All descriptors from this one on."""
    os.closerange(first, 1 << 16)
    libc.syscall(syscalls.NR["close_range"], first, 0xFFFFFFFF, 0)


def prepare(config: dict):  # type: ignore[no-untyped-def,type-arg]  # as launcher.read_config
    """Import the entry and let it import all that it will need. Everything lives on across the fork."""
    sys.path[:] = config["path"]
    sys.argv[:] = ["gateway"]
    entry = __import__(config["entry"], fromlist=["prepare"])
    entry.prepare(config["gateway"])
    import gc

    gc.collect()
    gc.freeze()  # what is imported is never collected: pages that the waiting parent shares stay shared
    return entry


def become_gateway(config, entry, setup, held: dict[str, str], missing: dict[str, str], alive: int) -> None:  # type: ignore[no-untyped-def]  # as launcher.read_config
    launcher.die_with_parent(alive)
    if "userns" in held:
        # Counted within the user namespace, so it must come after it (user_namespaces(7), since Linux 5.14).
        launcher.put_on(layers.Rlimits({"NPROC": 1}), {}, missing)
    if "utsns" in held:
        try:
            namespaces.sethostname("anchorhold")
        except OSError:  # a service's ProtectHostname= refuses it; uname(2) is not on this filter's list
            held["utsns"] += " (of the same name: it could not be changed)"
    if "mountns" in held:
        launcher.put_on(layers.Root(), held, missing)
    else:
        missing["root"] = "needs a mount namespace"
    if os.getuid() == 0 and config["user"] is not None:
        launcher.put_on(layers.User(*config["user"]), held, missing)
        launcher.die_with_parent(alive)  # a change of user took that off
    os.close(alive)
    launcher.put_on(layers.Capabilities(), held, missing)
    launcher.put_on(layers.NoNewPrivileges(), held, missing)
    launcher.put_on(layers.Landlock(), held, missing)
    launcher.put_on(layers.Dumpable(), held, missing)
    launcher.put_on(layers.Mdwe(), held, missing)
    entry.begin()
    launcher.say_errors_plainly()
    launcher.put_on(Filter(gateway_filter.program(os.getpid())), held, missing)
    words = {f"held.{name}": text for name, text in held.items()}
    words.update({f"missing.{name}": text for name, text in missing.items()})
    setup.tell("cell", words)
    # The other end decides whether that is enough; it says so before it hands over anything.
    if os.read(HANDOVER_FD, 16) != b"serve":
        os._exit(1)
    os._exit(entry.serve(setup.socket.detach(), CHANNEL_FD, FIRST_EXTRA_FD))


if __name__ == "__main__":
    main()
