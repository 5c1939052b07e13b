"""Shells and commands beside a past task's code and inputs, and in containers: for ``env shell`` and ``exec``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from flowkiln._base.errors import concerning
from flowkiln._base.platforms import Platform
from flowkiln.cli import baking, environments, targets
from flowkiln.cli.env_exec import DOCKER, found_program, own_shell
from flowkiln.envs.lockfolder import LockFolder
from flowkiln.executor import container
from flowkiln.executor.container import Bind
from flowkiln.executor.plan import StepPlan
from flowkiln.wiring import containers, history, restoring, terminals
from flowkiln.wiring.baking import Bakery, Wish
from flowkiln.wiring.restoring import PastTask, Scratch
from flowkiln.wiring.terminals import Seat

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flowkiln._base.settings import Settings
    from flowkiln.cli.output import Session
    from flowkiln.executor.plan import ImageRef, Prefix


def sit(speaker: Session, text: str, command: Sequence[str], *, contained: bool) -> int:
    """Runs ``command``, or a shell, in the environment that ``text`` names; its exit code.

    ``contained`` puts it into a container. A past task brings its code and inputs.
    """
    target = targets.parse(text)
    if not isinstance(target, targets.TaskTarget):
        assert contained  # otherwise this process becomes the command
        return _contained(speaker, text, command)
    settings = speaker.own_settings()
    store = history.open_store(settings)
    task = restoring.find(store, history.find(store, text))
    with _scratch(task, speaker) as scratch:
        if contained:
            return _task_contained(speaker, settings, task, scratch, command)
        return _task_here(speaker, task, scratch, command)


@contextmanager
def _scratch(task: PastTask, speaker: Session) -> Iterator[Scratch]:
    scratch = Scratch(task)
    try:
        scratch.fill()
        yield scratch
    except BaseException:
        scratch.remove()
        raise
    if scratch.changed:
        speaker.say(f"the code that you changed stays in {scratch.code}")
    else:
        scratch.remove()


def _greet(speaker: Session, path: str, command: Sequence[str]) -> None:
    if not command:
        speaker.say(f"{path}: its code is here; `python` has its inputs as `self`; `exit` leaves")


# -- here ------------------------------------------------------------------------------------------------------


def _task_here(speaker: Session, task: PastTask, scratch: Scratch, command: Sequence[str]) -> int:
    library = str(scratch.library)
    scratch.describe(store=task.store.root, code=str(scratch.code), library=library)
    environ = _variables_here(speaker, task)
    environ |= restoring.variables(task, library, str(restoring.runtime_folder()))
    words = list(command) or [own_shell()]
    program = found_program(words[0], environ, task.path)
    _greet(speaker, task.path, command)
    return _run([program, *words[1:]], environ, scratch.code)


def _variables_here(speaker: Session, task: PastTask) -> dict[str, str]:
    """The user's variables with the programs of the task's environment in front."""
    from flowkiln.wiring.trees import variables

    prefix = task.step.prefix
    if prefix.managed:
        tree = environments.tree(task.path, speaker)
        return variables(tree, os.environ)
    folder = str(Path(prefix.python).parent) if os.path.isabs(prefix.python) else ""  # noqa: PTH117  a text
    parts = [folder] if folder else []
    path = os.pathsep.join([*parts, os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


# -- in a container --------------------------------------------------------------------------------------------


def _task_contained(
    speaker: Session, settings: Settings, task: PastTask, scratch: Scratch, command: Sequence[str]
) -> int:
    bakery = Bakery(settings, speaker.reporter)
    docker = terminals.require(bakery.engine)
    library, code = terminals.LIBRARY, container.CODE
    scratch.describe(store=container.STORE, code=code, library=library)
    step = _in_engine(task, bakery, settings)
    seat = Seat(
        step=step,
        binds=[
            _runtime(),
            Bind(source=task.store.root, target=container.STORE, read_only=True),
            Bind(source=str(scratch.library), target=library, read_only=True),
            Bind(source=str(scratch.code), target=code),
        ],
        folder=code,
        variables=restoring.variables(task, library, terminals.RUNTIME),
        command=command,
    )
    _greet(speaker, task.path, command)
    return _docker(docker, bakery, settings, seat)


def _in_engine(task: PastTask, bakery: Bakery, settings: Settings) -> StepPlan:
    """The step with its image, which the engine has: the one that it ran in, else one that is baked of its lock."""
    step, engine = task.step, bakery.engine
    image = step.image
    if image is not None:
        if engine.image(image.reference) is None and "@" in image.reference:
            bakery.fetch(image.reference)
        found = engine.image(image.reference)
        if found is not None and (not image.ids or str(found.get("Id")) in image.ids):
            return step
    prefix, made = _made(task, bakery, settings)
    if image is not None and image.config != made.config:
        bakery.reporter.warn(
            f"the engine no longer has the image of {task.path}; this one is baked of the same lock "
            f"by the flowkiln that you have now, and differs: {made.reference}"
        )
    return replace(step, prefix=prefix, image=made)


def _made(task: PastTask, bakery: Bakery, settings: Settings) -> tuple[Prefix, ImageRef]:
    step, platform = task.step, Platform.parse(bakery.engine.platform)
    if not step.prefix.managed:
        base = step.image.base if step.image is not None else None
        with concerning(step.name):
            return containers.as_it_is(base, bakery, settings)
    run = history.find(task.store, task.path).run
    lock, folder = history.lock_of(task.store, run, step.name)
    wish = Wish(lock=lock, folder=LockFolder(folder), platform=platform, steps=(step.name,))
    pin = history.base_of(task.store, run, step.name)
    if pin is None or pin.platform != platform:
        pin = bakery.look(wish if pin is None else replace(wish, base=pin.reference))
    return containers.baked(wish, bakery.plan(wish, pin), bakery, settings)


def _contained(speaker: Session, text: str, command: Sequence[str]) -> int:
    """A command or shell in a container of the environment that ``text`` names, in the current folder."""
    one = environments.single(text, speaker)
    settings = speaker.settings(one.home)
    bakery = Bakery(settings, speaker.reporter)
    docker = terminals.require(bakery.engine)
    wishes = [wish for group in baking.wishes([text], speaker).values() for wish in group]
    wish = baking.expanded(wishes, (), DOCKER, bakery)[0]
    pin = bakery.pin([wish], baking.policy(speaker))[wish]
    prefix, image = containers.baked(wish, bakery.plan(wish, pin), bakery, settings)
    step = StepPlan(name=one.name, kind="linear", prefix=prefix, image=image)
    here = Bind(source=str(Path.cwd()), target=terminals.HERE)
    if not command:
        speaker.say(f"{text}: the current folder is {terminals.HERE}; `exit` leaves the container")
    variables = {"PYTHONPATH": ""}  # what steps need of flowkiln is none of this environment's business
    seat = Seat(step=step, binds=[_runtime(), here], folder=terminals.HERE, variables=variables, command=command)
    return _docker(docker, bakery, settings, seat)


def _runtime() -> Bind:
    return Bind(source=str(restoring.runtime_folder()), target=terminals.RUNTIME, read_only=True)


def _docker(program: str, bakery: Bakery, settings: Settings, seat: Seat) -> int:
    engine = bakery.engine
    found = terminals.variables(engine, seat, settings.items("pass-environment") or ())
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    with tempfile.TemporaryDirectory(prefix="flowkiln-") as folder:
        file = Path(folder, "environment")
        several = terminals.write_environment(file, found)
        words = terminals.words(program, engine, seat, file, several, terminal=terminal)
        environ = {**terminals.caller(engine.endpoint, os.environ), **several}
        return _run(words, environ, Path.cwd())


def _run(words: Sequence[str], environ: dict[str, str], folder: Path) -> int:
    """The exit code of a command that has the terminal: signals of its keys are the command's."""
    sys.stdout.flush()
    sys.stderr.flush()
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGQUIT)}
    try:
        process = subprocess.Popen(words, env=environ, cwd=folder, preexec_fn=_listen)  # noqa: PLW1509
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def _listen() -> None:
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
