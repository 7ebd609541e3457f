"""From a file, or from command-line options, to a checked `Policy`. Every doubt is a PolicyError.

Nothing is guessed: an unknown key is an error, since it may be a misspelt ``deny``. All errors of a file are
found in one go; each names file, line and key, what is wrong and what is allowed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from anchorhold.errors import PolicyError
from anchorhold.policy import api, checks, find, places, values
from anchorhold.policy.match import Matcher
from anchorhold.policy.options import from_options
from anchorhold.policy.schema import (
    DEFAULT_DENY,
    DEFAULT_REQUIRE,
    DEFAULT_TASKS,
    MIB,
    SECTIONS,
    VERSION,
    DataPolicy,
    Policy,
)
from anchorhold.policy.values import Bad, shown

__all__ = ["Problem", "check", "check_text", "from_options", "load"]

THREADS_BESIDE = 8
"""Threads a worker has besides those that compute, rounded up."""

MODEL_WORDS = 'an absolute path ("/…" or "~/…"), or "demo"'
FOLDER_WORDS = 'a list of absolute folders, as ["~/taxes"]'


class Problem:
    """One thing that is wrong in a policy file. Its parts are shown by `policy check --json`."""

    __slots__ = ("allowed", "file", "key", "line", "text")

    def __init__(self, file: str, line: int | None, key: str, text: str, allowed: str) -> None:
        self.file, self.line, self.key, self.text, self.allowed = file, line, key, text, allowed

    def __str__(self) -> str:
        where = shown(self.file)[1:-1] + (f":{self.line}" if self.line else "")
        return ": ".join(part for part in (where, self.key, self.text) if part) + (
            f" (allowed: {self.allowed})" if self.allowed else ""
        )

    def as_dict(self) -> dict[str, object]:
        return {
            "file": self.file,
            "line": self.line,
            "key": self.key,
            "error": self.text,
            "allowed": self.allowed,
        }


def _model_path(value: object) -> str:
    if value == "demo":
        return places.demo_model()
    return places.model(places.absolute(value, MODEL_WORDS))


def _folders(value: object) -> tuple[str, ...]:
    found = values.strings(value, FOLDER_WORDS, lambda one: places.folder(places.absolute(one, FOLDER_WORDS)))
    places.distinct(found)
    return found


Reader = Callable[[object], object]

KEYS: dict[str, dict[str, Reader]] = {
    "model": {
        "path": _model_path,
        "sha256": values.sha256,
        "context": values.integer(256, 1 << 20, "tokens"),
        "threads": values.integer(0, 1024, "0: all that the CPU limit allows"),
    },
    "data": {
        "read": _folders,
        "deny": lambda value: values.deny(places.home())(value),
        "max_file": values.size(1, off=False),
        "cross_mounts": values.boolean,
        "hardlinks": values.one_of("deny", "allow"),
    },
    "limits": {
        "memory": values.size(64 * MIB, off=True),
        "swap": values.size(0, off=True),
        "cpu": values.processors,
        "tasks": values.integer(THREADS_BESIDE + 1, 65536),
        "wall_clock": values.duration,
        "idle": values.duration,
        "heartbeat": values.duration,
    },
    "breach": {
        "on_denied_open": values.one_of("kill", "deny"),
        "on_forbidden_syscall": values.one_of("kill", "deny"),
        "on_changed_model": values.one_of("kill", "deny"),
        "on_missing_heartbeat": values.one_of("kill", "deny"),
        "command": values.program,
        "notify": values.program,
    },
    "audit": {
        "durability": values.one_of("write", "fsync"),
        "prompts": values.one_of("commitment", "text", "none"),
        "witness": values.witnesses,
        "copy": values.copies,
        "copy_names": values.boolean,
        "epoch": values.between(60, 31 * 86_400, "from one minute to 31 days"),
        "epoch_entries": values.integer(1_000, 10_000_000),
    },
    "require": {"layers": values.layers},
    "api": {
        "listen": api.listen,
        "group": api.group,
        "token": values.boolean,
        "hosts": api.hosts,
        "origins": api.origins,
        "tls_cert": api.file,
        "tls_key": api.file,
        "max_body": values.size(1024, off=False, most=16 * MIB),
        "max_tokens": values.integer(1, 1 << 20, "of one answer"),
        "concurrency": values.integer(1, 4096, "open connections"),
        "queue": values.integer(0, 4096, "requests that may wait"),
        "read_timeout": api.seconds,
        "write_timeout": api.seconds,
        "idle_timeout": api.seconds,
    },
    "control": {"group": api.group},
}
REQUIRED = ("version", "name", "model.path")


def load(policy: str | os.PathLike[str], state_dir: str | os.PathLike[str] | None = None) -> Policy:
    """The policy of a file, or of a name that `find` knows. Raises PolicyError with all that is wrong.

    state_dir: where the log is; no folder of the policy may reach it. None: where it is by default.
    """
    file = find.find(os.fspath(policy))
    found, problems = check_text(file, find.read(file), state_dir)
    if found is None:
        raise PolicyError("\n".join(map(str, problems)), hint="Nothing starts until the policy is right.")
    return found


def check(
    policy: str | os.PathLike[str], state_dir: str | os.PathLike[str] | None = None
) -> tuple[Policy | None, list[Problem]]:
    """As `load`, with everything that is wrong as a list instead of an error."""
    file = os.fspath(policy)
    try:
        file = find.find(file)
        text = find.read(file)
    except PolicyError as error:
        return None, [Problem(file, None, "", _without(file, error.message), error.hint)]
    return check_text(file, text, state_dir)


def check_text(
    file: str, text: str, state_dir: str | os.PathLike[str] | None = None
) -> tuple[Policy | None, list[Problem]]:
    """As `check`, for a text that is, or will be, in ``file``."""
    return _File(file, text, checks.state(state_dir)).policy()


def _without(file: str, message: str) -> str:
    """The message without the file's name at its beginning, which a Problem has of its own."""
    return message.removeprefix(shown(file)).removeprefix(":").lstrip()


