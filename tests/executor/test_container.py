"""What containers are given, and what their ends mean: pure functions, and what threads hand over."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowkiln._base.endpoints import Endpoint
from flowkiln._base.engineerrors import EngineUnreachable, ImageMissing
from flowkiln.executor import container, fate
from flowkiln.executor.container import Bind, Given
from flowkiln.executor.launching import DockerSettings, Launching
from flowkiln.executor.mailbox import Mailbox, Workers
from flowkiln.executor.plan import ContainerSettings, ImageRef, Prefix, RunPlan, StepPlan
from flowkiln.executor.runtime import files, identity, runtime_folder
from flowkiln.executor.tail import Tail
from flowkiln.executor.vocabulary import Began, Event
from flowkiln.store.folder import FolderStore
from flowkiln.store.logs import LogLine, LogWriter

BAKED = StepPlan(
    name="work",
    kind="linear",
    prefix=Prefix(python="/opt/env/bin/python", root="/opt/env", version="3.11.0", platform="linux/amd64"),
    image=ImageRef(reference="flowkiln:fk-1"),
    container=ContainerSettings(),
)
GIVEN = Given(name="n", labels={"io.flowkiln.run": "1"}, runtime="/opt/flowkiln/abc", user="1:2")


def spec(given: Given = GIVEN, **settings: Any) -> dict[str, Any]:
    step = dataclasses.replace(BAKED, container=ContainerSettings(**settings))
    return container.container_spec(step, given, "supervise.py")


def test_a_container_that_asks_for_nothing_gets_nothing() -> None:
    assert spec() == {
        "Image": "flowkiln:fk-1",
        "Entrypoint": [
            *("/opt/env/bin/python", "-I", "-S", "-B", "-X", "pycache_prefix=/opt/flowkiln/pyc"),
            "/opt/flowkiln/abc/supervise.py",
        ],
        "Cmd": [],
        "WorkingDir": "/",
        "User": "1:2",
        "Labels": {"io.flowkiln.run": "1"},
        "Healthcheck": {"Test": ["NONE"]},
        "StopSignal": "SIGTERM",
        "StopTimeout": 10,
        "HostConfig": {
            "AutoRemove": False,
            "RestartPolicy": {"Name": "no"},
            "ReadonlyRootfs": False,
            "Mounts": [],
        },
    }


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"cpus": 1.5}, {"NanoCpus": 1_500_000_000}),
        ({"memory": 1 << 30}, {"Memory": 1 << 30, "MemorySwap": 1 << 30}),
        ({"shared_memory": 64}, {"ShmSize": 64}),
        ({"gpus": -1}, {"DeviceRequests": [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}]}),
        ({"network": "none"}, {"NetworkMode": "none"}),
        ({"read_only": True}, {"ReadonlyRootfs": True}),
        (
            {"mounts": (("/a", "/b", True),)},
            {"Mounts": [{"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True}]},
        ),
    ],
)
def test_each_setting_reaches_the_engine(settings: dict[str, Any], told: dict[str, Any]) -> None:
    assert spec(**settings)["HostConfig"] == {**spec()["HostConfig"], **told}


def test_what_a_container_is_given_besides() -> None:
    given = dataclasses.replace(
        GIVEN,
        user=None,
        binds=[Bind(source="/s", target="/t")],
        volumes=["/v"],
        unlabelled=True,
        temporary=True,
    )
    made = spec(given)
    assert "User" not in made
    assert made["Volumes"] == {"/v": {}}
    assert made["HostConfig"]["Tmpfs"] == {"/tmp": "mode=1777"}
    assert made["HostConfig"]["SecurityOpt"] == ["label=disable"]
    assert made["HostConfig"]["Mounts"][0]["Target"] == "/t"


def test_an_image_of_the_users_own_runs_its_own_python() -> None:
    own = dataclasses.replace(BAKED, image=ImageRef(reference="x", baked=False))
    assert container.command(own, "/r", "s.py") == ["python3", "-I", "-S", "-B", "/r/s.py"]
    assert container.child_command(own, "f.py") == [None, "/mnt/flowkiln/task/code/f.py"]
    assert container.child_command(BAKED, "f.py")[:2] == ["/opt/env/bin/python", "-s"]


def variables(step: StepPlan = BAKED, **more: Any) -> dict[str, str]:
    told: dict[str, Any] = {"image": (), "host": {}, "passed": (), "runtime": "/r", "threads": 3, **more}
    return container.container_variables(step, **told)


def test_every_container_has_the_same_variables() -> None:
    assert variables() == {
        "LANG": "C.UTF-8",
        "PATH": "/opt/env/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "USER": "flowkiln",
        "LOGNAME": "flowkiln",
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "3"),
        **dict.fromkeys(("NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "3"),
        "PYTHONPATH": "/r",
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONPYCACHEPREFIX": "/opt/flowkiln/pyc",
    }


def test_who_wins_among_variables() -> None:
    step = dataclasses.replace(
        BAKED,
        environ=(("A", "step"), ("PYTHONPATH", "/mine"), ("PYTHONHASHSEED", "7")),
        container=ContainerSettings(cpus=2.5),
    )
    found = variables(
        step,
        image=["A=image", "B=image", "LANG=de_DE.UTF-8", "PATH=/opt/env/bin:/image", "MKL_NUM_THREADS=9"],
        host={"B": "host", "C": "host", "HTTPS_PROXY": "p"},
        passed=("B",),
    )
    assert (found["A"], found["B"], found["LANG"]) == ("step", "host", "de_DE.UTF-8")
    assert (found["PATH"], found["PYTHONPATH"]) == ("/opt/env/bin:/image", "/r:/mine")
    assert (found["OMP_NUM_THREADS"], found["MKL_NUM_THREADS"], found["PYTHONHASHSEED"]) == ("2", "9", "0")
    assert not {"C", "HTTPS_PROXY"} & found.keys()


def test_names_and_labels_tell_attempts_apart() -> None:
    assert container.container_name("17", 3, 1) == "flowkiln-17-3-1"
    found = container.labels("/s", "F", "17", "step", task=3, attempt=1)
    assert found.items() >= container.run_labels("/s", "17").items()
    assert container.run_labels("/other", "17") != container.run_labels("/s", "17")
    assert "/s" not in found.values()


@pytest.mark.parametrize(
    ("state", "kind", "cause"),
    [
        ({"ExitCode": 137, "OOMKilled": True}, "user", "out-of-memory"),
        ({"ExitCode": 137}, "infrastructure", "interrupted"),
        ({"ExitCode": 143}, "infrastructure", "interrupted"),
        ({"ExitCode": 17}, "environment", "mismatch"),
        ({"ExitCode": 18}, "infrastructure", "lost"),
        ({"ExitCode": 19}, "infrastructure", "lost"),
        ({"ExitCode": 127, "Error": "no such file"}, "environment", "not-started"),
        ({"ExitCode": 0}, "infrastructure", "not-started"),
        (None, "infrastructure", "lost"),
    ],
)
def test_what_an_end_without_an_outcome_means(state: dict[str, Any] | None, kind: str, cause: str) -> None:
    found = None if state is None else {"State": state, "HostConfig": {"Memory": 1 << 30}}
    failure = fate.failure_of(found, "name", "last words", cancelled=False)
    assert (failure.failure_class, failure.cause) == (kind, cause)
    assert fate.failure_of(found, "name", "", cancelled=True).cause == "cancelled"


def test_an_image_that_went_away_is_told_with_what_brings_it_back() -> None:
    failure = fate.not_started(BAKED, ImageMissing("No such image: flowkiln:fk-1"))
    assert (failure.failure_class, failure.code) == ("environment", "ENG006")
    assert failure.text == "the engine has no image flowkiln:fk-1 any more: it was there when the run began"
    assert failure.hint == "Run the flow again: it makes the images that are missing."
    own = dataclasses.replace(BAKED, image=ImageRef(reference="tools:1", baked=False))
    failure = fate.not_started(own, ImageMissing("No such image: tools:1"))
    assert (failure.text, failure.hint) == ("No such image: tools:1", ImageMissing.advice)


def test_the_runtime_for_images_is_the_one_that_is_mounted(tmp_path: Path) -> None:
    made = files()
    folder = runtime_folder(tmp_path)
    assert folder.name == identity(made) == identity(dict(reversed(made.items())))
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.py")} == set(made)
    assert identity({**made, "supervise.py": b""}) != identity(made)


class Told:
    """An engine that only says of which kind it is."""

    def __init__(self, *, remote: bool = False, rootless: bool = False, selinux: bool = False) -> None:
        self.endpoint = Endpoint("tcp://far:1" if remote else "unix:///s", "test")
        self.rootless = rootless
        self.specs: list[dict[str, Any]] = []
        self._options = ["name=selinux"] if selinux else ["name=seccomp,profile=default"]

    def info(self) -> dict[str, Any]:
        return {"SecurityOptions": self._options}

    def create(self, name: str, spec: dict[str, Any]) -> str:
        self.specs.append(spec)
        return "id"

    def inspect(self, name: str) -> dict[str, Any]:
        return {"Image": "sha256:1"}


def created(folder: Path, engine: Any, files: Any = "auto", user: str | None = None) -> dict[str, Any]:
    """What the engine is told to make, with the paths of this machine below ``folder``."""
    step = dataclasses.replace(BAKED, container=ContainerSettings(user=user))
    (folder / "code").mkdir(exist_ok=True)
    settings = DockerSettings(code_dir=folder / "code", cache=folder / "cache", files=files)
    plan = RunPlan(flow="F", steps=(step,), script="f", code="", user_folder="/", max_workers=1, max_splits=1)
    launching = Launching(plan, "17", FolderStore(folder / "store"), engine, settings)
    launching.create(launching.job(step, 1, 0))
    spec: dict[str, Any] = engine.specs[-1]
    return spec


ME = f"{os.getuid()}:{os.getgid()}"


@pytest.mark.parametrize(
    ("engine", "files", "user", "runs_as", "mounted"),
    [
        (Told(), "auto", None, ME, True),
        (Told(rootless=True), "auto", None, "0:0", True),
        (Told(remote=True), "auto", None, None, False),
        (Told(), "copy", None, None, False),
        (Told(remote=True), "mount", None, ME, True),
        (Told(), "auto", ME, ME, True),
        (Told(), "auto", "12345", "12345", False),
        (Told(rootless=True), "auto", "1000", "1000", False),
        (Told(rootless=True), "auto", "root", "root", True),
        (Told(), "mount", "12345", "12345", True),
    ],
)
def test_who_runs_a_container_and_how_its_files_get_there(
    tmp_path: Path, engine: Told, files: str, user: str | None, runs_as: str | None, mounted: bool
) -> None:
    spec = created(tmp_path, engine, files, user)
    assert spec.get("User") == runs_as
    folder = tmp_path / "cache" / "docker" / "17" / "1-0"
    places = {one["Target"]: one["Source"] for one in spec["HostConfig"]["Mounts"]}
    wanted = {
        "/mnt/flowkiln/store": str(tmp_path / "store"),
        "/mnt/flowkiln/task": str(folder),
        "/tmp": str(folder / "tmp"),
    }
    assert places == (wanted if mounted else {})
    assert ("/mnt/flowkiln" in spec.get("Volumes", {})) is not mounted
    assert folder.exists() is mounted


def test_selinux_lets_a_container_at_mounted_folders(tmp_path: Path) -> None:
    assert "SecurityOpt" not in created(tmp_path, Told())["HostConfig"]
    assert created(tmp_path, Told(selinux=True))["HostConfig"]["SecurityOpt"] == ["label=disable"]


# -- what threads hand over ------------------------------------------------------------------------------------


def test_lines_and_events_keep_their_order() -> None:
    mailbox = Mailbox()
    seen: list[str] = []

    def on_line(task: int, attempt: int, line: LogLine) -> None:
        seen.append(line.text)

    for item in ("a", Began(1, 0), Began(2, 0), "b", Began(3, 0)):
        if isinstance(item, str):
            mailbox.line(1, 0, LogLine(0, "stdout", item))
        else:
            mailbox.put(item)
    assert mailbox.take(0, on_line) == [Began(1, 0), Began(2, 0)]
    assert seen == ["a"]
    assert mailbox.take(0, on_line) == [Began(3, 0)]
    assert seen == ["a", "b"]
    mailbox.fail(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        mailbox.take(0, on_line)


def test_who_prints_faster_than_is_shown_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowkiln.executor.mailbox._MOST_LINES", 2)
    mailbox = Mailbox()
    seen: list[str] = []

    def write() -> None:
        for number in range(100):
            mailbox.line(1, 0, LogLine(0, "stdout", str(number)))

    writer = threading.Thread(target=write)
    writer.start()
    while len(seen) < 100:
        mailbox.take(0.1, lambda task, attempt, line: seen.append(line.text))
    writer.join()
    assert seen == [str(number) for number in range(100)]


def test_work_is_done_whatever_fails() -> None:
    failed: list[BaseException] = []
    done: list[int] = []
    workers = Workers(3, failed.append)

    def work(number: int) -> None:
        done.append(1 // number)

    for number in (1, 0, 1, 1):
        workers.do(lambda number=number: work(number))  # type: ignore[misc]
    workers.close(10)
    assert done == [1, 1, 1]
    assert [type(error) for error in failed] == [ZeroDivisionError]


class Broken:
    """An engine whose stream of a container's output breaks off after some pieces, each time later."""

    def __init__(self, pieces: list[tuple[str, bytes]], breaks: list[int]) -> None:
        self._pieces = pieces
        self._breaks = breaks
        self.asked = 0

    def logs(self, container: str, *, follow: bool) -> Broken:
        self.asked += 1
        return self

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        if self._breaks:
            yield from self._pieces[: self._breaks.pop(0)]
            raise EngineUnreachable("broke off", retryable=True)
        yield from self._pieces

    def close(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize("breaks", [[], [0], [3], [1, 2, 4]])
@pytest.mark.parametrize("live", [True, False])
def test_every_line_is_told_once_whatever_the_stream_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaks: list[int], live: bool
) -> None:
    monkeypatch.setattr("flowkiln.executor.tail._AGAIN", 0.01)
    pieces = [("stdout", b"on"), ("stdout", b"e\ntwo\n"), ("stderr", b"bad\n"), ("stdout", b"two\n4")]
    engine: Any = Broken(pieces, breaks)
    store, mailbox = FolderStore(tmp_path), Mailbox()
    record = LogWriter(tmp_path / "spill")
    for text in ("one", "two", "bad", "two", "4"):
        record.append(LogLine(1, "stderr" if text == "bad" else "stdout", text))
    tail = Tail(engine, "c", 1, 0, mailbox)
    if live:
        tail.follow()
    tail.stop(10.0)
    tail.complete(record.finish(store.blobs), store.blobs)
    seen: list[tuple[str, str]] = []
    events: list[Event] = mailbox.take(0, lambda task, attempt, line: seen.append((line.stream, line.text)))
    assert events == []
    assert [text for stream, text in seen if stream == "stdout"] == ["one", "two", "two", "4"]
    assert [text for stream, text in seen if stream == "stderr"] == ["bad"]
