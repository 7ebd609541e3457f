"""``anchorhold status`` and ``reload``: what runs, by the word of each service and of each cell's record.

A service that does not answer is said to be one; its cells are shown all the same, from what they left for
the kill switch.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import click

from anchorhold.cli.output import Notes
from anchorhold.cli.selection import say
from anchorhold.cli.state import state_dir
from anchorhold.cli.terminal import clean, clean_lines, count, human_size, quote
from anchorhold.errors import AnchorholdError, Interrupted, UsageError, WorkerError

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 2.0
"""How long a service may take to answer."""

LOOK_SECONDS = 0.5
WATCHED = frozenset({"grant", "list", "denial", "breach", "kill", "limit", "request.start", "request.end"})
OURS = frozenset({"runtime", "system", "device"})
EPILOG = """\
States: starting, serving, idle (no model is loaded; the next request brings it back), reloading, frozen,
latched (killed; until `anchorhold rearm`), failed (given up; a reload tries again). A run of ask or chat is
shown as running.

--json: v, policies (as the services tell: name, state, since, policy, model, session, documents, …),
services, cells (what runs without a service), latched.
"""


@click.command(epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--watch", is_flag=True, help="Go on, with accesses as they happen, until Ctrl-C.")
@click.option("--frozen", is_flag=True, help="Only what is frozen.")
@click.argument("name", required=False, metavar="[NAME]")
@click.pass_context
def status(ctx: click.Context, as_json: bool, watch: bool, frozen: bool, name: str | None) -> None:
    """Show what runs, and what it has been shown."""
    if as_json and watch:
        raise UsageError("--json is one object; --watch goes on", hint="anchorhold audit tail -f --json")
    state = state_dir(ctx)
    found = gather(state, name)
    if frozen:
        for key in ("policies", "cells"):
            found[key] = [one for one in found[key] if one["state"] == "frozen"]
    if as_json:
        say(json.dumps(found))
        return
    for line in lines(found):
        say(line)
    if watch:
        _watch(state, name, found)


@click.command()
@click.argument("name", required=False, metavar="[NAME]")
@click.pass_context
def reload(ctx: click.Context, name: str | None) -> None:
    """Let the service read its policies again."""
    from anchorhold.supervisor.service.control import ask

    done: dict[str, str] = {}
    for runtime in _services(state_dir(ctx)):
        try:
            done.update(ask(runtime, "reload", name))
        except (ConnectionError, FileNotFoundError):
            continue
    if not done:
        raise WorkerError("no service answers", hint="anchorhold status shows what runs.")
    for each, what in done.items():
        say(clean(f"{each}: {what}"))
    if any(what.startswith("refused") for what in done.values()):
        raise AnchorholdError("a policy was refused; the old one goes on")


def _services(state: Path) -> list[str]:
    """Runtime directories with a control socket that this user can see."""
    from anchorhold.supervisor.service.control import path_of
    from anchorhold.switch import places

    return [folder for folder in places.candidates(os.fspath(state)) if os.path.exists(path_of(folder))]


def gather(state: Path, name: str | None = None) -> dict[str, Any]:
    """Everything that is known, as ``--json`` prints it."""
    from anchorhold.supervisor.service.control import ask
    from anchorhold.switch import latch

    found: dict[str, Any] = {"v": 1, "policies": [], "services": [], "cells": [], "latched": []}
    for runtime in _services(state):
        try:
            answer = ask(runtime, "status", seconds=SECONDS)
        except (ConnectionError, FileNotFoundError):
            continue  # a socket that a killed service left
        except (WorkerError, OSError) as error:
            found["services"].append({"runtime_dir": runtime, "problem": str(error)})
            continue
        found["services"].append(answer["service"])
        found["policies"] += [one for one in answer["policies"] if name in (None, one["name"])]
    found["cells"] = _cells(state, name, {one["pid"] for one in found["services"] if "pid" in one})
    try:
        found["latched"] = latch.held(os.fspath(state))
    except OSError as error:
        found["latched_problem"] = error.strerror
    return found


def _cells(state: Path, name: str | None, services: set[int]) -> list[dict[str, Any]]:
    """What runs without a service that answered."""
    from anchorhold.switch import places, processes, records
    from anchorhold.switch.cells import Cell

    found = []
    for folder in places.candidates(os.fspath(state)):
        for record in records.in_folder(folder):
            if record.number("supervisor") in services or name not in (None, record.name):
                continue
            cell = Cell(record)
            cell.find(set())
            if cell.alive:
                worker = processes.stat_of(record.number("worker"))
                group = record.cgroup
                still = (worker is not None and worker[0] == "T") or (
                    group.endswith(f"/anchorhold-{record.session}") and processes.frozen(group)
                )
                found.append({
                    "name": record.name, "session": record.session, "state": "frozen" if still else "running",
                    "supervisor": record.number("supervisor"), "supervised": cell.supervised,
                    "worker": record.number("worker"), "state_dir": record.state,
                })  # fmt: skip
            cell.close()
    return found


def lines(found: dict[str, Any]) -> list[str]:
    """The same for people. Text from files and workers is made safe."""
    out: list[str] = []
    for one in found["policies"]:
        out += _policy(one)
    for cell in found["cells"]:
        whose = "" if cell["supervised"] else ", its supervisor is gone"
        out.append(clean(f"{cell['name']}: {cell['state']} (session {cell['session']}{whose})"))
    for service in found["services"]:
        if "problem" in service:
            out.append(clean(f"the service at {service['runtime_dir']} {service['problem']}"))
        elif service["gateway"] is False:
            out.append("the gateway is down; it is started again")
    for name in found["latched"]:
        what = "everything" if name == "*" else clean(name)
        rearm = "" if name == "*" else f" {clean(name)}"
        out.append(f"latched: {what} (anchorhold rearm{rearm})")
    return out or ["nothing runs"]


def _policy(one: dict[str, Any]) -> list[str]:
    out = [f"{clean(one['name'])}: {one['state']} since {_time(one['since'])}"]

    def add(what: str, text: str) -> None:
        out.append(f"  {what:10} {clean_lines(text)}")

    add("model", quote(one["model"]["path"]))
    if one["listen"]:
        add("listens at", str(one["listen"]))
    session = one["session"]
    if session is not None:
        add("session", f"{session['name']}, {session['phase']}")
        add("layers", ", ".join(session["layers"]) or "none yet")
        if session["missing"]:
            add("missing", ", ".join(session["missing"]))
        used = []
        if session["memory"] is not None:
            own, whole = human_size(session["memory"]), human_size(session["mapped"] or 0)
            used.append(f"{own} its own, {whole} with the model")
        if session["cpu_seconds"] is not None:
            used.append(f"{session['cpu_seconds']:.1f} s of processor")
        if used:
            add("uses", ", ".join(used))
        shown = session["exposure"]
        add("was shown", f"{count(shown['files'], 'file')}, {human_size(shown['bytes'])}")
        add("refused", count(session["refused"], "request") if session["refused"] else "nothing")
    add(
        "answered",
        f"{count(one['served'], 'request')}; {one['waiting']} waiting; {count(one['restarts'], 'restart')}",
    )
    documents = one["documents"]
    if documents and any(documents[key] for key in ("new", "changed", "removed")):
        add(
            "documents",
            f"{documents['new']} new, {documents['changed']} changed, {documents['removed']} removed",
        )
    if documents and documents["unwatched"]:
        add("unwatched", ", ".join(quote(path) for path in documents["unwatched"]))
    if one["error"]:
        add("error", one["error"])
    if one["policy"]["problem"]:
        add("refused", f"the changed policy: {one['policy']['problem']}")
    return out


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _watch(state: Path, name: str | None, found: dict[str, Any]) -> None:
    from anchorhold.audit.query import entries, log_mark, log_size
    from anchorhold.cli.rows import Rows
    from anchorhold.cli.signals import stdout_is_closed
    from anchorhold.cli.tail import Shown

    notes = Notes()
    shown = Shown(log_size(state))
    for entry in entries(state, first=shown.following):
        shown.add(entry)
    states = {one["name"]: one["state"] for one in found["policies"]}
    mark: tuple[object, ...] = ()
    try:
        with Rows() as rows:
            while True:
                rows.flush(through=True)
                if stdout_is_closed():
                    raise Interrupted("")
                time.sleep(LOOK_SECONDS)
                now = {one["name"]: one["state"] for one in gather(state, name)["policies"]}
                for each in sorted(now.keys() | states.keys()):
                    if now.get(each) != states.get(each):
                        notes.line(clean(f"{each}: {now.get(each, 'gone')}"))
                states = now
                here = log_mark(state)
                if here == mark:
                    continue
                mark = here
                for entry in entries(state, first=shown.following):
                    if shown.add(entry) and entry.get("kind") in WATCHED and entry.get("class") not in OURS:
                        rows.write(entry)
    except KeyboardInterrupt:
        raise Interrupted("") from None
