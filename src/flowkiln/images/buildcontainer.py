"""Builds of wheels in containers: the image of the build requirements, the project's files in, the wheel out.

The container has no mounts, no capabilities and, unless the user asks for one, no network; it is removed with
all that the build wrote. Only the folder of the answer comes out of it.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import shutil
import tarfile
import tempfile
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from flowkiln._base import parallel
from flowkiln.envs import build_wheel, hostbuild
from flowkiln.envs.builderrors import BadBuild
from flowkiln.images import places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from flowkiln._base.engineconnection import Body
    from flowkiln._base.json import JSONObject
    from flowkiln._base.platforms import Platform
    from flowkiln.envs.builds import Job

FOLDER = "/flowkiln-build"
_USER = 1000
_SCRIPT = Path(build_wheel.__file__)
_MOST = 8 << 30
"""Bytes of an answer above which something else than a wheel is in it."""
_LOG = 64 << 20
"""Bytes of what a build says that are kept."""
_PIECE = 1 << 20


class Containers(Protocol):
    """What of a container engine is needed here."""

    @property
    def podman(self) -> bool:
        """Whether it is Podman."""

    def create(self, name: str, spec: JSONObject, *, platform: str | None = None) -> str:
        """The id of a new container."""

    def start(self, container: str) -> None:
        """The container runs, or has run."""

    def inspect(self, container: str) -> JSONObject | None:
        """What the engine knows of a container."""

    def logs(self, container: str, *, follow: bool) -> Iterable[tuple[str, bytes]]:
        """What the container wrote."""

    def put_archive(self, container: str, path: str, data: Body) -> None:
        """The tar ``data`` is unpacked in ``path``."""

    def get_archive(self, container: str, path: str) -> Iterator[bytes]:
        """A tar of ``path``, in pieces."""

    def changes(self, container: str) -> list[str]:
        """The paths that differ from those of its image."""

    def remove(self, container: str) -> bool:
        """The container is gone."""


class ContainerRunner:
    """Runs builds in containers of one engine.

    ``base_of`` names the image, with its digest, that builds for Python ``X.Y`` on a platform run on; ``image_of``
    has the engine hold the image of a job's build requirements on that base, and names it. ``seconds`` is how long
    a build may take.
    """

    def __init__(
        self,
        engine: Containers,
        base_of: Callable[[str, Platform], str],
        image_of: Callable[[Job, str], str],
        *,
        seconds: float,
        network: bool,
    ) -> None:
        self._engine = engine
        self._base_of = base_of
        self._image_of = image_of
        self._seconds = seconds
        self._network = network

    def where(self, python: str, platform: Platform) -> str:
        """The base that builds run on: ``python:3.12@sha256:...``."""
        return self._base_of(python, platform)

    def run(self, job: Job, where: str) -> None:
        """As ``Runner.run``; also raises the errors of engines, registries and baking."""
        image = self._image_of(job, where)
        container = self._engine.create(f"flowkiln-build-{secrets.token_hex(6)}", self._spec(job, image))
        try:
            with tempfile.TemporaryFile() as packed:
                _pack(job, packed, self._seconds)
                self._engine.put_archive(container, "/", _pieces(packed))
            self._engine.start(container)
            code = wait(self._engine, container, self._seconds)
            heard = said(self._engine.logs(container, follow=False))
            log = hostbuild.written_log(job.log, heard)
            if code is None:
                raise hostbuild.too_long(job, self._seconds, heard, log)
            if code != 0:
                raise hostbuild.failed(job, code, heard, log)
            _unpack(self._engine.get_archive(container, f"{FOLDER}/answer"), job)
        finally:
            self._engine.remove(container)

    def _spec(self, job: Job, image: str) -> JSONObject:
        folders = {"HOME": f"{FOLDER}/home", "TMPDIR": f"{FOLDER}/tmp"}  # noqa: S108  folders of the container
        path = f"{places.PREFIX}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        variables = {**hostbuild.variables_of(job), **folders, "PATH": path}
        return {
            "Image": image,
            "Entrypoint": [f"{places.PREFIX}/bin/python"],
            "Cmd": [*hostbuild.SWITCHES, f"{FOLDER}/{_SCRIPT.name}", f"{FOLDER}/request.json"],
            "User": f"{_USER}:{_USER}",
            "WorkingDir": "/",
            "Env": [f"{name}={value}" for name, value in sorted(variables.items())],
            **confined("build", network=self._network, podman=self._engine.podman),
        }


def confined(kind: str, *, network: bool, podman: bool) -> JSONObject:
    """The part of a container's description that keeps what it runs to itself; ``kind`` labels it."""
    host: JSONObject = {
        "NetworkMode": "default" if network else "none",
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "PidsLimit": 4096,
    }
    if not podman:
        host["LogConfig"] = {"Type": "json-file", "Config": {"max-size": str(_LOG), "max-file": "1"}}
    return {
        "Labels": {"io.flowkiln.kind": kind},
        "NetworkDisabled": not network,
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": host,
    }


