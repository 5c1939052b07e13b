"""Errors about files in the formats of other tools, ENV056 to ENV059."""

from __future__ import annotations

from flowkiln._base.errors import ExitCode
from flowkiln.envs.errors import EnvError


class NoMd5(EnvError):
    """A conda package has no MD5 hash, which a conda-lock.yml must have for each package.

    The channel states it beside the sha256 in ``repodata.json``; a channel that states sha256 alone has to be
    indexed again. The MD5 only completes the file: every package is checked by its sha256.
    """

    code = "ENV056"
    title = "Conda package without an MD5 hash"
    exit_code = ExitCode.UNSOLVABLE
    advice = "Index the channel again (`conda index` or `rattler-index` state both hashes), or exclude that build."


class NotHonoured(EnvError):
    """A file asks for something that an environment cannot have, and leaving it out would give another environment.

    The message names the key or the entry. Remove it from the file, or say it as an option of the environment.
    """

    code = "ENV057"
    title = "Part of a file cannot be honoured"
    advice = "Remove it there, or write a file without it for flowkiln."


class NotInGivenLock(EnvError):
    """A lock file of another tool is the source of an environment and lacks what the environment needs.

    It is taken exactly as it is, nothing is solved. A platform, a Python, a group or an extra that it was not made
    for, or a package without a wheel or a hash, has to be locked by the tool that wrote the file.
    """

    code = "ENV058"
    title = "Given lock does not cover the environment"
    exit_code = ExitCode.LOCK
    advice = "Lock again with the tool that wrote the file, for this platform and Python."


class NotExportable(EnvError):
    """A lock cannot be exported in the form that was asked for: the form has no place for what is in it.

    Requirements and PEP 751 name wheels alone; ``conda-lock`` and ``explicit`` need a Python of conda's.
    """

    code = "ENV059"
    title = "Lock has no such form"
