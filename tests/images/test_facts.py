"""What is read of a base: interpreters, their releases, the C library, the config."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from flowkiln.envs.basepin import BaseFacts
from flowkiln.images import evidence
from flowkiln.images.errors import BaseUnreadable, BaseVersionUnknown
from flowkiln.images.evidence import CLibrary, Packages
from flowkiln.images.facts import Survey, survey
from tests.images.rootfs_layers import ARM64_ELF, LOADER, SYSTEM, config, elf, layer, libc, local, stream, tar

if TYPE_CHECKING:
    from collections.abc import Iterator

DPKG = """Package: bash
Status: install ok installed
Version: 5.2.15-2+b7

Package: python3.11-minimal
Status: install ok installed
Version: 3.11.2-6+deb12u5

Package: python3.9
Status: deinstall ok config-files
Version: 3.9.2-1
"""
APK = "C:Q1\nP:musl\nV:1.2.5-r0\n\nC:Q1\nP:python3\nV:3.12.8-r1\nA:x86_64\n\n"


def facts(
    *layers: dict[str, Any], environ: tuple[str, ...] = (), python: str | None = None, **more: Any
) -> BaseFacts:
    return survey(config("amd64", *environ, **more), [layer(one) for one in layers]).facts(python)


def test_a_base_like_the_official_slim_ones() -> None:
    found = facts(
        SYSTEM,
        local(),
        environ=("PATH=/usr/local/bin:/usr/bin", "PYTHON_VERSION=3.11.9"),
        User="1000:1000",
        Entrypoint=["tini", "--"],
    )
    assert found == BaseFacts(
        python="3.11.9",
        interpreter="/usr/local/bin/python3.11",
        libc="glibc",
        glibc=(2, 36),
        path="/usr/local/bin:/usr/bin",
        user="1000:1000",
        entrypoint=("tini", "--"),
        stdlib="/usr/local/lib/python3.11",
        stdlib_bytecode=False,
    )


def test_a_base_without_python() -> None:
    assert facts(SYSTEM) == BaseFacts(libc="glibc", glibc=(2, 36))
    assert facts({"etc/passwd": b""}) == BaseFacts()


def test_bytecode_of_the_standard_library_of_that_python_only() -> None:
    environ = ("PYTHON_VERSION=3.11.9",)
    cache = "usr/local/lib/python3.11/__pycache__"
    assert not facts(SYSTEM, local(), {f"{cache}/os.cpython-312.pyc": b""}, environ=environ).stdlib_bytecode
    assert facts(SYSTEM, local(), {f"{cache}/os.cpython-311.pyc": b""}, environ=environ).stdlib_bytecode
    sourceless = {"usr/local/lib/python3.11/.wh.os.py": b"", "usr/local/lib/python3.11/os.pyc": b""}
    assert facts(SYSTEM, local(), sourceless, environ=environ).stdlib_bytecode


# -- which interpreter ---------------------------------------------------------------------------------------------

BOTH = SYSTEM | {"usr/bin/python3.11": elf(loader=LOADER), "var/lib/dpkg/status": DPKG.encode()} | local()


def test_the_local_one_wins_and_the_database_says_nothing_of_it() -> None:
    assert facts(BOTH, environ=("PYTHON_VERSION=3.11.9",)).python == "3.11.9"
    with pytest.raises(
        BaseVersionUnknown, match=r"the base has /usr/local/bin/python3\.11, and nothing says which"
    ):
        facts(BOTH)
    gone = {"usr/local/bin/.wh.python3.11": b""}
    found = facts(BOTH, gone)
    assert (found.python, found.interpreter) == ("3.11.2", "/usr/bin/python3.11")


def test_a_python_that_is_wanted_is_chosen_among_several() -> None:
    many = SYSTEM | local("3.13", content=b"\0003.13.1\0") | local("3.12", content=b"\0003.12.4\0")
    many |= {"usr/bin/python3.11": elf(loader=LOADER), "var/lib/dpkg/status": DPKG.encode()}
    many["usr/local/bin/python3"] = "python3.12"
    assert [facts(many, python=one).python for one in ("3.11", "3.12.9", "3.13", "3.14", None)] == [
        "3.11.2",
        "3.12.4",
        "3.13.1",
        "3.12.4",
        "3.12.4",
    ]
    assert facts({**many, "usr/local/bin/python3": "nowhere"}).python == "3.13.1"


@pytest.mark.parametrize(
    "entries",
    [
        {"usr/local/bin/python3.11": b"#!/bin/sh\nexec pyenv"},
        {"usr/local/bin/python3.11": elf(ARM64_ELF)},
        {"usr/local/bin/python3.11": elf(3, bits=32)},
        {"usr/local/bin/python3.11": "/nowhere/python3.11"},
        {"usr/local/bin/python3.11": "python3.11"},
        {"usr/local/bin/python3.11": None},
        {"usr/local/bin/python3.11": "python3.11t", "usr/local/bin/python3.11t": elf()},
        {"opt/python/bin/python3.11": elf()},
        {"usr/local/bin/python3.11-config": elf(), "usr/local/bin/python": elf()},
    ],
)
def test_what_is_no_python(entries: dict[str, Any]) -> None:
    assert facts(SYSTEM, entries, environ=("PYTHON_VERSION=3.11.9",)).python is None


def test_what_cannot_be_executed_is_no_python() -> None:
    made = layer(local(), {"usr/local/bin/python3.11": 0o644})
    assert survey(config("amd64", "PYTHON_VERSION=3.11.9"), [layer(SYSTEM), made]).facts().python is None


def test_a_python_anywhere_on_the_path_is_found_at_its_real_place() -> None:
    """As uv and conda place it: links out of a folder of PATH, the standard library beside the real one."""
    home = "root/.local/share/uv/python/cpython-3.12.8-linux-x86_64-gnu"
    entries = {
        f"{home}/bin/python3.12": elf(loader=LOADER),
        f"{home}/include/python3.12/patchlevel.h": b'#define PY_VERSION      \t"3.12.8"\n',
        f"{home}/lib/python3.12/os.py": b"",
        "usr/local/tools/python3.12": f"/{home}/bin/python3.12",
    }
    found = facts(SYSTEM, entries, environ=("PATH=/usr/local/tools:/usr/bin",))
    assert (found.python, found.interpreter) == ("3.12.8", f"/{home}/bin/python3.12")
    assert found.stdlib == f"/{home}/lib/python3.12"


def test_a_hard_link_is_the_program_it_names() -> None:
    entries = {
        "usr/bin/python3": elf(loader=LOADER, content=b"\0003.11.4\0"),
        "usr/bin/python3.11": ("hard", "usr/bin/python3"),
    }
    assert facts(SYSTEM, entries).python == "3.11.4"


# -- which release -------------------------------------------------------------------------------------------------

HEADER = {"usr/local/include/python3.11/patchlevel.h": b'/* */\n#define PY_VERSION              "3.11.5+"\n'}


@pytest.mark.parametrize(
    ("declared", "entries", "version"),
    [
        ("3.11.9", HEADER, "3.11.9"),
        ("3.12.1", HEADER, "3.11.5"),
        ("3.11", HEADER, "3.11.5"),
        ("3.11.0rc1", HEADER, "3.11.5"),
        ("", {"usr/local/bin/python3.11": elf(content=b"\0003.11.7\0003.39.4\0")}, "3.11.7"),
        ("", {"usr/local/lib/libpython3.11.so.1.0": elf(content=b"\0003.11.8\0")}, "3.11.8"),
        ("", {"usr/local/lib64/libpython3.11.so.1.0": elf(content=b"\0003.11.8\0")}, "3.11.8"),
    ],
)
def test_the_release_by_config_header_or_program(declared: str, entries: dict[str, Any], version: str) -> None:
    assert facts(SYSTEM, local() | entries, environ=(f"PYTHON_VERSION={declared}",)).python == version


@pytest.mark.parametrize(
    "entries",
    [
        {},
        {"usr/local/include/python3.11/patchlevel.h": b'#define PY_VERSION "3.11.0rc1"\n'},
        {"usr/local/include/python3.11/patchlevel.h": b'#define PY_VERSION "3.12.1"\n'},
        {"usr/local/bin/python3.11": elf(content=b"\0003.11.7\0003.11.8\0")},
        {"usr/local/bin/python3.11": elf(content=b"\0003.11.7rc1\0")},
        {"usr/local/lib/libpython3.11.so.1.0": elf(ARM64_ELF, content=b"\0003.11.8\0")},
        {"usr/include/python3.11/patchlevel.h": HEADER["usr/local/include/python3.11/patchlevel.h"]},
    ],
)
def test_an_unknown_release_has_to_be_declared(entries: dict[str, Any]) -> None:
    with pytest.raises(BaseVersionUnknown, match=r"python3\.11, and nothing says which release 3\.11\.Z") as caught:
        facts(SYSTEM, local() | entries)
    assert "PYTHON_VERSION" in (caught.value.hint or "")
    assert facts(SYSTEM, local() | entries, python="3.11.6").python == "3.11.6"
    with pytest.raises(BaseVersionUnknown):
        facts(SYSTEM, local() | entries, python="3.12.6")


@pytest.mark.parametrize(
    ("path", "text", "python"),
    [
        ("var/lib/dpkg/status", DPKG, "3.11.2"),
        ("var/lib/dpkg/status.d/python3.11-minimal", DPKG.replace("Status: install ok installed\n", ""), "3.11.2"),
        ("lib/apk/db/installed", APK, "3.12.8"),
        ("usr/lib/apk/db/installed", APK.replace("P:python3", "P:python-3.12-base"), "3.12.8"),
    ],
)
def test_the_release_by_the_package_database(path: str, text: str, python: str) -> None:
    entries = {path: text.encode(), f"usr/bin/python{python[:4]}": elf(loader=LOADER)}
    assert facts(SYSTEM | {"var/lib/dpkg/status.d/a.md5sums": b"0 x\n"}, entries).python == python


@pytest.mark.parametrize(
    ("version", "pythons"),
    [
        ("3.13.0~rc2-1", ()),
        ("3.13.0rc2-1", ()),
        ("3.13.10-1", (("3.13", "3.13.10"),)),
        ("1:3.13.1-1~bpo12", (("3.13", "3.13.1"),)),
        ("3.13.1+dfsg-2", (("3.13", "3.13.1"),)),
        ("3.13", ()),
        ("", ()),
    ],
)
def test_versions_of_packages(version: str, pythons: tuple[tuple[str, str], ...]) -> None:
    text = f"Package: libpython3.13-stdlib\nStatus: install ok installed\nVersion: {version}\n"
    assert evidence.debian(text.encode()) == Packages(pythons)


def test_other_packages_of_python_say_nothing() -> None:
    text = "Package: python3.13-venv-tools\nVersion: 3.13.1\n\nPackage: python3-six\nVersion: 3.13.2\n"
    assert evidence.debian(text.encode()) == Packages(())


# -- the C library -------------------------------------------------------------------------------------------------


def test_the_glibc_is_that_beside_the_loader() -> None:
    """Not one in a tool chain's own root, nor that of another architecture."""
    others = {
        "opt/conda/sysroot/lib64/libc.so.6": libc("2.17"),
        "lib/i386-linux-gnu/libc.so.6": libc("2.12", 3),
        "usr/lib64/libc.so.6": libc("2.30"),
    }
    assert facts(SYSTEM, others).glibc == (2, 36)
    nix = {"nix/glibc-2.40/lib/ld-linux-x86-64.so.2": b"", "nix/glibc-2.40/lib/libc.so.6": libc("2.40")}
    python = {"usr/bin/python3.11": elf(loader="/nix/glibc-2.40/lib/ld-linux-x86-64.so.2", content=b"\0003.11.2\0")}
    assert facts(SYSTEM, nix, python).glibc == (2, 40)


