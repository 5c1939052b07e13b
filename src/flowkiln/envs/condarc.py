"""The ``.condarc`` files of a machine, read as conda reads them: merged, with ``${VAR}`` replaced."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowkiln.envs import yamltext
from flowkiln.envs.errors import UnknownOption

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_LISTS = ("channels", "default_channels")
_TABLES = ("custom_channels", "custom_multichannels", "mirrored_channels")
_TEXTS = ("channel_alias", "channel_priority")
_CHANGING = frozenset(
    {
        *("add_pip_as_python_dependency", "aggressive_update_packages", "allow_non_channel_urls"),
        *("allowlist_channels", "channel_settings", "client_ssl_cert", "client_ssl_cert_key"),
        *("create_default_packages", "denylist_channels", "disallowed_packages", "exclude_newer"),
        *("migrated_channel_aliases", "migrated_custom_channels", "override_virtual_packages", "pinned_packages"),
        *("proxy_servers", "repodata_fns", "restore_free_channel", "ssl_verify", "subdir", "subdirs"),
        *("track_features", "use_only_tar_bz2", "whitelist_channels"),
    }
)
"""Keys that would change what is found or how, and that nothing here reads."""
_HARMLESS = {"ssl_verify": ("true", "yes", "on"), "channel_priority": ("strict",)}
_SECONDARY = (".yml", ".yaml")


@dataclass(slots=True)
class Condarc:
    """What the files say together, nearest to the user first; ``origin`` is the file that a key is from."""

    lists: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    tables: dict[str, dict[str, tuple[Any, str]]] = field(default_factory=dict)
    texts: dict[str, tuple[str, str]] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)


def read(environ: Mapping[str, str]) -> Condarc:
    """The settings of every file that exists. Raises ``UnknownOption`` for one that cannot be read."""
    found = Condarc()
    for path in reversed(_paths(environ)):  # the nearest first: its entries come before those of the others
        for key, value in _document(path).items():
            _take(found, key, value, path, environ)
    return found


def _take(found: Condarc, key: str, value: Any, path: Path, environ: Mapping[str, str]) -> None:
    origin = str(path)
    if value is None:
        return
    if key in _LISTS:
        entries = value if isinstance(value, list) else [value]
        for entry in entries:
            found.lists.setdefault(key, []).append((_expanded(_text(entry, key, path), environ, path), origin))
    elif key in _TABLES:
        if not isinstance(value, dict):
            raise UnknownOption(f"{path}: {key} is not a mapping", hint="Correct the file.")
        for name, entry in value.items():
            told = [_expanded(_text(one, key, path), environ, path) for one in _entries(entry)]
            found.tables.setdefault(key, {}).setdefault(name, (told, origin))
    elif key in _TEXTS:
        text = _expanded(_text(value, key, path), environ, path)
        found.texts.setdefault(key, (text, origin))
        if key == "channel_priority" and text.lower() not in _HARMLESS[key]:
            found.ignored.append(f"{key}: {text} in {path}")
    elif key in _CHANGING and not (isinstance(value, str) and value.lower() in _HARMLESS.get(key, ())):
        found.ignored.append(f"{key} in {path}")


def _entries(entry: Any) -> list[Any]:
    return entry if isinstance(entry, list) else [entry]


def _text(value: Any, key: str, path: Path) -> str:
    if not isinstance(value, str):
        raise UnknownOption(f"{path}: an entry of {key} is not a text", hint="Correct the file.")
    return value.strip()


def _expanded(text: str, environ: Mapping[str, str], path: Path) -> str:
    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name not in environ:
            message = f"{path} uses the variable {name}, which is not set"
            raise UnknownOption(message, hint=f"Set {name}, or name the channels in the environment.")
        return environ[name]

    return re.sub(r"\$\{(\w+)\}|\$(\w+)", value, text)


def _document(path: Path) -> dict[str, Any]:
    try:
        document = yamltext.load(path.read_text(encoding="utf-8"))
    except OSError:
        return {}
    except (UnicodeDecodeError, yamltext.NotYaml) as error:
        line = f", line {error.line}" if isinstance(error, yamltext.NotYaml) else ""
        what = error.what if isinstance(error, yamltext.NotYaml) else "it is not UTF-8"
        message = f"{path}{line} is not a valid configuration of conda: {what}"
        raise UnknownOption(message, hint="Correct the file, or name the channels in the environment.") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise UnknownOption(f"{path} is not a mapping", hint="Correct the file.")
    return document


def _paths(environ: Mapping[str, str]) -> list[Path]:
    """The files that exist, weakest first: the system's, the installation's, the user's, the one named."""
    home = Path(environ.get("HOME", "/nonexistent"))
    places = [Path("/etc/conda"), Path("/var/lib/conda")]
    if environ.get("CONDA_ROOT"):
        places.append(Path(environ["CONDA_ROOT"]))
    places.append(Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "conda")
    places.append(home / ".conda")
    found = [path for place in places for path in _in(place)]
    found += [home / ".condarc", home / ".mambarc"]
    if environ.get("CONDA_PREFIX"):
        found += _in(Path(environ["CONDA_PREFIX"]))
    if environ.get("CONDARC"):
        found.append(Path(environ["CONDARC"]).expanduser())
    return [path for path in _unique(found) if path.is_file()]


def _in(place: Path) -> Iterator[Path]:
    yield from (place / ".condarc", place / "condarc")
    try:
        yield from sorted(path for path in (place / "condarc.d").iterdir() if path.suffix in _SECONDARY)
    except OSError:
        return


def _unique(found: Iterable[Path]) -> list[Path]:
    return list(dict.fromkeys(found))
