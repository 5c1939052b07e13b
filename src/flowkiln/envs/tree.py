"""Environments on disk: ``<cache>/trees/<env_id, 32 digits>-<X.Y.Z>-<interpreter>/``.

A tree is a complete prefix, made in a scratch folder and renamed into place with its description inside: what has
a name is whole. One process makes a tree, the others wait for it. Locks are the OS's and die with their process.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flowkiln._base import files
from flowkiln._base.errors import ReadOnly
from flowkiln._base.report import Silent
from flowkiln.envs import interpreter as interpreters
from flowkiln.envs import treefile
from flowkiln.envs.installerrors import EnvironmentMismatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowkiln._base.report import Reporter
    from flowkiln.envs.fetch import Fetcher
    from flowkiln.envs.interpreter import Interpreter
    from flowkiln.envs.lock import PlatformLock
    from flowkiln.envs.treefile import Description


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """An environment on disk. ``root`` is its prefix; ``description`` says what it holds."""

    root: Path
    description: Description

    @property
    def env_id(self) -> str:
        """Identity of the environment: ``sha256:...``."""
        return self.description.env_id

    @property
    def tree_digest(self) -> str:
        """Identity of what was installed: ``sha256:...``."""
        return self.description.tree_digest

    @property
    def python(self) -> str:
        """Absolute path of the interpreter inside the prefix."""
        return f"{self.root}/bin/python"

    @property
    def version(self) -> str:
        """The interpreter's version ``X.Y.Z``."""
        return self.description.version

    @property
    def platform(self) -> str:
        """``os/arch``."""
        return self.description.platform

    def files(self) -> dict[str, tuple[int, str]]:
        """Path -> (mode, sha256) of all installed files, without glue. Raises EnvironmentMismatch."""
        return treefile.rows(self.root, self.tree_digest)


class Trees:
    """The trees of one cache folder.

    ``fetcher`` downloads what is missing; without one a default fetcher does.
    """

    def __init__(self, cache: Path, *, fetcher: Fetcher | None = None) -> None:
        # Absolute, as it is written into launchers.
        self.cache = Path(os.path.abspath(cache))  # noqa: PTH100  links in the user's path stay
        self.root = self.cache / "trees"
        self._fetcher = fetcher

    def path(self, env_id: str, interpreter: Interpreter) -> Path:
        """Where the tree of an environment with an interpreter stands, present or not."""
        return self.root / f"{env_id.removeprefix('sha256:')[:32]}-{interpreter.key}"

    def find(self, env_id: str, interpreter: Interpreter) -> Tree | None:
        """The tree if it is here, whole and with its interpreter in place. Its files are not verified."""
        root = self.path(env_id, interpreter)
        try:
            description = treefile.read(root)
        except EnvironmentMismatch:
            return None
        if description is None or description.env_id != env_id or description.prefix != str(root):
            return None
        tree = Tree(root=root, description=description)
        return tree if os.path.exists(tree.python) else None  # noqa: PTH110  follows the link, cheaply

    def materialise(self, part: PlatformLock, interpreter: Interpreter, reporter: Reporter | None = None) -> Tree:
        """The tree of ``part`` with ``interpreter``: the one in place, else made now.

        Sixteen callers at once make it once. Raises the errors of fetching and unpacking, PathOwnedTwice,
        InterpreterOutOfBounds, PlatformTooOld, NoSpace and ReadOnly; nothing half-made is left behind.
        """
        interpreters.check(interpreter, part)
        tree = self.find(part.env_id, interpreter)
        if tree is None:
            tree = self._make(part, interpreter, reporter or Silent(), anew=False)
        self.touch(tree)
        return tree

    def repair(self, part: PlatformLock, interpreter: Interpreter, reporter: Reporter | None = None) -> Tree:
        """The tree made anew, from stored wheels whose every file was read and found right, else fetched again."""
        interpreters.check(interpreter, part)
        return self._make(part, interpreter, reporter or Silent(), anew=True)

    def all(self) -> list[Tree]:
        """Every whole tree of the cache, by folder name."""
        found = []
        for root in sorted(self.root.iterdir()) if self.root.is_dir() else []:
            try:
                description = treefile.read(root)
            except EnvironmentMismatch:
                continue
            if description is not None:
                found.append(Tree(root=root, description=description))
        return found

    def touch(self, tree: Tree) -> None:
        """Notes that the tree was used now, for garbage collection."""
        try:
            os.utime(tree.root / treefile.FOLDER)
        except OSError:
            return

    @contextmanager
    def lease(self, tree: Tree) -> Iterator[None]:
        """Keeps garbage collection from the tree while the block runs. Any number may hold one.

        Raises EnvironmentMismatch when the tree is gone already.
        """
        with ExitStack() as stack:
            # In a cache that cannot be written nothing can be collected either.
            with suppress(ReadOnly):
                stack.enter_context(files.locked(self.lease_file(tree.root.name), shared=True))
            if not tree.root.exists():
                message = f"the environment at {tree.root} was removed by `flowkiln cache gc`"
                raise EnvironmentMismatch(message, hint="Run the same command again: it is made anew.")
            yield

    def lease_file(self, name: str) -> Path:
        """The lock file that leases of the tree called ``name`` are held on."""
        return self.cache / "locks" / "leases" / name

    def _make(self, part: PlatformLock, interpreter: Interpreter, reporter: Reporter, *, anew: bool) -> Tree:
        from flowkiln.envs.making import Maker  # noqa: PLC0415  finding a tree stays cheap

        def there() -> Description | None:
            tree = None if anew else self.find(part.env_id, interpreter)
            return tree.description if tree else None

        root = self.path(part.env_id, interpreter)
        description = Maker(self.cache, self._fetcher).make(root, part, interpreter, reporter, there)
        return Tree(root=root, description=description)
