"""What goes wrong before the seal ends the start, with nothing granted and the reason said."""

from __future__ import annotations

from pathlib import Path

import pytest

from anchorhold.errors import BreachError, LayerError, WorkerError
from tests.integration import cells
from tests.support import session_entries

CODE = """
    import ctypes, mmap
    def boot():
        global held
        held = mmap.mmap(-1, 4096, prot=7)
    def attempt():
        return "sealed"
"""


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (CODE, "both writable and executable"),
        ("raise ValueError('no')", "ended by itself"),
        ("import os\nos._exit(3)", "exit 3"),
        ("import os, signal\ndef boot():\n    os.abort()", "died of SIG(ABRT|SEGV)"),
        ("import os\nos.write(6, b'\\0\\0\\0\\2{}')\ndef attempt(): pass", "before it was sealed"),
    ],
)
def test_no_seal(state_dir: Path, demo_model: Path, source: str, said: str) -> None:
    with pytest.raises(WorkerError, match=said):
        cells.run(state_dir, cells.policy(demo_model), source)
    kinds = [entry["kind"] for entry in session_entries(state_dir)]
    assert "session.sealed" not in kinds and kinds[-1] == "session.end"
    assert not [entry for entry in session_entries(state_dir) if entry.get("class") in ("data", "model")]


def test_garbage_on_the_channel(state_dir: Path, demo_model: Path) -> None:
    with pytest.raises(BreachError, match="broke the protocol"):
        cells.run(
            state_dir,
            cells.policy(demo_model),
            "import os\ndef attempt():\n    os.write(6, b'\\xff' * 64)",
        )


def test_a_required_layer_that_is_not_there(state_dir: Path, demo_model: Path) -> None:
    with pytest.raises(LayerError, match="nosuch") as caught:
        cells.run(state_dir, cells.policy(demo_model, require=("nosuch",)), "def attempt(): pass")
    assert caught.value.exit_code == 6
