"""The published vectors say what they are said to say: by the second verifier, and by ours."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from anchorhold.verify import check
from tests.second import forms, receipts
from tests.second.verifier import Log as Second
from tests.support import TOP

PLACE = TOP / "docs" / "vectors"


@pytest.fixture
def told() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((PLACE / "expected.json").read_text())
    return found


@pytest.fixture
def state(tmp_path: Path) -> Path:
    shutil.copytree(PLACE / "log", tmp_path / "state" / "log")
    return tmp_path / "state"


def test_the_log(state: Path, told: dict[str, Any]) -> None:
    """Keys, chain, a pruned epoch, tiles, bundles, openings, an erased name, a journal."""
    second, ours = Second(state, told["vkey"]), check.verify(str(state), vkey=told["vkey"])
    assert second.problems == [] and ours.ok and ours.unsettled == 1
    assert second.size == told["sizes"][0] == ours.size - 1
    assert {str(seq): sorted(names) for seq, names in second.erased.items()} == told["erased"] != {}


def test_the_tree(state: Path, told: dict[str, Any]) -> None:
    second = Second(state)
    hashes = [forms.leaf(entry.data) for entry in second.entries][-told["sizes"][1] :]
    assert [one.hex() for one in hashes] == told["leaves"]
    assert [forms.root(hashes[:size]).hex() for size in range(len(hashes) + 1)] == told["roots"]
    assert told["roots"][-1] == told["root"]


def test_the_receipts(told: dict[str, Any]) -> None:
    known = receipts.receipt((PLACE / "receipt.json").read_bytes(), told["vkey"])
    hidden = receipts.receipt((PLACE / "receipt-without-names.json").read_bytes(), told["vkey"])
    assert [entry["seq"] for entry in known] == [entry["seq"] for entry in hidden]
    paths = [entry.get("path") for entry in known if entry["kind"] == "grant"]
    assert paths == ["/usr/lib/x.py", "/home/a/0", None, "/home/a/2"]
    assert b"/home/a" not in (PLACE / "receipt-without-names.json").read_bytes()
    assert all(entry["session"] == told["session"] for entry in known)


def test_the_cosignature(told: dict[str, Any]) -> None:
    note = (PLACE / "cosigned.txt").read_text()
    assert receipts.cosigned(note, told["witness"]) > 1_700_000_000
    assert note.splitlines()[2] == base64.b64encode(bytes.fromhex(told["root"])).decode()
    with pytest.raises(forms.Bad):
        receipts.cosigned(
            note.replace("\n20\n", "\n21\n").replace("anchorhold/", "anchorholt/"), told["witness"]
        )
