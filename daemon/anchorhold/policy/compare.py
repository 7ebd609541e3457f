"""What a changed policy takes away from the one before it.

Constraint: in doubt, it takes something away. A worker that keeps what the new policy no longer grants would
be worse than one that is started anew without need.
"""

from __future__ import annotations

from anchorhold.policy.schema import BREACHES, DataPolicy, Limits, Policy

SAME, WIDER, NARROWER, OTHER = "same", "wider", "narrower", "other"


def compare(old: Policy, new: Policy) -> str:
    """`SAME`; `WIDER`: all that was allowed still is; `NARROWER`: something is not any more; `OTHER`: what is
    granted is the same, and the model or how it is run is not."""
    if old == new:
        return SAME
    if _takes_data(old.data, new.data) or _takes_room(old.limits, new.limits) or _is_stricter(old, new):
        return NARROWER
    return OTHER if (old.model, old.api, old.audit) != (new.model, new.api, new.audit) else WIDER


def _takes_data(old: DataPolicy, new: DataPolicy) -> bool:
    return (
        any(not _covered(root, new.read) for root in old.read)
        or any(file not in new.files and not _covered(file, new.read) for file in old.files)
        or bool(set(new.deny) - set(old.deny))
        or new.max_file < old.max_file
        or (old.cross_mounts and not new.cross_mounts)
        or (old.hardlinks == "allow" and new.hardlinks == "deny")
    )


def _covered(path: str, roots: tuple[str, ...]) -> bool:
    return any(path == root or path.startswith(root.rstrip("/") + "/") for root in roots)


def _takes_room(old: Limits, new: Limits) -> bool:
    def less(before: float | None, after: float | None) -> bool:
        return after is not None and (before is None or after < before)

    return (
        less(old.memory, new.memory)
        or less(old.swap, new.swap)
        or less(old.cpu, new.cpu)
        or new.tasks < old.tasks
        or less(old.wall_clock, new.wall_clock)
        or less(old.heartbeat, new.heartbeat)
    )


def _is_stricter(old: Policy, new: Policy) -> bool:
    stricter = any(getattr(old.breach, key) == "deny" != getattr(new.breach, key) for key in BREACHES)
    return stricter or bool(set(new.require) - set(old.require))
