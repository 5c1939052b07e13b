from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from flowkiln._base.platforms import Platform
from flowkiln.envs import exporting, givencondalock
from flowkiln.envs.errors import BadLockFile, UnsupportedPython
from flowkiln.envs.given import Given
from flowkiln.envs.lockfileerrors import NotHonoured, NotInGivenLock
from tests.envs import condalocks
from tests.envs.condalocks import AMD64, ARM64
from tests.envs.test_lockfolder import a_wheel

PATH = Path("conda-lock.yml")
MAC = Platform("darwin", "arm64")
PLATFORMS = ("linux-64", "linux-aarch64", "osx-arm64", "win-64")
FORGE = "https://conda.anaconda.org/conda-forge"


def conda(name: str, version: str = "1.0", *, platform: str = "linux-64", **changes: Any) -> dict[str, Any]:
    entry = {
        "name": name,
        "version": version,
        "manager": "conda",
        "platform": platform,
        "dependencies": {"__glibc": ">=2.17", "other": ""},
        "url": f"{FORGE}/{platform}/{name}-{version}-h1_0.conda",
        "hash": {"md5": "0" * 32, "sha256": f"{len(name):064x}"},
        "category": "main",
        "optional": False,
    }
    return {**entry, **changes}


def pip(name: str, tag: str = "py3-none-any", *, platform: str = "linux-64", **changes: Any) -> dict[str, Any]:
    entry = {
        "name": name,
        "version": "1.0",
        "manager": "pip",
        "platform": platform,
        "dependencies": {"alpha": ">=1", "numpy": "*"},
        "url": f"https://files.example/{name}-1.0-{tag}.whl",
        "hash": {"sha256": "a" * 64},
        "category": "main",
        "optional": False,
    }
    return {**entry, **changes}


def team(*more: dict[str, Any]) -> list[dict[str, Any]]:
    """A file of four platforms, as teams have them."""
    listed = [conda("python", "3.11.9", platform=one) for one in PLATFORMS]
    listed += [conda("tool", platform=one, category="dev", optional=True) for one in PLATFORMS]
    return [*listed, *more]


def a_file(packages: list[dict[str, Any]], **metadata: Any) -> str:
    head = {
        "content_hash": dict.fromkeys(PLATFORMS, "0" * 64),
        "channels": [{"url": "conda-forge", "used_env_vars": []}, {"url": "https://u:p@c.example/t/tk-1/x"}],
        "platforms": list(PLATFORMS),
        "sources": ["environment.yml"],
        **metadata,
    }
    return str(yaml.dump({"version": 1, "metadata": head, "package": packages}, sort_keys=False))


def read(text: str, *platforms: Platform, **more: Any) -> Given:
    chosen = platforms or (AMD64,)
    return givencondalock.read(text, PATH, chosen, glibc=(2, 28), **{"required": chosen, **more})


def test_a_file_of_four_platforms() -> None:
    text = a_file(team(pip("alpha"), pip("beta"), conda("__glibc", "2.28"), conda("numpy", "1.10")))
    assert givencondalock.platforms(text, PATH) == (MAC, AMD64, ARM64)
    given = read(text, AMD64, ARM64, MAC)
    assert given.python == "3.11"
    assert given.channels == (FORGE, "https://c.example/x")
    first = next(part for part in given.parts if part.platform == AMD64)
    assert [(one.name, one.version, one.build) for one in first.conda] == [
        ("numpy", "1.10", "h1_0"),
        ("python", "3.11.9", "h1_0"),
    ]
    assert first.conda[0].depends == ("__glibc >=2.17", "other")
    assert [(one.name, one.requires, one.sha256) for one in first.wheels] == [
        ("alpha", (), "a" * 64),
        ("beta", ("alpha",), "a" * 64),
    ]
    lock = given.lock("train", "sha256:" + 64 * "0", virtual={AMD64: (("cuda", "12.4"),)})
    assert [(str(part.platform), part.glibc, part.virtual) for part in lock.platforms] == [
        ("darwin/arm64", None, ()),
        ("linux/amd64", (2, 28), (("cuda", "12.4"),)),
        ("linux/arm64", (2, 28), ()),
    ]
    assert lock.channels == given.channels


