"""Requirements as text: normalised, and read from requirements files with pip's syntax."""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import InvalidName, canonicalize_name

from flowkiln.envs import directforms
from flowkiln.envs.errors import BadRequirement, BadSource

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from flowkiln.envs.directforms import Asked

_OPERATOR = re.compile(r"^\s*(===|==|~=|!=|<=|>=|<|>|@)")
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")
_HASH = re.compile(r"\s--hash(?:=|\s+)(\S+)")
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_EDITABLE = re.compile(r"(?:-e|--editable)(?:\s+|=|(?=[./~]))")
_KINDS = {
    "-r": "requirements",
    "--requirement": "requirements",
    "-c": "constraints",
    "--constraint": "constraints",
    "-i": "index",
    "--index-url": "index",
    "--extra-index-url": "extra",
}
_MEANT_ANYWAY = ("--require-hashes", "--prefer-binary", "--only-binary=:all:", "--only-binary :all:")


def requirement(text: str, *, where: str = "") -> str:
    """``text`` (PEP 508) in its normal form. Raises ``BadRequirement``; ``where`` says in what it stands."""
    place = f"{where}: " if where else ""
    try:
        parsed = Requirement(text.strip())
        name = canonicalize_name(parsed.name, validate=True)
        named = ",".join(sorted(canonicalize_name(one, validate=True) for one in parsed.extras))
    except (InvalidRequirement, InvalidName) as error:
        reason = str(error).splitlines()[0]
        message = f"{place}{text.strip()!r} is not a requirement: {reason}"
        raise BadRequirement(message, hint='Write for example "pandas>=2.2,<3".') from error
    if parsed.url is not None:
        message = f"{place}{parsed.name} is asked for by URL, which is not possible here"
        raise BadRequirement(message, hint="Ask for it by URL among the packages themselves.")
    extras = f"[{named}]" if named else ""
    marker = f" ; {parsed.marker}" if parsed.marker else ""
    return f"{name}{extras}{parsed.specifier}{marker}"


def package(name: str, version: str, *, where: str = "") -> str:
    """The requirement for an entry of ``packages={name: version}``.

    A bare version means exactly that one, ``2.*`` its series, an empty text or ``*`` any.
    """
    wanted, semicolon, marker = version.strip().partition(";")
    wanted = wanted.strip()
    if wanted in {"", "*"}:
        wanted = ""
    elif not _OPERATOR.match(wanted):
        wanted = f"=={wanted}"
    try:
        SpecifierSet(wanted if not wanted.startswith("@") else "")
    except InvalidSpecifier as error:
        place = f"{where}: " if where else ""
        message = f"{place}{version!r} is not a version of {name!r}"
        raise BadRequirement(message, hint='Write for example "2.2.*", "2.2.1" or ">=2.2,<3".') from error
    if wanted.startswith("@"):
        wanted = f" {wanted}"
    return requirement(f"{name}{wanted}{f' ; {marker}' if semicolon else ''}", where=where)


def name_of(text: str) -> str:
    """The normal name of the distribution that a requirement asks for, with nothing else."""
    return canonicalize_name(Requirement(text).name)


@dataclass(slots=True)
class Listed:
    """What a requirements file asks for, normalised, in order. ``hashes``: name -> sha256 hex digests.

    ``direct`` is what is asked for by its source; it is not among ``requirements``.
    """

    requirements: list[str] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    hashes: dict[str, set[str]] = field(default_factory=dict)
    index: str | None = None
    extras: list[str] = field(default_factory=list)
    direct: list[Asked] = field(default_factory=list)

    def add(self, line: str, base: Path, where: str = "") -> None:
        """Takes a requirement, or a source whose relative path starts at ``base``."""
        if directforms.is_direct(line):
            self.direct.append(directforms.of_line(line, base, where))
        else:
            self.requirements.append(requirement(line, where=where))

    @property
    def indexes(self) -> tuple[str, ...]:
        """The indexes it names as a complete list, best first; empty when it names none."""
        if not self.extras and self.index is None:
            return ()
        return (*self.extras, self.index or "default")


def text_of(path: Path, *, encoding: str = "utf-8-sig") -> str:
    """The text of a file that somebody named. Raises ``BadSource``."""
    try:
        return path.read_text(encoding=encoding)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        hint = "Name a file that exists; paths start at the folder of the declaring file."
        raise BadSource(f"{path} cannot be read: {reason}", hint=hint) from error


