"""Memory, queues and wake-ups that another process could share."""

from __future__ import annotations

import ctypes
import errno
import os

from tests.integration.attacks.common import FOLDER, GRANTED, cstring, memory, syscall, trial

PRIVATE = 0  # IPC_PRIVATE
CREATE = 0o1600
REMOVE = 0  # IPC_RMID


@trial("shared memory", call="shmget")
def _() -> object:
    got = syscall("shmget", PRIVATE, 4096, CREATE)
    if got >= 0:
        syscall("shmctl", got, REMOVE, 0)
    return got >= 0


@trial("shared memory, mapped", call="shmat")
def _() -> object:
    got = syscall("shmget", PRIVATE, 4096, CREATE)
    address = syscall("shmat", max(got, 0), 0, 0)
    if got >= 0:
        syscall("shmctl", got, REMOVE, 0)
    return address > 0


@trial("what shared memory there is", call="shmctl")
def _() -> object:
    return syscall("shmctl", 0, 14, ctypes.create_string_buffer(256)) >= 0  # SHM_INFO


@trial("semaphores", call="semget")
def _() -> object:
    got = syscall("semget", PRIVATE, 1, CREATE)
    if got >= 0:
        syscall("semctl", got, 0, REMOVE, 0)
    return got >= 0


@trial("a message queue", call="msgget")
def _() -> object:
    got = syscall("msgget", PRIVATE, CREATE)
    if got >= 0:
        syscall("msgctl", got, REMOVE, 0)
    return got >= 0


@trial("what message queues there are", call="msgctl")
def _() -> object:
    return syscall("msgctl", 0, 12, ctypes.create_string_buffer(256)) >= 0  # MSG_INFO


@trial("a POSIX message queue", call="mq_open", path="anchorhold-attack")
def _() -> object:
    name = cstring(b"anchorhold-attack")
    got = syscall("mq_open", name, os.O_CREAT | os.O_RDWR, 0o600, 0)
    if got >= 0:
        syscall("mq_unlink", name)
    return got >= 0


@trial("a POSIX message queue, removed", call="mq_unlink")
def _() -> object:
    return syscall("mq_unlink", cstring(b"anchorhold-not-there")) in (0, -errno.ENOENT)


@trial("a file in /dev/shm", call="openat", path="/dev/shm/anchorhold-attack")
def _() -> object:
    fd = os.open("/dev/shm/anchorhold-attack", os.O_CREAT | os.O_RDWR | os.O_EXCL)
    os.unlink("/dev/shm/anchorhold-attack")
    return fd > 0


@trial("an eventfd", call="eventfd2")
def _() -> object:
    return syscall("eventfd2", 0, 0) >= 0


@trial("a signalfd", call="signalfd4")
def _() -> object:
    return syscall("signalfd4", -1, ctypes.create_string_buffer(8), 8, 0) >= 0


@trial("a timerfd", call="timerfd_create")
def _() -> object:
    return syscall("timerfd_create", 1, 0) >= 0


@trial("an epoll")
def _() -> object:
    return syscall("epoll_create1", 0) >= 0


@trial("an inotify", call="inotify_init1")
def _() -> object:
    return syscall("inotify_init1", 0) >= 0


@trial("an inotify watch", call="inotify_add_watch", path=FOLDER)
def _() -> object:
    return syscall("inotify_add_watch", max(0, syscall("inotify_init1", 0)), cstring(FOLDER.encode()), 2) >= 0


@trial(
    "a fanotify", call="fanotify_init", not_shown="without rights only for one's own files, from Linux 5.13"
)
def _() -> object:
    return syscall("fanotify_init", 0x200, 0) >= 0


@trial("a pipe", call="pipe2")
def _() -> object:
    return syscall("pipe2", ctypes.create_string_buffer(8), 0) == 0


@trial("a memory file", call="memfd_create")
def _() -> object:
    return syscall("memfd_create", cstring(b"x"), 0) >= 0


@trial("secret memory", call="memfd_secret", not_shown="switched off in many kernels")
def _() -> object:
    return syscall("memfd_secret", 0) >= 0


@trial("a key", call="add_key")
def _() -> object:
    got = syscall("add_key", cstring(b"user"), cstring(b"anchorhold"), cstring(b"x"), 1, -2)
    return got >= 0


@trial("a key, asked for", call="request_key")
def _() -> object:
    return syscall("request_key", cstring(b"user"), cstring(b"anchorhold-no"), 0, 0) in (0, -errno.ENOKEY)


@trial("a keyring", call="keyctl")
def _() -> object:
    return syscall("keyctl", 0, -2, 1, 0, 0) >= 0  # KEYCTL_GET_KEYRING_ID of the process's own


@trial("asynchronous I/O", call="io_setup")
def _() -> object:
    return syscall("io_setup", 1, (ctypes.c_uint64 * 1)()) == 0


for _name in ("splice", "tee", "vmsplice", "sendfile", "copy_file_range"):

    @trial(_name, call=_name)
    def _(name: str = _name) -> object:
        pipe = (ctypes.c_int * 2)(5, 6)
        other = (ctypes.c_int * 2)(5, 6)
        syscall("pipe2", pipe, 0)
        syscall("pipe2", other, 0)
        vector = (ctypes.c_uint64 * 2)(memory(), 8)
        source = os.open(GRANTED, os.O_RDONLY)
        if name == "vmsplice":
            return syscall(name, pipe[1], vector, 1, 0) == 8
        if name == "tee":
            syscall("vmsplice", pipe[1], vector, 1, 0)
            return syscall(name, pipe[0], other[1], 8, 0) == 8
        if name == "splice":
            return syscall(name, source, 0, pipe[1], 0, 8, 0) == 8
        if name == "sendfile":
            return syscall(name, pipe[1], source, 0, 8) == 8
        target = syscall("memfd_create", cstring(b"x"), 0)
        return syscall(name, source, 0, max(0, target), 0, 8, 0) in (8, -errno.EXDEV)


@trial("descriptors with signals", call="fcntl")
def _() -> object:
    return syscall("fcntl", 0, 8, os.getpid()) == 0  # F_SETOWN


@trial("a lease", call="fcntl", not_shown="only on files that are one's own")
def _() -> object:
    return syscall("fcntl", os.open(GRANTED, os.O_RDONLY), 1024, 0) == 0


@trial("a lock on bytes of a file", call="fcntl")
def _() -> object:
    # struct flock: a read lock on the whole file
    lock = ctypes.create_string_buffer(32)
    return syscall("fcntl", os.open(GRANTED, os.O_RDONLY), 6, lock) == 0
