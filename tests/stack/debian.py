"""The layers of the base images, as tar archives of Debian packages."""

from __future__ import annotations

import re
import shutil
import zipfile
from typing import TYPE_CHECKING

from tests.stack.layouts import Tree
from tests.stack.packages import MIRROR, call, machine, need, unpacked
from tests.stack.place import CannotRun, built, locked

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

EDITION = "1"
"""Raised when a recipe changes: what was built by an older one is left alone and not used."""

_LIBRARIES = {
    "bookworm": ["libexpat1", "libffi8", "libncursesw6", "libreadline8", "libsqlite3-0", "libssl3", "libuuid1"],
    "trixie": ["libexpat1", "libffi8", "libncursesw6", "libreadline8t64", "libsqlite3-0", "libssl3t64", "libuuid1"],
}
"""What Python's own extension modules are linked to, besides what every Debian has."""
_ESSENTIAL = (
    "libc6",
    "libgcc-s1",
    "base-files",
    "netbase",
    "zlib1g",
    "libbz2-1.0",
    "liblzma5",
    "libcrypt1",
    "libtinfo6",
)
_LEAVE_OUT = ("usr/share/doc/*", "usr/share/man/*", "usr/share/locale/*")
_UNWANTED = ("usr/share/doc/", "usr/share/man/", "usr/sbin/", "sbin/", "usr/share/bug/", "usr/share/lintian/")
_MERGED = "/usr/share/mmdebstrap/hooks/merged-usr"

_ROOT = "root:x:0:0:root:/root:/bin/bash\n"
_NOBODY = "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"


def system(suite: str, architecture: str) -> Path:
    """A small Debian without any Python; of a foreign architecture it is unpacked and nothing is run."""
    libraries = ["ca-certificates", "netbase", "tzdata", *_LIBRARIES[suite]]
    if architecture == machine():
        return _bootstrapped(suite, f"system-{suite}-{architecture}", "minbase", libraries, architecture)
    packages = ["?essential", *_LIBRARIES[suite]]
    return _bootstrapped(suite, f"system-{suite}-{architecture}", "extract", packages, architecture)


def with_python(suite: str) -> Path:
    """A Debian with its own ``python3``, set up as ``apt-get install`` does, bytecode included."""
    packages = ["ca-certificates", "python3"]
    return _bootstrapped(suite, f"python-{suite}-{machine()}", "minbase", packages, machine())


def with_compiler(suite: str) -> Path:
    """A Debian with its own ``python3`` and all that builds extension modules for it."""
    packages = ["ca-certificates", "python3-dev", "gcc", "libc6-dev"]
    return _bootstrapped(suite, f"compiler-{suite}-{machine()}", "minbase", packages, machine())


def _bootstrapped(suite: str, name: str, variant: str, packages: Sequence[str], architecture: str) -> Path:
    archive = built("archives", EDITION, f"{name}.tar")
    with locked(f"archive-{name}"):
        if not archive.exists():
            program = need("mmdebstrap", "mmdebstrap", "debian-archive-keyring")
            command = [str(program), f"--variant={variant}", *(f"--include={package}" for package in packages)]
            command += [f"--architectures={architecture}", "--skip=output/dev", "--format=tar", "--quiet"]
            command += [f"--dpkgopt=path-exclude=/{pattern}" for pattern in _LEAVE_OUT]
            if variant == "extract":
                command.append(f"--hook-dir={_MERGED}")
            scratch = archive.with_suffix(".new")
            call([*command, suite, str(scratch), MIRROR], f"the base {name}")
            scratch.rename(archive)
    return archive


def local_python(suite: str, python: str, architecture: str) -> tuple[str, Path]:
    """The version of Debian's Python and a layer with it in ``/usr/local``, laid out as its authors do."""
    packages = [f"python{python}-minimal", f"libpython{python}-minimal", f"libpython{python}-stdlib"]
    folder = unpacked(suite, *packages, "python3-pip-whl", architecture=architecture)
    archive = built("archives", EDITION, f"local-python-{python}-{architecture}.tar")
    with locked(f"archive-{archive.stem}"):
        if not archive.exists():
            tree = _local_tree(folder, python)
            if architecture != machine():  # no package's script ran, which writes it
                tree.made["etc/passwd"] = ((_ROOT + _NOBODY).encode(), 0o644)
            scratch = archive.with_suffix(".new")
            tree.write(scratch)
            scratch.rename(archive)
    return _version(folder, python), archive