def toml_of(text: str, path: Path) -> dict[str, Any]:
    """The document in ``text``, which stands in the file at ``path``. Raises ``BadSource``."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadSource(f"{path} is not valid TOML: {error}") from error


def read_file(path: Path, *, environ: Mapping[str, str] | None = None) -> Listed:
    """What the requirements file at ``path`` asks for, ``-r`` and ``-c`` files included.

    Hashes, markers, index options and ``${VARIABLES}`` in URLs are understood. Raises ``BadSource`` naming file
    and line for everything that a lock cannot honour.
    """
    listed = Listed()
    _read(path, listed, os.environ if environ is None else environ, constraint=False, seen=())
    return listed


def _read(
    path: Path, listed: Listed, environ: Mapping[str, str], *, constraint: bool, seen: tuple[Path, ...]
) -> None:
    resolved = path.resolve()
    if resolved in seen:
        raise BadSource(f"{path} includes itself", hint="Remove the -r or -c line that leads back to it.")
    text = text_of(path)
    for number, line in _logical(text.splitlines()):
        _take(line, f"{path}, line {number}", path, listed, environ, constraint=constraint, seen=(*seen, resolved))


def read_lines(lines: Iterable[str], path: Path, *, environ: Mapping[str, str] | None = None) -> Listed:
    """What lines in the syntax of requirements files ask for that stand in the file at ``path``, of another kind.

    Raises ``BadSource`` as ``read_file`` does, naming the line by its text.
    """
    listed = Listed()
    variables = os.environ if environ is None else environ
    for text in lines:
        for _, line in _logical(text.splitlines()):
            where = f"{path}, pip entry {line!r}"
            _take(line, where, path, listed, variables, constraint=False, seen=())
    return listed


def _take(
    line: str,
    where: str,
    path: Path,
    listed: Listed,
    environ: Mapping[str, str],
    *,
    constraint: bool,
    seen: tuple[Path, ...],
) -> None:
    if editable := _EDITABLE.match(line):
        line = line[editable.end() :].strip()  # taken as a copy: what is locked does not change afterwards
    if editable or not line.startswith("-"):
        _take_requirement(line, where, path.parent, listed, environ, constraint=constraint)
        return
    kind, value = _option(line, where)
    if kind in {"requirements", "constraints"}:
        inner = path.parent / value
        _read(inner, listed, environ, constraint=constraint or kind == "constraints", seen=seen)
    elif kind == "index":
        listed.index = _expanded(value, where, environ)
    elif kind == "extra":
        listed.extras.append(_expanded(value, where, environ))


def _logical(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Lines with continuations joined and comments removed, with the number of their first line."""
    gathered, first = "", 0
    for number, raw in enumerate(lines, 1):
        first = first or number
        if raw.endswith("\\") and not raw.lstrip().startswith("#"):
            gathered += raw[:-1] + " "
            continue
        line = re.sub(r"(^|\s)#.*$", "", gathered + raw).strip()
        if line:
            yield first, line
        gathered, first = "", 0
    if gathered.strip():
        yield first, gathered.strip()


def _take_requirement(
    line: str, where: str, base: Path, listed: Listed, environ: Mapping[str, str], *, constraint: bool
) -> None:
    hashes = _HASH.findall(line)
    text = _HASH.sub("", line).strip()
    if match := re.search(r"\s(--?[a-z][\w-]*)", text):
        raise BadSource(f"{where}: option {match[1]} of a requirement is not supported")
    for value in hashes:
        if not _SHA256.fullmatch(value):
            raise BadSource(f"{where}: {value!r} is not a sha256 hash", hint="Locks know sha256 only.")
    allowed = {value.removeprefix("sha256:") for value in hashes}
    if directforms.is_direct(text) and not constraint:
        found = directforms.of_line(_expanded(text, where, environ), base, where)
        listed.direct.append(directforms.with_hashes(found, allowed, where))
        return
    wanted = requirement(text, where=where)
    (listed.constraints if constraint else listed.requirements).append(wanted)
    if allowed:
        listed.hashes.setdefault(name_of(wanted), set()).update(allowed)


def _option(line: str, where: str) -> tuple[str, str]:
    """The kind of an option line with its value; ``("", "")`` for one that holds without being written."""
    if " ".join(line.split()) in _MEANT_ANYWAY:
        return "", ""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise BadSource(f"{where}: {line!r} is not understood: {error}") from error
    name, sign, value = words[0].partition("=")
    if not sign and name not in _KINDS and name[:2] in _KINDS and not name.startswith("--"):
        name, value = name[:2], name[2:]  # -rother.txt
    if name not in _KINDS:
        known = ", ".join(sorted(_KINDS))
        raise BadSource(f"{where}: option {name} is not supported", hint=f"Supported: {known}, --hash.")
    value = value or " ".join(words[1:])
    if not value:
        raise BadSource(f"{where}: option {name} needs a value")
    return _KINDS[name], value


def _expanded(value: str, where: str, environ: Mapping[str, str]) -> str:
    def one(match: re.Match[str]) -> str:
        if match[1] not in environ:
            raise BadSource(f"{where}: the environment variable {match[1]} is not set")
        return environ[match[1]]

    return _VARIABLE.sub(one, value)