def test_an_older_layout_with_versions_in_file_names() -> None:
    lib = "lib/x86_64-linux-gnu"
    entries: dict[str, Any] = {
        "lib64/ld-linux-x86-64.so.2": f"/{lib}/ld-2.31.so",
        f"{lib}/ld-2.31.so": b"",
        f"{lib}/libc-2.31.so": libc("2.31"),
        f"{lib}/libc.so.6": "libc-2.31.so",
    }
    assert facts(entries) == BaseFacts(libc="glibc", glibc=(2, 31))


def test_arm64_has_its_own_loader() -> None:
    lib = "usr/lib/aarch64-linux-gnu"
    entries: dict[str, Any] = {
        "lib": "usr/lib",
        "usr/lib/ld-linux-aarch64.so.1": "aarch64-linux-gnu/ld-linux-aarch64.so.1",
        f"{lib}/ld-linux-aarch64.so.1": b"",
        f"{lib}/libc.so.6": libc("2.39", ARM64_ELF),
    }
    found = survey(config("arm64"), [layer(entries)]).facts()
    assert (found.libc, found.glibc) == ("glibc", (2, 39))
    assert survey(config("amd64"), [layer(entries)]).facts().libc == "none"


def test_musl_by_the_loader_of_the_python_else_of_the_system() -> None:
    alpine = {"lib/ld-musl-x86_64.so.1": b""}
    assert facts(alpine).libc == "musl"
    python = {"usr/bin/python3.12": elf(loader="/lib/ld-musl-x86_64.so.1"), "lib/apk/db/installed": APK.encode()}
    found = facts(SYSTEM, alpine | python)
    assert (found.libc, found.glibc, found.python) == ("musl", None, "3.12.8")
    with_glibc = facts(alpine | SYSTEM, {"usr/bin/python3.12": elf(loader=LOADER, content=b"\0003.12.1\0")})
    assert (with_glibc.libc, with_glibc.glibc) == ("glibc", (2, 36))
    compatible = alpine | {"lib64/ld-linux-x86-64.so.2": "/lib/libgcompat.so.0", "lib/libgcompat.so.0": b""}
    assert facts(compatible).libc == "musl"


