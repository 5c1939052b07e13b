"""``environment.yml`` as conda, mamba and conda-lock read it, as what it asks for; nothing is solved here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowkiln.envs import condalock, requirements, yamltext
from flowkiln.envs.errors import BadSource
from flowkiln.envs.lockfileerrors import NotHonoured
from flowkiln.envs.subdirs import platform_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from flowkiln._base.platforms import Platform
    from flowkiln.envs.requirements import Listed

KEYS = ("name", "channels", "dependencies", "variables", "platforms", "prefix")
"""The keys that a file may have. ``prefix``, which `conda env export` writes, is without effect for conda too."""

_WHY_NOT = {
    "category": "an environment has no categories; give the other ones a file of their own",
}
_SPEC = re.compile(
    r"(?:(?P<channel>[^\s:\[\]]+)::)?(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]*)(?P<rest>[\s=<>!~\[].*)?", re.DOTALL
)
_PYTHON = re.compile(r"={0,2}\s*(3\.\d+(?:\.\d+)?)(?:\.\*)?(?:[=\s].*)?")
_SELECTOR = re.compile(r"^\s*-.*\s#\s*\[(?P<what>[a-z0-9_ ]+)\]\s*$")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentFile:
    """What a file asks for, in its order.

    ``conda`` are match specs as they are written, ``channel::name`` included; ``pip`` the requirements of its pip
    part; ``channels`` names or URLs, best first, ``nodefaults`` whether conda's own channels are ruled out.
    ``platforms`` are those it names that flowkiln has, ``others`` the rest (``win-64``). ``python`` is the ``X.Y``
    or ``X.Y.Z`` that its spec of python pins, None where it leaves a choice. ``variables`` are
    told, so that whoever cannot honour them says so.
    """

    name: str | None
    channels: tuple[str, ...]
    nodefaults: bool
    conda: tuple[str, ...]
    pip: Listed
    platforms: tuple[Platform, ...]
    others: tuple[str, ...]
    variables: tuple[tuple[str, str], ...]
    python: str | None


def read(text: str, path: Path, *, environ: Mapping[str, str] | None = None) -> EnvironmentFile:
    """What the file asks for. Raises ``BadSource`` and ``NotHonoured``, naming file, line and key.

    ``environ`` are the variables for ``${NAME}`` in the pip part, those of this process unless given.
    """
    file = _File(text.removeprefix("\ufeff"), path)
    document = file.document()
    channels = file.texts(document, "channels")
    named = file.texts(document, "platforms")
    conda, pip = file.dependencies(document)
    known, others = _platforms(named)
    if named and not known:
        raise NotHonoured(f"{file.at('platforms')}: of {', '.join(named)}, flowkiln has no platform")
    return EnvironmentFile(
        name=file.text_of(document, "name"),
        channels=tuple(one for one in channels if one != "nodefaults"),
        nodefaults="nodefaults" in channels,
        conda=tuple(conda),
        pip=requirements.read_lines(pip, path, environ=environ),
        platforms=known,
        others=others,
        variables=tuple(file.variables(document)),
        python=_python(conda),
    )


class _File:
    """A file with its text, so that messages can say where."""

    def __init__(self, text: str, path: Path) -> None:
        self._text, self._path = text, path

    def document(self) -> dict[str, Any]:
        """The mapping in it, with no other keys than those that are honoured, and no selectors."""
        try:
            document = yamltext.load(self._text)
        except yamltext.NotYaml as error:
            raise BadSource(f"{self._path}, line {error.line}: not valid YAML: {error.what}") from error
        if not isinstance(document, dict):
            raise BadSource(f"{self._path} is no environment.yml: it holds no mapping")
        for key in document:
            if key not in KEYS:
                why = _WHY_NOT.get(key, f"known keys are {', '.join(KEYS)}")
                raise NotHonoured(f"{self.at(key)}: the key {key!r} cannot be honoured: {why}")
        for number, line in enumerate(self._text.splitlines(), 1):
            if match := _SELECTOR.match(line):
                message = f"{self._path}, line {number}: the selector [{match['what']}] cannot be honoured"
                hint = "Ask for the package on every platform, or give each platform a file of its own."
                raise NotHonoured(message, hint=hint)
        return document

    def at(self, word: str) -> str:
        """The file and the line where ``word`` stands first, outside of comments."""
        lines = enumerate(self._text.splitlines(), 1)
        number = next((number for number, line in lines if word in re.sub(r"(^|\s)#.*", "", line)), 1)
        return f"{self._path}, line {number}"

    def text_of(self, document: dict[str, Any], key: str) -> str | None:
        """The text of a key; None without one."""
        value = document.get(key)
        if value is not None and not isinstance(value, str):
            raise BadSource(f"{self.at(key)}: {key} is not a text")
        return value

    def texts(self, document: dict[str, Any], key: str) -> list[str]:
        """The texts of a list; none without one."""
        value = document.get(key) or []
        if not isinstance(value, list) or not all(isinstance(one, str) and one.strip() for one in value):
            raise BadSource(f"{self.at(key)}: {key} is not a list of texts")
        return [one.strip() for one in value]

    def variables(self, document: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """Names and values, by name; a value of nothing is an empty text."""
        value = document.get("variables") or {}
        if not isinstance(value, dict):
            raise BadSource(f"{self.at('variables')}: variables is not a mapping from names to texts")
        for name, text in sorted(value.items()):
            if not _VARIABLE.fullmatch(name) or not isinstance(text, str | None):
                raise BadSource(f"{self.at(name)}: {name!r} is no variable with a text")
            yield name, text or ""

    def dependencies(self, document: dict[str, Any]) -> tuple[list[str], list[str]]:
        """The match specs, and the lines of the pip part."""
        listed = document.get("dependencies") or []
        if not isinstance(listed, list):
            raise BadSource(f"{self.at('dependencies')}: dependencies is not a list")
        conda: list[str] = []
        pip: list[str] = []
        for one in listed:
            if isinstance(one, str):
                conda.append(self._spec(one))
            elif isinstance(one, dict) and one.keys() == {"pip"}:
                pip += self.texts(one, "pip")
            else:
                key = (
                    next((name for name in one if name != "pip"), "pip")
                    if isinstance(one, dict)
                    else "dependencies"
                )
                what = f"the part {key!r} cannot be honoured" if isinstance(one, dict) else "an entry is not a text"
                raise NotHonoured(f"{self.at(key)}: {what}; dependencies are texts and one part 'pip'")
        return conda, pip

    def _spec(self, text: str) -> str:
        spec = " ".join(text.split())
        if "://" in spec or spec.startswith((".", "/", "~", "@")) or spec.endswith((".conda", ".tar.bz2")):
            hint = "Name the package, with channel::name if need be; its channel goes into channels."
            raise NotHonoured(f"{self.at(text)}: {spec!r} is a file, not a package of a channel", hint=hint)
        if not _SPEC.fullmatch(spec):
            hint = 'Write for example "numpy", "numpy=1.26", "numpy >=1.26,<2" or "conda-forge::numpy".'
            raise BadSource(f"{self.at(text)}: {spec!r} is not a package with its version", hint=hint)
        return spec


def _platforms(named: list[str]) -> tuple[tuple[Platform, ...], tuple[str, ...]]:
    known, others = set(), set()
    for subdir in named:
        try:
            known.add(platform_of(subdir))
        except ValueError:
            others.add(subdir)
    return tuple(sorted(known)), tuple(sorted(others))


def _python(conda: list[str]) -> str | None:
    for spec in conda:
        name, rest = condalock.split(spec.rpartition("::")[2])
        if name == "python" and (match := _PYTHON.fullmatch(rest)):
            return match[1]
    return None