def test_categories_are_asked_for_by_name() -> None:
    both = conda("both")
    text = a_file(team(both, {**both, "category": "dev", "optional": True}, conda("list", categories=["dev", "x"])))
    names = [[one.name for one in read(text, categories=more).parts[0].conda] for more in ((), ("dev",))]
    assert names == [["both", "python"], ["both", "list", "python", "tool"]]
    with pytest.raises(NotInGivenLock, match="without category docs; it has: dev, main, x"):
        read(text, categories=("docs",))


def test_what_we_export_comes_back_whole() -> None:
    lock = condalocks.lock("fit", a_wheel("alpha", size=None, index=None, upload_time=None))
    given = read(exporting.conda_lock(lock), AMD64, ARM64)
    again = given.lock(
        "fit", lock.spec_id, steps=lock.steps, virtual={p.platform: p.virtual for p in lock.platforms}
    )
    assert again == lock


def test_secrets_in_urls_stay_outside() -> None:
    hidden = conda("x", url="https://$USER:$PASSWORD@c.example/t/$TOKEN/x/linux-64/x-1.0-h1_0.conda")
    (package,) = (one for one in read(a_file(team(hidden))).parts[0].conda if one.name == "x")
    assert package.url == "https://c.example/x/linux-64/x-1.0-h1_0.conda"


def test_a_platform_that_nobody_asked_for_by_name_may_be_missing() -> None:
    text = a_file([conda("python", "3.12.1", platform="linux-aarch64")])
    assert [part.platform for part in read(text, AMD64, ARM64, required=()).parts] == [ARM64]
    with pytest.raises(NotInGivenLock, match=r"was not locked for linux/amd64 \(linux-64\)"):
        read(text, AMD64, ARM64)


NATIVE = "cp312-cp312-manylinux_2_17_x86_64"
BAD: dict[str, tuple[list[dict[str, Any]], type[Exception], str]] = {
    "no sha256": (team(conda("x", hash={"md5": "0" * 32})), NotInGivenLock, "x has no sha256 hash"),
    "no MD5": (team(conda("x", hash={"sha256": "0" * 64})), BadLockFile, "the entry of 'x' is not valid"),
    "no name": (team({"manager": "conda"}), BadLockFile, "the entry of '?' is not valid"),
    "no python": ([conda("x")], NotInGivenLock, "has no python for linux/amd64"),
    "an old python": ([conda("python", "3.8.1")], UnsupportedPython, "3.8"),
    "the folder of another platform": (
        team(conda("x", url=f"{FORGE}/osx-64/x-1-0.conda")),
        BadLockFile,
        "the entry of 'x' is not valid",
    ),
    "a source distribution": (
        team(pip("x", url="https://files.example/x-1.0.tar.gz")),
        NotInGivenLock,
        "x 1.0 has no wheel for linux/amd64; there is x-1.0.tar.gz",
    ),
    "a wheel for another Python": (team(pip("x", NATIVE)), NotInGivenLock, "x 1.0 has no wheel for linux/amd64"),
    "a repository": (team(pip("x", url="git+https://g.example/x@a")), NotHonoured, "x comes from a repository"),
    "a wheel without a hash": (team(pip("x", hash={})), NotInGivenLock, "has no sha256 hash"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_taken_is_named(case: str) -> None:
    packages, kind, message = BAD[case]
    with pytest.raises(kind) as caught:
        read(a_file(packages))
    assert message in str(caught.value)
    assert caught.value.hint  # type: ignore[attr-defined]


def test_platforms_with_other_pythons_are_no_environment() -> None:
    text = a_file([conda("python", "3.11.9"), conda("python", "3.12.1", platform="linux-aarch64")])
    with pytest.raises(NotInGivenLock, match=r"has Python 3\.11 and 3\.12"):
        read(text, AMD64, ARM64)


def test_a_file_that_is_no_lock_says_so() -> None:
    for text, message in (("name: x\n", "no conda-lock.yml of version 1"), ("a: [\n", "not valid YAML")):
        with pytest.raises(BadLockFile, match=message) as caught:
            read(text)
        assert "the tool that wrote it" in (caught.value.hint or "")
