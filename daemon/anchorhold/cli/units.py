"""The files that make a policy a service of systemd: what they say, and how they are written and removed.

Constraint: nothing of anybody else's is overwritten or removed. Each file begins with a line that holds the
digest of the rest; what does not match its own line was changed by hand, and stays.
Sources: systemd.unit(5), systemd.exec(5) (quoting: systemd.syntax(7)), sd_listen_fds(3).
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import anchorhold
from anchorhold.errors import PolicyError
from anchorhold.policy.reach import COVERED
from anchorhold.policy.schema import Api, Policy

MARK = "# Written by `anchorhold service install`; sha256 of what follows: "
DROPIN = "50-policy.conf"
PROGRAM = "/usr/bin/anchorhold"
"""What the units name: where the Debian package has it."""

PACKAGED = {False: ("/usr/lib/systemd/system", "/lib/systemd/system"), True: ("/usr/lib/systemd/user",)}
TEMPLATES = (
    "anchorhold@.service",
    "anchorhold@.socket",
    "anchorhold-verify@.service",
    "anchorhold-verify@.timer",
    "anchorhold-alert@.service",
)
POLICIES = "/etc/anchorhold"
STATES = "/var/lib/anchorhold"
USER_NAMESPACES = "/proc/sys/user/max_user_namespaces"
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+@=,~%$")


@dataclass(frozen=True, slots=True)
class File:
    """One file to be written. ``text`` is without the mark."""

    path: str
    text: str
    shared: bool = False
    """Whether other services use it, too."""

    def whole(self) -> str:
        return mark(self.text)


def mark(text: str) -> str:
    """The text with its first line."""
    return f"{MARK}{hashlib.sha256(text.encode()).hexdigest()}\n{text}"


def is_ours(data: str) -> bool:
    """Whether it is as it was written."""
    first, _line, rest = data.partition("\n")
    return first.startswith(MARK) and first[len(MARK) :] == hashlib.sha256(rest.encode()).hexdigest()


def shipped() -> Path:
    """The units: beside the modules of an installed package; in a checkout, at its top."""
    package = Path(anchorhold.__file__).resolve().parent
    inside = package / "systemd"
    if not inside.is_dir() and package.parent.name == "daemon":
        return package.parent.parent / "systemd"
    return inside


def program() -> str:
    """This very program, as a unit can start it."""
    beside = os.path.join(os.path.dirname(sys.executable), "anchorhold")
    if os.path.realpath(PROGRAM) == os.path.realpath(beside):
        return PROGRAM
    if os.access(beside, os.X_OK):
        return word(beside)
    return f"{word(sys.executable)} -m anchorhold"


def word(path: str) -> str:
    """A path as one word of ExecStart=, in quotes (systemd.service(5), COMMAND LINES). Raises PolicyError."""
    plain = _printable(path).replace("%", "%%").replace("$", "$$")
    if all(letter in _PLAIN for letter in plain):
        return plain
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def place(path: str) -> str:
    """A path as one word of BindPaths= and its like, where a colon separates. Raises PolicyError.

    There a backslash takes the meaning from blanks, colons and itself. A quote is lost on the way from the
    manager to its executor, whatever stands before it (systemd 257).
    """
    if "'" in path or '"' in path:
        raise PolicyError(
            f"{path!a} has a quote, which systemd cannot bind",
            hint="Rename it, or serve it in the foreground.",
        )
    plain = _printable(path).replace("%", "%%")
    return "".join("\\" + letter if letter in " :\\" else letter for letter in plain)


def _printable(path: str) -> str:
    """The path. Raises PolicyError where no line of a unit can hold it."""
    if not path.isprintable():
        raise PolicyError(
            f"{path!a} has a character that a unit cannot hold",
            hint="Rename it, or serve it in the foreground.",
        )
    return path


def folder(user: bool) -> str:
    """Where units of one's own go."""
    if not user:
        return "/etc/systemd/system"
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return os.path.join(base if base.startswith("/") else os.path.expanduser("~/.config"), "systemd/user")


def names(policy: str) -> tuple[str, str, str]:
    """What is enabled for one policy."""
    return f"anchorhold@{policy}.service", f"anchorhold@{policy}.socket", f"anchorhold-verify@{policy}.timer"


def files(
    policy: Policy, *, user: bool, token: str | None = None, packaged: bool | None = None
) -> list[File]:
    """Everything to be written for a policy, but for the policy itself.

    token: the file that the service gets as the credential ``token``. packaged: whether the system has the
    templates from a package; None: look.
    """
    into = folder(user)
    if packaged is None:
        packaged = any(os.path.exists(f"{one}/{TEMPLATES[0]}") for one in PACKAGED[user])
    source = shipped() / "user" if user else shipped()
    out = []
    if not packaged:
        out += [File(f"{into}/{name}", (source / name).read_text(), shared=True) for name in TEMPLATES]
        if not user:
            for kind, where in (("sysusers", "sysusers.d"), ("tmpfiles", "tmpfiles.d")):
                text = (source / f"anchorhold.{kind}").read_text()
                out.append(File(f"/etc/{where}/anchorhold.conf", text, shared=True))
    parts = {
        f"anchorhold@{policy.name}.service": _service(policy, user, token),
        f"anchorhold@{policy.name}.socket": _socket(policy, user),
        f"anchorhold-verify@{policy.name}.service": _verify(policy.name, user),
    }
    out += [File(f"{into}/{unit}.d/{DROPIN}", text) for unit, text in parts.items() if text]
    return out


