"""``python FLOW.py logs``: what a task of this flow printed."""

from __future__ import annotations

from typing import Any

import click

from flowkiln.cli.flow import FlowVerb, flow_session
from flowkiln.cli.options import verb
from flowkiln.cli.run_logs import log_options, show


@verb("logs", cls=FlowVerb, example="python flow.py logs 1769904000000000/fit")
@click.argument("task")
@log_options
@click.pass_context
def logs(context: click.Context, /, *, task: str, **options: Any) -> int:
    """Show what a TASK, given as RUN/STEP[/TASK], printed."""
    return show(context, task, flow_session(context).flow.__name__, **options)
