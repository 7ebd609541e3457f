"""A gateway in its cell for each test, before a backend that plays a script."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
from openai import OpenAI

from tests.integration.gateway.scripted import Scripted, serving


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short: a socket's path has 107 bytes."""
    return tmp_path_factory.mktemp("gw")


@pytest.fixture(scope="module")
def running(place: Path) -> Iterator[Scripted]:
    """One gateway for all tests of a module, on a Unix socket."""
    backend = Scripted()
    with serving(place, backend):
        yield backend


@pytest.fixture
def backend(running: Scripted) -> Scripted:
    running.reset()
    return running


@pytest.fixture
def http(backend: Scripted, place: Path) -> Iterator[httpx.Client]:
    transport = httpx.HTTPTransport(uds=str(place / "run/test.sock"))
    with httpx.Client(transport=transport, base_url="http://anchorhold", timeout=20) as client:
        yield client


@pytest.fixture
def openai(http: httpx.Client) -> OpenAI:
    return OpenAI(base_url="http://anchorhold/v1", api_key="none", http_client=http, max_retries=0)
