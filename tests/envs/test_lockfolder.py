from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from flowkiln._base.errors import FormatTooNew
from flowkiln._base.platforms import Platform
from flowkiln.envs import lockindex, pylock
from flowkiln.envs.errors import BadLockFile
from flowkiln.envs.lock import AbsentPlatform, EnvLock, LockedWheel, PlatformLock
from flowkiln.envs.lockfolder import INCOMPLETE, INDEX, CarriedLocks, LockFolder, file_name, texts_of
from tests.envs import condalocks

FIXTURES = Path(__file__).parent / "fixtures"
AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


def a_wheel(name: str, version: str = "1.0", **changes: object) -> LockedWheel:
    filename = f"{name}-{version}-py3-none-any.whl"
    made = LockedWheel(
        name=name,
        version=version,
        filename=filename,
        url=f"https://index.example/files/{filename}",
        sha256=f"{sum(f'{name}{version}'.encode()):064x}",
        size=1234,
        index="https://index.example/simple",
        upload_time="2024-01-02T03:04:05Z",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def a_lock(name: str = "fit", *wheels: LockedWheel, **changes: object) -> EnvLock:
    chosen = wheels or (a_wheel("alpha", requires=("beta",)), a_wheel("beta", size=None, index=None))
    part = PlatformLock(platform=AMD64, python="3.11", wheels=chosen, glibc=(2, 28), python_minimum="3.11.4")
    other = replace(part, platform=ARM64, python_minimum=None, python_below="3.11.9", winners=(("x/y.py", "beta"),))
    parts = (part, other)
    made = EnvLock(name=name, spec_id="sha256:" + "1" * 64, python="3.11", platforms=parts, steps=("a", "b"))
    return replace(made, **changes)  # type: ignore[arg-type]


def everything(folder: LockFolder) -> dict[str, bytes]:
    paths = [path for path in folder.path.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder.path)): path.read_bytes() for path in paths}


@pytest.fixture
def folder(tmp_path: Path) -> LockFolder:
    return LockFolder.beside(tmp_path / "train.py")


def test_it_stands_beside_the_file(tmp_path: Path) -> None:
    assert LockFolder.beside(tmp_path / "train.py").path == tmp_path / "train.locks"
    assert LockFolder.beside(tmp_path / "pyproject.toml").path == tmp_path / "pyproject.locks"
    assert LockFolder.beside(tmp_path / "requirements.txt").path == tmp_path / "requirements.locks"
    assert LockFolder.beside(tmp_path / "v1.2.py").path == tmp_path / "v1.2.locks"


def test_what_is_written_is_read(folder: LockFolder) -> None:
    absent = AbsentPlatform(platform=Platform("darwin", "arm64"), reason='no wheel of "a"\nsecond line')
    locks = {"fit": a_lock(), "other": a_lock("other", a_wheel("gamma"), absent=(absent,)), "bare": _bare()}
    assert folder.read() == {}
    folder.write(locks)
    assert folder.read() == locks
    assert sorted(everything(folder)) == sorted(
        [INDEX, *(file_name(n, s) for n in ("fit", "other", "bare") for s in ("linux-amd64", "linux-arm64"))]
    )


def _bare() -> EnvLock:
    parts = tuple(PlatformLock(platform=p, python="3.12", wheels=(), glibc=(2, 28)) for p in (AMD64, ARM64))
    return EnvLock(name="bare", spec_id="sha256:" + "2" * 64, python="3.12", platforms=parts)


def test_equal_locks_touch_no_file(folder: LockFolder) -> None:
    assert folder.write({"fit": a_lock()})
    before = {path: path.stat().st_mtime_ns for path in folder.path.iterdir()}
    assert folder.write({"fit": a_lock()}) == []
    assert {path: path.stat().st_mtime_ns for path in folder.path.iterdir()} == before


def test_a_changed_environment_changes_its_own_files(folder: LockFolder) -> None:
    folder.write({"fit": a_lock(), "other": a_lock("other")})
    changed = folder.write({"fit": a_lock("fit", a_wheel("alpha", "2.0")), "other": a_lock("other")})
    assert [path.name for path in changed] == [INDEX, *(file_name("fit", f"linux-{a}") for a in ("amd64", "arm64"))]


def test_files_of_environments_that_are_gone_are_removed(folder: LockFolder) -> None:
    folder.write({"fit": a_lock(), "other": a_lock("other")})
    (folder.path / "pylock.theirs.toml").write_text('lock-version = "1.0"\ncreated-by = "uv"\n')
    folder.write({"other": a_lock("other")})
    left = {path.name for path in folder.path.iterdir()}
    assert left == {INDEX, "pylock.theirs.toml", *(file_name("other", f"linux-{a}") for a in ("amd64", "arm64"))}