class _File:
    """One policy file while it is read; problems gather."""

    def __init__(self, file: str, text: str, state: str) -> None:
        self.file = file
        self.text = text
        self.state = state
        self.problems: list[Problem] = []
        self.read: dict[str, dict[str, object]] = {section: {} for section in KEYS}
        self.top: dict[str, object] = {}
        self.lines: Mapping[tuple[str | int, ...], int] | None = None

    def problem(self, key: tuple[str | int, ...], text: str, allowed: str) -> None:
        from anchorhold.policy.lines import line_of, lines

        if self.lines is None:
            self.lines = lines(self.text)
        name = ".".join(
            part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else shown(part)
            for part in key
            if isinstance(part, str)
        )
        self.problems.append(Problem(self.file, line_of(self.lines, key), name, text, allowed))

    def bad(self, key: tuple[str | int, ...], error: Bad) -> None:
        self.problem(key if error.index is None else (*key, error.index), str(error), error.allowed)

    def policy(self) -> tuple[Policy | None, list[Problem]]:
        import tomllib

        try:
            document = tomllib.loads(self.text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            match = re.search(r" \(at line (\d+), column (\d+)\)$", str(error))
            line = int(match[1]) if match else self.text.count("\n") + 1
            words = re.sub(r" \(at [^()]*\)$", "", str(error))
            return None, [Problem(self.file, line, "", f"no TOML: {words}", "")]
        if self._version(document):
            self._take(document)
            self._missing()
            self._places()
        if self.problems:
            self.problems.sort(key=lambda one: one.line or 0)
            return None, self.problems
        return self._build(), []

    def _version(self, document: Mapping[str, object]) -> bool:
        """A file of a later version is not for us: only that is said then."""
        version = document.get("version", VERSION)
        if isinstance(version, int) and not isinstance(version, bool) and version == VERSION:
            return True
        self.problem(("version",), f"{shown(version)} is unknown", str(VERSION))
        return False

    def _take(self, document: Mapping[str, object]) -> None:
        for key, value in document.items():
            if key in KEYS:
                self._section(key, value)
            elif key == "name":
                self._value(self.top, (key,), values.name, value)
            elif key == "version":
                self.top[key] = value
            else:
                self.problem((key,), "unknown key", ", ".join(["version", "name", *KEYS]))

    def _section(self, section: str, value: object) -> None:
        if not isinstance(value, dict):
            self.problem((section,), f"{shown(value)} is no table", f"[{section}] and its keys")
            return
        for key, one in value.items():
            if key in KEYS[section]:
                self._value(self.read[section], (section, key), KEYS[section][key], one)
            else:
                self.problem((section, key), "unknown key", ", ".join(KEYS[section]))

    def _value(self, into: dict[str, object], key: tuple[str, ...], reader: Reader, value: object) -> None:
        try:
            into[key[-1]] = reader(value)
        except Bad as error:
            self.bad(key, error)

    def _missing(self) -> None:
        wrong = {problem.key for problem in self.problems}
        for dotted in REQUIRED:
            *section, key = dotted.split(".")
            there = self.read[section[0]] if section else self.top
            if key not in there and dotted not in wrong and not wrong & set(section):
                self.problem((*section, key), "is missing", MODEL_WORDS if section else _words(key))

    def _places(self) -> None:
        data = self.read["data"]
        roots = _texts(data.get("read"))
        for index, root in enumerate(roots):
            self._try(("data", "read", index), partial(places.apart, root, self.state))
        if "deny" in data:
            for index, pattern in enumerate(_texts(data["deny"])):
                self._try(("data", "deny", index), partial(checks.reaches, pattern, roots))
        matcher = Matcher(
            DataPolicy(read=roots, deny=_texts(data["deny"]) if "deny" in data else DEFAULT_DENY)
        )
        for index, root in enumerate(roots):
            self._try(("data", "read", index), partial(checks.not_denied, matcher, root))
        threads, tasks = self.read["model"].get("threads", 0), self.read["limits"].get("tasks", DEFAULT_TASKS)
        assert isinstance(threads, int) and isinstance(tasks, int)
        if threads + THREADS_BESIDE > tasks:
            text = f"{tasks} is too few for model.threads = {threads}"
            self.problem(("limits", "tasks"), text, f"{threads + THREADS_BESIDE} or more")

        for name, bad in api.together(self.read["api"]):
            self.bad(("api", name), bad)

    def _try(self, key: tuple[str | int, ...], look: Callable[[], None]) -> None:
        try:
            look()
        except Bad as error:
            self.bad(key, error)

    def _build(self) -> Policy:
        layers = self.read["require"].get("layers")
        parts: dict[str, Any] = {section: kind(**self.read[section]) for section, kind in SECTIONS.items()}
        given = {f"{section}.{key}" for section in self.read for key in self.read[section]} | set(self.top)
        policy = Policy(
            name=str(self.top["name"]),
            source=self.file,
            given=frozenset(given),
            require=_texts(layers) if layers is not None else DEFAULT_REQUIRE,
            **parts,
        )
        return checks.with_memory(policy)


def _words(key: str) -> str:
    return str(VERSION) if key == "version" else 'a name for it, as "taxes"'


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(one) for one in value) if isinstance(value, tuple) else ()
