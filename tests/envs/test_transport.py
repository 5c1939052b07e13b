from __future__ import annotations

import base64
import http.server
import ssl
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

import pytest

from flowkiln.envs.installerrors import CertificateRefused, DownloadFailed
from flowkiln.envs.transport import Network, Transport, certificates

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with the path, or a redirect to what follows ``/to/``; as a proxy with the whole URL."""

    seen: ClassVar[list[tuple[str, str | None, str | None]]] = []

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers.get("Authorization"), self.headers.get("Proxy-Authorization")))
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[int]:
    Handler.seen.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in (*CA_VARIABLES, "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


def read(transport: Transport, url: str) -> bytes:
    answer = transport.get(url, {})
    try:
        return bytes(answer.read())
    finally:
        answer.close()
        transport.close()


def test_credentials_go_to_their_host_only() -> None:
    with serving() as port:
        here, there = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
        network = Network(credentials=lambda url: ("user", "secret") if "127.0.0.1" in url else None)
        assert read(Transport(network), f"{here}/to/{there}/file") == b"/file"
        assert [one[1] for one in Handler.seen] == [basic("user", "secret"), None]


def test_credentials_in_the_url_do_not_follow_a_redirect() -> None:
    with serving() as port:
        url = f"http://me:p%40ss@127.0.0.1:{port}/to/http://localhost:{port}/file"
        assert read(Transport(Network()), url) == b"/file"
        assert [one[1] for one in Handler.seen] == [basic("me", "p@ss"), None]


def test_redirects_within_a_host_keep_credentials() -> None:
    with serving() as port:
        network = Network(credentials=lambda _: ("user", "secret"))
        assert read(Transport(network), f"http://127.0.0.1:{port}/to//next") == b"/next"
        assert [one[1] for one in Handler.seen] == [basic("user", "secret")] * 2


def test_endless_redirects_are_an_error() -> None:
    with serving() as port:
        url = f"http://127.0.0.1:{port}/to/"
        with pytest.raises(DownloadFailed, match="more than 10 redirects"):
            read(Transport(Network()), url + "/to/" * 20 + "x")


def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as port:
        monkeypatch.setenv("HTTP_PROXY", f"http://pro:xy@127.0.0.1:{port}")
        assert read(Transport(Network()), "http://index.invalid/file") == b"http://index.invalid/file"
        assert Handler.seen == [("http://index.invalid/file", None, basic("pro", "xy"))]


def test_no_proxy_goes_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as port:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert read(Transport(Network()), f"http://127.0.0.1:{port}/file") == b"/file"


def test_a_proxy_of_another_kind_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "socks9://127.0.0.1:9")
    with pytest.raises(DownloadFailed, match="socks9"):
        read(Transport(Network()), "http://index.invalid/file")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate for localhost that is its own authority."""
    folder = tmp_path_factory.mktemp("authority")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", folder / "key.pem", "-out", folder / "ca.pem"),
        ],
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture
def https(authority: Path) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "ca.pem", authority / "key.pem")
    with serving(context) as port:
        yield port


CA_VARIABLES = ["FLOWKILN_CERTIFICATES", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT"]


@pytest.mark.parametrize("variable", [*CA_VARIABLES, None])
def test_an_own_authority_is_trusted_where_it_is_named(
    variable: str | None, https: int, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable:
        monkeypatch.setenv(variable, str(authority / "ca.pem"))
    network = Network() if variable else Network(ca=str(authority / "ca.pem"))
    assert read(Transport(network), f"https://localhost:{https}/file") == b"/file"


def test_a_folder_of_authorities(https: int, authority: Path, tmp_path: Path) -> None:
    name = subprocess.run(
        ["openssl", "x509", "-hash", "-noout", "-in", authority / "ca.pem"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    (tmp_path / f"{name}.0").write_bytes((authority / "ca.pem").read_bytes())
    network = Network(ca=str(tmp_path))
    assert read(Transport(network), f"https://localhost:{https}/file") == b"/file"


def test_an_unknown_authority_is_a_clear_error(https: int) -> None:
    with pytest.raises(CertificateRefused, match="self-signed") as caught:
        read(Transport(Network()), f"https://localhost:{https}/file")
    assert "SSL_CERT_FILE" in (caught.value.hint or "")


def test_a_file_of_authorities_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    for name in ("ca.pem", "absent.pem"):
        with pytest.raises(CertificateRefused, match="cannot be read"):
            certificates(str(tmp_path / name), {})


def test_secrets_are_not_in_messages() -> None:
    with pytest.raises(DownloadFailed) as caught:
        Transport(Network()).get("http://user:CANARY@127.0.0.1:9/x?token=CANARY", {})
    assert "CANARY" not in str(caught.value)
