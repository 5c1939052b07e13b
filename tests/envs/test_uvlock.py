"""uv.lock as a source, judged by uv's own export of the same lock."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flowkiln.envs import givenpylock, uv, uvlock
from flowkiln.envs.errors import BadLockFile, BadSource
from flowkiln.envs.given import Given
from flowkiln.envs.lockfileerrors import NotHonoured, NotInGivenLock
from tests.envs.test_givenpylock import AMD64, ARM64, MAC, wanted
from tests.services.wheels import wheel

if TYPE_CHECKING:
    from tests.services.home import Home
    from tests.services.index import PackageIndex

PROJECT = """
[project]
name = "My.Project"
version = "0.1"
requires-python = ">=3.11"
dependencies = [
    "top[more]",
    "split<2 ; python_version < '3.12'",
    "split>=2 ; python_version >= '3.12'",
    "mac-only ; sys_platform == 'darwin'",
    "recent ; python_full_version >= '3.11.4'",
]

[project.optional-dependencies]
plot = ["plotter"]
cpu = ["variant==1.0"]
gpu = ["variant==2.0"]
all = ["my-project[plot]"]
none = []

[dependency-groups]
dev = ["tester", { include-group = "lint" }]
lint = ["linter"]

[tool.uv]
package = false
conflicts = [[{ extra = "cpu" }, { extra = "gpu" }]]
"""
TAGS = ("cp311-cp311-manylinux_2_17_x86_64", "cp311-cp311-manylinux_2_17_aarch64", "cp311-cp311-macosx_11_0_arm64")
WHEELS = [
    wheel("top", requires=["leaf", "native", "variant"], extras={"more": ["extra-one"]}),
    *(wheel(name) for name in ("leaf", "extra-one", "mac-only", "recent", "plotter", "tester", "linter")),
    *(wheel("native", tag=tag) for tag in TAGS),
    *(wheel(name, version) for name in ("split", "variant") for version in ("1.0", "2.0")),
]


class Locked:
    """A project that uv locked, and what is asked of it."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.folder, self._environ = folder, environ

    def uv(self, *words: str) -> str:
        command = [str(uv.find(self._environ)), *words]
        done = subprocess.run(
            command, cwd=self.folder, env=self._environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    def read(self, *platforms: Any, lock: str | None = None, project: str | None = None, **more: Any) -> Given:
        path, source = self.folder / "uv.lock", self.folder / "pyproject.toml"
        text = path.read_text() if lock is None else lock
        said = source.read_text() if project is None else project
        return uvlock.read(text, path, wanted(*platforms, **more), (said, source))


@pytest.fixture
def locked(package_index: PackageIndex, home: Home) -> Locked:
    package_index.add(*WHEELS)
    (home.work / "pyproject.toml").write_text(PROJECT)
    environ = home.environ(
        UV_CACHE_DIR=str(home.root / "uv-cache"),
        UV_PYTHON_DOWNLOADS="never",
        UV_NO_CONFIG="1",
        UV_DEFAULT_INDEX=package_index.url,
    )
    one = Locked(home.work, environ)
    one.uv("lock", "-q")
    return one


ASKED: dict[str, dict[str, Any]] = {
    "the project": {},
    "an extra": {"extras": frozenset({"plot", "none"})},
    "an extra of itself": {"extras": frozenset({"all"})},
    "one of two that exclude each other": {"extras": frozenset({"cpu"})},
    "the other": {"extras": frozenset({"gpu"})},
    "a group with another in it": {"groups": frozenset({"dev"})},
}


@pytest.mark.parametrize("asked", ASKED)
def test_it_gives_what_uv_exports(locked: Locked, asked: str) -> None:
    words = [f"--extra={name}" for name in ASKED[asked].get("extras", ())]
    words += [f"--group={name}" for name in ASKED[asked].get("groups", ())]
    export = locked.uv("export", "-q", "--frozen", "--no-default-groups", "--format", "pylock.toml", *words)
    ours = locked.read(AMD64, ARM64, MAC, **ASKED[asked])
    theirs = givenpylock.read(export, Path("pylock.toml"), wanted(AMD64, ARM64, MAC))
    assert len(ours.parts) == 3
    for own, other in zip(ours.parts, theirs.parts, strict=True):
        assert [(w.name, w.version, w.filename, w.url, w.sha256) for w in own.wheels] == [
            (w.name, w.version, w.filename, w.url, w.sha256) for w in other.wheels
        ]
        assert (
            (own.python_minimum, own.python_below) == (other.python_minimum, other.python_below) == ("3.11.4", None)
        )


def test_what_needs_what_is_told(locked: Locked, package_index: PackageIndex) -> None:
    index = package_index.url.rstrip("/")
    (part,) = locked.read(AMD64).parts
    needs = {one.name: one.requires for one in part.wheels if one.requires}
    assert needs == {"top": ("extra-one", "leaf", "native", "variant")}
    assert {one.index for one in part.wheels} == {index}
    assert part.glibc == (2, 28)


def test_a_group_alone_leaves_the_project_out(locked: Locked) -> None:
    path, source = locked.folder / "uv.lock", locked.folder / "pyproject.toml"
    question = wanted(AMD64, groups=frozenset({"lint"}), project=False)
    given = uvlock.read(path.read_text(), path, question, (source.read_text(), source))
    assert [one.name for one in given.parts[0].wheels] == ["linter"]


def test_what_was_not_locked_is_named(locked: Locked) -> None:
    with pytest.raises(NotInGivenLock, match="without extra more; it has: all, cpu, gpu, none, plot"):
        locked.read(AMD64, extras=frozenset({"more"}))
    with pytest.raises(NotInGivenLock, match="without group test; it has: dev, lint"):
        locked.read(AMD64, groups=frozenset({"test"}))
    with pytest.raises(NotInGivenLock, match=r"variant: both \d\.0 and \d\.0 are asked for on linux/amd64"):
        locked.read(AMD64, extras=frozenset({"cpu", "gpu"}))
    with pytest.raises(NotInGivenLock, match=r"native 1\.0 has no wheel for linux/amd64"):
        locked.read(AMD64, python="3.13.0")


STALE = {
    "another version": ('"top[more]"', '"top[more]>1"', "asks for top>1"),
    "a requirement less": ('"top[more]",', "", "no longer asks for top"),
    "another group": ('lint = ["linter"]', 'lint = ["linter", "leaf"]', "asks for leaf (group 'dev')"),
    "another extra": ('plot = ["plotter"]', 'plot = ["plotter", "leaf"]', "asks for leaf (requirements)"),
}


@pytest.mark.parametrize("case", STALE)
def test_a_lock_that_is_older_than_its_project_is_refused(locked: Locked, case: str) -> None:
    old, new, what = STALE[case]
    assert old in PROJECT
    with pytest.raises(NotInGivenLock) as caught:
        locked.read(AMD64, project=PROJECT.replace(old, new))
    assert what in caught.value.message
    assert "uv lock" in (caught.value.hint or "")


HEAD = """
version = 1
requires-python = ">=3.11"
[[package]]
name = "p"
version = "1"
source = { virtual = "." }
dependencies = [{ name = "x" }]
[package.metadata]
requires-dist = [{ name = "x" }]
"""
SAID = '[project]\nname = "p"\ndependencies = ["x"]\n'


def x(source: str, wheels: str = "[]") -> str:
    return f'{HEAD}[[package]]\nname = "x"\nversion = "1"\nsource = {{ {source} }}\nwheels = {wheels}\n'


MEMBERS = (
    HEAD
    + """
[[package]]
name = "x"
version = "1"
source = { virtual = "packages/x" }
dependencies = [{ name = "y", extra = ["more"] }, { name = "p" }]
[[package]]
name = "y"
version = "2"
source = { url = "https://u:p@f.example/y-2-py3-none-any.whl" }
wheels = [{ url = "https://u:p@f.example/y-2-py3-none-any.whl", hash = "sha256:%s" }]
"""
    % ("0" * 64)
)


def test_members_of_a_workspace_that_are_code_alone_bring_what_they_need() -> None:
    said = SAID + '[tool.uv]\ndev-dependencies = ["z>1"]\n'
    lock = MEMBERS.replace(
        '[[package]]\nname = "x"',
        '[package.metadata.requires-dev]\ndev = [{ name = "z", specifier = ">1" }]\n[[package]]\nname = "x"',
    )
    (part,) = uvlock.read(lock, Path("uv.lock"), wanted(AMD64), (said, Path("pyproject.toml"))).parts
    assert [(one.name, one.version, one.url, one.requires, one.index) for one in part.wheels] == [
        ("y", "2", "https://f.example/y-2-py3-none-any.whl", (), None)
    ]


BAD = {
    "another version": ("version = 2", SAID, BadLockFile, "no uv.lock of version 1"),
    "no project": (HEAD, "[tool.x]\n", BadSource, "has no project.name"),
    "another project": (HEAD, '[project]\nname = "q"\n', NotInGivenLock, "has no project 'q'"),
    "a dependency that is not there": (HEAD, SAID, NotInGivenLock, "x: 0 entries fit"),
    "a repository": (x('git = "https://g.example/x#a"'), SAID, NotHonoured, "x comes from a repository"),
    "a sibling": (x('editable = "../x"'), SAID, NotHonoured, "x comes from a folder"),
    "an archive": (x('url = "https://f.example/x.tar.gz"'), SAID, NotHonoured, "x comes from an archive"),
    "a local wheel": (
        x('path = "x-1-py3-none-any.whl"', '[{ filename = "x-1-py3-none-any.whl", hash = "sha256:0" }]'),
        SAID,
        NotHonoured,
        "x-1-py3-none-any.whl is a local file",
    ),
    "no hash": (
        x('registry = "https://i.example"', '[{ url = "https://i.example/x-1-py3-none-any.whl" }]'),
        SAID,
        NotInGivenLock,
        "has no sha256 hash",
    ),
    "only a source": (x('registry = "https://i.example"'), SAID, NotInGivenLock, "only a source distribution"),
    "another Python": (HEAD.replace(">=3.11", ">=3.12"), SAID, NotInGivenLock, "is for Python >=3.12"),
    "a nameless package": (HEAD + "[[package]]\nversion = '1'\n", SAID, BadLockFile, "an entry is not valid"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_taken_is_named(case: str) -> None:
    text, said, kind, message = BAD[case]
    with pytest.raises(kind) as caught:
        uvlock.read(text, Path("uv.lock"), wanted(AMD64), (said, Path("pyproject.toml")))
    assert message in caught.value.message
    assert caught.value.hint
