"""``flowkiln run``: the verbs about past and present runs."""

from __future__ import annotations

from flowkiln.cli.options import group

_CLI = "flowkiln.cli"

run = group(
    "run",
    help="Look at runs, past and present. A run is Flow/RUN, a step Flow/RUN/STEP, a task Flow/RUN/STEP/TASK.",
    lazy={
        "list": f"{_CLI}.run_list:list_runs",
        "show": f"{_CLI}.run_show:show",
        "logs": f"{_CLI}.run_logs:logs",
        "cancel": f"{_CLI}.run_control:cancel",
        "attach": f"{_CLI}.run_control:attach",
    },
    example="flowkiln run list\nflowkiln run show Train/1769904000000000",
)
