"""The policy that command-line options make, alone or within a policy file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from anchorhold.errors import PolicyError
from anchorhold.policy import checks, places, values
from anchorhold.policy.glob import escape, parse
from anchorhold.policy.match import Matcher
from anchorhold.policy.schema import DataPolicy, ModelPolicy, Policy
from anchorhold.policy.values import Bad, shown

NAME = "command-line"

T = TypeVar("T")


def from_options(
    model: str | None = None,
    data: Iterable[str] = (),
    files: Iterable[str] = (),
    require: Iterable[str] = (),
    base: Policy | None = None,
    state_dir: str | os.PathLike[str] | None = None,
) -> Policy:
    """The policy that command-line options make, alone or within ``base``.

    Within a policy that names folders, options only narrow it: each --data and --file must lie in them. A
    policy without folders leaves them to the options. --file without folders grants that file and nothing
    beside it; with folders it must lie in one of them. --require replaces the default, and adds to a
    policy's own.
    Raises PolicyError naming the option, what is wrong and what is allowed.
    """
    state = checks.state(state_dir)
    policy = base if base is not None else _bare(model)
    given = set(policy.given)
    if model is not None and base is not None:
        policy = replace(policy, model=replace(policy.model, path=_option("--model", model, _model_option)))
        given.add("model.path")
    layers = list(dict.fromkeys(require))
    if layers:
        names = _checked("--require", partial(values.layers, layers))
        kept = policy.require if base is not None else ()
        policy = replace(policy, require=(*kept, *(layer for layer in names if layer not in kept)))
        given.add("require.layers")
    folders = tuple(dict.fromkeys(_option("--data", one, _folder_option) for one in data))
    for folder in folders:
        _checked("--data", partial(places.apart, folder, state))
    if folders:
        policy = replace(policy, data=_narrowed(policy, folders))
        given.add("data.read")
    named = tuple(dict.fromkeys(_option("--file", one, _file_option) for one in files))
    if named and not policy.data.read:
        policy = replace(policy, data=replace(policy.data, files=named))
        given.add("data.files")
    _check_files(policy, named, state)
    return checks.with_memory(replace(policy, given=frozenset(given)))


def _bare(model: str | None) -> Policy:
    path = _option("--model", "demo" if model is None else model, _model_option)
    return Policy(name=NAME, model=ModelPolicy(path=path), given=frozenset({"model.path"} if model else ()))


def _checked(option: str, look: Callable[[], T]) -> T:
    try:
        return look()
    except Bad as error:
        raise PolicyError(f"{option}: {error}", hint=f"Allowed: {error.allowed}.") from None


def _narrowed(policy: Policy, folders: tuple[str, ...]) -> DataPolicy:
    """The data section for these folders alone, with every rule of the policy still in force below them."""
    data, deny = policy.data, policy.data.deny
    if data.read:
        matcher = Matcher(data)
        for folder in folders:
            _check_within(policy, matcher, "--data", folder)
        if not set(folders) <= set(data.read):
            deny = tuple(dict.fromkeys(one for text in deny for one in _from_the_top(text, data.read)))
    data = replace(data, read=folders, deny=deny)
    matcher = Matcher(data)
    for folder in folders:
        _checked("--data", partial(checks.not_denied, matcher, folder))
    return data


def _from_the_top(text: str, roots: Sequence[str]) -> list[str]:
    """An anchored pattern said absolutely, so that it means the same below another folder."""
    pattern = parse(text, places.home())
    if pattern.absolute or (len(pattern.parts) == 2 and pattern.parts[0] == "**"):
        return [text]
    return [f"{escape(root)}/{'/'.join(pattern.parts)}" for root in roots]


def _check_within(policy: Policy, matcher: Matcher, option: str, path: str) -> None:
    decision = matcher.decide(os.fsencode(path))
    if decision.allowed:
        return
    whose = f"policy {shown(policy.name)}" if policy.source else "the --data folders"
    if decision.root < 0:
        roots = ", ".join(shown(root) for root in policy.data.read)
        raise PolicyError(
            f"{option}: {shown(path)} is outside {whose}", hint=f"Allowed: what lies in data.read, {roots}."
        )
    raise PolicyError(
        f"{option}: {shown(path)} is denied by {shown(decision.rule)[1:-1]} of {whose}",
        hint="What a rule denies can be granted only by a policy without that rule (anchorhold policy init).",
    )


def _check_files(policy: Policy, named: tuple[str, ...], state: str) -> None:
    if not named:
        return
    from anchorhold.policy.explain import explain

    matcher = Matcher(policy.data)
    for path in named:
        _check_within(policy, matcher, "--file", path)
        _checked("--file", partial(places.apart, path, state))
        if not policy.data.read:
            _checked("--file", partial(places.one_file, path))
        found = explain(policy, os.fsencode(path))
        if found.outcome == "listing":
            raise PolicyError(f"--file: {shown(path)} is a folder", hint="Name a folder with --data.")
        if found.outcome == "direct":
            raise PolicyError(f"--file: {shown(path)} is the model", hint="Name a document.")
        if found.outcome != "snapshot":
            raise PolicyError(f"--file: {shown(path)}: {found.reason}", hint=found.hint)


def _option(option: str, value: str, reader: Callable[[str], str]) -> str:
    if not value:
        raise PolicyError(f"{option}: the path is empty", hint="Name a path.")
    return _checked(option, partial(reader, value))


def _model_option(value: str) -> str:
    return places.demo_model() if value == "demo" else places.model(_whole(value))


def _folder_option(value: str) -> str:
    return places.folder(_whole(value))


def _file_option(value: str) -> str:
    return _whole(value)


def _whole(value: str) -> str:
    """As the command line's own names are made absolute."""
    return os.path.abspath(os.path.expanduser(value))
