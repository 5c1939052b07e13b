"""What a step's process sees of the host: the canaries of a poisoned host, and the allow-list itself."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flowkiln.executor import environ
from flowkiln.executor.plan import Prefix

from .bench import HOST, Bench

Make = Callable[..., Bench]


@pytest.fixture(scope="session")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Prefix:
    """A real virtual environment, taken for a locked one."""
    root = tmp_path_factory.mktemp("prefix") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(root)], check=True)
    return dataclasses.replace(
        HOST,
        python=str(root / "bin" / "python"),
        root=str(root),
        name="locked",
        env_id="sha256:" + "1" * 64,
        lock_id="sha256:" + "2" * 64,
        tree_digest="sha256:" + "3" * 64,
    )


@pytest.fixture
def poisoned(tmp_path: Path) -> dict[str, str]:
    """A host's environment in which everything points at a module that must not be found."""
    poison = tmp_path / "poison"
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    site = poison / ".local" / "lib" / version / "site-packages"
    for folder in (poison, site):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "canary.py").write_text("")
        (folder / "usercustomize.py").write_text("import sys; sys.canary = 1")
    startup = poison / "startup.py"
    startup.write_text("import sys; sys.canary = 1")
    return {
        **os.environ,
        "HOME": str(poison),
        "PYTHONPATH": str(poison),
        "PYTHONSTARTUP": str(startup),
        "PYTHONHOME": str(poison),
        "PYTHONUSERBASE": str(poison / ".local"),
        "PYTHONHASHSEED": "77",
        "LD_LIBRARY_PATH": str(poison),
        "LD_PRELOAD_NOT": "1",
        "PIP_INDEX_URL": "http://poison.invalid",
        "UV_INDEX_URL": "http://poison.invalid",
        "VIRTUAL_ENV": str(poison),
        "CONDA_PREFIX": str(poison),
        "AWS_SECRET_ACCESS_KEY": "secret",
        "PATH": f"{poison}/bin:{os.environ['PATH']}",
        "HTTPS_PROXY": "http://proxy.invalid:3128",
        "ASKED_FOR": "yes",
    }


LOOK = """
import importlib.util
import flowkiln
return {
    "environ": dict(os.environ),
    "path": sys.path,
    "canary": importlib.util.find_spec("canary") is not None or hasattr(sys, "canary"),
    "flowkiln": os.path.dirname(os.path.dirname(flowkiln.__file__)),
    "prefix": sys.prefix,
    "base": sys.base_prefix,
    "modules": sorted(name for name in sys.modules if name.startswith("flowkiln")),
}
"""


@pytest.mark.parametrize("isolation", ["fork", "spawn"])
def test_a_poisoned_host_is_invisible(
    bench: Make, locked: Prefix, poisoned: dict[str, str], isolation: str
) -> None:
    run = bench(LOOK, prefix=locked, host=poisoned, passed=("ASKED_FOR",), isolation=isolation)
    outcome = run.run_one()
    assert outcome.ok, outcome.failure
    seen = outcome.artifacts["value"]["v"]
    variables = seen["environ"]
    hidden = {"PYTHONSTARTUP", "PYTHONHOME", "PYTHONUSERBASE", "LD_LIBRARY_PATH", "PIP_INDEX_URL", "UV_INDEX_URL"}
    hidden |= {"VIRTUAL_ENV", "CONDA_PREFIX", "AWS_SECRET_ACCESS_KEY", "FLOWKILN_WORKER"}
    assert not hidden & set(variables)
    assert not seen["canary"]
    assert "poison/bin" not in variables["PATH"]
    assert variables["PATH"].startswith(str(Path(locked.python).parent) + ":")
    assert variables["HTTPS_PROXY"] == "http://proxy.invalid:3128"
    assert variables["ASKED_FOR"] == "yes"
    assert variables["PYTHONHASHSEED"] == "0"
    assert seen["prefix"] == locked.root


