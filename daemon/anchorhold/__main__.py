"""``python -m anchorhold``: the same as the ``anchorhold`` command."""

from __future__ import annotations

from anchorhold.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
