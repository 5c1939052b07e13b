from __future__ import annotations

from collections.abc import Iterator

import pytest

from flowkiln._base import endpoints
from flowkiln._base.engine import Engine as Client
from tests.conformance.runner import PYTHON, Runner, Target
from tests.e2e.project import Project
from tests.services import unavailable
from tests.services.index import PackageIndex
from tests.stack import Base, Engine, base

_BASES: dict[str, Base] = {"3.11": "slim-python:3.11", "3.13": "slim-python:3.13"}


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("conformance")
    project = Project(folder / "project", folder / "home")
    project.folder.mkdir()
    project.home.mkdir()
    with PackageIndex() as index:
        yield Runner(project, index)
    project.end()


@pytest.fixture(scope="session")
def process() -> Target:
    """Processes of this machine. A backend joins the table with a fixture like this one, named after it, and with
    that name in ``TARGETS``: it starts what the backend needs, and says what is added to ``run``."""
    return Target("process")


@pytest.fixture(scope="session")
def docker(docker_engine: Engine) -> Target:
    """Containers of an engine with the classic image store."""
    return _containers("docker", docker_engine)


@pytest.fixture(scope="session")
def docker_with_containerd(containerd_engine: Engine) -> Target:
    """Containers of an engine with containerd's image store."""
    return _containers("docker_with_containerd", containerd_engine)


def _containers(name: str, engine: Engine) -> Target:
    if PYTHON not in _BASES:
        unavailable(f"there is no base image with Python {PYTHON}")
    environ = {"DOCKER_HOST": engine.host, "FLOWKILN_IMAGES_BASE": base(_BASES[PYTHON])}

    def image_id(reference: str) -> str:
        with Client(endpoints.find(environ)) as client:
            return str((client.image(reference) or {})["Id"])

    return Target(name, ("--with", "docker"), environ, image_id)
