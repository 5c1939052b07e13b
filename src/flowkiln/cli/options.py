"""The options that every command takes, on either side of the verb, and groups that load verbs when asked."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import click

from flowkiln.cli.output import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Callback = Callable[[click.Context, click.Parameter, Any], Any]


def session(context: click.Context) -> Session:
    """The session of the command in progress."""
    found = context.ensure_object(Session)
    assert isinstance(found, Session)
    return found


def _remember(attribute: str) -> Callback:
    def callback(context: click.Context, parameter: click.Parameter, value: Any) -> Any:  # noqa: ARG001
        if value not in (None, False):
            setattr(session(context), attribute, value)
        return value

    return callback


def _flag(key: str) -> Callback:
    def callback(context: click.Context, parameter: click.Parameter, value: Any) -> Any:  # noqa: ARG001
        if value is not None and value is not False:
            session(context).flags[key] = value
        return value

    return callback


def common_parameters() -> list[click.Option]:
    """Fresh instances of the options that stand everywhere."""
    return [
        _switch(["--json"], _remember("json"), "Result as JSON on stdout."),
        _switch(["--quiet", "-q"], _remember("quiet"), "No status lines."),
        _switch(["--verbose", "-v"], _remember("verbose"), "More status lines, errors in full."),
        _named("--profile", "NAME", _remember("profile"), "Settings profile to use."),
        _switch(["--offline"], _flag("offline"), "Use no network; what is missing is an error."),
        _named("--store", "FOLDER", _flag("store"), "Folder of runs and artifacts."),
    ]


def _switch(names: list[str], callback: Callback, text: str) -> click.Option:
    return click.Option(names, is_flag=True, expose_value=False, callback=callback, help=text)


def _named(name: str, metavar: str, callback: Callback, text: str) -> click.Option:
    return click.Option([name], metavar=metavar, expose_value=False, callback=callback, help=text)


class Verb(click.Command):
    """A command with the common options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(common_parameters())


class Nouns(click.Group):
    """A group with the common options whose commands are imported when they are asked for.

    ``lazy`` maps a verb to ``module:attribute``.
    """

    def __init__(self, *args: Any, lazy: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = dict(lazy or {})
        self.params.extend(common_parameters())

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The verbs, in the order they were declared."""
        return [*self.lazy, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb's command, imported now when it wasn't yet."""
        if cmd_name in self.commands or cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self.lazy[cmd_name].partition(":")
        found = getattr(importlib.import_module(module), attribute)
        assert isinstance(found, click.Command)
        return found


def verb(
    name: str, *, example: str, cls: type[click.Command] = Verb, **kwargs: Any
) -> Callable[[Callable[..., Any]], click.Command]:
    """Decorator that makes a function a command with the common options and an example in its help."""
    epilog = "\b\nExample:\n" + "\n".join(f"  {line}" for line in example.splitlines())
    return click.command(name, cls=cls, epilog=epilog, **kwargs)


def group(name: str, *, lazy: Mapping[str, str], help: str, example: str) -> Nouns:  # noqa: A002  click's word
    """A group of verbs that are imported when they are asked for."""
    epilog = "\b\nExample:\n" + "\n".join(f"  {line}" for line in example.splitlines())
    return Nouns(name=name, lazy=lazy, help=help, epilog=epilog)


def flag(key: str, **kwargs: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator that adds the option of the setting ``key``; its value wins over every other place of it."""
    return click.option(f"--{key}", expose_value=False, callback=_flag(key), **kwargs)
