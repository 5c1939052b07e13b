from __future__ import annotations

from dataclasses import replace

import pytest

from flowkiln._base.platforms import Platform
from flowkiln.envs import pylock
from flowkiln.envs.errors import Conflict, HashMismatch, NoWheel, UnsupportedPython, UnsupportedTarget
from flowkiln.envs.resolve import resolve
from tests.envs.locking import AMD64, ARM64, MAC, lock, request, solver, versions
from tests.services.index import PackageIndex
from tests.services.wheels import wheel

pytestmark = pytest.mark.usefixtures("home")

HOSTS = (AMD64, ARM64, MAC, Platform("darwin", "amd64"))


def native(name: str, version: str, platform: str, **more: object) -> object:
    return wheel(name, version, tag=f"cp311-cp311-{platform}", **more)  # type: ignore[arg-type]


@pytest.fixture
def guarded(package_index: PackageIndex) -> PackageIndex:
    """The index of A01: what ``t`` requires depends on the platform."""
    guards = ("nv; sys_platform == 'linux' and platform_machine == 'x86_64'", "mac; sys_platform == 'darwin'")
    return package_index.add(wheel("t", requires=guards), wheel("nv"), wheel("mac"))


def texts(made: object) -> dict[str, str]:
    parts = made.lock.platforms  # type: ignore[attr-defined]
    return {str(part.platform): pylock.serialise(part.python, part.wheels) for part in parts}


def test_platform_markers_are_those_of_the_target_whatever_the_host(guarded: PackageIndex) -> None:
    made = {host: lock(request("t"), guarded.url, host=host) for host in HOSTS}
    for host in HOSTS:
        assert versions(made[host]) == {"t": "1.0", "nv": "1.0"}
        assert versions(made[host], ARM64) == {"t": "1.0"}
        assert texts(made[host])[str(AMD64)] == texts(made[AMD64])[str(AMD64)]
        assert texts(made[host])[str(ARM64)] == texts(made[AMD64])[str(ARM64)]
    assert versions(made[MAC], MAC) == {"t": "1.0", "mac": "1.0"}
    assert "marker" not in texts(made[MAC])[str(AMD64)]


def test_a_linux_host_adds_no_platform_and_a_mac_adds_its_own(guarded: PackageIndex) -> None:
    assert [p.platform for p in lock(request("t"), guarded.url, host=ARM64).lock.platforms] == [AMD64, ARM64]
    assert [p.platform for p in lock(request("t"), guarded.url, host=MAC).lock.platforms] == [MAC, AMD64, ARM64]


def test_newest_release_for_another_platform_only_is_passed_over(package_index: PackageIndex) -> None:
    package_index.add(wheel("a", "1.9"), native("a", "2.0", "macosx_11_0_arm64"))  # type: ignore[arg-type]
    made = lock(request("a"), package_index.url)
    assert versions(made) == {"a": "1.9"}
    told = [str(one) for one in made.passed_over if one.platform == AMD64]
    assert len(told) == 1
    assert "a 2.0" in told[0]
    assert "1.9" in told[0]
    assert "macosx_11_0_arm64" in told[0]


def test_a_wheel_above_the_glibc_floor_is_never_chosen(package_index: PackageIndex) -> None:
    package_index.add(
        native("a", "1.0", "manylinux_2_17_x86_64"),  # type: ignore[arg-type]
        native("a", "2.0", "manylinux_2_34_x86_64"),  # type: ignore[arg-type]
    )
    asked = request("a", platforms=["linux/amd64"])
    made = lock(asked, package_index.url)
    assert versions(made) == {"a": "1.0"}
    told = str(made.passed_over[0])
    assert "2.34" in told
    assert "2.28" in told
    higher = lock(request("a", platforms=["linux/amd64"], glibc="2.34"), package_index.url)
    assert versions(higher) == {"a": "2.0"}
    assert not higher.passed_over
    with pytest.raises(NoWheel) as caught:
        lock(request("a>=2", platforms=["linux/amd64"]), package_index.url)
    assert 'glibc="2.34"' in str(caught.value.hint)
    assert "2.28" in caught.value.message


def test_the_index_is_asked_once_about_a_version_passed_over(package_index: PackageIndex) -> None:
    package_index.add(wheel("a", "1.9"), native("a", "2.0", "macosx_11_0_arm64"))  # type: ignore[arg-type]
    first = lock(request("a"), package_index.url)
    pages = package_index.requests["/simple/a/"]
    assert lock(request("a"), package_index.url).passed_over == first.passed_over
    assert package_index.requests["/simple/a/"] <= pages + 2, "more than uv's own requests"


