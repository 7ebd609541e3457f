"""Who gets in: peers, tokens, names, pages. Each check is shown with what it lets pass."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from openai import AuthenticationError, OpenAI

from anchorhold.errors import PolicyError
from anchorhold.supervisor.service.front import Front
from anchorhold.supervisor.service.peers import Peer
from tests.integration.gateway.raw import said
from tests.integration.gateway.scripted import Scripted, policy, serving
from tests.support import UID, reopened

CHAT: dict[str, Any] = {"model": "test", "messages": [{"role": "user", "content": "hello"}]}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def token_of(place: Path, name: str = "test") -> str:
    return (place / f"state/token-{name}").read_text().strip()


def test_tcp_asks_for_a_token(tmp_path: Path) -> None:
    port = free_port()
    backend = Scripted()
    with serving(tmp_path, backend, policy(listen=f"127.0.0.1:{port}")):
        path = tmp_path / "state/token-test"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 and len(token_of(tmp_path)) == 43
        url = f"http://127.0.0.1:{port}"
        for token in ("x", "a b", token_of(tmp_path) + "x", token_of(tmp_path)[:-1]):
            answer = httpx.get(f"{url}/v1/models", headers={"authorization": f"Bearer {token}"})
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer", token
            assert answer.json()["error"]["code"] == "invalid_api_key"
        assert httpx.get(f"{url}/v1/models").status_code == 401
        assert httpx.get(f"{url}/metrics").status_code == 401
        assert httpx.get(f"{url}/health").json() == {"status": "ok"}
        with pytest.raises(AuthenticationError):
            OpenAI(base_url=f"{url}/v1", api_key="wrong").models.list()
        client = OpenAI(base_url=f"{url}/v1", api_key=token_of(tmp_path))
        assert client.chat.completions.create(**CHAT).choices[0].message.content == "hello "
        digest = hashlib.sha256(token_of(tmp_path).encode()).hexdigest()
        assert backend.asked[0].principal == f"token:{digest[:8]}"
        body = {**CHAT, "max_tokens": 5}
        answer = httpx.post(f"{url}/v1/messages", json=body, headers={"x-api-key": token_of(tmp_path)})
        assert answer.status_code == 200
    first = token_of(tmp_path)
    with serving(tmp_path, Scripted(), policy(listen=f"127.0.0.1:{port}")):
        assert token_of(tmp_path) == first  # made once


def test_a_token_opens_its_own_policy(tmp_path: Path) -> None:
    listen = f"127.0.0.1:{free_port()}"
    backend = Scripted("one", "two")
    with serving(tmp_path, backend, policy("one", listen=listen), policy("two", listen=listen)):
        headers = {"authorization": f"Bearer {token_of(tmp_path, 'two')}"}
        models = httpx.get(f"http://{listen}/v1/models", headers=headers).json()["data"]
        assert [one["id"] for one in models] == ["two"]
        for name, status in (("one", 404), ("two", 200)):
            body = {**CHAT, "model": name}
            answer = httpx.post(f"http://{listen}/v1/chat/completions", json=body, headers=headers)
            assert answer.status_code == status
        page = httpx.get(f"http://{listen}/metrics", headers=headers).text
        assert 'policy="two"' in page and 'policy="one"' not in page


def test_a_token_that_others_can_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/token-test").write_text("t" * 43)
    (tmp_path / "state/token-test").chmod(0o644)
    with (
        pytest.raises(PolicyError, match="can be read by others"),
        serving(tmp_path, Scripted(), policy(listen=f"127.0.0.1:{free_port()}")),
    ):
        pass


def test_a_credential_of_the_service_manager(tmp_path: Path) -> None:
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials/token").write_text("s" * 30 + "\n")
    listen = f"127.0.0.1:{free_port()}"
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}
    with serving(tmp_path, Scripted(), policy(listen=listen), environ=environ):
        headers = {"authorization": "Bearer " + "s" * 30}
        assert httpx.get(f"http://{listen}/v1/models", headers=headers).status_code == 200
        assert not (tmp_path / "state/token-test").exists()


@pytest.fixture(scope="module")
def page_place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    place = tmp_path_factory.mktemp("gw")
    port = free_port()
    api: dict[str, Any] = {"listen": f"127.0.0.1:{port}", "origins": ("http://localhost:3000",)}
    api["hosts"] = ("models.home",)
    with serving(place, Scripted(), policy(**api)):
        yield place, port


def ask(page_place: tuple[Path, int], headers: dict[str, str], method: str = "GET") -> httpx.Response:
    place, port = page_place
    given = {"authorization": f"Bearer {token_of(place)}", **headers}
    return httpx.request(method, f"http://127.0.0.1:{port}/v1/models", headers=given)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{}", 200), ("localhost:{}", 200), ("LOCALHOST:{}", 200), ("[::1]:{}", 200),
        ("models.home:{}", 200), ("evil.example:{}", 403), ("127.0.0.1.evil.example:{}", 403),
        ("localhost.evil.example:{}", 403), ("192.168.1.1:{}", 403), ("localhost", 403), ("localhost:1", 403),
        ("", 403), ("[::1", 403), ("localhost:{}@evil", 403), ("2130706433:{}", 403),
    ],
)  # fmt: skip
def test_names_that_lead_here(page_place: tuple[Path, int], host: str, status: int) -> None:
    assert ask(page_place, {"host": host.format(page_place[1])}).status_code == status


def test_two_hosts_or_none(page_place: tuple[Path, int]) -> None:
    port = page_place[1]
    good = f"host: localhost:{port}\r\n"
    for head in (good + good, "", good + "host: evil\r\n"):
        assert said(port, f"GET /health HTTP/1.1\r\n{head}\r\n".encode()).split()[1] == b"400"
    assert said(port, b"GET /health HTTP/1.0\r\n\r\n").split()[1] == b"403"
    line = f"GET http://localhost:{port}/v1/models HTTP/1.1\r\n{good}connection: close\r\n\r\n"
    assert said(port, line.encode()).split()[1] in (b"401", b"404")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:3001"}, 403),
        ({"origin": "http://localhost:3000"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "cross-site", "origin": "http://localhost:3000"}, 200),
    ],
)
def test_pages(page_place: tuple[Path, int], headers: dict[str, str], status: int) -> None:
    answer = ask(page_place, headers)
    assert answer.status_code == status
    allowed = answer.headers.get("access-control-allow-origin")
    assert allowed == ("http://localhost:3000" if status == 200 and "origin" in headers else None)


def test_a_browser_asks_before_it_asks(page_place: tuple[Path, int]) -> None:
    wanted = {"access-control-request-method": "POST", "access-control-request-headers": "content-type, x-y"}
    fine = ask(page_place, {"origin": "http://localhost:3000", **wanted}, "OPTIONS")
    assert fine.status_code == 204 and fine.headers["access-control-allow-headers"] == "content-type, x-y"
    evil = ask(page_place, {"origin": "http://evil.example", **wanted}, "OPTIONS")
    assert evil.status_code == 403 and "access-control-allow-origin" not in evil.headers


def test_a_form_cannot_ask(page_place: tuple[Path, int]) -> None:
    place, port = page_place
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        answer = httpx.post(
            f"http://127.0.0.1:{port}/v1/chat/completions",
            content=b'{"model":"test","messages":[{"role":"user","content":"x"}]}',
            headers={"authorization": f"Bearer {token_of(place)}", "content-type": kind},
        )
        assert answer.status_code == 415, kind


def test_an_unknown_user_gets_nothing(tmp_path: Path) -> None:
    """The kernel says who connects; with a group its members get in."""
    assert Peer(1, os.geteuid(), 0).may(None) and Peer(1, 0, 0).may(None) and not Peer(1, UID, UID).may(None)
    if os.geteuid() != 0:
        pytest.fail("this test becomes another user, so it must be run by root")
    import grp

    group = grp.getgrgid(0).gr_name
    path = Path("/tmp") / f"anchorhold-{os.getpid()}.sock"
    code = (
        "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n"
        "s.sendall(b'GET /health HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n')\n"
        "print(s.makefile('rb').read().decode())"
    )
    become = [*reopened([Path(sys.prefix), Path(sys.base_prefix)]), "setpriv", f"--reuid={UID}"]
    with serving(tmp_path, Scripted(), policy(listen=f"unix:{path}", group=group)):
        stranger = [*become, f"--regid={UID}", "--clear-groups", "--", sys.executable, "-c", code, str(path)]
        answer = subprocess.run(stranger, capture_output=True, text=True, timeout=30, check=False).stdout
        assert answer == "" or (answer.startswith("HTTP/1.1 403") and '"wrong_user"' in answer)
        member = [*become, "--regid=0", "--clear-groups", "--", sys.executable, "-c", code, str(path)]
        answer = subprocess.run(member, capture_output=True, text=True, timeout=30, check=False).stdout
        assert answer.startswith("HTTP/1.1 200")
        answer = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=30, check=True
        ).stdout
        assert answer.startswith("HTTP/1.1 200")
    assert not path.exists()


def test_a_unix_socket_can_ask_for_a_token_too(tmp_path: Path) -> None:
    with serving(tmp_path, Scripted(), policy(token=True)):
        transport = httpx.HTTPTransport(uds=str(tmp_path / "run/test.sock"))
        with httpx.Client(transport=transport, base_url="http://x") as client:
            assert client.get("/v1/models").status_code == 401
            headers = {"authorization": f"Bearer {token_of(tmp_path)}"}
            assert client.get("/v1/models", headers=headers).status_code == 200


def test_beyond_loopback_without_tls_it_does_not_start(tmp_path: Path) -> None:
    for listen in (f"0.0.0.0:{free_port()}", f"[::]:{free_port()}"):
        with (
            pytest.raises(PolicyError, match="other machines"),
            serving(tmp_path, Scripted(), policy(listen=listen)),
        ):
            pass
    with (
        socket.create_server(("0.0.0.0", 0)) as inherited,
        pytest.raises(PolicyError, match="other"),
        serving(tmp_path, Scripted(), inherited={"test": inherited.fileno()}),
    ):
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """For 127.0.0.1, of its own making."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    (folder / "key.pem").chmod(0o600)
    return folder / "cert.pem", folder / "key.pem"


