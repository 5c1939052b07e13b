"""Which package indexes are asked: the one table of precedence, and credentials by host.

decorator or file > ``indexes`` of the settings > ``UV_INDEX``, ``UV_DEFAULT_INDEX`` > ``PIP_INDEX_URL``,
``PIP_EXTRA_INDEX_URL`` > pip.conf > PyPI. The first two are complete lists; of the others, extra indexes and the
default index are taken from the first place that names one. Extra indexes come before the default one, and the
first index that has a package decides its versions. Nothing else of the user's environment is read.
"""

from __future__ import annotations

import configparser
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit, urlunsplit

from flowkiln._base import redact
from flowkiln.envs import ambient, credentials
from flowkiln.envs.errors import UnknownOption

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from flowkiln.envs.ambient import Refusal
    from flowkiln.envs.credentials import Login

PYPI = "https://pypi.org/simple"
KEYWORDS = ("pypi", "default")

_PipFiles = list[tuple[Path, dict[str, str]]]
"""pip's files with their options, weakest first."""


@dataclass(frozen=True, slots=True)
class Index:
    """One index: its URL, credentials included, and where it was named."""

    url: str = field(repr=False)
    origin: str

    @property
    def shown(self) -> str:
        """The URL without credentials: what locks and messages contain."""
        return redact.url(self.url).rstrip("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexPlan:
    """The indexes that a resolution asks, best first; the last is the default one.

    ``refused`` are settings of pip and uv that would change what is locked, for ``ambient.check``; ``ignored``
    names those about connections that have no effect here; ``netrc`` is the file of credentials by host.
    """

    indexes: tuple[Index, ...]
    refused: tuple[Refusal, ...] = ()
    ignored: tuple[str, ...] = ()
    netrc: Path | None = None

    def variables(self) -> dict[str, str]:
        """The environment variables that tell uv about them: URLs with credentials stay off command lines."""
        *extras, default = self.indexes
        told = {"UV_DEFAULT_INDEX": default.url}
        if extras:
            told["UV_INDEX"] = " ".join(index.url for index in extras)
        return told

    @property
    def shown(self) -> str:
        """The indexes in one line, without credentials."""
        return ", ".join(index.shown for index in self.indexes)

    def find(self, url: str) -> Index | None:
        """The index that has this URL, credentials and a final slash aside."""
        wanted = redact.url(url).rstrip("/")
        return next((index for index in self.indexes if index.shown == wanted), None)

    def login(self, url: str) -> Login | None:
        """Who logs in at ``url``: as an index on the same host says, else netrc, else None."""
        return credentials.of_urls(url, (index.url for index in self.indexes)) or credentials.of_netrc(
            url, self.netrc
        )

    def credentials(self, url: str) -> tuple[str, str] | None:
        """User and password for ``url``, None where nobody gives any."""
        found = self.login(url)
        return found.pair if found else None


def plan(
    declared: Sequence[str] = (),
    settings: Sequence[str] = (),
    *,
    environ: Mapping[str, str] | None = None,
) -> IndexPlan:
    """The indexes to ask, by the table of precedence. Raises ``UnknownOption`` for what is no index."""
    environ = os.environ if environ is None else environ
    files = [(path, _pip_options(path)) for path in _pip_paths(environ)]
    extras, default = _ambient(environ, files)
    found: list[Index] = []
    for listed, origin in ((declared, "environment"), (settings, "setting indexes")):
        if listed:
            found = list(_listed(listed, origin, default))
            break
    else:
        found = [*extras, default]
    unique: dict[str, Index] = {}
    for index in found:
        unique.setdefault(index.shown, index)
    return IndexPlan(
        indexes=tuple(unique.values()),
        refused=ambient.refused(environ, files, complete=bool(declared or settings)),
        ignored=ambient.without_effect(environ, files),
        netrc=Path(environ.get("NETRC") or Path(environ.get("HOME", "/nonexistent")) / ".netrc"),
    )


def _listed(urls: Iterable[str], origin: str, default: Index) -> Iterator[Index]:
    for text in urls:
        url = text.strip()
        if url == "default":
            yield default
        elif url == "pypi":
            yield Index(PYPI, origin)
        else:
            yield _checked(url, origin)


def _checked(url: str, origin: str) -> Index:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        message = f"{redact.url(url)!r} ({origin}) is not the URL of a package index"
        hint = f"Write an http or https URL, or one of {', '.join(KEYWORDS)}."
        raise UnknownOption(message, hint=hint)
    return Index(url, origin)


def _ambient(environ: Mapping[str, str], files: _PipFiles) -> tuple[list[Index], Index]:
    """Extra indexes and the default index, each from the first place that names one."""
    layers = [_uv_layer(environ), _pip_layer(environ), _file_layer(files)]
    extras = next((layer.extras for layer in layers if layer.extras), [])
    default = next((layer.default for layer in layers if layer.default), Index(PYPI, "default"))
    return extras, default


@dataclass(frozen=True, slots=True)
class _Layer:
    extras: list[Index]
    default: Index | None


def _uv_layer(environ: Mapping[str, str]) -> _Layer:
    extras = [_checked(_named(one, environ), "UV_INDEX") for one in environ.get("UV_INDEX", "").split()] or [
        _checked(one, "UV_EXTRA_INDEX_URL") for one in environ.get("UV_EXTRA_INDEX_URL", "").split()
    ]
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        if told := environ.get(name, "").strip():
            return _Layer(extras, _checked(_named(told, environ), name))
    return _Layer(extras, None)


def _named(text: str, environ: Mapping[str, str]) -> str:
    """``name=url`` as a URL with the credentials that ``UV_INDEX_NAME_USERNAME`` and ``_PASSWORD`` hold."""
    name, sign, url = text.partition("=")
    if not sign or "/" in name or ":" in name:
        return text
    key = "UV_INDEX_" + "".join(c if c.isalnum() else "_" for c in name).upper()
    user, password = environ.get(f"{key}_USERNAME"), environ.get(f"{key}_PASSWORD")
    if user is None and password is None:
        return url
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    secret = f"{quote(user or '', safe='')}:{quote(password or '', safe='')}@{host}"
    return urlunsplit((parts.scheme, secret, parts.path, parts.query, parts.fragment))


def _pip_layer(environ: Mapping[str, str]) -> _Layer:
    extras = [_checked(one, "PIP_EXTRA_INDEX_URL") for one in environ.get("PIP_EXTRA_INDEX_URL", "").split()]
    told = environ.get("PIP_INDEX_URL", "").strip()
    return _Layer(extras, _checked(told, "PIP_INDEX_URL") if told else None)


def _file_layer(files: _PipFiles) -> _Layer:
    extras: list[Index] = []
    default: Index | None = None
    for path, options in files:
        origin = str(path)
        if told := options.get("index-url"):
            default = _checked(told, origin)
        if told := options.get("extra-index-url"):
            extras = [_checked(one, origin) for one in told.split()]
    return _Layer(extras, default)


def _pip_options(path: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text(encoding="utf-8"), source=str(path))
    except (OSError, UnicodeDecodeError):
        return {}
    except configparser.Error as error:
        message = f"{path} is not a valid pip configuration: {error.message}"
        raise UnknownOption(message, hint="Correct the file, or set PIP_CONFIG_FILE to another one.") from error
    options: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            options.update({key.replace("_", "-"): value.strip() for key, value in parser.items(section)})
    return options


def _pip_paths(environ: Mapping[str, str]) -> list[Path]:
    """pip's configuration files that exist, weakest first."""
    told = environ.get("PIP_CONFIG_FILE")
    if told == os.devnull:
        return []
    home = Path(environ.get("HOME", "/nonexistent"))
    if sys.platform == "darwin":
        folders = [Path("/Library/Application Support/pip"), home / ".pip"]
        folders += [home / "Library/Application Support/pip", home / ".config/pip"]
        paths = [folder / "pip.conf" for folder in folders]
    else:
        config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
        shared = [Path(one) / "pip" for one in (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":") if one]
        folders = [*shared, Path("/etc"), home / ".pip", config / "pip"]
        paths = [folder / "pip.conf" for folder in folders]
    if environ.get("VIRTUAL_ENV"):
        paths.append(Path(environ["VIRTUAL_ENV"]) / "pip.conf")
    if told:
        paths.append(Path(told))
    return [path for path in paths if path.is_file()]
