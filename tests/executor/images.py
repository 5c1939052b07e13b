"""Images for the tests of the Docker backend: a plain one with Python, and one that carries an environment."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import subprocess
import tarfile
from dataclasses import dataclass
from typing import Literal

from flowkiln._base.endpoints import find
from flowkiln._base.engine import Engine
from flowkiln.executor.plan import ImageRef, Prefix
from tests import stack

BASE: Literal["slim-python:3.11"] = "slim-python:3.11"
ENV_ID = "sha256:" + "e" * 64
SITE = "lib/python3.11/site-packages"
PYTHON = "/usr/local/bin/python3"
FILES = {
    f"{SITE}/thing.py": b"VALUE = 1\n",
    f"{SITE}/early.pth": b"import sys; sys.stderr.write('pth ran\\n')\n",
    "bin/tool": b"#!/opt/env/bin/python\nprint('tool')\n",
}


@functools.cache
def engine(kind: str) -> Engine:
    """A real engine that has the base."""
    made = Engine(find({"DOCKER_HOST": stack.engine(kind).host}))  # type: ignore[arg-type]
    reference = stack.base(BASE)
    if made.image(reference) is None:
        made.pull(reference)
    return made


@functools.cache
def remote() -> Engine:
    """The engine with overlay2 as one that is elsewhere."""
    engine("overlay2")
    told = stack.engine("overlay2").tcp
    assert told is not None
    return Engine(find({"DOCKER_HOST": told}))


def plain() -> ImageRef:
    """The base as an image of the user's own."""
    return ImageRef(reference=stack.base(BASE), baked=False)


@dataclass(frozen=True)
class Marked:
    """An image with an environment in it."""

    image: ImageRef
    prefix: Prefix


def mode_of(path: str) -> int:
    return 0o755 if path.startswith("bin/") else 0o644


def tree() -> dict[str, bytes]:
    """The files of the environment, its marker included."""
    rows = [[path, mode_of(path), hashlib.sha256(data).hexdigest()] for path, data in sorted(FILES.items())]
    sized = [[*row, len(FILES[str(row[0])])] for row in rows]
    config = b"home = /usr/local/bin\ninclude-system-site-packages = false\nversion = 3.11.0\n"
    marker = {
        "schema": 1,
        "env_id": ENV_ID,
        "tree_digest": tree_digest(),
        "glue": {
            "bin/python": [0o777, f"-> {PYTHON}"],
            "pyvenv.cfg": [0o644, hashlib.sha256(config).hexdigest()],
        },
    }
    body = json.dumps(marker, sort_keys=True, indent=1).encode()
    return {
        **FILES,
        "pyvenv.cfg": config,
        ".flowkiln/parts/one.json": json.dumps({"files": sized[:1], "schema": 1}).encode(),
        ".flowkiln/parts/two.json": json.dumps({"files": sized, "schema": 1}).encode(),
        ".flowkiln/tree.json": hashlib.sha256(body).hexdigest().encode() + b"\n" + body,
    }


def tree_digest() -> str:
    """The digest of the list of the environment's files."""
    rows = [[path, mode_of(path), hashlib.sha256(data).hexdigest()] for path, data in sorted(FILES.items())]
    return digest_of(json.dumps({"files": rows, "schema": 1}, separators=(",", ":")).encode())


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@functools.cache
def marked(kind: str, spoil: str = "") -> Marked:
    """An image with the environment. ``spoil`` is a shell command that changes something in its last layer."""
    files = tree()
    name = "flowkiln-tests/marked:" + hashlib.sha256(repr((files, spoil)).encode()).hexdigest()[:16]
    known = engine(kind).image(name)
    if known is None:
        _build(kind, name, files, spoil)
        known = engine(kind).image(name)
    assert known is not None
    prefix = Prefix(
        python="/opt/env/bin/python",
        root="/opt/env",
        version="3.11.0",
        platform="linux/amd64",
        name="work",
        env_id=ENV_ID,
        lock_id="sha256:" + "1" * 64,
        tree_digest=tree_digest(),
    )
    return Marked(ImageRef(reference=name, ids=(known["Id"],)), prefix)


def _build(kind: str, name: str, files: dict[str, bytes], spoil: str) -> None:
    lines = [f"FROM {stack.base(BASE)}", "COPY env /opt/env", f"RUN ln -s {PYTHON} /opt/env/bin/python"]
    lines += [f"RUN cd /opt/env && {spoil}"] if spoil else []
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        for path, data in {
            "Dockerfile": "\n".join(lines).encode(),
            **{f"env/{k}": v for k, v in files.items()},
        }.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(data), mode_of(path.removeprefix("env/"))
            archive.addfile(member, io.BytesIO(data))
    environ = {**os.environ, "DOCKER_BUILDKIT": "0", "DOCKER_HOST": stack.engine(kind).host}  # type: ignore[arg-type]
    command = ["docker", "build", "--quiet", "--tag", name, "-"]
    done = subprocess.run(command, input=context.getvalue(), env=environ, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
