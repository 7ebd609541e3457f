"""Every way to another program or machine that is made of a socket."""

from __future__ import annotations

import ctypes
import errno
import os

from tests.integration.attacks.common import memory, syscall, trial

# By number, as <linux/socket.h> has them; those that hardly any kernel has are tried all the same.
_NAMES = (
    "UNIX=1 INET=2 AX25=3 IPX=4 APPLETALK=5 NETROM=6 BRIDGE=7 ATMPVC=8 X25=9 INET6=10 ROSE=11 DECNET=12 "
    "NETBEUI=13 SECURITY=14 KEY=15 NETLINK=16 PACKET=17 ASH=18 ECONET=19 ATMSVC=20 RDS=21 SNA=22 IRDA=23 "
    "PPPOX=24 WANPIPE=25 LLC=26 IB=27 MPLS=28 CAN=29 TIPC=30 BLUETOOTH=31 IUCV=32 RXRPC=33 ISDN=34 PHONET=35 "
    "IEEE802154=36 CAIF=37 ALG=38 NFC=39 VSOCK=40 KCM=41 QIPCRTR=42 SMC=43 XDP=44 MCTP=45"
)
FAMILIES = {"AF_" + name: int(number) for name, number in (item.split("=") for item in _NAMES.split())}
KINDS = {"stream": 1, "dgram": 2, "raw": 3, "seqpacket": 5}
SURE = {  # what every kernel that the tests run on has
    ("AF_UNIX", "stream"), ("AF_UNIX", "dgram"), ("AF_UNIX", "seqpacket"), ("AF_INET", "stream"),
    ("AF_INET", "dgram"), ("AF_INET6", "stream"), ("AF_INET6", "dgram"), ("AF_NETLINK", "raw"),
    ("AF_NETLINK", "dgram"),
}  # fmt: skip

for _family, _number in FAMILIES.items():
    for _kind, _type in KINDS.items():

        @trial(
            f"a socket of {_family}, {_kind}",
            call="socket",
            not_shown="" if (_family, _kind) in SURE else "not in every kernel, or not of this kind",
        )
        def _(number: int = _number, kind: int = _type) -> object:
            got = syscall("socket", number, kind, 0)
            if got >= 0:
                os.close(got)
            # Any other answer of the kernel's own is reach too: it was asked.
            return got >= 0 or -got in (errno.EAFNOSUPPORT, errno.ESOCKTNOSUPPORT, errno.EPROTONOSUPPORT)


@trial("a pair of sockets", call="socketpair")
def _() -> object:
    return syscall("socketpair", 1, 1, 0, ctypes.create_string_buffer(8)) == 0


def _loopback(port: int) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(
        (2).to_bytes(2, "little") + port.to_bytes(2, "big") + b"\x7f\0\0\1" + bytes(8), 16
    )


def _socket(kind: int = 1) -> int:
    """A socket of its own; where it cannot have one, the channel's descriptor takes its place."""
    got = syscall("socket", 2, kind, 0)
    return got if got >= 0 else 5


@trial("bind", call="bind")
def _() -> object:
    return syscall("bind", _socket(), _loopback(0), 16) == 0


@trial("listen", call="listen")
def _() -> object:
    fd = _socket()
    syscall("bind", fd, _loopback(0), 16)
    return syscall("listen", fd, 1) == 0


@trial("connect", call="connect")
def _() -> object:
    # Nobody listens in the control's network namespace, whose loopback is down: to be told so is reach.
    return syscall("connect", _socket(2), _loopback(9), 16) in (0, -errno.ENETUNREACH)


@trial("sendto with MSG_FASTOPEN", call="sendto")
def _() -> object:
    got = syscall("sendto", _socket(), ctypes.create_string_buffer(b"x"), 1, 0x20000000, _loopback(9), 16)
    return got in (1, -errno.ENETUNREACH, -errno.EINPROGRESS, -errno.ECONNREFUSED, -errno.EOPNOTSUPP)


@trial("sendmsg", call="sendmsg")
def _() -> object:
    # struct msghdr of nothing at all, to nobody: a socket says that it is not connected.
    return syscall("sendmsg", _socket(), ctypes.create_string_buffer(56), 0) in (
        0,
        -errno.EPIPE,
        -errno.ENOTCONN,
    )


@trial("sendmmsg", call="sendmmsg")
def _() -> object:
    return syscall("sendmmsg", _socket(), ctypes.create_string_buffer(64), 0, 0) == 0


@trial("recvfrom", call="recvfrom")
def _() -> object:
    got = syscall("recvfrom", _socket(), memory(), 16, 0x40, 0, 0)
    return got in (0, -errno.ENOTCONN, -errno.EAGAIN)


@trial("recvmsg", call="recvmsg")
def _() -> object:
    return syscall("recvmsg", _socket(), ctypes.create_string_buffer(56), 0x40) in (0, -errno.ENOTCONN)


@trial("recvmmsg", call="recvmmsg")
def _() -> object:
    return syscall("recvmmsg", _socket(), ctypes.create_string_buffer(64), 0, 0x40, 0) == 0


@trial("accept4", call="accept4")
def _() -> object:
    fd = syscall("socket", 2, 1 | 0o4000, 0)  # non-blocking, so that it answers at once
    fd = fd if fd >= 0 else 5
    syscall("bind", fd, _loopback(0), 16)
    syscall("listen", fd, 1)
    return syscall("accept4", fd, 0, 0, 0) == -errno.EAGAIN


for _name in ("getsockname", "getpeername", "shutdown", "setsockopt", "getsockopt"):

    @trial(_name, call=_name)
    def _(name: str = _name) -> object:
        buffer, size = ctypes.create_string_buffer(128), (ctypes.c_uint32 * 1)(128)
        fd = _socket(2)
        if name == "shutdown":
            return syscall(name, fd, 2) in (0, -errno.ENOTCONN)
        if name == "setsockopt":
            return syscall(name, fd, 1, 2, (ctypes.c_int * 1)(1), 4) == 0
        if name == "getsockopt":
            return syscall(name, fd, 1, 3, buffer, size) == 0
        return syscall(name, fd, buffer, size) in (0, -errno.ENOTCONN)


@trial("an io_uring", call="io_uring_setup")
def _() -> object:
    return syscall("io_uring_setup", 4, ctypes.create_string_buffer(120)) >= 0


for _name in ("io_uring_enter", "io_uring_register"):

    @trial(_name, call=_name)
    def _(name: str = _name) -> object:
        fd = syscall("io_uring_setup", 4, ctypes.create_string_buffer(120))
        if name == "io_uring_enter":
            return syscall(name, max(fd, 5), 0, 0, 0, 0, 0) == 0
        # IORING_REGISTER_PROBE
        return syscall(name, max(fd, 5), 8, ctypes.create_string_buffer(16 + 64 * 8), 64) == 0
