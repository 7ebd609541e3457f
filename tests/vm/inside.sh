#!/usr/bin/env bash
# inside.sh: run as root in the machine that `run` boots. Starts the checks in each way that a user of systemd starts
# a program; what it prints is the report, and its last line is the verdict.
set -uo pipefail
cd /opt/anchorhold
[ ! -e boot ] || exec /opt/venv/bin/python -m tests.vm.service "$(cat boot)" # one of service.py's, not these
export PYTHONPATH=/opt/anchorhold PYTHONDONTWRITEBYTECODE=1
python=/opt/venv/bin/python
wanted=$(tr '\n' ' ' <checks)
failed=""
mkswap -q /dev/vdc && swapon /dev/vdc # so that memory.swap.max has something to refuse
echo "Linux $(uname -r), $($python -V), $(systemctl --version | head -n 1), cgroup v2 with $(cat /sys/fs/cgroup/cgroup.controllers)"
echo "security modules: $(cat /sys/kernel/security/lsm), ptrace_scope $(cat /proc/sys/kernel/yama/ptrace_scope)"

check() { # check NAME COMMAND…: if NAME was asked for, or nothing was
    local name=$1 start=$SECONDS; shift
    [[ " $wanted " == "  " || " $wanted " == *" $name "* ]] || return 0
    printf '\n== %s\n' "$name"
    if "$@"; then echo "== $name: passed, $((SECONDS - start)) s"; else
        echo "== $name: FAILED, $((SECONDS - start)) s"; failed="$failed $name"; fi
}

as_someone() { setpriv --reuid=1500 --regid=1500 --init-groups env HOME=/home/someone USER=someone LOGNAME=someone \
    XDG_RUNTIME_DIR=/run/user/1500 "$@"; }
service() { systemd-run --quiet --wait --pipe -p TimeoutStopSec=5 -E PYTHONPATH -E PYTHONDONTWRITEBYTECODE \
    --working-directory="$PWD" "$@"; }
tests=("$python" -m pytest -q -p no:cacheprovider --color=no --tb=short --timeout=240)

limits=("${tests[@]}" tests/vm/limits.py)
attacks=("${tests[@]}" tests/integration/attacks)
scope=(as_someone systemd-run --user --scope --quiet --working-directory="$PWD")

check root-service service -p Delegate=yes "${limits[@]}"
check user-service service -p Delegate=yes --uid=1500 --gid=1500 "${limits[@]}"
check user-scope "${scope[@]}" -p Delegate=yes "${limits[@]}"
check root-plain service "${limits[@]}"
check user-plain "${scope[@]}" "${limits[@]}"
check attacks service -p Delegate=yes "${attacks[@]}" # those of an unprivileged user are among them
echo 3 >/proc/sys/kernel/yama/ptrace_scope            # nobody traces anybody; there is no way back
check no-ptrace service -p Delegate=yes --uid=1500 --gid=1500 "${limits[@]}" -k "written or removed"

[ -z "$failed" ] && echo "all checks passed" || echo "failed:$failed"
