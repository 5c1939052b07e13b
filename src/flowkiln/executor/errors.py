"""The executor's errors.

ExecutorError
└── AttemptHeld  RUN040
"""

from __future__ import annotations

from flowkiln._base.errors import ExitCode, FlowkilnError


class ExecutorError(FlowkilnError):
    """Base of the errors raised by ``flowkiln.executor``."""


class AttemptHeld(ExecutorError):
    """Another process holds this attempt: it has begun and has not ended, and its launcher may still run.

    No user code was run. Wait for the other launcher, or end it, then use ``flowkiln run attach`` again.
    """

    code = "RUN040"
    title = "Attempt is held by another process"
    exit_code = ExitCode.LEASE
