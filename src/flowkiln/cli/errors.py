"""Errors of ``flowkiln.cli``: what was typed cannot be done."""

from __future__ import annotations

from flowkiln._base.errors import ExitCode, FlowkilnError


class CliError(FlowkilnError):
    """Base of the errors raised by ``flowkiln.cli``."""


class BadUsage(CliError):
    """A command was called with an unknown verb, an unknown option or a value that it does not take.

    The message names it; the command's ``--help`` lists what there is, with an example.
    """

    code = "CLI001"
    title = "Bad usage"


class UnknownTarget(CliError):
    """What was given as ENV names no environment.

    An ENV is one of ``FLOW.py``, ``FLOW.py:STEP``, the name of an environment in ``[tool.flowkiln.envs]``, a
    ``*.locks`` folder, a requirements, pyproject or script file, or a task as ``Flow/RUN/STEP[/TASK]``.
    """

    code = "CLI002"
    title = "No such environment"


class AmbiguousTarget(CliError):
    """What was given as ENV names several environments where the command takes one.

    The message lists them; add ``:STEP`` to a flow file.
    """

    code = "CLI003"
    title = "Several environments"


class UnknownCode(CliError):
    """``flowkiln explain`` was asked for a code that no error of this version has.

    ``flowkiln explain`` without a code lists all of them.
    """

    code = "CLI007"
    title = "No such error code"


class OutputLost(CliError):
    """The command did its work, but its result could not be written to stdout: the disk that it goes to is full.

    Nothing else is wrong. Make room, or send the output elsewhere, and give the command again. A run is not
    ended by this: only its lines on the screen are lost, and ``flowkiln run logs`` shows what its tasks printed.
    """

    code = "CLI010"
    title = "Output could not be written"
    exit_code = ExitCode.SERVICE
    advice = "Make room where stdout goes, or send it elsewhere."


class FolderGone(CliError):
    """The folder that the command was given in does not exist any more: it was removed or moved meanwhile.

    Files are looked for from there on. Change to a folder that exists, and give the command again.
    """

    code = "CLI011"
    title = "Current folder is gone"
    advice = "Change to a folder that exists: `cd`."


class InternalError(CliError):
    """flowkiln met a state that its authors did not think of. This is a bug in flowkiln, not in your flow.

    The traceback is in the log file that the message names; secrets in URLs are masked there. Report it with
    the command that you ran.
    """

    code = "CLI070"
    title = "Internal error"
    exit_code = ExitCode.INTERNAL