def test_the_path_holds_only_code_runtime_and_the_prefix(
    bench: Make, locked: Prefix, poisoned: dict[str, str]
) -> None:
    run = bench(LOOK, prefix=locked, host=poisoned)
    seen = run.run_one().artifacts["value"]["v"]
    code, runtime, *rest = seen["path"]
    assert code == str(run.folder / "code")
    assert seen["flowkiln"] == runtime
    assert Path(runtime).parent == run.cache / "runtime"
    assert {entry.name for entry in Path(runtime).iterdir()} == {"flowkiln", "supervise.py"}
    for folder in rest:
        assert folder.startswith((seen["prefix"], seen["base"])), folder
    assert not [name for name in seen["modules"] if name.split(".")[1:2] in (["cli"], ["envs"], ["wiring"])]


def test_bytecode_stays_out_of_a_locked_tree(bench: Make, locked: Prefix) -> None:
    assert locked.root is not None
    site = next(Path(locked.root).glob("lib/python*/site-packages"))
    (site / "fresh.py").write_text("x = 1")
    assert bench("import fresh; return fresh.x", prefix=locked).run_one().ok
    assert not list(Path(locked.root).rglob("*.pyc"))


def test_the_proof_names_the_locked_environment(bench: Make, locked: Prefix) -> None:
    calls: list[tuple[Prefix, str]] = []
    run = bench("return 1", prefix=locked, verify=lambda prefix, level: calls.append((prefix, level)))
    outcome = run.run(3)[2]
    assert calls == [(locked, "stat")]
    assert outcome.environment == {
        "python": HOST.version,
        "platform": "linux/amd64",
        "env_id": locked.env_id,
        "lock_id": locked.lock_id,
        "tree_digest": locked.tree_digest,
        "name": "locked",
        "level": "stat",
        "other_platform": False,
        "unmanaged": False,
        "isolation": "fork",
    }


def test_variables_of_the_step_win_and_are_there_before_the_start(bench: Make, locked: Prefix) -> None:
    run = bench(
        "return [at_start, os.environ['OMP_NUM_THREADS'], os.environ['MINE']]",
        head="at_start = os.environ['OMP_NUM_THREADS']",
        prefix=locked,
        environ=(("MINE", "1"), ("OMP_NUM_THREADS", "7")),
    )
    assert run.run_one().artifacts["value"]["v"] == ["7", "7", "1"]


def variables(prefix: Prefix, host: dict[str, str], **more: object) -> dict[str, str]:
    options = {"runtime": Path("/runtime"), "cache": Path("/cache"), "threads": 2, **more}
    return environ.variables(prefix, host=host, **options)  # type: ignore[arg-type]


LOCKED = dataclasses.replace(HOST, python="/env/bin/python", root="/env", env_id="sha256:1")


def test_an_unmanaged_step_sees_all_of_the_host() -> None:
    host = {"ANY": "1", "PATH": "/bin", "PYTHONPATH": "/mine", "OMP_NUM_THREADS": "5", "PYTHONHASHSEED": "9"}
    found = variables(HOST, host)
    assert found["ANY"] == "1"
    assert found["PYTHONPATH"] == "/runtime:/mine"
    assert (found["OMP_NUM_THREADS"], found["OPENBLAS_NUM_THREADS"]) == ("5", "2")
    assert (found["PYTHONHASHSEED"], found["PYTHONUNBUFFERED"]) == ("0", "1")
    assert "PYTHONNOUSERSITE" not in found


def test_a_locked_step_sees_the_allow_list() -> None:
    host = {"ANY": "1", "LC_TIME": "C", "TZ": "UTC", "http_proxy": "p", "PYTHONPATH": "/mine", "TERM": "dumb"}
    found = variables(LOCKED, host)
    assert found == {
        "LC_TIME": "C",
        "TZ": "UTC",
        "http_proxy": "p",
        "TERM": "dumb",
        "PATH": "/env/bin:/usr/local/bin:/usr/bin:/bin",
        "PYTHONNOUSERSITE": "1",
        "PYTHONPYCACHEPREFIX": "/cache/pyc",
        "PYTHONPATH": "/runtime",
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        **dict.fromkeys(environ.THREAD_VARIABLES, "2"),
    }


def test_threads_are_at_least_one() -> None:
    assert variables(LOCKED, {}, threads=0)["OMP_NUM_THREADS"] == "1"
    assert environ.cores() >= 1
    json.dumps(variables(LOCKED, {}))
