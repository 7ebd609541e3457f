"""The plain script: the worker's own modules, run by an ordinary process with no cell around it.

Run as a file. Standard input and output are the channel that the supervisor would hold. What it reads, it
reads by itself; what it computes, the same code computes as in the cell.
"""

from __future__ import annotations

import json
import os
import sys

from anchorhold.worker import main


def run() -> int:
    config = json.loads(sys.argv[1])
    read_fd, write_fd = os.dup(0), os.dup(1)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)  # what a library prints must not end up in the channel
    main.prepare(config)
    return main.serve(read_fd, write_fd, config)


if __name__ == "__main__":
    sys.exit(run())
