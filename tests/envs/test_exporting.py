from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from flowkiln.envs import exporting, pylock, yamltext
from flowkiln.envs.lock import LockedBuild, LockedSource, LockedWheel, PlatformLock
from flowkiln.envs.lockfileerrors import NoMd5, NotExportable
from flowkiln.envs.lockfolder import LockFolder
from tests.cli.declaring import run
from tests.envs import condalocks
from tests.envs.condalocks import AMD64, CHANNEL, package
from tests.envs.test_lockfolder import a_lock, a_wheel

WHEELS = (a_wheel("beta"), a_wheel("alpha", requires=("beta",)))
MIXED = condalocks.lock("fit", *WHEELS)
PLAIN = a_lock("plain", *WHEELS)


def first(lock: object = MIXED) -> PlatformLock:
    return lock.platforms[0]  # type: ignore[attr-defined,no-any-return]


def test_requirements_and_pylock_hold_the_wheels() -> None:
    hashes = [f"    --hash=sha256:{a_wheel(name).sha256}" for name in ("alpha", "beta")]
    lines = ["alpha==1.0 \\", hashes[0], "beta==1.0 \\", hashes[1]]
    assert exporting.requirements(first()).splitlines() == ["# Python 3.11, linux/amd64", *lines]
    assert exporting.pylock(first()) == pylock.serialise("3.11", WHEELS)
    assert [exporting.left_out(first(), form) for form in exporting.FORMS] == [4, 0, 0, 4, 0]
    assert exporting.left_out(first(PLAIN), "pylock") == 0


def built(kind: str, **more: str) -> LockedWheel:
    """A wheel that was built of a source of ``kind``."""
    url = {"folder": "../lib", "git": "https://x.test/lib.git"}.get(kind, "https://x.test/lib-1.0.tar.gz")
    source = LockedSource(kind=kind, url=url, sha256="a" * 64, **more)  # type: ignore[arg-type]
    build = LockedBuild(source=source, key="sha256:" + "b" * 64, python="3.11", platform=AMD64)
    return replace(a_wheel("lib"), url=url, build=build)


@pytest.mark.parametrize(
    ("wheel", "line"),
    [
        (built("sdist"), f"lib==1.0 \\\n    --hash=sha256:{'a' * 64}"),
        (built("archive"), f"lib @ https://x.test/lib-1.0.tar.gz \\\n    --hash=sha256:{'a' * 64}"),
        (
            built("git", commit="c" * 40, ref="v1", subdirectory="py"),
            f"lib @ git+https://x.test/lib.git@{'c' * 40}#subdirectory=py",
        ),
        (built("folder"), "./../lib"),
    ],
    ids=["sdist", "archive", "git", "folder"],
)
def test_what_was_built_is_named_by_its_source(wheel: LockedWheel, line: str) -> None:
    part = replace(first(), wheels=(wheel,))
    assert exporting.requirements(part).endswith(f"{line}\n")
    assert wheel.sha256 not in exporting.requirements(part) + exporting.environment(MIXED, part)
    lock = replace(MIXED, platforms=(part,))
    if wheel.published is None:
        with pytest.raises(NotExportable, match="lib was built of"):
            exporting.explicit(part)
        with pytest.raises(NotExportable, match="lib was built of"):
            exporting.conda_lock(lock)
    else:
        assert f"# pip lib @ {wheel.url}#sha256={'a' * 64}" in exporting.explicit(part)
        assert "a" * 64 in exporting.conda_lock(lock)


def test_explicit_has_what_is_needed_first() -> None:
    lines = exporting.explicit(first()).splitlines()
    names = [re.sub(r".*/(\w+)-.*", r"\1", line) for line in lines if line.startswith(CHANNEL)]
    assert names == ["libzlib", "tzdata", "python", "numpy"]
    assert lines[1:3] == ["# platform: linux-64", "@EXPLICIT"]
    assert lines[-2:] == [f"# pip {w.name} @ {w.url}#sha256={w.sha256}" for w in (WHEELS[1], WHEELS[0])]


def test_packages_that_need_each_other_are_each_there_once() -> None:
    needs = {"pip": ("setuptools", "python"), "python": ("pip",), "setuptools": ("python", "pip")}
    circle = tuple(package(name, depends=depends) for name, depends in needs.items())
    lines = exporting.explicit(replace(first(), conda=circle, wheels=())).splitlines()[3:]
    assert sorted(lines) == sorted(f"{one.url}#{one.md5}" for one in circle)


def test_an_environment_file_pins_everything() -> None:
    document = yamltext.load(exporting.environment(MIXED, first()))
    pip = [f"{name}==1.0 --hash=sha256:{a_wheel(name).sha256}" for name in ("alpha", "beta")]
    assert document == {
        "name": "fit",
        "channels": [*MIXED.channels, "nodefaults"],
        "dependencies": [
            "libzlib=1.3.1=hb9d3cd8_2",
            "numpy=1.26.4=py311h64a7726_0",
            "python=3.11.9=hb806964_0_cpython",
            "tzdata=2024a=h0c530f3_0",
            "pip",
            {"pip": pip},
        ],
    }
    plain = yamltext.load(exporting.environment(PLAIN, first(PLAIN)))
    assert plain["channels"] == ["conda-forge", "nodefaults"]
    assert plain["dependencies"] == ["python=3.11", "pip", {"pip": pip}]


def test_a_form_that_cannot_hold_the_lock_is_refused() -> None:
    alone = first(condalocks.lock())
    for form in ("requirements", "pylock"):
        with pytest.raises(NotExportable, match=f"all packages .* come from conda.*'{form}'"):
            exporting.export(MIXED, alone, form)
    for form in ("explicit", "conda-lock"):
        with pytest.raises(NotExportable, match=f"no conda packages on linux/amd64.*'{form}'"):
            exporting.export(PLAIN, first(PLAIN), form)  # type: ignore[arg-type]
    with pytest.raises(NoMd5):
        exporting.explicit(replace(alone, conda=(package("bare", md5=None),)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    LockFolder(tmp_path / "flow.locks").write({"fit": MIXED, "plain": PLAIN})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_verb_takes_the_form_that_holds_all(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("env", "export", "flow.locks:fit") == 0
    assert capsys.readouterr().out == exporting.conda_lock(MIXED)
    assert run("env", "export", "flow.locks:fit", "--platform", "linux/amd64") == 0
    assert capsys.readouterr().out == exporting.conda_lock(replace(MIXED, platforms=(MIXED.on(AMD64) or first(),)))
    assert run("env", "export", "flow.locks:plain", "--platform", "linux/amd64") == 0
    assert capsys.readouterr().out == exporting.requirements(first(PLAIN))


@pytest.mark.parametrize("form", exporting.FORMS)
def test_the_verb_writes_every_form_to_a_file(folder: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["env", "export", "flow.locks:fit", "--platform", "linux/amd64", "--format", form]
    assert run(*words, "-o", "out/file", "--json") == 0
    answer = capsys.readouterr()
    document = json.loads(answer.out)
    assert (document["format"], document["file"]) == (form, "out/file")
    assert (folder / "out/file").read_text() == document["text"]
    assert ("4 conda packages of fit are not in it" in answer.err) == (form in ("requirements", "pylock"))
    assert run(*words, "-o", "-") == 0
    assert capsys.readouterr().out == document["text"]


def test_a_file_that_cannot_be_is_bad_usage(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "file").write_text("")
    for target in ("file/x", "."):
        assert run("env", "export", "flow.locks:fit", "-o", target) == 2
    assert "file/x lies in a file" in capsys.readouterr().err
