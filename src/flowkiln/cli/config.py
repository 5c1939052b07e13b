"""``flowkiln config``: what the settings are, where they come from, and how to change one."""

from __future__ import annotations

import re
from pathlib import Path

import click

from flowkiln._base import known, paths
from flowkiln._base import settings as settings_module
from flowkiln._base.errors import ExitCode, SettingError
from flowkiln.cli.options import group, session, verb
from flowkiln.cli.output import table

config = group(
    "config",
    help="Show and change settings.",
    lazy={"show": "flowkiln.cli.config:show", "set": "flowkiln.cli.config:set_value"},
    example="flowkiln config show --origin",
)


@verb("show", example="flowkiln config show --origin")
@click.option("--origin", is_flag=True, help="Show where each value was read from.")
@click.pass_context
def show(context: click.Context, *, origin: bool) -> int:
    """Show every setting with its value; secrets in URLs are masked."""
    speaker = session(context)
    found = speaker.settings(Path.cwd())
    rows = []
    values = found.to_json()
    for key, one in values.items():
        text = _text(one["value"])
        rows.append([key, text, one["origin"]] if origin else [key, text])
    document = {"settings": values, "profile": found.profile, "store": str(found.store)}
    headers = ["SETTING", "VALUE", "ORIGIN"] if origin else ["SETTING", "VALUE"]
    speaker.result(document, table(headers, rows))
    return ExitCode.OK


@verb("set", example="flowkiln config set python.downloads never\nflowkiln config set max-workers 4 --project")
@click.argument("key")
@click.argument("value")
@click.option("--project", is_flag=True, help="Write the nearest pyproject.toml, not the user's settings file.")
@click.pass_context
def set_value(context: click.Context, *, key: str, value: str, project: bool) -> int:
    """Set KEY to VALUE in the user's settings file."""
    speaker = session(context)
    parsed = settings_module.parse(key, value)
    path = _project_file() if project else paths.user_settings_file()
    text = _inline(parsed) if known.BY_KEY[key].kind == "pairs" else _toml(parsed)
    changed = _with_value(path, "tool.flowkiln" if project else "", key, text)
    settings_module.check_text(changed, path)
    settings_module.write(path, changed)
    speaker.result({"key": key, "value": parsed, "file": str(path)}, [f"{key} = {_text(parsed)}   ({path})"])
    return ExitCode.OK


def _text(value: known.Plain) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _toml(value: known.Plain) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _inline(value: known.Plain) -> str:
    """A table setting's value as it stands in a file."""
    pairs = [item.partition("=")[::2] for item in value] if isinstance(value, tuple) else []
    return "{" + ", ".join(f"{_toml(name)} = {_toml(text)}" for name, text in pairs) + "}"


def _project_file() -> Path:
    found = paths.nearest_pyproject(Path.cwd())
    if found is not None:
        return found
    message = "no pyproject.toml here or above"
    raise SettingError(message, hint="Without --project the user's settings file is written.")


def _with_value(path: Path, table_name: str, key: str, value: str) -> str:
    """The text of ``path`` with ``key`` set: its line replaced, or added at the top of its table."""
    prefix, _, name = key.rpartition(".")
    section = ".".join(part for part in (table_name, prefix) if part)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    start, end = _section(lines, section)
    if start is None:
        added = [f"[{section}]", f"{name} = {value}"] if section else []
        if not section:
            return "\n".join([f"{name} = {value}", *lines]) + "\n"
        return "\n".join([*lines, *([""] if lines else []), *added]) + "\n"
    for position in range(start, end):
        if re.match(rf"""\s*["']?{re.escape(name)}["']?\s*=""", lines[position]):
            lines[position] = f"{name} = {value}"
            return "\n".join(lines) + "\n"
    lines.insert(start, f"{name} = {value}")
    return "\n".join(lines) + "\n"


def _section(lines: list[str], section: str) -> tuple[int | None, int]:
    """The range of lines below the header of ``section``; the top of the file for an empty name."""
    start: int | None = None if section else 0
    for position, line in enumerate(lines):
        header = re.fullmatch(r"\s*\[([^\[\]]+)\]\s*(#.*)?", line)
        if header is None and not re.match(r"\s*\[\[", line):
            continue
        if start is not None:
            return start, position
        if header is not None and header.group(1).replace(" ", "").replace('"', "") == section:
            start = position + 1
    return start, len(lines)