def wait(engine: Containers, container: str, seconds: float) -> int | None:
    """The exit code of a container, None when the time was up first."""
    end = time.monotonic() + seconds
    pause = 0.05
    while True:
        state = (engine.inspect(container) or {}).get("State") or {}
        if state.get("Status") in {"exited", "dead"} or not state:
            return int(state.get("ExitCode", 1))
        if parallel.stopped():
            raise KeyboardInterrupt
        if time.monotonic() > end:
            return None
        time.sleep(pause)
        pause = min(pause * 1.3, 0.5)


def _pack(job: Job, stream: Any, seconds: float) -> None:
    """A tar of the build's folder: script, request, the project's files, and empty folders to write in."""
    source = job.answer.parent / "source"
    root = PurePosixPath(FOLDER, "source", job.root.relative_to(source).as_posix()).as_posix()
    request = json.dumps(hostbuild.request_of(job, root, f"{FOLDER}/answer", seconds)).encode()
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for name in ("", "/home", "/tmp", "/answer"):  # noqa: S108  folders of the container
            folder = tarfile.TarInfo(FOLDER.lstrip("/") + name)
            folder.type = tarfile.DIRTYPE
            folder.mode = 0o755
            archive.addfile(_owned(folder))
        for name, data in ((_SCRIPT.name, _SCRIPT.read_bytes()), ("request.json", request)):
            info = tarfile.TarInfo(f"{FOLDER.lstrip('/')}/{name}")
            info.size, info.mode = len(data), 0o644
            archive.addfile(_owned(info), io.BytesIO(data))
        archive.add(source, f"{FOLDER.lstrip('/')}/source", filter=_owned)


def _owned(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """``info`` as the build's own, with a time that every zip can hold."""
    info.uid = info.gid = _USER
    info.uname = info.gname = ""
    info.mtime = 315532800
    return info


def _pieces(stream: Any) -> Iterator[bytes]:
    stream.seek(0)
    while piece := stream.read(_PIECE):
        yield piece


def _unpack(pieces: Iterator[bytes], job: Job) -> None:
    """The plain files of the answer in ``job.answer``: links and folders stay where they are."""
    with tempfile.TemporaryFile() as packed:
        have = 0
        for piece in pieces:
            have += len(piece)
            if have > _MOST:
                raise BadBuild(f"{job.label}: its build left more than {_MOST >> 30} GiB")
            packed.write(piece)
        packed.seek(0)
        try:
            with tarfile.open(fileobj=packed, mode="r|") as archive:
                for info in archive:
                    name = PurePosixPath(info.name).name
                    stream = archive.extractfile(info) if info.isreg() else None
                    if stream is None or name in {"", ".", ".."}:
                        continue
                    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
                    with open(os.open(job.answer / name, flags, 0o600), "wb") as target:  # noqa: PTH123
                        shutil.copyfileobj(stream, target, _PIECE)
        except tarfile.TarError as error:
            raise BadBuild(f"{job.label}: what its build left cannot be read: {error}") from error


def said(outputs: Iterable[tuple[str, bytes]]) -> str:
    """What a container wrote, as far as it is kept."""
    parts, have = [], 0
    for _, data in outputs:
        parts.append(data)
        have += len(data)
        if have > _LOG:
            break
    return b"".join(parts).decode(errors="replace")
