"""What is seen of policy files and granted folders, with the real inotify."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from anchorhold.policy.schema import DataPolicy, ModelPolicy, Policy
from anchorhold.supervisor.service.watch import Watch


def until(what: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def policy(*read: Path) -> Policy:
    return Policy(name="taxes", model=ModelPolicy("/m.gguf"), data=DataPolicy(read=tuple(map(str, read))))


def test_a_policy_file_that_is_written_or_replaced(tmp_path: Path) -> None:
    changed: list[str] = []
    watch = Watch(changed.append)
    file = tmp_path / "taxes.toml"
    file.write_text("1")
    watch.policy_file(str(file))
    (tmp_path / "other.toml").write_text("x")
    file.write_text("2")
    file.write_text("3")
    assert until(lambda: bool(changed))
    new = tmp_path / "taxes.toml.new"
    new.write_text("4")
    os.rename(new, file)
    assert until(lambda: len(changed) > 1)
    assert set(changed) == {str(file)}, "of the others nothing is told"
    watch.close()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    watch = Watch(lambda path: None)
    watch.policy_file(str(tmp_path / "gone" / "p.toml"))
    assert list(watch.problems) == [str(tmp_path / "gone")]
    documents = watch.data(policy(tmp_path / "nowhere"))
    assert list(documents.as_dict()["unwatched"]) == [str(tmp_path / "nowhere")]
    watch.close()


def test_documents_that_come_change_and_go(tmp_path: Path) -> None:
    watch = Watch(lambda path: None)
    (tmp_path / "old.txt").write_text("old")
    watch.data(policy(tmp_path))
    documents = watch.data(policy(tmp_path))  # in the place of the one before
    (tmp_path / "sub").mkdir()
    (tmp_path / "new.txt").write_text("new")
    (tmp_path / "secret.key").write_text("hidden by the policy")
    with (tmp_path / "old.txt").open("a") as file:
        for _time in range(3):
            file.write("more\n")
            file.flush()
    assert until(lambda: documents.as_dict()["new"] == 1 and documents.as_dict()["changed"] >= 1)
    os.rename(tmp_path / "new.txt", tmp_path / "moved.txt")
    os.unlink(tmp_path / "old.txt")
    assert until(lambda: documents.as_dict()["removed"] == 2 and documents.as_dict()["new"] == 2)
    found = documents.as_dict()
    assert {one["path"] for one in found["newest"]} == {
        str(tmp_path / name) for name in ("new.txt", "moved.txt", "old.txt")
    }
    assert found["unwatched"] == {}
    watch.close()
