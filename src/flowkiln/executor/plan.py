"""What a run executes, as values: made by ``flow``, stored in the run's record, read back by ``attach``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject

StepKind = Literal["linear", "split", "foreach", "join", "end"]
PLAN_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """The interpreter a process step runs with, and what proves it.

    ``python`` is the absolute path of the interpreter; ``root`` the environment's prefix, None when unmanaged.
    An unmanaged prefix (a flow that declares no environment) has neither ``env_id`` nor ``tree_digest``.
    ``version`` is X.Y.Z, ``platform`` is ``os/arch``. ``other_platform`` says that the lock's Linux platform
    was not the one used ("same lock, other platform").
    """

    python: str
    version: str
    platform: str
    root: str | None = None
    name: str | None = None
    env_id: str | None = None
    lock_id: str | None = None
    tree_digest: str | None = None
    other_platform: bool = False

    @property
    def managed(self) -> bool:
        """Whether the step declared an environment."""
        return self.env_id is not None

    def to_json(self) -> JSONObject:
        """As a JSON object, the inverse of ``from_json``."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: JSONObject) -> Prefix:
        """The value that ``to_json`` wrote."""
        return cls(**document)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRef:
    """The image that a step's containers run, as a value.

    ``reference`` is what the engine is asked for (``flowkiln:fk-...``, ``repository@sha256:...``). ``config`` is
    the config's digest: what equality of images means. ``ids`` are the names under which an engine may know it: the
    config's digest, or that of a manifest. ``digest`` is the manifest's digest where a registry holds it.
    ``base`` is the base that it was baked on, with its digest. ``baked`` is False for an image of the user's own
    that runs as it is: it holds neither environment nor runtime.
    """

    reference: str
    config: str | None = None
    ids: tuple[str, ...] = ()
    digest: str | None = None
    base: str | None = None
    baked: bool = True

    def to_json(self) -> JSONObject:
        """As a JSON object, the inverse of ``from_json``."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: JSONObject) -> ImageRef:
        """The value that ``to_json`` wrote."""
        return cls(**{**document, "ids": tuple(document["ids"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSettings:
    """What a step's containers are given. Sizes are in bytes; None leaves a limit to the engine.

    ``mounts`` are (source, target, read-only) with absolute paths; ``gpus`` is how many, -1 for all. ``user`` is
    ``uid[:gid]`` or a name of the image, None for whoever started the run. ``network`` is the engine's name of one
    (``none`` for none). ``read_only`` closes the root file system.
    """

    cpus: float | None = None
    memory: int | None = None
    shared_memory: int | None = None
    gpus: int | None = None
    user: str | None = None
    mounts: tuple[tuple[str, str, bool], ...] = ()
    network: str | None = None
    read_only: bool = False

    def to_json(self) -> JSONObject:
        """As a JSON object, the inverse of ``from_json``."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: JSONObject) -> ContainerSettings:
        """The value that ``to_json`` wrote."""
        values = dict(document)
        values["mounts"] = tuple((source, target, read_only) for source, target, read_only in values["mounts"])
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """One step: its place in the graph and how its attempts are treated.

    ``targets`` are the steps that follow, in order. ``foreach`` is the artifact's name on a foreach step.
    ``closes`` is the split or foreach step whose branches a join merges. ``parents`` are the steps that lead
    here. ``retries`` counts user retries (0 = one attempt), ``retry_delay`` seconds between them.
    ``catch`` is whether a last failure is turned into a success by the step's ``@catch``; ``catch_var`` is the
    attribute that then holds the failure, ``catch_print`` whether it is printed. ``timeout`` is in seconds.
    ``environ`` are the variables of ``@environment``. ``resources`` are declared, not enforced here.
    ``image`` and ``container`` are set for a step that runs in Docker, None for a process of this machine.
    """

    name: str
    kind: StepKind
    prefix: Prefix
    targets: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    foreach: str | None = None
    closes: str | None = None
    retries: int = 0
    retry_delay: float = 0.0
    catch: bool = False
    catch_var: str | None = None
    catch_print: bool = True
    timeout: float | None = None
    environ: tuple[tuple[str, str], ...] = ()
    resources: tuple[tuple[str, float], ...] = ()
    image: ImageRef | None = None
    container: ContainerSettings | None = None

    def to_json(self) -> JSONObject:
        """As a JSON object, the inverse of ``from_json``."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: JSONObject) -> StepPlan:
        """The value that ``to_json`` wrote."""
        values = dict(document)
        values["prefix"] = Prefix.from_json(values["prefix"])
        for key in ("targets", "parents"):
            values[key] = tuple(values[key])
        for key in ("environ", "resources"):
            values[key] = tuple((name, value) for name, value in values[key])
        for key, kind in (("image", ImageRef), ("container", ContainerSettings)):
            if values.get(key) is not None:
                values[key] = kind.from_json(values[key])
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """A flow as the executor sees it. ``steps`` is in topological order; the first starts, the last ends.

    ``script`` is the flow file's path inside the code package, ``code`` the package's digest.
    ``user_folder`` is the folder the run was started in: the working directory of process steps.
    ``max_workers`` bounds concurrent attempts, ``max_splits`` the width of a foreach. ``verify`` is the level at
    which environments are proved; ``auto`` is ``stat`` for processes and ``digest`` in containers, and what
    only containers have is ``stat`` for processes.
    """

    flow: str
    steps: tuple[StepPlan, ...]
    script: str
    code: str
    user_folder: str
    max_workers: int
    max_splits: int
    isolation: Literal["auto", "fork", "spawn"] = "auto"
    verify: Literal["auto", "digest", "stat", "full"] = "auto"
    tags: tuple[str, ...] = field(default=())

    @property
    def process_level(self) -> Literal["stat", "full"]:
        """The level at which environments of processes are proved."""
        return "full" if self.verify == "full" else "stat"

    def step(self, name: str) -> StepPlan:
        """The step called ``name``. Raises ``KeyError``."""
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)

    def to_json(self) -> JSONObject:
        """As a versioned JSON object, the inverse of ``from_json``."""
        document = asdict(self)
        document["schema"] = PLAN_SCHEMA
        return document

    @classmethod
    def from_json(cls, document: JSONObject) -> RunPlan:
        """The value that ``to_json`` wrote."""
        values = {key: value for key, value in document.items() if key != "schema"}
        values["steps"] = tuple(StepPlan.from_json(step) for step in values["steps"])
        values["tags"] = tuple(values["tags"])
        return cls(**values)
