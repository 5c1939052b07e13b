from __future__ import annotations

from pathlib import Path

from flowkiln.executor.plan import ContainerSettings
from flowkiln.flow import containers, graph
from tests.flow.source import load


def settings(tmp_path: Path, *lines: str) -> ContainerSettings:
    above = "\n".join(f"    {line}" for line in lines)
    text = (
        f"class F(FlowSpec):\n{above}\n    @step\n    def start(self):\n        self.next(self.end)\n"
        "    @step\n    def end(self):\n        pass\n"
    )
    return containers.settings(graph.read(load(tmp_path, text)).nodes["start"])


def test_a_little_of_something_never_becomes_no_limit(tmp_path: Path) -> None:
    found = settings(tmp_path, "@docker(cpu=0.01)", "@resources(cpu=1e-6, memory=1e-6, shared_memory=1e-6)")
    assert found.cpus == 0.01
    assert found.memory == found.shared_memory == 1 << 20


def test_an_image_is_named_as_images_are(tmp_path: Path) -> None:
    given = dict.fromkeys(("cpu", "memory", "shared_memory", "gpu", "user", "mounts", "network"))
    given |= {"read_only": False}
    assert containers.problems({**given, "image": "team/flows:1"}) == []
    assert containers.problems({**given, "image": "Team/Flows:1"}) == [
        "image: 'Team/Flows:1' is no image reference: it is no repository, which is in lower case"
    ]


def test_mounts_beside_what_is_flowkilns_are_taken(tmp_path: Path) -> None:
    found = settings(tmp_path, "@docker(mounts=['/a:/opt/environment', 'b:/tmp/b:ro', '/c:/mnt/c/'])")
    assert found.mounts == (
        ("/a", "/opt/environment", False),
        (str(tmp_path / "b"), "/tmp/b", True),
        ("/c", "/mnt/c", False),
    )