def _version(folder: Path, python: str) -> str:
    """The full version, as the interpreter's own file states it: it may not run here."""
    program = (folder / "usr" / "bin" / f"python{python}").read_bytes()
    found = re.search(rb"\0(%s\.\d+)\0" % re.escape(python.encode()), program)
    if found is None:
        raise CannotRun(f"Python {python}", "its file does not state a version")
    return found[1].decode()


def _local_tree(folder: Path, python: str) -> Tree:
    """Debian's interpreter moved: it finds its library by its own place, Debian's folder names are undone."""
    library = f"usr/local/lib/python{python}"
    dropped = (f"{library}/sitecustomize.py", f"{library}/EXTERNALLY-MANAGED")
    tree = Tree()
    tree.add(
        folder / "usr" / "lib" / f"python{python}",
        library,
        lambda name: name not in dropped and "__pycache__" not in name,
    )
    # the module site is frozen into the interpreter: there the names must be of one length, and they are
    program = _replaced(b"dist-packages", b"site-packages", folder / "usr" / "bin" / f"python{python}")
    tree.made[f"usr/local/bin/python{python}"] = (program, 0o755)
    site = tree.files.pop(f"{library}/site.py")
    tree.made[f"{library}/site.py"] = (_replaced(b"dist-packages", b"site-packages", site), 0o644)
    (scheme,) = {f"{library}/sysconfig.py", f"{library}/sysconfig/__init__.py"} & set(tree.files)
    changed = _replaced(b"scheme = 'posix_local'", b"scheme = 'posix_prefix'", tree.files.pop(scheme))
    tree.made[scheme] = (changed, 0o644)
    tree.links |= {"usr/local/bin/python3": f"python{python}", "usr/local/bin/python": "python3"}
    (wheel,) = (folder / "usr" / "share" / "python-wheels").glob("pip-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        for name in packed.namelist():
            tree.made[f"{library}/site-packages/{name}"] = (packed.read(name), 0o644)
    script = f"#!/usr/local/bin/python{python}\nfrom pip._internal.cli.main import main\nraise SystemExit(main())\n"
    tree.made["usr/local/bin/pip"] = (script.encode(), 0o755)
    tree.links["usr/local/bin/pip3"] = "pip"
    return tree


def _replaced(old: bytes, new: bytes, path: Path) -> bytes:
    data = path.read_bytes()
    if old not in data:
        raise CannotRun("a base image", f"Debian's {path.name} has nowhere {old.decode()!r}")
    return data.replace(old, new)


def distroless(suite: str, python: str) -> Path:
    """Python and the libraries it needs, with no shell and no package tool, for a user who is not root."""
    packages = [f"python{python}-minimal", f"libpython{python}-minimal", f"libpython{python}-stdlib"]
    folder = unpacked(suite, *packages, *_ESSENTIAL, *_LIBRARIES[suite])
    archive = built("archives", EDITION, f"distroless-{python}.tar")
    with locked(f"archive-{archive.stem}"):
        if not archive.exists():
            tree = Tree()
            tree.add(folder, wanted=lambda name: not name.startswith(_UNWANTED))
            tree.links |= {"usr/bin/python3": f"python{python}", "usr/bin/python": f"python{python}"}
            user = "nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n"
            tree.folders["home/nonroot"] = (0o700, 65532)
            users = _ROOT.replace("/bin/bash", "/sbin/nologin") + _NOBODY + user
            tree.made["etc/passwd"] = (users.encode(), 0o644)
            tree.made["etc/group"] = (b"root:x:0:\nnobody:x:65534:\nnonroot:x:65532:\n", 0o644)
            scratch = archive.with_suffix(".new")
            tree.write(scratch)
            scratch.rename(archive)
    return archive


def forget_archives() -> None:
    """Removes what the bases were made from; the bases themselves stay."""
    shutil.rmtree(built("archives", EDITION), ignore_errors=True)
