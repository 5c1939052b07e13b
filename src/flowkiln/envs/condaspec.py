"""Match specs: how conda packages are asked for, read and brought into one form.

The normal form is what conda and rattler read alike: ``CHANNEL::NAME VERSION BUILD`` with every version carrying
its operator (``==1.5``, ``1.5.*``, ``>=1.5,<2``). Pure: nothing here needs a solver.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from flowkiln._base import redact
from flowkiln.envs.condaerrors import BadMatchSpec
from flowkiln.envs.subdirs import SUBDIRS

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.\-]*"
_SPEC = re.compile(
    rf"(?:(?P<channel>[^\s\[\]]+?)::)?(?P<name>{_NAME})"
    r"(?P<rest>(?:[\s=<>!~][^\[\]]*)?)(?:\[(?P<keys>[^\[\]]*)\])?"
)
_ATOM = re.compile(r"(?P<operator>>=|<=|==|!=|~=|>|<|=|)(?P<version>\d[0-9A-Za-z_.+!]*?)(?P<star>\.?\*)?")
_BUILD = re.compile(r"[A-Za-z0-9_.+*]+")
_KEY = re.compile(r"""\s*(?P<key>\w+)\s*=\s*(?:'(?P<a>[^']*)'|"(?P<b>[^"]*)"|(?P<c>[^\s,'"]+))\s*(?:,|$)""")
_BUILD_NUMBER = re.compile(r"(?:>=|<=|==|!=|>|<|=)?\d+")
_PYPI = "Conda packages have none of that: ask for it with @pypi."
_FORMS = "Write `NAME`, `NAME ==1.5`, `NAME 1.5.*`, `NAME >=1.5,<2` or `NAME 1.5.* BUILD`."


@dataclass(frozen=True, slots=True)
class _Parts:
    name: str
    version: str = ""
    build: str = ""
    channel: str = ""
    build_number: str = ""

    def __str__(self) -> str:
        channel = f"{self.channel}::" if self.channel else ""
        version = self.version or ("*" if self.build else "")
        number = f'[build_number="{self.build_number}"]' if self.build_number else ""
        return channel + " ".join(part for part in (self.name, version, self.build) if part) + number


def package(name: str, version: str, *, where: str = "") -> str:
    """The match spec of an entry ``name: version`` in ``packages``: a bare version means exactly that one.

    An empty version and ``*`` mean any; ranges, ``1.5.*`` and a build after the version are taken as they are; the
    name may have its channel before it (``conda-forge::numpy``). Raises ``BadMatchSpec``.
    """
    if not isinstance(version, str):
        message = f"{_at(where)}the version of {name!r} is not a text: {version!r}"
        raise BadMatchSpec(message, hint=f'Write it in quotes: "{version}".')
    found = re.fullmatch(rf"(?:[^\s\[\]]+?::)?{_NAME}", name.strip())
    if found is None:
        raise _refused(name, where, "is not the name of a conda package")
    text = version.strip()
    return match_spec(f"{name.strip()} {text}", where=where)


def match_spec(text: str, *, where: str = "") -> str:
    """``text`` in the normal form. Raises ``BadMatchSpec``.

    ``NAME=1.5`` means ``1.5.*``, ``NAME==1.5``, ``NAME 1.5`` and ``NAME=1.5=BUILD`` exactly that version, as conda
    has it.
    """
    line = re.sub(r"\s#.*", "", text).strip()
    _no_pypi(line, where)
    found = _SPEC.fullmatch(line)
    if found is None:
        raise _refused(text, where, "is not a match spec")
    if found["name"].startswith("__"):
        hint = "It belongs to the platform: state what machines have with cuda= or glibc=."
        raise BadMatchSpec(f"{_at(where)}{found['name']} is a virtual package, nothing to install", hint=hint)
    version, build = _halves(found["rest"], text, where)
    keys = _keys(found["keys"] or "", text, where)
    build = keys.get("build", build)
    if build and not _BUILD.fullmatch(build):
        raise _refused(text, where, f"has a build that is not understood: {build!r}")
    number = keys.get("build_number", "")
    if number and not _BUILD_NUMBER.fullmatch(number):
        raise _refused(text, where, f"has a build number that is not understood: {number!r}")
    parts = _Parts(
        name=found["name"].lower(),
        version=_version(keys.get("version", version), text, where),
        build="" if build == "*" else build,
        channel=_channel(keys.get("channel", found["channel"] or ""), found["name"], where),
        build_number=number,
    )
    return str(parts)


def name_of(spec: str) -> str:
    """The package that a match spec is about."""
    found = _SPEC.match(spec.strip())
    return found["name"].lower() if found else spec


