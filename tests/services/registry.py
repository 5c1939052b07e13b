"""A complete little registry of images in memory, which also fails, lies and stalls when told to.

In a test::

    def test_it(fake_registry):
        fake_registry.fault("manifest", Fault(status=503, times=2))
        ... use fake_registry.host ...
        assert fake_registry.requests["GET", "manifest"] == 3
        assert fake_registry.received[digest] == size

For what a real registry won't do; everything else is tested against real ones.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import struct
import threading
import time
import uuid
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from types import TracebackType

Kind = Literal["base", "manifest", "blob", "upload", "tags", "referrers", "token", "elsewhere", "unknown"]

_NAME = r"(?P<name>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
_ROUTES: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("base", re.compile(r"/v2/?")),
    ("token", re.compile(r"/token")),
    ("elsewhere", re.compile(r"/elsewhere/(?P<what>.+)")),
    ("upload", re.compile(rf"/v2/{_NAME}/blobs/uploads/(?P<what>[^/]*)")),
    ("blob", re.compile(rf"/v2/{_NAME}/blobs/(?P<what>[^/]+)")),
    ("manifest", re.compile(rf"/v2/{_NAME}/manifests/(?P<what>[^/]+)")),
    ("tags", re.compile(rf"/v2/{_NAME}/tags/list")),
    ("referrers", re.compile(rf"/v2/{_NAME}/referrers/(?P<what>[^/]+)")),
)
_BLOCK = 1 << 16
_INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True)
class Fault:
    """What goes wrong. ``times`` counts the requests that it hits, then all is well; None means for ever.

    ``status`` answers with an error document of ``code`` (or with ``body`` as it is), with ``headers`` on top.
    ``cut_after`` closes the connection after so many bytes of the request's body, or of the answer's where the
    request has none; an upload keeps what came in unless ``forget``. ``delay`` waits so many seconds first,
    ``silent`` says nothing until the registry is reset. ``corrupt`` flips the last byte of the answer.
    ``foreign`` answers like a server that is not a registry: without the header that names the API.
    """

    status: int | None = None
    code: str = "UNKNOWN"
    message: str = "scripted"
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    times: int | None = None
    cut_after: int | None = None
    forget: bool = False
    delay: float = 0.0
    silent: bool = False
    corrupt: bool = False
    foreign: bool = False


@dataclass(frozen=True)
class Seen:
    """One request as it came in."""

    method: str
    kind: Kind
    path: str
    host: str
    authorization: str | None
    range: str | None


@dataclass
class _Planned:
    kind: Kind
    method: str | None
    fault: Fault
    left: int | None


@dataclass
class _Upload:
    repository: str
    data: bytearray = field(default_factory=bytearray)


@dataclass
class _Account:
    scheme: Literal["basic", "token"]
    user: str
    password: str
    life: float
    anonymous: bool


@dataclass
class State:
    """What the registry holds and what it was asked."""

    blobs: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """By repository and digest."""
    manifests: dict[str, dict[str, tuple[str, bytes]]] = field(default_factory=dict)
    """By repository and digest: media type and bytes."""
    tags: dict[str, dict[str, str]] = field(default_factory=dict)
    uploads: dict[str, _Upload] = field(default_factory=dict)
    tokens: dict[str, tuple[float, frozenset[str]]] = field(default_factory=dict)
    faults: list[_Planned] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    received: Counter[str] = field(default_factory=Counter)
    hidden: dict[str, int] = field(default_factory=dict)


class FakeRegistry:
    """The registry with its server in threads of its own. ``with FakeRegistry() as registry: ...``

    ``repositories`` limits what exists (None: a push creates). ``referrers`` offers the referrers API,
    ``mounts`` mounts blobs across repositories, ``redirects`` serves blobs from another host name,
    ``hide`` answers 404 to so many reads of a manifest after it was pushed, ``page`` limits lists of tags.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.registry = self
        self._tls = tls
        if tls is not None:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="registry", daemon=True
        )
        self.lock = threading.RLock()
        self.released = threading.Event()
        self.reset()

    def reset(self) -> None:
        """Empties it and forgets faults, logins and counters."""
        self.released.set()
        with self.lock:
            self.released = threading.Event()
            self.state = State()
            self.account: _Account | None = None
            self.repositories: set[str] | None = None
            self.referrers = True
            self.mounts = True
            self.redirects = False
            self.hide = 0
            self.page = 1000

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    # -- what a test says and reads -------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The port on 127.0.0.1."""
        return int(self._server.server_address[1])

    @property
    def host(self) -> str:
        """What stands before the first slash of a reference."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Where it is, with the scheme."""
        return f"{'https' if self._tls else 'http'}://{self.host}"

    def fault(self, kind: Kind, fault: Fault, *, method: str | None = None) -> None:
        """From now on ``fault`` hits the requests of ``kind`` (and ``method``)."""
        with self.lock:
            self.state.faults.append(_Planned(kind, method, fault, fault.times))

    def require_password(self, user: str, password: str) -> None:
        """Every request needs this login (Basic)."""
        self.account = _Account("basic", user, password, 0.0, anonymous=False)

    def require_token(self, user: str, password: str, *, life: float = 300.0, anonymous: bool = False) -> None:
        """Every request needs a token from ``/token``, which lives for ``life`` seconds.

        ``password`` is taken as an identity token as well; ``anonymous`` gives a token for pulling to everybody.
        """
        self.account = _Account("token", user, password, life, anonymous)

    def revoke_tokens(self) -> None:
        """No token that was given so far is taken any more."""
        with self.lock:
            self.state.tokens.clear()

    @property
    def requests(self) -> Counter[tuple[str, Kind]]:
        """How many requests came in, by method and kind."""
        with self.lock:
            return Counter((one.method, one.kind) for one in self.state.seen)

    @property
    def seen(self) -> list[Seen]:
        """Every request, in order."""
        with self.lock:
            return list(self.state.seen)

    @property
    def received(self) -> Counter[str]:
        """Bytes of the bodies of finished uploads, by digest: all that came in, sent again or not."""
        with self.lock:
            return Counter(self.state.received)

    def forget_requests(self) -> None:
        """Counts from zero; what it holds stays."""
        with self.lock:
            self.state.seen.clear()
            self.state.received.clear()

    def holds(self, repository: str, digest: str) -> bool:
        """Whether a blob or manifest is there."""
        with self.lock:
            blobs, manifests = self.state.blobs, self.state.manifests
            return digest in blobs.get(repository, {}) or digest in manifests.get(repository, {})

    def add_blob(self, repository: str, data: bytes) -> str:
        """Puts a blob there; its digest."""
        digest = digest_of(data)
        with self.lock:
            self.state.blobs.setdefault(repository, {})[digest] = data
        return digest

    def add_manifest(self, repository: str, media_type: str, data: bytes, *, tag: str | None = None) -> str:
        """Puts a manifest there; its digest."""
        digest = digest_of(data)
        with self.lock:
            self.state.manifests.setdefault(repository, {})[digest] = (media_type, data)
            if tag is not None:
                self.state.tags.setdefault(repository, {})[tag] = digest
        return digest


