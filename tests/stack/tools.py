"""Tools that judge images and are not ours: what we push and load must satisfy them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from tests.stack.packages import call, need, unpacked, which
from tests.stack.place import CannotRun, built, locked

if TYPE_CHECKING:
    from pathlib import Path

Tool = Literal["crane", "skopeo", "docker", "qemu-user"]

CRANE = "github.com/google/go-containerregistry/cmd/crane"
CRANES = ("v0.20.6", "v0.15.2")
"""The version that is wanted, then one that the Go of Debian 12 can build."""


def find_tool(name: Tool) -> Path:
    """Where the program is; installed, built or unpacked when it is missing.

    ``qemu-user`` runs a program of this machine's kind on other models of processor (``-cpu``). It is only
    unpacked: an installed one would make programs of other platforms run in containers.
    """
    if name == "crane":
        return _crane()
    if name == "skopeo":
        return need("skopeo", "skopeo")
    if name == "docker":
        return which("docker") or _docker()
    return unpacked("bookworm", "qemu-user-static") / "usr" / "bin" / "qemu-x86_64-static"


def _docker() -> Path:
    try:
        return need("docker", "docker.io")
    except CannotRun:  # Debian 13 has the command in a package of its own
        return need("docker", "docker-cli")


def _crane() -> Path:
    with locked("crane"):
        for version in CRANES:
            program = built(f"crane-{version}", "crane")
            if program.exists():
                return program
        go = which("go") or need("go", "golang-go")
        failures = []
        for version in CRANES:
            program = built(f"crane-{version}", "crane")
            try:
                call(
                    [str(go), "install", f"{CRANE}@{version}"],
                    "crane",
                    {"GOBIN": str(program.parent), "CGO_ENABLED": "0", "GOFLAGS": "", "GOTOOLCHAIN": "local"},
                )
            except CannotRun as failure:
                failures.append(str(failure))
                continue
            return program
    raise CannotRun("crane", "no version of it could be built:\n" + "\n".join(failures))