def test_tls_and_a_token(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    port = free_port()
    api = {"listen": f"0.0.0.0:{port}", "tls_cert": str(cert), "tls_key": str(key)}
    backend = Scripted()
    with serving(tmp_path, backend, policy(**api)):
        trust = ssl.create_default_context(cafile=str(cert))
        with httpx.Client(verify=trust) as client:
            url = f"https://127.0.0.1:{port}/v1"
            assert client.get(f"{url}/models").status_code == 401
            openai = OpenAI(base_url=url, api_key=token_of(tmp_path), http_client=client)
            stream = openai.chat.completions.create(**CHAT, stream=True)
            assert "".join(one.choices[0].delta.content or "" for one in stream) == "hello "
        assert said(port, b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").find(b"200") < 0
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with socket.create_connection(("127.0.0.1", port)) as plain, old.wrap_socket(plain) as secure:
            assert secure.version() == "TLSv1.2"


def test_a_key_that_everybody_can_read(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    open_key = tmp_path / "key.pem"
    open_key.write_bytes(certificate[1].read_bytes())
    open_key.chmod(0o644)
    api = {"listen": f"127.0.0.1:{free_port()}", "tls_cert": str(certificate[0]), "tls_key": str(open_key)}
    with pytest.raises(PolicyError, match="read by everybody"), serving(tmp_path, Scripted(), policy(**api)):
        pass


def test_a_socket_in_use_and_one_left_behind(tmp_path: Path) -> None:
    with serving(tmp_path, Scripted()):
        second = Front([policy()], Scripted(), runtime=str(tmp_path / "run"), state_dir=tmp_path / "state")
        with pytest.raises(OSError, match="another process"):
            second.start()
        assert (tmp_path / "run/test.sock").exists()  # the failed one took nothing away
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "run/test.sock"))
    left.close()
    with serving(tmp_path, Scripted()) as front:
        assert front.alive()
    (tmp_path / "run/test.sock").write_text("a file")
    with pytest.raises(OSError, match="no socket"), serving(tmp_path, Scripted()):
        pass
    assert (tmp_path / "run/test.sock").read_text() == "a file"


def test_sharing_an_address_means_sharing_its_rules(tmp_path: Path) -> None:
    one, two = policy("one", listen="unix:%t/a.sock"), policy("two", listen="unix:%t/a.sock", max_tokens=5)
    with pytest.raises(PolicyError, match="differ in"), serving(tmp_path, Scripted("one", "two"), one, two):
        pass


def test_an_inherited_socket(tmp_path: Path) -> None:
    path = tmp_path / "given.sock"
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(str(path))
        given.listen()
        with serving(tmp_path, Scripted(), inherited={"test": given.fileno()}):
            transport = httpx.HTTPTransport(uds=str(path))
            with httpx.Client(transport=transport, base_url="http://x") as client:
                assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
        assert path.exists()
