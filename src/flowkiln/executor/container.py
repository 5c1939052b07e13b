"""What a step's container is given, as values: its name, labels, variables and the engine's document of it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flowkiln.executor.environ import THREAD_VARIABLES
from flowkiln.executor.plan import ContainerSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flowkiln._base.json import JSONObject
    from flowkiln.executor.plan import StepPlan

ENVIRONMENT = "/opt/env"
BYTECODE = "/opt/flowkiln/pyc"
MOUNTS = "/mnt/flowkiln"
STORE = f"{MOUNTS}/store"
TASK = f"{MOUNTS}/task"
CODE = f"{TASK}/code"
TEMPORARY = "/tmp"  # noqa: S108  inside a container
LABEL = "io.flowkiln."
KIND = "task"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A folder of the engine's machine, seen by a container."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a container gets besides what its step says. ``volumes`` are folders that die with it.

    ``user`` is None for the image's own. ``unlabelled`` turns SELinux's separation off: mounted folders of the
    user have other labels. ``patience`` is how long the engine waits, in seconds, before it kills what it stops.
    """

    name: str
    labels: Mapping[str, str]
    runtime: str
    user: str | None = None
    binds: Sequence[Bind] = ()
    volumes: Sequence[str] = ()
    unlabelled: bool = False
    patience: int = 10
    temporary: bool = field(default=False)


def container_name(run: str, task: int, attempt: int) -> str:
    """The one name of an attempt's container: a lost answer is recognised by it."""
    return f"flowkiln-{_UNSAFE.sub('-', run)}-{task}-{attempt}"


def labels(store: str, flow: str, run: str, step: str = "", *, task: int = 0, attempt: int = 0) -> dict[str, str]:
    """The labels of an attempt's container. ``store`` is the store's path, of which a hash is shown."""
    shown = {
        **run_labels(store, run),
        "flow": flow,
        "step": step,
        "task": str(task),
        "attempt": str(attempt),
    }
    return {key if key.startswith(LABEL) else LABEL + key: value for key, value in shown.items()}


def run_labels(store: str, run: str) -> dict[str, str]:
    """The labels by which all containers of a run are found."""
    hashed = hashlib.sha256(store.encode(errors="surrogateescape")).hexdigest()[:16]
    return {LABEL + "kind": KIND, LABEL + "store": hashed, LABEL + "run": run}


def command(step: StepPlan, runtime: str, start: str) -> list[str]:
    """The command line of a container: its supervisor, isolated. ``start`` is the script below ``runtime``."""
    script = f"{runtime}/{start}"
    if step.image is not None and not step.image.baked:
        return ["python3", "-I", "-S", "-B", script]
    return [step.prefix.python, "-I", "-S", "-B", "-X", f"pycache_prefix={BYTECODE}", script]


def child_command(step: StepPlan, script: str) -> list[str | None]:
    """The command line of the step's process; None stands for the interpreter that runs the supervisor."""
    path = f"{CODE}/{script}"
    if step.image is not None and not step.image.baked:
        return [None, path]
    return [step.prefix.python, "-s", "-X", f"pycache_prefix={BYTECODE}", path]


def container_spec(step: StepPlan, given: Given, start: str) -> JSONObject:
    """The document that the engine makes the container from. Nothing in it is secret: anybody may look at it."""
    assert step.image is not None
    told = step.container or ContainerSettings()
    spec: JSONObject = {
        "Image": step.image.reference,
        "Entrypoint": command(step, given.runtime, start),
        "Cmd": [],
        "WorkingDir": "/",
        "Labels": dict(given.labels),
        "Healthcheck": {"Test": ["NONE"]},
        "StopSignal": "SIGTERM",
        "StopTimeout": given.patience,
        "HostConfig": _host(told, given),
    }
    if given.user is not None:
        spec["User"] = given.user
    if given.volumes:
        spec["Volumes"] = {path: {} for path in given.volumes}
    return spec


def _host(told: ContainerSettings, given: Given) -> JSONObject:
    host: JSONObject = {
        "AutoRemove": False,
        "RestartPolicy": {"Name": "no"},
        "ReadonlyRootfs": told.read_only,
        "Mounts": [_mount(bind) for bind in (*given.binds, *(_asked(one) for one in told.mounts))],
    }
    if told.cpus is not None:
        host["NanoCpus"] = round(told.cpus * 1e9)
    if told.memory is not None:
        host["Memory"] = host["MemorySwap"] = told.memory  # together with swap: so that memory is what it says
    if told.shared_memory is not None:
        host["ShmSize"] = told.shared_memory
    if told.gpus:
        host["DeviceRequests"] = [{"Driver": "", "Count": told.gpus, "Capabilities": [["gpu"]]}]
    if told.network is not None:
        host["NetworkMode"] = told.network
    if given.unlabelled:
        host["SecurityOpt"] = ["label=disable"]
    if given.temporary:
        host["Tmpfs"] = {TEMPORARY: "mode=1777"}
    return host


def _asked(mount: tuple[str, str, bool]) -> Bind:
    source, target, read_only = mount
    return Bind(source=source, target=target, read_only=read_only)


def _mount(bind: Bind) -> JSONObject:
    return {"Type": "bind", "Source": bind.source, "Target": bind.target, "ReadOnly": bind.read_only}


def container_variables(
    step: StepPlan,
    *,
    image: Iterable[str],
    host: Mapping[str, str],
    passed: Iterable[str],
    runtime: str,
    threads: int,
) -> dict[str, str]:
    """All variables of the step's process in its container.

    ``image`` is what the image sets, as ``NAME=VALUE``. Of the ``host`` only those ``passed`` by name are seen,
    proxies too. ``threads`` is the size of numeric libraries' thread pools where the step has no processors of
    its own. What ``@environment`` says wins over all but what flowkiln itself needs.
    """
    found = dict(one.partition("=")[::2] for one in image)
    found.setdefault("LANG", "C.UTF-8")
    baked = step.image is None or step.image.baked
    path = found.get("PATH") or _PATH
    if baked:
        own = f"{ENVIRONMENT}/bin"
        path = ":".join([own, *(folder for folder in path.split(":") if folder != own)])
    found |= {"PATH": path, "HOME": TEMPORARY, "TMPDIR": TEMPORARY}
    for name in ("USER", "LOGNAME"):  # the user may have no name in the image, and much software asks for one
        found.setdefault(name, "flowkiln")
    found |= {name: host[name] for name in passed if name in host}
    cpus = step.container.cpus if step.container is not None else None
    size = str(max(1, int(cpus) if cpus else threads))
    for name in THREAD_VARIABLES:
        found.setdefault(name, size)
    found.update(step.environ)
    own_path = dict(step.environ).get("PYTHONPATH") if baked else found.get("PYTHONPATH")
    found["PYTHONPATH"] = f"{runtime}:{own_path}" if own_path else runtime
    found |= {"PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    if baked:
        found |= {"PYTHONNOUSERSITE": "1", "PYTHONPYCACHEPREFIX": BYTECODE}
    return found
