"""A policy as TOML: the effective one, its defaults marked, and the commented file that `init` writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from anchorhold.errors import PolicyError
from anchorhold.policy import places
from anchorhold.policy.schema import DEFAULT_DENY, SECTIONS, VERSION, Policy
from anchorhold.policy.values import shown

SIZES = frozenset({"data.max_file", "limits.memory", "limits.swap", "api.max_body"})
DURATIONS = frozenset(
    {
        "limits.wall_clock",
        "limits.idle",
        "limits.heartbeat",
        "audit.epoch",
        "api.read_timeout",
        "api.write_timeout",
        "api.idle_timeout",
    }
)
UNSET = frozenset({"model.sha256", "api.group", "api.tls_cert", "api.tls_key", "control.group"})

WIDTH = 100


def effective(policy: Policy) -> str:
    """The policy as a file that says everything; what it did not say itself is marked ``# default``."""
    out = [f"version = {VERSION}", _line("name", policy.name, "name" in policy.given)]
    for section in ("model", "data", "limits", "breach", "audit", "require", "api", "control"):
        out += ["", f"[{section}]"]
        if section == "require":
            out.append(_line("layers", policy.require, "require.layers" in policy.given))
            continue
        part = getattr(policy, section)
        for one in fields(SECTIONS[section]):
            out.append(_key(policy, section, one.name, getattr(part, one.name)))
    return "\n".join(out) + "\n"


def _key(policy: Policy, section: str, key: str, value: object) -> str:
    dotted = f"{section}.{key}"
    if dotted == "data.files":
        # There is no such key: single files are granted on the command line only.
        return (
            "\n".join(f"# and the single file {string(str(one))}" for one in policy.data.files)
            or "# no single file"
        )
    if dotted in UNSET and value is None:
        return f"# {key} is not set"
    if dotted in SIZES:
        value = "off" if value is None else size(value)
    elif dotted in DURATIONS:
        value = "off" if value is None else f"{value:.0f}s"
    elif value is None:
        value = "off"
    return _line(key, value, dotted in policy.given)


def _line(key: str, value: object, given: bool) -> str:
    mark = "" if given else "  # default"
    if isinstance(value, tuple):
        one = f"{key} = [{', '.join(string(item) for item in value)}]"
        if len(one) + len(mark) <= WIDTH:
            return one + mark
        return "\n".join([f"{key} = [{mark}", *(f"    {string(item)}," for item in value), "]"])
    if isinstance(value, bool):
        text = "true" if value else "false"
    else:
        text = string(value) if isinstance(value, str) else repr(value)
    return f"{key} = {text}{mark}"


def size(value: object) -> str:
    """Bytes in the largest unit that divides them."""
    assert isinstance(value, int)
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if value and value % (1 << power) == 0:
            return f"{value >> power}{unit}"
    return str(value)


def string(text: str) -> str:
    """A TOML basic string, harmless on a terminal. TOML refuses bytes that are no UTF-8."""
    out = []
    for letter in text:
        if letter in '"\\':
            out.append("\\" + letter)
        elif letter.isprintable():
            out.append(letter)
        else:
            code = ord(letter)
            out.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return '"' + "".join(out) + '"'


def template(name: str, folders: Sequence[str], model: str) -> str:
    """The file that `policy init` writes. Raises PolicyError for a path that TOML cannot say."""
    for path in (*folders, model):
        try:
            path.encode()
        except UnicodeEncodeError:
            raise PolicyError(
                f"{shown(path)} is no UTF-8", hint="TOML can name such a path by no means."
            ) from None
    read = "\n".join(f"    {string(_short(folder))}," for folder in folders)
    deny = _wrapped(DEFAULT_DENY)
    return TEMPLATE.format(
        name=name,
        model=string(model if model == "demo" else _short(model)),
        read=f"[\n{read}\n]" if read else "[]",
        deny=deny,
    )


def _short(path: str) -> str:
    home = places.home()
    return "~" + path[len(home) :] if home and (path + "/").startswith(home + "/") else path


def _wrapped(items: Sequence[str]) -> str:
    lines, line = [], "   "
    for item in items:
        word = f" {string(item)},"
        if len(line) + len(word) > WIDTH:
            lines.append(line)
            line = "   "
        line += word
    return "\n".join([*lines, line])


TEMPLATE = """\
# A policy of anchorhold: what one model may see, and what happens when it asks for more.
# Check it:           anchorhold policy check {name}
# Ask within it:      anchorhold ask --policy {name} "QUESTION"
# Which rule decides: anchorhold policy explain --policy {name} PATH
# A key that is left out has its default; a key that is not known is an error.
version = 1
name = "{name}"

[model]
path = {model}   # a GGUF file, or "demo": the small model of the demo extra
# sha256 = "..."    # the digest that sha256sum prints: a different file is refused
context = 4096      # tokens that the model can look at, its answer included
threads = 0         # 0: all that limits.cpu allows

[data]
# Folders the model may read, with all that is below them. Empty: those that --data names.
read = {read}
# Hidden below these folders, whatever else is allowed: it cannot be opened and is in no listing.
# A name counts at any depth; with a slash a pattern counts from the folder on: "drafts/*.txt".
deny = [
{deny}
]
max_file = "64MiB"      # a larger file is refused
cross_mounts = false    # what is mounted below a folder is not part of it
hardlinks = "deny"      # a file with a second name elsewhere is refused; "allow" for backups made of links

[limits]
# memory = "8GiB"       # default: the size of the model and 4GiB
swap = "0"              # nothing of it is swapped out, where the machine can hold that
cpu = "off"             # or a number of processors, as 2 or 0.5
tasks = 256             # threads
wall_clock = "off"      # or "10m": it is killed then
idle = "off"            # or "10m": for the service, when nobody asks
heartbeat = "1m"        # a worker that gives no sign of life for so long; "off": nobody asks it

[breach]
on_denied_open = "kill"         # "deny": it only gets an error; both are in the log
on_forbidden_syscall = "kill"
on_changed_model = "kill"       # the model's file was written to after its digest was taken
on_missing_heartbeat = "kill"   # see limits.heartbeat
command = []            # ["/usr/local/bin/alarm"]: run by the service after a breach, the facts on its input
notify = []             # the same after whatever else a person should know: a limit, a kill, a crash

[audit]
durability = "write"    # "fsync": on disk before every grant, even if the power fails
prompts = "commitment"  # a hash that proves a text that you still have; "text": the text itself; or "none"
witness = []            # who gets each signed head: "folder:/media/usb/heads", "git:/path", "command:/x y"
copy = []               # live copies of entries: "journald", "syslog", "syslog:udp://127.0.0.1:514"
copy_names = true       # false: the copies hold no path, no digest and no text
epoch = "1d"            # so long a key signs the log; then it is destroyed, and what it signed stands
epoch_entries = 1000000 # or so many entries

[require]
# Without these layers nothing starts (exit code 6).
layers = ["seccomp", "landlock"]

[api]
# For the service: programs that speak OpenAI's API. docs/api.md has the other keys.
listen = "unix:%t/anchorhold/%n.sock"   # or "127.0.0.1:8765", which asks for a token; or "off"
max_tokens = 4096                       # the longest answer that a program may ask for

[control]
# group = "staff"       # may use the service's control socket too: status, kill, rearm, reload
"""
