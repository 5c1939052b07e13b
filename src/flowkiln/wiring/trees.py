"""Locks -> trees -> prefixes: what is locked is installed where it is missing, several at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flowkiln._base import files, paths, platforms
from flowkiln._base.errors import concerning
from flowkiln._base.report import Silent
from flowkiln.envs import driver, running
from flowkiln.envs.errors import MissingLock
from flowkiln.envs.installerrors import EnvironmentMismatch
from flowkiln.envs.interpreter import check_libc
from flowkiln.envs.interpreters import Interpreters
from flowkiln.envs.proof import verify
from flowkiln.envs.tree import Trees
from flowkiln.executor.activation import ActivationError, activated
from flowkiln.executor.environ import OWN
from flowkiln.executor.errors import StepEnvironment
from flowkiln.executor.plan import Prefix
from flowkiln.wiring.unmanaged import unmanaged

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from flowkiln._base.platforms import Platform
    from flowkiln._base.report import Reporter
    from flowkiln._base.settings import Settings
    from flowkiln.envs.fetch import Fetcher
    from flowkiln.envs.interpreter import Interpreter
    from flowkiln.envs.lock import EnvLock, LinkedFiles, LockedWheel, PlatformLock
    from flowkiln.envs.tree import Tree

AT_ONCE = 3
"""Trees that are made at once; each uses several threads itself."""


class Host:
    """The trees and interpreters of this machine, as the settings say. Cheap to make; downloads start late."""

    def __init__(self, settings: Settings, reporter: Reporter | None = None) -> None:
        self._settings = settings
        self._reporter = reporter or Silent()
        self._trees: Trees | None = None
        mirror = settings.text("python.mirror")
        never = settings.text("python.downloads") == "never" or settings.flag("offline")
        self.interpreters = Interpreters(paths.cache_root(), downloads="never" if never else "auto", mirror=mirror)
        self.platform = platforms.host()

    @property
    def trees(self) -> Trees:
        """The trees of the cache, with a fetcher that has the credentials of the indexes."""
        if self._trees is None:
            self._trees = Trees(paths.cache_root())
        return self._trees

    def fetching(self) -> Trees:
        """The same trees, able to download."""
        return Trees(paths.cache_root(), fetcher=self.fetcher())

    def fetcher(self) -> Fetcher:
        """What downloads, with the credentials of indexes and channels and within the limits of the settings."""
        from flowkiln.envs import channels, indexes
        from flowkiln.envs.fetch import Fetcher, Network

        plan = indexes.plan_of(self._settings)
        conda = channels.plan_of(self._settings)

        def credentials(url: str) -> tuple[str, str] | None:
            own = None if conda.covers(url) else plan.credentials(url)
            return own or conda.credentials(url)

        def renew(url: str, refused: tuple[str, str] | None) -> tuple[str, str] | None:
            return (conda if conda.covers(url) else plan).renew(url, refused)

        stall = float(self._settings.count("download-timeout") or 30)
        network = Network(credentials=credentials, renew=renew, stall=stall, source=conda.source)
        return Fetcher(
            network,
            offline=self._settings.flag("offline"),
            retries=self._settings.count("retries") or 5,
            built=self._built,
        )

    def _built(self, made: LockedWheel | LinkedFiles) -> Path:
        """The file of what was built or left by link scripts: kept here, by the team, or made once more."""
        from flowkiln.wiring.building import Building

        with closing(Building(self._settings, self._reporter)) as building:
            return building.restored(made)

    def find(self, part: PlatformLock) -> Tree | None:
        """The tree of ``part`` if it is here."""
        return self.trees.find(part.env_id, self.interpreters.find(part))

    def ensure(
        self, parts: Sequence[PlatformLock], reporter: Reporter, steps: Mapping[str, str] | None = None
    ) -> dict[str, Tree]:
        """The tree of every part by ``env_id``, missing ones made at once.

        Raises the errors of installing; ``steps`` says which step such an error is about, by ``env_id``.
        """
        concerned = steps or {}
        wanted = {part.env_id: part for part in parts}
        for part in wanted.values():
            check_libc(part)  # before anything is downloaded, be it an interpreter
        found: dict[str, Tree] = {}
        missing: list[tuple[PlatformLock, Interpreter]] = []
        for env_id, part in wanted.items():
            interpreter = self.interpreters.find(part, reporter)
            tree = self.trees.find(env_id, interpreter)
            if tree is None:
                missing.append((part, interpreter))
            else:
                self.trees.touch(tree)
                found[env_id] = tree
        if missing:
            fetching = self.fetching()

            def make(part: PlatformLock, interpreter: Interpreter) -> Tree:
                with concerning(concerned.get(part.env_id)):
                    return fetching.materialise(part, interpreter, reporter)

            with ThreadPoolExecutor(AT_ONCE) as pool:
                made = pool.map(lambda pair: make(*pair), missing)
                found.update({tree.env_id: tree for tree in made})
        return found

    def repair(self, part: PlatformLock, reporter: Reporter) -> Tree:
        """The tree of ``part`` made anew."""
        check_libc(part)
        return self.fetching().repair(part, self.interpreters.find(part, reporter), reporter)


def part_for(lock: EnvLock, host: Platform, *, steps: tuple[str, ...] = ()) -> PlatformLock:
    """The part of ``lock`` for this machine. Raises ``MissingLock`` with the reason of an absent platform."""
    part = lock.on(host)
    if part is not None:
        return part
    step = steps[0] if steps else None
    absent = next((one for one in lock.absent if one.platform == host), None)
    if absent is not None:
        message = f"environment {lock.name!r} has no solution for {host}: {absent.reason}"
        raise MissingLock(message, step=step, hint="Relax its requirements, or run where it has one.")
    known = ", ".join(str(one.platform) for one in lock.platforms)
    message = f"environment {lock.name!r} is locked for {known}, not for {host}"
    raise MissingLock(message, step=step, hint=f"Run `flowkiln env lock --platform {host}`.")


def prefix_of(tree: Tree, lock: EnvLock) -> Prefix:
    """What a step of this environment runs in."""
    return Prefix(
        python=tree.python,
        version=tree.version,
        platform=tree.platform,
        root=str(tree.root),
        name=lock.name,
        env_id=tree.env_id,
        lock_id=lock.lock_id,
        tree_digest=tree.tree_digest,
        other_platform=not tree.platform.startswith("linux/"),
    )


def prefixes(locks: Mapping[str, EnvLock | None], settings: Settings, reporter: Reporter) -> dict[str, Prefix]:
    """The prefix of each step, by name; ``locks`` has None for a step that runs in the launcher's interpreter."""
    managed = {step: lock for step, lock in locks.items() if lock is not None}
    found = {step: unmanaged() for step in locks if step not in managed}
    if managed:
        host = Host(settings, reporter)
        parts = {step: part_for(lock, host.platform, steps=(step,)) for step, lock in managed.items()}
        for step, part in parts.items():
            with concerning(step):
                driver.check(part)  # at launch alone: elsewhere no task needs it
        first = {part.env_id: step for step, part in reversed(parts.items())}
        trees = host.ensure(list(parts.values()), reporter, first)
        found |= {step: prefix_of(trees[parts[step].env_id], lock) for step, lock in managed.items()}
    return {step: found[step] for step in locks}