def test_versions_for_another_python_are_no_news(package_index: PackageIndex) -> None:
    package_index.add(
        wheel("a", "1.9"), wheel("a", "2.0", tag="cp312-cp312-linux_x86_64", requires_python=">=3.12")
    )
    assert lock(request("a"), package_index.url).passed_over == []


def test_nothing_is_said_about_versions_that_were_not_wanted(package_index: PackageIndex) -> None:
    package_index.add(wheel("a", "1.9"), native("a", "2.0", "macosx_11_0_arm64"))  # type: ignore[arg-type]
    assert lock(request("a<2"), package_index.url).passed_over == []


def test_of_wheels_that_disagree_the_metadata_of_the_chosen_one_counts(package_index: PackageIndex) -> None:
    package_index.add(
        native("two", "1.0", "manylinux_2_17_x86_64", requires=["a"]),  # type: ignore[arg-type]
        wheel("two", "1.0", requires=["b"]),
        wheel("a"),
        wheel("b"),
    )
    made = lock(request("two"), package_index.url)
    assert versions(made) == {"two": "1.0", "a": "1.0"}
    assert versions(made, ARM64) == {"two": "1.0", "b": "1.0"}
    chosen = made.lock.on(AMD64)
    assert chosen is not None
    assert {w.name: w.filename for w in chosen.wheels}["two"] == "two-1.0-cp311-cp311-manylinux_2_17_x86_64.whl"


def test_an_entry_says_where_it_is_from_and_what_it_needs(package_index: PackageIndex) -> None:
    top = wheel("top", requires=["Mid_Dle"])
    package_index.add(top, wheel("mid-dle", requires=["leaf"]), wheel("leaf"))
    part = lock(request("top"), package_index.url).lock.on(AMD64)
    assert part is not None
    found = {one.name: one for one in part.wheels}
    assert found["top"].requires == ("mid-dle",)
    assert found["mid-dle"].requires == ("leaf",)
    assert found["top"].sha256 == top.sha256
    assert found["top"].size == top.size
    assert found["top"].url.startswith(package_index.base)
    assert found["top"].index == package_index.url.rstrip("/")
    assert found["top"].upload_time == "2024-01-01T00:00:00Z"


def test_a_default_platform_without_solution_is_absent_an_explicit_one_fails(package_index: PackageIndex) -> None:
    package_index.add(native("a", "1.0", "manylinux_2_17_x86_64"))  # type: ignore[arg-type]
    made = lock(request("a"), package_index.url)
    assert [part.platform for part in made.lock.platforms] == [AMD64]
    (absent,) = made.lock.absent
    assert absent.platform == ARM64
    assert absent.reason == "no wheel of a fits (Python 3.11, glibc 2.28)"
    with pytest.raises(NoWheel, match="linux/arm64"):
        lock(request("a", platforms=["linux/amd64", "linux/arm64"]), package_index.url)


def test_patch_markers_leave_bounds(package_index: PackageIndex) -> None:
    needs = ["old; python_full_version < '3.11.3'"]
    needs += ["new; python_full_version >= '3.11.5'", "b; python_version > '3'"]
    package_index.add(wheel("a", requires=needs), wheel("old"), wheel("new"), wheel("b"))
    part = lock(request("a", platforms=["linux/amd64"]), package_index.url).lock.on(AMD64)
    assert part is not None
    assert {one.name for one in part.wheels} == {"a", "b", "new"}
    assert part.python_minimum == "3.11.5"
    assert part.python_below is None
    at = lock(request("a", platforms=["linux/amd64"], python="3.11.2"), package_index.url).lock.on(AMD64)
    assert at is not None
    assert {one.name for one in at.wheels} == {"a", "b", "old"}
    assert at.python == "3.11"
    assert at.python_minimum is None
    assert at.python_below == "3.11.3"


def test_requires_python_of_a_wheel_leaves_a_bound(package_index: PackageIndex) -> None:
    package_index.add(wheel("a", requires_python=">=3.11.4"))
    part = lock(request("a", platforms=["linux/amd64"]), package_index.url).lock.on(AMD64)
    assert part is not None
    assert (part.python_minimum, part.python_below) == ("3.11.4", None)


def test_the_bounds_are_remembered(package_index: PackageIndex, home: object) -> None:
    package_index.add(wheel("a", requires_python=">=3.11.4"))
    first = lock(request("a"), package_index.url).lock
    assert lock(request("a"), package_index.url).lock == first


