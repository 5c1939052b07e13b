"""Faults of conda environments through the command line, each told with its step and a next step."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.services.condacases import dist_info
from tests.services.condapackages import package
from tests.services.wheels import wheel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.project import Project
    from tests.services.channel import Channel
    from tests.services.index import PackageIndex

pytestmark = pytest.mark.e2e

FLOW = """
from flowkiln import FlowSpec, conda, pypi, step


class Faulty(FlowSpec):
    {decorators}
    @step
    def start(self):
        {body}
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Faulty()
"""


def flow(project: Project, *decorators: str, body: str = "pass") -> None:
    project.write("flow.py", FLOW.format(decorators="\n    ".join(decorators), body=body))


def conda(*packages: str, platforms: str = "linux/amd64") -> str:
    return f"@conda(packages={list(packages)}, python='3.11', platforms=['{platforms}'])"


@pytest.fixture
def faulty(project: Project, conda_channel: Channel) -> Project:
    project.environ["FLOWKILN_CHANNELS"] = conda_channel.url
    project.write("pyproject.toml", '[tool.flowkiln]\nplatforms = ["linux/amd64"]\n')
    return project


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("cut-short", "cut-short-1.0-0.conda"),
        ("wrong-hash", "wrong-hash-1.0-0.conda"),
        ("hostile-dotdot", "hostile-dotdot-1.0-0.conda"),
        ("hostile-paths", "hostile-paths-1.0-0.conda"),
        ("hostile-symlink-absolute", "hostile-symlink-absolute-1.0-0.conda"),
    ],
)
def test_a_package_that_is_cut_short_changed_or_leaves_its_folder_is_not_installed(
    faulty: Project, name: str, told: str
) -> None:
    flow(faulty, conda(name))
    faulty.flowkiln("env", "lock", "flow.py").ok()
    done = faulty.run()
    assert done.code in {2, 5}, done.err
    done.failed(done.code, "error[ENV", told, "step 'start'", "hint:")
    assert not list(faulty.folder.parent.rglob("hostile-escaped.txt"))
    assert not [one for one in (faulty.home / "cache").rglob("share/out") if one.is_symlink()]


def test_a_locked_package_that_the_channel_has_withdrawn_is_named(
    faulty: Project, conda_channel: Channel, tmp_path: Path
) -> None:
    """A stale channel: what a lock names is gone, and the same lock works once it is back."""
    own = conda_channel.mirror(tmp_path / "own")
    path = package(own.folder, "passing", files={"share/passing.txt": b""})
    faulty.environ["FLOWKILN_CHANNELS"] = own.index().url
    flow(faulty, conda("passing"))
    faulty.flowkiln("env", "lock", "flow.py").ok()
    data = path.read_bytes()
    path.unlink()
    faulty.run().failed(5, "passing-1.0-0.conda", "step 'start'", "hint:")
    path.write_bytes(data)
    faulty.run().ok()


def test_numpy_of_conda_and_of_a_wheel_is_there_once(faulty: Project, package_index: PackageIndex) -> None:
    """C01: what a wheel needs is taken from conda; a wheel that needs another one is a conflict of both sides."""
    package_index.add(
        *(wheel("numpy", version) for version in ("2.2.6", "3.0")),
        wheel("wants", requires=["numpy>=2"]),
        wheel("wants-new", requires=["numpy>=3"]),
    )
    faulty.environ["UV_DEFAULT_INDEX"] = package_index.url
    count = "from importlib.metadata import distributions as d; print('numpies', [one.version for one in d() "
    body = count + "if one.name.lower() == 'numpy'])"
    flow(faulty, conda("numpy 2.*"), "@pypi(packages=['wants', 'numpy'])", body=body)
    assert "numpies ['2.2.6']" in faulty.run().ok().out
    assert not [one for one in package_index.seen if one.path.endswith(".whl") and "/numpy-" in one.path]
    flow(faulty, conda("numpy 2.*"), "@pypi(packages=['wants-new'])")
    faulty.run().failed(4, "step 'start'", "numpy>=3", "numpy 2.2.6 of conda", "hint:")


def test_a_conda_package_and_a_wheel_that_own_one_path_need_a_winner(
    faulty: Project, conda_channel: Channel, package_index: PackageIndex, tmp_path: Path
) -> None:
    own = conda_channel.mirror(tmp_path / "own")
    site = "lib/python3.11/site-packages"
    files = {f"{site}/shared/__init__.py": b"side = 'conda'\n", **dist_info(site, "ours", "1.0")}
    package(own.folder, "ours", depends=["python 3.11.*"], files=files, subdir="linux-64")
    package_index.add(wheel("theirs", files={"shared/__init__.py": "side = 'wheel'\n"}))
    faulty.environ |= {"FLOWKILN_CHANNELS": own.index().url, "UV_DEFAULT_INDEX": package_index.url}
    flow(faulty, conda("ours"), "@pypi(packages=['theirs'])")
    done = faulty.run()
    done.failed(done.code, "shared/__init__.py", "ours", "theirs", "hint:")
    assert done.code != 0


def test_a_lock_for_another_platform_is_told_before_anything_is_installed(faulty: Project) -> None:
    flow(faulty, conda("markupsafe", platforms="linux/arm64"))
    faulty.flowkiln("env", "lock", "flow.py").ok()
    done = faulty.run()
    assert done.code in {2, 3}, done.err
    done.failed(done.code, "linux/amd64", "linux/arm64", "start", "hint:")
    assert not list((faulty.home / "cache").glob("trees/*-own"))
    faulty.flowkiln("env", "export", "flow.py:start", "--format", "conda-lock", "-o", "conda-lock.yml").ok()
    flow(faulty, "@conda(source='conda-lock.yml', platforms=['linux/amd64'])")
    faulty.run().failed(3, "step 'start'", "conda-lock.yml was not locked for linux/amd64 (linux-64)", "hint:")


def test_two_processes_lock_one_mixed_environment_at_once(faulty: Project, package_index: PackageIndex) -> None:
    package_index.add(wheel("alpha"))
    faulty.environ["UV_DEFAULT_INDEX"] = package_index.url
    flow(faulty, conda("numpy", "markupsafe"), "@pypi(packages=['alpha'])")
    both = [faulty.start("-m", "flowkiln", "env", "lock", "flow.py", "--json") for _ in range(2)]
    told = [(*one.communicate(timeout=60), one.returncode) for one in both]
    assert [code for _, _, code in told] == [0, 0], told
    changed = [[row["changed"] for row in json.loads(out)["environments"]] for out, _, _ in told]
    assert sorted(changed) == [[False, False], [True, True]], "the second finds what the first has locked"
    faulty.flowkiln("env", "lock", "--check", "flow.py").ok()
    assert {one.name for one in (faulty.folder / "flow.locks").iterdir()} >= {
        "flowkiln.lock",
        "start.conda-lock.yml",
    }
    assert not list((faulty.folder / "flow.locks").glob(".*"))
