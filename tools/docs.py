"""Writes the generated pages of ``docs/``, or with ``--check`` tells which of them are out of date."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import flowkiln
from flowkiln.cli import reference

WIDTH = 116
"""Of a line of code, as the formatter has it: it formats code in texts too."""
FOLDER = Path(__file__).resolve().parent.parent / "docs"


def pages() -> dict[str, str]:
    """Every generated page by its path below ``docs``."""
    made = {f"reference/{name}": text for name, text in {**reference.pages(), "api.md": api()}.items()}
    return {**made, "decisions/README.md": decisions()}


def decisions() -> str:
    """The list of the decisions, from their first lines."""
    lines = ["# Decisions", "", "<!-- Written by `make docs`. -->", ""]
    for path in sorted((FOLDER / "decisions").glob("[0-9]*.md")):
        title = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        lines.append(f"* [{title}]({path.name})")
    return "\n".join(lines) + "\n"


def api() -> str:
    """The page of the names that flows import, from their docstrings and signatures."""
    lines = ["# What flows import", "", "<!-- Written by `make docs`. -->", ""]
    lines.append("Everything here is `from flowkiln import NAME`.")
    for name in sorted(flowkiln.__all__, key=str.lower):
        thing = getattr(flowkiln, name)
        lines += ["", f"## {name}", ""]
        lines += [*signature(name, thing), inspect.getdoc(thing) or ""]
        if inspect.isclass(thing):
            lines += members(thing)
    return "\n".join(lines).rstrip() + "\n"


def signature(name: str, thing: object) -> list[str]:
    """The call of a function or class as a block; nothing for other things."""
    if not (inspect.isfunction(thing) or inspect.isclass(thing)):
        return []
    parameters = inspect.signature(thing).parameters.values()
    shown = [str(one.replace(annotation=one.empty)) for one in parameters if shows(one)]
    call = [f"{name}({', '.join(shown)})"]
    if len(call[0]) > WIDTH:
        call = [f"{name}(", *(f"    {one}," for one in shown), ")"]
    return ["```python", *call, "```", ""] if shown else []


def shows(parameter: inspect.Parameter) -> bool:
    """Whether users pass it: not the decorated function, nor what collects misspelt names."""
    return parameter.kind not in {parameter.POSITIONAL_ONLY, parameter.VAR_KEYWORD}


def members(kind: type) -> list[str]:
    """The documented public methods and properties of a class."""
    lines: list[str] = []
    for name, member in sorted(vars(kind).items()):
        about = inspect.getdoc(member)
        if name.startswith("_") or not about or not (inspect.isfunction(member) or isinstance(member, property)):
            continue
        lines += ["", f"`.{name}`" if isinstance(member, property) else f"`.{name}()`", "", about]
    return lines


def main(arguments: list[str]) -> int:
    """Writes the pages, or compares them; 1 when one differs."""
    wanted = pages()
    stale = [name for name, text in wanted.items() if not same(FOLDER / name, text)]
    if arguments == ["--check"]:
        for name in stale:
            print(f"docs/{name} is out of date: run `make docs`", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        (FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
        (FOLDER / name).write_text(wanted[name], encoding="utf-8")
        print(f"wrote docs/{name}")
    return 0


def same(path: Path, text: str) -> bool:
    """Whether the file holds exactly ``text``."""
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
