"""The scan of an environment for libraries that its image will lack; each wheel and each result is read once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowkiln._base import json
from flowkiln.envs.lock import LockedConda
from flowkiln.envs.wheel import Wheel
from flowkiln.images import libraries

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flowkiln.envs.describing import Describer
    from flowkiln.envs.lock import Locked
    from flowkiln.images.libraries import Missing, Program
    from flowkiln.images.plan import ImagePlan
    from flowkiln.images.records import Records


class Scanner:
    """Looks through the wheels that ``describer`` has. What a catalog told of others is among the records."""

    def __init__(self, records: Records, describer: Describer) -> None:
        self._records = records
        self._describer = describer

    def missing(self, plan: ImagePlan) -> tuple[Missing, ...] | None:
        """The libraries that the image of ``plan`` lacks; None where its base or a wheel was never read here.

        None with conda packages too: they bring libraries in places that are not looked at.
        """
        part = plan.part
        if part.conda:
            return None
        scan = json.digest({"schema": libraries.SCHEMA, "env": part.env_id, "base": plan.base.manifest})
        found = self._records.missing(scan)
        if found is None:
            base = self._records.libraries(plan.base.manifest)
            programs = {wheel.sha256: self.programs(wheel) for wheel in part.wheels} if base is not None else {}
            read = {sha256: one for sha256, one in programs.items() if one is not None}
            if base is None or len(read) < len(programs):
                return None
            found = libraries.missing(part, read, base)
            self._records.add_missing(scan, found)
        return found

    def programs(self, wheel: Locked) -> tuple[Program, ...] | None:
        """The programs and shared objects of a wheel, None where its files are not here and nobody told of them.

        A conda package has none that are told: what its channel's folder is called says for which processor it is.
        """
        if isinstance(wheel, LockedConda):
            return ()
        found = self._records.programs(wheel.sha256)
        if found is None:
            known = self._describer.known(wheel)
            if known is None or not isinstance(known.wheel, Wheel):
                return None
            try:
                found = libraries.read(known.wheel, lambda stored: self._describer.stored(wheel.sha256, stored))
            except OSError:  # a file that is gone: whoever bakes the layer says so
                return None
            self._records.add_programs(wheel.sha256, found)
        return found

    def check(self, plan: ImagePlan, wheels: Iterable[Locked]) -> None:
        """Raises ``ForeignProgram`` for a wheel that is for another processor than its name says."""
        for wheel in wheels:
            if isinstance(wheel, LockedConda):
                continue
            libraries.check(wheel, self.programs(wheel) or (), plan.part.platform.arch)
