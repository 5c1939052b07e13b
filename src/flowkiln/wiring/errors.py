"""Errors of ``flowkiln.wiring``: what a command names is not there, or is more than one thing."""

from __future__ import annotations

from flowkiln._base.errors import ExitCode, FlowkilnError


class WiringError(FlowkilnError):
    """Base of the errors raised by ``flowkiln.wiring``."""


class NotAFlow(WiringError):
    """The file given as FLOW.py declares no flow, several flows, or cannot be imported.

    The message says which; where the import failed it names the file and line.
    """

    code = "CLI004"
    title = "Not a flow file"


class UnknownRun(WiringError):
    """No run, step or task of that name is in the store.

    ``flowkiln run list`` shows the runs of the store in use, ``flowkiln config show`` which store that is.
    """

    code = "CLI005"
    title = "No such run"


class SeveralTasks(WiringError):
    """A step has several tasks, and the command is about one.

    Add the task: ``Flow/RUN/STEP/TASK``. Where one alone has failed, the step is enough.
    """

    code = "CLI012"
    title = "Several tasks"


class NoDockerCommand(WiringError):
    """A shell in a container needs the ``docker`` command for its terminal, and it is not on ``PATH``.

    Everything else works without it: flowkiln speaks to the engine itself. Podman's ``docker`` does as well.
    """

    code = "CLI013"
    title = "No docker command"
    advice = "Install Docker's command line, or give the command without --with docker."


class EngineElsewhere(WiringError):
    """A shell in a container mounts folders of this machine, and the engine may be on another one.

    Steps that run there get their files as archives; a shell does not. Use an engine of this machine, or give the
    command without ``--with docker``.
    """

    code = "CLI014"
    title = "Engine is elsewhere"
    advice = "Use an engine of this machine, or give the command without --with docker."


class ImportsUnchecked(WiringError):
    """With ``CI`` set or ``--locked``, ``check`` could not look into an environment: that is no pass.

    Imports are held against what is installed: ``flowkiln env verify --repair FLOW.py`` installs what is locked.
    """

    code = "CLI009"
    title = "Imports were not checked"
    exit_code = ExitCode.LOCK


class ImportsLacking(WiringError):
    """A step imports a module that its locked environment does not have.

    Module-level imports of the flow file count for every step, since every step's process executes that file.
    Add the package to the step's environment and lock it again, or move the import into the step that needs it.
    """

    code = "CLI008"
    title = "An environment lacks an import"
