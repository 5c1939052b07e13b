"""Errors about locking, ENV001 to ENV029, and indexes, ENV060 to ENV069; ``installerrors`` has the others."""

from __future__ import annotations

from flowkiln._base.errors import ExitCode, FlowkilnError


class EnvError(FlowkilnError):
    """Base of the errors raised by ``flowkiln.envs``."""


# -- locking: ENV001 to ENV029 ---------------------------------------------------------------------------------


class NoSuchPackage(EnvError):
    """A requirement names a package that no consulted index has.

    Check the spelling. A package of your own index needs that index in ``indexes`` or in the settings.
    """

    code = "ENV001"
    title = "No such package"
    exit_code = ExitCode.UNSOLVABLE


class Conflict(EnvError):
    """No set of versions satisfies every requirement on this platform.

    The solver's own explanation is in the message: widen one of the versions that it names.
    """

    code = "ENV002"
    title = "Requirements contradict each other"
    exit_code = ExitCode.UNSOLVABLE


class NoWheel(EnvError):
    """A package exists, but none of its wheels can be installed on the platform.

    Nothing is built from source. The message lists the tags that exist and what the platform accepts.
    """

    code = "ENV003"
    title = "No wheel for the platform"
    exit_code = ExitCode.UNSOLVABLE


class UnsupportedPython(EnvError):
    """The environment asks for a Python that environments cannot have.

    Supported are 3.11 to 3.15, ordinary (not free-threaded) builds.
    """

    code = "ENV004"
    title = "Python version not supported"


class BadRequirement(EnvError):
    """A requirement is not valid, or names a source where only versions can stand, as in constraints.

    The message shows the text and what was expected there.
    """

    code = "ENV005"
    title = "Requirement not understood"


class BadSource(EnvError):
    """A requirements file, ``pyproject.toml`` or script that declares an environment cannot be used.

    The message names the file and the line.
    """

    code = "ENV006"
    title = "File of requirements not understood"
    advice = "Correct the file there, then run the same command again."


class UnknownOption(EnvError):
    """An environment has an option that does not exist, or a value that the option does not take.

    Unknown options are errors because they would otherwise do nothing.
    """

    code = "ENV007"
    title = "Unknown option of an environment"
    advice = "Correct the option there."


class StaleLock(EnvError):
    """The requirements of an environment have changed since it was locked.

    ``flowkiln env lock`` brings the lock up to date; ``--locked`` and ``CI`` forbid doing that on the way.
    """

    code = "ENV008"
    title = "Lock is out of date"
    exit_code = ExitCode.LOCK


class MissingLock(EnvError):
    """An environment has no lock, or none for this platform, and ``--locked`` or ``--frozen`` forbids making one.

    Run ``flowkiln env lock`` and put the files it names under version control.
    """

    code = "ENV009"
    title = "Lock is missing"
    exit_code = ExitCode.LOCK


class IndexDenied(EnvError):
    """The package index answered 401 or 403.

    Credentials come from the index URL in your own settings, a command (setting ``credentials``), ``~/.netrc`` or
    the keyring (setting ``keyring``), never from a lock. ``flowkiln env indexes`` shows who gives them.
    """

    code = "ENV010"
    title = "Package index refused access"
    exit_code = ExitCode.SERVICE


class IndexUnavailable(EnvError):
    """The package index could not be reached, throttled us (429) or failed (5xx) again and again.

    Try again later; check proxies and certificates with ``flowkiln doctor``.
    """

    code = "ENV011"
    title = "Package index is not available"
    exit_code = ExitCode.SERVICE


class LockTimeout(EnvError):
    """The solver or the index made no progress within the limit and was ended.

    The message names the phase, the last package and the setting that raises the limit.
    """

    code = "ENV012"
    title = "Locking took too long"
    exit_code = ExitCode.SERVICE


class UvUnusable(EnvError):
    """Environments are resolved by uv, which is installed with flowkiln.

    The message names the version found and the line that installs a usable one.
    """

    code = "ENV013"
    title = "uv is missing or too old"


