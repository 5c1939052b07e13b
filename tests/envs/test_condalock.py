from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkiln._base.errors import FormatTooNew
from flowkiln.envs import condalock
from flowkiln.envs.errors import BadLockFile
from flowkiln.envs.lock import LockedConda
from flowkiln.envs.lockfileerrors import NoMd5
from tests.envs.condalocks import AMD64, ARM64, CHANNEL, lock, package, part

PATH = Path("fit.conda-lock.yml")
HEX = "0123456789abcdef"
WORDS = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"], exclude_characters="/?#%[];,"), min_size=1
)
NAMES = st.from_regex(r"[a-z0-9_][a-z0-9_.-]*", fullmatch=True)


def made(name: str, version: str, build: str, depends: list[str], provides: dict[str, str]) -> LockedConda:
    url = f"{CHANNEL}/linux-64/{name}-{build}.conda"
    pairs = tuple(sorted(provides.items()))
    return package(
        name,
        version,
        build,
        url=url,
        filename=condalock.file_name(url),
        depends=tuple(depends),
        provides=pairs,
        size=len(version) or None,
    )


PACKAGES = st.lists(
    st.builds(
        made,
        NAMES,
        WORDS,
        st.from_regex(r"[a-z0-9_]+", fullmatch=True),
        st.lists(
            st.builds("{}{}{}".format, NAMES, st.sampled_from(["", " ", "  "]), WORDS | st.just("")), max_size=4
        ),
        st.dictionaries(NAMES, NAMES, max_size=2),
    ),
    min_size=1,
    max_size=4,
    unique_by=(lambda one: one.name, lambda one: one.filename),
)


@given(PACKAGES)
def test_what_is_written_is_read(packages: list[LockedConda]) -> None:
    packages.sort(key=lambda one: one.name)
    before = replace(lock(), platforms=(replace(part(), conda=tuple(packages)),))
    text = condalock.serialise(before)
    read = condalock.parse(text, PATH)
    assert read.platforms == {AMD64: tuple(packages)}
    assert read.channels == before.channels
    assert condalock.is_ours(text)


def test_the_text_is_a_function_of_the_lock() -> None:
    backwards = tuple(replace(one, conda=one.conda[::-1]) for one in lock().platforms[::-1])
    text = condalock.serialise(lock())
    assert condalock.serialise(replace(lock(), platforms=backwards)) == text
    assert condalock.parse(text, PATH).platforms == {one.platform: one.conda for one in lock().platforms}


def test_a_changed_package_changes_its_own_block() -> None:
    one, two = part(), part(ARM64)
    newer = package("tzdata", "2024b", "0", size=7)
    changed = replace(one, conda=(*one.conda[:-1], newer))
    before, after = (
        condalock.serialise(replace(lock(), platforms=(first, two))).splitlines() for first in (one, changed)
    )
    differing = [line for line in after if line not in before]
    assert [line.strip().partition(":")[0] for line in differing] == [
        '"linux-64/tzdata-2024b-0.conda"',
        *("version", "url", "md5", "sha256", "build"),
    ]


def test_a_package_without_md5_is_refused_before_anything_is_written() -> None:
    one = part()
    bare = replace(one, conda=(*one.conda, package("bare", md5=None)))
    with pytest.raises(NoMd5, match=r"bare-1\.0-0\.conda has no MD5 hash") as caught:
        condalock.serialise(replace(lock(), platforms=(bare,)))
    assert "Index the channel again" in (caught.value.hint or "")
    with pytest.raises(NoMd5, match=r"a-1\.0-0\.conda, b-1\.0-0\.conda have"):
        condalock.require_md5([package("b", md5=None), package("c"), package("a", md5=None)])


TAMPERED = {
    "not YAML": ("channels:", "channels: [", "not valid YAML"),
    "a merge conflict": ("version: 1", "<<<<<<< ours\nversion: 1", "line 2: the marks of a merge conflict"),
    "another version": ("version: 1", "version: 2", "no conda-lock.yml of version 1"),
    "of another tool": ('created-by: "flowkiln"', 'created-by: "x"', "not written by flowkiln"),
    "an unknown platform": ("    - linux-64", "    - win-64", "unknown platform 'win-64'"),
    "a hash cut short": ('      sha256: "', '      sha256: "x', "the entry of 'libzlib' is not valid"),
    "an MD5 in capitals": ('      md5: "', '      md5: "A', "the entry of 'libzlib' is not valid"),
    "a wheel": ("manager: conda", "manager: pip", "the entry of 'libzlib' is not valid"),
    "the folder of another platform": ("forge/linux-64/libz", "forge/linux-32/libz", "the entry of 'libzlib'"),
    "no URL": ('    url: "', '    URL: "', "the entry of 'libzlib' is not valid"),
    "a field that is not known": ("size=1000", "weight=1000", "the entry of 'libzlib' is not valid"),
    "a package twice": ('name: "numpy"', 'name: "python"', "listed twice"),
    "packages that are no list": ("package:\n", "package: x\nrest:\n", "package is no list"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_a_damaged_file_is_named_with_its_line(case: str) -> None:
    old, new, what = TAMPERED[case]
    text = condalock.serialise(lock())
    assert old in text
    with pytest.raises(BadLockFile, match=r"fit\.conda-lock\.yml") as caught:
        condalock.parse(text.replace(old, new, 1), PATH)
    assert what in caught.value.message


def test_a_file_of_a_newer_flowkiln_is_not_guessed_at() -> None:
    text = condalock.serialise(lock()).replace('schema: "1"', 'schema: "2"')
    with pytest.raises(FormatTooNew, match="schema 2"):
        condalock.parse(text, PATH)


def test_upgrades_of_two_packages_merge(tmp_path: Path) -> None:
    one = part()
    sides = {
        "base": one,
        "ours": replace(one, conda=(package("libzlib", "1.3.2", "0", subdir="linux-64"), *one.conda[1:])),
        "theirs": replace(one, conda=(*one.conda[:-1], package("tzdata", "2024b", "0"))),
        "both": replace(
            one,
            conda=(
                package("libzlib", "1.3.2", "0", subdir="linux-64"),
                *one.conda[1:-1],
                package("tzdata", "2024b", "0"),
            ),
        ),
    }
    for name, side in sides.items():
        (tmp_path / name).write_text(condalock.serialise(replace(lock(), platforms=(side,))))
    command = ["git", "merge-file", "-p", "ours", "base", "theirs"]
    merged = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert merged.stdout == (tmp_path / "both").read_text()
