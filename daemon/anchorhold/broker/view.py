"""What the worker may see of the user's data: the policy's roots, opened once, less what is hidden."""

from __future__ import annotations

import errno
import os
import re
import stat

from anchorhold.broker.refusal import Absent, Refusal, outside
from anchorhold.broker.resolve import Root, reopen
from anchorhold.errors import PolicyError
from anchorhold.policy.match import Decision, Matcher
from anchorhold.policy.schema import DataPolicy

_OCTAL = re.compile(rb"\\([0-7]{3})")
DT_DIR = 4
DT_REG = 8


class Found:
    """Something below a root that may be granted: an ``O_PATH`` descriptor of it, and what it is."""

    __slots__ = ("fd", "resolved", "rule", "stat")

    def __init__(self, fd: int, found: os.stat_result, resolved: bytes, rule: str) -> None:
        self.fd, self.stat, self.resolved, self.rule = fd, found, resolved, rule


class Listing:
    """A folder as the worker sees it: names with their type, and what was left out, by reason."""

    __slots__ = ("hidden", "names", "resolved")

    def __init__(self, resolved: bytes) -> None:
        self.resolved = resolved
        self.names: list[tuple[bytes, int]] = []
        self.hidden: list[tuple[bytes, str]] = []


class DataView:
    """Answers for class ``data``. Decides from the path's text first; only then looks at the file system."""

    def __init__(self, policy: DataPolicy) -> None:
        """Opens every root. Raises PolicyError naming the one that cannot be opened."""
        self.policy = policy
        self.matcher = Matcher(policy)
        self.deny_hardlinks = policy.hardlinks == "deny"
        self.roots: list[Root] = []
        for root in self.matcher.roots:
            try:
                opened = Root(root.path, is_file=root.is_file, cross_mounts=policy.cross_mounts)
            except OSError as error:
                self.close()
                raise PolicyError(
                    f"{os.fsdecode(root.path)}: {error.strerror}",
                    hint="Name a folder that this user may enter.",
                ) from None
            self.roots.append(opened)
            if root.is_file:
                self._check_file(root.path)

    def _check_file(self, path: bytes) -> None:
        """A file that was named by the user must be one that can be granted: said before anything starts."""
        shown = os.fsdecode(path)
        try:
            found = self.find(path)
            try:
                os.close(self.open(found))
            finally:
                os.close(found.fd)
        except Absent as error:
            self.close()
            raise PolicyError(
                f"{shown}: {os.strerror(error.errno)}", hint="Name a file that exists."
            ) from None
        except Refusal as refusal:
            self.close()
            raise PolicyError(
                f"{shown}: {refusal.reason}", hint="It cannot be handed to a model as it is."
            ) from None

    def close(self) -> None:
        for root in self.roots:
            root.close()
        self.roots.clear()

    def decide(self, path: bytes) -> Decision:
        """By text alone; no look at the file system."""
        return self.matcher.decide(path)

    def find(self, path: bytes, decision: Decision | None = None) -> Found:
        """What is at a path of the policy. The caller closes ``Found.fd``.

        Raises Absent, or Refusal: outside the roots, denied by a pattern (as asked or as resolved), a link
        out, a mount, a special file, a second name.
        """
        if decision is None:
            decision = self.matcher.decide(path)
        if not decision.allowed:
            raise Refusal(errno.EACCES, decision.rule, breach=True, rule=decision.rule)
        root = self.roots[decision.root]
        index = decision.root
        fd, relative = root.open_path(decision.relative, lambda path: self.matcher.hidden(index, path))
        try:
            if relative != decision.relative:
                rule = self.matcher.hidden(decision.root, relative)
                if rule is not None:
                    raise Refusal(errno.EACCES, f"a link to what {rule} hides", breach=True, rule=rule)
            found = os.fstat(fd)
            self._check_kind(found)
        except BaseException:
            os.close(fd)
            raise
        base = root.real.rstrip(b"/")
        name = root.name if root.is_file else relative
        return Found(fd, found, base + b"/" + name if name else base or b"/", decision.rule)

    def _check_kind(self, found: os.stat_result) -> None:
        if stat.S_ISDIR(found.st_mode):
            return
        if not stat.S_ISREG(found.st_mode):
            raise outside("no regular file")
        if self.deny_hardlinks and found.st_nlink > 1:
            # Not a breach: a backup that links a file while it is read is no act of the worker's.
            reason = f'it has {found.st_nlink} names (data.hardlinks = "deny")'
            raise Refusal(errno.EACCES, reason, breach=False)

    def open(self, found: Found) -> int:
        """A readable descriptor of a regular file within the size limit. Raises Refusal."""
        if found.stat.st_size > self.policy.max_file:
            raise Refusal(
                errno.EFBIG,
                f"{found.stat.st_size} bytes, over data.max_file = {self.policy.max_file}",
                breach=False,
            )
        return reopen(found.fd)

    def list(self, path: bytes) -> Listing:
        """The names in a folder that the worker could open, and why the others are left out.

        Raises Absent, Refusal.
        """
        decision = self.matcher.decide(path)
        folder = self.find(path, decision)
        try:
            if not stat.S_ISDIR(folder.stat.st_mode):
                raise Absent(errno.ENOTDIR)
            listing = Listing(folder.resolved)
            mounted = () if self.policy.cross_mounts else mount_points(folder.resolved)
            handle = reopen(folder.fd)
            try:
                with os.scandir(handle) as entries:
                    for entry in entries:
                        name = os.fsencode(entry.name)
                        # A file of this very file system may be mounted here from elsewhere.
                        device = -1 if name in mounted else folder.stat.st_dev
                        self._list_one(listing, decision, name, entry, device)
            finally:
                os.close(handle)
        finally:
            os.close(folder.fd)
        listing.names.sort()
        return listing

    def _list_one(
        self, listing: Listing, parent: Decision, name: bytes, entry: os.DirEntry[str], device: int
    ) -> None:
        relative = parent.relative + b"/" + name if parent.relative else name
        rule = self.matcher.hidden(parent.root, relative)
        if rule is not None:
            listing.hidden.append((name, rule))
            return
        try:
            found = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(found.st_mode) and found.st_dev == device:
                self._check_kind(found)
                listing.names.append((name, DT_REG))
                return
            # A folder may be a mount point, a link may lead anywhere: look the way a grant would.
            base = self.matcher.roots[parent.root].path.rstrip(b"/")
            target = self.find(base + b"/" + relative)
            os.close(target.fd)
            listing.names.append((name, DT_DIR if stat.S_ISDIR(target.stat.st_mode) else DT_REG))
        except Refusal as refusal:
            listing.hidden.append((name, refusal.reason))
        except (Absent, FileNotFoundError):
            listing.hidden.append((name, "it leads to nothing"))
        except OSError as error:
            listing.hidden.append((name, f"it cannot be looked at: {error.strerror}"))


def mount_points(folder: bytes) -> frozenset[bytes]:
    """The names in a folder on which something is mounted. Source: proc_pid_mountinfo(5)."""
    found = set()
    try:
        with open("/proc/self/mountinfo", "rb") as mounts:
            for line in mounts:
                place = _OCTAL.sub(lambda escape: bytes((int(escape[1], 8),)), line.split(b" ", 5)[4])
                if os.path.dirname(place) == folder:
                    found.add(os.path.basename(place))
    except OSError:
        pass  # what is listed for it is refused when it is opened
    return frozenset(found)
