"""The executor's errors: RUN001 to RUN039 speak of runs and their drivers, RUN040 onwards of attempts.

ExecutorError
├── StepFailed       RUN001
├── ForeachWidth     RUN002
├── StepEnvironment  RUN003
├── AttemptsLost     RUN004
├── RunCancelled     RUN005
├── RunAbandoned     RUN006
├── RunHasDriver     RUN007
├── RunEnded         RUN008
├── AttemptHeld      RUN040
├── ForeignImage     RUN041
└── OtherEngine      RUN042
"""

from __future__ import annotations

from flowkiln._base.errors import ExitCode, FlowkilnError


class ExecutorError(FlowkilnError):
    """Base of the errors raised by ``flowkiln.executor``."""


# -- runs and drivers: RUN001 to RUN039 ------------------------------------------------------------------------


class StepFailed(ExecutorError):
    """A step's own code failed, and no retry was left.

    The message holds the last failure. ``logs`` of the same task shows all it printed, and the error's data
    names step, task and attempt. What had succeeded stays in the store.
    """

    code = "RUN001"
    title = "A step failed"
    exit_code = ExitCode.USER_CODE


class ForeachWidth(ExecutorError):
    """A foreach is wider than the limit, or has nothing to go over.

    The message names the artifact and its length. ``run --max-num-splits N`` raises the limit. A foreach over
    nothing cannot be joined: branch around it, or give it at least one item.
    """

    code = "RUN002"
    title = "A foreach is too wide or empty"
    exit_code = ExitCode.USER_CODE


class StepEnvironment(ExecutorError):
    """A step could not run in its environment: it differs from its lock, or its interpreter cannot start.

    No user code was run in it. Retries do not help here, so there were none. ``flowkiln env verify`` names every
    file that differs; removing the tree lets the next run build it again from the lock.
    """

    code = "RUN003"
    title = "A step's environment is not usable"
    exit_code = ExitCode.ENVIRONMENT


class AttemptsLost(ExecutorError):
    """A task was lost several times for reasons that are not its code's.

    Its process or platform ended without leaving an outcome, and the retries that flowkiln makes on its own
    account are used up. The message has the last reason. Look at the machine (memory, disk, shutdowns), then
    run again.
    """

    code = "RUN004"
    title = "A task was lost too often"
    exit_code = ExitCode.SERVICE


class RunCancelled(ExecutorError):
    """The run was cancelled or interrupted before it had finished.

    What ran was ended and nothing more was started. Finished tasks keep their results in the store.
    """

    code = "RUN005"
    title = "The run was cancelled"
    exit_code = ExitCode.INTERRUPTED


class RunAbandoned(ExecutorError):
    """A second interrupt ended the launcher at once, before everything it started was known to have ended.

    The hint shows the command that finishes the cancellation. ``flowkiln run attach`` goes on with the run
    instead.
    """

    code = "RUN006"
    title = "Left before the run was closed"
    exit_code = ExitCode.INTERRUPTED


class RunHasDriver(ExecutorError):
    """Another launcher is driving this run, so it cannot be attached to.

    The message names its host and process. Watch it there, cancel the run, or end that process first.
    """

    code = "RUN007"
    title = "The run has a driver"
    exit_code = ExitCode.LEASE


class RunEnded(ExecutorError):
    """The run has ended, so there is nothing to attach to or to cancel.

    ``flowkiln run show`` tells how it ended.
    """

    code = "RUN008"
    title = "The run has ended"


# -- attempts: RUN040 onwards ----------------------------------------------------------------------------------


class AttemptHeld(ExecutorError):
    """Another process holds this attempt: it has begun and has not ended, and its launcher may still run.

    No user code was run. Wait for the other launcher, or end it, then use ``flowkiln run attach`` again.
    """

    code = "RUN040"
    title = "Attempt is held by another process"
    exit_code = ExitCode.LEASE


class ForeignImage(ExecutorError):
    """The engine would run another image under this name than the one that was baked for the step's environment.

    No user code was run. Somebody has given the image's name to another image: ``flowkiln env bake`` makes the
    right one again.
    """

    code = "RUN041"
    title = "Image is not the one that was baked"
    exit_code = ExitCode.ENVIRONMENT
    advice = "`flowkiln env bake` makes the image again."


class OtherEngine(ExecutorError):
    """A container of this run is with another engine than the one that was asked, so nobody knows what it does.

    Its task is not run again: two of them would run at once. Nothing of the run was changed: do the same where
    that engine can be reached.
    """

    code = "RUN042"
    title = "Container is with another engine"
    exit_code = ExitCode.SERVICE
