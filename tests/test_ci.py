"""What CI systems use of the repository: the image for jobs, the action, the hook, the pages' jobs, the schema."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml  # type: ignore[import-untyped]

from tests import stack
from tests.cli.declaring import flow
from tests.cli.declaring import project as declare
from tests.services import unavailable
from tests.services.home import MACHINE, Home
from tests.services.index import PackageIndex
from tests.services.wheels import wheel
from tests.shapes import problems
from tests.source import ROOT, tracked

SCHEMA = json.loads((ROOT / "docs/reference/bake-schema.json").read_text(encoding="utf-8"))
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
PAGES = [path for path in tracked() if path.suffix == ".md"]
SHORT = "sha256:" + "ab" * 32
IMAGE = {
    "env": "fit",
    "steps": ["fit", "score"],
    "platform": "linux/arm64",
    "lock_id": SHORT,
    "env_id": SHORT,
    "image": f"registry.example.com/team/flows@{SHORT}",
    "digest": SHORT,
    "status": "built",
    "bytes_pushed": 1_500_000,
}


def fenced(language: str) -> list[Any]:
    """The blocks of ``language`` in all pages, with where they stand."""
    pattern = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [
        pytest.param(block, id=f"{path.relative_to(ROOT)}: {block.splitlines()[0]}")
        for path in PAGES
        for block in pattern.findall(path.read_text(encoding="utf-8"))
    ]


def scripts(document: Any) -> Iterator[str]:
    """Every shell script of a job: ``run`` of GitHub, ``script`` of GitLab."""
    if isinstance(document, list):
        for one in document:
            yield from scripts(one)
    elif isinstance(document, dict):
        for key, value in document.items():
            if key == "run":
                yield value
            elif key == "script":
                yield "\n".join(value)
            else:
                yield from scripts(value)


# -- texts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", fenced("yaml"))
def test_jobs_in_the_pages_are_yaml_with_sound_scripts(block: str) -> None:
    document = yaml.safe_load(block)
    assert isinstance(document, dict)
    for script in scripts(document):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_pages_use_what_the_action_and_the_hook_offer() -> None:
    page = yaml.safe_load_all("\n---\n".join(block.values[0] for block in fenced("yaml")))
    used: set[str] = set()
    hooks: set[str] = set()
    for document in page:
        text = json.dumps(document, default=str)
        for step in (one for job in document.get("jobs", {}).values() for one in job["steps"]):
            if step.get("uses", "").startswith("flowkiln/"):
                used |= set(step["with"])
        hooks |= set(re.findall(r'"id": "(flowkiln-[^"]+)"', text))
    assert used
    assert used <= set(ACTION["inputs"])
    offered = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert hooks == {one["id"] for one in offered}


@pytest.mark.parametrize("block", [one for one in fenced("json") if '"images"' in one.values[0]])
def test_documents_in_the_pages_are_as_the_schema_says(block: str) -> None:
    assert problems(json.loads(block), SCHEMA) == []


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("digest", "sha256:1234"),
        ("status", "maybe"),
        ("bytes_pushed", -1),
        ("bytes_pushed", True),
        ("platform", "linux-arm64"),
        ("steps", "fit"),
        ("env", ""),
    ],
)
def test_the_schema_refuses(member: str, value: object) -> None:
    assert problems({"schema": 1, "images": [IMAGE]}, SCHEMA) == []
    (found,) = problems({"schema": 1, "images": [{**IMAGE, member: value}]}, SCHEMA)
    assert found.startswith(f"$.images[0].{member}: ")
    less = {key: IMAGE[key] for key in IMAGE if key != member}
    assert problems({"schema": 1, "images": [less]}, SCHEMA) == [f"$.images[0]: {member} is missing"]


# -- the action ------------------------------------------------------------------------------------------------


class Job:
    """A job's folder, with a ``flowkiln`` that writes down how it was called and prints what it is told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        self.output = folder / "output"
        self.summary = folder / "summary"
        self.printed = folder / "printed"
        self.printed.write_text(json.dumps({"schema": 1, "images": [IMAGE]}))
        program = folder / "bin/flowkiln"
        program.parent.mkdir()
        program.write_text(
            f'#!/bin/sh\nprintf \'%s \' "$FLOWKILN_IMAGES_REPOSITORY" "$@" >> {self.calls}\necho >> {self.calls}\n'
            f'case "$2" in bake) cat {self.printed};; esac\nexit "${{CODE:-0}}"\n'
        )
        program.chmod(0o755)
        (folder / "bin/python").symlink_to(sys.executable)
        (folder / "flows").mkdir()
        for name in ("a.py", "b.py", "a.locks"):
            (folder / "flows" / name).touch()

    def step(self, name: str, code: int = 0, **inputs: str) -> subprocess.CompletedProcess[str]:
        """The step of the action with that name, as GitHub runs it."""
        (found,) = [one for one in ACTION["runs"]["steps"] if one.get("name") == name]
        values = {key: str(one.get("default", "")) for key, one in ACTION["inputs"].items()}
        values |= {key.replace("_", "-"): value for key, value in inputs.items()}
        environ = {
            "PATH": f"{self.folder / 'bin'}:/usr/bin:/bin",
            "RUNNER_TEMP": str(self.folder),
            "GITHUB_OUTPUT": str(self.output),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "GITHUB_PATH": str(self.folder / "path"),
            "CODE": str(code),
            **{key: self.filled(text, values) for key, text in found["env"].items()},
        }
        assert "${{" not in found["run"]  # inputs reach the shell as variables and never as code
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", found["run"]]
        return subprocess.run(command, cwd=self.folder, env=environ, capture_output=True, text=True, check=False)

    @staticmethod
    def filled(text: str, values: dict[str, str]) -> str:
        name = text.removeprefix("${{ ").removesuffix(" }}")
        return str(ROOT) if name == "github.action_path" else values[name.removeprefix("inputs.")]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def test_the_action_checks_declarations_and_bakes_all(job: Job) -> None:
    flows = "flows/*.py\nflows/a.locks/ training"
    done = job.step("Check the locks", flows=flows)
    assert done.returncode == 0, done.stderr
    done = job.step("Bake the environments", flows=flows, repository="registry.example.com/team")
    assert done.returncode == 0, done.stderr
    assert job.calls.read_text().splitlines() == [
        " env lock --check flows/a.py flows/b.py training ",
        "registry.example.com/team env bake flows/a.py flows/b.py flows/a.locks/ training --json --push ",
    ]
    name, _, told = job.output.read_text().strip().partition("=")
    assert name == "images"
    assert json.loads(told) == [IMAGE]
    assert (
        f"| fit | fit, score | linux/arm64 | `{IMAGE['image']}` | built, 1.5 MB pushed |" in job.summary.read_text()
    )