class OnlyYanked(EnvError):
    """All versions that satisfy a requirement have been withdrawn by their authors.

    A yanked version is used only when it is pinned exactly (``==``).
    """

    code = "ENV014"
    title = "Every matching version was yanked"
    exit_code = ExitCode.UNSOLVABLE


class HashMismatch(EnvError):
    """The bytes or the hashes that the index offers differ from those that are expected.

    Nothing was locked. If the hashes are yours, compare them with the ones of the publisher.
    """

    code = "ENV015"
    title = "Hash of a package does not match"
    exit_code = ExitCode.SERVICE


class Offline(EnvError):
    """Locking needs the package index, or pinning a base its registry, and the network is switched off.

    Run the command once without ``--offline``; afterwards nothing is looked up.
    """

    code = "ENV016"
    title = "Not available offline"
    exit_code = ExitCode.SERVICE


class BadLockFile(EnvError):
    """A lock file is damaged or was edited by hand.

    The message names file and line. Take it back from version control, or delete it and lock again.
    """

    code = "ENV017"
    title = "Lock file cannot be used"
    exit_code = ExitCode.LOCK


class BadCutoff(EnvError):
    """``exclude_newer`` takes a date or a time, not a duration: a relative one would change its meaning every day.

    The message has the line to paste.
    """

    code = "ENV018"
    title = "Cut-off date is not absolute"


class ResolveFailed(EnvError):
    """uv ended with an error that flowkiln has no better words for.

    uv's own message is shown; the log has all of it.
    """

    code = "ENV019"
    title = "Environment could not be resolved"
    exit_code = ExitCode.UNSOLVABLE


class NoSuchVersion(EnvError):
    """The index has the package, but no version of it that satisfies the requirement.

    The message says which versions there are. ``exclude_newer`` hides those that came later.
    """

    code = "ENV021"
    title = "No such version"
    exit_code = ExitCode.UNSOLVABLE


class UnsupportedTarget(EnvError):
    """The environment asks for a platform or a glibc floor that cannot be locked.

    Platforms are linux/amd64, linux/arm64, darwin/arm64 and darwin/amd64; the lowest glibc floor is 2.17.
    """

    code = "ENV020"
    title = "Platform or floor not supported"
    advice = "Platforms are linux/amd64, linux/arm64, darwin/arm64 and darwin/amd64."


class UnpinnedBase(EnvError):
    """The base of an image has no pin in the lock, and ``--locked`` or ``--frozen`` forbids making one.

    A base is pinned by the digest of its manifest for a platform, so that images are baked on the same bytes
    everywhere. Run ``flowkiln env lock --base`` and put the files it names under version control.
    """

    code = "ENV022"
    title = "Base of an image is not pinned"
    exit_code = ExitCode.LOCK


# -- indexes: ENV060 to ENV069 ----------------------------------------------------------------------------------


class UnsupportedSetting(EnvError):
    """A setting of pip or uv would change what is locked, and flowkiln cannot honour it.

    Nothing is passed over in silence that would give another environment than the one that was asked for:
    ``UV_RESOLUTION``, ``UV_PRERELEASE``, ``UV_EXCLUDE_NEWER``, constraints, overrides, ``find-links`` with a
    package, ``no-index``, index strategies other than ``first-index`` and the like, as variables or in pip.conf.
    The message names each with its place and what to write instead. A fresh lock is used whatever they say.
    """

    code = "ENV060"
    title = "Setting of pip or uv that cannot be honoured"


class CredentialsFailed(EnvError):
    """The command or the keyring that is to give the password of an index did not give one.

    A command of the setting ``credentials`` ends with 0 and prints a token on one line, or user and password on two
    lines, or a JSON object with ``token`` or ``user`` and ``password``, and ``expires`` as RFC 3339 if it knows.
    What it printed is never shown.
    """

    code = "ENV061"
    title = "No password from the command or keyring"
    exit_code = ExitCode.SERVICE
