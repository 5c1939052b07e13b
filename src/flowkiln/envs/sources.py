"""From what users write to an ``EnvSpec``: decorator options, requirements files, pyproject.toml, scripts.

Every way ends in the same options, which are those of ``@pypi``. An unknown option is an error: it would otherwise
do nothing.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from flowkiln._base.platforms import Platform
from flowkiln.envs import (
    condaspec,
    cutoff,
    environmentyml,
    filekinds,
    packageoptions,
    pythons,
    requirements,
    siblings,
    sourcefile,
    uvtables,
    variants,
)
from flowkiln.envs.errors import BadSource, UnknownOption, UnsupportedTarget
from flowkiln.envs.lockfileerrors import NotHonoured
from flowkiln.envs.lockindex import version_pair
from flowkiln.envs.spec import DEFAULT_GLIBC, EnvSpec, normal_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OPTIONS = (
    *("python", "packages", "requirements", "pyproject", "group", "extra", "script"),
    *("platforms", "indexes", "exclude_newer", "glibc", "winners", "index_pins", "cuda", "conda", "channels"),
    *("source", "groups", "extras", "link_scripts"),
)
"""Options of an environment, in decorators and in ``[tool.flowkiln.envs.NAME]``."""

_SCRIPT_KEYS = ("exclude-newer", "index", "sources", "constraint-dependencies")
_SCRIPT = re.compile(r"(?m)^# /// script\s*$\s(?P<content>(^#(| .*)$\s)+)^# ///\s*$")


def spec(options: Mapping[str, Any], *, folder: Path, script: Path | None = None, where: str = "") -> EnvSpec:
    """The request that ``options`` make; None means not given.

    Relative paths start at ``folder``; ``script`` is the file whose PEP 723 block ``script=True`` reads; ``where``
    names the place in messages. Raises ``UnknownOption``, ``BadRequirement``, ``BadSource``, ``UnsupportedPython``,
    ``UnsupportedTarget``, ``BadCutoff``.
    """
    given = {name: value for name, value in options.items() if value is not None}
    packageoptions.check_names(given, OPTIONS, where)
    listed = requirements.Listed()
    found = _Found(listed, folder)
    if "requirements" in given:
        found.listed = requirements.read_file(_path(given["requirements"], folder))
    if {"pyproject", "group", "extra"} & set(given):
        path = _path(given.get("pyproject", "pyproject.toml"), folder)
        found.add_pyproject(path, given.get("group"), given.get("extra"))
    if "source" in given:
        return _of_source(_path(given["source"], folder), given, found, where)
    for name in ("groups", "extras"):
        if name in given:
            message = f"{packageoptions.at(where)}{name} belong to a file, and source= names none"
            raise UnknownOption(message, hint='Write for example source="pyproject.toml", groups=["train"].')
    if given.get("script"):
        if script is None:
            raise UnknownOption(f"{packageoptions.at(where)}script=True needs a file with a `# /// script` block")
        found.add_script(script)
    return _spec(given, found, where)


def _of_source(path: Path, given: Mapping[str, Any], found: _Found, where: str) -> EnvSpec:
    """The request of a file, with what stands beside it. Raises ``UnknownOption`` for what does not go together."""
    beside = sorted({"requirements", "pyproject", "group", "extra", "script"} & set(given))
    kind = filekinds.kind_of(path)
    if kind in filekinds.LOCKS:
        beside += sorted({"packages", "conda", "channels", "index_pins", "exclude_newer", "cuda"} & set(given))
    if kind not in (*filekinds.LOCKS, "pyproject"):
        beside += sorted({"groups", "extras"} & set(given))
    if beside:
        others = ", ".join(dict.fromkeys(beside))
        message = f"{packageoptions.at(where)}source={path.name!r} and {others} do not go together"
        hint = "A lock is taken as it is." if kind in filekinds.LOCKS else "Leave one of them out."
        raise UnknownOption(message, hint=hint)
    groups, extras = given.get("groups", ()), given.get("extras", ())
    if kind in filekinds.LOCKS:
        lock = sourcefile.lock_of(path, groups=groups, extras=extras)
        found.requires_python = sourcefile.requires_python(lock)
        request = _spec(given, found, where)
        return replace(request, given=lock, platforms=request.platforms or sourcefile.platforms(lock))
    if kind == "environment":
        return _spec(found.add_environment(path, given), found, where)
    if kind == "pyproject":
        found.add_project(path, groups, extras)
    elif kind == "script":
        found.add_script(path)
    else:
        found.listed = requirements.read_file(path)
    return _spec(given, found, where)


def _spec(given: Mapping[str, Any], found: _Found, where: str) -> EnvSpec:
    """The request of what files gave and of the options beside them."""
    asked = packageoptions.read(given.get("packages", {}), folder=found.folder, where=where)
    found.listed.requirements += asked.requirements
    found.listed.direct += asked.direct
    code = siblings.code(found.listed)
    direct = siblings.references(found.listed, found.folder)
    packageoptions.settle(found.listed)
    pins = {**found.pins, **packageoptions.index_pins(given, where=where)}
    python = given.get("python")
    return EnvSpec(
        python=pythons.check(str(python)) if python is not None else None,
        requires_python=found.requires_python,
        requirements=tuple(sorted(set(found.listed.requirements))),
        constraints=tuple(sorted(set(found.listed.constraints))),
        hashes=tuple(sorted((name, tuple(sorted(values))) for name, values in found.listed.hashes.items())),
        platforms=_platforms(given.get("platforms", ()), where),
        indexes=tuple(given.get("indexes", ())) or found.indexes or found.listed.indexes,
        glibc=_glibc(given.get("glibc"), where),
        exclude_newer=cutoff.absolute(given["exclude_newer"]) if "exclude_newer" in given else found.exclude_newer,
        winners=tuple(sorted((str(path), normal_name(str(one))) for path, one in given.get("winners", {}).items())),
        index_pins=tuple(sorted(pins.items())),
        direct=direct,
        code=tuple(sorted(code.values())),
        cuda=variants.check(given["cuda"], where) if "cuda" in given and _from_pypi(found, given) else None,
        link_scripts=_link_scripts(given, where),
        **_conda(given, where),
    )


def _from_pypi(found: _Found, given: Mapping[str, Any]) -> bool:
    """Whether a request has a side from PyPI: with conda packages it need not have one."""
    return bool(found.listed.requirements) or "conda" not in given


def _conda(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a request has of conda. Raises ``UnknownOption`` for channels without packages."""
    if "conda" not in given:
        if "channels" in given:
            message = f"{packageoptions.at(where)}channels belong to conda packages, and there are none"
            raise UnknownOption(message, hint="Declare them with @conda, or as `conda` in a pyproject.toml.")
        return {}
    cuda = variants.check(given["cuda"], where) if "cuda" in given else "cpu"
    return {
        "conda": tuple(sorted(set(conda_packages(given["conda"], where=where)))) or ("python",),
        "channels": tuple(given.get("channels", ())),
        "virtual": () if cuda == "cpu" else (("cuda", cuda),),
    }


