"""The daemon: keepers of workers, the gateway's door, the control socket, and what systemd is told."""
