#!/usr/bin/env bash
# root.sh ROOT WHEELS: completes a fresh Debian root: Python packages, a user, and a service that runs the checks.
# Run by mmdebstrap, when `run` makes the disk. Nothing of the checkout is in it: that comes with each start.
set -euo pipefail
root=$1 wheels=$2

mkdir "$root/opt/wheels"
cp "$wheels"/*.whl "$root/opt/wheels/"
chroot "$root" python3 -m venv /opt/venv
chroot "$root" /opt/venv/bin/python -m pip install --quiet --no-index --no-deps --no-compile \
    --find-links /opt/wheels $(cd "$wheels" && printf '/opt/wheels/%s ' *.whl)
echo /opt/anchorhold/daemon >"$(echo "$root"/opt/venv/lib/python3*/site-packages)/anchorhold.pth"
chroot "$root" /opt/venv/bin/python -m compileall -q /opt/venv/lib || true # some packages ship Python 2 examples
rm -r "$root/opt/wheels"

# The user without rights that the tests become has a name and a home here, so that it can have a manager of its own.
chroot "$root" useradd --create-home --uid 1500 --shell /bin/bash someone
mkdir -p "$root/var/lib/systemd/linger"
touch "$root/var/lib/systemd/linger/someone"
echo vm >"$root/etc/hostname"

cat >"$root/etc/systemd/system/checks.service" <<'UNIT'
[Unit]
Description=Checks of anchorhold
After=multi-user.target user@1500.service
SuccessAction=poweroff-force
FailureAction=poweroff-force

[Service]
Type=oneshot
Environment=PYTHONDONTWRITEBYTECODE=1
ExecStart=/bin/sh -c 'rm -rf /opt/anchorhold && mkdir /opt/anchorhold && tar -xf /dev/vdb -C /opt/anchorhold && exec bash /opt/anchorhold/tests/vm/inside.sh'
StandardOutput=file:/dev/ttyS1
StandardError=inherit

[Install]
WantedBy=default.target
UNIT
chroot "$root" systemctl enable --quiet checks.service
chroot "$root" systemctl mask --quiet serial-getty@ttyS0.service getty@tty1.service apt-daily.timer apt-daily-upgrade.timer
