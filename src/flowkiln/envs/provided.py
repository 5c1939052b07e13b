"""What conda packages provide to Python, told to uv as wheels with nothing in them, and taken out of its answer.

Each distribution of an environment comes from one side. uv sees a provided one as the only version there is,
``2.2.6+conda``: requirements without a local version accept it as they accept ``2.2.6``.
"""

from __future__ import annotations

import re
import zipfile
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from flowkiln.envs.condaerrors import ProvidedConflict
from flowkiln.envs.spec import normal_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from flowkiln.envs.lock import LockedConda

Pair = tuple[str, str]
"""Normalised name and version of a distribution."""

FOLDER = "provided"
_MARK = "conda"
_MARKED = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*?)(?P<equals>==)(?P<version>[^\s,`+]+)\+(?:[\w.]+\.)?conda\b")
_TIME = (1980, 1, 1, 0, 0, 0)
_HINT = "Ask conda for a version that both accept, or leave it out of the conda packages and take it from PyPI."


def of(packages: Iterable[LockedConda]) -> tuple[Pair, ...]:
    """The distributions inside of conda packages, sorted; of one that several have, the first by package counts."""
    found: dict[str, str] = {}
    for package in sorted(packages, key=lambda one: one.name):
        for name, version in package.provides:
            found.setdefault(name, version)
    return tuple(sorted(found.items()))


def marked(version: str) -> str:
    """The version under which uv sees a provided one; for one that PyPI's rules do not know, that of none."""
    try:
        known = Version(version)
    except InvalidVersion:
        return f"0+{_MARK}"
    return f"{known.public}+{known.local}.{_MARK}" if known.local else f"{known.public}+{_MARK}"


def constraints(provided: Iterable[Pair]) -> tuple[str, ...]:
    """Lines that leave uv no other version of what is provided."""
    return tuple(f"{name}=={marked(version)}" for name, version in provided)


def write(folder: Path, provided: Iterable[Pair]) -> Path:
    """A folder in ``folder`` with a wheel for each distribution: its name and version, and nothing else."""
    target = folder / FOLDER
    target.mkdir()
    for name, version in provided:
        stem = f"{name.replace('-', '_')}-{marked(version)}"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {marked(version)}\n"
        wheel = "Wheel-Version: 1.0\nGenerator: flowkiln\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        with zipfile.ZipFile(target / f"{stem}-py3-none-any.whl", "w") as archive:
            for member, text in (("METADATA", metadata), ("WHEEL", wheel), ("RECORD", "")):
                archive.writestr(zipfile.ZipInfo(f"{stem}.dist-info/{member}", _TIME), text)
    return target


def is_stub(version: str) -> bool:
    """Whether a version in uv's answer is one that conda provides."""
    return version.partition("+")[2].rpartition(".")[2] == _MARK


def readable(said: str) -> str:
    """uv's words with provided versions as people know them: ``numpy 2.2.6 of conda``."""
    return _MARKED.sub(r"\g<name> \g<version> of conda", said)


def named_in(said: str) -> tuple[str, ...]:
    """The provided distributions that uv's words name, sorted."""
    return tuple(sorted({normal_name(match["name"]) for match in _MARKED.finditer(said)}))


def check(requirements: Sequence[str], packages: Sequence[LockedConda], label: str, step: str | None) -> None:
    """Raises ``ProvidedConflict`` for a requirement that names what conda provides and does not accept it.

    Requirements with a marker are left to uv, which knows whether they hold.
    """
    versions = dict(of(packages))
    for line in requirements:
        wanted = Requirement(line)
        version = versions.get(normal_name(wanted.name))
        if version is None or wanted.marker is not None:
            continue
        names = (normal_name(wanted.name),)
        if wanted.extras:
            extras = ", ".join(sorted(wanted.extras))
            what = f"its extras ({extras}) name further PyPI packages, and a conda package has none"
            hint = f"Ask for those packages themselves in @pypi, and for {wanted.name} in @conda alone."
            raise conflict(f"{label}: {line} is asked for, but {what}", packages, names, step, hint)
        if not wanted.specifier.contains(marked(version), prereleases=True):
            said = f"{label}: the PyPI requirement {line} does not accept what conda provides"
            raise conflict(said, packages, names, step)


def conflict(
    said: str, packages: Sequence[LockedConda], names: Sequence[str], step: str | None, hint: str = _HINT
) -> ProvidedConflict:
    """The error that names both sides: what was said of the PyPI one, and the conda packages with ``names``."""
    lines = [
        f"conda provides {name} {version} (in the package {package.name} {package.version} {package.build})"
        for package in packages
        for name, version in package.provides
        if name in names
    ]
    error = ProvidedConflict("\n".join((said, *lines)), hint=hint, step=step)
    error.data |= {"provided": list(names)}
    return error
