"""Built wheels in pylock files: written as other tools read sources, read back as they were."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkiln._base.platforms import Platform
from flowkiln.envs import pylock
from flowkiln.envs.errors import BadLockFile
from flowkiln.envs.lock import LockedBuild, LockedSource, LockedWheel
from tests.envs.test_lockfolder import a_wheel

Kind = Literal["sdist", "archive", "git", "folder"]
AMD64 = Platform("linux", "amd64")
HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
TEXT = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=12)
SOURCES = st.builds(
    LockedSource,
    kind=st.sampled_from(["sdist", "archive", "git", "folder"]),
    url=TEXT,
    sha256=HEX,
    size=st.none() | st.integers(0, 1 << 40),
    commit=st.none() | TEXT,
    ref=st.none() | TEXT,
    subdirectory=st.none() | TEXT,
)
BUILDS = st.builds(
    LockedBuild,
    source=SOURCES,
    key=HEX.map("sha256:{}".format),
    python=st.sampled_from(["3.11", "3.14"]),
    platform=st.sampled_from([AMD64, Platform("darwin", "arm64")]),
    requires=st.lists(TEXT).map(tuple),
    where=TEXT,
)


def built(build: LockedBuild) -> LockedWheel:
    return replace(a_wheel("lib", requires=("other",)), url=build.source.url, build=build, upload_time=None)


@given(BUILDS)
def test_what_is_written_is_read_back(build: LockedBuild) -> None:
    wheel = built(build)
    text = pylock.serialise("3.11", [wheel])
    assert pylock.read_ours(text, Path("pylock.toml")) == ("3.11", (wheel,))
    assert pylock.serialise("3.11", pylock.read_ours(text, Path("pylock.toml"))[1]) == text


@pytest.mark.parametrize(
    ("kind", "table", "told"),
    [
        ("sdist", "sdist", {"name": "lib-1.tar.gz", "url": "https://x.test/lib-1.tar.gz"}),
        ("archive", "archive", {"url": "https://x.test/lib-1.tar.gz", "subdirectory": "py"}),
        ("git", "vcs", {"type": "git", "url": "https://x.test/lib-1.tar.gz", "commit-id": "c" * 40}),
        ("folder", "directory", {"path": "../../lib", "subdirectory": "py"}),
    ],
)
def test_the_source_stands_as_pep_751_has_it(kind: Kind, table: str, told: dict[str, str]) -> None:
    url = "../lib" if kind == "folder" else "https://x.test/lib-1.tar.gz"
    source = LockedSource(kind=kind, url=url, sha256="a" * 64, commit="c" * 40, subdirectory="py")
    wheel = built(LockedBuild(source=source, key="sha256:" + "b" * 64, python="3.11", platform=AMD64))
    (entry,) = tomllib.loads(pylock.serialise("3.11", [wheel]))["packages"]
    assert told.items() <= entry[table].items()
    assert "wheels" not in entry


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('key = "sha256:', 'key = "sha1:'),
        ('kind = "sdist"', 'kind = "svn"'),
        ('name = "lib-1.0-py3-none-any.whl"', 'name = "../lib.whl"'),
        ('platform = "linux/amd64"', 'platform = "beos"'),
        ("[packages.tool.flowkiln.build]", "[packages.tool.flowkiln.other]"),
    ],
)
def test_an_entry_that_was_damaged_is_told(old: str, new: str) -> None:
    source = LockedSource(kind="sdist", url="https://x.test/lib-1.tar.gz", sha256="a" * 64)
    wheel = built(LockedBuild(source=source, key="sha256:" + "b" * 64, python="3.11", platform=AMD64))
    text = pylock.serialise("3.11", [wheel])
    assert old in text
    with pytest.raises(BadLockFile, match="'lib' is not valid"):
        pylock.read_ours(text.replace(old, new), Path("pylock.toml"))


def test_uv_keeps_to_sources_of_indexes_alone() -> None:
    wheels = []
    kinds: tuple[Kind, ...] = ("sdist", "git", "folder")
    for kind in kinds:
        source = LockedSource(kind=kind, url="https://x.test/a-1.tar.gz", sha256="a" * 64)
        build = LockedBuild(source=source, key="sha256:" + "b" * 64, python="3.11", platform=AMD64)
        wheels.append(replace(built(build), name=kind))
    told = tomllib.loads(pylock.preferences("3.11", [*wheels, a_wheel("plain")]))
    assert [one["name"] for one in told["packages"]] == ["plain", "sdist"]