def test_an_unchanged_request_asks_nobody(package_index: PackageIndex) -> None:
    package_index.add(wheel("a", "1.0"))
    first = lock(request("a"), package_index.url).lock
    package_index.add(wheel("a", "2.0"))
    package_index.forget_requests()
    assert lock(request("a"), package_index.url, previous=first).lock == first
    assert package_index.total == 0


def test_only_what_changed_and_what_it_forces_moves(package_index: PackageIndex) -> None:
    package_index.add(wheel("a", "1.0"), wheel("b", "1.0"), wheel("c", "1.0"))
    first = lock(request("a", "b", "c"), package_index.url).lock
    package_index.add(wheel("a", "2.0"), wheel("b", "2.0"), wheel("c", "2.0"), wheel("d", requires=["c>=2"]))
    second = lock(request("a", "b", "c", "d"), package_index.url, previous=first)
    assert versions(second) == {"a": "1.0", "b": "1.0", "c": "2.0", "d": "1.0"}
    one = lock(request("a", "b", "c", "d"), package_index.url, previous=second.lock, upgrade=frozenset({"a"}))
    assert versions(one) == {"a": "2.0", "b": "1.0", "c": "2.0", "d": "1.0"}
    every = lock(request("a", "b", "c", "d"), package_index.url, previous=second.lock, upgrade=True)
    assert versions(every) == {"a": "2.0", "b": "2.0", "c": "2.0", "d": "1.0"}


def test_a_mac_gets_the_versions_of_linux_later(package_index: PackageIndex) -> None:
    package_index.add(wheel("a", "1.0"))
    first = lock(request("a"), package_index.url).lock
    package_index.add(wheel("a", "2.0"))
    second = lock(request("a"), package_index.url, previous=first, host=MAC).lock
    assert versions(second, MAC) == {"a": "1.0"}
    assert second.on(AMD64) == first.on(AMD64)
    third = lock(request("a"), package_index.url, previous=second).lock
    assert third == second, "a Linux host keeps what the Mac added"


def test_both_linux_platforms_get_equal_versions_where_there_are_such(package_index: PackageIndex) -> None:
    package_index.add(wheel("a", "1.0"), native("a", "2.0", "manylinux_2_17_x86_64"))  # type: ignore[arg-type]
    made = lock(request("a"), package_index.url)
    assert versions(made, AMD64) == versions(made, ARM64) == {"a": "1.0"}


def test_a_difference_between_platforms_that_must_be_is_told(package_index: PackageIndex) -> None:
    package_index.add(
        native("a", "1.0", "manylinux_2_17_aarch64"),  # type: ignore[arg-type]
        native("a", "2.0", "manylinux_2_17_x86_64"),  # type: ignore[arg-type]
    )
    made = lock(request("a"), package_index.url)
    assert (versions(made, AMD64), versions(made, ARM64)) == ({"a": "2.0"}, {"a": "1.0"})
    assert any("linux/amd64" in line and "2.0" in line and "1.0" in line for line in made.warnings)


def test_yanked_versions_only_when_pinned(package_index: PackageIndex) -> None:
    package_index.add(wheel("a", "1.0"))
    package_index.add(wheel("a", "2.0"), yanked="broken on Mondays")
    assert versions(lock(request("a"), package_index.url)) == {"a": "1.0"}
    pinned = lock(request("a==2.0"), package_index.url)
    assert versions(pinned) == {"a": "2.0"}
    assert any("yanked" in line and "a==2.0" in line for line in pinned.warnings)


def test_packages_published_after_the_cutoff_do_not_exist(package_index: PackageIndex) -> None:
    package_index.add(wheel("a", "1.0"))
    package_index.add(wheel("a", "2.0"), upload_time="2025-06-02T00:00:00Z")
    assert versions(lock(request("a", exclude_newer="2025-06-01"), package_index.url)) == {"a": "1.0"}
    assert versions(lock(request("a", exclude_newer="2025-06-02"), package_index.url)) == {"a": "2.0"}


def test_hashes_of_a_requirements_file_bind(package_index: PackageIndex, tmp_path: object) -> None:
    good = wheel("a")
    package_index.add(good)
    asked = replace(request("a==1.0"), hashes=(("a", (good.sha256,)),))
    assert versions(lock(asked, package_index.url)) == {"a": "1.0"}
    with pytest.raises(HashMismatch, match=r"a 1\.0"):
        lock(replace(asked, hashes=(("a", ("0" * 64,)),)), package_index.url)