def test_the_text_is_sorted_and_has_one_block_per_package(folder: LockFolder) -> None:
    backwards = a_lock("fit", a_wheel("b"), a_wheel("a"))
    folder.write({"z": a_lock("z"), "fit": backwards})
    text = (folder.path / file_name("fit", "linux-amd64")).read_text()
    assert text.index('name = "a"') < text.index('name = "b"')
    assert text.count("[[packages]]") == 2
    assert "uv" not in text
    index = (folder.path / INDEX).read_text()
    assert index.index('"fit"') < index.index('"z"')


def test_permissions_do_not_follow_the_umask(folder: LockFolder) -> None:
    before = os.umask(0o077)
    try:
        folder.write({"fit": a_lock()})
    finally:
        os.umask(before)
    assert {oct(path.stat().st_mode & 0o777) for path in folder.path.iterdir()} == {"0o644"}


def test_what_conda_provides_is_no_dependency_in_a_file_of_wheels(folder: LockFolder) -> None:
    wheels = (a_wheel("alpha", requires=("beta", "numpy")), a_wheel("beta", requires=("numpy",)))
    text = pylock.serialise("3.11", wheels)
    assert pylock.read_ours(text, folder.path) == ("3.11", wheels)
    entries = tomllib.loads(text)["packages"]
    assert [entry.get("dependencies") for entry in entries] == [[{"name": "beta"}], None]
    assert [entry["tool"]["flowkiln"]["conda"] for entry in entries] == [{"provides": ["numpy"]}] * 2


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('lock-version = "1.0"', 'lock-version = "2.0"', r"line 1: lock-version"),
        ('\nversion = "1.0"', '\nversion = "1.1"', r"pylock\.fit-linux-amd64\.toml, line \d+: .*by hand"),
        ("[[packages]]", "[[packages", r"pylock\.fit-linux-amd64\.toml is not valid TOML.*line \d+"),
        ('sha256 = "0', 'sha256 = "Z', r"pylock\.fit-linux-amd64\.toml, line \d+: the entry of 'alpha'"),
        ('created-by = "flowkiln"', 'created-by = "uv"', r"pylock\.fit-linux-amd64\.toml, line 2"),
        ('requires-python = "==3.11.*"', 'requires-python = ">=3.11"', r"pylock\.fit-linux-amd64\.toml, line"),
        ("url = ", "uri = ", r"line \d+: the entry of 'alpha'"),
    ],
)
def test_a_pylock_edited_by_hand_is_refused(folder: LockFolder, old: str, new: str, said: str) -> None:
    folder.write({"fit": a_lock()})
    path = folder.path / file_name("fit", "linux-amd64")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(BadLockFile, match=said) as caught:
        folder.read()
    assert "flowkiln env lock" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("schema = 1", "schema = 'one'", r"flowkiln\.lock, line 2"),
        ('spec_id = "sha256:', 'spec_id = "md5:', r"flowkiln\.lock, line \d+: the entry of environment 'fit'"),
        ('platform = "linux/amd64"', 'platform = "sun/sparc"', "unknown platform"),
        ('glibc = "2.28"', "glibc = 2.28", r"line \d+: the entry of environment 'fit'"),
        ("[[environments]]", "environments", "not valid TOML"),
        ('lock_id = "sha256:', 'lock_id = "sha256:0', "not a digest"),
    ],
)
def test_an_index_edited_by_hand_is_refused(folder: LockFolder, old: str, new: str, said: str) -> None:
    folder.write({"fit": a_lock()})
    path = folder.path / INDEX
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(BadLockFile, match=said):
        folder.read()


def test_a_lock_that_lost_a_platforms_file_is_made_again(folder: LockFolder) -> None:
    folder.write({"fit": a_lock(), "other": a_lock("other")})
    (folder.path / file_name("fit", "linux-arm64")).unlink()
    found = folder.read()
    assert found["other"] == a_lock("other")
    assert found["fit"].spec_id == INCOMPLETE
    assert [part.platform for part in found["fit"].platforms] == [AMD64]
    folder.write({**found, "fit": a_lock()})
    assert folder.read()["fit"] == a_lock()


