"""Settings: one table of names, one precedence, and the origin of every value.

flag > ``FLOWKILN_*`` > profile > nearest ``pyproject.toml [tool.flowkiln]`` > user settings file > default.
A name that is not in the table is an error wherever it is read from: a misspelt one would otherwise do nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flowkiln._base import paths, redact
from flowkiln._base.errors import SettingError
from flowkiln._base.known import BY_KEY, TABLE, Setting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flowkiln._base.json import JSONObject
    from flowkiln._base.known import Plain

MARKER = ".flowkiln"
"""The folder beside a project that holds its runs unless ``store`` says otherwise."""

RESERVED_TABLES = ("envs", "profiles")
"""Sub-tables of ``[tool.flowkiln]`` that are not settings."""
VARIABLES = {
    "FLOWKILN_CONDA_LOCK": "The conda-lock program that drives `conda.solver`, in place of the one that is found.",
    "FLOWKILN_CONFIG": "The user's settings file, in place of the one in the configuration folder.",
    "FLOWKILN_PROFILE": "The settings profile to use; `--profile` wins over it.",
    "FLOWKILN_USER": "Who runs this, in place of the login name: `current.username`.",
    "FLOWKILN_UV": "The uv program that locks environments, in place of the one installed with flowkiln.",
    "FLOWKILN_HOST_PLATFORM": "The platform, as `linux/arm64`, to take this machine for when locking; for tests.",
    "FLOWKILN_WORKER": "Set by flowkiln itself for the processes of steps.",
}
"""Environment variables that are no settings, each with its meaning."""
RUN_PREFIX = "FLOWKILN_RUN_"
"""How the variable of a flow's parameter begins."""
RESERVED_PREFIXES = (RUN_PREFIX, "FLOWKILN_TEST_")
"""Parameters of flows, and what the project's own tests use."""


@dataclass(frozen=True, slots=True)
class Value:
    """A setting's value with the place it was read from."""

    value: Plain
    origin: str


class Settings:
    """Every setting with its value and origin. Made by ``load``."""

    def __init__(self, values: Mapping[str, Value], *, profile: str | None, project: Path) -> None:
        self._values = dict(values)
        self.profile = profile
        self.project = project
        """The folder that holds the store unless ``store`` says otherwise; see ``project_of``."""

    def __iter__(self) -> Iterator[tuple[Setting, Value]]:
        """Every row of the table with its value, in the table's order."""
        for setting in TABLE:
            yield setting, self._values[setting.key]

    def origin(self, key: str) -> str:
        """Where the value of ``key`` was read from."""
        return self._values[key].origin

    def text(self, key: str) -> str | None:
        """The value of a text or path setting."""
        value = self._values[key].value
        assert value is None or isinstance(value, str)
        return value

    def flag(self, key: str) -> bool:
        """The value of a flag."""
        return self._values[key].value is True

    def count(self, key: str) -> int | None:
        """The value of a count."""
        value = self._values[key].value
        assert value is None or isinstance(value, int)
        return value

    def items(self, key: str) -> tuple[str, ...] | None:
        """The value of a list setting; None when nobody set it and it has no default."""
        value = self._values[key].value
        assert value is None or isinstance(value, tuple)
        return value

    def pairs(self, key: str) -> dict[str, str]:
        """The value of a table setting."""
        return dict(item.partition("=")[::2] for item in self.items(key) or ())

    @property
    def store(self) -> Path:
        """The store's folder, absolute. Raises ``SettingError`` for a default that links to nothing."""
        found = self._store
        if found == self.project / MARKER and found.is_symlink() and not found.exists():
            message = f"{found} is a link to {found.readlink()}, which does not exist"
            raise SettingError(message, hint="Make the folder that it points to, or remove the link.")
        return found

    @property
    def _store(self) -> Path:
        told = self.text("store")
        return Path(told) if told else self.project / MARKER

    def to_json(self) -> JSONObject:
        """Every setting with the value that holds and its origin, secrets in URLs masked."""
        found: JSONObject = {
            key: {"value": shown(one.value), "origin": one.origin} for key, one in self._values.items()
        }
        found["store"]["value"] = str(self._store)
        return found


def shown(value: Plain) -> Plain:
    """``value`` with the secrets of URLs masked, for showing."""
    if isinstance(value, str):
        return redact.text(value)
    if isinstance(value, tuple):
        return tuple(redact.text(item) for item in value)
    return value


