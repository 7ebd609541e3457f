"""Who is at the other end of a Unix socket, and whether it may speak there.

Constraint: by the kernel's word alone, before a byte is read. One place decides this for the control socket
and for the API. Source: unix(7), SO_PEERCRED.
"""

from __future__ import annotations

import os
import socket
import struct

_UCRED = struct.Struct("iII")


class Peer:
    """Who is at the other end, by the kernel's word."""

    __slots__ = ("gid", "pid", "uid")

    def __init__(self, pid: int, uid: int, gid: int) -> None:
        self.pid, self.uid, self.gid = pid, uid, gid

    @classmethod
    def of(cls, connection: socket.socket) -> Peer:
        """Raises OSError."""
        data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        return cls(*_UCRED.unpack(data))

    def may(self, group: str | None) -> bool:
        """Whether it is root, this user, or a member of the group."""
        return self.uid in (0, os.geteuid()) or (group is not None and self._is_member(group))

    def _is_member(self, group: str) -> bool:
        import grp
        import pwd

        try:
            found = grp.getgrnam(group)
            if self.gid == found.gr_gid:
                return True
            user = pwd.getpwuid(self.uid)
            return found.gr_gid in os.getgrouplist(user.pw_name, user.pw_gid)
        except (KeyError, OSError):
            return False