def test_a_record_of_a_lock_that_lacks_a_file_is_refused() -> None:
    texts = texts_of([a_lock()])
    del texts[file_name("fit", "linux-arm64")]
    with pytest.raises(BadLockFile, match=r"flowkiln\.lock, line \d+: pylock\.fit-linux-arm64\.toml is missing"):
        CarriedLocks(Path("train.locks"), texts).read()


@pytest.mark.parametrize("name", [INDEX, file_name("fit", "linux-amd64")])
@pytest.mark.parametrize("kind", ["folder", "circle"])
def test_a_lock_file_that_is_none_is_named(folder: LockFolder, name: str, kind: str) -> None:
    folder.write({"fit": a_lock()})
    path = folder.path / name
    path.unlink()
    if kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(name)
    with pytest.raises(BadLockFile, match="cannot be read") as caught:
        folder.read()
    assert str(path) in caught.value.message


@pytest.mark.parametrize("name", [INDEX, file_name("fit", "linux-amd64")])
def test_a_merge_conflict_is_called_one(folder: LockFolder, name: str) -> None:
    folder.write({"fit": a_lock()})
    path = folder.path / name
    path.write_text(f"# ours\n<<<<<<< HEAD\n{path.read_text()}=======\n>>>>>>> side\n")
    with pytest.raises(BadLockFile, match="line 2: the marks of a merge conflict"):
        folder.read()


def test_bytes_that_are_no_text_are_refused(folder: LockFolder) -> None:
    folder.write({"fit": a_lock()})
    (folder.path / INDEX).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadLockFile, match="UTF-8"):
        folder.read()


def test_an_index_of_a_newer_flowkiln(folder: LockFolder) -> None:
    folder.write({"fit": a_lock()})
    path = folder.path / INDEX
    path.write_text(path.read_text().replace("schema = 1", "schema = 2"))
    with pytest.raises(FormatTooNew, match="schema 2"):
        folder.read()


def test_schema_1_is_readable_for_ever() -> None:
    """The folder was written once and is never written again."""
    frozen = LockFolder(FIXTURES / "schema1.locks")
    locks = frozen.read()
    assert set(locks) == {"fit", "bare"}
    fit = locks["fit"]
    assert fit.lock_id == "sha256:a2318a54deda84914e938320944ebae9edada35e8c02ad94c5ed56518ae6589d"
    assert fit.steps == ("score", "train")
    part = fit.on(AMD64)
    assert part is not None
    assert (part.glibc, part.python_minimum, part.python_below) == ((2, 28), "3.11.4", None)


def test_the_present_writer_writes_schema_1_as_it_was(tmp_path: Path) -> None:
    frozen = LockFolder(FIXTURES / "schema1.locks")
    fresh = LockFolder(tmp_path / "fresh.locks")
    fresh.write(frozen.read())
    assert everything(fresh) == everything(frozen)


def test_an_unwritable_folder_has_a_stand_in_in_the_cache(tmp_path: Path, home: object) -> None:
    if os.geteuid() == 0:
        folder = LockFolder(Path("/proc/flowkiln.locks"))
    else:
        (tmp_path / "shut").mkdir(mode=0o500)
        folder = LockFolder.beside(tmp_path / "shut" / "train.py")
    stand_in = folder.or_cache()
    assert stand_in != folder
    assert stand_in.is_cached
    stand_in.write({"fit": a_lock()})
    assert folder.or_cache().read() == {"fit": a_lock()}
    writable = LockFolder.beside(tmp_path / "train.py")
    assert writable.or_cache() == writable


KILL_WRITER = """
import os, sys, pathlib
from flowkiln.envs.lockfolder import LockFolder
from tests.envs.test_lockfolder import a_lock, a_wheel
calls = int(sys.argv[2])
names = ("write_text", "chmod", "rename", "replace", "rmdir", "unlink")
real = {name: getattr(pathlib.Path, name) for name in names}
def counting(name):
    def call(self, *args, **kwargs):
        global calls
        if calls == 0:
            os.kill(os.getpid(), 9)
        calls -= 1
        return real[name](self, *args, **kwargs)
    return call
for name in real:
    setattr(pathlib.Path, name, counting(name))
LockFolder(pathlib.Path(sys.argv[1])).write({"fit": a_lock("fit", a_wheel("alpha", "2.0")), "new": a_lock("new")})
"""