def test_lock_files_alone_are_not_checked(job: Job) -> None:
    assert job.step("Check the locks", flows="flows/a.locks").returncode == 0
    assert not job.calls.exists()


@pytest.mark.parametrize("code", [2, 3, 5])
def test_the_action_ends_as_flowkiln_does(job: Job, code: int) -> None:
    job.printed.write_text("")
    assert job.step("Check the locks", flows="flows/a.py", code=code).returncode == code
    assert job.step("Bake the environments", flows="flows/a.py", code=code).returncode == code
    assert not job.summary.exists()


def test_inputs_are_no_code_and_must_mean_something(job: Job) -> None:
    hostile = "flows/a.py; touch$IFS$(echo stolen) `touch stolen`"
    job.step("Check the locks", flows=hostile)
    assert not (job.folder / "stolen").exists()
    assert job.step("Bake the environments", flows="flows/*.txt").returncode == 1
    assert job.step("Bake the environments", flows="flows/a.py", push="yes").returncode == 2
    assert job.step("Bake the environments", flows="flows/a.py", push="false").returncode == 0
    assert "--push" not in job.calls.read_text()


def test_every_input_of_the_action_is_used() -> None:
    text = json.dumps(ACTION["runs"])
    unused = [name for name in ACTION["inputs"] if f"inputs.{name} " not in text]
    assert not unused
    for step in ACTION["runs"]["steps"]:
        if "run" in step:
            subprocess.run(["bash", "-n"], input=step["run"], text=True, check=True)


