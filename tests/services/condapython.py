"""The package ``python`` out of Debian's interpreter, for this machine's architecture or another."""

from __future__ import annotations

import re
import tarfile
from typing import TYPE_CHECKING

from tests.services.condaarchive import Link
from tests.services.condapackages import PLACEHOLDER, FileMode, package
from tests.stack.debian import local_python

if TYPE_CHECKING:
    from pathlib import Path

_SUITES = {"3.11": "bookworm", "3.13": "trixie"}
_DEBIAN = {"linux-64": "amd64", "linux-aarch64": "arm64"}
_UNWANTED = re.compile(r"lib/python[\d.]+/(site-packages|test|idlelib|turtledemo|ensurepip|tkinter|config-[^/]*)/")


def interpreter(folder: Path, python: str = "3.11", *, subdir: str = "linux-64", glibc: str = "2.17") -> Path:
    """The path of a package ``python`` that runs from any prefix.

    Its sysconfig data name the prefix in text, and ``bin/python3.11`` in a table of C strings behind the
    program, which nothing reads: the interpreter finds its library by its own place. It says that it needs
    ``glibc``, whatever it was built for; the machine's own Debian is what it runs on. Raises
    :class:`tests.stack.place.CannotRun` where Debian's packages cannot be had.
    """
    version, archive = local_python(_SUITES[python], python, _DEBIAN[subdir])
    files, executable = _unpacked(archive)
    program = f"bin/python{python}"
    written = files[program]
    assert isinstance(written, bytes)
    files[program] = written + _strings(python)
    named: dict[str, tuple[FileMode, str]] = {program: ("binary", PLACEHOLDER)}
    for path, data in list(files.items()):
        if re.search(r"/_sysconfigdata_[^/]*\.py$", path) and isinstance(data, bytes):
            files[path] = re.sub(rb"(?<=['\"= ])/usr(/local)?(?=['\"/])", PLACEHOLDER.encode(), data)
            named[path] = ("text", PLACEHOLDER)
    files[f"lib/python{python}/site-packages/README.txt"] = b"Third-party packages go here.\n"
    return package(
        folder,
        "python",
        version,
        build="0_cpython",
        subdir=subdir,
        depends=[f"__glibc >={glibc}"],
        constrains=[f"python_abi {python}.* *_cp{python.replace('.', '')}"],
        files=files,
        executable=executable,
        prefix_files=named,
        license="Python-2.0",
    )


def _unpacked(archive: Path) -> tuple[dict[str, bytes | Link], set[str]]:
    files: dict[str, bytes | Link] = {}
    executable = set()
    with tarfile.open(archive) as members:
        for member in members:
            path = member.name.removeprefix("./").removeprefix("usr/local/")
            if not path.startswith(("bin/python", "lib/")) or _UNWANTED.match(path):
                continue
            if member.issym():
                files[path] = Link(member.linkname)
            elif member.isfile():
                stream = members.extractfile(member)
                assert stream is not None
                files[path] = stream.read()
                if member.mode & 0o111:
                    executable.add(path)
    return files, executable


def _strings(python: str) -> bytes:
    paths = [PLACEHOLDER, f"{PLACEHOLDER}/lib/python{python}", f"-L{PLACEHOLDER}/lib:{PLACEHOLDER}/lib64"]
    return b"\0" + b"".join(path.encode() + b"\0" for path in paths) + b"end of strings\0"
