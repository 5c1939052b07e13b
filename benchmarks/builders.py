"""The peers that make images from a Dockerfile: the engine's own builder, and BuildKit with cache mounts.

Both install with uv from the base's sibling that has uv in it, as uv's own images do, and both compile bytecode.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tests.stack.daemons import SYSTEM_PATH, end, launch, wait_until
from tests.stack.packages import call, need, which
from tests.stack.place import built, locked

from benchmarks.measure import run
from benchmarks.peers import uv
from benchmarks.stack import certificates, emptied, index

if TYPE_CHECKING:
    from benchmarks.stack import Stack

VERSION = "v0.17.3"
_MODULE = Path(__file__).parent / "buildkit"
_INSTALL = "uv pip install --system --no-deps --compile-bytecode"
_MOUNT = "--mount=type=cache,target=/uv-cache"


def prepared(stack: Stack, folder: Path) -> str:
    """The base with uv and this machine's authorities in it, in the registry: what both peers start from."""
    name = f"{stack.registry}/bench/uv:3.11"
    known = certificates()
    files: list[tuple[str, str | Path]] = [("uv", Path(uv()))]
    lines = [f"FROM {stack.base}", "COPY uv /usr/local/bin/uv"]
    if known is not None:
        files.append(("authorities.pem", known))
        lines += ["COPY authorities.pem /etc/authorities.pem", "ENV SSL_CERT_FILE=/etc/authorities.pem"]
    if (told := index()) is not None:
        lines.append(f"ENV UV_DEFAULT_INDEX={told}")
    context = emptied(folder, [*files, ("Dockerfile", "\n".join(lines) + "\n")])
    stack.call("build", "--quiet", "--tag", name, ".", folder=context)
    stack.call("push", "--quiet", name)
    return name


class Docker:
    """``docker build`` and ``docker push``. ``wheels`` is a page of links to install from, None for the index."""

    def __init__(self, stack: Stack, start: str, wheels: str | None, folder: Path) -> None:
        self._stack = stack
        self._start = start
        self._given = "" if wheels is None else f" --no-index --find-links {wheels}"
        self._folder = folder

    def build(self, requirements: str, name: str, *, cached: bool) -> None:
        """Makes the image ``name``; ``cached`` uses what earlier builds left."""
        steps = [
            f"FROM {self._start}",
            "COPY requirements.txt /requirements.txt",
            f"RUN {_INSTALL} --no-cache{self._given} -r /requirements.txt",
        ]
        files = [("requirements.txt", requirements), ("Dockerfile", "\n".join(steps) + "\n")]
        context = emptied(self._folder, files)
        how = ["--network", "host", *([] if cached else ["--no-cache"])]
        self._stack.call("build", "--quiet", *how, "--tag", name, ".", folder=context)

    def push(self, requirements: str, name: str, *, cached: bool) -> None:
        """Makes the image and pushes it."""
        self.build(requirements, name, cached=cached)
        self._stack.call("push", "--quiet", name)


class BuildKit:
    """A BuildKit daemon with a cache mount for uv, its state below ``folder``. Leave it with ``close``."""

    def __init__(self, stack: Stack, start: str, wheels: str, folder: Path) -> None:
        self._start = start
        self._wheels = wheels
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._programs = _programs()
        need("runc", "runc")
        settings = folder / "buildkitd.toml"
        settings.write_text(f'[registry."{stack.registry}"]\nhttp = true\n', encoding="utf-8")
        self._address = f"unix://{folder}/socket"
        daemon = [str(self._programs / "buildkitd"), "--config", str(settings), "--root", str(folder / "state")]
        daemon += ["--addr", self._address, "--oci-worker-net", "host", "--containerd-worker=false"]
        daemon += ["--allow-insecure-entitlement", "network.host"]
        self._process = launch(daemon, folder / "log")
        wait_until(self._answers, self._process, folder / "log", "buildkitd")

    def _answers(self) -> bool:
        if not (self._folder / "socket").exists():
            return False
        call([str(self._programs / "buildctl"), "--addr", self._address, "debug", "workers"], "buildctl")
        return True

    def push(self, requirements: str, name: str, *, cached: bool) -> None:
        """Makes the image and pushes it; the cache of uv stays in any case."""
        command = f"{_INSTALL} --link-mode copy --no-index --find-links {self._wheels} -r /requirements.txt"
        steps = [
            f"FROM {self._start}",
            "COPY requirements.txt /requirements.txt",
            f"RUN {_MOUNT} --network=host UV_CACHE_DIR=/uv-cache {command}",
        ]
        files = [("requirements.txt", requirements), ("Dockerfile", "\n".join(steps) + "\n")]
        context = emptied(self._folder / "context", files)
        build: list[str | Path] = [
            self._programs / "buildctl",
            "--addr",
            self._address,
            "build",
            "--progress",
            "plain",
        ]
        build += ["--frontend", "dockerfile.v0"]
        build += ["--local", f"context={context}", "--local", f"dockerfile={context}"]
        build += ["--allow", "network.host", "--output", f"type=image,name={name},push=true"]
        run([*build, *([] if cached else ["--no-cache"])], cwd=context, environ={**os.environ, "PATH": SYSTEM_PATH})

    def close(self) -> None:
        """Ends the daemon."""
        end(self._process)


def _programs() -> Path:
    """The folder of buildkitd and buildctl, built from the module beside this file when they are missing."""
    folder = built(f"buildkit-{VERSION}", "buildctl").parent
    with locked("buildkit"):
        if not all((folder / name).exists() for name in ("buildctl", "buildkitd")):
            go = which("go") or need("go", "golang-go")
            commands = [f"github.com/moby/buildkit/cmd/{name}" for name in ("buildctl", "buildkitd")]
            settings = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}
            call([str(go), "build", "-trimpath", "-o", f"{folder}/", *commands], "buildkit", settings, _MODULE)
    return folder
