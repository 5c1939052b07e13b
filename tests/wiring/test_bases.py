"""Which pins of bases are used, made, moved or refused."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from flowkiln._base import settings as settings_module
from flowkiln._base.errors import ExitCode, ReadOnly
from flowkiln._base.platforms import Platform
from flowkiln._base.report import Silent
from flowkiln.envs.basepin import BasePin
from flowkiln.envs.errors import Offline, UnpinnedBase
from flowkiln.envs.lockfolder import INDEX, LockFolder
from flowkiln.images.basing import Bases
from flowkiln.images.errors import BaseAbsent
from flowkiln.wiring import bases
from flowkiln.wiring.policy import Policy
from tests.envs.test_lockfolder import a_lock, everything
from tests.images.test_basing import REFERENCE, Shelf

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
KEY = (REFERENCE, AMD64)


class Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@dataclass
class Project:
    """A lock folder, a registry with one base, and what was decided and said."""

    folder: LockFolder
    shelf: Shelf
    root: Path
    said: Said = field(default_factory=Said)
    decided: list[BasePin] = field(default_factory=list)
    bytecode: str | None = "3.11.9"

    def decide(self, pin: BasePin) -> BasePin:
        self.decided.append(pin)
        return replace(pin, bytecode=self.bytecode)

    def settle(self, *wanted: tuple[str, Platform], environ: dict[str, str] | None = None, **more: Any) -> BasePin:
        options = {key: more.pop(key) for key in ("upgrade", "users") if key in more}
        settings = settings_module.load(self.root, environ=environ or {})
        found = bases.settle(
            self.folder,
            wanted or (KEY,),
            settings,
            self.said,
            policy=Policy(**more),
            look=lambda key: Bases(lambda _host: self.shelf, self.root / "cache").pin(*key),
            decide=self.decide,
            **options,
        )
        assert list(found) == list(dict.fromkeys(wanted or (KEY,)))
        return next(iter(found.values()))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("FLOWKILN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FLOWKILN_CONFIG", str(tmp_path / "config.toml"))
    (tmp_path / "flow.py").write_text("")
    monkeypatch.chdir(tmp_path)
    shelf = Shelf()
    shelf.image()
    return Project(LockFolder.beside(tmp_path / "flow.py"), shelf, tmp_path)


def test_a_base_is_pinned_when_it_is_first_needed_and_then_as_it_stands(project: Project) -> None:
    with project.folder.hold():
        project.folder.write({"fit": a_lock()})
    pin = project.settle()
    assert pin.bytecode == "3.11.9"
    assert project.folder.read_bases() == (pin,)
    assert project.folder.read() == {"fit": a_lock()}
    what = f"Python 3.11.9, glibc 2.36, bytecode of 3.11.9, {pin.manifest[:19]}"
    assert project.said.lines == [f"pinned base {REFERENCE} for linux/amd64 in flow.locks: {what}"]
    project.shelf.image(created="later")
    project.shelf.asked.clear()
    policies: list[dict[str, Any]] = [{}, {"locked": True}, {"frozen": True}]
    for policy in policies:
        assert project.settle(**policy) == pin
    assert project.settle(environ={"FLOWKILN_OFFLINE": "1"}) == pin
    assert project.shelf.asked == []
    assert len(project.said.lines) == len(project.decided) == 1


@pytest.mark.parametrize("policy", ["locked", "frozen"])
def test_an_unpinned_base_is_refused_where_the_lock_is_to_hold(project: Project, policy: str) -> None:
    told: dict[str, Any] = {policy: True}
    project.settle()
    project.shelf.asked.clear()
    with pytest.raises(
        UnpinnedBase, match=f"base {REFERENCE} has no pin for linux/arm64 in .*flowkiln.lock"
    ) as caught:
        project.settle(KEY, (REFERENCE, ARM64), **told)
    assert caught.value.exit_code == ExitCode.LOCK
    assert caught.value.hint == "Run `flowkiln env lock --base flow.py` and commit the files it names."
    (project.root / "flow.py").unlink()
    with pytest.raises(UnpinnedBase) as caught:
        project.settle((REFERENCE, ARM64), **told)
    assert "--base FLOW" in (caught.value.hint or "")
    assert project.shelf.asked == []


def test_without_network_nothing_can_be_pinned_or_moved(project: Project) -> None:
    offline = {"FLOWKILN_OFFLINE": "1"}
    with pytest.raises(Offline, match=REFERENCE):
        project.settle(environ=offline)
    project.settle()
    with pytest.raises(Offline, match=REFERENCE):
        project.settle(environ=offline, upgrade=True)


def test_only_an_upgrade_moves_a_pin(project: Project) -> None:
    before = project.settle(users={KEY: ["fit"]})
    moved = project.shelf.image(created="later")
    assert project.settle() == replace(before, environments=("fit",))
    after = project.settle(upgrade=True, users={KEY: ["score"]})
    assert (after.manifest, after.environments) == (moved, ("fit", "score"))
    assert project.folder.read_bases() == (after,)
    assert [line[:11] for line in project.said.lines] == ["pinned base"] * 2


def test_an_upgrade_of_what_has_not_moved_changes_no_byte_and_decides_nothing(project: Project) -> None:
    project.settle(users={KEY: ["fit"]})
    before = everything(project.folder)
    project.bytecode = None
    project.settle(upgrade=True)
    assert everything(project.folder) == before
    assert len(project.decided) == 1
    assert project.said.lines[1:] == [f"base {REFERENCE} for linux/amd64 is what it was"]


def test_an_upgrade_decides_again_where_there_was_no_bytecode(project: Project) -> None:
    project.bytecode = None
    assert project.settle().bytecode is None
    assert "no bytecode" in project.said.lines[0]
    project.bytecode = "3.11.9"
    assert project.settle().bytecode is None
    assert project.settle(upgrade=True).bytecode == "3.11.9"


def test_pins_of_other_bases_stay(project: Project) -> None:
    project.shelf.manifests["2"] = project.shelf.manifests[project.shelf.image(tag="2", created="x")]
    other = (REFERENCE.replace(":1", ":2"), AMD64)
    first = project.settle()
    project.settle(other, KEY)
    assert [pin.reference for pin in project.folder.read_bases()] == [REFERENCE, other[0]]
    project.shelf.image(created="later")
    project.settle(other, upgrade=True)
    assert project.folder.read_bases()[0] == first


def test_a_base_that_fails_leaves_the_lock_as_it_was(project: Project) -> None:
    project.settle()
    before = everything(project.folder)
    with pytest.raises(BaseAbsent):
        project.settle((REFERENCE.replace(":1", ":9"), AMD64))
    assert everything(project.folder) == before


def test_users_are_noted_once(project: Project) -> None:
    project.settle(users={KEY: ["fit"]})
    text = (project.folder.path / INDEX).read_text()
    assert 'environments = ["fit"]' in text
    project.settle(users={KEY: ["fit"]})
    project.settle(users={KEY: ["score"]}, locked=True)
    assert (project.folder.path / INDEX).read_text() == text


def test_a_folder_that_cannot_be_written_has_its_pins_in_the_cache(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = project.settle()
    shut_down(project.folder, monkeypatch)
    second = (REFERENCE.replace(":1", ":2"), AMD64)
    project.shelf.image(tag="2", created="x")
    pin = project.settle(second, KEY)
    stand_in = project.folder.or_cache()
    assert stand_in.read_bases() == (pin,)
    assert project.folder.read_bases() == (first,)
    assert str(stand_in.path) in project.said.lines[-1]
    project.shelf.asked.clear()
    assert project.settle(second, KEY, locked=True, users={KEY: ["fit"]}) == pin
    assert project.settle(KEY, second, users={KEY: ["fit"]}) == first
    assert project.shelf.asked == []


def test_pins_of_a_folder_that_cannot_be_written_are_not_moved(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.settle()
    shut_down(project.folder, monkeypatch)
    project.shelf.image(created="later")
    with pytest.raises(ReadOnly, match="cannot be moved"):
        project.settle(upgrade=True)


def shut_down(folder: LockFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes ``folder`` one that cannot be written; root can write everywhere, so that is said for it."""
    if os.geteuid() != 0:
        folder.path.chmod(0o500)
        return
    writable = vars(LockFolder)["writable"].fget
    answer = property(lambda self: self != folder and writable(self))
    monkeypatch.setattr(LockFolder, "writable", answer)


def test_two_that_pin_at_once_have_the_same_pin(project: Project) -> None:
    found: list[BasePin] = []
    threads = [threading.Thread(target=lambda: found.append(project.settle())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert set(found) == set(project.folder.read_bases())
    assert len(project.decided) == 1


def test_what_nobody_compiles_is_noted_and_nothing_else_moves(project: Project) -> None:
    pin = project.settle()
    (before,) = project.folder.read_bases()
    noted = bases.note_without(project.folder, {KEY: replace(pin, without_bytecode=("3.11.2",))})
    assert noted[KEY].without_bytecode == ("3.11.2",)
    (after,) = project.folder.read_bases()
    assert after == replace(before, without_bytecode=("3.11.2",))
    assert bases.note_without(project.folder, {}) == {}
