from __future__ import annotations

import io
import os
import shutil
import tarfile
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowkiln.envs.directerrors import CodeCollides
from flowkiln.flow import package
from flowkiln.flow.errors import CodeTooLarge
from flowkiln.store.errors import BlobDamaged, BlobMissing
from flowkiln.store.folder import FolderStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    for name in ("flow.py", "local.py", "model.R", "data.csv", "sub/inner.py", "sub/deep/x.RDS", "notes.md"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}", encoding="utf-8")
    for name in (".git/a.py", ".hidden/b.py", "flow.locks/c.py", "__pycache__/d.py", "venv/lib/e.py"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not code of the flow", encoding="utf-8")
    (folder / "venv" / "pyvenv.cfg").write_text("", encoding="utf-8")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def inside(folder: Path, *suffixes: str) -> list[str]:
    return [name for name, _, _ in package.files_of(folder / "flow.py", suffixes)]


def test_code_is_what_lies_below_the_flow_file(folder: Path) -> None:
    assert inside(folder) == ["flow.py", "local.py", "model.R", "sub/deep/x.RDS", "sub/inner.py"]
    assert "data.csv" in inside(folder, ".csv")
    assert "notes.md" in inside(folder, "md")


def test_the_flow_file_itself_is_always_packed(folder: Path) -> None:
    (folder / "flow").write_text("#!/usr/bin/env python", encoding="utf-8")
    assert "flow" in [name for name, _, _ in package.files_of(folder / "flow")]


def test_a_cache_beside_the_flow_is_no_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = inside(folder)
    (folder / "cache" / "trees").mkdir(parents=True)
    (folder / "cache" / "trees" / "f.py").write_text("", encoding="utf-8")
    assert inside(folder) != before
    monkeypatch.setenv("FLOWKILN_CACHE", str(folder / "cache"))
    assert inside(folder) == before


def test_links_in_a_circle_end(folder: Path) -> None:
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "self").symlink_to(folder / "self")
    (folder / "gone.py").symlink_to(folder / "nowhere.py")
    assert inside(folder) == ["flow.py", "local.py", "model.R", "sub/deep/x.RDS", "sub/inner.py"]


def test_a_linked_folder_is_followed(folder: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "common.py").write_text("x", encoding="utf-8")
    (folder / "common").symlink_to(shared)
    assert "common/common.py" in inside(folder)


def test_equal_files_give_equal_digests(folder: Path, store: FolderStore, tmp_path: Path) -> None:
    first = package.snapshot(folder / "flow.py", store.blobs)
    other = tmp_path / "elsewhere" / "deep"
    shutil.copytree(folder, other, symlinks=True)
    for path in other.rglob("*"):
        os.utime(path, (1, 1))
    old = os.umask(0o077)
    try:
        assert package.snapshot(other / "flow.py", FolderStore(tmp_path / "other").blobs) == first
    finally:
        os.umask(old)
    (other / "local.py").write_text("changed", encoding="utf-8")
    assert package.snapshot(other / "flow.py", store.blobs) != first


def test_a_package_is_unpacked_as_it_was(folder: Path, store: FolderStore, tmp_path: Path) -> None:
    (folder / "sub" / "inner.py").chmod(0o755)
    digest = package.snapshot(folder / "flow.py", store.blobs)
    target = package.unpack(digest, store.blobs, tmp_path / "cache")
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()) == inside(folder)
    assert (target / "sub" / "inner.py").stat().st_mode & 0o777 == 0o755
    assert (target / "flow.py").stat().st_mode & 0o777 == 0o644
    assert (target / "flow.py").read_text(encoding="utf-8") == "content of flow.py"
    assert package.members(digest, store.blobs) == inside(folder)


def test_a_package_is_unpacked_once(folder: Path, store: FolderStore, tmp_path: Path) -> None:
    digest = package.snapshot(folder / "flow.py", store.blobs)
    first = package.unpack(digest, store.blobs, tmp_path / "cache")
    marker = first / "flow.py"
    before = marker.stat().st_ino
    Path(store.blobs.path(digest)).unlink()
    assert package.unpack(digest, store.blobs, tmp_path / "cache") == first
    assert marker.stat().st_ino == before


@pytest.mark.parametrize("damage", ["edited", "emptied", "deleted", "added", "mode", "a file"])
def test_a_damaged_copy_is_unpacked_anew(folder: Path, store: FolderStore, tmp_path: Path, damage: str) -> None:
    digest = package.snapshot(folder / "flow.py", store.blobs)
    target = package.unpack(digest, store.blobs, tmp_path / "cache")
    one = target / "flow.py"
    if damage == "edited":
        one.write_text(one.read_text(encoding="utf-8").replace("content", "CONTENT"), encoding="utf-8")
    elif damage == "emptied":
        one.write_bytes(b"")
    elif damage == "deleted":
        one.unlink()
    elif damage == "added":
        (target / "random.py").write_text("raise SystemExit", encoding="utf-8")
    elif damage == "mode":
        one.chmod(0o755)
    else:
        shutil.rmtree(target)
        target.write_bytes(b"")
    assert package.unpack(digest, store.blobs, tmp_path / "cache") == target
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()) == inside(folder)
    assert one.read_text(encoding="utf-8") == "content of flow.py"
    assert one.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [digest]


