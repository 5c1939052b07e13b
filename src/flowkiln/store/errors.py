"""Errors of ``flowkiln.store``: STO001 to STO099."""

from __future__ import annotations

from flowkiln._base.errors import ExitCode, FlowkilnError


class StoreError(FlowkilnError):
    """Base of the errors raised by ``flowkiln.store``."""

    exit_code = ExitCode.STORE


class StoreUnusable(StoreError):
    """The folder that holds runs and artifacts cannot be used.

    It is not a folder, its disk fails, or its file system offers neither hard links nor an exclusive rename, so
    that two writers could not be kept apart. The message names the folder and what the system said. Mend it or
    choose another folder for the store.
    """

    code = "STO001"
    title = "The store cannot be used"


class RecordDamaged(StoreError):
    """A record's content does not match its checksum.

    Something outside flowkiln changed the file or the disk lost part of it. `flowkiln store check` lists every
    damaged record. Restore the file from a copy, or remove it: what it described then counts as not done.
    """

    code = "STO002"
    title = "A record is damaged"


class BlobMissing(StoreError):
    """Bytes that a record refers to are not in the store.

    They were removed by hand, or the store was copied in part. `flowkiln store check` lists everything that is
    missing. Restore the file from a copy, or run the flow again.
    """

    code = "STO003"
    title = "Stored bytes are missing"


class BlobDamaged(StoreError):
    """Stored bytes are not what was written.

    The file's length or content differs from its sha256. Restore it from a copy, or remove it and run the flow
    again: the step that makes it stores it anew.
    """

    code = "STO004"
    title = "Stored bytes are damaged"
    advice = "`flowkiln store check` lists everything that is damaged."


class UnpicklableArtifact(StoreError):
    """A value that a step assigned to ``self`` cannot be stored, because Python cannot pickle part of it.

    The message names the artifact, the place inside it and the type there: locks, open files, sockets,
    generators, database connections, lambdas and classes defined inside functions are the usual ones. Keep such
    a thing in a local variable, or store what is needed to make it again.
    """

    code = "STO005"
    title = "An artifact cannot be stored"
    exit_code = ExitCode.USER_CODE


class UnreadableArtifact(StoreError):
    """A stored value cannot be turned back into a Python object here.

    Usually the package that defines its type is missing or has another version in this environment; the message
    names the version it was written with and the one found here. Read it in a step or environment that has the
    version named.
    """

    code = "STO006"
    title = "An artifact cannot be read here"
    exit_code = ExitCode.USER_CODE


class Displaced(StoreError):
    """Another process has taken over this run.

    Only one process at a time decides what a run does next. This one has stopped; nothing that it had stored is
    lost. `flowkiln run show` tells how the run goes on.
    """

    code = "STO007"
    title = "Another process drives this run"
    exit_code = ExitCode.LEASE


class RunNotFound(StoreError):
    """There is no such flow or run in this store.

    Check the name and the number, and that the command looks at the right store. `flowkiln run list` shows what
    the store holds.
    """

    code = "STO008"
    title = "No such run"
    exit_code = ExitCode.BAD_INPUT


class JournalDamaged(StoreError):
    """An entry in the middle of a run's journal is missing.

    The run cannot be taken up again, since what was decided there is unknown. What its tasks have stored can
    still be read. Start a new run.
    """

    code = "STO009"
    title = "A run's journal has a gap"


class BadKey(StoreError):
    """A flow's or run's name cannot be part of a key in the store.

    Names consist of letters, digits and ``_ - . =`` and do not begin with a dot.
    """

    code = "STO010"
    title = "Not a usable name"
    exit_code = ExitCode.BAD_INPUT
