"""Making, starting and clearing away the containers of attempts, one call to the engine after another."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from flowkiln._base import json
from flowkiln._base.files import disk_errors
from flowkiln.executor import carry, container, records, runtime
from flowkiln.executor.container import Bind, Given
from flowkiln.executor.environ import OWN, cores
from flowkiln.executor.errors import ForeignImage, OtherEngine
from flowkiln.executor.plan import ContainerSettings
from flowkiln.store import keys

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from flowkiln._base.json import JSONObject
    from flowkiln.executor.backend import Assignment
    from flowkiln.executor.engines import Engine
    from flowkiln.executor.outcome import Outcome
    from flowkiln.executor.plan import RunPlan, StepPlan
    from flowkiln.executor.tail import Tail
    from flowkiln.store.folder import FolderStore

Files = Literal["auto", "mount", "copy"]
Phase = Literal["waiting", "starting", "running", "settling"]
_BEGIN_SCHEMA = 1
_SPARE = 5
"""Seconds that a supervisor has, after the grace time of its child, to seal before its container is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerSettings:
    """What the Docker backend needs besides the plan.

    ``code_dir`` is the unpacked code package, ``cache`` the user's cache folder, ``info`` goes to every step's
    process as it is. ``host`` is the launcher's environment; ``passed`` names variables of it that steps see.
    ``grace`` and ``drain`` are as for processes. ``files`` says how files reach a container: mounted, or copied in
    and out where they cannot be. ``at_once`` bounds the calls that make containers. ``patience`` is how long, in
    seconds, an engine that does not answer is asked again. ``runtime_inside`` is False where baked images lack the
    runtime. ``inherits`` says that a former launcher of the run may have left containers.
    """

    code_dir: Path
    cache: Path
    info: JSONObject = field(default_factory=dict)
    host: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    passed: tuple[str, ...] = ()
    grace: float = 5.0
    drain: float = 2.0
    files: Files = "auto"
    at_once: int = 6
    patience: float = 60.0
    runtime_inside: bool = True
    inherits: bool = False


@dataclass(slots=True, eq=False)
class Job:
    """An attempt that is with this backend. ``assignment`` is None for one that a former launcher submitted.

    ``ended`` says that its container has, before its start was known to have succeeded. ``copied`` says that its
    files are in the container and nowhere else. ``cancelled``, ``pressed`` and ``settling`` are when it was to be
    ended, last signalled, and first found to have ended, in seconds of ``time.monotonic``.
    """

    task: int
    attempt: int
    step: StepPlan
    folder: Path
    name: str
    assignment: Assignment | None = None
    token: str = ""
    container: str = ""
    phase: Phase = "waiting"
    copied: bool = False
    ended: bool = False
    cancelled: float | None = None
    pressed: float = 0.0
    settling: float = 0.0
    tail: Tail | None = None

    @property
    def key(self) -> tuple[int, int]:
        """The task and the attempt's number within it."""
        return self.task, self.attempt


