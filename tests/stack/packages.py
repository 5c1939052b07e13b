"""Debian packages: installed where that is allowed, or only unpacked, also those of another release."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.services.home import MACHINE
from tests.stack.daemons import SYSTEM_PATH
from tests.stack.place import CannotRun, built, locked, root

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MIRROR = MACHINE.get("FLOWKILN_TEST_DEBIAN", "http://deb.debian.org/debian")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def which(program: str) -> Path | None:
    """Where a program of the machine is."""
    found = shutil.which(program, path=SYSTEM_PATH)
    return None if found is None else Path(found)


def call(
    command: Sequence[str], what: str, more: Mapping[str, str] | None = None, folder: Path | None = None
) -> str:
    """What a program prints; a failure is a :class:`CannotRun` with the end of what it said."""
    environ = {**MACHINE, "PATH": SYSTEM_PATH, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        command, env={**environ, **(more or {})}, cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise CannotRun(what, f"`{' '.join(command[:4])} …` failed ({done.returncode}):\n{said}")
    return done.stdout


def is_root() -> bool:
    """Whether this process may do everything."""
    return os.geteuid() == 0


def need(program: str, *packages: str) -> Path:
    """Where ``program`` is; installs the Debian ``packages`` that have it when it is missing."""
    found = which(program)
    if found is not None:
        return found
    with locked("apt"):
        if which(program) is None:
            _install(program, packages)
    found = which(program)
    if found is None:
        raise CannotRun(program, f"the Debian packages {' '.join(packages)} have no such program")
    return found


def _install(what: str, packages: Sequence[str]) -> None:
    wanted = f"it is not installed (Debian: {' '.join(packages)})"
    if which("apt-get") is None:
        raise CannotRun(what, f"{wanted} and this is no Debian")
    if not is_root():
        raise CannotRun(what, f"{wanted} and only root can install it")
    install = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]
    try:
        call([*install, *packages], what)
    except CannotRun:  # the lists may be old or missing
        call(["apt-get", "update", "-qq"], what)
        call([*install, *packages], what)


def machine() -> str:
    """Debian's name of this machine's architecture."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def unpacked(suite: str, *packages: str, architecture: str | None = None) -> Path:
    """A folder with the files of Debian packages of ``suite``, nothing of them installed."""
    architecture = architecture or machine()
    names = hashlib.sha256(" ".join(sorted(packages)).encode()).hexdigest()[:8]
    folder = built("debian", f"{suite}-{architecture}-{packages[0]}-{names}")
    with locked("debian"):
        if not folder.exists():
            what = f"{packages[0]} of Debian {suite}"
            if which("apt-get") is None:
                raise CannotRun(what, "this is no Debian")
            scratch = folder.with_name(folder.name + ".new")
            shutil.rmtree(scratch, ignore_errors=True)
            for archive in _download(suite, architecture, packages, what):
                call(["dpkg", "-x", str(archive), str(scratch)], what)
            scratch.rename(folder)
            shutil.rmtree(root() / "built" / "apt")
    return folder


def _download(suite: str, architecture: str, packages: Sequence[str], what: str) -> list[Path]:
    """Archives fetched by an apt with folders of its own: the machine's sources stay as they are."""
    own = root() / "built" / "apt"
    shutil.rmtree(own, ignore_errors=True)
    for name in ("state/lists/partial", "cache/archives/partial", "archives"):
        (own / name).mkdir(parents=True, exist_ok=True)
    (own / "status").touch()
    signed = f"[signed-by={KEYRING}] " if Path(KEYRING).exists() else ""
    (own / "sources.list").write_text(f"deb {signed}{MIRROR} {suite} main\n", encoding="utf-8")
    settings = {
        "Dir::State": own / "state",
        "Dir::State::status": own / "status",
        "Dir::Cache": own / "cache",
        "Dir::Etc::SourceList": own / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-qq", *(part for name, value in settings.items() for part in ("-o", f"{name}={value}"))]
    call([*apt, "update"], what)
    call([*apt, "download", *packages], what, folder=own / "archives")
    return sorted((own / "archives").glob("*.deb"))
