"""Settings of pip and uv that would change what is installed and that nothing here can honour: refused by name.

A lock is a function of the request and the indexes. A variable of one machine that chooses other versions would
make another lock there than everywhere else; passing over it would give its owner another environment than the one
that they asked for. Everything else that pip and uv are told (caches, timeouts, what is printed) passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from flowkiln._base import redact
from flowkiln.envs.errors import UnsupportedSetting

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

Kind = str
"""``flag``: set unless it says no; ``value``: any text; ``places``: folders and URLs; else what it may be."""

_LIST = "List `indexes` in [tool.flowkiln] or in the environment: such a list is all that is asked."
_CONSTRAINTS = "Name the file in the request: a requirements file with the line `-c FILE`, read by requirements=."
_BEFORE = 'Write exclude_newer="2026-01-31" into the environment.'
_RELEASES = 'Ask for the pre-release itself, as packages={"demo": ">=2.0rc1"}.'
_WHEELS = "Only wheels are installed; leave it out."

_PIP: Mapping[str, tuple[Kind, str]] = {
    "no-index": ("flag", _LIST),
    "find-links": ("places", "Serve the files as an index. " + _LIST),
    "constraint": ("value", _CONSTRAINTS),
    "pre": ("flag", _RELEASES),
    "no-binary": (":none:", _WHEELS),
    "no-deps": ("flag", "A lock holds what its packages need; leave it out."),
    "uploaded-prior-to": ("value", _BEFORE),
}
_UV: Mapping[str, tuple[Kind, str]] = {
    "UV_NO_INDEX": ("flag", _LIST),
    "UV_FIND_LINKS": ("places", "Serve the files as an index. " + _LIST),
    "UV_INDEX_STRATEGY": (
        "first-index",
        "The first index that has a package decides; order `indexes` so that it does.",
    ),
    "UV_RESOLUTION": ("highest", "Write the versions that you mean into the requirements."),
    "UV_PRERELEASE": ("if-necessary-or-explicit", _RELEASES),
    "UV_CONSTRAINT": ("value", _CONSTRAINTS),
    "UV_OVERRIDE": ("value", "Ask for versions that agree: what a package says of itself is never overridden."),
    "UV_EXCLUDE": ("value", "A lock holds all that its packages need; leave it out."),
    "UV_EXCLUDE_NEWER": ("value", _BEFORE),
    "UV_TORCH_BACKEND": ("value", 'Write cuda="12.4", or cuda="cpu", into the environment.'),
    "UV_NO_BINARY": ("flag", _WHEELS),
    "UV_NO_BINARY_PACKAGE": ("value", _WHEELS),
}
_INDEXES = frozenset({"no-index", "find-links", "UV_NO_INDEX", "UV_FIND_LINKS"})
"""Those about where packages come from: a complete list of indexes stands in their place."""
_WITHOUT_EFFECT = ("trusted-host", "proxy", "cert", "client-cert")
"""pip's about connections: they choose no package, and without them a connection fails aloud."""
_NO = frozenset({"0", "false", "no", "off", "n", "f"})
_DISTRIBUTIONS = (".whl", ".tar.gz", ".zip")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A setting that cannot be honoured: its name and value without secrets, its place, what to write instead."""

    name: str
    value: str
    place: str
    instead: str

    def __str__(self) -> str:
        return f"{self.name} = {self.value} ({self.place})"


def refused(
    environ: Mapping[str, str], files: Iterable[tuple[Path, Mapping[str, str]]], *, complete: bool
) -> tuple[Refusal, ...]:
    """The settings that would change what is installed, variables first.

    ``files`` are pip's with their options; ``complete`` says that the indexes are listed by environment or project.
    """
    return tuple(one for one in _all(environ, files) if not (complete and _option(one.name) in _INDEXES))


def without_effect(environ: Mapping[str, str], files: Iterable[tuple[Path, Mapping[str, str]]]) -> tuple[str, ...]:
    """The settings about connections that are not read here; they change no environment."""
    names = [_variable(option) for option in _WITHOUT_EFFECT if option != "cert"]
    told = [name for name in (*names, "UV_INSECURE_HOST") if environ.get(name)]
    for path, options in files:
        told += [f"{name} in {path}" for name in _WITHOUT_EFFECT if options.get(name)]
    return tuple(told)


def check(refusals: Sequence[Refusal]) -> None:
    """Raises ``UnsupportedSetting`` that names every one of ``refusals``; returns when there is none."""
    if not refusals:
        return
    listed = "\n".join(f"  {one}: {one.instead}" for one in refusals)
    what = "a setting of pip or uv would change" if len(refusals) == 1 else "settings of pip and uv would change"
    message = f"{what} what is locked, and cannot be honoured:\n{listed}"
    hint = "Write instead what stands beside each, or take it out of the environment of this command."
    raise UnsupportedSetting(message, hint=hint, data={"settings": [one.name for one in refusals]})


def _all(environ: Mapping[str, str], files: Iterable[tuple[Path, Mapping[str, str]]]) -> Iterator[Refusal]:
    for name, (kind, instead) in _UV.items():
        if _says(kind, environ.get(name, "")):
            yield Refusal(name, _shown(environ[name]), "environment variable", instead)
    for option, (kind, instead) in _PIP.items():
        name = _variable(option)
        if _says(kind, environ.get(name, "")):
            yield Refusal(name, _shown(environ[name]), "environment variable", instead)
    for path, options in files:
        for option, (kind, instead) in _PIP.items():
            if _says(kind, options.get(option, "")):
                yield Refusal(option, _shown(options[option]), str(path), instead)


def _says(kind: Kind, value: str) -> bool:
    """Whether a setting of ``kind`` with this value changes anything; an empty one never does."""
    told = value.strip()
    if kind == "flag":
        return told != "" and told.lower() not in _NO
    if kind == "places":
        return any(map(_offers, told.replace(",", " ").split()))
    return told != "" and (kind == "value" or told != kind)


def _offers(place: str) -> bool:
    """Whether a place of ``find-links`` may have a package: a folder without one adds nothing."""
    parts = urlsplit(place)
    if parts.scheme in {"http", "https"}:
        return True
    path = Path(unquote(parts.path) if parts.scheme == "file" else place).expanduser()
    try:
        return path.is_file() or any(one.name.endswith(_DISTRIBUTIONS) for one in path.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # what cannot be looked into may hold anything
        return True


def _option(name: str) -> str:
    return name.removeprefix("PIP_").lower().replace("_", "-") if name.startswith("PIP_") else name


def _variable(option: str) -> str:
    return "PIP_" + option.replace("-", "_").upper()


def _shown(value: str) -> str:
    return redact.text(" ".join(value.split()))