class Launching:
    """Makes what one run's containers need. Methods raise the errors of the engine, of disks and of the store."""

    def __init__(
        self, plan: RunPlan, run: str, store: FolderStore, engine: Engine, settings: DockerSettings
    ) -> None:
        self._plan = plan
        self._run = run
        self._store = store
        self._engine = engine
        self._settings = settings
        self._lock = threading.Lock()
        self._images: dict[str, JSONObject] = {}
        self._runtime_files: dict[str, bytes] = {}
        self._runtime_id = ""

    def job(self, step: StepPlan, task: int, attempt: int) -> Job:
        """A new job, not under way."""
        folder = self._settings.cache.absolute() / "docker" / self._run / f"{task}-{attempt}"
        return Job(task, attempt, step, folder, container.container_name(self._run, task, attempt))

    # -- before the start --------------------------------------------------------------------------------------

    def create(self, job: Job) -> None:
        """Makes the job's container, ready to start but for its begin record. Raises ``ForeignImage`` too."""
        job.token = os.urandom(16).hex()
        job.copied = self._copies(job.step)
        if not job.copied:
            self._fill(job)
        spec = container.container_spec(job.step, self._given(job), runtime.START)
        job.container = self._engine.create(job.name, spec)
        found = self._engine.inspect(job.container) or {}
        self._require_image(job.step, str(found.get("Image", "")))

    def begin(self, job: Job) -> JSONObject | Outcome | None:
        """None when the attempt is this container's; else its outcome, or the execution that holds it."""
        record: JSONObject = {"schema": _BEGIN_SCHEMA, "execution": self.execution(job), "at": records.now_us()}
        data = json.compact(record)
        task = json.compact(self._task(job))
        if job.copied:
            self._send(job, task, data)
        else:
            _write_secret(job.folder / "task.json", task)
        if self._store.records.create(keys.begin(self._run, job.task, job.attempt), data):
            return None
        held = self.holder(job)
        if held.get("container") == job.container and held.get("token") == job.token:
            return None
        return records.outcome(self._store.records, self._run, job.task, job.attempt) or held

    def holder(self, job: Job) -> JSONObject:
        """What the attempt's begin record says executes it; empty when it has none."""
        return self._held(job.task, job.attempt)

    def _held(self, task: int, attempt: int) -> JSONObject:
        stored = self._store.records.read(keys.begin(self._run, task, attempt))
        if stored is None:
            return {}
        execution: JSONObject = records.document(stored)["execution"]
        return execution

    def require_here(self, task: int, attempt: int) -> None:
        """Returns when a container of the attempt, if there is one, is with this engine. Raises ``OtherEngine``."""
        held = self._held(task, attempt)
        own_id = self._engine.info().get("ID")
        if held.get("kind") != "docker" or (own_id is not None and held.get("engine_id") == own_id):
            return
        where, here = held.get("engine"), self._engine.endpoint.url
        if (where, held.get("host")) == (here, socket.gethostname()):
            return  # Podman tells another id each time
        message = f"task {task} was begun in a container of the engine {where}, and {here} was asked"
        hint = f"On {held.get('host')}: DOCKER_HOST={where} flowkiln run attach {self._run}, or cancel."
        raise OtherEngine(message, hint=hint, data={"holder": held})

    def execution(self, job: Job) -> JSONObject:
        """What executes the job, as both of its records name it."""
        return {
            "kind": "docker",
            "container": job.container,
            "name": job.name,
            "engine": self._engine.endpoint.url,
            "engine_id": self._engine.info().get("ID"),
            "host": socket.gethostname(),
            "token": job.token,
        }

    def environment(self, step: StepPlan) -> JSONObject:
        """What is known of the step's environment, and who says so, for the outcome."""
        prefix, image = step.prefix, step.image
        assert image is not None
        proof: JSONObject = {"platform": prefix.platform, "python": prefix.version, "isolation": "container"}
        if prefix.managed:
            proof |= {"env_id": prefix.env_id, "lock_id": prefix.lock_id, "tree_digest": prefix.tree_digest}
            proof |= {"name": prefix.name, "level": self.level, "other_platform": prefix.other_platform}
        proof["unmanaged"] = not prefix.managed
        proof["image"] = {
            "reference": image.reference,
            "id": self.image(step).get("Id"),
            "config": image.config,
            "digest": image.digest,
            "base": image.base,
        }
        proof["vouched"] = "engine"
        return proof

    @property
    def level(self) -> str:
        """The level at which environments in containers are proved."""
        return "digest" if self._plan.verify == "auto" else self._plan.verify

    def image(self, step: StepPlan) -> JSONObject:
        """What the engine knows of the step's image; empty when it has none."""
        assert step.image is not None
        reference = step.image.reference
        with self._lock:
            if reference not in self._images:
                self._images[reference] = self._engine.image(reference) or {}
            return self._images[reference]

    def clear(self, job: Job) -> None:
        """Removes the container and the work folder."""
        if job.container:
            self._engine.remove(job.container)
        shutil.rmtree(job.folder, ignore_errors=True)
        with suppress(OSError):
            job.folder.parent.rmdir()

    # -- parts -------------------------------------------------------------------------------------------------

    def _require_image(self, step: StepPlan, found: str) -> None:
        assert step.image is not None
        if step.image.ids and found not in step.image.ids:
            expected = " or ".join(step.image.ids)
            message = f"{step.image.reference} is another image than the one that was baked"
            raise ForeignImage(f"{message}\n  expected {expected}\n  found    {found}", step=step.name)

    def _copies(self, step: StepPlan) -> bool:
        """Whether the container's files are copied: they cannot be mounted, or its user could not read them."""
        if self._settings.files != "auto":
            return self._settings.files == "copy"
        told = (step.container or ContainerSettings()).user
        caller = (
            ("0", "0:0", "root") if self._engine.rootless else (str(os.getuid()), f"{os.getuid()}:{os.getgid()}")
        )
        return self._engine.endpoint.remote or (told is not None and told not in caller)

    def _user(self, job: Job) -> str | None:
        told = (job.step.container or ContainerSettings()).user
        if told is not None or job.copied:
            return told
        return "0:0" if self._engine.rootless else f"{os.getuid()}:{os.getgid()}"

    def _runtime(self) -> str:
        with self._lock:
            if not self._runtime_id:
                self._runtime_files = runtime.files()
                self._runtime_id = runtime.identity(self._runtime_files)
        return f"{runtime.CONTAINER_FOLDER}/{self._runtime_id}"

    def _brings_runtime(self, step: StepPlan) -> bool:
        assert step.image is not None
        return not step.image.baked or not self._settings.runtime_inside

    def _given(self, job: Job) -> Given:
        binds: list[Bind] = []
        volumes: list[str] = []
        where = self._runtime()
        brings = self._brings_runtime(job.step)
        if job.copied:
            volumes = [container.MOUNTS, *([where] if brings else [])]
        else:
            binds = [
                Bind(source=self._store.root, target=container.STORE),
                Bind(source=str(job.folder), target=container.TASK),
                Bind(source=str(job.folder / "tmp"), target=container.TEMPORARY),
            ]
            if brings:
                folder = runtime.runtime_folder(self._settings.cache)
                binds.append(Bind(source=str(folder), target=where, read_only=True))
        told = job.step.container or ContainerSettings()
        return Given(
            name=job.name,
            labels=container.labels(
                self._store.root, self._plan.flow, self._run, job.step.name, task=job.task, attempt=job.attempt
            ),
            runtime=where,
            user=self._user(job),
            binds=binds,
            volumes=volumes,
            unlabelled=any("selinux" in str(one) for one in self._engine.info().get("SecurityOptions") or ()),
            patience=int(self._settings.grace) + _SPARE,
            temporary=job.copied and told.read_only,
        )

    def _fill(self, job: Job) -> None:
        """Makes the folder that becomes the container's."""
        with disk_errors(job.folder, setting="cache"):
            shutil.rmtree(job.folder, ignore_errors=True)
            job.folder.parent.mkdir(parents=True, exist_ok=True)
            job.folder.mkdir(mode=0o700)
            (job.folder / "tmp").mkdir()
            shutil.copytree(self._settings.code_dir, job.folder / "code", symlinks=True)

    def _send(self, job: Job, task: bytes, begun: bytes) -> None:
        """Copies everything that the task needs into its container."""
        assert job.assignment is not None
        parcel = carry.Parcel()
        parcel.folder("task")
        parcel.add("task/task.json", task)
        parcel.tree("task/code", self._settings.code_dir)
        carry.pack_store(parcel, "store", self._store, job.assignment, begun)
        self._engine.put_archive(job.container, container.MOUNTS, parcel.write)
        if self._brings_runtime(job.step):
            parcel = carry.Parcel()
            for name, content in self._runtime_files.items():
                parcel.add(name, content)
            self._engine.put_archive(job.container, self._runtime(), parcel.write)

    def _task(self, job: Job) -> JSONObject:
        """The document that tells the supervisor what to do."""
        assert job.assignment is not None
        step, prefix = job.step, job.step.prefix
        info = {**self._settings.info, "store": container.STORE, "run": self._run, "flow": self._plan.flow}
        info |= {"code_dir": container.CODE, "user_folder": container.CODE}
        config = self.image(step).get("Config") or {}
        environ = container.container_variables(
            step,
            image=config.get("Env") or (),
            host=self._settings.host,
            passed=self._settings.passed,
            runtime=self._runtime(),
            threads=cores() // max(1, self._plan.max_workers),
        )
        return {
            "schema": 1,
            "token": job.token,
            "path": f"{container.TASK}/task.json",
            "store": container.STORE,
            "key": os.path.dirname(keys.begin(self._run, job.task, job.attempt)),  # noqa: PTH120  a key
            "spool": f"{container.TASK}/outcome.json",
            "root": prefix.root,
            "assignment": job.assignment.to_json(),
            "step": step.to_json(),
            "info": info,
            "command": container.child_command(step, self._plan.script),
            "environ": environ,
            "own": [*OWN, "PYTHONDONTWRITEBYTECODE"],
            "grace": self._settings.grace,
            "drain": self._settings.drain,
            "proof": {
                "level": self.level,
                "env_id": prefix.env_id,
                "tree_digest": prefix.tree_digest,
                "record": self.environment(step),
            },
        }


def _write_secret(path: Path, data: bytes) -> None:
    with disk_errors(path, setting="cache"):
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as stream:  # noqa: PTH123  a descriptor
            stream.write(data)
