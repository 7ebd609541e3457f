#!/usr/bin/env bash
# disk.sh [RELEASE]: makes the disk, the kernel and the initrd of the machine, if they are not there, and prints their
# folder. RELEASE is Debian's: trixie (default) or bookworm.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

release=${1:-trixie}
fail() { printf '\ntest-vm: %s\n' "$1" >&2; shift; [ $# = 0 ] || printf '         %s\n' "$@" >&2; exit 1; }
say() { printf 'test-vm: %s\n' "$*" >&2; }

missing=""
for need in mmdebstrap:mmdebstrap qemu-system-x86_64:qemu-system-x86 mke2fs:e2fsprogs; do
    PATH=$PATH:/usr/sbin command -v "${need%:*}" >/dev/null || missing="$missing ${need#*:}"
done
[ -z "$missing" ] || fail "this machine lacks:$missing" "As root:  apt-get install$missing"
[ "$(uname -m)" = x86_64 ] || fail "the machine is made for x86-64; this is $(uname -m)."
PATH=$PATH:/usr/sbin

packages=systemd-sysv,dbus,dbus-user-session,libpam-systemd,apparmor,linux-image-cloud-amd64,initramfs-tools
packages=$packages,python3,python3-venv,libgomp1,util-linux,procps
locks=(requirements/run.txt requirements/demo.txt requirements/dev.txt)
engine=$(sed -n 's/^llama-cpp-python==\([^ ]*\).*/\1/p' requirements/engine.txt)
name=llama_cpp_python-$engine-py3-none-linux_x86_64.whl
wheel=$(find .cache/wheels "${XDG_CACHE_HOME:-$HOME/.cache}/anchorhold/wheels" -name "$name" 2>/dev/null || true)
wheel=${wheel%%$'\n'*}
[ -n "$wheel" ] || fail "the engine is not built yet." "First:  make setup"

case $release in
trixie) python=3.13 ;;
bookworm) python=3.11 ;;
*) fail "no Debian release that is tested: $release (trixie, bookworm)" ;;
esac
key=$(cat tests/vm/disk.sh tests/vm/root.sh "${locks[@]}" "$wheel" | sha256sum | cut -c1-16)
kept=.cache/vm/$release-$key
if [ ! -e "$kept/disk.img" ]; then
    [ "$(id -u)" = 0 ] || fail "the disk has files of several owners, so only root can make it." \
        "As root, once:  make test-vm"
    say "making the disk, once: some minutes"
    mkdir -p .cache/vm && rm -rf .cache/vm/"$release"-*
    work=$(mktemp -d "$PWD/.cache/vm/new.XXXXXX")
    trap 'rm -rf --one-file-system -- "$work"' EXIT
    mkdir "$work/wheels" "$work/done"
    # The engine is called through ctypes, so that its wheel fits every Python.
    for lock in "${locks[@]}"; do
        .venv/bin/python -m pip download -qq --no-deps --require-hashes --only-binary :all: --python-version "$python" \
            --dest "$work/wheels" -r "$lock"
    done
    cp "$wheel" "$work/wheels/"
    mmdebstrap --quiet --variant=minbase --include="$packages" --customize-hook="tests/vm/root.sh \"\$1\" $work/wheels" \
        "$release" "$work/root" >"$work/log" 2>&1 || { tail -n 30 "$work/log" >&2; fail "the system could not be made."; }
    cp "$work"/root/boot/vmlinuz-* "$work/done/kernel"
    cp "$work"/root/boot/initrd.img-* "$work/done/initrd"
    mke2fs -q -t ext4 -d "$work/root" "$work/done/disk.img" 3G >/dev/null
    mv "$work/done" "$kept"
fi
printf '%s\n' "$kept"
