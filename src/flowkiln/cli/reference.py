"""Writes the reference pages from the commands, errors and settings themselves.

``python -m flowkiln.cli.reference docs/reference/`` writes ``commands.md``, ``errors.md`` and ``settings.md``.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowkiln._base import known, settings
from flowkiln._base.errors import ExitCode
from flowkiln.cli.explain import page, registry
from flowkiln.cli.flow import VERBS, FlowGroup, FlowVerb, flow_env, flow_parameters
from flowkiln.cli.options import common_parameters
from flowkiln.cli.root import root

if TYPE_CHECKING:
    from collections.abc import Iterator

NOTE = "<!-- Written by `python -m flowkiln.cli.reference docs/reference/`. -->"

EXIT_CODES = {
    ExitCode.OK: "success",
    ExitCode.USER_CODE: "a step's own code failed",
    ExitCode.BAD_INPUT: "bad input or settings",
    ExitCode.LOCK: "a lock is missing or stale",
    ExitCode.UNSOLVABLE: "the requirements cannot be met",
    ExitCode.SERVICE: "a service could not be reached, or refused",
    ExitCode.ENVIRONMENT: "an environment is not the one that was locked",
    ExitCode.LEASE: "somebody else holds the task",
    ExitCode.STORE: "the store is damaged or cannot be used",
    ExitCode.INTERNAL: "a bug in flowkiln",
    ExitCode.INTERRUPTED: "interrupted",
}


def pages() -> dict[str, str]:
    """Every reference page by file name."""
    return {"commands.md": _commands(), "errors.md": _errors(), "settings.md": _settings()}


def write(folder: Path) -> None:
    """Writes the pages below ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


def _commands() -> str:
    lines = ["# Commands", "", NOTE, ""]
    lines += [
        "These options are taken by every command, on either side of the verb:",
        "",
        *_option_table(list(common_parameters())),
        "",
        "These by every verb of a flow, on either side of the verb:",
        "",
        *_option_table(list(flow_parameters())),
    ]
    for path, command in everything():
        lines += _command(path, command)
    lines += ["", "## Exit codes", "", "| code | meaning |", "|---|---|"]
    lines += [f"| {int(code)} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    return "\n".join(lines) + "\n"


def everything() -> Iterator[tuple[str, click.Command]]:
    """Every command with the words that call it: those of a flow, then those of ``flowkiln``."""
    flow = FlowGroup(VERBS)
    flow.add_command(flow_env, "env")
    yield from _walk(flow, "python FLOW.py")
    yield from _walk(root, "flowkiln")


def _walk(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if command is not root:
        yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _walk(found, f"{path} {name}")


def _command(path: str, command: click.Command) -> list[str]:
    context = click.Context(command, info_name=path)
    if isinstance(command, click.Group):
        return ["", f"## {path}", "", inspect.cleandoc(command.help or "")]
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [
        "",
        f"### {path}",
        "",
        f"`{path} {usage}`".replace(" `", "`"),
        "",
        inspect.cleandoc(command.help or ""),
    ]
    everywhere = [*common_parameters(), *(flow_parameters() if isinstance(command, FlowVerb) else ())]
    common = {parameter.name for parameter in everywhere} | {"help"}
    own = [p for p in command.params if isinstance(p, click.Option) and p.name not in common and not p.hidden]
    if own:
        lines += ["", *_option_table(list(own))]
    return [*lines, "", "```", *_example(command), "```"]


def _option_table(options: list[click.Parameter]) -> list[str]:
    lines = ["| option | meaning |", "|---|---|"]
    for option in options:
        assert isinstance(option, click.Option)
        names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
        value = "" if option.is_flag else f" `{option.make_metavar(click.Context(root))}`"
        lines.append(f"| {names}{value} | {(option.help or '').replace('|', chr(92) + '|')} |")
    return lines


def _example(command: click.Command) -> list[str]:
    lines = (command.epilog or "").splitlines()
    return [line.strip() for line in lines if line.strip() not in ("", "\b", "Example:")]


def _errors() -> str:
    lines = ["# Errors", "", NOTE, "", "`flowkiln explain CODE` shows the same text."]
    for code, kind in registry().items():
        meaning = EXIT_CODES[kind.exit_code]
        lines += [
            "",
            f"## {code}: {kind.title}",
            "",
            f"Exit code {int(kind.exit_code)}: {meaning}.",
            "",
            page(kind),
        ]
    return "\n".join(lines) + "\n"


def _settings() -> str:
    lines = [
        "# Settings",
        "",
        NOTE,
        "",
        "A flag wins over a variable, a variable over the profile in use, that over the nearest `pyproject.toml`",
        "(`[tool.flowkiln]`), that over the user's settings file, that over the default. A profile is a table",
        "`[tool.flowkiln.profiles.NAME]`, or `[profiles.NAME]` in the user's file, chosen by `--profile` or",
        "`FLOWKILN_PROFILE`. The user's file is `flowkiln/config.toml` in the configuration folder, or what",
        "`FLOWKILN_CONFIG` names. `flowkiln config show --origin` shows what holds, and why.",
        "",
        "| setting | variable | default | meaning |",
        "|---|---|---|---|",
    ]
    for setting in known.TABLE:
        default = "" if setting.default in (None, ()) else f"`{str(setting.default).lower()}`"
        choices = f" One of {', '.join(f'`{choice}`' for choice in setting.choices)}." if setting.choices else ""
        lines.append(f"| `{setting.key}` | `{setting.variable}` | {default} | {setting.help}{choices} |")
    lines += ["", "## Variables that are no settings", "", "| variable | meaning |", "|---|---|"]
    lines.append(f"| `{settings.RUN_PREFIX}NAME` | A flow's parameter `NAME`; its option wins. |")
    lines += [f"| `{name}` | {meaning} |" for name, meaning in settings.VARIABLES.items()]
    lines.append("| `CI` | Where it is set, `--locked` holds: a missing or stale lock is an error. |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/reference"))
