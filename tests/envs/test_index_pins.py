"""A package pinned to an index comes from there alone, and nothing else does."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from flowkiln._base import paths
from flowkiln.envs import indexes
from flowkiln.envs.errors import BadSource, IndexDenied, UnknownOption
from flowkiln.envs.lockfolder import LockFolder
from flowkiln.envs.sources import file_spec, merge, spec
from flowkiln.envs.spec import EnvSpec
from flowkiln.flow.decorators import make
from tests.envs.locking import AMD64, lock, solver, versions
from tests.services import canary
from tests.services.wheels import wheel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flowkiln.envs.resolve import Resolution
    from tests.services.index import PackageIndex

PIN = "https://torch.example/whl/cpu"


def request(**options: Any) -> EnvSpec:
    return spec({"python": "3.11", **options}, folder=paths.cache_root())


def locked(wanted: EnvSpec, *urls: str, **options: Any) -> Resolution:
    plan = indexes.plan(urls, pins=wanted.index_pins, **options)
    return lock(wanted, replace(solver(), plan=plan))


@pytest.fixture
def other(start_index: Callable[[], PackageIndex]) -> PackageIndex:
    """An index that has newer versions of everything."""
    index = start_index()
    return index.add(wheel("torch", "2.0", requires=["numpy"]), wheel("numpy", "9.0"), wheel("app", "9.0"))


@pytest.fixture
def main(package_index: PackageIndex) -> PackageIndex:
    return package_index.add(wheel("app", "1.0", requires=["torch"]), wheel("torch", "3.0"), wheel("numpy", "1.0"))


def test_the_pinned_package_alone_comes_from_its_index(main: PackageIndex, other: PackageIndex) -> None:
    wanted = request(packages={"app": "", "torch": {"version": ">=1", "index": other.url}})
    made = locked(wanted, main.url)
    assert versions(made) == {"app": "1.0", "torch": "2.0", "numpy": "1.0"}
    part = made.lock.on(AMD64)
    assert part is not None
    assert {one.name: one.index for one in part.wheels} == {
        "app": main.url.rstrip("/"),
        "numpy": main.url.rstrip("/"),
        "torch": other.url.rstrip("/"),
    }
    assert (main.count("torch"), other.count("numpy"), other.count("app")) == (0, 0, 0)
    assert {one.name: one.requires for one in part.wheels}["app"] == ("torch",)
    assert lock(wanted, replace(solver(), plan=indexes.plan((main.url,))), previous=made.lock).lock == made.lock


def test_a_package_that_only_others_need_comes_from_its_index_too(main: PackageIndex, other: PackageIndex) -> None:
    made = locked(request(packages=["app"], index_pins={"Torch": other.url, "unneeded": other.url}), main.url)
    assert versions(made) == {"app": "1.0", "torch": "2.0", "numpy": "1.0"}
    assert other.count("unneeded") == 0


def test_a_pin_may_name_an_index_of_the_list(main: PackageIndex, other: PackageIndex) -> None:
    wanted = request(packages=["app<2"], index_pins={"torch": other.url})
    assert versions(locked(wanted, main.url, other.url)) == {"app": "1.0", "torch": "2.0", "numpy": "1.0"}
    assert versions(locked(request(packages=["torch"], index_pins={"torch": main.url}), other.url, main.url)) == {
        "torch": "3.0"
    }


def test_the_login_of_a_pinned_index_reaches_uv_and_nothing_else(
    main: PackageIndex, other: PackageIndex, tmp_path: Path
) -> None:
    other.require("ann", "CANARY123")
    wanted = request(packages={"torch": {"index": other.url_with("ann", "CANARY123")}})
    made = locked(wanted, main.url)
    assert versions(made) == {"torch": "2.0", "numpy": "1.0"}
    LockFolder(tmp_path / "flow.locks").write({"fit": made.lock})
    assert canary.find("CANARY123", tmp_path, paths.cache_root()) == []
    assert wanted.spec_id == request(packages={"torch": {"index": other.url}}).spec_id
    with pytest.raises(IndexDenied) as caught:
        locked(request(packages={"torch": {"index": other.url_with("ann", "CANARY456")}}), main.url)
    assert "CANARY456" not in caught.value.message
    commands = {"127.0.0.1": "printf 'ann\\nCANARY123'"}
    assert locked(request(packages={"torch": {"index": other.url}}), main.url, commands=commands).lock == made.lock


def test_pins_stand_in_the_identity_and_requests_without_any_keep_theirs() -> None:
    plain = request(packages={"torch": "2.*"})
    assert plain.spec_id == EnvSpec(python="3.11", requirements=("torch==2.*",)).spec_id
    pinned = request(packages={"torch": {"version": "2.*", "index": PIN}})
    assert pinned == request(packages={"torch": "2.*"}, index_pins={"Torch": PIN})
    assert pinned.spec_id not in {plain.spec_id, replace(pinned, index_pins=(("torch", f"{PIN}2"),)).spec_id}


def test_a_step_takes_the_pins_of_its_flow_except_for_packages_that_it_names_anew() -> None:
    base = {"packages": {"torch": {"version": "2.*", "index": PIN}, "a": {"index": PIN}}}
    merged = merge(base, {"packages": {"b": {"index": PIN}}})
    assert merged == {"packages": ["a", "b", "torch==2.*"], "index_pins": {"torch": PIN, "a": PIN, "b": PIN}}
    assert merge(base, {"packages": {"torch": "2.1", "a": "1"}}) == {"packages": ["a==1", "torch==2.1"]}


@pytest.mark.parametrize("value", [{}, {"version": 2, "index": PIN}, {"version": "2", "url": PIN}, 2, ["2"]])
def test_the_decorator_takes_a_version_with_an_index(value: object) -> None:
    assert make("pypi", {"packages": {"torch": {"version": "2.*", "index": PIN}}}).problems == ()
    assert len(make("pypi", {"packages": {"torch": value}}).problems) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"packages": {"torch": {"vesion": "2"}}},
        {"packages": {"torch": 2}},
        {"index_pins": [PIN]},
        {"index_pins": {"a": 1}},
    ],
)
def test_bad_pins_of_a_project_are_errors(options: dict[str, Any]) -> None:
    with pytest.raises(UnknownOption):
        request(**options)


def test_what_is_no_index_is_an_error() -> None:
    with pytest.raises(UnknownOption, match="not the URL"):
        indexes.plan(pins=[("torch", "pytorch")])


UV = f"""
[project]
name = "p"
version = "1"
dependencies = ["torch", "numpy"]
[tool.uv]
exclude-newer = "2026-01-31T00:00:00Z"
constraint-dependencies = ["numpy<2"]
dev-dependencies = ["pytest"]
resolution = "highest"
[tool.uv.sources]
Torch = {{ index = "pytorch" }}
[[tool.uv.index]]
name = "pytorch"
url = "{PIN}"
explicit = true
[[tool.uv.index]]
name = "own"
url = "https://own.example/simple"
authenticate = "always"
"""


def test_a_projects_own_uv_tables_are_honoured(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text(UV)
    found = file_spec(path)
    assert found.index_pins == (("torch", PIN),)
    assert found.indexes == ("https://own.example/simple", "default")
    assert found.constraints == ("numpy<2",)
    assert found.exclude_newer == "2026-01-31T00:00:00Z"
    path.write_text(UV.partition('[[tool.uv.index]]\nname = "own"')[0])
    assert file_spec(path).indexes == (), "an explicit index is no index for others"


def test_a_scripts_sources_are_honoured(tmp_path: Path) -> None:
    path = tmp_path / "job.py"
    index = f'[[tool.uv.index]]\nname = "p"\nurl = "{PIN}"\nexplicit = true\n'
    table = f'[tool.uv.sources]\ntorch = {{index = "p"}}\n{index}'
    block = "".join(f"# {line}\n" for line in ['dependencies = ["torch"]', *table.splitlines()])
    path.write_text(f"# /// script\n{block}# ///\n")
    assert file_spec(path).index_pins == (("torch", PIN),)


REFUSED = {
    "prerelease": ('prerelease = "allow"', "prerelease"),
    "resolution": ('resolution = "lowest"', "resolution"),
    "override": ('override-dependencies = ["numpy==1"]', "override-dependencies"),
    "no-index": ("no-index = true", "no-index"),
    "find-links": ('find-links = ["wheels"]', "find-links"),
    "marker-source": (
        'sources = { numpy = [{ index = "a", marker = "x" }, { path = "../numpy" }] }',
        "source of numpy",
    ),
    "marker": ("sources = { numpy = { index = 'x', marker = 'y' } }", "source of numpy"),
    "unnamed": ('sources = { numpy = { index = "nowhere" } }', "'nowhere'"),
    "flat": ('index = [{ name = "x", url = "https://x.example", format = "flat" }]', "format"),
    "no-url": ('index = [{ name = "x" }]', "no url"),
    "sources-text": ('sources = "x"', "sources"),
    "index-table": ('index = { url = "x" }', "index"),
}


@pytest.mark.parametrize(("line", "named"), REFUSED.values(), ids=REFUSED)
def test_what_would_lock_other_packages_is_refused_with_its_place(tmp_path: Path, line: str, named: str) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text(f'[project]\nname = "p"\nversion = "1"\ndependencies = ["numpy"]\n[tool.uv]\n{line}\n')
    with pytest.raises(BadSource, match=named) as caught:
        file_spec(path)
    assert str(path) in caught.value.message


def test_the_plan_of_a_request_has_its_pins(tmp_path: Path) -> None:
    plan = indexes.plan(("https://a.example/simple",), pins=[("torch", PIN), ("vision", PIN), ("a", "pypi")])
    assert [one.shown for one in plan.everywhere] == ["https://a.example/simple", indexes.PYPI, PIN]
    assert json.dumps(plan.pin_names) == json.dumps({indexes.PYPI: "pin-1", PIN: "pin-2"})
