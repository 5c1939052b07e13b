"""Sources pinned and archived: real repositories behind real servers, folders as git sees them, files by URL."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flowkiln.envs import sourcearchives, sourcefolders
from flowkiln.envs.direct import DirectReference
from flowkiln.envs.directerrors import (
    FolderMissing,
    GitMissing,
    HasSubmodules,
    LinkLeaves,
    NoSuchRef,
    OtherSource,
    RepositoryRefused,
    RepositoryUnreachable,
    SourceOffline,
    SourceTooLarge,
)
from flowkiln.envs.fetch import Fetcher
from flowkiln.envs.installerrors import NotCached, WrongHash
from flowkiln.envs.lock import LockedSource
from tests.services import repositories

FILES = {"pyproject.toml": "[project]\nname = 'tiny'\nversion = '1'\n", "src/tiny.py": "X = 1\n"}


class Place:
    """A folder, a cache and what they are asked with."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cache = folder / "project", folder / "cache"
        self.folder.mkdir()
        self.environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}

    def pin(
        self,
        reference: DirectReference,
        previous: LockedSource | None = None,
        *,
        upgrade: bool = False,
        offline: bool = False,
    ) -> LockedSource:
        fetcher = Fetcher(offline=offline, retries=1)
        try:
            return sourcearchives.pin(
                reference,
                previous=previous,
                upgrade=upgrade,
                folder=self.folder,
                cache=self.cache,
                fetcher=fetcher,
                environ=self.environ,
            )
        finally:
            fetcher.close()

    def archive(self, source: LockedSource, *, offline: bool = False) -> Path:
        fetcher = Fetcher(offline=offline, retries=1)
        try:
            return sourcearchives.archive_of(
                source, name="tiny", folder=self.folder, cache=self.cache, fetcher=fetcher, environ=self.environ
            )
        finally:
            fetcher.close()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return repositories.repository(tmp_path / "served" / "tiny", FILES, tag="v1.0")


@pytest.fixture
def host(repository: Path) -> Iterator[str]:
    with repositories.served(repository.parent) as url:
        yield url


def git(url: str, ref: str | None = None, subdirectory: str | None = None) -> DirectReference:
    return DirectReference(name="tiny", kind="git", url=url, ref=ref, subdirectory=subdirectory)


def local(path: Path, ref: str | None = None, subdirectory: str | None = None) -> DirectReference:
    return git(path.as_uri(), ref, subdirectory)


def names(archive: Path) -> list[str]:
    with tarfile.open(archive) as opened:
        return opened.getnames()


def test_a_tag_is_pinned_to_its_commit_and_archived(place: Place, repository: Path, host: str) -> None:
    source = place.pin(git(f"{host}/tiny/.git", "v1.0"))
    assert source.commit == repositories.git(repository, "rev-parse", "HEAD")
    assert (source.kind, source.url, source.ref) == ("git", f"{host}/tiny/.git", "v1.0")
    archive = place.archive(source, offline=True)
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == source.sha256
    assert archive.stat().st_size == source.size
    assert names(archive) == ["source/pyproject.toml", "source/src/tiny.py"]
    with tarfile.open(archive) as opened:
        told = {(one.mtime, one.mode, one.uid, one.gid, one.uname, one.gname) for one in opened}
    assert told == {(315532800, 0o644, 0, 0, "", "")}


def test_a_branch_stays_where_it_was_locked(place: Place, repository: Path, host: str) -> None:
    reference = git(f"{host}/tiny/.git", "main")
    first = place.pin(reference)
    later = repositories.commit(repository, {"more.py": ""})
    assert place.pin(reference, first, offline=True) == first
    moved = place.pin(reference, first, upgrade=True)
    assert moved.commit == later
    assert place.pin(replace(reference, ref=None), first).commit == later, "another question is asked anew"


@pytest.mark.parametrize("length", [40, 9])
def test_a_commit_that_is_no_branch_any_more(place: Place, repository: Path, host: str, length: int) -> None:
    commit = repositories.git(repository, "rev-parse", "HEAD")
    repositories.commit(repository, {"more.py": ""})
    assert place.pin(git(f"{host}/tiny/.git", commit[:length])).commit == commit


