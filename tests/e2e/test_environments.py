from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.project import Done, Project
from tests.services import canary
from tests.services.index import Fault, PackageIndex
from tests.services.wheels import Member, wheel

pytestmark = pytest.mark.e2e


@pytest.fixture
def index(package_index: PackageIndex, project: Project) -> PackageIndex:
    for version in ("1.0", "2.0", "2.1"):
        package_index.add(wheel("alpha", version))
    project.environ["UV_DEFAULT_INDEX"] = package_index.url
    return package_index


def _locks(project: Project) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((project.folder / "flow.locks").iterdir())}


def _flow(project: Project, packages: str, *, python: str = "3.11", more: str = "", body: str = "pass") -> None:
    project.write(
        "flow.py",
        "from flowkiln import FlowSpec, pypi, pypi_base, step\n\n"
        "class One(FlowSpec):\n"
        f"    @pypi(python='{python}', packages={packages}{more})\n"
        "    @step\n"
        "    def start(self):\n"
        f"        {body}\n\n"
        "if __name__ == '__main__':\n    One()\n",
    )


def test_each_step_runs_in_its_own_locked_environment(project: Project, index: PackageIndex) -> None:
    project.flow("two_environments")
    first = project.run().ok()
    assert "1.0 2.1 none" in first.out
    assert "git" in first.err
    assert "flow.locks" in first.err
    before = _locks(project)
    index.forget_requests()
    second = project.run("--run-id-file", "id").ok()
    assert "1.0 2.1 none" in second.out
    assert index.total == 0
    assert _locks(project) == before
    run = (project.folder / "id").read_text().strip()
    tasks = project.flowkiln("run", "show", f"TwoEnvironments/{run}", "--json").ok().json["tasks"]
    proven = {task["step"]: task["env_id"] for task in tasks if task["step"] != "_parameters"}
    assert len({proven["start"], proven["other"], proven["bare"]}) == 3
    assert proven["bare"] == proven["end"]
    assert all(value.startswith("sha256:") for value in proven.values())


def test_the_second_run_works_with_the_index_gone(project: Project, index: PackageIndex) -> None:
    project.flow("two_environments")
    project.run().ok()
    assert "1.0 2.1 none" in project.run("--offline", UV_DEFAULT_INDEX="http://127.0.0.1:9/simple/").ok().out


def test_locked_and_frozen(project: Project, index: PackageIndex) -> None:
    _flow(project, "{'alpha': '1.0'}")
    project.run("--locked").failed(3, "start", "flowkiln env lock")
    project.run("--frozen").failed(3, "start")
    project.run().ok()
    _flow(project, "{'alpha': '2.0'}", body="import alpha; print('got', alpha.__version__)")
    project.run("--locked").failed(3, "start", "flowkiln env lock")
    project.run(CI="true").failed(3, "start")
    assert "got 1.0" in project.run("--frozen").ok().out
    project.flowkiln("env", "lock", "--check", "flow.py").failed(3)
    project.flowkiln("env", "lock", "flow.py").ok()
    project.flowkiln("env", "lock", "--check", "flow.py").ok()
    assert "got 2.0" in project.run("--locked").ok().out


def test_only_upgrade_moves_a_version(project: Project, index: PackageIndex) -> None:
    _flow(project, "{'alpha': '>=1'}")
    project.flowkiln("env", "lock", "flow.py").ok()
    before = _locks(project)
    index.add(wheel("alpha", "3.0"))
    project.flowkiln("env", "lock", "flow.py").ok()
    assert _locks(project) == before
    project.flowkiln("env", "lock", "--upgrade", "alpha", "flow.py").ok()
    after = _locks(project)
    assert after != before
    assert any(b"3.0" in data for data in after.values())


