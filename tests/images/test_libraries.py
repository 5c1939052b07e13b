"""What the loader will not find: by the files' own words, and before anything runs."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkiln.envs.condaunpack import unpack
from flowkiln.images import elf, libraries
from flowkiln.images.elf import Elf
from flowkiln.images.errors import ForeignProgram
from flowkiln.images.libraries import Missing, Program
from tests.envs import condalocks
from tests.images import made
from tests.images.elves import AMD64, ARM64, CUDA, old, shared
from tests.images.team import LINUX, Machine, push_base
from tests.services import unavailable
from tests.services.condaarchive import Link
from tests.services.condapackages import PLACEHOLDER, package
from tests.services.wheels import wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flowkiln.envs.lock import LockedConda
    from tests.images.registries import Clients
    from tests.services.condapackages import FileMode
    from tests.services.index import PackageIndex
    from tests.services.registry import FakeRegistry
    from tests.services.wheels import Distribution

BASE = ("libc.so.6", "ld-linux-x86-64.so.2")
TAG = "cp311-abi3-manylinux_2_17_x86_64"


def read(data: bytes) -> Elf | None:
    return elf.of(lambda offset, size: data[offset : offset + size])


# -- files -----------------------------------------------------------------------------------------------------


def test_a_shared_object_says_what_it_needs_and_where_it_looks() -> None:
    assert read(shared("liba.so.1", "libb.so")) == Elf(AMD64, ("liba.so.1", "libb.so"), ())
    assert read(shared("liba.so.1", rpath="$ORIGIN/x:/opt/lib")) == Elf(
        AMD64, ("liba.so.1",), ("$ORIGIN/x", "/opt/lib")
    )
    assert read(shared("a", rpath="/old", runpath="$ORIGIN")) == Elf(AMD64, ("a",), ("$ORIGIN",))
    assert read(shared(machine=ARM64, kind=2)) == Elf(ARM64)
    assert (read(old()), read(old(8, little=False))) == (Elf(3), Elf(8))


def test_what_is_not_loaded_is_no_program() -> None:
    for data in (b"", b"\x7fELF", b"#!/bin/sh\n" * 20, shared("a", kind=1), shared("a", kind=4)):
        assert read(data) is None


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_file_is_read_without_harm(data: st.DataObject) -> None:
    whole = bytearray(shared("liba.so.1", "libb.so.2", runpath="$ORIGIN/../x"))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(4, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    found = read(cut)
    assert found is None or isinstance(found.machine, int)


def test_numpys_own_libraries_are_read_as_readelf_reads_them() -> None:
    assert np.__file__ is not None
    root = Path(np.__file__).parent
    extension = next((root / "_core").glob("_multiarray_umath.*.so"))
    found = elf.of_file(str(extension))
    assert found is not None
    try:
        told = subprocess.run(["readelf", "-d", extension], capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        unavailable("no readelf here")
    needed = [line.rpartition("[")[2].rstrip("]") for line in told.splitlines() if "(NEEDED)" in line]
    assert list(found.needed) == needed
    assert f"[{':'.join(found.search)}]" in told


# -- environments ----------------------------------------------------------------------------------------------


def missing(*packages: tuple[str, dict[str, bytes], tuple[str, ...]], base: Sequence[str] = BASE) -> list[str]:
    """The libraries that are missing of packages with these files and requirements."""
    wheels, programs = [], {}
    for name, files, requires in packages:
        locked = replace(made.wheel(name), requires=requires)
        wheels.append(locked)
        found = [(path, read(data)) for path, data in files.items()]
        programs[locked.sha256] = [Program("site", path, one) for path, one in found if one is not None]
    return [one.library for one in libraries.missing(made.part(*wheels), programs, base)]


def test_the_base_and_the_packages_own_libraries_are_found() -> None:
    files = {
        "a/x.so": shared("libc.so.6", "liba-1234.so.1", runpath="$ORIGIN/../a.libs"),
        "a.libs/liba-1234.so.1": shared("libc.so.6"),
    }
    assert missing(("a", files, ())) == []
    assert missing(("a", files, ()), base=()) == ["libc.so.6"]


def test_a_library_of_a_dependency_is_loaded_by_it_first() -> None:
    user = {"a/x.so": shared("libb.so.1")}
    owner = {"b/lib/libb.so.1": shared()}
    assert missing(("a", user, ("m",)), ("m", {}, ("b",)), ("b", owner, ())) == []
    assert missing(("a", user, ()), ("b", owner, ())) == ["libb.so.1"]


def test_a_file_may_look_into_any_folder_of_the_environment() -> None:
    for folder in ("$ORIGIN/../b/lib", "/nowhere:${ORIGIN}/../b/lib/"):
        user = {"a/x.so": shared("libb.so.1", rpath=folder)}
        assert missing(("a", user, ()), ("b", {"b/lib/libb.so.1": shared()}, ())) == []


def test_what_the_driver_brings_and_what_others_run_is_not_missed() -> None:
    files = {
        "a/x.so": shared("libcuda.so.1", "libnvidia-ml.so.1"),
        "a/kernel.so": shared("libodd.so", machine=CUDA),
    }
    assert missing(("a", files, ())) == []


def test_the_package_of_a_missing_library_is_named() -> None:
    one = replace(made.wheel("cv"), requires=())
    seen = read(shared("libGL.so.1", "libown.so.7"))
    assert seen is not None
    found = libraries.missing(made.part(one), {one.sha256: [Program("site", "cv/x.so", seen)]}, BASE)
    assert found == (
        Missing(library="libGL.so.1", package="libgl1", needed_by=("cv",)),
        Missing(library="libown.so.7", package=None, needed_by=("cv",)),
    )
    assert tuple(Missing.from_json(row.to_json()) for row in found) == found


def conda(folder: Path, name: str, files: Mapping[str, bytes | Link]) -> LockedConda:
    """A package of these files, in a channel at ``folder``."""
    mark = PLACEHOLDER.encode()
    named = [path for path, data in files.items() if isinstance(data, bytes) and mark in data]
    prefix_files: dict[str, tuple[FileMode, str]] = dict.fromkeys(named, ("binary", PLACEHOLDER))
    path = package(folder, name, subdir="linux-64", files=files, prefix_files=prefix_files)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return condalocks.package(name, subdir="linux-64", filename=path.name, sha256=sha256)


def seen(folder: Path, locked: LockedConda) -> tuple[Program, ...]:
    target = folder / "unpacked" / locked.name
    target.mkdir(parents=True)
    unpacked = unpack(folder / "linux-64" / locked.filename, locked, target)
    return libraries.read_conda(unpacked, lambda stored: str(target / stored))


def test_conda_packages_find_each_other_by_rpath_prefix_dependency_and_link(tmp_path: Path) -> None:
    blas = conda(tmp_path, "blas", {"lib/libopen.so": shared(), "lib/libblas.so.3": Link("libopen.so")})
    user = conda(
        tmp_path,
        "user",
        {
            "lib/own/a.so": shared("libblas.so.3", "libdep.so", rpath="$ORIGIN/.."),
            "lib/own/b.so": shared("libblas.so.3", "libGL.so.1", rpath=f"{PLACEHOLDER}/lib"),
            "lib/own/c.so": shared("libopen.so"),
            "lib/own/d.so": shared("libelse.so", machine=ARM64),
        },
    )
    dep = conda(tmp_path, "dep", {"share/libdep.so": shared()})
    programs = {one.sha256: seen(tmp_path, one) for one in (blas, user, dep)}

    wheel_of = made.wheel("on-top")
    programs[wheel_of.sha256] = (Program("site", "x.so", Elf(AMD64, ("libdep.so",))),)

    def lacking(*depends: str, needs: str = "dep") -> list[tuple[str, tuple[str, ...]]]:
        packages = (blas, replace(user, depends=depends), replace(dep, provides=(("dep-of", "1.0"),)))
        part = replace(made.part(replace(wheel_of, requires=(f"{needs}-of",))), conda=packages)
        return [(one.library, one.needed_by) for one in libraries.missing(part, programs, BASE)]

    gl = ("libGL.so.1", ("user",))
    assert lacking("dep >=1", "blas") == [gl]
    assert lacking("dep") == [gl, ("libopen.so", ("user",))]
    assert lacking("blas=1.0") == [gl, ("libdep.so", ("user",))]
    assert lacking("dep", "blas", needs="absent") == [gl, ("libdep.so", ("on-top",))]


def test_a_conda_package_for_another_processor_is_refused(tmp_path: Path) -> None:
    wrong = conda(tmp_path, "wrong", {"lib/x.so": shared(machine=ARM64)})
    programs = seen(tmp_path, wrong)
    with pytest.raises(ForeignProgram, match=r"wrong-1\.0-0\.conda holds lib/x\.so, which is for arm64"):
        libraries.check(wrong, programs, "amd64")
    libraries.check(replace(wrong, url=wrong.url.replace("linux-64", "noarch")), programs, "amd64")


# -- images ----------------------------------------------------------------------------------------------------


def native(name: str, *needed: str, machine: int = AMD64, tag: str = TAG) -> Distribution:
    files: dict[str, bytes | str] = {f"{name}/__init__.py": "", f"{name}/x.so": shared(*needed, machine=machine)}
    return wheel(name, tag=tag, files=files)


@pytest.fixture
def join(
    fake_registry: FakeRegistry, clients: Clients, tmp_path: Path, start_index: Callable[[], PackageIndex]
) -> Callable[..., Machine]:
    registry = clients(fake_registry.host, retries=0).registry
    base = push_base(registry, "base")
    return lambda name, **more: Machine(tmp_path / name, registry, base, "team/images", **more)


def test_a_scan_is_made_once_and_needs_no_package_in_the_team(
    join: Callable[..., Machine],
    start_index: Callable[[], PackageIndex],
    fake_registry: FakeRegistry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index = start_index()
    one = native("gl", "libGL.so.1", "libc.so.6")
    index.add(one)
    first = join("first")
    plan = first.plan(index, [one])
    assert first.baker.scanner.missing(plan) is None  # nothing is known of a package that nobody has
    first.publisher().push(plan)
    expected = (Missing(library="libGL.so.1", package="libgl1", needed_by=("gl",)),)
    assert first.baker.scanner.missing(plan) == expected
    index.stop()
    second = join("second")
    fake_registry.state.tags["team/images"].pop(plan.tag)
    second.publisher().push(plan)
    assert second.baker.records.libraries(plan.base.manifest) == first.baker.records.libraries(plan.base.manifest)
    assert second.baker.scanner.missing(plan) == expected
    assert second.wheels() == []

    def never(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(libraries, "missing", never)
    monkeypatch.setattr(libraries, "read", never)
    fake_registry.forget_requests()
    assert first.baker.scanner.missing(plan) == expected
    assert fake_registry.seen == []


def test_the_names_of_the_bases_libraries_come_with_its_facts(join: Callable[..., Machine]) -> None:
    first = join("first")
    pin = first.bases.pin(first.base, LINUX)
    assert first.baker.records.libraries(pin.manifest) == frozenset(
        {
            "libc.so.6",
            "ld-linux-x86-64.so.2",
        }
    )


def test_a_wheel_for_another_processor_is_refused_before_anything_is_pushed(
    join: Callable[..., Machine], start_index: Callable[[], PackageIndex], fake_registry: FakeRegistry
) -> None:
    index = start_index()
    wrong = native("wrong", machine=ARM64)
    index.add(wrong)
    first = join("first")
    plan = first.plan(index, [wrong])
    fake_registry.forget_requests()
    with pytest.raises(ForeignProgram, match=r"wrong/x\.so, which is for arm64; the image is for amd64"):
        first.publisher().push(plan)
    assert not fake_registry.received
    assert plan.tag not in fake_registry.state.tags.get("team/images", {})


def test_a_wheel_may_bring_programs_for_several_processors(
    join: Callable[..., Machine], start_index: Callable[[], PackageIndex]
) -> None:
    files: dict[str, bytes | str] = {"d/a.so": shared(), "d/b.so": old(), "d/kernel.so": shared(machine=CUDA)}
    several = wheel("d", tag=TAG, files=files)
    anywhere = native("e", machine=ARM64, tag="py3-none-any")
    index = start_index()
    index.add(several)
    index.add(anywhere)
    first = join("first")
    assert first.publisher().push(first.plan(index, [several, anywhere])).built
