"""The policy as an object: frozen, checked before it is made, and known by its digest.

Nothing here reads a file; `load` makes these objects and refuses everything that is not right.
Sizes are bytes, durations seconds; None says that there is no such limit (``"off"`` in the file).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields

VERSION = 1

# All names that `[require] layers` may hold, in building order: those of `cell.layers`, a test compares.
LAYERS = (
    "rlimits", "cgroup", "user", "userns", "mountns", "pidns", "netns", "ipcns", "utsns", "cgroupns", "root",
    "capabilities", "no_new_privs", "landlock", "dumpable", "seccomp", "mdwe",
)  # fmt: skip

# Secrets that lie about in ordinary folders. Names only, at any depth; docs/policy.md says why each is here.
DEFAULT_DENY = (
    ".git", ".hg", ".svn", ".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".password-store",
    ".netrc", ".pgpass", ".my.cnf", ".git-credentials", ".npmrc", ".pypirc", ".env", ".env.*", ".vault-token",
    "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_ecdsa_sk", "id_ed25519_sk",
    "*.key", "*.pem", "*.p12", "*.pfx", "*.ppk", "*.jks", "*.keystore", "*.kdbx", "*.agekey",
)  # fmt: skip

# What holds on any machine this runs on, one without user namespaces included.
DEFAULT_REQUIRE = ("seccomp", "landlock")

# Threads: those that compute, one a processor, and some more. Still far from what a machine cannot bear.
DEFAULT_TASKS = 256

MIB, GIB = 1 << 20, 1 << 30

# Seconds, and entries, after which the log begins a new epoch: those of `audit.settle`, a test compares.
EPOCH, EPOCH_ENTRIES = 86_400.0, 1_000_000

# limits.memory, when not given, is the size of the model file and this: weights may be copied while they are
# repacked, and the context's cache of a large model takes gigabytes.
MEMORY_BESIDE_MODEL = 4 * GIB


@dataclass(frozen=True, slots=True)
class ModelPolicy:
    """The one model file. ``threads`` 0: all that the CPU limit allows."""

    path: str
    sha256: str | None = None
    context: int = 4096
    threads: int = 0


@dataclass(frozen=True, slots=True)
class DataPolicy:
    """Folders and single files that may be read, and what stays hidden below the folders.

    Paths are absolute and clean. Bytes that are no UTF-8 are kept by surrogate escape.
    """

    read: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    deny: tuple[str, ...] = DEFAULT_DENY
    max_file: int = 64 * MIB
    cross_mounts: bool = False
    hardlinks: str = "deny"


@dataclass(frozen=True, slots=True)
class Limits:
    memory: int | None = None
    swap: int | None = 0
    cpu: float | None = None
    tasks: int = DEFAULT_TASKS
    wall_clock: float | None = None
    idle: float | None = None
    heartbeat: float | None = 60.0


@dataclass(frozen=True, slots=True)
class Breach:
    """``on_…``: ``kill`` or ``deny``.

    ``command``: a program and its arguments, run by the daemon after a breach with the facts on its standard
    input; ``notify``: the same after whatever else a person should know of, a breach too. Empty: none.
    """

    on_denied_open: str = "kill"
    on_forbidden_syscall: str = "kill"
    on_changed_model: str = "kill"
    on_missing_heartbeat: str = "kill"
    command: tuple[str, ...] = ()
    notify: tuple[str, ...] = ()


BREACHES = ("on_denied_open", "on_forbidden_syscall", "on_changed_model", "on_missing_heartbeat")
"""Keys whose answer a policy may choose. What leaves no choice always kills: a limit, a message that is none,
a log that cannot be written."""


@dataclass(frozen=True, slots=True)
class Audit:
    """``durability``: ``write`` or ``fsync``. ``prompts``: ``commitment``, ``text`` or ``none``.

    ``witness``: who gets each signed head (`anchorhold.audit.witness`). ``copy``: where entries are copied to
    (`anchorhold.audit.copies`), ``copy_names``: with paths, digests and texts or without.
    ``epoch`` (seconds) and ``epoch_entries``: after how long, or how many entries, a signing key is destroyed
    and the next one begins.
    """

    durability: str = "write"
    prompts: str = "commitment"
    witness: tuple[str, ...] = ()
    copy: tuple[str, ...] = ()
    copy_names: bool = True
    epoch: float = EPOCH
    epoch_entries: int = EPOCH_ENTRIES


@dataclass(frozen=True, slots=True)
class Api:
    """``listen``: ``HOST:PORT``, ``unix:PATH`` (``%t`` the runtime directory, as in systemd, ``%n`` the
    policy's name), or None: no API.

    ``group``: who may use a Unix socket besides its owner and root. ``token``: whether a Unix socket asks for
    one; TCP always does. ``hosts``, ``origins``: names and web pages that a TCP listener answers to.
    ``concurrency``: open connections. ``queue``: requests of this policy that may wait.
    """

    listen: str | None = "unix:%t/anchorhold/%n.sock"
    group: str | None = None
    token: bool = False
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    tls_cert: str | None = None
    tls_key: str | None = None
    max_body: int = 4 * MIB
    max_tokens: int = 4096
    concurrency: int = 256
    queue: int = 64
    read_timeout: float = 30.0
    write_timeout: float = 30.0
    idle_timeout: float = 75.0


@dataclass(frozen=True, slots=True)
class Control:
    """Who may use the daemon's control socket besides its owner and root."""

    group: str | None = None


SECTIONS: dict[str, type] = {
    "model": ModelPolicy,
    "data": DataPolicy,
    "limits": Limits,
    "breach": Breach,
    "audit": Audit,
    "api": Api,
    "control": Control,
}


@dataclass(frozen=True, slots=True)
class Policy:
    """One checked policy.

    ``source`` (the file it is from) and ``given`` (the keys that it sets itself, as ``data.read``) are about
    where it comes from, not about what it allows: they count neither for equality nor for the digest.
    """

    name: str
    model: ModelPolicy
    data: DataPolicy = field(default_factory=DataPolicy)
    limits: Limits = field(default_factory=Limits)
    breach: Breach = field(default_factory=Breach)
    audit: Audit = field(default_factory=Audit)
    require: tuple[str, ...] = DEFAULT_REQUIRE
    api: Api = field(default_factory=Api)
    control: Control = field(default_factory=Control)
    source: str | None = field(default=None, compare=False)
    given: frozenset[str] = field(default=frozenset(), compare=False)

    def as_dict(self) -> dict[str, object]:
        """Everything that it says, as the sections and keys of the file; of JSON's types only."""
        whole: dict[str, object] = {"version": VERSION, "name": self.name}
        for section, kind in SECTIONS.items():
            part = getattr(self, section)
            whole[section] = {one.name: _plain(getattr(part, one.name)) for one in fields(kind)}
        whole["require"] = {"layers": list(self.require)}
        return whole

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of the canonical JSON: keys sorted, no spaces, ASCII."""
        text = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode("ascii")).hexdigest()


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