def test_lock_bytes_do_not_depend_on_the_host(project: Project, index: PackageIndex, tmp_path: Path) -> None:
    index.add(
        wheel(
            "t",
            requires=["nv; sys_platform=='linux' and platform_machine=='x86_64'", "mac; sys_platform=='darwin'"],
        )
    )
    index.add(wheel("nv"))
    index.add(wheel("mac"))
    wanted = ", platforms=['linux/amd64', 'linux/arm64', 'darwin/arm64']"
    _flow(project, "{'t': '1.0', 'alpha': ''}", more=wanted)
    project.flowkiln("env", "lock", "flow.py").ok()
    reference = _locks(project)
    amd64 = next(data for name, data in reference.items() if "linux-amd64" in name)
    assert b'"nv"' in amd64
    assert b'"mac"' not in amd64
    for number, host in enumerate(("darwin/arm64", "linux/arm64", "linux/amd64")):
        other = Project(tmp_path / f"elsewhere {number}" / "é", tmp_path / f"home{number}", dict(project.environ))
        other.folder.mkdir(parents=True)
        other.home.mkdir()
        other.write("flow.py", (project.folder / "flow.py").read_text())
        before = os.umask(0o077)
        try:
            other.flowkiln(
                *("env", "lock", "flow.py"),
                FLOWKILN_HOST_PLATFORM=host,
                TZ="Asia/Kathmandu",
                LC_ALL="C",
                PYTHONHASHSEED=str(number + 1),
                UV_LINK_MODE="symlink",
                UV_EXCLUDE_NEWER="",
                UV_RESOLUTION="highest",
                PIP_EXTRA_INDEX_URL="",
            ).ok()
        finally:
            os.umask(before)
        assert _locks(other) == reference


FAILURES = {
    "no-such-package": ("{'nonesuch': '1'}", 4, ["start", "nonesuch"]),
    "conflicting-pins": ("{'needs-one': '1.0', 'alpha': '2.0'}", 4, ["start", "alpha", "needs-one"]),
    "no-wheel-for-the-platform": ("{'winonly': '1.0'}", 4, ["start", "winonly", "win_amd64"]),
    "bad-requirement": ("{'alpha': '>=>1'}", 2, ["start", "alpha"]),
    "wrong-hash": ("{'broken': '1.0'}", 5, ["broken", "sha256"]),
    "index-401": ("{'private': '1.0'}", 5, ["start", "401"]),
    "index-500": ("{'failing': '1.0'}", 5, ["failing"]),
    "two-packages-one-file": ("{'left': '1.0', 'right': '1.0'}", 2, ["left", "right", "shared.py"]),
    "hostile-member": ("{'evil': '1.0'}", 2, ["evil", ".."]),
}


@pytest.mark.parametrize("case", sorted(FAILURES))
def test_environment_failures_are_explained(project: Project, index: PackageIndex, case: str) -> None:
    index.add(wheel("needs-one", requires=["alpha<2"]))
    index.add(wheel("winonly", tag="cp311-cp311-win_amd64"))
    index.add(wheel("broken"))
    index.fault("broken", Fault(corrupt=True), on="file")
    index.add(wheel("private"))
    index.fault("private", Fault(status=401))
    index.add(wheel("failing"))
    index.fault("failing", Fault(status=500))
    index.add(wheel("left", files={"shared.py": "one = 1\n"}))
    index.add(wheel("right", files={"shared.py": "two = 2\n"}))
    index.add(wheel("evil", members=[Member("../../escaped.txt", b"out")]))
    packages, code, texts = FAILURES[case]
    _flow(project, packages)
    done = project.run(FLOWKILN_RETRIES="1").failed(code, *texts)
    message = done.err[done.err.index("error[") :]
    assert len(message.strip().splitlines()) <= 25
    assert not list(project.folder.parent.rglob("escaped.txt"))


