"""A package index behind a real web server: PEP 503 and 691 pages, ranges, PEP 658 metadata, faults.

In a test::

    def test_it(package_index):
        package_index.add(wheel("demo", "1.0"))
        package_index.fault("demo", Fault(status=503, times=2), on="file")
        ... use package_index.url ...
        assert package_index.total == 4

From a shell: ``python -m tests.services.index --port 0 --wheels FOLDER`` prints its URL, serves the folder,
and answers ``GET /_requests``, ``POST /_fault`` and ``POST /_reset``.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import dataclasses
import hashlib
import html
import json
import threading
import time
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import quote, urlsplit, urlunsplit

from aiohttp import web

from tests.services.wheels import Distribution, normalise

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from types import TracebackType

Kind = Literal["page", "file", "metadata", "repodata", "package", "any"]

_JSON = "application/vnd.pypi.simple.v1+json"
_HTML = "application/vnd.pypi.simple.v1+html"
_CHUNK = 16 * 1024


@dataclass(frozen=True)
class Fault:
    """What goes wrong. ``times`` counts the requests that it hits, then all is well; None means for ever.

    ``status`` answers with an error (``retry_after`` seconds in the header where given). ``rate`` serves the
    body at that many bytes per second, ``stall_after`` sends so many bytes and then nothing, ``cut_after``
    closes the connection there. ``corrupt`` flips the last byte; ``ranges=False`` answers every request with
    the whole file. ``delay`` waits so many seconds before the first byte. ``redirect`` sends to the same path of
    another server, by its base URL.
    """

    status: int | None = None
    times: int | None = None
    retry_after: str | None = None
    rate: int | None = None
    stall_after: int | None = None
    cut_after: int | None = None
    corrupt: bool = False
    ranges: bool = True
    delay: float = 0.0
    redirect: str | None = None


@dataclass(frozen=True)
class Seen:
    """One request as it came in."""

    method: str
    path: str
    authorization: str | None
    range: str | None
    user_agent: str | None
    host: str
    at: float


@dataclass
class _File:
    distribution: Distribution
    yanked: str | None
    sha256: str | None
    metadata: bytes | None
    upload_time: str
    requires_python: str | None
    size: bool


@dataclass
class _Planned:
    target: str
    on: Kind
    fault: Fault
    left: int | None


@dataclass
class _Account:
    user: str
    password: str
    uses: int | None


@dataclass
class _State:
    files: dict[str, list[_File]] = field(default_factory=dict)
    faults: list[_Planned] = field(default_factory=list)
    accounts: list[_Account] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    json_pages: bool = True


class PackageIndex:
    """The index with its server in a thread of its own. ``with PackageIndex() as index: ...``"""

    def __init__(self, *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self._state = _State()
        self._port = port
        self._tls = tls
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._release: asyncio.Event = asyncio.Event()
        self._stop: asyncio.Event = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name="package-index", daemon=True)
        self._failure: OSError | None = None

    # -- life -----------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Serves from now on; itself. Raises ``OSError`` when the port is taken."""
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def stop(self) -> None:
        """Cuts every connection and ends the thread. The port is free afterwards."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def reset(self) -> None:
        """Forgets packages, faults, accounts and the log; stalled answers end."""
        self._state = _State()
        self._loop.call_soon_threadsafe(self._let_go)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- what it serves -------------------------------------------------------------------------------------

    @property
    def base(self) -> str:
        """Scheme, host and port, without a path."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        """What goes into ``--index-url``."""
        return f"{self.base}/simple/"

    def url_with(self, user: str, password: str) -> str:
        """The index URL with credentials inside."""
        parts = urlsplit(self.url)
        return urlunsplit(
            parts._replace(netloc=f"{quote(user, safe='')}:{quote(password, safe='')}@{parts.netloc}")
        )

    def add(
        self,
        *distributions: Distribution,
        yanked: str | None = None,
        sha256: str | None = None,
        metadata: bytes | Literal["own", "none"] = "own",
        upload_time: str = "2024-01-01T00:00:00Z",
        hashes: bool = True,
        size: bool = True,
    ) -> PackageIndex:
        """Publishes ``distributions``; itself.

        ``yanked`` is the reason; ``sha256`` a hash that the page states instead of the true one
        (``hashes=False``: none); ``metadata`` what PEP 658 serves: the file's own, none, or other bytes.
        """
        for one in distributions:
            served = {"own": one.metadata, "none": None}[metadata] if isinstance(metadata, str) else metadata
            stated = (sha256 or one.sha256) if hashes else None
            entry = _File(one, yanked, stated, served, upload_time, one.requires_python, size)
            self._state.files.setdefault(normalise(one.name), []).append(entry)
        return self

    def add_folder(self, folder: Path) -> PackageIndex:
        """Publishes every wheel in ``folder``; itself."""
        for path in sorted(folder.glob("*.whl")):
            name, version = path.name.split("-")[:2]
            self.add(Distribution(name, version, path.name, path.read_bytes(), _metadata_of(path)))
        return self

    def remove(self, name: str, version: str | None = None) -> None:
        """Withdraws a package or one version of it, as if never published."""
        kept = [
            f for f in self._state.files.pop(normalise(name), []) if version and f.distribution.version != version
        ]
        if kept:
            self._state.files[normalise(name)] = kept

    def html_only(self) -> None:
        """Serves PEP 503 pages whatever the client accepts, as old index servers do."""
        self._state.json_pages = False

    def fault(self, target: str, fault: Fault, *, on: Kind = "any") -> None:
        """Plans ``fault`` for a package name, a path that begins with ``/``, or ``*`` (all requests)."""
        self._state.faults.append(_Planned(target, on, fault, fault.times))

    def heal(self) -> None:
        """Forgets the planned faults and lets stalled answers end."""
        self._state.faults.clear()
        self._loop.call_soon_threadsafe(self._let_go)

    def require(self, user: str, password: str, *, uses: int | None = None) -> None:
        """Asks for credentials from now on; several accounts may be valid. ``uses``: a token that expires."""
        self._state.accounts.append(_Account(user, password, uses))

    def expire(self) -> None:
        """Every account is refused from now on; :meth:`require` gives out a new one."""
        for account in self._state.accounts:
            account.uses = 0

    # -- what it saw ----------------------------------------------------------------------------------------

    @property
    def seen(self) -> list[Seen]:
        """Every request since the last reset, in order."""
        return list(self._state.seen)

    @property
    def total(self) -> int:
        """The number of requests since the last reset."""
        return len(self._state.seen)

    @property
    def requests(self) -> Counter[str]:
        """The number of requests by path."""
        return Counter(one.path for one in self._state.seen)

    @property
    def authorizations(self) -> list[str]:
        """Every Authorization header received, in order."""
        return [one.authorization for one in self._state.seen if one.authorization is not None]

    def count(self, package: str) -> int:
        """The number of requests for a package's page, files and metadata."""
        name = normalise(package)
        return sum(one.path.startswith((f"/simple/{name}/", f"/files/{name}/")) for one in self._state.seen)

    def forget_requests(self) -> None:
        """Sets the counters to zero; packages and faults stay."""
        self._state.seen.clear()

    # -- the server -----------------------------------------------------------------------------------------

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._run())
        finally:
            self._ready.set()
            self._loop.close()

    async def _run(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", self._port, ssl_context=self._tls)
            await site.start()
            self._port = runner.addresses[0][1]
            self._ready.set()
            await self._stop.wait()
            self._let_go()
        except OSError as error:
            self._failure = error
        finally:
            await runner.cleanup()
            await self._cut_off()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _cut_off(self) -> None:
        """Closes every socket: TLS connections say goodbye first, which needs turns of the loop."""
        for _ in range(200):
            known = list(getattr(self._loop, "_transports", {}).values())
            left = [one for one in known if getattr(one, "_sock", None) is not None]
            if not left:
                return
            for one in left:
                one.abort()
            await asyncio.sleep(0.01)

    def _let_go(self) -> None:
        self._release.set()
        self._release = asyncio.Event()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path.startswith("/_"):
            return await self._control(request)
        headers = request.headers
        seen = Seen(
            request.method,
            path,
            headers.get("Authorization"),
            headers.get("Range"),
            headers.get("User-Agent"),
            request.host,
            time.time(),
        )
        self._state.seen.append(seen)
        if not self._allowed(seen.authorization):
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="index"'}, text="sign in")
        kind, package, filename = self._parsed(path)
        fault = self._next_fault(path, kind, package)
        if fault.delay:
            await asyncio.sleep(fault.delay)
        if fault.status is not None:
            extra = {"Retry-After": fault.retry_after} if fault.retry_after is not None else {}
            return web.Response(status=fault.status, headers=extra, text=f"planned {fault.status}")
        if fault.redirect is not None:
            return web.Response(status=302, headers={"Location": f"{fault.redirect}{path}"})
        return await self._content(request, kind, package, filename, fault)

    def _parsed(self, path: str) -> tuple[str, str, str]:
        """The kind of what a path names, the package, and the file."""
        return _parse(path)

    async def _content(
        self, request: web.Request, kind: str, package: str, filename: str, fault: Fault
    ) -> web.StreamResponse:
        files = self._state.files.get(package, [])
        if kind == "root":
            return await self._send(request, self._root().encode(), _HTML, fault)
        if kind == "page" and files:
            if request.path != f"/simple/{package}/":
                return web.Response(status=301, headers={"Location": f"/simple/{package}/"})
            wants_json = self._state.json_pages and _JSON in request.headers.get("Accept", "")
            body = _json_page(package, files) if wants_json else _html_page(package, files)
            return await self._send(request, body.encode(), _JSON if wants_json else _HTML, fault)
        match = next((f for f in files if f.distribution.filename == filename), None)
        if kind == "file" and match is not None:
            return await self._send(request, match.distribution.data, "application/octet-stream", fault)
        if kind == "metadata" and match is not None and match.metadata is not None:
            return await self._send(request, match.metadata, "text/plain", fault)
        return web.Response(status=404, text="not here")

    def _root(self) -> str:
        links = "".join(f'<a href="/simple/{name}/">{name}</a>\n' for name in sorted(self._state.files))
        return f"<!DOCTYPE html><html><body>\n{links}</body></html>"

    def _allowed(self, authorization: str | None) -> bool:
        if not self._state.accounts:
            return True
        for account in self._state.accounts:
            expected = base64.b64encode(f"{account.user}:{account.password}".encode()).decode()
            if authorization in {f"Basic {expected}", f"Bearer {account.password}"} and account.uses != 0:
                if account.uses is not None:
                    account.uses -= 1
                return True
        return False

    def _next_fault(self, path: str, kind: str, package: str) -> Fault:
        for planned in self._state.faults:
            aimed = planned.target in {"*", path} or (
                not planned.target.startswith("/") and normalise(planned.target) == package
            )
            if aimed and planned.on in {"any", kind} and planned.left != 0:
                if planned.left is not None:
                    planned.left -= 1
                return planned.fault
        return Fault()

    async def _send(
        self,
        request: web.Request,
        body: bytes,
        content_type: str,
        fault: Fault,
        more: Mapping[str, str] | None = None,
    ) -> web.StreamResponse:
        if fault.corrupt and body:
            body = body[:-1] + bytes([body[-1] ^ 0xFF])
        tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        headers = {"ETag": tag, "Content-Type": content_type, "Cache-Control": "max-age=0", **(more or {})}
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=headers)
        status, start, end = 200, 0, len(body)
        if fault.ranges:
            headers["Accept-Ranges"] = "bytes"
            asked = _range(request, tag, len(body))
            if asked == "outside":
                return web.Response(status=416, headers={"Content-Range": f"bytes */{len(body)}"})
            if asked is not None:
                status, (start, end) = 206, asked
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(body)}"
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = end - start
        await response.prepare(request)
        if request.method != "HEAD":
            with contextlib.suppress(ConnectionError):  # the client may leave at any time
                await self._pour(request, response, body[start:end], fault)
        return response

    async def _pour(self, request: web.Request, response: web.StreamResponse, body: bytes, fault: Fault) -> None:
        limits = [n for n in (fault.stall_after, fault.cut_after) if n is not None]
        shown = body[: min([len(body), *limits])]
        step = max(1, fault.rate // 10) if fault.rate else _CHUNK
        for at in range(0, len(shown), step):
            await response.write(shown[at : at + step])
            if fault.rate:
                await asyncio.sleep(0.1)
        if fault.stall_after is not None:
            await self._release.wait()
        if limits and request.transport is not None:
            request.transport.close()
        elif not limits:
            await response.write_eof()

    async def _control(self, request: web.Request) -> web.Response:
        if request.path == "/_requests":
            return web.json_response(
                {
                    "total": self.total,
                    "paths": dict(sorted(self.requests.items())),
                    "seen": [dataclasses.asdict(one) for one in self._state.seen],
                }
            )
        if request.path == "/_fault" and request.method == "POST":
            document = await request.json()
            target, kind = document.pop("target"), document.pop("on", "any")
            self.fault(target, Fault(**document), on=kind)
            return web.json_response({})
        if request.path == "/_reset" and request.method == "POST":
            self.forget_requests()
            self.heal()
            return web.json_response({})
        return web.Response(status=404, text="no such control")


def _parse(path: str) -> tuple[str, str, str]:
    parts = path.strip("/").split("/")
    if parts == ["simple"]:
        return "root", "", ""
    if parts[0] == "simple" and len(parts) == 2:
        return "page", normalise(parts[1]), ""
    if parts[0] == "files" and len(parts) == 3:
        if parts[2].endswith(".metadata"):
            return "metadata", parts[1], parts[2].removesuffix(".metadata")
        return "file", parts[1], parts[2]
    return "unknown", "", ""


def _range(request: web.Request, tag: str, size: int) -> tuple[int, int] | Literal["outside"] | None:
    if request.headers.get("If-Range", tag) != tag:
        return None
    try:
        asked = request.http_range
    except ValueError:
        return "outside"
    if asked.start is None and asked.stop is None:
        return None
    start, stop, _ = slice(asked.start, asked.stop).indices(size)
    return (start, stop) if start < stop else "outside"


def _json_page(package: str, files: list[_File]) -> str:
    entries = []
    for one in files:
        metadata = {"sha256": hashlib.sha256(one.metadata).hexdigest()} if one.metadata is not None else False
        entries.append(
            {
                "filename": one.distribution.filename,
                "url": f"../../files/{package}/{one.distribution.filename}",
                "hashes": {"sha256": one.sha256} if one.sha256 else {},
                "requires-python": one.requires_python,
                "yanked": one.yanked if one.yanked is not None else False,
                "core-metadata": metadata,
                "upload-time": one.upload_time,
                **({"size": one.distribution.size} if one.size else {}),
            }
        )
    versions = sorted({one.distribution.version for one in files})
    document = {"meta": {"api-version": "1.1"}, "name": package, "versions": versions, "files": entries}
    return json.dumps(document)


def _html_page(package: str, files: list[_File]) -> str:
    lines = []
    for one in files:
        fragment = f"#sha256={one.sha256}" if one.sha256 else ""
        attributes = ""
        if one.requires_python:
            attributes += f' data-requires-python="{html.escape(one.requires_python)}"'
        if one.yanked is not None:
            attributes += f' data-yanked="{html.escape(one.yanked)}"'
        if one.metadata is not None:
            attributes += f' data-core-metadata="sha256={hashlib.sha256(one.metadata).hexdigest()}"'
        name = one.distribution.filename
        lines.append(f'<a href="../../files/{package}/{name}{fragment}"{attributes}>{name}</a><br>')
    return "<!DOCTYPE html><html><body>\n" + "\n".join(lines) + "\n</body></html>"


def _metadata_of(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return archive.read(name)


def main() -> None:
    """Serves a folder of wheels until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.services.index")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--wheels", type=Path, action="append", default=[], help="folder of wheels to serve")
    parser.add_argument("--user")
    parser.add_argument("--password")
    options = parser.parse_args()
    with PackageIndex(port=options.port) as index:
        for folder in options.wheels:
            index.add_folder(folder)
        if options.user is not None:
            index.require(options.user, options.password or "")
        print(index.url, flush=True)  # noqa: T201 - the URL is this command's result
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