# -- the hook --------------------------------------------------------------------------------------------------


def test_the_hook_stops_a_stale_lock_without_a_network(home: Home, package_index: PackageIndex) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    package_index.add(wheel("alpha", "1.0"))
    package_index.add(wheel("alpha", "2.0"))
    declare(home.work, package_index)
    path = flow(home.work, "{'alpha': '1.0'}")
    environ = home.environ(FLOWKILN_PYTHON_DOWNLOADS="never")

    def called(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, cwd=home.work, env=environ, capture_output=True, text=True, check=False)

    locked = called("flowkiln", "env", "lock", path.name)
    assert locked.returncode == 0, locked.stderr
    asked = len(package_index.requests)
    entry = [*shlex.split(hook["entry"]), path.name]
    assert called(*entry).returncode == 0
    flow(home.work, "{'alpha': '>=2.0'}")  # of another size: the flow is loaded within one second of the first
    stale = called(*entry)
    assert stale.returncode == 3
    assert "flowkiln env lock" in stale.stderr
    assert len(package_index.requests) == asked


def test_the_hook_sees_the_files_that_matter() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    wanted = ["flow.py", "a/train.py", "pyproject.toml", "x/requirements-dev.txt", "requirements.in"]
    wanted += ["flow.locks/flowkiln.lock", "a/train.locks/pylock.fit-linux-amd64.toml"]
    other = ["README.md", "data.txt", "my-pyproject.toml", "x.locks"]
    assert [path for path in wanted + other if re.search(hook["files"], path)] == wanted


# -- the image for jobs ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's files in another folder, with the machine's own certificates."""
    folder = tmp_path_factory.mktemp("clone")
    for path in tracked():
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    for name in ("SSL_CERT_FILE", "PIP_CERT"):
        if MACHINE.get(name):
            shutil.copy(MACHINE[name], folder / "ca-bundle.pem")
    return folder


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_image_for_jobs_is_built_and_runs_as_anybody(
    clone: Path, docker_engine: stack.Engine, slim_base: str
) -> None:
    docker = shutil.which("docker", path=MACHINE["PATH"])
    if docker is None:
        unavailable("there is no docker command (Debian: apt-get install docker.io)")
    environ = {"PATH": MACHINE["PATH"], "DOCKER_HOST": docker_engine.host, "DOCKER_BUILDKIT": "0"}
    index = urlsplit(MACHINE.get("PIP_INDEX_URL", "https://pypi.org/simple"))
    place = index.netloc if "@" in index.netloc else f"somebody:pa55-of-the-index@{index.netloc}"
    secret = place.partition("@")[0].partition(":")[2]

    def call(*words: str) -> str:
        done = subprocess.run(
            [docker, *words],
            cwd=clone,
            env={**environ, "HOME": str(clone)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{words}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    tag = f"flowkiln-tests/ci:{os.getpid()}"
    arguments = [f"BASE={slim_base}", f"PIP_INDEX_URL={index._replace(netloc=place).geturl()}"]
    given = [word for one in arguments for word in ("--build-arg", one)]
    try:
        call("build", "--network", "host", "--force-rm", "--tag", tag, *given, ".")
        told = call("history", "--no-trunc", tag) + call("inspect", tag)
        assert secret not in told
        inside = (
            "flowkiln --version && uv --version && git --version && flowkiln explain ENV001 >/dev/null && id -u"
            f" && ! grep -rqs {secret} /opt /root /etc /usr/local /tmp"
            " && ! find / -xdev -name ca-bundle.pem | grep . && ! find / -xdev -path '*/.cache/*' | grep ."
            " && ! touch /opt/flowkiln-ci/x 2>/dev/null"
        )
        job = ["run", "--rm", "--user", "12345", "--read-only", "--network", "none", "--tmpfs", "/tmp"]
        lines = call(*job, tag, "sh", "-c", inside).splitlines()
        assert [line.split()[0] for line in lines] == ["flowkiln", "uv", "git", "12345"]
    finally:
        call("image", "rm", "--force", tag)
        call("image", "prune", "--force", "--filter", "label=io.flowkiln.stage=build")
