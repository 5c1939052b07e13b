from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flowkiln._base.platforms import Platform
from flowkiln.envs import givenpylock, pylock
from flowkiln.envs.errors import BadLockFile
from flowkiln.envs.given import Given, Wanted
from flowkiln.envs.lockfileerrors import NotHonoured, NotInGivenLock
from flowkiln.envs.wheels import Target
from tests.envs.test_lockfolder import a_wheel

AMD64, ARM64, MAC = Platform("linux", "amd64"), Platform("linux", "arm64"), Platform("darwin", "arm64")
PATH = Path("pylock.toml")


def wanted(*platforms: Platform, python: str = "3.11.9", **more: Any) -> Wanted:
    chosen = platforms or (AMD64,)
    targets = tuple(Target(one, python[:4], (2, 28) if one.os == "linux" else None) for one in chosen)
    return Wanted(targets=targets, python=python, required=frozenset(platforms), **more)


def entry(name: str, *tags: str, version: str = "1.0", **keys: str) -> str:
    lines = ["[[packages]]", f'name = "{name}"', f'version = "{version}"']
    lines += [f"{key.replace('_', '-')} = {value}" for key, value in keys.items()]
    place = f"https://u:p@files.example/{name}-{version}"
    wheels = [
        f'{{ url = "{place}-{tag}.whl", size = 7, hashes = {{ sha256 = "{number:064x}" }} }}'
        for number, tag in enumerate(tags)
    ]
    return "\n".join([*lines, f"wheels = [{', '.join(wheels)}]", ""])


def a_file(*entries: str, **keys: str) -> str:
    head = ['lock-version = "1.0"', 'created-by = "other"']
    return "\n".join([*head, *(f"{key.replace('_', '-')} = {value}" for key, value in keys.items()), *entries])


def read(text: str, *platforms: Platform, **more: Any) -> Given:
    return givenpylock.read(text, PATH, wanted(*platforms, **more))


def names(given: Given) -> list[list[str]]:
    return [[one.filename for one in part.wheels] for part in given.parts]


def test_one_wheel_is_chosen_for_each_platform() -> None:
    tags = (
        "cp311-cp311-manylinux_2_17_x86_64",
        "cp311-cp311-manylinux_2_28_x86_64",
        "cp312-cp312-manylinux_2_28_x86_64",
    )
    native = entry("Native", *tags, "cp311-cp311-manylinux_2_17_aarch64", dependencies='[{ name = "pure" }]')
    given = read(a_file(native, entry("pure", "py3-none-any")), AMD64, ARM64)
    assert names(given) == [
        ["Native-1.0-cp311-cp311-manylinux_2_28_x86_64.whl", "pure-1.0-py3-none-any.whl"],
        ["Native-1.0-cp311-cp311-manylinux_2_17_aarch64.whl", "pure-1.0-py3-none-any.whl"],
    ]
    wheel = given.parts[0].wheels[0]
    assert (wheel.name, wheel.requires, wheel.size) == ("native", ("pure",), 7)
    assert wheel.url == "https://files.example/Native-1.0-cp311-cp311-manylinux_2_28_x86_64.whl"
    lock = given.lock("fit", "sha256:" + 64 * "0", steps=("a",))
    assert [(part.platform, part.python, part.glibc) for part in lock.platforms] == [
        (AMD64, "3.11", (2, 28)),
        (ARM64, "3.11", (2, 28)),
    ]


def test_what_we_lock_is_given_back() -> None:
    wheels = (a_wheel("alpha", requires=("beta",)), a_wheel("beta", size=None, index=None, upload_time=None))
    (part,) = read(pylock.serialise("3.11", wheels)).parts
    assert part.wheels == wheels


def test_a_wheel_that_was_asked_for_by_its_url_is_a_wheel() -> None:
    archive = f'{{ url = "https://f.example/x-1.5-py3-none-any.whl", hashes = {{ sha256 = "{"00" * 32}" }} }}'
    (part,) = read(a_file(f'[[packages]]\nname = "x"\narchive = {archive}')).parts
    assert [(one.name, one.version, one.url) for one in part.wheels] == [
        ("x", "1.5", "https://f.example/x-1.5-py3-none-any.whl")
    ]


def test_markers_extras_and_groups_decide() -> None:
    text = a_file(
        entry("always", "py3-none-any"),
        entry("mac", "py3-none-any", marker="\"sys_platform == 'darwin'\""),
        entry("plot", "py3-none-any", marker="\"'plot' in extras\""),
        entry("test", "py3-none-any", marker="\"'test' in dependency_groups\""),
        entry("main", "py3-none-any", marker="\"'main' in dependency_groups\""),
        extras='["plot"]',
        dependency_groups='["test"]',
        default_groups='["main"]',
    )
    assert [[one.name for one in part.wheels] for part in read(text, AMD64, MAC).parts] == [
        ["always", "main"],
        ["always", "mac", "main"],
    ]
    more = read(text, extras=frozenset({"plot"}), groups=frozenset({"test"}))
    assert [one.name for one in more.parts[0].wheels] == ["always", "main", "plot", "test"]


