"""What a project's own files say of it without running any of its code: its name, dependencies, import packages."""

from __future__ import annotations

import configparser
import tomllib
from typing import TYPE_CHECKING, Any

from flowkiln.envs import sourcefolders
from flowkiln.envs.directerrors import FolderMissing, NoProject
from flowkiln.envs.spec import normal_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_NO_CODE = frozenset(
    {"setup.py", "conftest.py", "noxfile.py", "tasks.py", "docs", "doc", "examples", "tests", "test"}
)


def pyproject_of(folder: Path) -> dict[str, Any]:
    """The pyproject.toml in ``folder``, empty where there is none. Raises ``FolderMissing`` and ``NoProject``."""
    if not folder.is_dir():
        raise FolderMissing(f"there is no folder {folder}")
    try:
        return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise NoProject(f"{folder / 'pyproject.toml'} cannot be read: {error}", hint="Correct it.") from error


def name_of(folder: Path) -> str:
    """The normal name of the distribution in ``folder``. Raises ``FolderMissing`` and ``NoProject``."""
    document = pyproject_of(folder)
    found = document.get("project", {}).get("name") or _table(document, "tool", "poetry").get("name")
    if not isinstance(found, str):
        found = _setup_cfg(folder).get("metadata", "name", fallback=None)
    if not found:
        if not any((folder / name).is_file() for name in ("pyproject.toml", "setup.py", "setup.cfg")):
            hint = "Name the folder that holds the pyproject.toml."
            raise NoProject(f"{folder} holds no Python project", hint=hint)
        raise NoProject(f"{folder} does not say the name of its distribution in a pyproject.toml or setup.cfg")
    return normal_name(found.strip())


def code_of(folder: Path, *, environ: Mapping[str, str]) -> dict[str, tuple[Path, int]]:
    """The files of the import packages and modules in ``folder``: path as steps import it -> file and size.

    What lies in ``src``, or in the folders that a build back end is told of; else the package of the project's
    name, or all there are. Raises ``NoProject`` where there is none, and as ``sourcefolders.files_of``.
    """
    files = sourcefolders.files_of(folder, environ=environ)
    paths = {file.path: file.size for file in files}
    found: dict[str, tuple[Path, int]] = {}
    for root in _roots(folder, paths):
        prefix, inside = root.rpartition("/")[0], root
        for path in paths:
            if path == inside or path.startswith(f"{inside}/"):
                place = folder / path
                found[path[len(prefix) + 1 :] if prefix else path] = (place, place.stat().st_size)
    if not found:
        raise NoProject(f"{folder} holds no import package", hint="Put it into the folder `src`.")
    return found


def _roots(folder: Path, paths: Mapping[str, int]) -> list[str]:
    """The paths of import packages and modules below ``folder``."""
    document = pyproject_of(folder)
    told = _table(document, "tool", "hatch", "build", "targets", "wheel").get("packages")
    if isinstance(told, list):
        return [str(one).strip("/") for one in told]
    where = _table(document, "tool", "setuptools", "packages", "find").get("where", ["src"])
    for parent in where if isinstance(where, list) else ["src"]:
        below = list(_importable(paths, f"{str(parent).strip('/')}/"))
        if below:
            return below
    top = list(_importable(paths, ""))
    own = str(document.get("project", {}).get("name", "")).replace("-", "_").replace(".", "_").lower()
    named = [one for one in top if one.removesuffix(".py").lower() == own]
    return named or [one for one in top if one not in _NO_CODE and not one.startswith("test_")]


def _importable(paths: Mapping[str, int], prefix: str) -> Iterator[str]:
    """Modules, and folders that hold any, directly below ``prefix``."""
    seen = set()
    for path in paths:
        if not path.startswith(prefix) or not path.endswith((".py", ".so")):
            continue
        first = path[len(prefix) :].partition("/")[0]
        if first.removesuffix(".py").isidentifier() and first not in seen:
            seen.add(first)
            yield f"{prefix}{first}"


def _table(document: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    for name in names:
        document = document.get(name, {})
        if not isinstance(document, dict):
            return {}
    return document


def _setup_cfg(folder: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(folder / "setup.cfg", encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise NoProject(f"{folder / 'setup.cfg'} cannot be read: {error}", hint="Correct it.") from error
    return parser