def test_a_changed_file_is_exit_17_before_user_code(project: Project, index: PackageIndex) -> None:
    _flow(project, "{'alpha': '1.0'}", body="import alpha; print('user code ran')")
    project.run().ok()
    victim = next((project.home / "cache").glob("trees/*/lib/python3.11/site-packages/alpha/__init__.py"))
    original = victim.read_bytes()
    victim.unlink()
    victim.write_bytes(original + b"# changed\n")
    done = project.run().failed(17, "alpha/__init__.py")
    assert "user code ran" not in done.out
    project.flowkiln("env", "verify", "flow.py").failed(17, "alpha/__init__.py")


def test_only_full_verification_sees_a_change_of_equal_size_and_time(project: Project, index: PackageIndex) -> None:
    _flow(project, "{'alpha': '1.0'}", body="import alpha; print('user code ran')")
    project.run().ok()
    victim = next((project.home / "cache").glob("trees/*/lib/python3.11/site-packages/alpha/__init__.py"))
    before = victim.stat()
    data = bytearray(victim.read_bytes())
    data[4] ^= 1
    victim.chmod(0o644)
    with victim.open("r+b") as stream:
        stream.write(data)
    victim.chmod(before.st_mode)
    os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
    project.run("--verify-env", "full").failed(17, "alpha/__init__.py")


def test_a_poisoned_host_environment_stays_outside(project: Project, index: PackageIndex, tmp_path: Path) -> None:
    poison = tmp_path / "poison"
    poison.mkdir()
    (poison / "alpha.py").write_text("__version__ = 'poisoned'\n")
    (poison / "startup.py").write_text("raise SystemExit('poisoned')\n")
    _flow(
        project,
        "{'alpha': '1.0'}",
        body="import alpha, os, sys; print(alpha.__version__, sorted(os.environ), sys.path)",
    )
    project.run().ok()
    done = project.run(
        PYTHONPATH=os.pathsep.join([project.variables()["PYTHONPATH"], str(poison)]),
        PYTHONSTARTUP=str(poison / "startup.py"),
        LD_LIBRARY_PATH=str(poison),
        PIP_INDEX_URL="https://poison.invalid",
        VIRTUAL_ENV=str(poison),
        SECRET_OF_MINE="x",
    ).ok()
    line = next(line for line in done.out.splitlines() if "PYTHONHASHSEED" in line)
    assert " 1.0 [" in f" {line}"
    for name in ("PYTHONSTARTUP", "LD_LIBRARY_PATH", "PIP_INDEX_URL", "VIRTUAL_ENV", "SECRET_OF_MINE", str(poison)):
        assert name not in line


def test_secrets_are_nowhere_at_rest(project: Project, package_index: PackageIndex) -> None:
    package_index.add(wheel("alpha", "1.0"))
    package_index.require("reader", "CANARY123")
    project.environ["UV_DEFAULT_INDEX"] = package_index.url_with("reader", "CANARY123")
    _flow(project, "{'alpha': '1.0'}", body="import alpha; print(alpha.__version__)")
    done = project.run().ok()
    assert "CANARY123" not in done.out + done.err
    assert canary.find("CANARY123", project.folder, project.home, besides=["uv"], pairs=["reader"]) == []


def test_installed_distributions_equal_the_lock_and_uv_installs_the_same(
    project: Project, index: PackageIndex
) -> None:
    index.add(wheel("beta", "1.0", requires=["alpha"]))
    _flow(project, "{'beta': '1.0'}")
    project.run().ok()
    tree = next((project.home / "cache").glob("trees/*/lib/python3.11/site-packages"))
    mine = sorted(path.name for path in tree.glob("*.dist-info"))
    assert mine == ["alpha-2.1.dist-info", "beta-1.0.dist-info"]
    lock = next((project.folder / "flow.locks").glob("pylock.*-linux-amd64.toml"))
    target = project.folder / "by-uv"
    subprocess.run(["uv", "venv", "-q", "--python", "3.11", str(target)], check=True, env=project.variables())
    subprocess.run(
        ["uv", "pip", "sync", "-q", "--python", str(target / "bin/python"), str(lock)],
        check=True,
        env=project.variables(),
    )
    theirs = sorted(path.name for path in target.glob("lib/python3.11/site-packages/*.dist-info"))
    assert theirs == mine