def test_bytecode_beside_the_code_is_no_damage(folder: Path, store: FolderStore, tmp_path: Path) -> None:
    digest = package.snapshot(folder / "flow.py", store.blobs)
    target = package.unpack(digest, store.blobs, tmp_path / "cache")
    (target / "__pycache__").mkdir()
    before = target.stat().st_ino
    assert package.unpack(digest, store.blobs, tmp_path / "cache").stat().st_ino == before


def test_many_unpack_at_once(folder: Path, store: FolderStore, tmp_path: Path) -> None:
    digest = package.snapshot(folder / "flow.py", store.blobs)
    found: list[Path] = []
    barrier = threading.Barrier(16)

    def work() -> None:
        barrier.wait()
        found.append(package.unpack(digest, store.blobs, tmp_path / "cache"))

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert len(set(found)) == 1
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [digest]


def test_a_package_over_the_limit_names_its_largest_files(folder: Path, store: FolderStore) -> None:
    for number in range(15):
        (folder / f"big{number:02}.py").write_bytes(b"x" * (1000 + number))
    with pytest.raises(CodeTooLarge) as caught:
        package.snapshot(folder / "flow.py", store.blobs, limit=10_000)
    lines = caught.value.message.splitlines()
    assert len(lines) == 11
    assert lines[1].endswith("big14.py")
    assert "--package-suffixes" in (caught.value.hint or "")


def test_a_folder_with_too_many_files(folder: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "COUNT_LIMIT", 3)
    with pytest.raises(CodeTooLarge, match="more than 3 files"):
        package.snapshot(folder / "flow.py", store.blobs)


def test_a_missing_or_damaged_package(store: FolderStore, tmp_path: Path) -> None:
    with pytest.raises(BlobMissing):
        package.unpack("0" * 64, store.blobs, tmp_path / "cache")
    with pytest.raises(BlobDamaged):
        package.unpack(store.blobs.put(b"no archive" * 100), store.blobs, tmp_path / "cache")


def test_hostile_members_are_refused(store: FolderStore, tmp_path: Path) -> None:
    for name, kind in (("../out.py", tarfile.REGTYPE), ("/abs.py", tarfile.REGTYPE), ("link.py", tarfile.SYMTYPE)):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as archive:
            member = tarfile.TarInfo(name)
            member.type = kind
            member.linkname = "/etc/passwd"
            archive.addfile(member, io.BytesIO())
        with pytest.raises(BlobDamaged, match="no plain file"):
            package.unpack(store.blobs.put(data.getvalue()), store.blobs, tmp_path / "cache")
    assert not (tmp_path / "out.py").exists()
    assert not list((tmp_path / "cache").iterdir())


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8}){0,2}", fullmatch=True), st.binary(max_size=50)))
def test_any_files_come_back(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    root = tmp_path_factory.mktemp("any")
    folder = root / "project"
    folder.mkdir()
    expected = {"flow.py": b""}
    (folder / "flow.py").write_bytes(b"")
    for name, content in files.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        expected[f"{name}.py"] = content
    store = FolderStore(root / "store")
    target = package.unpack(package.snapshot(folder / "flow.py", store.blobs), store.blobs, root / "cache")
    found = {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()}
    assert found == expected


def test_files_from_elsewhere_lie_beside_the_flow(folder: Path, store: FolderStore, tmp_path: Path) -> None:
    lib = tmp_path / "elsewhere" / "mylib"
    lib.mkdir(parents=True)
    (lib / "__init__.py").write_text("X = 1\n")
    beside = {"mylib/__init__.py": (lib / "__init__.py", 6)}
    digest = package.snapshot(folder / "flow.py", store.blobs, beside=beside)
    assert package.members(digest, store.blobs) == sorted(
        [*(name for name, _, _ in package.files_of(folder / "flow.py")), "mylib/__init__.py"]
    )
    assert package.snapshot(folder / "flow.py", store.blobs, beside=beside) == digest
    target = package.unpack(digest, store.blobs, tmp_path / "unpacked")
    assert (target / "mylib" / "__init__.py").read_text() == "X = 1\n"
    (folder / "mylib.py").write_text("")
    with pytest.raises(CodeCollides, match=r"mylib\.py beside the flow"):
        package.snapshot(folder / "flow.py", store.blobs, beside=beside)
