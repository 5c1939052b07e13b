"""The scan of an environment for libraries that its image will lack; each wheel and each result is read once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowkiln._base import json
from flowkiln.envs.wheel import Wheel
from flowkiln.images import libraries

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flowkiln.envs.describing import Describer
    from flowkiln.envs.installer import Unpacked
    from flowkiln.envs.lock import Locked
    from flowkiln.images.libraries import Missing, Program
    from flowkiln.images.plan import ImagePlan
    from flowkiln.images.records import Records


class Scanner:
    """Looks through the packages that ``describer`` has. What a catalog told of others is among the records."""

    def __init__(self, records: Records, describer: Describer) -> None:
        self._records = records
        self._describer = describer

    def missing(self, plan: ImagePlan) -> tuple[Missing, ...] | None:
        """The libraries that the image of ``plan`` lacks; None where its base or a package was never read here."""
        part = plan.part
        scan = json.digest({"schema": libraries.SCHEMA, "env": part.env_id, "base": plan.base.manifest})
        found = self._records.missing(scan)
        if found is None:
            base = self._records.libraries(plan.base.manifest)
            programs = {one.sha256: self.programs(one) for one in part.packages} if base is not None else {}
            read = {sha256: one for sha256, one in programs.items() if one is not None}
            if base is None or len(read) < len(programs):
                return None
            found = libraries.missing(part, read, base)
            self._records.add_missing(scan, found)
        return found

    def programs(self, package: Locked) -> tuple[Program, ...] | None:
        """The programs and shared objects of a package, None where nobody has looked and its files are not here."""
        found = self._records.programs(package.sha256)
        if found is None:
            known = self._describer.known(package)
            if known is None:
                return None
            try:
                found = self._read(known.wheel)
            except OSError:  # a file that is gone: whoever bakes the layer says so
                return None
            self._records.add_programs(package.sha256, found)
        return found

    def _read(self, unpacked: Unpacked) -> tuple[Program, ...]:
        def stored(path: str) -> str:
            return self._describer.stored(unpacked.sha256, path)

        if isinstance(unpacked, Wheel):
            return libraries.read(unpacked, stored)
        return libraries.read_conda(unpacked, stored)

    def check(self, plan: ImagePlan, packages: Iterable[Locked]) -> None:
        """Raises ``ForeignProgram`` for a package that is for another processor than its name or channel says."""
        for package in packages:
            libraries.check(package, self.programs(package) or (), plan.part.platform.arch)
