from __future__ import annotations

import json

import pytest

from flowkiln._base.command import Ended, Finished
from flowkiln.envs.condadrivenfailures import translate
from flowkiln.envs.condaerrors import CondaConflict, SolverFailed
from flowkiln.envs.condaquestion import CondaSolver, Driven
from flowkiln.envs.errors import EnvError, LockTimeout
from tests.envs.condasolving import conda_solver, question

pytestmark = pytest.mark.usefixtures("home")

CHANNEL = "https://channels.example/main"
SCRATCH = "/home/joe/.cache/flowkiln/scratch/.scratch-12-ab"


def failed(stderr: str, solver: str = "conda", *, ended: Ended = "exit", code: int = 1, **options: str) -> EnvError:
    driven: CondaSolver = conda_solver(CHANNEL, driven=Driven(solver=solver), offline=bool(options))
    finished = Finished(code=code, ended=ended, seconds=1.0, output=b"", stderr=stderr)
    return translate(finished, ["conda-lock", "lock"], driven, question("numpy"))


def shown(message: str, stdout: object = None, stderr: str = "") -> str:
    """What conda-lock shows of a solver that failed while it chose everything."""
    lines = ["Locking dependencies for ['linux-64']...", "Could not lock the environment for platform linux-64"]
    lines += [message, "    Command: ['conda', 'create', '--json']"]
    lines += [f"    STDOUT:\n{json.dumps(stdout)}"] if stdout is not None else []
    lines += [f"    STDERR:\n{stderr}"] if stderr else []
    return "\n".join(
        [*lines, "Traceback (most recent call last):", '  File "x.py", line 1', "CalledProcessError: 1"]
    )


CONDA = (
    "Encountered problems while solving:\n  - nothing provides requested nmupy\n\nCould not solve for environment"
)
ABSENT = f"""The following packages are not available from current channels:

  - nmupy

Current channels:

  - file://{SCRATCH}/channels/0
"""


@pytest.mark.parametrize(
    ("solver", "text", "parts", "hint"),
    [
        pytest.param(
            "conda",
            shown(CONDA, {"exception_name": "LibMambaUnsatisfiableError", "message": CONDA, "success": False}),
            ["nothing provides requested nmupy"],
            "spelling of nmupy",
            id="conda",
        ),
        pytest.param(
            "conda",
            shown(ABSENT, {"exception_name": "PackagesNotFoundError", "message": ABSENT}),
            ["- nmupy"],
            "spelling of nmupy",
            id="conda-absent",
        ),
        pytest.param(
            "micromamba",
            shown("{'success': False, 'solver_problems': ['nothing provides __cuda >=12 needed by gpu-1-0']}"),
            ["nothing provides __cuda >=12 needed by gpu-1-0"],
            'cuda="12.4"',
            id="micromamba-as-python",
        ),
        pytest.param(
            "micromamba",
            shown(
                "{'success': False}",
                {"success": False, "solver_problems": ["package a-1 requires b"]},
                "error    libmamba Could not solve for environment specs\n    The following packages\n    └─ b >=2",
            ),
            ["The following packages", "└─ b >=2"],
            "Widen one",
            id="micromamba-tree",
        ),
        pytest.param(
            "mamba",
            "Traceback (most recent call last):\n"
            "RuntimeError: Could not lock the environment for platform linux-64: Pins conflict\n  a 1 and b 2",
            ["Pins conflict", "a 1 and b 2"],
            "Widen one",
            id="update",
        ),
        pytest.param(
            "micromamba",
            "RuntimeError: Could not lock the environment for platform linux-64: None\n",
            ["the solver gave no reason"],
            "Widen one",
            id="update-without-reason",
        ),
    ],
)
def test_a_refusal_keeps_the_solvers_words(solver: str, text: str, parts: list[str], hint: str) -> None:
    error = failed(text, solver)
    assert isinstance(error, CondaConflict)
    for part in (*parts, "fit", "linux/amd64", "train", "__glibc 2.28 (glibc)", CHANNEL):
        assert part in error.message
    for part in ("Command", "STDOUT", "Traceback", "scratch"):
        assert part not in error.message
    assert hint in str(error.hint)
    assert error.step == "train"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        pytest.param(
            shown("", stderr="Traceback (most recent call last):\n  x\nOSError: disk"), "OSError: disk", id="crash"
        ),
        pytest.param(
            shown("boom", {"exception_name": "CondaMemoryError", "message": "boom"}), "boom", id="another-error"
        ),
        pytest.param("Usage: conda-lock\nError: No such option: --kind", "No such option: --kind", id="conda-lock"),
        pytest.param("pydantic: \x1b[31mhttps://joe:hush@host/x\x1b[0m", "https://", id="secret-and-colour"),
        pytest.param("", "ended with 1", id="silent"),
    ],
)
def test_another_failure_is_quoted(text: str, part: str) -> None:
    error = failed(text)
    assert isinstance(error, SolverFailed)
    assert part in error.message
    assert "hush" not in error.message
    assert "\x1b" not in error.message
    assert error.log is not None
    assert "rattler" in str(error.hint)


def test_a_long_failure_ends_with_its_last_lines() -> None:
    error = failed("\n".join(f"line {number}" for number in range(100)))
    assert "line 99" in error.message
    assert "line 50" not in error.message


def test_a_limit_names_its_setting() -> None:
    error = failed("", ended="deadline", code=-15)
    assert isinstance(error, LockTimeout)
    assert "lock-timeout" in str(error.hint)