def test_a_glibc_that_does_not_say_its_version_is_unknown_and_not_absent() -> None:
    entries = {**SYSTEM, "usr/lib/x86_64-linux-gnu/libc.so.6": elf()}
    assert facts(entries) == BaseFacts(libc="glibc", glibc=None)


def test_what_a_c_library_says() -> None:
    defined = elf(content=b"\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.4\0GLIBC_PRIVATE\0")
    assert evidence.c_library(defined) == CLibrary(62, (2, 34))
    assert evidence.c_library(libc("2.41")) == CLibrary(62, (2, 41))
    assert evidence.c_library(b"/* GNU ld script */" + bytes(64)) is None


# -- streams -------------------------------------------------------------------------------------------------------


def test_layers_in_any_compression_are_one_image() -> None:
    layers = [
        stream(tar(SYSTEM)),
        stream(zstandard.compress(tar(local()))),
        stream(gzip.compress(tar({}))),
        stream(b""),
    ]
    assert survey(config("amd64", "PYTHON_VERSION=3.11.9"), layers).facts().python == "3.11.9"


@pytest.mark.parametrize(
    "data",
    [
        b"<html>not here</html>",
        gzip.compress(tar(SYSTEM))[:-20],
        tar({"x": bytes(2000)})[:1000],
        zstandard.compress(tar({"x": bytes(2000)}))[:-9],
    ],
)
def test_a_layer_that_is_no_archive_is_named(data: bytes) -> None:
    with pytest.raises(BaseUnreadable, match="layer 2 of base x is no archive of files"):
        survey(config(), [layer(SYSTEM), stream(data)], name="base x")


