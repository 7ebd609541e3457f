"""Checks that need more than one value: the model's size, rules against folders, the log's own place."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from anchorhold.errors import PolicyError
from anchorhold.policy import places
from anchorhold.policy.glob import parse
from anchorhold.policy.match import Matcher
from anchorhold.policy.schema import MEMORY_BESIDE_MODEL, MIB, Policy
from anchorhold.policy.values import Bad, shown


def state(state_dir: str | os.PathLike[str] | None) -> str:
    """Where the log is. None: where it is by default."""
    return places.state_dir() if state_dir is None else os.path.abspath(os.fspath(state_dir))


def reaches(text: str, roots: Sequence[str]) -> None:
    """An absolute pattern must be able to match something below a root: else it is a mistake. Raises Bad."""
    pattern = parse(text, places.home())
    if not pattern.absolute or not roots:
        return
    fixed = pattern.fixed
    for root in roots:
        parts = tuple(root.strip("/").split("/"))
        if all(one == other for one, other in zip(fixed, parts, strict=False)):
            return
    raise Bad(
        f"{shown(text)} lies in no folder of data.read",
        f"below a folder, a path from it: {shown('./' + text.lstrip('~/'))}",
    )


def not_denied(matcher: Matcher, path: str) -> None:
    decision = matcher.decide(os.fsencode(path))
    if not decision.allowed:
        raise Bad(f"{shown(path)} is denied by {shown(decision.rule)[1:-1]}", "a path that no rule denies")


def with_memory(policy: Policy) -> Policy:
    """Fill in the memory limit that depends on the model's size."""
    if "limits.memory" in policy.given:
        return policy
    try:
        size = os.stat(policy.model.path).st_size
    except OSError as error:
        raise PolicyError(
            f"{shown(policy.model.path)}: {error.strerror}", hint="Name a model file."
        ) from None
    memory = -(-size // MIB) * MIB + MEMORY_BESIDE_MODEL
    return replace(policy, limits=replace(policy.limits, memory=memory))
