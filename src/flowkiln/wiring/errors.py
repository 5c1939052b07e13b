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