def rest_of(spec: str) -> str:
    """What follows the name in a match spec in the normal form: version and build."""
    return anywhere(spec).partition(" ")[2]


def channel_of(spec: str) -> str | None:
    """The channel that a match spec names, None where it names none."""
    found = _SPEC.fullmatch(spec)
    return found["channel"] if found else None


def anywhere(spec: str) -> str:
    """A match spec in the normal form without its channel."""
    return spec.rpartition("::")[2]


def in_channel(spec: str, channel: str) -> str:
    """A match spec in the normal form, asked of ``channel`` instead of the one that it names."""
    return f"{channel}::{anywhere(spec)}"


def _halves(rest: str, text: str, where: str) -> tuple[str, str]:
    """Version and build behind the name, each empty where there is none."""
    tight = re.sub(r"\s*([,|])\s*", r"\1", rest.strip())
    tight = re.sub(r"(>=|<=|==|!=|~=|>|<|=)\s+", r"\1", tight)
    words = tight.split()
    if len(words) == 1 and (found := re.fullmatch(r"={0,2}([^=<>!~,|]+)={1,2}([^=<>!~,|]+)", words[0])):
        return found[1], found[2]
    if len(words) > 2:
        raise _refused(text, where, "has more than a version and a build")
    version, build = (*words, "", "")[:2]
    return version, build


def _version(version: str, text: str, where: str) -> str:
    if version in ("", "*", "=*", "==*", ">=0"):
        return ""
    if version.startswith("==="):
        raise _refused(text, where, "has `===`, which conda does not know")
    atoms = re.split(r"([,|])", version.replace(" ", ""))
    return "".join(atom if atom in (",", "|") else _atom(atom, text, where) for atom in atoms)


def _atom(atom: str, text: str, where: str) -> str:
    """One condition on the version, with its operator spelled out."""
    if atom == "*":
        return atom
    found = _ATOM.fullmatch(atom)
    if found is None:
        raise _refused(text, where, f"has a version that is not understood: {atom!r}")
    operator, version = found["operator"], found["version"].rstrip(".")
    if found["star"]:
        if operator in ("", "=", "=="):
            return f"{version}.*"
        return f"!={version}.*" if operator == "!=" else f"{operator}{version}"
    if operator == "=":
        return f"{version}.*"
    return f"{operator or '=='}{version}"


def _keys(keys: str, text: str, where: str) -> dict[str, str]:
    """What stands in brackets, by key."""
    found: dict[str, str] = {}
    position = 0
    while position < len(keys.rstrip()):
        match = _KEY.match(keys, position)
        if match is None:
            hint = _PYPI if re.fullmatch(r"[\w\-., ]*", keys) else _FORMS
            raise BadMatchSpec(f"{_at(where)}{_shown(text)}: the brackets are not understood", hint=hint)
        if match["key"] not in ("version", "build", "build_number", "channel"):
            message = f"{_at(where)}{_shown(text)}: {match['key']} cannot be honoured in brackets"
            raise BadMatchSpec(message, hint="version, build, build_number and channel can.")
        found[match["key"]] = next(value for value in (match["a"], match["b"], match["c"]) if value is not None)
        position = match.end()
    return found


def _channel(channel: str, name: str, where: str) -> str:
    if "@" in channel or re.search(r"(^|/)t/[^/]+/", channel):
        message = f"{_at(where)}the channel of {name!r} has credentials in it"
        raise BadMatchSpec(message, hint="Put them into ~/.netrc or into the channel's URL in your own settings.")
    if channel.rpartition("/")[2] in SUBDIRS:
        message = f"{_at(where)}the channel of {name!r} names a platform: {channel}"
        raise BadMatchSpec(message, hint="Name the channel alone; `platforms` says what is locked.")
    return channel.rstrip("/")


def _no_pypi(line: str, where: str) -> None:
    """Raises ``BadMatchSpec`` for what only a requirement from PyPI can have."""
    if ";" in line:
        raise BadMatchSpec(f"{_at(where)}{_shown(line)} has a marker", hint=_PYPI)
    if " @ " in line or ("://" in line and "::" not in line) or line.endswith((".conda", ".tar.bz2", ".whl")):
        message = f"{_at(where)}{_shown(line)} is a URL or a file, and a lock needs a name in a channel"
        raise BadMatchSpec(message, hint="Put the package into a channel, or ask for it with @pypi.")


def _refused(text: str, where: str, what: str) -> BadMatchSpec:
    return BadMatchSpec(f"{_at(where)}{_shown(text)} {what}", hint=_FORMS)


def _shown(text: str) -> str:
    return repr(redact.text(text.strip()))


def _at(where: str) -> str:
    return f"{where}: " if where else ""
