"""Conda channels: folders of packages with their repodata, and a real web server for them with faults.

In a test::

    channel = Channel(tmp_path / "channel")
    package(channel.folder, "demo", "1.0")
    channel.index()
    with ChannelServer() as server:
        url = server.mount("main", channel)
        server.fault("demo", Fault(status=503, times=2), on="package")
        ... use url ...
        assert server.count("demo") == 3

From a shell: ``python -m tests.services.channel FOLDER --port 0`` indexes and serves a folder and prints its URL.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import threading
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit, urlunsplit

import zstandard
from aiohttp import web

from tests.services.condaarchive import index_of
from tests.services.index import Fault, PackageIndex

if TYPE_CHECKING:
    import ssl
    from collections.abc import Collection

Record = dict[str, object]

_REMEMBERED = ".index.json"
_TOLD = ".told.json"
_REPODATA = ("repodata.json", "repodata.json.zst")


class Channel:
    """A folder with ``SUBDIR/NAME-VERSION-BUILD.conda`` files; :meth:`index` writes its repodata."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        told = json.loads(_text(folder / _TOLD) or '{"stated": {}, "omitted": []}')
        self._stated: dict[str, Record] = told["stated"]
        self._omitted: set[str] = set(told["omitted"])

    @property
    def url(self) -> str:
        """The channel without a server."""
        return self.folder.absolute().as_uri()

    @property
    def subdirs(self) -> list[str]:
        """The subdirs that have packages or had some, and ``noarch``."""
        found = {
            path.parent.name for path in self.folder.glob("*/*") if _is_package(path) or path.name in _REPODATA
        }
        return sorted({*found, "noarch"})

    def find(self, name: str, version: str | None = None, subdir: str | None = None) -> Path:
        """The one file of package ``name``; ``LookupError`` when there is none or more than one."""
        found = [
            path
            for path in self.folder.glob(f"{subdir or '*'}/{name}-*")
            if _is_package(path) and parts(path.name)[0] == name and version in (None, parts(path.name)[1])
        ]
        if len(found) != 1:
            raise LookupError(f"{name} {version or ''} {subdir or ''}: {len(found)} files")
        return found[0]

    def state(self, package: Path, **fields: object) -> None:
        """Makes the repodata say so of a file from the next :meth:`index` on; None leaves a field out."""
        self._stated.setdefault(_place(package), {}).update(fields)

    def omit(self, package: Path) -> None:
        """Leaves a file that stays there out of the repodata, as a channel does that withdraws it."""
        self._omitted.add(_place(package))

    def cut(self, package: Path, length: int) -> None:
        """Ends a file after ``length`` bytes; the repodata go on to describe the whole."""
        path = self.folder / _place(package)
        self._stated[_place(package)] = {**_record(path), **self._stated.get(_place(package), {})}
        data = path.read_bytes()[:length]
        path.unlink()  # it may be a link to another channel's file
        path.write_bytes(data)

    def index(self, *, compressed: bool = True) -> Channel:
        """Writes ``repodata.json`` (and ``.zst``) of every subdir, the same bytes for the same packages; itself."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _replace(
            self.folder / _TOLD, json.dumps({"stated": self._stated, "omitted": sorted(self._omitted)}).encode()
        )
        for subdir in self.subdirs:
            folder = self.folder / subdir
            folder.mkdir(parents=True, exist_ok=True)
            groups: dict[str, dict[str, Record]] = {"packages": {}, "packages.conda": {}}
            for name, record in self._records(folder).items():
                groups["packages.conda" if name.endswith(".conda") else "packages"][name] = record
            document = {"info": {"subdir": subdir}, **groups, "removed": [], "repodata_version": 1}
            data = json.dumps(document, indent=1, sort_keys=True).encode()
            _replace(folder / "repodata.json", data)
            if compressed:
                _replace(folder / "repodata.json.zst", zstandard.ZstdCompressor(level=3).compress(data))
            else:
                (folder / "repodata.json.zst").unlink(missing_ok=True)
        return self

    def records(self, subdir: str) -> dict[str, Record]:
        """What the repodata of ``subdir`` say, by file name."""
        document = json.loads((self.folder / subdir / "repodata.json").read_text(encoding="utf-8"))
        found: dict[str, Record] = {**document["packages"], **document["packages.conda"]}
        return found

    def mirror(self, folder: Path, *, without: Collection[str] = ()) -> Channel:
        """Another channel in ``folder`` with the same files, except those of the packages ``without``.

        The files are linked where the file system allows; changing one by :meth:`cut` or by writing a package
        anew leaves this channel alone.
        """
        for path in sorted(self.folder.glob("*/*")):
            if not _is_package(path) or parts(path.name)[0] not in without:
                target = folder / path.parent.name / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                if path.name in _REPODATA or path.name == _REMEMBERED:
                    _replace(target, path.read_bytes())
                else:
                    _link(path, target)
        copy = Channel(folder)
        copy._stated = {name: dict(fields) for name, fields in self._stated.items() if (folder / name).exists()}
        copy._omitted = set(self._omitted)
        return copy.index()

    def _records(self, folder: Path) -> dict[str, Record]:
        """A record of each package file in ``folder``; what was read of an unchanged file is remembered."""
        memory = folder / _REMEMBERED
        known = json.loads(_text(memory) or "{}")
        read: dict[str, tuple[list[int], Record]] = {}
        found: dict[str, Record] = {}
        for path in sorted(folder.iterdir()):
            if not _is_package(path) or _place(path) in self._omitted:
                continue
            stated = self._stated.get(_place(path), {})
            if "name" in stated:  # the file itself cannot be read
                record: Record = stated
            else:
                stat = path.stat()
                stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
                before = known.get(path.name)
                record = before[1] if before is not None and before[0] == stamp else _record(path)
                read[path.name] = (stamp, record)
            found[path.name] = {key: value for key, value in {**record, **stated}.items() if value is not None}
        if read:
            _replace(memory, json.dumps(read).encode())
        return found


class ChannelServer(PackageIndex):
    """Channels on a port of their own. ``with ChannelServer() as server: url = server.mount("main", channel)``

    Faults, accounts, the log and TLS are those of :class:`PackageIndex`. A fault's target is a package name, a
    path, or ``*``; its kind ``repodata`` or ``package``.
    """

    def __init__(self, *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(port=port, tls=tls)
        self._channels: dict[str, Path] = {}
        self._frozen: dict[Path, bytes] = {}
        self._tokens: dict[str, bool] = {}
        self._elsewhere: dict[str, str] = {}
        self.cache_control = "max-age=0"
        """What the answers with repodata say of how long they hold."""

    def mount(self, name: str, channel: Channel | Path) -> str:
        """The URL of ``channel``, served as ``NAME`` from now on; two names of one channel are mirrors."""
        self._channels[name] = channel.folder if isinstance(channel, Channel) else channel
        return self.url_of(name)

    def url_of(self, name: str) -> str:
        """The URL of a channel without credentials."""
        return f"{self.base}/{name}"

    def url_with(self, user: str, password: str, name: str = "") -> str:
        """The URL of a channel (or of the server) with credentials inside."""
        url = urlsplit(self.url_of(name))
        return urlunsplit(
            url._replace(netloc=f"{quote(user, safe='')}:{quote(password, safe='')}@{url.netloc}")
        ).rstrip("/")

    def url_with_token(self, token: str, name: str) -> str:
        """The URL of a channel with ``/t/TOKEN/`` inside."""
        return f"{self.base}/t/{quote(token, safe='')}/{name}"

    def require_token(self, token: str) -> None:
        """Asks for a valid ``/t/TOKEN/`` from now on; several may be valid."""
        self._tokens[token] = True

    def expire(self) -> None:
        """Every account and token is refused from now on."""
        super().expire()
        self._tokens = dict.fromkeys(self._tokens, False)

    def redirect(self, name: str, url: str) -> None:
        """Answers requests for package files of a channel with the way to the same files below ``url``."""
        self._elsewhere[name] = url

    def freeze(self, name: str) -> None:
        """Serves the repodata of a channel as they are now, whatever is indexed later."""
        for path in self._channels[name].glob("*/*"):
            if path.name in _REPODATA:
                self._frozen[path] = path.read_bytes()

    def thaw(self) -> None:
        """Serves the repodata as they are."""
        self._frozen.clear()

    def reset(self) -> None:
        """Forgets channels, redirections, faults, accounts, tokens and the log; stalled answers end."""
        super().reset()
        self._channels, self._frozen, self._tokens, self._elsewhere = {}, {}, {}, {}
        self.cache_control = "max-age=0"

    def count(self, package: str) -> int:
        """The number of requests for files of a package."""
        return sum(self._parsed(one.path)[:2] == ("package", package) for one in self._state.seen)

    def downloaded(self) -> list[str]:
        """The names of the package files asked for, in order."""
        parsed = [self._parsed(one.path) for one in self._state.seen if one.method == "GET"]
        return [filename for kind, _, filename in parsed if kind == "package"]

    def _parsed(self, path: str) -> tuple[str, str, str]:
        filename = path.rpartition("/")[2]
        if filename.startswith(("repodata", "current_repodata")):
            return "repodata", "", filename
        if _is_package(Path(filename)):
            return "package", parts(filename)[0], filename
        return "unknown", "", filename

    async def _content(
        self, request: web.Request, kind: str, package: str, filename: str, fault: Fault
    ) -> web.StreamResponse:
        steps = request.path.strip("/").split("/")
        if steps[0] == "t" and len(steps) > 2:
            token, steps = steps[1], steps[2:]
        else:
            token = ""
        if self._tokens and not self._tokens.get(token, False):
            return web.Response(status=401, text="no valid token")
        name = "/".join(steps[:-2])
        if kind == "package" and name in self._elsewhere:
            return web.Response(status=302, headers={"Location": f"{self._elsewhere[name]}/{steps[-2]}/{filename}"})
        folder = self._channels.get(name)
        path = None if folder is None else folder / steps[-2] / filename
        if kind == "unknown" or path is None or ".." in steps or not (path in self._frozen or path.is_file()):
            return web.Response(status=404, text="not here")
        return await self._file(request, kind, path, fault)

    async def _file(self, request: web.Request, kind: str, path: Path, fault: Fault) -> web.StreamResponse:
        body = self._frozen.get(path) or path.read_bytes()
        changed = formatdate(path.stat().st_mtime if path.exists() else 0, usegmt=True)
        content_type = "application/json" if path.suffix == ".json" else "application/octet-stream"
        cached = self.cache_control if kind == "repodata" else "public, max-age=31536000"
        more = {"Last-Modified": changed, "Cache-Control": cached}
        if "If-None-Match" not in request.headers and request.headers.get("If-Modified-Since") == changed:
            return web.Response(status=304, headers=more)
        return await self._send(request, body, content_type, fault, more)


def _record(path: Path) -> Record:
    data = path.read_bytes()
    return {
        **index_of(path),
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
    }


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def _place(package: Path) -> str:
    """A package file's path below the folder of its channel: the same name may be in two subdirs."""
    return f"{package.parent.name}/{package.name}"


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _is_package(path: Path) -> bool:
    return path.name.endswith((".conda", ".tar.bz2"))


def parts(filename: str) -> tuple[str, str]:
    """Name and version of a package file."""
    name, _, rest = filename.removesuffix(".conda").removesuffix(".tar.bz2").rpartition("-")[0].rpartition("-")
    return name, rest


def _replace(path: Path, data: bytes) -> None:
    scratch = path.with_name(f".{os.getpid()}-{path.name}")
    scratch.write_bytes(data)
    scratch.replace(path)


def main() -> None:
    """Indexes and serves folders until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.services.channel")
    parser.add_argument("folder", type=Path, nargs="+", help="served under its own name")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    options = parser.parse_args()
    with ChannelServer(port=options.port) as server:
        for folder in options.folder:
            print(server.mount(folder.name, Channel(folder).index()), flush=True)  # noqa: T201 - the result
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
