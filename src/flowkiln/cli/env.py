"""``flowkiln env``: the verbs about environments."""

from __future__ import annotations

from flowkiln.cli.options import group

_CLI = "flowkiln.cli"

env = group(
    "env",
    help="Lock environments, look at them, use them. ENV is FLOW.py[:STEP], the name of a shared environment, a "
    "lock folder, a file (requirements, pyproject.toml, script, environment.yml or a lock), or a task as "
    "Flow/RUN/STEP[/TASK].",
    lazy={
        "lock": f"{_CLI}.env_lock:lock",
        "bake": f"{_CLI}.env_bake:bake",
        "list": f"{_CLI}.env_list:list_environments",
        "show": f"{_CLI}.env_show:show",
        "why": f"{_CLI}.env_why:why",
        "diff": f"{_CLI}.env_diff:diff",
        "export": f"{_CLI}.env_export:export",
        "indexes": f"{_CLI}.env_indexes:indexes",
        "verify": f"{_CLI}.env_verify:verify",
        "exec": f"{_CLI}.env_exec:execute",
        "shell": f"{_CLI}.env_exec:shell",
        "path": f"{_CLI}.env_path:path",
        "link": f"{_CLI}.env_path:link",
        "kernel": f"{_CLI}.env_kernel:kernel",
    },
    example="flowkiln env lock flow.py\nflowkiln env exec flow.py:fit -- python -V",
)
