"""Runs the console transcripts of a document.

In a document, a ``python`` or ``toml`` block that begins with ``# NAME.EXT`` is a file; a ``console`` block is
commands after ``$ `` with what they print. All blocks of a document run in order in one folder. In expected
output a line ``...`` stands for any number of lines and ``...`` inside a line for any text; runs of blanks are
equal. Other blocks (``sh``, ``text``) are not run.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_BLOCK = re.compile(r"^```(?P<kind>[a-z]+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (?P<name>[\w./-]+\.(?:py|toml|txt))\n")


@dataclass(frozen=True)
class File:
    """A block that is a file."""

    name: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command with the lines that it must print."""

    line: str
    expected: tuple[str, ...]


def blocks(text: str) -> Iterator[File | Command]:
    """The files and commands of a document, in order."""
    for block in _BLOCK.finditer(text):
        body = block["body"]
        named = _FILE.match(body)
        if block["kind"] == "console":
            yield from _commands(body)
        elif named is not None:
            yield File(named["name"], body)


def _commands(body: str) -> Iterator[Command]:
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        line, *expected = part.splitlines()
        while line.endswith("\\"):
            line = line[:-1] + expected.pop(0)
        yield Command(line, tuple(expected))


def run(
    document: str, folder: Path, environ: Mapping[str, str], *, installing: Mapping[str, str] | None = None
) -> list[str]:
    """Carries a document out in ``folder``; a list of what differs, each with the command.

    ``installing`` are further variables for the lines that run ``pip install``.
    """
    differences = []
    for one in blocks(document):
        if isinstance(one, File):
            path = folder / one.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(one.text, encoding="utf-8")
            continue
        done = subprocess.run(
            one.line,
            shell=True,
            cwd=folder,
            env={**environ, **((installing or {}) if "pip install" in one.line else {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if not matches(done.stdout.splitlines(), list(one.expected)):
            shown = "\n".join(one.expected)
            differences.append(
                f"$ {one.line}\n--- printed (exit {done.returncode})\n{done.stdout}--- expected\n{shown}"
            )
    return differences


def matches(printed: list[str], expected: list[str]) -> bool:
    """Whether ``printed`` is what ``expected`` describes, ellipses and blanks considered."""
    pattern = "".join(r"(?:[^\n]*\n)*?" if line.strip() == "..." else _line(line) + r"\n" for line in expected)
    text = "".join(" ".join(line.split()) + "\n" for line in printed)
    return re.fullmatch(pattern, text) is not None


def _line(line: str) -> str:
    words = " ".join(line.split())
    return ".*?".join(re.escape(part) for part in words.split("..."))