def test_kill_9_at_any_point_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    old = {"fit": a_lock(), "other": a_lock("other")}
    new = {"fit": a_lock("fit", a_wheel("alpha", "2.0")), "new": a_lock("new")}
    clean = LockFolder(tmp_path / "clean.locks")
    clean.write(new)
    seen = []
    for calls in range(60):
        folder = LockFolder(tmp_path / f"at{calls}.locks")
        folder.write(old)
        ended = subprocess.run(
            [sys.executable, "-c", KILL_WRITER, str(folder.path), str(calls)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])},
            cwd=Path(__file__).parents[2],
            check=False,
        )
        found = folder.read()
        assert found in (old, new)
        seen.append(found == new)
        folder.write(new)
        assert folder.read() == new
        assert everything(folder) == everything(clean)
        shutil.rmtree(folder.path)
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL
    assert ended.returncode == 0, "the writer was never let to its end"
    assert seen == sorted(seen)
    assert {False, True} == set(seen)


HOLDER = """
import sys, pathlib
from flowkiln.envs.lockfolder import LockFolder
from tests.envs.test_lockfolder import a_lock
folder, name = LockFolder(pathlib.Path(sys.argv[1])), sys.argv[2]
with folder.hold():
    locks = folder.read()
    folder.write({**locks, name: a_lock(name)})
"""


def test_concurrent_lockers_lose_nothing(tmp_path: Path) -> None:
    folder = LockFolder(tmp_path / "train.locks")
    names = [f"env{number}" for number in range(6)]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(folder.path), name],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])},
            cwd=Path(__file__).parents[2],
        )
        for name in names
    ]
    assert [one.wait() for one in running] == [0] * len(names)
    assert sorted(folder.read()) == names


def test_awkward_texts_survive(folder: LockFolder) -> None:
    odd = a_wheel("alpha", url='https://index.example/a"b\\c\u00e9\x7f.whl', upload_time=None)
    folder.write({"fit": a_lock("fit", odd)})
    part = folder.read()["fit"].on(AMD64)
    assert part is not None
    assert part.wheels == (odd,)


def test_no_file_name_has_a_second_dot() -> None:
    assert file_name("a.b", "linux-amd64") == "pylock.a_b-linux-amd64.toml"


def test_an_environment_listed_twice_is_refused(folder: LockFolder) -> None:
    text = lockindex.serialise([a_lock(), a_lock()])
    with pytest.raises(BadLockFile, match="twice"):
        lockindex.parse(text, folder.path / INDEX)


def test_uvs_answer_is_read_without_secrets() -> None:
    text = (
        'lock-version = "1.0"\n[[packages]]\nname = "A_b"\nversion = "1"\nindex = "https://u:CANARY@h/simple"\n'
        'wheels = [{ url = "https://u:CANARY@h/a_b-1-py3-none-any.whl", hashes = { sha256 = "0" } }]\n'
    )
    (package,) = pylock.read_uv(text)
    assert (package.name, package.wheels[0].filename) == ("a-b", "a_b-1-py3-none-any.whl")
    assert "CANARY" not in repr(package)


FLIPPER = """
import sys, pathlib
from flowkiln.envs.lockfolder import LockFolder
from tests.envs.test_lockfolder import a_lock, a_wheel
folder = LockFolder(pathlib.Path(sys.argv[1]))
one, two = a_lock(), a_lock("fit", a_wheel("alpha", "2.0"))
for turn in range(40):
    folder.write({"fit": (one, two)[turn % 2]})
"""


def test_readers_see_the_old_or_the_new_while_a_writer_works(folder: LockFolder) -> None:
    one, two = a_lock(), a_lock("fit", a_wheel("alpha", "2.0"))
    folder.write({"fit": one})
    seen = set()
    with subprocess.Popen(
        [sys.executable, "-c", FLIPPER, str(folder.path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])},
        cwd=Path(__file__).parents[2],
    ) as writer:
        while writer.poll() is None:
            found = folder.read()["fit"]
            assert found in (one, two)
            seen.add(found.lock_id)
    assert writer.returncode == 0
    assert len(seen) == 2


CONDA = "fit.conda-lock.yml"
WHEELS = [file_name("fit", slug) for slug in ("linux-amd64", "linux-arm64")]


def test_conda_packages_of_all_platforms_stand_in_one_file(folder: LockFolder) -> None:
    locks = {
        "fit": condalocks.lock("fit", a_wheel("alpha")),
        "bare": condalocks.lock("bare"),
        "plain": a_lock("plain"),
    }
    folder.write(locks)
    assert folder.read() == locks
    plain = [file_name("plain", slug) for slug in ("linux-amd64", "linux-arm64")]
    assert sorted(everything(folder)) == sorted([INDEX, CONDA, "bare.conda-lock.yml", *WHEELS, *plain])
    index = (folder.path / INDEX).read_text()
    assert index.count('interpreter = "conda"\npylock = false\n') == 2
    assert index.count('virtual = ["archspec 1=x86_64", "cuda 12.4", "glibc 2.28"]\ninterpreter = "conda"\n') == 4
    assert CarriedLocks(folder.path, texts_of(locks.values())).read() == locks