def load(
    folder: Path,
    *,
    flags: Mapping[str, Plain] | None = None,
    environ: Mapping[str, str] | None = None,
    profile: str | None = None,
) -> Settings:
    """The settings that hold for commands about files in ``folder``, their store included.

    ``flags`` are values given on the command line by key; ``profile`` is the one asked for there, else
    ``FLOWKILN_PROFILE``. Raises ``SettingError`` naming the place of an unknown name or a value out of range.
    """
    environ = os.environ if environ is None else environ
    folder = folder.absolute()
    user = _read_file(paths.user_settings_file())
    pyproject = paths.nearest_pyproject(folder)
    found = pyproject.parent if pyproject is not None else None
    project_table = _tool_table(found / "pyproject.toml") if found is not None else {}
    profile = profile or environ.get("FLOWKILN_PROFILE") or None
    values = {setting.key: Value(setting.default, "default") for setting in TABLE}
    user_origin, user_base = str(paths.user_settings_file()), paths.user_settings_file().parent
    _take(values, _without_reserved(user), user_origin, user_base)
    if found is not None:
        _take(values, _without_reserved(project_table), str(found / "pyproject.toml"), found)
    if profile:
        base = found or folder
        for table, origin, place in (
            (user, user_origin, user_base),
            (project_table, str(base / "pyproject.toml"), base),
        ):
            _take(values, _profile(table, profile), f"profile {profile} of {origin}", place)
        if not any(profile in table.get("profiles", {}) for table in (user, project_table)):
            message = f"there is no profile {profile!r}"
            hint = f"Add [profiles.{profile}] to {user_origin}, or [tool.flowkiln.profiles.{profile}]."
            raise SettingError(message, hint=hint)
    _take_environ(values, environ)
    for key, value in (flags or {}).items():
        if value is not None:
            values[key] = Value(_checked(BY_KEY[key], value, f"--{key}", Path.cwd()), f"--{key}")
    return Settings(values, profile=profile, project=project_of(folder))


def known_variables() -> tuple[str, ...]:
    """Every environment variable with a meaning, those of parameters apart."""
    return (*sorted(setting.variable for setting in TABLE), *VARIABLES)


def parse(key: str, text: str) -> Plain:
    """The value that ``text`` gives to ``key``. Raises ``SettingError`` for unknown keys and bad values."""
    if key not in BY_KEY:
        raise _unknown(key, "the command line", BY_KEY)
    return _from_text(BY_KEY[key], text, "the command line", Path.cwd())


def project_of(folder: Path) -> Path:
    """The folder that holds the default store of files in ``folder``, which is absolute.

    That is the nearest one, from ``folder`` upward, with ``.flowkiln``, ``pyproject.toml`` or ``.git``; ``folder``
    itself when there is none. A store in the home folder or in the root of the file system is that of files right
    there only: else it would take in every project below.
    """
    home = Path(os.path.expanduser("~"))  # noqa: PTH111  Path.home() fails where nobody has one
    ends = (Path(folder.anchor), home)
    for place in (folder, *folder.parents):
        if place in ends and place != folder:
            break
        if os.path.lexists(place / MARKER) or (place / "pyproject.toml").is_file() or (place / ".git").exists():
            return place
    return folder


def _read_file(path: Path) -> JSONObject:
    try:
        data = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):  # the latter where HOME is no folder, as in some services
        return {}
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise SettingError(message) from error
    return _parse_toml(data, path)


def _parse_toml(data: str, path: Path) -> JSONObject:
    import tomllib  # noqa: PLC0415  commands without a settings file don't pay for it

    try:
        return tomllib.loads(data)
    except tomllib.TOMLDecodeError as error:
        message = f"{path} is not valid TOML: {error}"
        raise SettingError(message, hint="Mend the file; nothing was changed.") from error


def _tool_table(path: Path) -> JSONObject:
    data = path.read_text(encoding="utf-8")
    if "flowkiln" not in data:
        return {}
    table = _parse_toml(data, path).get("tool", {}).get("flowkiln", {})
    return table if isinstance(table, dict) else {}


def _without_reserved(table: JSONObject) -> JSONObject:
    return {key: value for key, value in table.items() if key not in RESERVED_TABLES}


def _profile(table: JSONObject, profile: str) -> JSONObject:
    found = table.get("profiles", {}).get(profile, {})
    return found if isinstance(found, dict) else {}