def _service(policy: Policy, user: bool, token: str | None) -> str:
    lines = [
        f"# For the policy {policy.name}. What it names was looked up when this was written: after a change",
        "# of its folders, model or address, run `anchorhold service install` again.",
        "[Service]",
    ]
    source = policy.source if user else f"{POLICIES}/{policy.name}.toml"
    if user or program() != PROGRAM:
        lines += ["ExecStart=", f"ExecStart={program()} serve --policy {word(source or '')}"]
    if policy.limits.swap != 0:
        lines.append("MemorySwapMax=infinity")
    if token is not None:
        lines.append(f"LoadCredential=token:{_printable(token).replace('%', '%%')}")
    if any(copy.startswith("syslog:udp:") for copy in policy.audit.copy):
        lines += ["# [audit] copy sends the log's entries to another machine.", "PrivateNetwork=no",
                  "IPAddressDeny=", "RestrictAddressFamilies=AF_INET AF_INET6"]  # fmt: skip
    if user:
        return "\n".join(lines) + "\n"
    if not _has_user_namespaces():
        lines += ["# This machine gives no user namespace, and the unit's would keep it from starting."]
        lines += ["PrivateUsers=no"]
    hidden = [one.rstrip("/") for one in COVERED[2:] if os.path.isdir(one)]
    lines += [
        "",
        "# Of people's files only those that the policy names are there, read-only.",
        "ProtectHome=tmpfs",
    ]
    lines += [f"TemporaryFileSystem={one}:ro" for one in hidden]
    lines += [f"BindReadOnlyPaths={place(path)}" for path in _bound(policy)]
    writable = [
        target.partition(":")[2] for target in policy.audit.witness if target.startswith(("folder:", "git:"))
    ]
    lines += [f"BindPaths={place(os.path.expanduser(path))}" for path in writable]
    return "\n".join(lines) + "\n"


def _has_user_namespaces() -> bool:
    """Whether root may make one (namespaces(7), /proc/sys/user); where that cannot be read, it may."""
    try:
        return Path(USER_NAMESPACES).read_text().strip() != "0"
    except OSError:
        return True


def _bound(policy: Policy) -> list[str]:
    """The folders, the model, and the program where it lies in a place that the service does not see."""
    found = [*policy.data.read, *policy.data.files, policy.model.path]
    found += [one for one in (policy.api.tls_cert, policy.api.tls_key) if one is not None]
    package = os.path.dirname(os.path.abspath(anchorhold.__file__))
    for one in (sys.prefix, sys.base_prefix, package):
        if (one + "/").startswith(COVERED):
            found.append(one)
    return list(dict.fromkeys(found))


def _socket(policy: Policy, user: bool) -> str:
    listen, group = policy.api.listen, policy.api.group
    lines = []
    if listen is not None and not listen.startswith("unix:"):
        lines += ["ListenStream=", f"ListenStream={listen}"]
        if ipaddress.ip_address(listen.rpartition(":")[0].strip("[]")).is_loopback and not user:
            lines += ["IPAddressDeny=any", "IPAddressAllow=localhost"]
    elif listen not in (None, Api().listen):
        lines += ["ListenStream=", f"ListenStream={_escaped(listen[5:], policy.name)}"]
    if group and (listen is None or listen.startswith("unix:")):
        lines += [f"SocketGroup={group}", "SocketMode=0660"]
    return "\n".join(["[Socket]", *lines]) + "\n" if lines else ""


def _escaped(path: str, name: str) -> str:
    """A Unix socket's path, taken as it is to the end of the line. ``%t`` is systemd's own, ``%n`` is not."""
    path = path.replace("%n", name)
    return "%t" + path[2:].replace("%", "%%") if path.startswith("%t/") else path.replace("%", "%%")


def _verify(name: str, user: bool) -> str:
    if program() == PROGRAM:
        return ""
    lines = ["[Service]", "ExecStart="]
    if user:
        lines.append(f"ExecStart={program()} audit verify")
    else:
        lines.append(f"ExecStart={program()} --state-dir {STATES}/{name} audit verify")
        inside = [one for one in (sys.prefix, sys.base_prefix) if (one + "/").startswith(COVERED)]
        if inside:
            lines.append("ProtectHome=tmpfs")
            lines += [f"BindReadOnlyPaths={place(one)}" for one in dict.fromkeys(inside)]
    return "\n".join(lines) + "\n"
