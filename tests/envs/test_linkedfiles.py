"""Linked files in lock files, in requests and in records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkiln._base.platforms import Platform
from flowkiln.envs import linkedfiles, linkside, sources
from flowkiln.envs.builderrors import NowhereToLink
from flowkiln.envs.errors import BadLockFile, UnknownOption
from flowkiln.envs.lock import EnvLock, LinkedFiles, LockedConda, PlatformLock
from flowkiln.envs.lockfolder import LockFolder, texts_of
from flowkiln.envs.spec import EnvSpec

AMD64 = Platform("linux", "amd64")
KEY = "sha256:" + "a" * 64
PYTHON = LockedConda(
    name="python",
    version="3.11.9",
    build="0_cpython",
    filename="python-3.11.9-0_cpython.conda",
    url="https://example.com/main/linux-64/python-3.11.9-0_cpython.conda",
    sha256="1" * 64,
    md5="1" * 32,
    size=5,
)
TOOL = replace(
    PYTHON,
    name="tool",
    version="1.0",
    build="0",
    sha256="2" * 64,
    filename="tool-1.0-0.conda",
    url="https://example.com/main/linux-64/tool-1.0-0.conda",
)


def linked(**changes: Any) -> LinkedFiles:
    told: dict[str, Any] = {
        "subdir": "linux-64",
        "sha256": "3" * 64,
        "size": 7,
        "key": KEY,
        "where": "python:3.11@sha256:4",
        "scripts": ("tool",),
        "replaces": ('share/it\'s "here".txt',),
    }
    return linkedfiles.linked(**{**told, **changes})


def part(**changes: Any) -> PlatformLock:
    told: dict[str, Any] = {"conda": (PYTHON, TOOL), "link_scripts": ("tool",), "linked": linked()}
    return PlatformLock(platform=AMD64, python="3.11", wheels=(), **{**told, **changes})


def lock(*parts: PlatformLock) -> EnvLock:
    spec_id = EnvSpec(conda=("tool",), link_scripts=("tool",)).spec_id
    channels = ("https://example.com/main",)
    return EnvLock(name="fit", spec_id=spec_id, python="3.11", platforms=parts, steps=("fit",), channels=channels)


def written(tmp_path: Path, one: EnvLock) -> LockFolder:
    folder = LockFolder(tmp_path / "x.locks")
    with folder.hold():
        folder.write({one.name: one})
    return folder


def test_the_lock_comes_back_and_conda_lock_does_not_name_it(tmp_path: Path) -> None:
    one = lock(part())
    folder = written(tmp_path, one)
    assert folder.read() == {"fit": one}
    (found,) = folder.read()["fit"].platforms
    assert found.packages[2].sha256 == "3" * 64
    assert isinstance(found.packages[2], LinkedFiles)
    assert found.packages[2].before == part(linked=None)
    assert "flowkiln-linked-files" not in texts_of([one])["fit.conda-lock.yml"]


def test_a_lock_without_them_is_written_as_before() -> None:
    assert "linked" not in texts_of([lock(part(link_scripts=(), linked=None))])["flowkiln.lock"]


def test_identities_cover_the_hash_and_what_may_run() -> None:
    ids = {
        part().env_id,
        part(linked=linked(sha256="5" * 64)).env_id,
        part(linked=None).env_id,
        part(linked=None, link_scripts=()).env_id,
    }
    assert len(ids) == 4
    assert part(linked=linked(where="elsewhere")).env_id == part().env_id


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('sha256 = "' + "3" * 64, 'sha256 = "' + "6" * 64),
        ('sha256 = "' + "3" * 64, 'sha256 = "short'),
        ('key = "sha256:', 'key = "md5:'),
        ("size = 7", 'size = "many"'),
        ('scripts = ["tool"]', "scripts = [1]"),
        ('  "share/it', '  "../share/it'),
        ('subdir = "linux-64"\n', ""),
    ],
    ids=["edited", "hash", "key", "size", "scripts", "path", "missing"],
)
def test_a_table_that_is_wrong_is_told(tmp_path: Path, old: str, new: str) -> None:
    folder = written(tmp_path, lock(part()))
    index = folder.path / "flowkiln.lock"
    before = index.read_text()
    index.write_text(before.replace(old, new))
    assert index.read_text() != before
    with pytest.raises(BadLockFile):
        folder.read()


@given(
    st.text(min_size=1, max_size=20).filter(lambda text: "/" not in text and text not in (".", "..")), st.booleans()
)
def test_records_come_back(name: str, replaces: bool) -> None:
    one = linked(replaces=(f"share/{name}",) if replaces else ())
    kept = linkedfiles.KeptFiles(linked=one, path=Path("x"))
    assert linkedfiles.kept_from_json(kept.to_json(), Path("x")) == kept


@pytest.mark.parametrize("wrong", [{"schema": 2}, {"filename": "../x"}, {"linked": {}}])
def test_records_of_something_else_are_refused(wrong: dict[str, Any]) -> None:
    document = linkedfiles.KeptFiles(linked=linked(), path=Path("x")).to_json()
    with pytest.raises((ValueError, KeyError)):
        linkedfiles.kept_from_json({**document, **wrong}, Path("x"))


# -- requests --------------------------------------------------------------------------------------------------


def test_names_stand_in_the_request_and_move_its_identity() -> None:
    options = {"conda": {"tool": "1.*"}, "python": "3.11"}
    plain = sources.spec(options, folder=Path())
    allowed = sources.spec({**options, "link_scripts": ["Tool", "other"]}, folder=Path())
    assert allowed.link_scripts == ("other", "tool")
    assert allowed.spec_id != plain.spec_id
    assert sources.spec({**options, "link_scripts": []}, folder=Path()).spec_id == plain.spec_id


@pytest.mark.parametrize("told", ["tool", [1], [""]])
def test_what_is_no_list_of_names_is_told(told: Any) -> None:
    with pytest.raises(UnknownOption, match="link_scripts is a list"):
        sources.spec({"conda": {"tool": "*"}, "link_scripts": told}, folder=Path())


def test_names_without_conda_packages_are_told() -> None:
    with pytest.raises(UnknownOption, match="there are none"):
        sources.spec({"packages": {"six": "*"}, "link_scripts": ["tool"]}, folder=Path())


# -- what a lock that stands keeps -----------------------------------------------------------------------------


class Linker:
    """Somewhere that scripts run, which counts."""

    def __init__(self) -> None:
        self.asked = 0

    def linked(self, label: str, one: PlatformLock, names: frozenset[str]) -> PlatformLock:
        assert (label, names) == ("fit", frozenset({"tool"}))
        self.asked += 1
        if one.platform != AMD64:
            raise NowhereToLink(f"not for {one.platform}")
        return replace(one, link_scripts=("tool",), linked=linked(sha256="7" * 64))


BARE = part(link_scripts=(), linked=None)


@pytest.mark.parametrize(
    ("now", "upgrade", "asked"),
    [
        (BARE, False, 0),
        (BARE, True, 1),
        (BARE, frozenset({"tool"}), 1),
        (BARE, frozenset({"python"}), 0),
        (replace(BARE, conda=(PYTHON, replace(TOOL, version="2.0"))), False, 1),
        (replace(BARE, conda=(PYTHON,)), False, 0),
    ],
    ids=["same", "all", "named", "other", "another-package", "without"],
)
def test_scripts_run_again_only_when_something_moved(now: PlatformLock, upgrade: Any, asked: int) -> None:
    linker, spec = Linker(), EnvSpec(conda=("tool",), link_scripts=("tool",))
    found = linkside.Linking(linker, "fit", spec, lock(part()), upgrade=upgrade).of(now)
    assert linker.asked == asked
    assert found == (part() if now is BARE and not asked else found)


def test_a_given_lock_loses_platforms_that_nothing_runs_on_unless_they_are_demanded() -> None:
    spec = EnvSpec(link_scripts=("tool",))
    other = replace(BARE, platform=Platform("linux", "arm64"))
    linking = linkside.Linking(Linker(), "fit", spec, None)
    found = linking.given(lock(BARE, other), demanded=())
    assert [(str(one.platform), one.linked is not None) for one in found.platforms] == [("linux/amd64", True)]
    assert [str(one.platform) for one in found.absent] == ["linux/arm64"]
    with pytest.raises(NowhereToLink, match="environment 'fit' for linux/arm64"):
        linking.given(lock(BARE, other), demanded=(other.platform,))


def test_names_without_effect_are_told() -> None:
    spec = EnvSpec(link_scripts=("absent", "python", "tool"))
    assert linkside.warnings(lock(part()), spec) == [
        "fit: link_scripts names absent, and no package of that name is locked",
        "fit: link_scripts names python, which has no link script",
    ]
