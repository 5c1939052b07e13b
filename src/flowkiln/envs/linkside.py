"""Link scripts that a request allows: run for each platform of its lock, once, where something runs them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from flowkiln._base.errors import concerning
from flowkiln.envs.builderrors import NowhereToLink
from flowkiln.envs.errors import EnvError
from flowkiln.envs.lock import AbsentPlatform
from flowkiln.envs.spec import normal_name

if TYPE_CHECKING:
    from collections.abc import Collection

    from flowkiln._base.platforms import Platform
    from flowkiln.envs.lock import EnvLock, PlatformLock
    from flowkiln.envs.spec import EnvSpec


class Linker(Protocol):
    """Somewhere that link scripts run."""

    def linked(self, label: str, part: PlatformLock, names: frozenset[str]) -> PlatformLock:
        """``part`` with what the link scripts of the packages ``names`` left; itself where they have none.

        Raises ``BuildError`` and the errors of fetching and of the services that are used.
        """


@dataclass(frozen=True, slots=True)
class Linking:
    """The link scripts of one environment; what ``previous`` has stays as it is unless ``upgrade`` frees it."""

    linker: Linker | None
    name: str
    spec: EnvSpec
    previous: EnvLock | None
    upgrade: bool | frozenset[str] = False
    steps: tuple[str, ...] = ()

    def of(self, part: PlatformLock) -> PlatformLock:
        """``part`` with what allowed link scripts leave. Raises as ``Linker.linked``."""
        names = frozenset(self.spec.link_scripts) & {one.name for one in part.conda}
        if not names:
            return part
        standing = self._standing(part, names)
        if standing is not None:
            return standing
        what = f"environment {self.name!r} for {part.platform}"
        with concerning(next(iter(self.steps), None), what, named=self.name):
            if self.linker is None:
                raise NowhereToLink("link scripts are allowed, and nothing here may run them")
            return self.linker.linked(self.name, part, names)

    def given(self, lock: EnvLock, *, demanded: Collection[Platform]) -> EnvLock:
        """``lock``, taken as another tool made it, with what allowed link scripts leave."""
        parts: list[PlatformLock] = []
        absent = list(lock.absent)
        for part in lock.platforms:
            try:
                parts.append(self.of(part))
            except EnvError as error:
                if part.platform in demanded or len(lock.platforms) == 1:
                    raise
                absent.append(AbsentPlatform(platform=part.platform, reason=error.message.splitlines()[0]))
        return replace(lock, platforms=tuple(parts), absent=tuple(sorted(absent, key=lambda one: one.platform)))

    def _standing(self, part: PlatformLock, names: frozenset[str]) -> PlatformLock | None:
        """The part of the lock that stands, where it is of the same packages."""
        own = self.previous.on(part.platform) if self.previous is not None else None
        freed = (
            self.upgrade if isinstance(self.upgrade, bool) else bool(self.upgrade & set(map(normal_name, names)))
        )
        if own is None or own.linked is None or freed or not names.issuperset(own.link_scripts):
            return None
        found = replace(part, link_scripts=own.link_scripts)
        return replace(found, linked=own.linked) if found.env_id == own.before_linking.env_id else None


def warnings(lock: EnvLock, spec: EnvSpec) -> list[str]:
    """What people should be told of the names in ``link_scripts``: those without effect."""
    ran = {name for part in lock.platforms for name in part.link_scripts}
    there = {one.name for part in lock.platforms for one in part.conda}
    return [
        f"{lock.name}: link_scripts names {name}, "
        + ("which has no link script" if name in there else "and no package of that name is locked")
        for name in spec.link_scripts
        if name not in ran
    ]