def test_files_that_no_conda_lock_needs_any_more_are_removed(folder: LockFolder) -> None:
    folder.write({"fit": condalocks.lock("fit", a_wheel("alpha"))})
    (folder.path / "theirs.conda-lock.yml").write_text("version: 1\npackage: []\n")
    folder.write({"fit": condalocks.lock("fit")})
    assert sorted(everything(folder)) == [CONDA, INDEX, "theirs.conda-lock.yml"]
    folder.write({"fit": a_lock()})
    assert sorted(everything(folder)) == sorted([INDEX, *WHEELS, "theirs.conda-lock.yml"])
    folder.write({})
    assert sorted(everything(folder)) == ["theirs.conda-lock.yml"]


def test_a_conda_file_that_is_gone_makes_the_lock_stale(folder: LockFolder) -> None:
    other = replace(a_lock().platforms[1], conda=())
    mixed = replace(condalocks.lock(), platforms=(condalocks.part(), other))
    folder.write({"fit": mixed, "plain": a_lock("plain")})
    (folder.path / CONDA).unlink()
    read = folder.read()
    assert read["plain"] == a_lock("plain")
    assert (read["fit"].spec_id, read["fit"].platforms, read["fit"].channels) == (INCOMPLETE, (other,), ())
    texts = {name: text.decode() for name, text in everything(folder).items()}
    with pytest.raises(BadLockFile, match=r"flowkiln\.lock, line \d+: fit\.conda-lock\.yml is missing"):
        CarriedLocks(folder.path, texts).read()


def test_wheels_of_a_mixed_environment_that_are_gone_make_the_platform_unlocked(folder: LockFolder) -> None:
    folder.write({"fit": condalocks.lock("fit", a_wheel("alpha"))})
    (folder.path / WHEELS[0]).unlink()
    read = folder.read()["fit"]
    assert (read.spec_id, [one.platform for one in read.platforms]) == (INCOMPLETE, [ARM64])


TAMPERED = {
    "another hash": ('      sha256: "', '      sha256: "' + 64 * "0" + '"\n      # "'),
    "another build": ('build: "hb806964_0_cpython"', 'build: "other_0_cpython"'),
    "a package less": ('name: "tzdata"', 'name: "othername"'),
}


@pytest.mark.parametrize("case", TAMPERED)
@pytest.mark.parametrize("wheels", [(), ("alpha",)], ids=["conda alone", "mixed"])
def test_a_conda_file_that_was_edited_is_no_lock(folder: LockFolder, case: str, wheels: tuple[str, ...]) -> None:
    folder.write({"fit": condalocks.lock("fit", *map(a_wheel, wheels))})
    path = folder.path / CONDA
    path.write_text(path.read_text().replace(*TAMPERED[case], 1))
    with pytest.raises(BadLockFile, match=r"fit\.conda-lock\.yml, line \d+: the content is not what"):
        folder.read()


@pytest.mark.parametrize("line", ['interpreter = "base"', "pylock = 1", 'virtual = ["cuda"]', "virtual = [1]"])
def test_an_index_that_does_not_fit_itself_is_refused(folder: LockFolder, line: str) -> None:
    folder.write({"fit": condalocks.lock()})
    path = folder.path / INDEX
    old = next(one for one in path.read_text().splitlines() if one.startswith(line.partition(" ")[0]))
    path.write_text(path.read_text().replace(old, line))
    with pytest.raises(BadLockFile, match="environment 'fit' is not valid"):
        folder.read()


def test_schema_1_with_conda_packages_is_read_and_written_as_it_was(tmp_path: Path) -> None:
    frozen = LockFolder(FIXTURES / "schema1-conda.locks")
    mixed = condalocks.lock("mixed", a_wheel("alpha"))
    assert frozen.read() == {"mixed": mixed, "alone": condalocks.lock("alone")}
    assert mixed.lock_id == "sha256:d5ecddbcbd5845f6e978cb8a2e83960f24c8720ce33324c22c6c3da20a1a62eb"
    fresh = LockFolder(tmp_path / "fresh.locks")
    fresh.write(frozen.read())
    assert everything(fresh) == everything(frozen)
