"""OCI registries: one plain, one that asks for a password behind a certificate of its own."""

from __future__ import annotations

import json
import shutil
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import trustme

from tests.stack.daemons import launch, port, running, wait_until
from tests.stack.packages import need
from tests.stack.place import locked, read_state, run_folder, write_state

if TYPE_CHECKING:
    from pathlib import Path

RegistryKind = Literal["plain", "tls"]

FIRST_PORT = {"plain": 5210, "tls": 5410}
USER = "kiln"
PASSWORD = "kiln-Pa55-of-the-tests"
_ENTRY = f"{USER}:$2b$04$cJz8c9NW6NOHkvbeTx.fF.9FDei55Yb/CIyFFOReEYDkfcxIivAOy\n"
"""The password's bcrypt form: the one form that the registry reads, and Python's library cannot make."""


@dataclass(frozen=True)
class Registry:
    """A registry that answers."""

    address: str
    """``127.0.0.1:PORT``, what stands before the first slash of a reference."""
    scheme: Literal["http", "https"]
    user: str | None
    password: str | None
    ca_file: Path | None
    """The certificate of the authority that signed the registry's, None for http."""

    @property
    def url(self) -> str:
        """Its root, without a slash at the end."""
        return f"{self.scheme}://{self.address}"


def start_registry(kind: RegistryKind) -> Registry:
    """The registry, started when it does not run."""
    name = f"registry-{kind}"
    with locked(name):
        if running(name) is None:
            _start(name, kind)
    return _described(name, kind)


def _described(name: str, kind: RegistryKind) -> Registry:
    state = read_state(name) or {}
    address = str(state["address"])
    if kind == "plain":
        return Registry(address, "http", None, None, None)
    return Registry(address, "https", USER, PASSWORD, run_folder(name) / "ca.pem")


def _start(name: str, kind: RegistryKind) -> None:
    program = need("docker-registry", "docker-registry")
    folder = run_folder(name)
    shutil.rmtree(
        folder / "storage", ignore_errors=True
    )  # what earlier tests pushed; bases come again by themselves
    address = f"127.0.0.1:{port(name, FIRST_PORT[kind])}"
    settings: dict[str, object] = {
        "version": 0.1,
        "log": {"level": "info"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}, "delete": {"enabled": True}},
        "http": {"addr": address, "secret": "of the tests"},
    }
    context = None
    if kind == "tls":
        context = _certificates(folder)
        (folder / "htpasswd").write_text(_ENTRY, encoding="ascii")
        tls = {"certificate": str(folder / "server.pem"), "key": str(folder / "server.key")}
        settings["http"] = {"addr": address, "secret": "of the tests", "tls": tls}
        settings["auth"] = {"htpasswd": {"realm": "flowkiln", "path": str(folder / "htpasswd")}}
    (folder / "config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")  # JSON is YAML
    process = launch([str(program), "serve", str(folder / "config.json")], folder / "log")
    url = f"{'http' if context is None else 'https'}://{address}/v2/"
    wait_until(lambda: _answers(url, context), process, folder / "log", name)
    write_state(name, {"pid": process.pid, "started": process.started, "address": address})


def _certificates(folder: Path) -> ssl.SSLContext:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "server.key"))
    (folder / "server.pem").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    return ssl.create_default_context(cafile=str(folder / "ca.pem"))


def _answers(url: str, context: ssl.SSLContext | None) -> bool:
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if context is not None:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=5) as page:
            return int(page.status) == 200
    except urllib.error.HTTPError as error:
        error.close()
        return error.code == 401
