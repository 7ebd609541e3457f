"""Writes the list of what anchorhold is made of (CycloneDX 1.6, JSON), from requirements/ and pyproject.toml.

    sbom.py FILE

Constraint: the same locks make the same bytes; nothing is asked of a registry or of what is installed.
Source: CycloneDX 1.6 (ECMA-424), package URLs (purl-spec, type pypi: names in lower case with dashes).
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import tomllib
import uuid
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parent.parent
RUNS = ("run", "engine")
"""The locks of what runs; what builds and tests is no part of the product."""

PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)")
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
SPACE = uuid.UUID("9f1c3a52-5f0c-5c0e-8d0a-6f6e1d1b8a11")


def normal(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(text: str) -> list[tuple[str, str, list[str]]]:
    """(name, version, SHA-256 of each file that may be installed) of a lock."""
    found: list[tuple[str, str, list[str]]] = []
    for line in text.splitlines():
        if pin := PIN.match(line):
            found.append((normal(pin[1]), pin[2], []))
        elif digest := HASH.search(line):
            found[-1][2].append(digest[1])
    return found


def component(name: str, version: str, digests: list[str]) -> dict[str, Any]:
    purl = f"pkg:pypi/{name}@{version}"
    # A release has several files, one for each kind of machine; any of these may be what is installed.
    accepted = [{"name": "anchorhold:accepted:sha256", "value": digest} for digest in sorted(digests)]
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "properties": accepted,
    }


def version() -> str:
    text = (TOP / "daemon/anchorhold/__init__.py").read_text()
    match = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    assert match is not None
    return match[1]


def document(locks: list[str], project: dict[str, Any], own: str, epoch: int) -> dict[str, Any]:
    """The whole. locks: texts; project: of pyproject.toml; own: anchorhold's version; epoch: seconds."""
    parts = sorted(
        (component(*one) for text in locks for one in locked(text)), key=lambda one: str(one["bom-ref"])
    )
    refs = {part["name"]: part["bom-ref"] for part in parts}
    main = f"pkg:pypi/anchorhold@{own}"
    direct = sorted(refs[normal(re.split(r"[^A-Za-z0-9._-]", one)[0])] for one in project["dependencies"])
    body: dict[str, Any] = {
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch)),
            "component": {
                "type": "application", "bom-ref": main, "name": "anchorhold", "version": own, "purl": main,
                "description": project["description"], "licenses": [{"license": {"id": project["license"]}}],
            },
        },
        "components": parts,
        "dependencies": [{"ref": main, "dependsOn": direct}],
    }  # fmt: skip
    serial = uuid.uuid5(SPACE, json.dumps(body, sort_keys=True))
    return {"$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json", "bomFormat": "CycloneDX",
            "specVersion": "1.6", "serialNumber": f"urn:uuid:{serial}", "version": 1, **body}  # fmt: skip


def main() -> None:
    locks = [(TOP / "requirements" / f"{name}.txt").read_text() for name in RUNS]
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    whole = document(locks, project, version(), int(os.environ.get("SOURCE_DATE_EPOCH", "0")))
    Path(sys.argv[1]).write_text(json.dumps(whole, indent=2, ensure_ascii=True) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