def test_versions_that_markers_tell_apart_are_bounded() -> None:
    old = entry("x", "py3-none-any", marker="\"python_full_version < '3.11.4'\"")
    new = entry("x", "py3-none-any", version="2.0", marker="\"python_full_version >= '3.11.4'\"")
    (part,) = read(a_file(old, new)).parts
    assert ([one.version for one in part.wheels], part.python_minimum, part.python_below) == (
        ["2.0"],
        "3.11.4",
        None,
    )
    (part,) = read(a_file(old, new), python="3.11.2").parts
    assert ([one.version for one in part.wheels], part.python_minimum, part.python_below) == (
        ["1.0"],
        None,
        "3.11.4",
    )


def test_a_platform_that_is_not_asked_for_by_name_may_be_missing() -> None:
    text = a_file(entry("native", "cp311-cp311-manylinux_2_17_aarch64"))
    question = Wanted(targets=wanted(AMD64, ARM64).targets, python="3.11.9")
    assert [part.platform for part in givenpylock.read(text, PATH, question).parts] == [ARM64]
    with pytest.raises(
        NotInGivenLock, match=r"native 1\.0 has no wheel for linux/amd64; there is native-1\.0-cp311"
    ):
        read(text, AMD64, ARM64)


NO_HASH = """
[[packages]]
name = "x"
version = "1"
wheels = [{ url = "https://f.example/x-1-py3-none-any.whl", hashes = {} }]
"""
LOCAL = NO_HASH.replace('url = "https://f.example/', 'path = "dist/')
SDIST = '[[packages]]\nname = "x"\nversion = "1"\nsdist = { url = "https://f.example/x.tar.gz", hashes = {} }'
BAD_SDIST = SDIST.replace("{}", '{ sha256 = "abc/../../x" }')
REPOSITORY = '[[packages]]\nname = "x"\nvcs = { type = "git", url = "https://g.example/x", commit-id = "a" }'
ARCHIVE = '[[packages]]\nname = "x"\narchive = { url = "https://f.example/x.tar.gz", hashes = {} }'
LOCAL_WHEEL = '[[packages]]\nname = "x"\narchive = { path = "x-1-py3-none-any.whl", hashes = {} }'
BAD = {
    "another version": ('lock-version = "2.0"', BadLockFile, "no pylock.toml of version 1"),
    "no TOML": ("lock-version = ", BadLockFile, "not valid TOML"),
    "a merge": ("<<<<<<< ours\n", BadLockFile, "marks of a merge conflict"),
    "another Python": (a_file(requires_python='">=3.12"'), NotInGivenLock, "is for Python >=3.12, not 3.11.9"),
    "another platform": (
        a_file(environments="[\"sys_platform == 'win32'\"]"),
        NotInGivenLock,
        "for other platforms",
    ),
    "no hash": (a_file(NO_HASH), NotInGivenLock, "x-1-py3-none-any.whl has no sha256"),
    "a local file": (a_file(LOCAL), NotHonoured, "is a local file"),
    "a source with no proper hash": (a_file(BAD_SDIST), NotInGivenLock, "x.tar.gz has a sha256 hash that"),
    "a source without a hash": (a_file(SDIST), NotInGivenLock, "x.tar.gz has no sha256"),
    "a local wheel": (a_file(LOCAL_WHEEL), NotHonoured, "is a local file"),
    "an archive": (a_file(ARCHIVE), NotHonoured, "pylock.toml, x comes from an archive"),
    "a repository": (a_file(REPOSITORY), NotHonoured, "pylock.toml, x comes from a repository"),
    "twice": (a_file(2 * (entry("x", "py3-none-any"))), NotInGivenLock, "two entries hold"),
    "a package for another Python": (
        a_file(entry("x", requires_python='"<3"')),
        NotInGivenLock,
        "x needs Python <3",
    ),
    "no marker": (a_file(entry("x", marker='"nonsense"')), NotHonoured, "'nonsense' is not a marker"),
    "an unnamed package": (a_file("[[packages]]\nversion = '1'"), BadLockFile, "the entry of '?' is not valid"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_taken_is_named(case: str) -> None:
    text, kind, message = BAD[case]
    with pytest.raises(kind) as caught:
        read(text, AMD64)
    assert message in caught.value.message
    assert caught.value.hint


def test_an_extra_or_a_group_that_was_not_locked_is_named() -> None:
    with pytest.raises(NotInGivenLock, match="without extras plot; it has: other"):
        read(a_file(extras='["other"]'), extras=frozenset({"plot"}))
    with pytest.raises(NotInGivenLock, match="without dependency-groups test; it has: none"):
        read(a_file(), groups=frozenset({"test"}))
