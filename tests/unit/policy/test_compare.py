"""What a changed policy takes away."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from anchorhold.policy.compare import NARROWER, OTHER, SAME, WIDER, compare
from anchorhold.policy.schema import Api, Breach, DataPolicy, Limits, ModelPolicy, Policy

BASE = Policy(
    name="taxes",
    model=ModelPolicy("/m.gguf"),
    data=DataPolicy(read=("/a", "/b/c"), files=("/x.txt",), deny=("*.key",), max_file=100, hardlinks="deny"),
    limits=Limits(memory=1000, cpu=2.0, tasks=64, wall_clock=60.0),
    breach=Breach("deny", "deny", "deny"),
    require=("seccomp",),
)


def changed(part: str, **values: Any) -> Policy:
    return replace(BASE, **{part: replace(getattr(BASE, part), **values)})


def test_the_same() -> None:
    assert compare(BASE, replace(BASE, source="/elsewhere")) == SAME


@pytest.mark.parametrize(
    "new",
    [
        changed("data", read=("/a",)),
        changed("data", read=("/a", "/b/c/d")),
        changed("data", read=("/a", "/b/cc")),
        changed("data", files=()),
        changed("data", deny=("*.key", "*.pem")),
        changed("data", deny=("*.pem",)),
        changed("data", max_file=99),
        changed("limits", memory=999),
        changed("limits", cpu=1.0),
        changed("limits", tasks=63),
        changed("limits", wall_clock=59.0),
        changed("breach", on_denied_open="kill"),
        changed("breach", on_forbidden_syscall="kill"),
        changed("breach", on_changed_model="kill"),
        changed("limits", heartbeat=59.0),
        replace(BASE, require=("seccomp", "landlock")),
        replace(changed("data", read=("/a",)), model=ModelPolicy("/other.gguf")),
        changed("data", read=("/a", "/z")),
    ],
)
def test_narrower(new: Policy) -> None:
    assert compare(BASE, new) == NARROWER


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"hardlinks": "allow"}, {"hardlinks": "deny"}),
        ({"cross_mounts": True}, {"cross_mounts": False}),
    ],
)
def test_narrower_by_a_word(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert compare(changed("data", **before), changed("data", **after)) == NARROWER
    assert compare(changed("data", **after), changed("data", **before)) == WIDER


def test_a_limit_where_there_was_none() -> None:
    assert compare(changed("limits", memory=None), BASE) == NARROWER
    assert compare(BASE, changed("limits", memory=None)) == WIDER


@pytest.mark.parametrize(
    "new",
    [
        changed("data", read=("/a", "/b")),
        changed("data", read=("/", "/a", "/b/c")),
        changed("data", read=("/a", "/b/c", "/d")),
        changed("data", read=("/a", "/b/c", "/x.txt"), files=()),
        changed("data", deny=()),
        changed("data", max_file=101),
        changed("limits", memory=1001, cpu=None),
        replace(BASE, require=()),
    ],
)
def test_wider(new: Policy) -> None:
    assert compare(BASE, new) == WIDER


@pytest.mark.parametrize(
    "new", [replace(BASE, model=ModelPolicy("/other.gguf")), replace(BASE, api=Api("127.0.0.1:1"))]
)
def test_other(new: Policy) -> None:
    assert compare(BASE, new) == OTHER
