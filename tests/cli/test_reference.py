"""The reference pages say all there is."""

from __future__ import annotations

import re

import click
import pytest

from flowkiln._base import known
from flowkiln._base.errors import ExitCode
from flowkiln.cli import reference
from flowkiln.cli.explain import registry
from flowkiln.cli.flow import FlowGroup, FlowVerb

COMMANDS = dict(reference.everything())


@pytest.mark.parametrize("path", sorted(COMMANDS))
def test_every_command_has_help_and_an_example(path: str) -> None:
    command = COMMANDS[path]
    assert command.help
    assert "Example:" in (command.epilog or "")
    named = {"--json", "--quiet", "--verbose", "--profile", "--offline", "--store"}
    assert named <= {name for parameter in command.params for name in parameter.opts}


@pytest.mark.parametrize("path", sorted(COMMANDS))
def test_every_option_has_help(path: str) -> None:
    options = [parameter for parameter in COMMANDS[path].params if isinstance(parameter, click.Option)]
    assert all(option.help for option in options)


def test_the_pages_name_every_command_error_and_setting() -> None:
    pages = reference.pages()
    assert all(f"# {path}\n" in pages["commands.md"] for path in COMMANDS)
    assert all(f"## {code}: " in pages["errors.md"] for code in registry())
    assert all(f"`{setting.key}`" in pages["settings.md"] for setting in known.TABLE)


@pytest.mark.parametrize("path", sorted(COMMANDS))
def test_the_page_has_every_option_that_help_shows(path: str) -> None:
    page = reference.pages()["commands.md"]
    command = COMMANDS[path]
    top, _, rest = page.partition("\n## ")
    of_flows = top.partition("verb of a flow")[2]
    own = next(part for part in re.split(r"^#{2,3} ", rest, flags=re.MULTILINE) if part.startswith(f"{path}\n"))
    places = [top.removesuffix(of_flows), own, of_flows if isinstance(command, FlowGroup | FlowVerb) else ""]
    options = [one for one in command.get_params(click.Context(command)) if isinstance(one, click.Option)]
    shown = {name for one in options if not one.hidden for name in one.opts} - {"--help"}
    assert not [name for name in shown if not any(f"`{name}`" in place for place in places)]


def test_every_exit_code_has_a_meaning() -> None:
    assert set(reference.EXIT_CODES) == set(ExitCode)