def test_dumb_servers_and_files_serve_too(place: Place, repository: Path) -> None:
    repositories.git(repository, "update-server-info")
    with repositories.served(repository.parent, dumb=True) as url:
        dumb = place.pin(git(f"{url}/tiny/.git", "v1.0"))
    assert dumb.sha256 == place.pin(local(repository, "v1.0")).sha256


def test_another_machine_gets_the_same_archive_from_the_lock(
    place: Place, repository: Path, host: str, tmp_path: Path
) -> None:
    source = place.pin(git(f"{host}/tiny/.git", "main"))
    repositories.commit(repository, {"more.py": ""})
    (tmp_path / "other").mkdir()
    other = Place(tmp_path / "other")
    assert other.archive(source).read_bytes() == place.archive(source).read_bytes()


def test_a_repository_with_a_password(place: Place, repository: Path) -> None:
    with repositories.served(repository.parent, login=("me", "canary")) as url:
        with pytest.raises(RepositoryRefused) as caught:
            place.pin(git(f"{url}/tiny/.git"))
        assert url in caught.value.message
        wrong = url.replace("//", "//me:wrong-canary@")
        with pytest.raises(RepositoryRefused) as caught:
            place.pin(git(f"{wrong}/tiny/.git"))
        assert "canary" not in caught.value.message
        source = place.pin(git(f"{url.replace('//', '//me:canary@')}/tiny/.git"))
        assert source.url == f"{url}/tiny/.git"
        helper = "!f() { echo username=me; echo password=canary; }; f"
        (Path(place.environ["HOME"]) / ".gitconfig").write_text(f'[credential]\n\thelper = "{helper}"\n')
        assert place.pin(git(f"{url}/tiny/.git", "v1.0")).commit == source.commit
    kept = b"".join(path.read_bytes() for path in place.cache.rglob("*") if path.is_file())
    assert b"canary" not in kept


def test_no_password_stands_in_the_arguments_of_git(place: Place, repository: Path, tmp_path: Path) -> None:
    heard = tmp_path / "arguments"
    shim = tmp_path / "bin" / "git"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {heard}\nexec {shutil.which("git")} "$@"\n')
    shim.chmod(0o755)
    place.environ["PATH"] = f"{shim.parent}:{place.environ['PATH']}"
    with repositories.served(repository.parent, login=("me", "canary")) as url:
        place.pin(git(f"{url.replace('//', '//me:canary@')}/tiny/.git"))
    assert "ls-remote" in heard.read_text()
    assert "canary" not in heard.read_text()


def test_what_is_not_there_is_said(place: Place, repository: Path, host: str) -> None:
    with pytest.raises(NoSuchRef, match="no branch, tag or commit 'v2'"):
        place.pin(git(f"{host}/tiny/.git", "v2"))
    with pytest.raises(NoSuchRef):
        place.pin(git(f"{host}/tiny/.git", "0" * 40))
    with pytest.raises(RepositoryRefused):
        place.pin(git(f"{host}/absent/.git"))
    with pytest.raises(RepositoryRefused):
        place.pin(local(repository.parent / "absent"))
    with pytest.raises(RepositoryUnreachable):
        place.pin(git("http://127.0.0.1:9/tiny.git"))
    with pytest.raises(SourceOffline):
        place.pin(git(f"{host}/tiny/.git", "v1.0"), offline=True)
    empty = repository.parent / "empty"
    empty.mkdir()
    repositories.git(empty, "init", "--quiet")
    with pytest.raises(NoSuchRef, match="no commit yet"):
        place.pin(local(empty))