def _hammer(project: Project, words: tuple[str, ...], count: int) -> list[Done]:
    processes = [project.start(*words) for _ in range(count)]
    finished = []
    for process in processes:
        out, err = process.communicate(timeout=300)
        finished.append(Done(process.returncode, out, err))
    return finished


def test_sixteen_writers_share_one_cache(project: Project, index: PackageIndex) -> None:
    project.flow("two_environments")
    for done in _hammer(project, ("flow.py", "run"), 16):
        assert "1.0 2.1 none" in done.ok().out
    assert (
        len([path for path in (project.home / "cache" / "trees").iterdir() if not path.name.startswith(".")]) == 3
    )
    project.flowkiln("env", "verify", "--full", "flow.py").ok()
    project.flowkiln("store", "check").ok()


def test_kill_at_any_point_then_the_same_command_works(project: Project, index: PackageIndex) -> None:
    project.flow("two_environments")
    chance = random.Random(20130101)
    for _ in range(12):
        process = project.start("flow.py", "run")
        time.sleep(chance.uniform(0.05, 2.5))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
    assert "1.0 2.1 none" in project.run().ok().out
    project.flowkiln("env", "verify", "--full", "flow.py").ok()
    project.flowkiln("store", "check").ok()


def test_env_verbs_answer(project: Project, index: PackageIndex) -> None:
    project.flow("two_environments")
    project.run("--run-id-file", "id").ok()
    run = (project.folder / "id").read_text().strip()
    assert {"start", "other", "bare"} <= set(
        json.dumps(project.flowkiln("env", "list", "flow.py", "--json").ok().json).replace('"', " ").split()
    )
    assert "alpha" in project.flowkiln("env", "show", "flow.py:start").ok().out
    assert "2.1" in project.flowkiln("env", "why", "alpha", "flow.py:other").ok().out
    assert "2.1" in project.flowkiln("env", "diff", "flow.py:start", "flow.py:other").ok().out
    assert "alpha==1.0" in project.flowkiln("env", "export", "flow.py:start").ok().out
    code = "import alpha; print(alpha.__version__)"
    assert project.flowkiln("env", "exec", "flow.py:other", "--", "python", "-c", code).ok().out == "2.1\n"
    path = project.flowkiln("env", "path", f"TwoEnvironments/{run}/start").ok().out.strip()
    assert (Path(path) / "bin" / "python").exists()
    project.flowkiln("env", "link", "flow.py:start", ".venv-start").ok()
    assert (project.folder / ".venv-start" / "bin" / "python").exists()
    project.flowkiln("cache", "gc", "--dry-run").ok()


def test_a_python_that_is_not_here_is_named(project: Project, index: PackageIndex) -> None:
    _flow(project, "{'alpha': '1.0'}", python="3.15")
    project.run().failed(2, "3.15")


def test_python_310_is_refused_at_lock_time(project: Project, index: PackageIndex) -> None:
    _flow(project, "{'alpha': '1.0'}", python="3.10")
    project.run().failed(2, "3.10", "3.11")


def test_unknown_decorator_argument_names_the_accepted_ones(project: Project, index: PackageIndex) -> None:
    _flow(project, "{'alpha': '1.0'}", more=", pakages={}")
    project.run().failed(2, "pakages", "packages")


def test_check_reports_imports_that_the_lock_lacks(project: Project, index: PackageIndex) -> None:
    _flow(project, "{'alpha': '1.0'}", body="import alpha, numpy")
    project.flowkiln("env", "lock", "flow.py").ok()
    project.run()
    done = project.python("flow.py", "check")
    assert done.code == 2
    assert "numpy" in done.out + done.err
    assert "flow.py:7" in done.out + done.err