def digest_of(data: bytes) -> str:
    """``sha256:...`` of the bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    registry: FakeRegistry

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


class _Cut(Exception):
    """The connection is to be closed."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server
    kind: Kind
    fault: Fault
    left = 0

    def log_message(self, *_: object) -> None:
        return

    # -- one request ----------------------------------------------------------------------------------------

    def answer(self) -> None:
        parts = urlsplit(self.path)
        self.query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        self.kind, found = _route(parts.path)
        self.name = found.get("name", "")
        self.what = found.get("what", "")
        self.left = int(self.headers.get("Content-Length") or 0)
        self.registry = self.server.registry
        self.note()
        self.fault = self.planned()
        try:
            self.misbehave()
            if self.kind in ("elsewhere", "token") or self.permitted():
                getattr(self, f"on_{self.kind}", self.on_unknown)()
        except _Cut:
            self.cut()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

    @property
    def here(self) -> str:
        """Where the client believes the registry to be."""
        registry = self.server.registry
        return f"{registry.url.partition(':')[0]}://{self.headers.get('Host', registry.host)}"

    def note(self) -> None:
        headers = self.headers
        seen = Seen(
            self.command,
            self.kind,
            self.path,
            headers.get("Host", ""),
            headers.get("Authorization"),
            headers.get("Range"),
        )
        with self.registry.lock:
            self.registry.state.seen.append(seen)

    def planned(self) -> Fault:
        with self.registry.lock:
            for one in self.registry.state.faults:
                hit = one.kind == self.kind and one.method in (None, self.command)
                if hit and (one.left is None or one.left > 0):
                    if one.left is not None:
                        one.left -= 1
                    return one.fault
        return Fault()

    def misbehave(self) -> None:
        fault = self.fault
        if fault.silent:
            self.registry.released.wait()
            raise _Cut
        if fault.delay:
            time.sleep(fault.delay)
        if fault.status is not None:
            body = fault.body if fault.body is not None else _errors(fault.code, fault.message)
            self.say(fault.status, body, fault.headers, api=not fault.foreign)
            raise _Answered

    def cut(self) -> None:
        """Resets the connection, so that the other side is told at once."""
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def handle_one_request(self) -> None:
        with suppress(_Answered, ConnectionError):
            super().handle_one_request()
            return
        # the connection goes on after a scripted answer, and is gone after the others

    # -- who may --------------------------------------------------------------------------------------------

    def permitted(self) -> bool:
        account = self.registry.account
        if account is None:
            return True
        given = self.headers.get("Authorization", "")
        if account.scheme == "basic":
            if given == basic(account.user, account.password):
                return True
            self.refuse('Basic realm="tests"')
            return False
        wanted = "pull" if self.command in ("GET", "HEAD") and self.kind != "upload" else "push"
        with self.registry.lock:
            until, allowed = self.registry.state.tokens.get(given.removeprefix("Bearer "), (0.0, frozenset()))
        if time.monotonic() < until and (not self.name or f"{self.name}:{wanted}" in allowed):
            return True
        actions = "pull" if wanted == "pull" else "pull,push"
        scope = f',scope="repository:{self.name}:{actions}"' if self.name else ""
        self.refuse(f'Bearer realm="{self.here}/token",service="tests"{scope}')
        return False

    def refuse(self, challenge: str) -> None:
        self.say(401, _errors("UNAUTHORIZED", "authentication required"), {"WWW-Authenticate": challenge})

    def on_token(self) -> None:
        account = self.registry.account
        assert account is not None
        scopes = parse_qs(urlsplit(self.path).query).get("scope", [])
        known = self.headers.get("Authorization") == basic(account.user, account.password)
        if self.command == "POST":
            form = parse_qs(self.body().decode())
            known = form.get("refresh_token") == [account.password]
            scopes = form.get("scope", [""])[0].split(" ")
        elif self.headers.get("Authorization") and not known:
            self.say(401, _errors("UNAUTHORIZED", "wrong password"))
            return
        if not known and (self.command == "POST" or not account.anonymous):
            self.say(401, _errors("UNAUTHORIZED", "no account"))
            return
        allowed = set()
        for scope in filter(None, scopes):
            _, name, actions = scope.split(":")
            allowed |= {f"{name}:{action}" for action in actions.split(",") if known or action == "pull"}
        token = uuid.uuid4().hex
        with self.registry.lock:
            self.registry.state.tokens[token] = (time.monotonic() + account.life, frozenset(allowed))
        document = {"access_token" if self.command == "POST" else "token": token, "expires_in": account.life}
        self.say(200, json.dumps(document).encode(), {"Content-Type": "application/json"})

    # -- what it serves -------------------------------------------------------------------------------------

    def on_base(self) -> None:
        self.say(200, b"{}", {"Content-Type": "application/json"})

    def on_unknown(self) -> None:
        self.say(404, b"<html>no such page</html>", {"Content-Type": "text/html"}, api=False)

    def exists(self) -> bool:
        allowed = self.registry.repositories
        if allowed is None or self.name in allowed:
            return True
        self.say(404, _errors("NAME_UNKNOWN", f"repository {self.name} does not exist"))
        return False

    def on_manifest(self) -> None:
        if not self.exists():
            return
        if self.command == "PUT":
            self.take_manifest()
            return
        registry = self.registry
        with registry.lock:
            digest = registry.state.tags.get(self.name, {}).get(self.what, self.what)
            found = registry.state.manifests.get(self.name, {}).get(digest)
            if found is not None and registry.state.hidden.get(digest, 0) > 0:
                registry.state.hidden[digest] -= 1
                found = None
            if found is not None and self.command == "DELETE":
                del registry.state.manifests[self.name][digest]
        if found is None:
            self.say(404, _errors("MANIFEST_UNKNOWN", "manifest unknown"))
        elif self.command == "DELETE":
            self.say(202)
        else:
            media_type, data = found
            self.say(200, data, {"Content-Type": media_type, "Docker-Content-Digest": digest})

    def take_manifest(self) -> None:
        data = self.body()
        digest = digest_of(data)
        try:
            document = json.loads(data)
        except ValueError:
            self.say(400, _errors("MANIFEST_INVALID", "not JSON"))
            return
        if self.what.startswith("sha256:") and self.what != digest:
            self.say(400, _errors("DIGEST_INVALID", "another digest"))
            return
        registry = self.registry
        with registry.lock:
            blobs = registry.state.blobs.get(self.name, {})
            missing = [one["digest"] for one in _named_blobs(document) if one["digest"] not in blobs]
            if missing:
                self.say(400, _errors("MANIFEST_BLOB_UNKNOWN", missing[0]))
                return
            media_type = self.headers.get("Content-Type", "")
            new = digest not in registry.state.manifests.setdefault(self.name, {})
            registry.state.manifests[self.name][digest] = (media_type, data)
            if new:
                registry.state.hidden[digest] = registry.hide
            if not self.what.startswith("sha256:"):
                registry.state.tags.setdefault(self.name, {})[self.what] = digest
        headers = {"Location": f"/v2/{self.name}/manifests/{digest}", "Docker-Content-Digest": digest}
        if registry.referrers and "subject" in document:
            headers["OCI-Subject"] = document["subject"]["digest"]
        self.say(201, b"", headers)

    def on_blob(self) -> None:
        if not self.exists():
            return
        with self.registry.lock:
            data = self.registry.state.blobs.get(self.name, {}).get(self.what)
        if data is None:
            self.say(404, _errors("BLOB_UNKNOWN", "blob unknown"))
        elif self.registry.redirects and self.command == "GET":
            there = f"{self.here.replace('127.0.0.1', 'localhost')}/elsewhere/{self.name}@{self.what}"
            self.say(307, b"", {"Location": f"{there}?signature=abc"})
        else:
            self.serve(data, {"Docker-Content-Digest": self.what})

    def on_elsewhere(self) -> None:
        name, _, digest = self.what.partition("@")
        with self.registry.lock:
            data = self.registry.state.blobs[name][digest]
        self.serve(data, {})

    def serve(self, data: bytes, headers: dict[str, str]) -> None:
        headers = {"Content-Type": "application/octet-stream", **headers}
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if found is None or self.command == "HEAD":
            self.say(200, data, headers)
            return
        start = int(found[1])
        if start >= len(data):
            self.say(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.say(206, data[start:], headers)

    def on_tags(self) -> None:
        if not self.exists():
            return
        with self.registry.lock:
            names = sorted(self.registry.state.tags.get(self.name, {}))
        after = [name for name in names if name > self.query.get("last", "")]
        shown = after[: min(self.registry.page, int(self.query.get("n", self.registry.page)))]
        headers = {"Content-Type": "application/json"}
        if len(shown) < len(after):
            headers["Link"] = f'</v2/{self.name}/tags/list?n={len(shown)}&last={shown[-1]}>; rel="next"'
        self.say(200, json.dumps({"name": self.name, "tags": shown}).encode(), headers)

    def on_referrers(self) -> None:
        if not self.registry.referrers:
            self.on_unknown()
            return
        found = []
        with self.registry.lock:
            for digest, (media_type, data) in self.registry.state.manifests.get(self.name, {}).items():
                document = json.loads(data)
                if document.get("subject", {}).get("digest") == self.what:
                    kind = document.get("artifactType")
                    found.append(
                        {"mediaType": media_type, "digest": digest, "size": len(data), "artifactType": kind}
                    )
        document = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": found}
        self.say(200, json.dumps(document).encode(), {"Content-Type": _INDEX})

    # -- uploads --------------------------------------------------------------------------------------------

    def on_upload(self) -> None:
        if not self.exists():
            return
        if self.command == "POST":
            self.begin()
            return
        with self.registry.lock:
            upload = self.registry.state.uploads.get(self.what)
        if upload is None or self.query.get("state") != "kept":
            self.say(404, _errors("BLOB_UPLOAD_UNKNOWN", "upload unknown"))
        elif self.command == "DELETE":
            self.registry.state.uploads.pop(self.what, None)
            self.say(204)
        elif self.command == "GET":
            self.say(204, b"", self.progress(upload))
        elif self.command == "PATCH":
            self.patch(upload)
        else:
            self.finish_upload(upload)

    def begin(self) -> None:
        source, digest = self.query.get("from"), self.query.get("mount")
        if source and digest:
            with self.registry.lock:
                blobs = self.registry.state.blobs
                if self.registry.mounts and digest in blobs.get(source, {}):
                    blobs.setdefault(self.name, {})[digest] = blobs[source][digest]
                    self.say(201, b"", {"Location": f"/v2/{self.name}/blobs/{digest}"})
                    return
        self.what = uuid.uuid4().hex
        upload = _Upload(self.name)
        with self.registry.lock:
            self.registry.state.uploads[self.what] = upload
        self.say(202, b"", self.progress(upload))

    def progress(self, upload: _Upload) -> dict[str, str]:
        # one relative and the other absolute, both with a query that must be kept
        place = f"/v2/{self.name}/blobs/uploads/{self.what}?state=kept"
        absolute = self.command == "POST"
        return {
            "Location": f"{self.here}{place}" if absolute else place,
            "Range": f"0-{max(0, len(upload.data) - 1)}",
        }

    def patch(self, upload: _Upload) -> None:
        start = int((self.headers.get("Content-Range") or "0-").partition("-")[0])
        if start != len(upload.data):
            self.say(416, b"", self.progress(upload))
            return
        self.receive(upload)
        self.say(202, b"", self.progress(upload))

    def finish_upload(self, upload: _Upload) -> None:
        self.receive(upload)
        digest, data = self.query.get("digest", ""), bytes(upload.data)
        with self.registry.lock:
            self.registry.state.uploads.pop(self.what, None)
            if digest != digest_of(data):
                self.say(400, _errors("DIGEST_INVALID", "another digest"))
                return
            self.registry.state.blobs.setdefault(self.name, {})[digest] = data
            self.registry.state.received[digest] += self.registry.state.received.pop(self.what, 0)
        self.say(201, b"", {"Location": f"/v2/{self.name}/blobs/{digest}", "Docker-Content-Digest": digest})

    def receive(self, upload: _Upload) -> None:
        def take(block: bytes) -> None:
            with self.registry.lock:
                self.registry.state.received[self.what] += len(block)
                if not self.fault.forget:
                    upload.data += block

        self.read_body(take)

    # -- bytes ----------------------------------------------------------------------------------------------

    def body(self) -> bytes:
        data = bytearray()
        self.read_body(data.extend)
        return bytes(data)

    def read_body(self, take: Callable[[bytes], Any]) -> None:
        limit = self.fault.cut_after
        while self.left:
            wanted = min(self.left, _BLOCK) if limit is None else min(self.left, _BLOCK, limit)
            if not wanted:
                raise _Cut
            block = self.rfile.read(wanted)
            if not block:
                raise _Cut
            self.left -= len(block)
            limit = None if limit is None else limit - len(block)
            take(block)

    def say(
        self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, *, api: bool = True
    ) -> None:
        if self.left:
            # A request that is refused is read to its end: a reset could overtake the answer.
            self.read_body(len)
        if self.fault.corrupt and body:
            body = body[:-1] + bytes([body[-1] ^ 1])
        self.send_response(status)
        if api:
            self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault.cut_after is not None and self.command == "GET" and len(body) > self.fault.cut_after:
            self.wfile.write(body[: self.fault.cut_after])
            self.wfile.flush()
            # an orderly end: a reset could take away bytes that are still on their way
            self.close_connection = True
            return
        self.wfile.write(body)


class _Answered(Exception):
    """A scripted answer was given; nothing else is done."""


def basic(user: str, password: str) -> str:
    """The header of a Basic login."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _route(path: str) -> tuple[Kind, dict[str, str]]:
    for kind, pattern in _ROUTES:
        found = pattern.fullmatch(path)
        if found is not None:
            return kind, found.groupdict()
    return "unknown", {}


def _errors(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


def _named_blobs(document: dict[str, Any]) -> list[dict[str, Any]]:
    if "layers" not in document:
        return []
    return [document["config"], *document["layers"]]
