"""Whether another user can get at what a policy names, and if not, at which directory the way ends.

For a service that runs as a user of its own: whoever writes the policy can read the files, the service may
not. Computed from modes and access control lists, so that it needs no right to become that user. It is advice
for a person: the broker opens everything itself.
Sources: path_resolution(7), acl(5), linux/posix_acl_xattr.h.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
import struct
from collections.abc import Iterator

from anchorhold.errors import UsageError
from anchorhold.policy.schema import Policy

READ, ENTER = 4, 1

SERVICE_USER = "anchorhold"
"""Of the system's units (systemd/anchorhold.sysusers)."""

COVERED = ("/home/", "/root/", "/srv/", "/mnt/", "/media/")
"""Empty for that service but for what `anchorhold service install` binds there: the way to it is open."""

ACL = "system.posix_acl_access"
ACL_VERSION = 2
ACL_USER_OBJ, ACL_USER, ACL_GROUP_OBJ, ACL_GROUP, ACL_MASK, ACL_OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_ENTRY = struct.Struct("<HHI")  # tag, permissions, id


class Someone:
    """A user as the kernel sees a process of his: number and groups."""

    __slots__ = ("groups", "name", "uid")

    def __init__(self, name: str, uid: int, groups: frozenset[int]) -> None:
        self.name, self.uid, self.groups = name, uid, groups

    @classmethod
    def named(cls, name: str) -> Someone:
        """Raises UsageError if there is no such user here."""
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            raise UsageError(
                f"there is no user {name!a} here", hint="The service's user is made when it is installed."
            ) from None
        groups = {one.gr_gid for one in grp.getgrall() if name in one.gr_mem}
        return cls(name, found.pw_uid, frozenset(groups | {found.pw_gid}))


def hindrance(path: str, who: Someone) -> tuple[str, str] | None:
    """The first thing on the way to ``path`` that keeps ``who`` out, and the right that is missing.

    None: nothing does. path: absolute. The way is that of the real path, after all links. Raises OSError for
    what this process cannot look at itself.
    """
    real = os.path.realpath(path)
    covered = COVERED if who.name == SERVICE_USER else ()
    for one in () if (real + "/").startswith(covered) else _way(real):
        if not _may(one, ENTER, who):
            return one, "enter"
    found = os.stat(real)
    if not _may(real, READ, who):
        return real, "read"
    if stat.S_ISDIR(found.st_mode) and not _may(real, ENTER, who):
        return real, "enter"
    return None


def hindrances(policy: Policy, who: Someone) -> list[tuple[str, str, str]]:
    """(path of the policy, where the way ends, missing right) for each that cannot be reached.

    The folders themselves, not each file below: what is below is the folder's own business, and the log's.
    """
    found = []
    for path in (policy.model.path, *policy.data.read, *policy.data.files, *filter(None, (policy.source,))):
        try:
            stopped = hindrance(path, who)
        except OSError as error:
            stopped = (error.filename or path, "look at")
        if stopped is not None:
            found.append((path, *stopped))
    return found


def _way(real: str) -> Iterator[str]:
    """Every directory above it, from the top."""
    parts = real.strip("/").split("/")[:-1]
    yield "/"
    for number in range(len(parts)):
        yield "/" + "/".join(parts[: number + 1])


def _may(path: str, right: int, who: Someone) -> bool:
    """acl(5), ACCESS CHECK ALGORITHM; without a list, the mode is one of three entries."""
    if who.uid == 0:
        return True
    found = os.stat(path)
    if found.st_uid == who.uid:
        return bool(found.st_mode >> 6 & right)
    entries = _entries(path, found)
    mask = next((permissions for tag, permissions, _id in entries if tag == ACL_MASK), 7)
    for tag, permissions, number in entries:
        if tag == ACL_USER and number == who.uid:
            return bool(permissions & mask & right)
    groups = [
        permissions
        for tag, permissions, number in entries
        if (tag == ACL_GROUP_OBJ and found.st_gid in who.groups)
        or (tag == ACL_GROUP and number in who.groups)
    ]
    if groups:
        return any(permissions & mask & right for permissions in groups)
    return any(tag == ACL_OTHER and permissions & right for tag, permissions, _id in entries)


def _entries(path: str, found: os.stat_result) -> list[tuple[int, int, int]]:
    try:
        raw = os.getxattr(path, ACL)
    except OSError:  # none, or a file system without
        raw = b""
    if len(raw) >= 4 and struct.unpack_from("<I", raw)[0] == ACL_VERSION:
        return [
            entry for entry in _ENTRY.iter_unpack(raw[4 : 4 + (len(raw) - 4) // _ENTRY.size * _ENTRY.size])
        ]
    return [(ACL_GROUP_OBJ, found.st_mode >> 3 & 7, 0), (ACL_OTHER, found.st_mode & 7, 0)]
