"""Errors about conda packages, channels and solvers: ENV046 to ENV049, ENV070 to ENV073, ENV090 to ENV093."""

from __future__ import annotations

from flowkiln._base.errors import ExitCode
from flowkiln.envs.errors import EnvError


class BadMatchSpec(EnvError):
    """A conda package is asked for in words that are no match spec, or of a kind that cannot be locked.

    A match spec is ``NAME``, ``NAME VERSION`` or ``NAME VERSION BUILD``, with a channel before it where needed:
    ``conda-forge::numpy >=1.26,<2``. Extras, markers and URLs belong to PyPI packages.
    """

    code = "ENV046"
    title = "Conda package not understood"


class CondaConflict(EnvError):
    """No set of conda packages satisfies every match spec on this platform.

    The solver's own explanation is in the message, with the virtual packages that were assumed: the C library, the
    kernel and the GPU driver of the platform are never those of the machine that locks. Widen one of the versions,
    or state what the machines of the steps have, as ``glibc="2.34"`` or ``cuda="12.4"``.
    """

    code = "ENV047"
    title = "Conda packages contradict each other"
    exit_code = ExitCode.UNSOLVABLE


class NoSuchChannel(EnvError):
    """A conda channel does not exist: its folder ``noarch`` has no ``repodata.json``.

    Check the spelling. A name becomes a URL by ``channel_alias`` and ``custom_channels`` of ``.condarc``.
    """

    code = "ENV048"
    title = "No such conda channel"
    exit_code = ExitCode.UNSOLVABLE


class ChannelDenied(EnvError):
    """A conda channel answered 401 or 403.

    Credentials come from the URL of the channel in your own settings (``https://USER:PASSWORD@HOST/NAME``,
    ``https://HOST/t/TOKEN/NAME``), a command (setting ``credentials``), ``~/.netrc`` or the keyring (setting
    ``keyring``), never from a lock. ``flowkiln env indexes`` shows who gives them.
    """

    code = "ENV049"
    title = "Conda channel refused access"
    exit_code = ExitCode.SERVICE


class ChannelUnavailable(EnvError):
    """A conda channel could not be reached, throttled us (429) or failed (5xx) again and again.

    Try again later; check proxies and certificates with ``flowkiln doctor``.
    """

    code = "ENV070"
    title = "Conda channel is not available"
    exit_code = ExitCode.SERVICE


class BrokenChannel(EnvError):
    """A conda channel states something that cannot be used: repodata that are cut short, or packages unlike them.

    Nothing was locked. The message says what was read; whoever runs the channel can index it again.
    """

    code = "ENV071"
    title = "Conda channel is broken"
    exit_code = ExitCode.SERVICE


class ProvidedConflict(EnvError):
    """A PyPI package needs another version of a distribution than the one that a conda package has inside.

    In a mixed environment conda packages are chosen first, and each distribution comes from one side. Ask conda for
    a version that suits both, or take the package from PyPI alone.
    """

    code = "ENV072"
    title = "Conda and PyPI contradict each other"
    exit_code = ExitCode.UNSOLVABLE


class CondaUnsupported(EnvError):
    """Conda environments are solved by py-rattler, which is not installed, or in a version that is not usable.

    It is an optional part of flowkiln, so that environments from PyPI alone need nothing of it.
    """

    code = "ENV073"
    title = "Solver of conda packages is missing"
    advice = "Install it with `pip install 'flowkiln[conda]'`."


class SolverMissing(EnvError):
    """The program that the setting ``conda.solver`` names is not there, or is not a program.

    It is looked for on PATH, then where ``CONDA_EXE`` or ``MAMBA_EXE`` say; ``conda.program``
    (``FLOWKILN_CONDA_PROGRAM``) names a file in their place. rattler is built in and needs no program.
    """

    code = "ENV090"
    title = "Solver of conda packages is not there"


class CondaLockUnusable(EnvError):
    """Conda, mamba and micromamba are driven by the command conda-lock, which is missing, too old or no conda-lock.

    It is looked for beside flowkiln and on PATH; ``FLOWKILN_CONDA_LOCK`` names a file in their place. It is no part
    of flowkiln, as its dependencies would be tied to those of the flow.
    """

    code = "ENV091"
    title = "conda-lock is missing or too old"


class SolverFailed(EnvError):
    """conda-lock, or the solver that it drives, ended with an error that is not about the packages.

    Their own message is shown; the log has all of it. ``conda.solver = "rattler"`` does without both.
    """

    code = "ENV092"
    title = "Solver of conda packages failed"
    exit_code = ExitCode.SERVICE


class WrongAnswer(EnvError):
    """A solver chose packages that do not answer the request.

    They lack what was asked for or depended on, are of another version, or are in no channel: settings of the
    installation itself, such as pins and default packages, may be the reason. Nothing was locked.
    """

    code = "ENV093"
    title = "Solver gave another answer than was asked for"
    exit_code = ExitCode.SERVICE
