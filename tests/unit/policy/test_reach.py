"""Who may enter what: against the kernel's own answer, given by a process that is that user."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from anchorhold.errors import UsageError
from anchorhold.policy import reach
from anchorhold.policy.reach import Someone, hindrance
from tests.support import UID, Runner

STRANGER = Someone("stranger", UID, frozenset({UID}))


def acl(path: Path, *entries: tuple[int, int, int]) -> None:
    """An access control list, with the entries that every list has."""
    every = [(reach.ACL_USER_OBJ, 7, 0xFFFFFFFF), *entries, (reach.ACL_GROUP_OBJ, 0, 0xFFFFFFFF)]
    every += [(reach.ACL_OTHER, 0, 0xFFFFFFFF)]
    if all(tag != reach.ACL_MASK for tag, _bits, _id in every):
        every.append((reach.ACL_MASK, 7, 0xFFFFFFFF))
    raw = struct.pack("<I", reach.ACL_VERSION) + b"".join(struct.pack("<HHI", *one) for one in sorted(every))
    os.setxattr(path, reach.ACL, raw)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs files of several owners")
@pytest.mark.parametrize(
    "kind", ["open", "closed", "group", "user entry", "masked", "group entry", "other only", "own"]
)
def test_as_the_kernel_says(open_tmp: Path, unprivileged: Runner, kind: str) -> None:
    os.chown(open_tmp, 0, 0)
    open_tmp.chmod(0o755)
    folder = open_tmp / "folder"
    folder.mkdir()
    (folder / "file").write_text("x")
    (folder / "file").chmod(0o644)
    folder.chmod(0o700)
    if kind == "open":
        folder.chmod(0o755)
    elif kind == "group":
        os.chown(folder, 0, UID)
        folder.chmod(0o750)
    elif kind == "other only":  # of the group it owns, it has not what others have
        os.chown(folder, 0, UID)
        folder.chmod(0o705)
    elif kind == "own":
        os.chown(folder, UID, 0)
        folder.chmod(0o077)
    elif kind == "user entry":
        acl(folder, (reach.ACL_USER, 5, UID))
    elif kind == "masked":
        acl(folder, (reach.ACL_USER, 5, UID), (reach.ACL_MASK, 4, 0xFFFFFFFF))
    elif kind == "group entry":
        acl(folder, (reach.ACL_GROUP, 1, UID))
    found = hindrance(str(folder / "file"), STRANGER)
    said = unprivileged("cat", folder / "file")
    assert (found is None) == (said.returncode == 0), (found, said.stderr)
    assert found in (None, (str(folder), "enter"))


def test_the_first_thing_in_the_way_is_named(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    for one in (tmp_path, *list(tmp_path.parents)[:-2]):
        if os.stat(one).st_uid == os.geteuid() and one != Path("/tmp"):
            one.chmod(one.stat().st_mode | 0o055)
    inner.chmod(0o711)
    assert hindrance(str(inner), STRANGER) == (str(inner), "read")
    inner.chmod(0o744)
    assert hindrance(str(inner), STRANGER) == (str(inner), "enter")
    inner.chmod(0o755)
    assert hindrance(str(inner), STRANGER) is None
    (tmp_path / "a").chmod(0o700)
    assert hindrance(str(inner), STRANGER) == (str(tmp_path / "a"), "enter")
    (tmp_path / "link").symlink_to(inner)
    assert hindrance(str(tmp_path / "link"), STRANGER) == (str(tmp_path / "a"), "enter")
    assert hindrance(str(inner), Someone("root", 0, frozenset())) is None


def test_the_service_comes_to_a_bound_folder_by_a_way_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "COVERED", (f"{tmp_path}/",))
    inner = tmp_path / "closed" / "docs"
    inner.mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)
    inner.chmod(0o755)
    assert hindrance(str(inner), Someone(reach.SERVICE_USER, UID, frozenset())) is None
    assert hindrance(str(inner), STRANGER) is not None
    inner.chmod(0o700)
    assert hindrance(str(inner), Someone(reach.SERVICE_USER, UID, frozenset())) == (str(inner), "read")


def test_a_user_by_name() -> None:
    assert Someone.named("root").uid == 0
    with pytest.raises(UsageError):
        Someone.named("no-such-user-here")
