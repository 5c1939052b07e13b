"""Two Docker engines: one with the classic image store on overlay2, one with containerd's."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.stack.daemons import SYSTEM_PATH, launch, port, running, wait_until
from tests.stack.packages import call, is_root, need, unpacked
from tests.stack.place import CannotRun, locked, mark, read_state, run_folder, write_state

EngineKind = Literal["overlay2", "containerd"]

FIRST_PORT = {"overlay2": 5610, "containerd": 5810}
_LONGEST = 107
"""Bytes of a socket's path on Linux."""


@dataclass(frozen=True)
class Engine:
    """A Docker engine that answers."""

    host: str
    """``unix:///…``, for ``DOCKER_HOST``."""
    tcp: str | None
    """The same engine as ``tcp://127.0.0.1:PORT``, to play one that is elsewhere."""
    kind: EngineKind
    version: str


def start_engine(kind: EngineKind, name: str = "") -> Engine:
    """The engine, started when it does not run. One with a ``name`` has images of its own."""
    name = f"engine-{name or kind}"
    with locked(name):
        if running(name) is None:
            _start(name, kind)
    state = read_state(name) or {}
    return Engine(str(state["host"]), str(state["tcp"]), kind, str(state["version"]))


def tidy_engine(name: str) -> None:
    """Removes the network device of an engine that has ended."""
    with contextlib.suppress(CannotRun):
        call(["ip", "link", "delete", _bridge_name(name)], "the bridge")


def _start(name: str, kind: EngineKind) -> None:
    if not sys.platform.startswith("linux"):
        raise CannotRun(name, "this is no Linux")
    if not is_root():
        raise CannotRun(name, "a Docker engine must be started by root")
    folder = run_folder(name)
    if len(str(folder / "docker.sock")) > _LONGEST:
        raise CannotRun(name, f"the path of its socket would be too long: {folder / 'docker.sock'}")
    path = _programs(kind)
    _forget_killed(folder)
    listen = port(name, FIRST_PORT[kind])
    host = f"unix://{folder / 'docker.sock'}"
    tcp = f"tcp://127.0.0.1:{listen}"
    settings: dict[str, object] = {
        "hosts": [host, tcp],
        "tls": False,
        "data-root": str(folder / "data"),
        "exec-root": str(folder / "exec"),
        "pidfile": str(folder / "docker.pid"),
        "bridge": _bridge(name),
    }
    if kind == "overlay2":
        settings["storage-driver"] = "overlay2"
    else:
        settings["features"] = {"containerd-snapshotter": True}
    (folder / "daemon.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
    try:
        process = launch(["dockerd", "--config-file", str(folder / "daemon.json")], folder / "log", path)
        wait_until(lambda: _version(folder) is not None, process, folder / "log", name)
    except CannotRun:
        tidy_engine(name)
        raise
    write_state(
        name,
        {
            "pid": process.pid,
            "started": process.started,
            "host": host,
            "tcp": tcp,
            "version": _version(folder),
            "bridge": _bridge_name(name),
        },
    )


def _programs(kind: EngineKind) -> dict[str, str]:
    """What goes into the engine's environment, after its programs were installed or unpacked."""
    need("iptables", "iptables")
    need("ip", "iproute2")
    need("dockerd", "docker.io")
    need("runc", "runc")
    if kind == "overlay2":
        return {}
    folder = unpacked("trixie", "docker.io", "containerd")
    return {"PATH": f"{folder}/usr/sbin:{folder}/usr/bin:{SYSTEM_PATH}"}


def _forget_killed(folder: Path) -> None:
    """Removes process ids that an engine left when it was killed: another process may have them now."""
    (folder / "docker.pid").unlink(missing_ok=True)
    recorded = folder / "exec" / "containerd" / "containerd.pid"
    with contextlib.suppress(FileNotFoundError):
        command = Path("/proc") / recorded.read_text(encoding="ascii").strip() / "comm"
        if not command.exists() or command.read_text(encoding="utf-8").strip() != "containerd":
            recorded.unlink()


def _bridge_name(engine: str) -> str:
    return f"fk-{engine.removeprefix('engine-')[:3]}-{mark()}"


def _bridge(engine: str) -> str:
    """The name of the engine's own bridge: an engine of the machine keeps ``docker0`` to itself."""
    name = _bridge_name(engine)
    devices = call(["ip", "-4", "-o", "address"], "the bridge")
    if f" {name} " in devices:
        return name
    taken = set(re.findall(r"inet 10\.213\.(\d+)\.", devices))
    free = next(str(number) for number in range(256) if str(number) not in taken)
    with contextlib.suppress(CannotRun):
        call(["ip", "link", "add", name, "type", "bridge"], "the bridge")
    call(["ip", "address", "add", f"10.213.{free}.1/24", "dev", name], "the bridge")
    call(["ip", "link", "set", name, "up"], "the bridge")
    return name


class _Local(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _version(folder: Path) -> str | None:
    """The version that the engine answers with, None while it says it is not ready."""
    connection = _Local(folder / "docker.sock")
    try:
        connection.request("GET", "/version")
        answer = connection.getresponse()
        body = answer.read()
        return str(json.loads(body)["Version"]) if answer.status == 200 else None
    finally:
        connection.close()
