"""What a request has of projects on this machine: those that travel as code, and the references to the others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement

from flowkiln.envs import directforms, projectfiles, uvtables
from flowkiln.envs.directerrors import NoProject, ReferencesContradict
from flowkiln.envs.spec import normal_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowkiln.envs.direct import DirectReference
    from flowkiln.envs.directforms import Asked
    from flowkiln.envs.requirements import Listed


def code(found: Listed) -> dict[str, Path]:
    """The folders of the projects that travel as code, by name; what they need joins ``found``.

    Raises ``NoProject`` where that is not written down, and what reading requirements raises.
    """
    folders: dict[str, Path] = {}
    pending = [one for one in found.direct if one.as_code]
    found.direct = [one for one in found.direct if not one.as_code]
    while pending:
        one = pending.pop()
        folder = folders.get(one.reference.name)
        place = _folder(one)
        if folder is not None and folder != place:
            raise ReferencesContradict(f"{one.reference.name} is asked for in {folder} and in {place}")
        folders[one.reference.name] = place
        needs(place, Requirement(one.requirement).extras, found)
    return folders


def references(found: Listed, folder: Path) -> tuple[DirectReference, ...]:
    """The references of a request, sorted by name, with paths from ``folder``. Raises ``ReferencesContradict``."""
    settled: dict[str, DirectReference] = {}
    for one in found.direct:
        reference = directforms.settled(one, folder, environ=os.environ)
        known = settled.setdefault(reference.name, reference)
        if known != reference:
            first, second = (_shown(two) for two in (known, reference))
            message = f"{reference.name} is asked for twice: {first} and {second}"
            raise ReferencesContradict(message)
    return tuple(settled[name] for name in sorted(settled))


def needs(folder: Path, extras: set[str], found: Listed) -> None:
    """Adds the dependencies of the project in ``folder`` to ``found``. Raises ``NoProject``."""
    document = projectfiles.pyproject_of(folder)
    project = document.get("project", {})
    where = str(folder / "pyproject.toml")
    if not _well_formed(document):
        raise NoProject(f"{where}: [project] or [tool] is not of the form that packaging has for it")
    if "dependencies" in project.get("dynamic", []) or not project:
        hint = 'Write them into [project], or leave out "as": "code".'
        raise NoProject(f"{where} does not state the dependencies of the project", hint=hint)
    optional = {normal_name(name): lines for name, lines in project.get("optional-dependencies", {}).items()}
    lines = list(project.get("dependencies", []))
    for extra in sorted(extras):
        if extra not in optional:
            raise NoProject(f"{where} has no extra {extra!r}", hint=f"It has: {', '.join(optional) or 'none'}.")
        lines += optional[extra]
    told = uvtables.read(document.get("tool", {}).get("uv", {}), where, folder=folder)
    take(found, lines, told.sources, folder, where)


def _well_formed(document: Mapping[str, Any]) -> bool:
    """Whether what is read here is of the types of PEP 621: a text for a list would be taken letter by letter."""
    project, tool = document.get("project", {}), document.get("tool", {})
    if not isinstance(project, dict) or not isinstance(tool, dict) or not isinstance(tool.get("uv", {}), dict):
        return False
    optional = project.get("optional-dependencies", {})
    if not isinstance(optional, dict):
        return False
    lists = [project.get("dynamic", []), project.get("dependencies", []), *optional.values()]
    return all(isinstance(one, list) and all(isinstance(text, str) for text in one) for one in lists)


def take(
    found: Listed, lines: list[str], sources: Mapping[str, Mapping[str, Any]], folder: Path, where: str
) -> None:
    """Adds requirements to ``found``, those with a table in ``sources`` (by normal name) from there."""
    for line in lines:
        table = None if directforms.is_direct(line) else sources.get(_name(line))
        if table is None:
            found.add(line, folder, where)
            continue
        wanted = Requirement(line)
        marker = str(wanted.marker) if wanted.marker else None
        told = {**table, "extras": sorted(wanted.extras), "marker": marker}
        found.direct.append(directforms.of_table(wanted.name, told, folder, where))
        if wanted.specifier:
            found.constraints.append(f"{normal_name(wanted.name)}{wanted.specifier}")


def _name(line: str) -> str:
    try:
        return normal_name(Requirement(line).name)
    except ValueError:
        return ""  # what is wrong with it is said where it is taken


def _folder(asked: Asked) -> Path:
    root = Path(asked.reference.url)
    return root / asked.reference.subdirectory if asked.reference.subdirectory else root


def _shown(reference: DirectReference) -> str:
    told = reference.identity
    return " ".join(str(told[key]) for key in ("url", "ref", "subdirectory") if key in told)
