"""The pinned bases of images in ``flowkiln.lock``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkiln._base.errors import FormatTooNew
from flowkiln._base.platforms import Platform
from flowkiln.envs import lockbases, lockindex
from flowkiln.envs.basepin import BaseFacts, BasePin
from flowkiln.envs.errors import BadLockFile
from flowkiln.envs.lockfolder import INCOMPLETE, INDEX, CarriedLocks, LockFolder, file_name, texts_of
from tests.envs.test_lockfolder import a_lock, a_wheel, everything

FIXTURES = Path(__file__).parent / "fixtures"
AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


def a_pin(
    reference: str = "python:3.11-slim", platform: Platform = AMD64, mark: str = "1", **changes: object
) -> BasePin:
    facts = BaseFacts(
        python="3.11.2",
        interpreter="/usr/local/bin/python3.11",
        libc="glibc",
        glibc=(2, 36),
        path="/usr/local/bin:/usr/bin",
        stdlib="/usr/local/lib/python3.11",
    )
    made = BasePin(
        reference=reference,
        platform=platform,
        manifest="sha256:" + 64 * mark,
        config="sha256:" + 64 * "c",
        facts=facts,
        bytecode="3.11.2",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


BARE = a_pin(
    "registry.example.com:5000/team/base@sha256:" + 64 * "9",
    ARM64,
    facts=BaseFacts(libc="musl", user="65532:nobody", entrypoint=("/bin/sh", '-c "x"\n')),
    bytecode=None,
)
PINS = (a_pin(), a_pin(platform=ARM64, mark="2"), BARE)


@pytest.fixture
def folder(tmp_path: Path) -> LockFolder:
    return LockFolder.beside(tmp_path / "train.py")


def test_pins_are_read_as_they_were_written_and_change_no_identity(folder: LockFolder) -> None:
    folder.write({"fit": a_lock()})
    without = (folder.path / INDEX).read_text()
    assert folder.read_bases() == ()
    assert folder.write_bases(reversed(PINS)) == [folder.path / INDEX]
    assert folder.read_bases() == PINS
    assert folder.read() == {"fit": a_lock()}
    assert (folder.path / INDEX).read_text().startswith(without)


def test_the_environments_of_a_pin_are_kept_in_order(folder: LockFolder) -> None:
    folder.write_bases([replace(PINS[0], environments=("score", "fit"))])
    assert folder.read_bases() == (replace(PINS[0], environments=("fit", "score")),)


def test_one_way_of_writing_gives_the_bytes_of_the_other(folder: LockFolder, tmp_path: Path) -> None:
    folder.write({"fit": a_lock()}, bases=PINS)
    other = LockFolder(tmp_path / "other.locks")
    other.write_bases(PINS[1:])
    assert other.read() == {}
    other.write({"fit": a_lock()})
    other.write_bases(PINS)
    assert everything(other) == everything(folder)


def test_equal_pins_touch_no_file(folder: LockFolder) -> None:
    folder.write({"fit": a_lock()}, bases=PINS)
    before = {path: path.stat().st_mtime_ns for path in folder.path.iterdir()}
    assert folder.write_bases(PINS) == []
    assert folder.write({"fit": a_lock()}) == []
    assert {path: path.stat().st_mtime_ns for path in folder.path.iterdir()} == before


def test_a_moved_pin_changes_its_own_lines_only(folder: LockFolder) -> None:
    folder.write({"fit": a_lock()}, bases=PINS)
    before = (folder.path / INDEX).read_text().splitlines()
    folder.write_bases([replace(PINS[0], manifest="sha256:" + 64 * "7"), *PINS[1:]])
    after = (folder.path / INDEX).read_text().splitlines()
    assert [(one, other) for one, other in zip(before, after, strict=True) if one != other] == [
        (f'manifest = "{PINS[0].manifest}"', f'manifest = "sha256:{64 * "7"}"')
    ]


def test_changes_of_environments_keep_the_pins(folder: LockFolder) -> None:
    folder.write({"fit": a_lock(), "old": a_lock("old")}, bases=PINS)
    folder.write({"fit": a_lock("fit", a_wheel("alpha", "2.0"))})
    assert folder.read_bases() == PINS
    folder.write({})
    assert (folder.read(), folder.read_bases()) == ({}, PINS)
    assert list(everything(folder)) == [INDEX]


def test_the_last_pin_takes_the_folder_with_it_when_there_is_no_lock(folder: LockFolder) -> None:
    assert folder.write_bases([]) == []
    folder.write_bases(PINS)
    assert folder.write_bases([]) == [folder.path / INDEX]
    assert not folder.path.exists()
    folder.write({"fit": a_lock()}, bases=PINS)
    folder.write({"fit": a_lock()}, bases=())
    assert texts_of([a_lock()])[INDEX] == (folder.path / INDEX).read_text()


def test_pinning_leaves_a_lock_that_lacks_a_file_as_it_is(folder: LockFolder) -> None:
    """Its entry is not replaced by what could be read: with the file put back it is whole again."""
    folder.write({"fit": a_lock()})
    lost = folder.path / file_name("fit", "linux-arm64")
    text = lost.read_text()
    lost.unlink()
    folder.write_bases(PINS)
    assert folder.read()["fit"].spec_id == INCOMPLETE
    lost.write_text(text)
    assert folder.read() == {"fit": a_lock()}


def test_tables_in_another_order_are_replaced_all_the_same(folder: LockFolder) -> None:
    folder.write({"fit": a_lock()}, bases=PINS)
    path = folder.path / INDEX
    head, environments, bases = _cut(path.read_text())
    path.write_text(head + bases + environments)
    assert folder.read_bases() == PINS
    folder.write_bases(PINS[:1])
    assert path.read_text() == texts_of([a_lock()], PINS[:1])[INDEX]


def _cut(text: str) -> tuple[str, str, str]:
    first, second = text.index("\n[[environments]]"), text.index("\n[[bases]]")
    return text[:first], text[first:second], text[second:]


def test_tables_that_cannot_be_told_apart_are_not_rewritten(folder: LockFolder) -> None:
    folder.write({"fit": a_lock()}, bases=PINS)
    path = folder.path / INDEX
    text = path.read_text()
    odd = text.replace('name = "fit"', "name = '''\n[[bases]]\nfit'''")
    path.write_text(odd)
    with pytest.raises(BadLockFile):
        folder.write_bases(PINS[:1])
    assert path.read_text() == odd


def test_a_record_of_locks_carries_the_pins() -> None:
    carried = CarriedLocks(Path("train.locks"), texts_of([a_lock()], PINS))
    assert carried.read() == {"fit": a_lock()}
    assert carried.read_bases() == PINS


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('manifest = "sha256:', 'manifest = "md5:', "manifest is not a digest"),
        ('config = "sha256:', 'config = "', "config is not a digest"),
        ('platform = "linux/amd64"', 'platform = "sun/sparc"', "unknown platform"),
        ('bytecode = "3.11.2"', 'bytecode = "3.11"', r"bytecode is no version"),
        ('bytecode = "3.11.2"', "", "bytecode"),
        ('python = "3.11.2"', 'python = "3"', "python is no version"),
        ('python = "3.11.2"', "", "python and interpreter come together"),
        ("stdlib_bytecode = false", 'stdlib_bytecode = "no"', "neither true nor false"),
        ('libc = "glibc"', 'libc = "musl"', "libc and glibc do not fit"),
        ('libc = "glibc"', 'libc = "ulibc"', "libc and glibc do not fit"),
        ('glibc = "2.36"', 'glibc = "2"', "libc and glibc do not fit"),
        ("entrypoint = []", "entrypoint = [1]", "no list of texts"),
        ('environments = ["fit", "score"]', "environments = [1]", "environments is no list of names"),
        ('environments = ["fit", "score"]', 'environments = ""', "environments is no list of names"),
        ('user = ""', "user = 0", "user is not a text"),
        ("[bases.facts]", "[bases.fact]", "facts"),
        ('reference = "python:3.11-slim"', 'reference = ""', "reference is not a text"),
    ],
)
def test_a_pin_edited_by_hand_is_refused_with_its_line(folder: LockFolder, old: str, new: str, said: str) -> None:
    folder.write({}, bases=[replace(PINS[0], environments=("fit", "score")), *PINS[1:]])
    path = folder.path / INDEX
    text = path.read_text()
    at = text.index("[[bases]]")
    assert old in text[at:]
    path.write_text(text[:at] + text[at:].replace(old, new, 1))
    line = text[:at].count("\n") + 1
    for read in (folder.read, folder.read_bases, lambda: folder.write_bases(())):
        with pytest.raises(BadLockFile, match=said) as caught:
            read()
        assert f"{path}, line {line}: the entry of base" in caught.value.message


def test_the_line_is_that_of_the_table_that_is_wrong(folder: LockFolder) -> None:
    folder.write({}, bases=PINS)
    path = folder.path / INDEX
    lines = path.read_text().splitlines()
    wrong = [number for number, line in enumerate(lines) if line == "[[bases]]"][1]
    lines[wrong + 3] = 'manifest = "gone"'
    path.write_text("\n".join(lines))
    with pytest.raises(BadLockFile, match=rf"line {wrong + 1}: the entry of base 'python:3.11-slim'"):
        folder.read_bases()


def test_a_pin_listed_twice_or_bases_that_are_none_are_refused() -> None:
    path = Path("flowkiln.lock")
    with pytest.raises(BadLockFile, match=r"line 22: base 'python:3.11-slim' is listed twice for linux/amd64"):
        lockindex.parse(lockindex.serialise([], [a_pin(), a_pin()]), path)
    with pytest.raises(BadLockFile, match="bases are no list"):
        lockindex.parse(lockindex.EMPTY + "bases = 1\n", path)
    with pytest.raises(BadLockFile, match="the entry of base '\\?'"):
        lockindex.parse(lockindex.EMPTY + "bases = [1]\n", path)


def test_an_index_of_a_newer_flowkiln_is_never_replaced(folder: LockFolder) -> None:
    folder.write({"fit": a_lock()}, bases=PINS)
    path = folder.path / INDEX
    path.write_text(path.read_text().replace("schema = 1", "schema = 2"))
    with pytest.raises(FormatTooNew):
        folder.write({"fit": a_lock()})
    with pytest.raises(FormatTooNew):
        folder.write_bases(())


def test_schema_1_with_bases_is_readable_for_ever(tmp_path: Path) -> None:
    """The folder was written once and is never written again; what is made of it has its bytes."""
    frozen = LockFolder(FIXTURES / "schema1-bases.locks")
    assert frozen.read_bases() == PINS
    fresh = LockFolder(tmp_path / "fresh.locks")
    fresh.write(frozen.read(), bases=frozen.read_bases())
    assert everything(fresh) == everything(frozen)
    before = LockFolder(FIXTURES / "schema1.locks")
    fresh.write_bases(())
    assert everything(fresh) == everything(before)


_texts = st.text(st.characters(codec="utf-8"), max_size=20)
_facts = st.builds(
    BaseFacts,
    libc=st.just("none"),
    path=_texts,
    user=_texts,
    entrypoint=st.lists(_texts, max_size=3).map(tuple),
    stdlib_bytecode=st.booleans(),
)


@given(st.lists(_facts, max_size=3), st.lists(_facts, max_size=3))
def test_any_texts_survive(first: list[BaseFacts], second: list[BaseFacts]) -> None:
    pins = tuple(a_pin(f"base:{number}", facts=facts) for number, facts in enumerate(first))
    others = tuple(a_pin(f"base:{number}", facts=facts) for number, facts in enumerate(second))
    lock = a_lock("line\u2028end")
    text = lockindex.serialise([lock], pins)
    assert lockindex.parse(text, Path("flowkiln.lock")).bases == pins
    assert lockbases.replaced(text, others) == lockindex.serialise([lock], others)


KILL_WRITER = """
import os, sys, pathlib
from flowkiln.envs.lockfolder import LockFolder
from tests.envs.test_lockbases import PINS
calls = int(sys.argv[2])
names = ("write_text", "chmod", "rename", "replace", "rmdir", "unlink")
def counting(real):
    def call(self, *args, **kwargs):
        global calls
        if calls == 0:
            os.kill(os.getpid(), 9)
        calls -= 1
        return real(self, *args, **kwargs)
    return call
