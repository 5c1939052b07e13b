"""Where the container engine is, found as the docker command finds it, and a socket to it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flowkiln._base.engineerrors import BadEndpoint, EngineNotFound

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEFAULT = "default"
_FILES = ("ca.pem", "cert.pem", "key.pem")
_PORT, _TLS_PORT = 2375, 2376


@dataclass(frozen=True, slots=True, kw_only=True)
class TLS:
    """How a TCP connection is secured: files in PEM form, each None where the system's or nothing is used."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An engine's address, and where it was found: ``DOCKER_HOST``, ``context colima``, ``default socket``.

    ``url`` is ``unix:///path``, ``tcp://host:port`` or ``ssh://[user@]host[:port][/path of its socket]``.
    """

    url: str
    origin: str
    tls: TLS | None = None

    @property
    def scheme(self) -> str:
        """``unix``, ``tcp`` or ``ssh``."""
        return self.url.partition("://")[0]

    @property
    def path(self) -> str:
        """The file of a unix socket."""
        return self.url.removeprefix("unix://")

    @property
    def remote(self) -> bool:
        """Whether the engine may be on another machine, so that files of this one cannot be mounted."""
        return self.scheme != "unix"

    def __str__(self) -> str:
        return f"{self.url} ({self.origin})"


def find(environ: Mapping[str, str], *, root: Path = Path("/")) -> Endpoint:
    """The engine that the docker command would use, then Podman's. Raises ``EngineNotFound``, ``BadEndpoint``.

    In this order: ``DOCKER_HOST``, ``DOCKER_CONTEXT``, the current context of ``$DOCKER_CONFIG/config.json``, the
    default sockets below ``root``. A socket that nobody listens on is passed over; one that this user may not use
    is not, so that the reason is told.
    """
    if host := environ.get("DOCKER_HOST"):
        return _checked(host, "DOCKER_HOST", _tls_of(environ))
    folder = _config_folder(environ)
    name = environ.get("DOCKER_CONTEXT") or _current(folder) or DEFAULT
    if name != DEFAULT:
        return _context(folder, name)
    looked: list[str] = []
    for path, origin in _sockets(environ, root):
        state = _state(path)
        if state == "there":
            return Endpoint(f"unix://{path}", origin)
        looked.append(f"{path} ({state})")
    message = "no container engine found: neither DOCKER_HOST nor a Docker context is set; looked at"
    raise EngineNotFound(f"{message} {', '.join(looked)}", data={"looked": looked})


def _config_folder(environ: Mapping[str, str]) -> Path:
    told = environ.get("DOCKER_CONFIG")
    return Path(told) if told else Path(environ.get("HOME") or Path.home()) / ".docker"


def _current(folder: Path) -> str:
    """The name of the current context; empty where none is chosen."""
    file = folder / "config.json"
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        message = f"cannot read {file}: {error}"
        raise EngineNotFound(message, hint=f"Correct {file}, or set DOCKER_HOST.") from error
    return str(document.get("currentContext") or "") if isinstance(document, dict) else ""


def _context(folder: Path, name: str) -> Endpoint:
    """The engine of a context, with the certificates stored beside it."""
    hashed = hashlib.sha256(name.encode()).hexdigest()
    file = folder / "contexts" / "meta" / hashed / "meta.json"
    try:
        endpoint: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["Endpoints"]["docker"]
        host = str(endpoint["Host"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        known = ", ".join([*sorted(_names(folder)), DEFAULT])
        message = f"the Docker context {name!r} cannot be read from {folder}; there are: {known}"
        raise EngineNotFound(message, hint="`docker context use default`, or set DOCKER_HOST.") from error
    secrets = folder / "contexts" / "tls" / hashed / "docker"
    skip = bool(endpoint.get("SkipTLSVerify"))
    tls = _tls_in(secrets, verify=not skip) if skip or secrets.is_dir() else None
    return _checked(host, f"context {name}", tls)


def _names(folder: Path) -> Iterator[str]:
    for file in (folder / "contexts" / "meta").glob("*/meta.json"):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            yield str(json.loads(file.read_text(encoding="utf-8"))["Name"])


def _tls_of(environ: Mapping[str, str]) -> TLS | None:
    verify = bool(environ.get("DOCKER_TLS_VERIFY"))
    if not verify and not environ.get("DOCKER_TLS"):
        return None
    told = environ.get("DOCKER_CERT_PATH")
    return _tls_in(Path(told) if told else _config_folder(environ), verify=verify)


def _tls_in(folder: Path, *, verify: bool) -> TLS:
    ca, certificate, key = (path if (path := folder / name).is_file() else None for name in _FILES)
    return TLS(ca=ca, certificate=certificate, key=key, verify=verify)


def _checked(host: str, origin: str, tls: TLS | None) -> Endpoint:
    """The endpoint at ``host`` in its canonical spelling."""
    scheme, separator, rest = host.partition("://")
    if not separator:
        scheme, rest = "tcp", host
    if scheme == "unix" and rest:
        return Endpoint(f"unix://{rest}", origin)
    try:
        parts = urlsplit(f"//{rest}")
        name, port = parts.hostname, parts.port
    except ValueError:
        name, port = None, None
    if scheme == "ssh" and name and not name.startswith("-") and not parts.password:
        return Endpoint(f"ssh://{rest.rstrip('/')}", origin)
    if scheme in {"tcp", "http", "https"} and name:
        if scheme == "https" and tls is None:
            tls = TLS()
        shown = f"[{name}]" if ":" in name else name
        return Endpoint(f"tcp://{shown}:{port or (_TLS_PORT if tls else _PORT)}", origin, tls)
    message = f"{origin}: the engine's address {_without_password(host)!r} is not understood"
    raise BadEndpoint(message)


def _without_password(host: str) -> str:
    before, at, after = host.rpartition("@")
    scheme, separator, _ = before.partition("://")
    return f"{scheme}{separator}…@{after}" if at else host


def _sockets(environ: Mapping[str, str], root: Path) -> Iterator[tuple[Path, str]]:
    """Where engines listen when nobody said otherwise."""
    runtime = environ.get("XDG_RUNTIME_DIR")
    yield root / "var/run/docker.sock", "default socket"
    yield _config_folder({"HOME": environ.get("HOME", "")}) / "run/docker.sock", "Docker Desktop's socket"
    if runtime:
        yield Path(runtime) / "docker.sock", "rootless socket"
        yield Path(runtime) / "podman/podman.sock", "Podman's socket"
    yield root / "run/podman/podman.sock", "Podman's system socket"


def _state(path: Path) -> str:
    """``there`` when somebody listens or this user may not ask, else why the socket is of no use."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, NotADirectoryError):
            return "absent"
        except ConnectionRefusedError:
            return "nobody listens"
        except (PermissionError, TimeoutError):
            return "there"
        except OSError as error:
            return str(error)
    return "there"
