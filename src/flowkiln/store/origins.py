"""Which installed distribution owns a type, and in which version. Reads folder names, not metadata files.

``importlib.metadata`` costs some 20 ms to import and its map of all packages much more; a type's module already
tells the folder in which its distribution's ``.dist-info`` lies.
"""

from __future__ import annotations

import os
import re
import sys

_DIST_INFO = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)\.dist-info")
_NAMED_OTHERWISE = {
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "cv2": "opencv-python",
    "bs4": "beautifulsoup4",
    "dateutil": "python-dateutil",
}
_DEPTH = 4

_owners: dict[str, str | None] = {}
_folders: dict[str, dict[str, tuple[str, str]]] = {}


def type_name(kind: type) -> str:
    """The dotted name of ``kind``; built-in types without their module."""
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


def origin_of(value: object) -> str | None:
    """``numpy 2.4.6`` for a value whose type a distribution owns, else None.

    For a list, tuple or dict the first items are asked, a few levels deep.
    """
    for _ in range(_DEPTH):
        kind = type(value)
        if kind.__module__ != "builtins":
            return _owner(kind.__module__.partition(".")[0])
        if kind is dict and value:
            value = next(iter(value.values()))  # type: ignore[attr-defined]
        elif kind in (list, tuple) and value:
            value = value[0]  # type: ignore[index]
        else:
            return None
    return None


def installed(name: str) -> str | None:
    """The version of the distribution ``name`` that this interpreter would import, None when absent."""
    for entry in sys.path:
        found = _distributions(entry or ".").get(_normal(name))
        if found is not None:
            return found[1]
    return None


def comparison(origin: str | None, python: str, error: BaseException) -> tuple[str, str]:
    """What a value was written with and what is here, as two phrases."""
    here = "Python " + ".".join(map(str, sys.version_info[:3]))
    missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
    if origin is None:
        absent = f"{here} without module {missing}" if missing else here
        return f"Python {python}", absent
    name = origin.partition(" ")[0]
    version = installed(name)
    found = f"{name} {version}" if version else f"no {name}"
    return f"{origin} on Python {python}", f"{found} on {here}"


def _owner(top: str) -> str | None:
    if top not in _owners:
        _owners[top] = _find_owner(top)
    return _owners[top]


def _find_owner(top: str) -> str | None:
    if top in sys.stdlib_module_names or top in {"__main__", "flowkiln"}:
        return None
    module = sys.modules.get(top)
    file: str | None = getattr(module, "__file__", None)
    paths = list(getattr(module, "__path__", ()))
    found_at = paths[0] if paths else file
    if found_at is None:
        return None
    folder = os.path.dirname(found_at)
    found = _distributions(folder)
    known = found.get(_normal(_NAMED_OTHERWISE.get(top, top))) or _by_record(folder, top)
    if known is not None:
        return f"{known[0]} {known[1]}"
    version = getattr(module, "__version__", None)
    return f"{top} {version}" if isinstance(version, str) else None


def _distributions(folder: str) -> dict[str, tuple[str, str]]:
    """Normalised name -> (name, version) of what is installed in ``folder``."""
    if folder not in _folders:
        found: dict[str, tuple[str, str]] = {}
        try:
            names = os.listdir(folder)
        except OSError:
            names = []
        for name in names:
            match = _DIST_INFO.fullmatch(name)
            if match is not None:
                shown = match["name"].replace("_", "-")
                found[_normal(match["name"])] = (shown, match["version"])
        _folders[folder] = found
    return _folders[folder]


def _by_record(folder: str, top: str) -> tuple[str, str] | None:
    """The distribution in ``folder`` whose list of files has the module ``top``."""
    owned = re.compile(rf"^{re.escape(top)}(?:/|\.py,|\.[^/,]*\.so,)", re.MULTILINE)
    for name, version in sorted(_distributions(folder).values()):
        record = f"{folder}/{name.replace('-', '_')}-{version}.dist-info/RECORD"
        try:
            with open(record, encoding="utf-8", errors="replace") as stream:
                if owned.search(stream.read()):
                    return name, version
        except OSError:
            continue
    return None


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