for name in names:
    setattr(pathlib.Path, name, counting(getattr(pathlib.Path, name)))
LockFolder(pathlib.Path(sys.argv[1])).write_bases(PINS)
"""


def test_kill_9_at_any_point_leaves_the_old_pins_or_the_new(tmp_path: Path) -> None:
    seen = []
    for calls in range(20):
        folder = LockFolder(tmp_path / f"at{calls}.locks")
        folder.write({"fit": a_lock()}, bases=PINS[:1])
        ended = subprocess.run(
            [sys.executable, "-c", KILL_WRITER, str(folder.path), str(calls)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])},
            cwd=Path(__file__).parents[2],
            check=False,
        )
        found = folder.read_bases()
        assert found in (PINS, PINS[:1])
        assert folder.read() == {"fit": a_lock()}
        seen.append(found == PINS)
        folder.write_bases(PINS[1:])
        assert folder.read_bases() == PINS[1:]
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL
    assert ended.returncode == 0, "the writer was never let to its end"
    assert seen == sorted(seen)
    assert {False, True} == set(seen)


FLIPPER = """
import sys, pathlib
from flowkiln.envs.lockfolder import LockFolder
from tests.envs.test_lockbases import PINS
folder = LockFolder(pathlib.Path(sys.argv[1]))
for turn in range(60):
    with folder.hold():
        folder.write_bases(PINS if turn % 2 else PINS[:1])
"""


def test_readers_see_the_old_pins_or_the_new_while_a_writer_works(folder: LockFolder) -> None:
    folder.write({"fit": a_lock()}, bases=PINS[:1])
    seen = set()
    with subprocess.Popen(
        [sys.executable, "-c", FLIPPER, str(folder.path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])},
        cwd=Path(__file__).parents[2],
    ) as writer:
        while writer.poll() is None:
            found = folder.read_bases()
            assert found in (PINS, PINS[:1])
            seen.add(found)
    assert writer.returncode == 0
    assert len(seen) == 2


def test_the_pythons_that_nobody_can_compile_with_are_kept(folder: LockFolder) -> None:
    pins = (a_pin(without_bytecode=("3.11.9", "3.13.5")), BARE)
    folder.write_bases(pins)
    assert set(folder.read_bases()) == set(pins)
