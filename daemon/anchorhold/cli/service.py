"""``anchorhold service``: a policy as a service of systemd, for the system or for oneself.

Constraint: it writes units and asks systemctl; it starts no worker and opens no log. Where there is no
systemctl the files are written all the same, and it says what is left to do.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import click

from anchorhold.cli import terminal
from anchorhold.cli.options import Unchecked
from anchorhold.cli.output import Notes
from anchorhold.cli.state import resolve
from anchorhold.errors import AnchorholdError, PolicyError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anchorhold.cli.units import File
    from anchorhold.policy.schema import Policy

SYSTEMCTL_SECONDS = 720

_user = click.option("--user", is_flag=True, help="For yourself, without root: a unit of your own manager.")
_root = click.option(
    "--root", "top", metavar="DIR", type=Unchecked(file_okay=False),
    help="Write below DIR, for an image, and ask systemd nothing.",
)  # fmt: skip


@click.group()
def service() -> None:
    """Keep a policy's model running by systemd."""


@service.command()
@_user
@_root
@click.option("--no-start", is_flag=True, help="Enable it, so that it starts with the system, but not now.")
@click.option("--token", is_flag=True, help="Make the token for HTTP here, and hand it over as a credential.")
@click.argument("policy", type=Unchecked())
def install(user: bool, top: str | None, no_start: bool, token: bool, policy: str) -> None:
    """Write the units for POLICY, enable them and start them.

    Nothing is overwritten that was changed by hand. For the system (as root) the policy is copied to
    /etc/anchorhold and runs as the user anchorhold. With --user it stays where it is and runs as yourself.
    """
    from anchorhold.cli import units

    _may_write(user, top)
    found = _load(policy, user)
    secret = _token_file(found, user, top, token)
    wanted = units.files(found, user=user, token=secret)
    extra: list[tuple[str, str, int]] = []
    if not user:
        extra.append((f"{units.POLICIES}/{found.name}.toml", _portable(found), 0o644))
    if secret is not None and not os.path.exists(_below(top, secret)):
        extra.append((secret, base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=") + "\n", 0o600))
    _check(wanted, [(path, text) for path, text, _mode in extra if path != secret], top)
    for path, text, mode in extra:
        _write(_below(top, path), text, mode)
    for file in wanted:
        _write(_below(top, file.path), file.whole(), 0o644)
    if not user and top is None:
        for tool in (["systemd-sysusers"], ["systemd-tmpfiles", "--create"]):
            _call([*tool, "anchorhold.conf"])
        _warn(found)
    start = [] if no_start else ["--now"]
    _systemctl(user, top, [["daemon-reload"], ["enable", *start, *units.names(found.name)]])


@service.command()
@_user
@_root
@click.argument("policy", type=Unchecked())
def uninstall(user: bool, top: str | None, policy: str) -> None:
    """Stop and disable POLICY's units, and remove what install wrote. The log, the policy and its key stay.

    POLICY may also be only the policy's name.
    """
    from anchorhold.cli import units

    _may_write(user, top)
    name = _name(policy, user)
    _systemctl(user, top, [["disable", "--now", *units.names(name)]], may_fail=True)
    into = _below(top, units.folder(user))
    kept = []
    for unit in (*units.names(name), f"anchorhold-verify@{name}.service"):
        kept += _remove(f"{into}/{unit}.d/{units.DROPIN}")
        with contextlib.suppress(OSError):
            os.rmdir(f"{into}/{unit}.d")
    if not _others(into):
        places = [f"{into}/{one}" for one in units.TEMPLATES]
        if not user:
            places += [_below(top, f"/etc/{one}.d/anchorhold.conf") for one in ("sysusers", "tmpfiles")]
        for place in places:
            kept += _remove(place)
    _systemctl(user, top, [["daemon-reload"]], may_fail=True)
    state = resolve(None, os.environ) if user else f"{units.STATES}/{name}"
    click.echo(f"left: the log in {terminal.quote(os.fspath(state))}, and the policy")
    if kept:
        raise AnchorholdError(
            "not removed, since changed by hand: " + ", ".join(map(terminal.quote, kept)),
            hint="Remove them yourself if they are of no more use.",
        )


@service.command()
@_user
@_root
@click.argument("policy", type=Unchecked())
def show(user: bool, top: str | None, policy: str) -> None:
    """Show what install would write for POLICY, file by file, and what is there now."""
    from anchorhold.cli import units

    found = _load(policy, user)
    for file in units.files(found, user=user, token=_token_file(found, user, top, False)):
        there = _read(_below(top, file.path))
        state = "not there" if there is None else "the same" if there == file.whole() else "another version"
        if there is not None and state != "the same" and not units.is_ours(there):
            state = "changed by hand, or not from here"
        click.echo(f"# {terminal.clean(file.path)} ({state})")
        click.echo("" if file.shared else terminal.clean_lines(file.text), nl=not file.shared)


def _may_write(user: bool, top: str | None) -> None:
    if not user and top is None and os.geteuid() != 0:
        raise UsageError(
            "a service of the system needs root", hint="As root, or --user for a service of your own."
        )


def _load(policy: str, user: bool) -> Policy:
    from anchorhold.policy import load

    state = None if user else "/var/lib/anchorhold"
    return load.load(policy, state)


def _name(policy: str, user: bool) -> str:
    """A name as it is; a file's, by what it says."""
    from anchorhold.policy.values import is_name

    return policy if is_name(policy) and not policy.endswith(".toml") else _load(policy, user).name


def _portable(policy: Policy) -> str:
    """The policy's text, if it means the same to another user. Raises PolicyError."""
    import tomllib

    from anchorhold.policy import find

    text = find.read(policy.source or "")
    for dotted, value in _strings("", tomllib.loads(text)):
        if value.startswith("~") and not dotted.startswith("data.deny"):
            raise PolicyError(
                f"{dotted} is {terminal.quote(value)}, and the service's user has another home",
                hint="Write the path without ~ in a policy for the system.",
            )
    return text


def _strings(key: str, value: object) -> Iterable[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, list):
        for one in value:
            yield from _strings(key, one)
    elif isinstance(value, dict):
        for name, one in value.items():
            yield from _strings(f"{key}.{name}" if key else str(name), one)


def _token_file(policy: Policy, user: bool, top: str | None, wanted: bool) -> str | None:
    """Where the token is that systemd hands over: if it is there, or wanted."""
    from anchorhold.cli import units
    from anchorhold.policy import find

    path = os.path.join(find.user_folder() if user else units.POLICIES, f"{policy.name}.token")
    return path if wanted or os.path.exists(_below(top, path)) else None


def _warn(policy: Policy) -> None:
    from anchorhold.policy import reach

    notes = Notes()
    try:
        stops = reach.hindrances(policy, reach.Someone.named(reach.SERVICE_USER))
    except UsageError as error:
        notes.line(f"anchorhold: {error}: systemd-sysusers did not make it")
        return
    for path, where, right in stops:
        if path != policy.source:
            what = terminal.quote(where)
            notes.line(f"anchorhold: {terminal.quote(path)}: the service's user may not {right} {what}")
            notes.line(f"  as root: setfacl -R -m u:{reach.SERVICE_USER}:rX {what}")


# ---- files -------------------------------------------------------------------------------------------


def _below(top: str | None, path: str) -> str:
    return path if top is None else os.path.join(os.path.abspath(top), path.lstrip("/"))


def _read(path: str) -> str | None:
    """The text of a file, or None where there is none. Raises AnchorholdError."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AnchorholdError(f"{terminal.quote(path)}: {error.strerror}") from None


def _check(wanted: list[File], plain: list[tuple[str, str]], top: str | None) -> None:
    """Before anything is written: whether all of it may be. Raises AnchorholdError."""
    from anchorhold.cli import units

    taken = []
    for file in wanted:
        there = _read(_below(top, file.path))
        if there is not None and there != file.whole() and not units.is_ours(there):
            taken.append(file.path)
    for path, text in plain:
        if _read(_below(top, path)) not in (None, text):
            taken.append(path)
    if taken:
        raise AnchorholdError(
            "there already, and not as install would write it: " + ", ".join(map(terminal.quote, taken)),
            hint="Nothing was written. Look at them, and move aside what is not wanted.",
        )


def _write(path: str, text: str, mode: int) -> None:
    """A whole new file, or none. The folders on the way are made."""
    there = _read(path)
    if there == text:
        click.echo(f"unchanged {terminal.quote(path)}")
        return
    new = f"{path}.new{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "w", encoding="utf-8", newline="") as file:
            os.fchmod(fd, mode)
            file.write(text)
        os.rename(new, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise AnchorholdError(f"{terminal.quote(path)} cannot be written: {error.strerror}") from None
    click.echo(f"{'wrote' if there is None else 'rewrote'} {terminal.quote(path)}")


def _remove(path: str) -> list[str]:
    """Remove a file that install wrote. Returns it if it was changed by hand, and stays."""
    from anchorhold.cli import units

    there = _read(path)
    if there is None:
        return []
    if not units.is_ours(there):
        return [path]
    os.unlink(path)
    click.echo(f"removed {terminal.quote(path)}")
    return []


def _others(into: str) -> bool:
    """Whether another policy's drop-in of ours is there, which the shared files serve."""
    from anchorhold.cli import units

    try:
        names = os.listdir(into)
    except OSError:
        return False
    return any(
        name.startswith("anchorhold@") and os.path.exists(f"{into}/{name}/{units.DROPIN}") for name in names
    )


# ---- systemd -----------------------------------------------------------------------------------------


def _systemctl(user: bool, top: str | None, calls: list[list[str]], *, may_fail: bool = False) -> None:
    """Ask it, or say what to ask. Raises AnchorholdError with what it said, unless it may fail."""
    prefix = ["systemctl", *(["--user"] if user else [])]
    if top is not None:
        return
    if shutil.which("systemctl") is None or not os.path.isdir("/run/systemd/system"):
        Notes().line("anchorhold: systemd does not run here. Where it does:")
        for call in calls:
            Notes().line("  " + " ".join([*prefix, *call]))
        return
    for call in calls:
        _call([*prefix, *call], None if may_fail else _fail)


def _fail(command: list[str], said: str) -> None:
    raise AnchorholdError(
        f"{' '.join(command)} failed: {said}", hint="The files are written. systemctl status says more."
    )


def _call(command: list[str], failed: Callable[[list[str], str], None] | None = None) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=SYSTEMCTL_SECONDS, check=False
        )
        code, said = done.returncode, (done.stderr or done.stdout).strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        code, said = 1, str(error)
    if code and failed is not None:
        failed(command, said)
    elif code:
        Notes().line(f"anchorhold: {' '.join(command)}: {terminal.clean_lines(said)}")
