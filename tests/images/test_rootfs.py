"""Layers put on each other: judged by a model that extracts them into real folders, as runtimes do."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkiln.images.rootfs import File, Folder, RootFS

Entry = tuple[str, str, str]

_name = st.sampled_from("abc")
_path = st.lists(_name, min_size=1, max_size=3).map("/".join)
_target = st.one_of(_path, _path.map("/{}".format), _path.map("../{}".format))
_entry = st.one_of(
    st.tuples(st.just("file"), _path, st.text("xyz", min_size=1, max_size=2)),
    st.tuples(st.just("folder"), _path, st.just("")),
    st.tuples(st.just("link"), _path, _target),
    st.tuples(st.just("whiteout"), _path, st.just("")),
    st.tuples(st.just("opaque"), _path, st.just("")),
)


def put(files: RootFS, entries: list[Entry]) -> None:
    files.next_layer()
    for kind, path, what in entries:
        above, _, name = path.rpartition("/")
        if kind == "file":
            files.put_file(path, what)
        elif kind == "folder":
            files.put_folder(path)
        elif kind == "link":
            files.put_link(path, what)
        elif kind == "whiteout":
            assert files.whiteout(f"{above}/.wh.{name}")
        elif kind == "opaque":
            assert files.whiteout(f"{path}/.wh..wh..opq")


def tree(files: RootFS, path: str = "") -> dict[str, object]:
    """Every remembered path without following links, as ``listing`` tells it of a real folder."""
    found: dict[str, object] = {}
    at = files.find(path)
    assert at is not None
    folder = at[1]
    assert isinstance(folder, Folder)
    for name, node in folder.entries.items():
        own = f"{path}/{name}".lstrip("/")
        if isinstance(node, Folder):
            found |= {own: None, **tree(files, own)}
        else:
            found[own] = node.content if isinstance(node, File) else ("->", node.target)
    return found


def listing(root: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for above, folders, names in os.walk(root):
        for name in [*folders, *names]:
            path = Path(above, name)
            own = str(path.relative_to(root))
            if path.is_symlink():
                found[own] = ("->", str(path.readlink()))
            else:
                found[own] = None if path.is_dir() else path.read_text()
    return found


class Model:
    """Extracts layers one after the other into a folder that can be looked at; only lower layers are hidden."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.mine: set[Path] = set()

    def put(self, entries: list[Entry]) -> None:
        self.mine = set()
        for kind, path, what in entries:
            place = self.root / path
            if kind == "opaque":
                if place.is_dir():
                    self.hide_below(place)
                continue
            if kind == "whiteout":
                self.hide(place)
                continue
            for above in reversed(place.relative_to(self.root).parents[:-1]):
                if (self.root / above).is_file():
                    (self.root / above).unlink()
                if not (self.root / above).exists():
                    (self.root / above).mkdir()
                    self.mine.add(self.root / above)
            if kind == "folder":
                if place.is_symlink() or place.is_file():
                    place.unlink()
                place.mkdir(exist_ok=True)
            else:
                if place.is_dir() and not place.is_symlink():
                    shutil.rmtree(place)
                elif os.path.lexists(place):
                    place.unlink()
                if kind == "file":
                    place.write_text(what)
                else:
                    place.symlink_to(what)
            self.mine = {one for one in self.mine if os.path.lexists(one)} | {place}

    def hide_below(self, folder: Path) -> None:
        for path in list(folder.iterdir()):
            self.hide(path)

    def hide(self, path: Path) -> None:
        if not os.path.lexists(path):
            return
        if path.is_dir() and not path.is_symlink():
            self.hide_below(path)
            if path not in self.mine and not list(path.iterdir()):
                path.rmdir()
        elif path not in self.mine:
            path.unlink()


_plain = _entry.filter(lambda entry: entry[0] != "link")


@settings(max_examples=120, deadline=None)
@given(st.lists(st.lists(_plain, max_size=8), min_size=1, max_size=4))
def test_layers_without_links_are_what_extracting_them_gives(layers: list[list[Entry]]) -> None:
    files, model = RootFS(), Model()
    try:
        for entries in layers:
            put(files, entries)
            model.put(entries)
        assert tree(files) == listing(model.root)
    finally:
        shutil.rmtree(model.root)


