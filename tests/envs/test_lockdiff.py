from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flowkiln._base.platforms import Platform
from flowkiln.envs.lock import EnvLock, PlatformLock
from flowkiln.envs.lockdiff import diff, versions, why
from flowkiln.envs.lockfolder import LockFolder
from tests.cli.declaring import run
from tests.envs import condalocks
from tests.envs.test_lockfolder import a_wheel

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


def part(*wheels: object, platform: Platform = AMD64) -> PlatformLock:
    return PlatformLock(platform=platform, python="3.11", wheels=tuple(wheels), glibc=(2, 28))  # type: ignore[arg-type]


def lock(*parts: PlatformLock) -> EnvLock:
    return EnvLock(name="fit", spec_id="sha256:" + "0" * 64, python="3.11", platforms=parts)


def test_every_kind_of_change_is_told_once() -> None:
    before = [a_wheel("gone"), a_wheel("moved"), a_wheel("rebuilt"), a_wheel("same")]
    after = [a_wheel("moved", "2.0"), a_wheel("new"), a_wheel("rebuilt", sha256="f" * 64), a_wheel("same")]
    one = lock(part(*before), part(*before, platform=ARM64))
    two = lock(part(*after), part(*after, platform=ARM64))
    assert [str(change) for change in diff(one, two)] == [
        "- gone 1.0 (linux/amd64, linux/arm64)",
        "~ moved 1.0 -> 2.0 (linux/amd64, linux/arm64)",
        "+ new 1.0 (linux/amd64, linux/arm64)",
        "= rebuilt 1.0 (another file) (linux/amd64, linux/arm64)",
    ]
    assert diff(one, one) == ()


def test_changes_on_one_platform_name_it() -> None:
    one = lock(part(a_wheel("a")), part(a_wheel("a"), platform=ARM64))
    two = lock(part(a_wheel("a")), part(a_wheel("a", "2.0"), platform=ARM64))
    (change,) = diff(one, two)
    assert change.to_json() == {
        "name": "a",
        "from": "pypi",
        "kind": "changed",
        "before": "1.0",
        "after": "2.0",
        "platforms": ["linux/arm64"],
    }
    assert [change.kind for change in diff(None, one)] == ["added"]
    assert [change.kind for change in diff(one, None)] == ["removed"]


def test_why_gives_the_shortest_chain_from_each_requirement() -> None:
    graph = part(
        a_wheel("top", requires=("leaf", "mid")),
        a_wheel("other", requires=("mid",)),
        a_wheel("mid", requires=("leaf", "other")),
        a_wheel("leaf"),
        a_wheel("alone"),
    )
    assert why(graph, "Leaf", ["top", "other"]) == (("top", "leaf"), ("other", "mid", "leaf"))
    assert why(graph, "top", ["top"]) == (("top",),)
    assert why(graph, "leaf") == (("top", "leaf"),)
    assert why(graph, "alone", ["top"]) == ()
    assert why(graph, "absent") == ()


def test_changes_of_conda_packages_say_so() -> None:
    package = condalocks.package
    before = replace(part(a_wheel("same")), conda=(package("gone"), package("moved"), package("rebuilt")))
    after = replace(
        part(a_wheel("gone")), conda=(package("moved", "2.0"), package("rebuilt", build="1"), package("same"))
    )
    assert [str(change) for change in diff(lock(before), lock(after))] == [
        "- gone (conda) 1.0 (linux/amd64)",
        "+ gone 1.0 (linux/amd64)",
        "~ moved (conda) 1.0 -> 2.0 (linux/amd64)",
        "= rebuilt (conda) 1.0 (another file) (linux/amd64)",
        "+ same (conda) 1.0 (linux/amd64)",
        "- same 1.0 (linux/amd64)",
    ]


def test_why_follows_both_sides() -> None:
    conda = (
        condalocks.package("msgpack-python", depends=("libzlib >=1", "python"), provides=(("msgpack", "1.0"),)),
        condalocks.package("python", depends=("libzlib", "__glibc >=2.17")),
        condalocks.package("libzlib"),
    )
    mixed = replace(part(a_wheel("top", requires=("msgpack",))), conda=conda)
    assert why(mixed, "libzlib") == (("top", "msgpack", "msgpack-python", "libzlib"),)
    assert why(mixed, "libzlib", ["python"]) == (("python", "libzlib"),)
    assert why(mixed, "msgpack") == (("top", "msgpack"),)
    names = {name for chain in why(mixed, "libzlib") for name in chain}
    assert names <= versions(mixed).keys()


def test_the_verbs_follow_conda_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    LockFolder(tmp_path / "one.locks").write({"fit": condalocks.lock()})
    newer = replace(condalocks.part(), conda=(*condalocks.part().conda[:-1], condalocks.package("tzdata", "2024b")))
    LockFolder(tmp_path / "two.locks").write({"fit": replace(condalocks.lock(), platforms=(newer,))})
    assert run("env", "why", "tzdata", "one.locks", "--platform", "linux/amd64") == 0
    assert "  numpy 1.26.4 -> python 3.11.9 -> tzdata 2024a" in capsys.readouterr().out
    assert run("env", "diff", "one.locks", "two.locks") == 0
    assert "  ~ tzdata (conda) 2024a -> 2024b (linux/amd64)" in capsys.readouterr().out