def test_an_index_without_hashes_has_its_files_hashed(package_index: PackageIndex) -> None:
    package_index.add(wheel("a"), hashes=False)
    part = lock(request("a"), package_index.url).lock.on(AMD64)
    assert part is not None
    assert part.wheels[0].sha256 == wheel("a").sha256


def test_an_old_index_with_html_pages_serves_as_well(package_index: PackageIndex) -> None:
    package_index.html_only()
    package_index.add(wheel("a", "1.9"), native("a", "2.0", "macosx_11_0_arm64"))  # type: ignore[arg-type]
    made = lock(request("a"), package_index.url)
    assert versions(made) == {"a": "1.9"}
    assert "macosx_11_0_arm64" in str(made.passed_over[0])


def test_an_environment_without_packages_needs_no_index(package_index: PackageIndex) -> None:
    made = lock(request(), package_index.url).lock
    assert [part.wheels for part in made.platforms] == [(), ()]
    assert package_index.total == 0


def test_an_omitted_python_is_decided_once(package_index: PackageIndex) -> None:
    package_index.add(wheel("a"))
    asked = replace(request("a"), python=None)
    first = lock(asked, package_index.url).lock
    assert first.python in {"3.11", "3.12", "3.13", "3.14", "3.15"}
    moved = replace(first, python="3.12", platforms=())
    assert lock(replace(asked, constraints=("a<9",)), package_index.url, previous=moved).lock.python == "3.12"


@pytest.mark.parametrize("python", ["3.10", "3.13t", "2.7", "4.0", "three"])
def test_unsupported_pythons(python: str, package_index: PackageIndex) -> None:
    with pytest.raises(UnsupportedPython):
        lock(replace(request("a"), python=python), package_index.url)


def test_a_floor_below_every_manylinux_of_uv(package_index: PackageIndex) -> None:
    with pytest.raises(UnsupportedTarget, match=r"2\.12"):
        lock(request("a", glibc="2.12"), package_index.url)


def test_the_first_index_that_has_a_package_decides(package_index: PackageIndex, start_index: object) -> None:
    public = start_index()  # type: ignore[operator]
    package_index.add(wheel("x", "1.0"))
    public.add(wheel("x", "99.0"), wheel("y", "5.0"))
    made = lock(request("x", "y"), solver(package_index.url, public.url))
    assert versions(made) == {"x": "1.0", "y": "5.0"}
    part = made.lock.on(AMD64)
    assert part is not None
    urls = [package_index.url.rstrip("/"), public.url.rstrip("/")]
    assert [one.index for one in part.wheels] == urls


def test_extras_and_dotted_names(package_index: PackageIndex) -> None:
    package_index.add(wheel("zope.interface", extras={"fast": ["speed"]}), wheel("speed"))
    assert set(versions(lock(request("Zope_Interface[fast]"), package_index.url))) == {"speed", "zope-interface"}


def test_a_conflict_keeps_the_solvers_words(package_index: PackageIndex) -> None:
    package_index.add(wheel("a", requires=["c<2"]), wheel("b", requires=["c>=2"]))
    package_index.add(wheel("c", "1.0"), wheel("c", "2.0"))
    with pytest.raises(Conflict) as caught:
        lock(request("a", "b"), package_index.url)
    assert caught.value.step == "train"
    assert "depend on c<2" in caught.value.message
    assert len(caught.value.message.splitlines()) <= 25


def test_upgrading_a_package_that_an_environment_lacks_asks_nobody(package_index: PackageIndex) -> None:
    package_index.add(wheel("a", "1.0"))
    first = lock(request("a"), package_index.url).lock
    package_index.forget_requests()
    same = lock(request("a"), package_index.url, previous=first, upgrade=frozenset({"Elsewhere"}))
    assert same.lock == first
    assert package_index.total == 0


def test_a_platform_asked_for_besides_moves_nothing_else(package_index: PackageIndex) -> None:
    package_index.add(wheel("a", "1.0"), native("b", "1.0", "manylinux_2_17_x86_64"))  # type: ignore[arg-type]
    first = lock(request("a"), package_index.url).lock
    package_index.add(wheel("a", "2.0"))
    wanted = {"host": AMD64, "previous": first, "also": [MAC]}
    second = resolve("fit", request("a"), solver(package_index.url), steps=("train",), **wanted).lock  # type: ignore[arg-type]
    assert second.spec_id == first.spec_id
    assert second.on(AMD64) == first.on(AMD64)
    assert versions(second, MAC) == {"a": "1.0"}
    with pytest.raises(NoWheel, match="darwin/arm64"):
        resolve("fit", request("b"), solver(package_index.url), host=AMD64, also=[MAC])
