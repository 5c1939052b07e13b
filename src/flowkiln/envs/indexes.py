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
from flowkiln.envs import ambient, credentials, variants
from flowkiln.envs.credentials import Askers, Login, Logins
from flowkiln.envs.errors import UnknownOption

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from flowkiln._base.settings import Settings
    from flowkiln.envs.ambient import Refusal
    from flowkiln.envs.spec import EnvSpec

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
class IndexPlan(Logins):
    """The indexes that a resolution asks, best first; the last is the default one.

    ``refused`` are settings of pip and uv that would change what is locked, for ``ambient.check``; ``ignored``
    names those about connections that have no effect here; ``netrc`` is the file of credentials by host, ``askers``
    are whom to ask for those that stand nowhere. ``pins`` are the packages that come from one index alone, by name.
    """

    indexes: tuple[Index, ...]
    refused: tuple[Refusal, ...] = ()
    ignored: tuple[str, ...] = ()
    netrc: Path | None = None
    askers: Askers = field(default_factory=Askers)
    pins: tuple[tuple[str, Index], ...] = ()

    @property
    def everywhere(self) -> tuple[Index, ...]:
        """Every index that may be asked: the list, then those of pins that are not in it."""
        known = {index.shown: index for index in (*self.indexes, *(pin for _, pin in self.pins))}
        return tuple(known.values())

    @property
    def pin_names(self) -> dict[str, str]:
        """What the index of a pin, by its URL without credentials, is called when uv is asked."""
        return {url: f"pin-{number}" for number, url in enumerate(sorted({pin.shown for _, pin in self.pins}), 1)}

    def variables(self, *, offline: bool = False) -> dict[str, str]:
        """The environment variables that tell uv about them: URLs with credentials stay off command lines.

        What only we can ask for, unless ``offline``, stands in the URLs as well. Raises ``CredentialsFailed``.
        """
        *extras, default = (index.url if offline else self._whole(index.url) for index in self.indexes)
        told = {"UV_DEFAULT_INDEX": default}
        if extras:
            told["UV_INDEX"] = " ".join(extras)
        for _, pin in self.pins:
            found = None if offline else self.login(pin.url)
            if found is not None and found.origin != "netrc":
                name = self.pin_names[pin.shown].upper().replace("-", "_")
                told |= {f"UV_INDEX_{name}_USERNAME": found.user, f"UV_INDEX_{name}_PASSWORD": found.password}
        return told

    def _whole(self, url: str) -> str:
        found = self.login(url)
        return with_login(url, found) if found is not None and found.origin in {"command", "keyring"} else url

    @property
    def shown(self) -> str:
        """The indexes in one line, without credentials."""
        return ", ".join(index.shown for index in self.everywhere)

    def asked(self, names: Iterable[str]) -> list[str]:
        """The indexes that are asked for the packages ``names``, without credentials."""
        pins = dict(self.pins)
        listed = [index for name in names for index in ([pins[name]] if name in pins else self.indexes)]
        return list(dict.fromkeys(index.shown for index in listed))

    def find(self, url: str) -> Index | None:
        """The index that has this URL, credentials and a final slash aside."""
        wanted = redact.url(url).rstrip("/")
        return next((index for index in self.indexes if index.shown == wanted), None)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The URLs of every index that may be asked, credentials included."""
        return tuple(index.url for index in self.everywhere)


def plan(
    declared: Sequence[str] = (),
    settings: Sequence[str] = (),
    *,
    environ: Mapping[str, str] | None = None,
    keyring: str | None = None,
    commands: Mapping[str, str] | None = None,
    pins: Iterable[tuple[str, str]] = (),
    variant: Mapping[str, str] | None = None,
) -> IndexPlan:
    """The indexes to ask, by the table of precedence. Raises ``UnknownOption`` for what is no index.

    ``keyring`` is the setting of that name, ``commands`` those that print passwords, by host;
    ``pins`` are pairs of a package and its index, ``variant`` the indexes that the option ``cuda`` stands for.
    """
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
        pins=tuple(sorted(_pins(pins, variant or {}, default), key=lambda pair: pair[0])),
        askers=Askers(commands=commands or {}, keyring=credentials.by_keyring(keyring, environ), environ=environ),
    )


def plan_of(settings: Settings, spec: EnvSpec | None = None) -> IndexPlan:
    """The indexes to ask for the request ``spec``, or for any, as the settings say."""
    base, cuda = settings.text("torch-index") or "", spec.cuda if spec is not None else None
    return plan(
        spec.indexes if spec is not None else (),
        settings.items("indexes") or (),
        keyring=settings.text("keyring"),
        commands=settings.pairs("credentials"),
        pins=spec.index_pins if spec is not None else (),
        variant=variants.pins(cuda, base) if cuda else None,
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


def _pins(
    pins: Iterable[tuple[str, str]], variant: Mapping[str, str], default: Index
) -> Iterable[tuple[str, Index]]:
    found = {name: _checked(url, "cuda") for name, url in variant.items()}
    for name, url in pins:
        (found[name],) = _listed([url], "environment", default)
    return found.items()


def _checked(url: str, origin: str) -> Index:
    try:
        parts = urlsplit(url)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:  # half a pair of brackets
        sound = False
    if not sound:
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
    return with_login(url, Login(user or "", password or "", "url"))


def with_login(url: str, login: Login) -> str:
    """``url`` with user and password inside, in place of its own."""
    parts = urlsplit(url)
    secret = f"{quote(login.user, safe='')}:{quote(login.password, safe='')}@{credentials.host(url)}"
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