def variables(tree: Tree, environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` for a command in ``tree``, which is activated. Raises ``StepEnvironment`` where it cannot be."""
    found = running.variables(tree, paths.cache_root(), environ)
    try:
        return activated(str(tree.root), found, OWN)
    except ActivationError as error:
        hint = "Leave out the package that brings the script, or set what it needs before."
        raise StepEnvironment(str(error), hint=hint) from error


@contextmanager
def leased(used: Iterable[Prefix]) -> Iterator[None]:
    """Keeps garbage collection from the trees of ``used`` while the block runs."""
    roots = {Path(prefix.root) for prefix in used if prefix.root is not None}
    held = Trees(paths.cache_root())
    with ExitStack() as stack:
        for root in sorted(roots):
            stack.enter_context(files.locked(held.lease_file(root.name), shared=True))
        yield


def prove(prefix: Prefix, level: str, named: str) -> None:
    """Returns when ``prefix`` is unchanged at ``level``.

    Raises ``EnvironmentMismatch`` (exit 17) with the command that repairs it; ``named`` is its ENV there.
    """
    if prefix.root is None or prefix.env_id is None or prefix.tree_digest is None:
        return
    try:
        verify(prefix.root, prefix.env_id, prefix.tree_digest, "full" if level == "full" else "stat")
    except EnvironmentMismatch as error:
        error.hint = f"`flowkiln env verify --repair {named}` makes the environment anew."
        raise