def test_a_layer_is_read_to_its_last_byte_where_its_digest_is_decided() -> None:
    ended = []

    def blocks() -> Iterator[bytes]:
        yield from stream(tar(SYSTEM) + bytes(1 << 20))()
        ended.append(True)

    survey(config(), [blocks]).facts()
    assert ended


def test_errors_of_the_registry_pass_through() -> None:
    def blocks() -> Iterator[bytes]:
        yield gzip.compress(tar(SYSTEM))[:400]
        raise ConnectionError

    with pytest.raises(ConnectionError):
        survey(config(), [blocks]).facts()


def test_large_layers_are_read_in_little_memory() -> None:
    large = {"usr/lib/big.so": bytes(64 << 20), "usr/bin/pythonx.y": bytes(8 << 20)}
    packed = gzip.compress(tar(large), 1)
    del large
    tracemalloc.start()
    try:
        survey(config(), [stream(packed, 1 << 16), layer(SYSTEM)]).facts()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 << 20


def test_a_survey_is_kept_as_json() -> None:
    found = survey(config("amd64", "PATH=/a", "PYTHON_VERSION=3.11.9"), [layer(BOTH)])
    assert Survey.from_json(json.loads(json.dumps(found.to_json()))) == found
    for broken in ({}, {**found.to_json(), "pythons": [{}]}, {**found.to_json(), "more": 1}):
        with pytest.raises((KeyError, TypeError)):
            Survey.from_json(broken)


@pytest.mark.parametrize("inner", [None, {"Env": None, "Entrypoint": None, "User": None}])
def test_a_config_that_says_nothing(inner: object) -> None:
    document = {"architecture": "amd64", "os": "linux", "config": inner}
    assert survey(document, [layer(SYSTEM)]).facts().path == ""


def test_texts_that_no_file_can_hold_are_replaced() -> None:
    assert facts(SYSTEM, environ=("PATH=/a\ud800",), User="\udfff:").user == "?"