@settings(max_examples=120, deadline=None)
@given(st.lists(_entry.filter(lambda entry: entry[0] in ("file", "folder", "link")), max_size=10), _path)
def test_links_lead_where_the_system_says(entries: list[Entry], path: str) -> None:
    """Absolute targets are those of the image, so they are compared in a root that stands for one."""
    files = RootFS()
    root = Path(tempfile.mkdtemp()).resolve()
    try:
        files.next_layer()
        for kind, where, what in entries:
            place = root / where
            if not place.parent.is_dir() or place.parent.resolve() != place.parent or os.path.lexists(place):
                continue  # what cannot be extracted in a plain way, the other test is about
            put_one(files, kind, where, what, place, root)
        found = files.find(path)
        real = root / path
        if real.exists() and root in [real.resolve(), *real.resolve().parents]:
            assert found is not None
            assert str(root) + found[0].rstrip("/") == str(real.resolve())
        else:
            assert found is None or escaped(root, path)
    finally:
        shutil.rmtree(root)


def put_one(files: RootFS, kind: str, where: str, what: str, place: Path, root: Path) -> None:
    if kind == "file":
        files.put_file(where, what)
        place.write_text(what)
    elif kind == "folder":
        files.put_folder(where)
        place.mkdir()
    else:
        files.put_link(where, what)
        place.symlink_to(f"{root}{what}" if what.startswith("/") else what)


def escaped(root: Path, path: str) -> bool:
    """Whether a link on the way goes above the root, which stays the root in an image."""
    at = root
    for part in Path(path).parts:
        at /= part
        if at.is_symlink() and ".." in at.readlink().parts:
            return True
    return False


@given(st.lists(st.lists(_entry, max_size=8), max_size=4), _path)
def test_no_layers_are_too_odd(layers: list[list[Entry]], path: str) -> None:
    files = RootFS()
    for entries in layers:
        put(files, entries)
    files.find(path)
    files.names(path)
    tree(files)


@pytest.mark.parametrize("order", [1, -1])
def test_a_whiteout_hides_lower_layers_only_in_any_order(order: int) -> None:
    files = RootFS()
    put(files, [("file", "usr/a", "old"), ("file", "usr/b", "old")])
    put(files, [("opaque", "usr", ""), ("file", "usr/a", "new"), ("whiteout", "usr", "")][::order])
    assert tree(files) == {"usr": None, "usr/a": "new"}


def test_a_path_is_entered_through_the_links_that_stand_there() -> None:
    files = RootFS()
    put(files, [("folder", "usr/lib", ""), ("link", "lib", "usr/lib")])
    put(files, [("file", "lib/x", "1"), ("file", "lib/y", "1")])
    put(files, [("whiteout", "lib/x", "")])
    assert tree(files) == {"usr": None, "usr/lib": None, "lib": ("->", "usr/lib"), "usr/lib/y": "1"}
    assert files.find("/lib/../lib/y") == ("/usr/lib/y", File(2, "1"))


def test_a_folder_takes_the_place_of_a_link() -> None:
    files = RootFS()
    put(files, [("file", "usr/lib/x", "1"), ("link", "lib", "usr/lib")])
    put(files, [("folder", "lib", ""), ("file", "lib/y", "2")])
    assert files.names("lib") == ["y"]


def test_links_in_a_circle_and_out_of_the_root() -> None:
    files = RootFS()
    put(files, [("link", "a", "b"), ("link", "b", "a"), ("link", "up", "../../../etc/x"), ("file", "etc/x", "1")])
    assert files.find("a") is None
    assert files.find("a/c") is None
    assert files.find("up") == ("/etc/x", File(1, "1"))
    put(files, [("file", "a/new", "2")])
    assert files.find("a/new") is None


def test_other_files_take_the_place_of_what_is_remembered() -> None:
    files = RootFS()
    put(files, [("file", "a/b", "1"), ("link", "c", "a/b")])
    files.next_layer()
    files.put_other("c")
    files.put_other("none/at/all")
    assert tree(files) == {"a": None, "a/b": "1"}
    files.put_other("a")
    assert tree(files) == {}


def test_hard_links_are_the_file_they_name() -> None:
    files = RootFS()
    put(files, [("file", "a/b", "1"), ("link", "l", "a/b")])
    files.next_layer()
    files.put_hard_link("c", "a/b")
    files.put_hard_link("d", "./l")
    files.put_hard_link("a/b", "unknown")
    assert tree(files) == {"a": None, "c": "1", "d": ("->", "a/b"), "l": ("->", "a/b")}


@pytest.mark.parametrize("path", [".wh..wh.plnk/1.2", ".wh..wh.aufs", "a/.wh..wh.orph"])
def test_what_is_only_for_aufs_is_no_file(path: str) -> None:
    files = RootFS()
    put(files, [("file", "a/b", "1")])
    files.next_layer()
    assert files.whiteout(path)
    assert not files.whiteout("a/x.wh.y")
    assert tree(files) == {"a": None, "a/b": "1"}
