"""Environments of conda packages on disk, held against what rattler makes of the same packages."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import rattler

from flowkiln._base.relocate import restored, written
from flowkiln.envs import installer, proof
from flowkiln.envs.condaunpack import unpack
from flowkiln.envs.installerrors import EnvironmentMismatch, LinkScripts, PathOwnedTwice, PrefixTooLong
from flowkiln.envs.lock import LockedConda
from flowkiln.envs.tree import Tree
from flowkiln.envs.wheelstore import WheelStore
from tests.envs.condatrees import locked, materialise, part, python, solved
from tests.services.channel import Channel
from tests.services.condapackages import package
from tests.services.test_channel import install, solve

if TYPE_CHECKING:
    from flowkiln._base.relocate import Kind

SPECS = ["python 3.11.*", "numpy", "pandas", "soft-links", "prefix-text", "prefix-binary", "generic", "activated"]


@pytest.fixture(scope="module")
def tree(conda_channel: Channel, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    cache = tmp_path_factory.mktemp("cache")
    records = solve([conda_channel.url], SPECS, cache / "rattler")
    return materialise(cache / "cache", part(*solved(records)))


def content(root: Path) -> dict[str, tuple[str, bool, bytes]]:
    """Kind, executable and bytes of every file, without what each tool writes of its own."""
    found: dict[str, tuple[str, bool, bytes]] = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            inside = str(path.relative_to(root))
            if (
                name.endswith(".pyc")
                or inside.startswith(("conda-meta/", ".flowkiln/"))
                or name in ("EXTERNALLY-MANAGED", "CACHEDIR.TAG")
            ):
                continue
            if path.is_symlink():
                found[inside] = ("link", False, os.fsencode(path.readlink()))
            else:
                found[inside] = ("file", bool(path.stat().st_mode & 0o100), path.read_bytes())
    return found


def test_it_is_what_rattler_installs(tree: Tree, conda_channel: Channel, tmp_path: Path) -> None:
    records = solve([conda_channel.url], SPECS, tmp_path / "cache")
    there = install(records, tmp_path / "theirs", tmp_path / "cache")
    theirs, ours = content(there), content(tree.root)
    for path, (kind, placeholder, offsets) in tree.description.rewritten.items():
        how: Kind = "binary" if kind == "binary" else "text"
        stored = restored(ours[path][2], offsets, placeholder, str(tree.root), how)
        assert stored is not None
        ours[path] = (*ours[path][:2], written(stored, placeholder, str(there), how)[0])
    scripts = {path for path in ours if path.startswith("bin/") and b"import sys\nfrom " in ours[path][2]}
    assert sorted(theirs) == sorted(ours)
    assert len(tree.description.rewritten) > 3
    assert [path for path in sorted(ours.keys() - scripts) if ours[path] != theirs[path]] == []


def test_python_and_what_is_beside_it_work(tree: Tree) -> None:
    code = "import sys, numpy, pandas; print(sys.prefix, numpy.__file__, pandas.DataFrame({'a': [1]}).a.sum())"
    done = subprocess.run([tree.python, "-c", code], capture_output=True, text=True, check=True, env={})
    assert done.stdout.split() == [
        str(tree.root),
        f"{tree.root}/lib/python3.11/site-packages/numpy/__init__.py",
        "1",
    ]
    assert (
        tree.version == json.loads(next((tree.root / "conda-meta").glob("python-3*.json")).read_text())["version"]
    )


def test_rattler_reads_what_is_installed(tree: Tree, conda_channel: Channel) -> None:
    read = [rattler.PrefixRecord.from_path(path) for path in (tree.root / "conda-meta").glob("*.json")]
    found = {one.name.normalized: one for one in read}
    assert {"python", "numpy", "soft-links", "generic"} <= found.keys()
    numpy = found["numpy"]
    assert (numpy.subdir, numpy.channel) == ("linux-64", "https://channel.invalid")
    assert numpy.url == f"https://channel.invalid/linux-64/{numpy.file_name}"
    assert all(os.path.lexists(tree.root / path) for one in read for path in one.files)
    for path in (tree.root / "conda-meta").iterdir():
        text = path.read_text()
        assert str(conda_channel.folder) not in text
        assert str(tree.root) not in text


def test_a_record_is_read_whatever_the_package_left_out(tmp_path: Path) -> None:
    bare = {"build_number": None, "depends": None, "subdir": None, "noarch": None, "constrains": None}
    path = package(tmp_path / "channel", "bare", "1!2.0+x", index=bare, files={"share/bare": b""})
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "out").mkdir()
    one = LockedConda(
        name="bare", version="1!2.0+x", build="0", filename=path.name, url="https://u:secret@host/x", sha256=sha256
    )
    made = installer.package(unpack(path, one, tmp_path / "out"), "3.11")
    entry = next(entry for entry in made.entries if entry.path.startswith("conda-meta/"))
    assert isinstance(entry.source, bytes)
    assert b"host" not in entry.source
    record = tmp_path / Path(entry.path).name
    record.write_bytes(entry.source)
    assert str(rattler.PrefixRecord.from_path(record).version) == "1!2.0+x"


def test_two_places_have_one_digest(tree: Tree, conda_channel: Channel, tmp_path: Path) -> None:
    records = solve([conda_channel.url], SPECS, tmp_path / "rattler")
    other = materialise(tmp_path / "a" / "much" / "longer" / "path" / "to" / "it", part(*solved(records)))
    assert (other.env_id, other.tree_digest) == (tree.env_id, tree.tree_digest)
    assert other.root != tree.root
    assert other.description.rewritten.keys() == tree.description.rewritten.keys()


def test_it_is_proved_at_both_levels_and_a_change_is_found(conda_channel: Channel, tmp_path: Path) -> None:
    found = [locked(conda_channel, name) for name in ("prefix-text", "soft-links")]
    found.append(locked(conda_channel, "prefix-binary", subdir="linux-64"))
    tree = materialise(tmp_path / "cache", part(python(conda_channel), *found))
    proof.verify(tree.root, tree.env_id, tree.tree_digest, "stat")
    proof.verify(tree.root, tree.env_id, tree.tree_digest, "full")
    assert {how[0] for how in tree.description.rewritten.values()} == {"text", "binary"}
    path = tree.root / next(path for path, how in tree.description.rewritten.items() if how[0] == "text")
    right = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(right.replace(str(tree.root).encode(), str(tree.root).upper().encode()))
    path.chmod(0o444)
    with pytest.raises(EnvironmentMismatch, match="1 changed"):
        proof.verify(tree.root, tree.env_id, tree.tree_digest, "full")
    link = next(one for one in tree.root.glob("lib/libsoft*") if one.is_symlink())
    target = link.readlink()
    link.unlink()
    link.symlink_to("elsewhere")
    with pytest.raises(EnvironmentMismatch, match="2 changed"):
        proof.verify(tree.root, tree.env_id, tree.tree_digest, "stat")
    assert str(target) != "elsewhere"


def test_scripts_are_never_run(conda_channel: Channel, tmp_path: Path) -> None:
    with pytest.raises(LinkScripts, match=r"post-link 1\.0 \(post-link\)"):
        materialise(tmp_path / "cache", part(python(conda_channel), locked(conda_channel, "post-link")))
    assert not list((tmp_path / "cache" / "trees").glob("*"))


def test_packages_that_own_one_path_need_a_winner(conda_channel: Channel, tmp_path: Path) -> None:
    pair = [locked(conda_channel, name) for name in ("clobber-a", "clobber-b")]
    with pytest.raises(PathOwnedTwice, match="clobber-a and clobber-b both install"):
        materialise(tmp_path / "cache", part(python(conda_channel), *pair))


def test_a_place_that_is_too_long_is_told(conda_channel: Channel, tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 200) / ("y" * 40)
    with pytest.raises(PrefixTooLong, match="room for 255"):
        materialise(deep, part(python(conda_channel), locked(conda_channel, "prefix-binary", subdir="linux-64")))


def test_names_that_differ_in_case_alone_are_two_files_where_they_can_be(tmp_path: Path) -> None:
    names = ("share/terminfo/2/2621A", "share/terminfo/2/2621a")
    path = package(tmp_path / "channel", "terms", files={name: name.encode() for name in names})
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    terms = LockedConda(
        name="terms", version="1.0", build="0", filename=path.name, url=path.as_uri(), sha256=sha256
    )
    store = WheelStore(tmp_path / "cache")
    made = installer.package(store.add(terms, lambda _: Path(shutil.copy(path, tmp_path))), "3.11")
    assert store.verify(made.of) == []
    assert [one.path for one, _ in installer.combine([made]).owners if one.path in names] == list(names)
    with pytest.raises(PathOwnedTwice, match="2621"):
        installer.combine([made], case_matters=False)
