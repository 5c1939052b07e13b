"""The tree of commands below ``flowkiln``."""

from __future__ import annotations

from typing import Any

import click

import flowkiln
from flowkiln.cli.options import group

_CLI = "flowkiln.cli"

root = group(
    "flowkiln",
    help="Flows whose every step runs in a locked environment, and proves it.",
    lazy={
        "flow": f"{_CLI}.flow:any_flow",
        "env": f"{_CLI}.env:env",
        "run": f"{_CLI}.run_noun:run",
        "store": f"{_CLI}.store:store",
        "cache": f"{_CLI}.cache:cache",
        "config": f"{_CLI}.config:config",
        "doctor": f"{_CLI}.doctor:doctor",
        "explain": f"{_CLI}.explain:explain",
    },
    example="python flow.py run\nflowkiln env lock flow.py\nflowkiln run list",
)


def _show_version(context: click.Context, parameter: click.Parameter, value: Any) -> None:  # noqa: ARG001
    if value:
        click.echo(f"flowkiln {flowkiln.__version__}")
        context.exit()


root.params.append(
    click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_show_version,
        help="Show the version and exit.",
    )
)
