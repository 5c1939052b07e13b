"""Small invented conda packages: every case that real channels have, and hostile ones.

:func:`cases` writes them all; a name says what the package is for. ``hostile-*``, ``cut-short``, ``wrong-hash``
fail when they are installed, never when a channel is solved.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING

from tests.services.condaarchive import Link, Member
from tests.services.condapackages import PLACEHOLDER, package

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.channel import Channel

SERIES = 30
VERSIONS = ("1.0", "1.1", "2.0", "2.1", "3.0")
"""The versions of each ``series-NN``, built in the years from 2022 on."""

_YEAR = 31_557_600_000
_FROM = 1_640_995_200_000  # 2022
_SUBDIRS = ("linux-64", "linux-aarch64")
_BYTES = PLACEHOLDER.encode()


def cases(channel: Channel) -> None:
    """Writes all of them into ``channel`` and states there what its repodata must say wrongly."""
    folder = channel.folder
    for write in (links, prefixes, activation, clobbering, scripts, placement, relations, variants, python_kinds):
        write(folder)
    hostile(folder)
    series(folder)
    for name, wrong in (("wrong-hash", {"sha256": "0" * 64, "md5": "0" * 32}), ("md5-only", {"sha256": None})):
        channel.state(package(folder, name, files={f"share/{name}.txt": b"contents\n"}), **wrong)
    whole = package(folder, "cut-short", files={"share/cut-short.txt": b"contents\n" * 100})
    channel.cut(whole, whole.stat().st_size // 2)


def links(folder: Path) -> None:
    """``soft-links``: a chain, a link to a folder, one to nothing, one out of another package; a hard link."""
    library = {"lib/libsoft.so.1.2": b"\x7fELF soft\n", "share/soft/data/values.txt": b"1\n2\n"}
    soft = {
        "lib/libsoft.so": "libsoft.so.1",
        "lib/libsoft.so.1": "libsoft.so.1.2",
        "share/soft/current": "data",
        "share/soft/absent": "../nowhere.txt",
        "share/soft/other-package": "../generic/notes.txt",
    }
    package(folder, "soft-links", files={**library, **{path: Link(target) for path, target in soft.items()}})
    hard = [
        Member("share/hard/one.txt", b"one\n"),
        Member("share/hard/two.txt", Link("share/hard/one.txt", hard=True)),
    ]
    package(folder, "hard-links", members=hard, format="tar.bz2")


def prefixes(folder: Path) -> None:
    """``prefix-text``, ``prefix-binary``, ``prefix-legacy``: where and how a package names its prefix."""
    text = b"#!" + _BYTES + b"/bin/sh\necho " + _BYTES + b"/share and " + _BYTES + b"/lib\n"
    long = b"#!" + _BYTES + b"/bin/python -x\n# " + b"-" * 200 + b"\n"
    package(
        folder,
        "prefix-text",
        files={"bin/prefix-text": text, "bin/prefix-long": long, "lib/pkgconfig/prefix.pc": b"prefix=" + _BYTES},
        executable={"bin/prefix-text", "bin/prefix-long"},
        prefix_files=dict.fromkeys(
            ("bin/prefix-text", "bin/prefix-long", "lib/pkgconfig/prefix.pc"), ("text", PLACEHOLDER)
        ),
    )
    table = b"\0".join([
        b"\x7fELF head",
        _BYTES,  # alone
        _BYTES + b"/lib:" + _BYTES + b"/lib64",  # several in one string
        b"-Wl,-rpath," + _BYTES + b"/lib",  # in the middle
        b"tail of the table\0",
    ])  # fmt: skip
    wide = _BYTES.decode().encode("utf-16-le")  # what some loaders read; left alone
    for subdir in _SUBDIRS:
        package(
            folder,
            "prefix-binary",
            subdir=subdir,
            files={"lib/libprefix.so": table, "lib/libwide.so": table + wide},
            executable={"lib/libprefix.so"},
            prefix_files=dict.fromkeys(("lib/libprefix.so", "lib/libwide.so"), ("binary", PLACEHOLDER)),
        )
    package(
        folder,
        "prefix-legacy",
        files={"bin/prefix-legacy": text, "lib/liblegacy.so": table, "share/unlinked.txt": b"copied\n"},
        executable={"bin/prefix-legacy"},
        prefix_files={"bin/prefix-legacy": ("text", PLACEHOLDER), "lib/liblegacy.so": ("binary", PLACEHOLDER)},
        no_link=["share/unlinked.txt"],
        format="tar.bz2",
        legacy=True,
    )


def activation(folder: Path) -> None:
    """``activated``: scripts that set, extend and unset variables; ``env-vars``: variables stated in JSON."""
    on = b'export ACTIVATED_HOME="$CONDA_PREFIX/share/activated"\nexport ACTIVATED_PATHS="a:${ACTIVATED_PATHS:-}"\n'
    package(
        folder,
        "activated",
        files={
            "etc/conda/activate.d/activated.sh": on + b"unset ACTIVATED_UNWANTED\n",
            "etc/conda/deactivate.d/activated.sh": b"unset ACTIVATED_HOME ACTIVATED_PATHS\n",
            "share/activated/data.txt": b"found by its variable\n",
        },
    )
    stated = {"ENV_VARS_ONE": "1", "ENV_VARS_TEXT": 'two words, "quoted" = $HOME'}
    package(folder, "env-vars", files={"etc/conda/env_vars.d/env-vars.json": json.dumps(stated).encode()})


def clobbering(folder: Path) -> None:
    """``clobber-a`` and ``clobber-b``: the same path with equal and with different bytes."""
    for side in ("a", "b"):
        files: dict[str, bytes | Link] = {
            "share/clobber/equal.txt": b"equal\n",
            "share/clobber/different.txt": f"from {side}\n".encode(),
            f"share/clobber/{side}.txt": b"",
        }
        package(folder, f"clobber-{side}", files=files)


def scripts(folder: Path) -> None:
    """``post-link``, ``pre-link``, ``pre-unlink``: scripts that leave a file behind if anybody runs them."""
    for kind in ("post-link", "pre-link", "pre-unlink"):
        ran, told = f'echo ran > "$PREFIX/{kind}-ran.txt"', f'echo "{kind}" >> "$PREFIX/.messages.txt"'
        script = f"#!/bin/sh\n{ran}\n{told}\n"
        path = f"bin/.{kind}-{kind}.sh"
        package(folder, kind, files={path: script.encode(), f"share/{kind}.txt": b"\n"}, executable={path})


def placement(folder: Path) -> None:
    """``generic``, ``no-link``, ``empty-file``, ``odd-names``, ``old-format``, ``metapackage``."""
    package(folder, "generic", noarch="generic", files={"share/generic/notes.txt": b"anywhere\n"})
    package(
        folder, "no-link", files={"share/no-link.txt": b"copied, never linked\n"}, no_link=["share/no-link.txt"]
    )
    package(folder, "empty-file", files={"share/empty": b""})
    odd = {
        "share/odd names/ä ö.txt": b"1\n",
        "share/odd names/$(echo)'\".txt": b"2\n",
        "share/odd names/-rf": b"3\n",
    }
    package(folder, "odd-names", files=odd)
    package(folder, "old-format", files={"share/old-format.txt": b"bzip2\n"}, format="tar.bz2")
    package(folder, "metapackage", depends=["generic", "series-01 >=2", "soft-links"])
    package(folder, "no-timestamp", files={"share/no-timestamp.txt": b""}, timestamp=None)


def relations(folder: Path) -> None:
    """Constraints, virtual packages, and two packages that cannot be together."""
    package(folder, "constrains-old", constrains=["series-01 <2"])
    package(folder, "wants-old", depends=["series-01 <2"])
    package(folder, "wants-new", depends=["series-01 >=3"])
    package(folder, "wants-absent", depends=["no-such-package >=1"])
    virtual = {
        "needs-cuda": "__cuda >=12",
        "needs-new-cuda": "__cuda >=99",
        "needs-glibc": "__glibc >=2.30",
        "needs-new-glibc": "__glibc >=2.99",
        "needs-linux": "__linux",
        "needs-archspec": "__archspec * x86_64_v3",
        "needs-osx": "__osx >=11.0",
    }
    for name, asked in virtual.items():
        package(folder, name, depends=[asked])
    package(folder, "cycle-a", depends=["cycle-b"])
    package(folder, "cycle-b", depends=["cycle-a"])


def variants(folder: Path) -> None:
    """``libblas`` by build string and features, ``pytorch`` with and without CUDA, ``cuda-version``."""
    for number, flavour in enumerate(("openblas", "mkl")):
        tracked = {"track_features": f"blas_{flavour}"} if flavour == "mkl" else {}
        package(folder, "blas", "2.125", build=flavour, build_number=125, depends=[f"libblas 3.9.0 25_*_{flavour}"])
        for subdir in _SUBDIRS:
            package(
                folder,
                "libblas",
                "3.9.0",
                build=f"25_h{subdir[-2:]}_{flavour}",
                build_number=25,
                subdir=subdir,
                constrains=[f"blas * {flavour}"],
                files={"lib/libblas.so": f"\x7fELF {flavour} {number}\n".encode()},
                index=tracked,
            )
    package(folder, "needs-blas", depends=["libblas >=3.9,<4.0a0"])
    package(folder, "needs-mkl", depends=["blas=*=mkl"])
    for version in ("11.8", "12.4", "12.6"):
        major = version.partition(".")[0]
        package(folder, "cuda-version", version, constrains=[f"__cuda >={major}"])
    _torch(folder)


def _torch(folder: Path) -> None:
    site = "lib/python3.11/site-packages"
    for subdir in _SUBDIRS:
        for kind, more in (("cpu", []), ("cuda124", ["__cuda", "cuda-version >=12.4,<13"])):
            package(
                folder,
                "pytorch",
                "2.5.1",
                build=f"{kind}_py311_{1 + 200 * bool(more)}",
                build_number=1 + 200 * bool(more),
                subdir=subdir,
                depends=["python >=3.11,<3.12.0a0", "python_abi 3.11.* *_cp311", *more],
                constrains=[] if more else ["pytorch-gpu ==99999999"],
                files={
                    f"{site}/torch/__init__.py": f"kind = {kind!r}\n".encode(),
                    **dist_info(site, "torch", "2.5.1"),
                },
            )
    package(folder, "pytorch-gpu", "2.5.1", build="cuda", depends=["pytorch 2.5.1 cuda*"])


def python_kinds(folder: Path) -> None:
    """``noarch-python`` with entry points and a script; ``egg-file`` and ``egg-folder``; ``two-in-one``."""
    module = b"import sys\n\n\ndef main() -> None:\n    print('noarch-python', sys.prefix)\n"
    site = "site-packages"
    noarch_python = functools.partial(package, folder, noarch="python", depends=["python >=3.8"])
    noarch_python(
        "noarch-python",
        files={
            f"{site}/noarch_python/__init__.py": module,
            f"{site}/noarch_python/where.txt": b"at " + _BYTES + b"\n",
            "python-scripts/noarch-script": b"#!" + _BYTES + b"/bin/python\nprint('script')\n",
            "share/noarch-python.txt": b"beside\n",
            **dist_info(site, "noarch-python", "1.0"),
        },
        executable={"python-scripts/noarch-script"},
        prefix_files=dict.fromkeys(
            (f"{site}/noarch_python/where.txt", "python-scripts/noarch-script"), ("text", PLACEHOLDER)
        ),
        entry_points=["noarch-main = noarch_python:main", "noarch_second=noarch_python:main"],
    )
    egg = b"Metadata-Version: 1.1\nName: egg-file\nVersion: 1.0\n"
    noarch_python("egg-file", files={f"{site}/egg_file.py": b"", f"{site}/egg_file-1.0-py3.11.egg-info": egg})
    info = {f"{site}/egg_folder-1.0-py3.11.egg-info/PKG-INFO": egg.replace(b"file", b"folder")}
    noarch_python("egg-folder", files={f"{site}/egg_folder.py": b"", **info})
    both = {**dist_info(site, "First.Half", "1.0"), **dist_info(site, "second_half", "2.0")}
    noarch_python("two-in-one", files={f"{site}/halves.py": b"", **both})
    noarch_python("no-metadata", files={f"{site}/no_metadata.py": b""})


def dist_info(site: str, name: str, version: str, installer: str = "conda") -> dict[str, bytes]:
    """The files of the installed distribution NAME VERSION below ``site``."""
    base = f"{site}/{name.replace('-', '_').replace('.', '_')}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    return {
        f"{base}/METADATA": metadata.encode(),
        f"{base}/INSTALLER": f"{installer}\n".encode(),
        f"{base}/RECORD": b"",
    }


def hostile(folder: Path) -> None:
    """``hostile-*``: what an installer must refuse; nothing of them may appear outside of a prefix.

    py-rattler 0.28 ends the whole process at ``hostile-absolute``, and installs ``hostile-symlink``,
    ``hostile-symlink-absolute`` and ``hostile-changed-file`` as if they were in order.
    """
    bad = b"out of bounds\n"
    members: dict[str, list[Member]] = {
        "dotdot": [Member("../../hostile-escaped.txt", bad)],
        "dotdot-unlisted": [Member("share/ok.txt", b""), Member("../../hostile-escaped.txt", bad, listed=False)],
        "absolute": [Member("/tmp/hostile-escaped.txt", bad)],
        "symlink": [Member("share/out", Link("../../../hostile-target"))],
        "symlink-absolute": [Member("share/out", Link("/etc/passwd"))],
        "through-symlink": [Member("share/out", Link("../../..")), Member("share/out/hostile-escaped.txt", bad)],
        "hard-link": [Member("share/out", Link("../../../../../etc/passwd", hard=True))],
    }
    for name, inside in members.items():
        package(folder, f"hostile-{name}", members=inside)
    listed = {"_path": "../../hostile-listed.txt", "path_type": "hardlink", "sha256": "0" * 64, "size_in_bytes": 1}
    package(folder, "hostile-paths", files={"share/ok.txt": b""}, paths={"paths": [listed], "paths_version": 1})
    points = ["../../hostile-entry = os:getcwd"]
    package(folder, "hostile-entry-point", noarch="python", depends=["python"], entry_points=points)
    wrong = {"_path": "share/changed.txt", "path_type": "hardlink", "sha256": "0" * 64, "size_in_bytes": 8}
    changed = {"paths": [wrong], "paths_version": 1}
    package(folder, "hostile-changed-file", files={"share/changed.txt": b"changed\n"}, paths=changed)


def series(folder: Path) -> None:
    """``series-00`` ...: five versions each, half of them per platform, that depend on one another by major."""
    for number in range(SERIES):
        for step, version in enumerate(VERSIONS):
            major = int(version[0])
            span = f">={major}.0,<{major + 1}.0a0"
            depends = [f"series-{number // 2:02} {span}"] if number else []
            if number % 3 == 2:
                depends.append(f"series-{number - 1:02} {span}")
            for subdir in _SUBDIRS if number % 2 else ("noarch",):
                package(
                    folder,
                    f"series-{number:02}",
                    version,
                    subdir=subdir,
                    depends=depends,
                    files={f"share/series/{number:02}.txt": f"{version} {subdir}\n".encode()},
                    timestamp=_FROM + step * _YEAR,
                )