def test_without_git(place: Place, repository: Path) -> None:
    place.environ["PATH"] = "/nowhere"
    if os.environ.get("PATH"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", "/nowhere")
            with pytest.raises(GitMissing):
                place.pin(local(repository))


def test_submodules_of_the_project_are_refused(place: Place, repository: Path) -> None:
    outer = repositories.repository(repository.parent / "outer", {"py/pyproject.toml": ""})
    repositories.git(outer, "submodule", "--quiet", "add", repository.as_uri(), "vendored")
    repositories.commit(outer, {})
    with pytest.raises(HasSubmodules, match="vendored"):
        place.pin(local(outer))
    source = place.pin(local(outer, subdirectory="py"))
    assert source.subdirectory == "py"
    assert "source/py/pyproject.toml" in names(place.archive(source))


def test_links_modes_and_attributes_of_a_commit(place: Place, repository: Path) -> None:
    (repository / "link").symlink_to("src/tiny.py")
    (repository / "run.sh").write_text("")
    (repository / "run.sh").chmod(0o755)
    repositories.commit(
        repository, {".gitattributes": "kept.txt export-ignore\nsrc/* export-subst\n", "kept.txt": "$Format:%H$"}
    )
    archive = place.archive(place.pin(local(repository)))
    with tarfile.open(archive) as opened:
        assert opened.getmember("source/link").linkname == "src/tiny.py"
        assert opened.getmember("source/run.sh").mode == 0o755
        kept = opened.extractfile("source/kept.txt")
        assert kept is not None
        assert kept.read() == b"$Format:%H$"
    (repository / "out").symlink_to("../../etc")
    repositories.commit(repository, {})
    with pytest.raises(LinkLeaves, match="'out'"):
        place.pin(local(repository))


def test_neither_hooks_nor_filters_run(place: Place, repository: Path, tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"
    config = f'[filter "x"]\n\tsmudge = touch {sentinel}\n\tclean = touch {sentinel}\n'
    config += f"[core]\n\tfsmonitor = touch {sentinel}\n"
    (Path(place.environ["HOME"]) / ".gitconfig").write_text(config)
    repositories.commit(repository, {".gitattributes": "* filter=x\n"})
    place.archive(place.pin(local(repository)))
    sourcefolders.content(repository, environ=place.environ, cache=place.cache)
    assert not sentinel.exists()


def test_a_fetch_leaves_no_commit_without_its_files(place: Place, repository: Path, host: str) -> None:
    place.pin(git(f"{host}/tiny/.git"))
    (kept,) = (path for path in (place.cache / "git").iterdir() if path.is_dir())
    assert list(kept.glob("objects/pack/*.pack"))
    assert not list(kept.glob("objects/??"))


@pytest.mark.parametrize("left", ["shallow.lock", "refs/heads/main.lock", "no objects"])
def test_what_a_killed_git_left_stops_nothing(place: Place, repository: Path, host: str, left: str) -> None:
    place.pin(git(f"{host}/tiny/.git"))
    (kept,) = (path for path in (place.cache / "git").iterdir() if path.is_dir())
    if left == "no objects":
        shutil.rmtree(kept / "objects")
    else:
        (kept / left).parent.mkdir(parents=True, exist_ok=True)
        (kept / left).touch()
    commit = repositories.commit(repository, {"more.txt": "x"})
    assert place.pin(git(f"{host}/tiny/.git")).commit == commit


def test_a_commit_is_described_by_its_newest_tag(place: Place, repository: Path, host: str) -> None:
    repositories.commit(repository, {"more.py": ""})
    source = place.pin(git(f"{host}/tiny/.git"))
    assert source.commit is not None

    def described(one: LockedSource) -> str | None:
        return sourcearchives.describe(one, cache=place.cache, fetcher=Fetcher(), environ=place.environ)

    assert described(source) == f"v1.0-1-g{source.commit[:7]}"
    untagged = repositories.repository(repository.parent / "untagged", FILES)
    assert described(place.pin(local(untagged))) is None
    assert described(LockedSource(kind="folder", url=".", sha256="")) is None


def folder(path: str, content: str | None = None) -> DirectReference:
    return DirectReference(name="tiny", kind="folder", url=path, content=content)


def content(place: Place, path: Path) -> str:
    return sourcefolders.content(path, environ=place.environ, cache=place.cache)


def write(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("")


LITTER = ("src/__pycache__/x.py", "src/a.pyc", "build/x", "dist/x", "src/tiny.egg-info/x", ".venv/pyvenv.cfg")


def test_a_folder_is_what_git_would_consider(place: Place) -> None:
    root = repositories.repository(
        place.folder / "mylib", {**FILES, ".gitignore": "*.log\n", "src/build/kept.py": ""}
    )
    write(root, "new.py", "x.log", *LITTER)
    (root / "src" / "tiny.py").unlink()
    source = place.pin(folder("mylib", content(place, root)))
    assert (source.url, source.commit) == ("mylib", None)
    found = [".gitignore", "new.py", "pyproject.toml", "src/build/kept.py"]
    assert names(place.archive(source)) == [f"source/{name}" for name in found]


def test_a_folder_outside_of_git_is_all_of_it(place: Place) -> None:
    root = place.folder / "mylib"
    write(root, "pyproject.toml", "src/tiny.py", "src/build/kept.py", *LITTER, "a.locks/x", ".flowkiln/x")
    found = ["pyproject.toml", "src/build/kept.py", "src/tiny.py"]
    assert names(place.archive(place.pin(folder("mylib")))) == [f"source/{name}" for name in found]


def test_a_folder_that_git_ignores_as_a_whole_is_all_of_it(place: Place) -> None:
    repositories.repository(place.folder / "outer", {".gitignore": "mylib\n"})
    write(place.folder / "outer" / "mylib", "pyproject.toml", "tiny.py")
    assert len(names(place.archive(place.pin(folder("outer/mylib"))))) == 2


def test_a_folders_content_is_its_archive_and_changes_with_it(place: Place) -> None:
    root = place.folder / "mylib"
    write(root, "pyproject.toml", "tiny.py")
    first = content(place, root)
    assert place.pin(folder("mylib")).sha256 == first
    old = 1_600_000_000
    for name in ("pyproject.toml", "tiny.py"):
        os.utime(root / name, (old, old))
    assert content(place, root) == first
    (root / "tiny.py").write_text("X")
    assert content(place, root) != first
    (root / "tiny.py").write_text("")
    (root / "tiny.py").chmod(0o755)
    assert content(place, root) != first
    with pytest.raises(OtherSource, match="while it was being locked"):
        place.pin(folder("mylib", first))


def test_a_changed_folder_is_not_built_as_the_locked_one(place: Place, tmp_path: Path) -> None:
    root = place.folder / "mylib"
    write(root, "pyproject.toml")
    source = place.pin(folder("mylib"))
    write(root, "more.py")
    assert len(names(place.archive(source))) == 1, "the archive of the lock is kept"
    place.cache = tmp_path / "other-cache"
    with pytest.raises(OtherSource, match="has changed since it was locked"):
        place.archive(source)


def test_folders_that_cannot_be_taken(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FolderMissing):
        place.pin(folder("absent"))
    root = place.folder / "mylib"
    write(root, "pyproject.toml", "a.py")
    monkeypatch.setattr("flowkiln.envs.sourcetar.MOST_FILES", 1)
    with pytest.raises(SourceTooLarge, match="2 files"):
        place.pin(folder("mylib"))
    monkeypatch.undo()
    (root / "out").symlink_to("/etc/passwd")
    with pytest.raises(LinkLeaves):
        place.pin(folder("mylib"))


def archive(url: str, sha256: str | None = None) -> DirectReference:
    return DirectReference(name="tiny", kind="archive", url=url, sha256=sha256)


def test_an_archive_by_url(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "tiny-1.0.tar.gz"
    file.write_bytes(b"anything")
    digest = hashlib.sha256(b"anything").hexdigest()
    source = place.pin(archive(file.as_uri()))
    assert (source.sha256, source.size, source.kind) == (digest, 8, "archive")
    assert not sourcearchives.is_wheel(source)
    assert place.pin(archive(file.as_uri(), digest)) == source
    assert place.archive(source).read_bytes() == b"anything"
    file.write_bytes(b"something else")
    assert place.pin(archive(file.as_uri()), source) == source, "it stays as it was locked"
    assert place.pin(archive(file.as_uri()), source, upgrade=True) != source
    with pytest.raises(WrongHash):
        place.pin(archive(file.as_uri(), "0" * 64))
    with pytest.raises(NotCached):
        place.pin(archive("https://example.org/tiny-1.0.tar.gz"), offline=True)


def test_a_wheel_by_url_is_no_source() -> None:
    url = "https://example.org/a%20b/tiny-1.0-py3-none-any.whl?x=1"
    source = LockedSource(kind="archive", url=url, sha256="0" * 64)
    assert sourcearchives.is_wheel(source)
    assert sourcearchives.filename(source) == "tiny-1.0-py3-none-any.whl"