def _take(values: dict[str, Value], table: JSONObject, origin: str, base: Path) -> None:
    for key, value in _flat(table):
        if key not in BY_KEY:
            raise _unknown(key, origin, BY_KEY)
        values[key] = Value(_checked(BY_KEY[key], value, f"{key} in {origin}", base), origin)


def _flat(table: JSONObject, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in table.items():
        own = BY_KEY.get(prefix + key)
        if isinstance(value, dict) and (own is None or own.kind != "pairs"):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _take_environ(values: dict[str, Value], environ: Mapping[str, str]) -> None:
    by_variable = {setting.variable: setting for setting in TABLE}
    for variable, text in environ.items():
        if not variable.startswith("FLOWKILN_"):
            continue
        if variable in by_variable:
            if text:
                setting = by_variable[variable]
                values[setting.key] = Value(_from_text(setting, text, variable, Path.cwd()), variable)
        elif variable not in VARIABLES and not variable.startswith(RESERVED_PREFIXES):
            raise _unknown(variable, "the environment", known_variables())


def _unknown(name: str, origin: str, known: Mapping[str, Setting] | tuple[str, ...]) -> SettingError:
    import difflib  # noqa: PLC0415  only for a misspelt name

    near = difflib.get_close_matches(name, list(known), n=1)
    message = f"unknown setting {name!r} in {origin}"
    hint = f"Did you mean {near[0]!r}?" if near else "`flowkiln config show` lists every setting."
    return SettingError(message, hint=hint, data={"name": name, "origin": origin})


_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")


def _from_text(setting: Setting, text: str, origin: str, base: Path) -> Plain:
    if setting.kind == "items":
        parts = tuple(part for part in text.replace(",", " ").split() if part)
        return _checked(setting, parts, origin, base)
    if setting.kind == "pairs":
        lines = [line.partition("=") for line in text.splitlines() if line.strip()]
        return _checked(setting, {name.strip(): told.strip() for name, _, told in lines}, origin, base)
    if setting.kind == "flag":
        word = text.strip().lower()
        if word not in (*_TRUE, *_FALSE):
            raise _bad(setting, text, origin, "true or false")
        return word in _TRUE
    if setting.kind == "count":
        try:
            return _checked(setting, int(text), origin, base)
        except ValueError:
            raise _bad(setting, text, origin, "a whole number above zero") from None
    return _checked(setting, text, origin, base)


def _checked(setting: Setting, value: object, origin: str, base: Path) -> Plain:
    if setting.kind == "items":
        if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise _bad(setting, value, origin, "a list of texts")
    if setting.kind == "pairs":
        return _pairs(setting, value, origin)
    if setting.kind == "flag":
        if isinstance(value, bool):
            return value
        raise _bad(setting, value, origin, "true or false")
    if setting.kind == "count":
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        raise _bad(setting, value, origin, "a whole number above zero")
    if not isinstance(value, str) or not value:
        raise _bad(setting, value, origin, "a text")
    if setting.choices and value not in setting.choices:
        raise _bad(setting, value, origin, " or ".join(setting.choices))
    if setting.kind != "path":
        return value
    scheme, mark, _ = value.partition("://")
    if mark and scheme.isalnum():
        raise _bad(setting, value, origin, "a path on this machine, not a URL")
    return str(base / Path(value).expanduser())


def _pairs(setting: Setting, value: object, origin: str) -> tuple[str, ...]:
    # An unquoted host is a table for each of its parts.
    pairs = dict(_flat(value)) if isinstance(value, dict) else {"": None}
    if all(name and told and isinstance(told, str) for name, told in pairs.items()):
        return tuple(f"{name}={told}" for name, told in sorted(pairs.items()))
    raise _bad(setting, "...", origin, "a table from names to texts")


def _bad(setting: Setting, value: object, origin: str, accepted: str) -> SettingError:
    message = f"{setting.key} is {redact.text(str(value))!r} in {origin}; accepted: {accepted}"
    return SettingError(message, hint=setting.help, data={"name": setting.key, "origin": origin})


def check_text(text: str, path: Path) -> None:
    """Raises ``SettingError`` unless ``text`` is valid TOML; ``path`` is named in the message."""
    _parse_toml(text, path)


def write(path: Path, text: str) -> None:
    """Replaces a settings file whole. Raises ``NoSpace`` and ``ReadOnly``."""
    from flowkiln._base.files import write_atomic  # noqa: PLC0415  only `config set` writes

    write_atomic(path, text.encode())
