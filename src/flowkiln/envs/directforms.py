"""Direct references as users write them: tables, ``name @ URL``, and the forms of pip in requirements files."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from packaging.markers import InvalidMarker, Marker
from packaging.utils import (
    InvalidName,
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)

from flowkiln._base import digests, redact
from flowkiln.envs import projectfiles, sourcefolders
from flowkiln.envs.direct import DirectReference
from flowkiln.envs.directerrors import BadReference, FolderMissing, OtherSource, ReferencesContradict, SourceError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

KEYS = ("git", "url", "path")
"""Where a source is: a table of a reference has one of them."""
_SHAPES = {"git": "URL", "url": "URL", "path": "path"}
_ALLOWED = {
    "git": ("git", "ref", "subdirectory", "extras", "marker"),
    "url": ("url", "sha256", "subdirectory", "extras", "marker"),
    "path": ("path", "as", "subdirectory", "extras", "marker"),
}
_NAMED = re.compile(
    r"\s*(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[(?P<extras>[^\]]*)\])?\s*@\s*(?P<rest>.+)", re.DOTALL
)
_PATH = re.compile(r"(?:\.{1,2}(?:/|$|\[)|/|~)")
_EXTRAS = re.compile(r"(?P<rest>.*[^\s\[])\[(?P<extras>[^\[\]/]+)\]", re.DOTALL)
_SCP = re.compile(r"(?P<user>[A-Za-z0-9._-]+)@(?P<host>[A-Za-z0-9.-]+):(?P<path>[^/].*)")
_ARCHIVES = (".whl", ".tar.gz", ".tgz", ".zip", ".tar.bz2", ".tar.xz", ".tar")
_TRANSPORTS = ("https", "http", "ssh", "file", "git")
_REF = re.compile(r"[^\s~^:?*\[\\\x00-\x1f\x7f]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Asked:
    """One distribution as it is asked for: the requirement by its name alone, and where its source is.

    The path of a folder is absolute until ``settled``. ``as_code`` is for a folder that is not installed: its
    import packages travel with the flow's code.
    """

    requirement: str
    reference: DirectReference
    as_code: bool = False


def is_direct(text: str) -> bool:
    """Whether a line asks for a source: by URL, repository or path, with or without a name before it."""
    line = text.strip()
    return bool(_PATH.match(line) or _NAMED.fullmatch(line) or re.match(r"[a-z+]+://", line) or _file_name(line))


def of_line(text: str, base: Path, where: str = "") -> Asked:
    """What a line asks for; relative paths start at ``base``. Raises ``BadReference``, the errors of projects."""
    place = f"{where}: " if where else ""
    line, marker = _without_marker(text.strip())
    named = _NAMED.fullmatch(line)
    extras = named["extras"] if named else None
    rest = named["rest"].strip() if named else line
    if named is None and "://" not in rest and (found := _EXTRAS.fullmatch(rest)):
        rest, extras = found["rest"], found["extras"]
    shown = redact.text(text.strip())
    if re.match(r"(?:svn|hg|bzr)\+", rest):
        message = f"{place}{shown!r} is a repository of a kind that is not supported; git is"
        raise BadReference(message)
    told: dict[str, Any]
    if rest.startswith("git+"):
        told = _of_git(rest, shown, place)
    elif "://" in rest or rest.startswith("file:"):
        told = _of_url(rest, shown, place)
    elif _PATH.match(rest) or _file_name(rest):
        told = {"path": rest}
    else:
        hint = "Write NAME @ URL, NAME @ git+URL@REF or NAME @ ./PATH."
        raise BadReference(f"{place}{shown!r} names neither a URL nor a path", hint=hint)
    egg = told.pop("egg", None)
    name = named["name"] if named else egg or _own_name(told, base, shown, place)
    return of_table(name, {**told, "extras": _list(extras), "marker": marker}, base, where)


def of_table(name: str, told: Mapping[str, Any], base: Path, where: str = "") -> Asked:
    """What a table asks for: ``git`` with ``ref``, ``url`` with ``sha256``, or ``path``. Raises as ``of_line``."""
    place = f"{where}: " if where else ""
    kinds = [key for key in KEYS if key in told]
    if len(kinds) != 1:
        message = f"{place}{name} has {' and '.join(kinds) or 'no source'}"
        raise BadReference(message, hint="Give one of git, url and path.")
    _check(name, told, kinds[0], place)
    name, _, own = name.partition("[")
    extras = [*_list(own.rstrip("] ")), *told.get("extras", ())]
    try:
        normal = canonicalize_name(name.strip(), validate=True)
        named = ",".join(sorted({canonicalize_name(one, validate=True) for one in extras}))
        marker = f" ; {Marker(told['marker'])}" if told.get("marker") else ""
    except (InvalidName, InvalidMarker) as error:
        raise BadReference(f"{place}{name!r} is not asked for properly: {error}") from error
    try:
        reference = {"git": _git, "url": _url, "path": _path}[kinds[0]](normal, told, base, place)
    except (ValueError, OSError) as error:  # no URL at all, a path too long: their words may hold a password
        raise BadReference(f"{place}{kinds[0]} of {name} is no valid {_SHAPES[kinds[0]]}") from error
    wanted = f"{normal}{f'[{named}]' if named else ''}{marker}"
    return Asked(wanted, reference, as_code=told.get("as") == "code")


def with_hashes(asked: Asked, allowed: Collection[str], where: str) -> Asked:
    """``asked`` with the sha256 that a line allows for its file. Raises ``BadReference``."""
    if not allowed:
        return asked
    known = {*allowed, *((asked.reference.sha256,) if asked.reference.sha256 else ())}
    if asked.reference.kind != "archive" or len(known) > 1:
        what = (
            "a file that is named has one hash" if asked.reference.kind == "archive" else "only files have hashes"
        )
        raise BadReference(f"{where}: {asked.reference.name}: {what}", hint="Correct its --hash.")
    return replace(asked, reference=replace(asked.reference, sha256=next(iter(known))))


def settled(asked: Asked, folder: Path, *, environ: Mapping[str, str]) -> DirectReference:
    """The reference of ``asked`` as a request has it: a path relative to ``folder``, with its content now.

    Raises the errors of ``sourcefolders.content``.
    """
    reference = asked.reference
    if "://" in reference.url or reference.kind == "git":
        return reference
    place = Path(reference.url)
    relative = PurePath(os.path.relpath(place, folder.absolute())).as_posix()
    if reference.kind == "folder":
        return replace(reference, url=relative, content=sourcefolders.content(place, environ=environ))
    sha256 = digests.hexdigits(digests.of_file(place))
    if reference.sha256 not in {None, sha256}:
        message = (
            f"{reference.name}: {relative} has another sha256\n  asked for {reference.sha256}\n  found {sha256}"
        )
        raise OtherSource(message, hint="Correct the hash, or restore the file.")
    return replace(reference, url=relative, sha256=sha256)


def _git(name: str, told: Mapping[str, Any], _: Path, place: str) -> DirectReference:
    url = str(told["git"]).removeprefix("git+")
    if found := _SCP.fullmatch(url):
        url = f"ssh://{found['user']}@{found['host']}/{found['path']}"
    parts = urlsplit(url)
    if parts.scheme not in _TRANSPORTS or not (parts.netloc or parts.scheme == "file") or not parts.path.strip("/"):
        message = f"{place}{redact.text(url)!r} is not the URL of a git repository"
        raise BadReference(message, hint=f"Known are {', '.join(_TRANSPORTS)}: https://HOST/NAME.git")
    ref = told.get("ref")
    if ref is not None and (not ref or ref.startswith("-") or not _REF.fullmatch(ref)):
        raise BadReference(f"{place}{ref!r} is not the name of a branch, tag or commit")
    inside = _subdirectory(told, place)
    return DirectReference(name=name, kind="git", url=url, ref=ref, subdirectory=inside)


def _url(name: str, told: Mapping[str, Any], base: Path, place: str) -> DirectReference:
    url = str(told["url"])
    parts = urlsplit(url)
    if parts.scheme == "file":
        return _path(name, {**told, "path": unquote(parts.path)}, base, place)
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        message = f"{place}{redact.text(url)!r} is not the URL of an archive"
        raise BadReference(message, hint="Write https://HOST/NAME-1.0.tar.gz, or use git for a repository.")
    return _archive(name, url, told, place)


def _archive(name: str, url: str, told: Mapping[str, Any], place: str) -> DirectReference:
    if (secret := redact.in_query(url)) is not None:
        message = f"{place}{redact.text(url)!r} holds a secret ({secret}), and a lock keeps the URL"
        raise BadReference(
            message, hint="Leave it out of the URL: logins belong into ~/.netrc or your own settings."
        )
    file = unquote(urlsplit(url).path.rpartition("/")[2])
    if not file.endswith(_ARCHIVES):
        message = f"{place}{redact.text(url)!r} is neither a wheel nor a source archive"
        raise BadReference(message, hint=f"Its name ends in one of {', '.join(_ARCHIVES)}.")
    if file.endswith(".whl") and (own := _named_by(file)) != name:
        what = f"a wheel of {own}" if own else "not the name of a wheel"
        raise BadReference(f"{place}{name} is asked for, and {file} is {what}")
    sha256 = told.get("sha256")
    if sha256 is not None and not _SHA256.fullmatch(str(sha256)):
        raise BadReference(f"{place}{sha256!r} is not a sha256 hash", hint="Write its 64 hex digits.")
    inside = _subdirectory(told, place)
    return DirectReference(name=name, kind="archive", url=url, sha256=sha256, subdirectory=inside)


def _path(name: str, told: Mapping[str, Any], base: Path, place: str) -> DirectReference:
    path = Path(os.path.normpath(base.absolute() / Path(str(told["path"])).expanduser()))
    if path.is_file():
        if path.suffix == ".whl":
            hint = "Publish it to an index, or ask for its source."
            raise BadReference(
                f"{place}{name}: {path.name} is a wheel in a file that no other machine has", hint=hint
            )
        return _archive(name, path.as_posix(), told, place)
    if not path.is_dir():
        what = f"{place}{name} is asked for in {path}, where nothing is"
        raise FolderMissing(what)
    if told.get("as") not in {None, "code", "wheel"}:
        raise BadReference(f"{place}{name} is asked for as {told['as']!r}", hint='Write "as": "code" or "wheel".')
    if told.get("sha256"):
        raise BadReference(f"{place}{name} is a folder, which has no hash", hint="Leave the hash out.")
    inside = _subdirectory(told, place)
    return DirectReference(name=name, kind="folder", url=path.as_posix(), subdirectory=inside)


def _subdirectory(told: Mapping[str, Any], place: str) -> str | None:
    value = told.get("subdirectory")
    if value is None:
        return None
    parts = PurePath(str(value)).parts
    if not parts or ".." in parts or str(value).startswith("/"):
        raise BadReference(f"{place}subdirectory {value!r} is not a folder inside of the source")
    return "/".join(parts)


def _check(name: str, told: Mapping[str, Any], kind: str, place: str) -> None:
    """Raises ``BadReference`` for keys and values that the table of ``kind`` has not."""
    for key, value in told.items():
        if key in {"version", "index"}:
            message = f"{place}{name} has {kind} and {key}: its source decides what it is"
            raise ReferencesContradict(message)
        if key not in _ALLOWED[kind] and value is not None and not (key == "sha256" and kind == "path"):
            hint = f"Beside {kind} may stand {', '.join(_ALLOWED[kind][1:])}."
            raise BadReference(f"{place}{name} has {kind} and {key}", hint=hint)
        if key == "extras":
            if isinstance(value, str) or not all(isinstance(one, str) for one in value):
                raise BadReference(f"{place}extras of {name} is not a list of texts")
        elif value is not None and not isinstance(value, str):
            raise BadReference(f"{place}{key} of {name} is not a text")


def _of_git(text: str, shown: str, place: str) -> dict[str, Any]:
    url, _, fragment = text.removeprefix("git+").partition("#")
    told = _fragment(fragment, ("egg", "subdirectory"), shown, place)
    host, slash, path = url.partition("://")[2].partition("/")
    path, at, ref = path.rpartition("@") if "@" in path else (path, "", "")
    scheme = url.partition("://")[0]
    return {"git": f"{scheme}://{host}{slash}{path}", **({"ref": unquote(ref)} if at else {}), **told}


def _of_url(text: str, shown: str, place: str) -> dict[str, Any]:
    url, _, fragment = text.partition("#")
    return {"url": url, **_fragment(fragment, ("egg", "subdirectory", "sha256"), shown, place)}


def _fragment(text: str, known: tuple[str, ...], shown: str, place: str) -> dict[str, Any]:
    told = dict(parse_qsl(text, keep_blank_values=True))
    for key in told:
        if key not in known:
            hint = f"Known are {', '.join(known)}."
            raise BadReference(f"{place}{shown!r} says {key!r} after the #, which cannot be honoured", hint=hint)
    return {key: value for key, value in told.items() if value}


def _without_marker(line: str) -> tuple[str, str | None]:
    rest, *marker = re.split(r"\s+;\s*|;\s+", line, maxsplit=1)
    return rest.strip(), marker[0].strip() if marker else None


def _own_name(told: Mapping[str, Any], base: Path, shown: str, place: str) -> str:
    """The name that a source without one before it has. Raises ``BadReference`` and the errors of projects."""
    if "git" in told:
        message = f"{place}{shown!r} does not say which distribution it is"
        raise BadReference(message, hint="Write NAME @ git+URL, or #egg=NAME after it.")
    url = str(told.get("url", ""))
    path = str(told.get("path") or (unquote(urlsplit(url).path) if url.startswith("file:") else url))
    if found := _named_by(unquote(urlsplit(path).path if "://" in path else path).rpartition("/")[2]):
        return found
    if "://" in path:
        message = f"{place}{shown!r} does not say which distribution it is"
        raise BadReference(message, hint="Write NAME @ URL.")
    folder = Path(os.path.normpath(base / Path(path).expanduser()))
    inside = told.get("subdirectory")
    try:
        return projectfiles.name_of(folder / inside if inside else folder)
    except SourceError as error:
        error.message = f"{place}{error.message}"
        error.args = (error.message,)
        raise


def _named_by(file: str) -> str | None:
    """The normal name of the distribution in a file of that name, as far as that says it."""
    try:
        if file.endswith(".whl"):
            return str(parse_wheel_filename(file)[0])
        return str(parse_sdist_filename(file)[0]) if file.endswith((".tar.gz", ".zip")) else None
    except (InvalidWheelFilename, InvalidSdistFilename):
        return None


def _file_name(text: str) -> bool:
    return text.endswith(_ARCHIVES) and not re.search(r"[\s=<>@]", text)


def _list(text: str | None) -> list[str]:
    return [one.strip() for one in (text or "").split(",") if one.strip()]