def _link_scripts(given: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The conda packages whose link scripts may run. Raises ``UnknownOption`` where there can be none."""
    told = given.get("link_scripts", ())
    if isinstance(told, str) or not all(isinstance(name, str) and name for name in told):
        raise UnknownOption(f"{packageoptions.at(where)}link_scripts is a list of conda packages, not {told!r}")
    if told and not {"conda", "source"} & set(given):
        message = f"{packageoptions.at(where)}link_scripts belong to conda packages, and there are none"
        raise UnknownOption(message, hint="Declare them with @conda, or as `conda` in a pyproject.toml.")
    return tuple(sorted({name.strip().lower() for name in told}))


def conda_packages(given: Mapping[str, str] | Sequence[str], *, where: str = "") -> list[str]:
    """The match specs of ``conda``: a dictionary from name to version, or a list of match specs."""
    if isinstance(given, str):
        raise UnknownOption(f"{packageoptions.at(where)}conda is a dictionary or a list, not the text {given!r}")
    if hasattr(given, "items"):
        return [condaspec.package(name, version, where=where) for name, version in given.items()]
    return [condaspec.match_spec(text, where=where) for text in given]


def merge(base: Mapping[str, Any], own: Mapping[str, Any], *, folder: Path | None = None) -> dict[str, Any]:
    """The options of a step: those of its flow with its own on top.

    ``packages`` and ``conda`` are joined, the step's winning for those that both name, with their index; every
    other option of the step replaces the flow's. ``folder`` is where relative paths in ``packages`` start. The
    result can be given to :func:`spec`.
    """
    merged = {**base, **{name: value for name, value in own.items() if value is not None}}
    wanted, pins = packageoptions.merged((base, own), folder=folder or Path())
    if wanted:
        merged["packages"] = wanted
    if pins:
        merged["index_pins"] = pins
    else:
        merged.pop("index_pins", None)
    listed = (line for options in (base, own) for line in conda_packages(options.get("conda") or {}))
    conda = {condaspec.name_of(line): line for line in listed}
    if conda:
        merged["conda"] = sorted(conda.values())
    return {name: value for name, value in merged.items() if value is not None}


def project_environments(pyproject: Path) -> dict[str, dict[str, Any]]:
    """The options of each environment in ``[tool.flowkiln.envs]``, by name. Raises ``BadSource``."""
    table = _toml(pyproject).get("tool", {}).get("flowkiln", {}).get("envs", {})
    for name, options in table.items():
        if not isinstance(options, dict) or not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            message = f"{pyproject}: [tool.flowkiln.envs.{name}] is not an environment"
            raise BadSource(message, hint="Names consist of letters, digits, '-' and '_'; the content is a table.")
    return dict(table)


def project_spec(pyproject: Path, name: str) -> EnvSpec:
    """The request of ``[tool.flowkiln.envs.NAME]``. Raises ``BadSource`` when there is none of that name."""
    environments = project_environments(pyproject)
    if name not in environments:
        known = ", ".join(sorted(environments)) or "none"
        raise BadSource(f"{pyproject} has no environment {name!r}", hint=f"It has: {known}.")
    where = f"{pyproject}, [tool.flowkiln.envs.{name}]"
    return spec(environments[name], folder=pyproject.parent, where=where)


def project_parts(pyproject: Path) -> tuple[frozenset[str], frozenset[str]]:
    """The names of a pyproject.toml's dependency groups, and of its extras, as written. Raises ``BadSource``."""
    document = _toml(pyproject)
    extras = document.get("project", {}).get("optional-dependencies", {})
    return frozenset(document.get("dependency-groups", {})), frozenset(extras)


def file_spec(path: Path, *, group: str | None = None, extra: str | None = None) -> EnvSpec:
    """The request that a file makes by itself: of requirements, a project, a script, an environment or a lock."""
    if filekinds.kind_of(path) == "pyproject":
        return spec({"pyproject": path, "group": group, "extra": extra}, folder=path.parent)
    return spec({"source": path}, folder=path.parent)


class _Found:
    """What files contribute to a request."""

    def __init__(self, listed: requirements.Listed, folder: Path) -> None:
        self.listed = listed
        self.folder = folder
        self.requires_python: str | None = None
        self.indexes: tuple[str, ...] = ()
        self.pins: dict[str, str] = {}
        self.exclude_newer: str | None = None

    def add_project(self, path: Path, groups: Sequence[str], extras: Sequence[str]) -> None:
        """A project's dependencies with those of its groups and extras, as uv installs them."""
        for group in groups:
            self.add_pyproject(path, group, None)
        for extra in extras or (None,):
            self.add_pyproject(path, None, extra)

    def add_environment(self, path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
        """An environment.yml: ``given`` with what it says, which what stands beside it changes or adds to."""
        file = environmentyml.read(requirements.text_of(path), path)
        if file.variables:
            names = ", ".join(name for name, _ in file.variables)
            message = f"{path}: variables ({names}) belong to a step, not to what is installed"
            raise NotHonoured(message, hint="Set them with @environment(vars={...}).")
        self.listed = file.pip
        mine = merge({"conda": list(file.conda)}, {"conda": given.get("conda", [])}).get("conda", [])
        own = {"channels": file.channels, "platforms": file.platforms, "python": file.python}
        return {**{key: value for key, value in own.items() if value}, **given, "conda": mine}

    def add_pyproject(self, path: Path, group: str | None, extra: str | None) -> None:
        """A group alone, or the project's dependencies with an extra's."""
        document = _toml(path)
        project = document.get("project", {})
        if "requires-python" in project:
            self.requires_python = _specifier(project["requires-python"], path)
        if group is not None:
            lines = _group(document.get("dependency-groups", {}), group, path, ())
        else:
            if "dependencies" in project.get("dynamic", []):
                raise BadSource(f"{path}: the dependencies are dynamic", hint="Write them into [project].")
            lines = _texts(project.get("dependencies", []), path, "project.dependencies")
        if extra is not None:
            extras = {normal_name(name): value for name, value in project.get("optional-dependencies", {}).items()}
            if normal_name(extra) not in extras:
                known = ", ".join(sorted(extras)) or "none"
                raise BadSource(f"{path} has no extra {extra!r}", hint=f"It has: {known}.")
            lines += _texts(extras[normal_name(extra)], path, f"extra {extra}")
        self._take(lines, document.get("tool", {}).get("uv", {}), path)

    def add_script(self, path: Path) -> None:
        """The PEP 723 block of a file, its ``[tool.uv]`` cut-off and indexes included."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadSource(f"{path} cannot be read") from error
        blocks = list(_SCRIPT.finditer(text))
        if len(blocks) != 1:
            what = "no `# /// script` block" if not blocks else "more than one `# /// script` block"
            raise BadSource(f"{path} has {what}")
        lines = blocks[0]["content"].splitlines()
        content = "\n".join(line[2:] if line.startswith("# ") else line[1:] for line in lines)
        document = requirements.toml_of(content, path)
        if "requires-python" in document:
            self.requires_python = _specifier(document["requires-python"], path)
        wanted = _texts(document.get("dependencies", []), path, "dependencies")
        table = document.get("tool", {}).get("uv", {})
        packageoptions.check_names(table, _SCRIPT_KEYS, f"{path}, [tool.uv]")
        self._take(wanted, table, path)

    def _take(self, lines: list[str], table: Mapping[str, Any], path: Path) -> None:
        """Requirements that stand in ``path``, with what its ``[tool.uv]`` says of where they come from."""
        told = uvtables.read(table, str(path), folder=path.parent)
        siblings.take(self.listed, lines, told.sources, path.parent, str(path))
        self.indexes, self.pins, self.exclude_newer = told.indexes, told.pins, told.exclude_newer
        self.listed.constraints += told.constraints


def _group(groups: Mapping[str, Any], name: str, path: Path, inside: tuple[str, ...]) -> list[str]:
    """The requirements of a dependency group (PEP 735), included groups in place."""
    table = {normal_name(key): value for key, value in groups.items()}
    wanted = normal_name(name)
    if wanted not in table:
        raise BadSource(f"{path} has no group {name!r}", hint=f"It has: {', '.join(sorted(table)) or 'none'}.")
    if wanted in inside:
        raise BadSource(f"{path}: group {name!r} includes itself")
    lines: list[str] = []
    for item in table[wanted]:
        if isinstance(item, dict) and set(item) == {"include-group"}:
            lines += _group(groups, str(item["include-group"]), path, (*inside, wanted))
        else:
            lines += _texts([item], path, f"group {name}")
    return lines


def _texts(value: object, path: Path, what: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadSource(f"{path}: {what} is not a list of requirements")
    return list(value)


def _specifier(value: object, path: Path) -> str:
    try:
        return str(SpecifierSet(str(value)))
    except InvalidSpecifier as error:
        raise BadSource(f"{path}: requires-python {value!r} is not valid") from error


def _toml(path: Path) -> dict[str, Any]:
    return requirements.toml_of(requirements.text_of(path, encoding="utf-8"), path)


def _path(value: object, folder: Path) -> Path:
    return folder / Path(str(value)).expanduser()


def _platforms(value: Sequence[str | Platform], where: str) -> tuple[Platform, ...]:
    try:
        return tuple(sorted({one if isinstance(one, Platform) else Platform.parse(str(one)) for one in value}))
    except ValueError as error:
        raise UnsupportedTarget(f"{packageoptions.at(where)}{error}") from error


def _glibc(value: object, where: str) -> tuple[int, int]:
    if value is None:
        return DEFAULT_GLIBC
    try:
        return version_pair(str(value))
    except ValueError as error:
        message = f"{packageoptions.at(where)}glibc={value!r} is not a version"
        raise UnsupportedTarget(message, hint='Write for example glibc="2.28".') from error
