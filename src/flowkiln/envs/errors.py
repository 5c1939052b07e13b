"""Errors of ``flowkiln.envs``: ENV001 to ENV029 speak of locking, ENV030 to ENV059 of installing and trees."""

from __future__ import annotations

from flowkiln._base.errors import ExitCode, FlowkilnError


class EnvError(FlowkilnError):
    """Base of the errors raised by ``flowkiln.envs``."""


# -- locking: ENV001 to ENV029 ---------------------------------------------------------------------------------


class NoSuchPackage(EnvError):
    """A requirement names a package that no consulted index has.

    The message names the package and the indexes that were asked. Check the spelling; a package of your own index
    needs that index in ``indexes``, in ``[tool.flowkiln]`` or in the settings that pip and uv read.
    """

    code = "ENV001"
    title = "No such package"
    exit_code = ExitCode.UNSOLVABLE


class Conflict(EnvError):
    """No set of versions satisfies every requirement on this platform.

    The solver's own explanation is in the message. Widen one of the versions it names, or give the steps
    environments of their own.
    """

    code = "ENV002"
    title = "Requirements contradict each other"
    exit_code = ExitCode.UNSOLVABLE


class NoWheel(EnvError):
    """A package exists, but none of its wheels can be installed on the platform.

    Nothing is built from source. The message lists the tags that exist and what the platform accepts: choose
    another version, raise the glibc floor, or name only the platforms that you need.
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
    exit_code = ExitCode.BAD_INPUT


class BadRequirement(EnvError):
    """A requirement is not valid, or is of a kind that cannot be locked (a path, an editable install, a URL).

    The message shows the text and what was expected there.
    """

    code = "ENV005"
    title = "Requirement not understood"
    exit_code = ExitCode.BAD_INPUT


class BadSource(EnvError):
    """A requirements file, ``pyproject.toml`` or script that declares an environment cannot be used.

    The message names the file and the line.
    """

    code = "ENV006"
    title = "File of requirements not understood"
    exit_code = ExitCode.BAD_INPUT


class UnknownOption(EnvError):
    """An environment has an option that does not exist, or a value that the option does not take.

    Unknown options are errors because they would otherwise do nothing. The message lists the known ones.
    """

    code = "ENV007"
    title = "Unknown option of an environment"
    exit_code = ExitCode.BAD_INPUT


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

    Credentials come from the index URL in your own settings, from ``~/.netrc`` or from ``NETRC``; they are never
    stored in a lock. Some indexes answer 403 for packages that do not exist.
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
    exit_code = ExitCode.BAD_INPUT


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
    """Locking needs the package index, and the network is switched off.

    Run the command once without ``--offline``; afterwards nothing is looked up.
    """

    code = "ENV016"
    title = "Not available offline"
    exit_code = ExitCode.SERVICE


class BadLockFile(EnvError):
    """A lock file is damaged or was edited by hand.

    The message names the file and the line. Take it back from version control, or delete it and run
    ``flowkiln env lock``: locks are written by flowkiln only.
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
    exit_code = ExitCode.BAD_INPUT


class ResolveFailed(EnvError):
    """uv ended with an error that flowkiln has no better words for.

    uv's own message is shown; the log has all of it.
    """

    code = "ENV019"
    title = "Environment could not be resolved"
    exit_code = ExitCode.UNSOLVABLE


class UnsupportedTarget(EnvError):
    """The environment asks for a platform or a glibc floor that cannot be locked.

    Platforms are ``linux/amd64``, ``linux/arm64``, ``darwin/arm64`` and ``darwin/amd64``; the floor is at least
    2.17.
    """

    code = "ENV020"
    title = "Platform or floor not supported"
    exit_code = ExitCode.BAD_INPUT


# -- installing, trees, interpreters: ENV030 to ENV059 ---------------------------------------------------------


class InstallError(EnvError):
    """Base of the errors about fetching, unpacking, trees and interpreters."""


class DownloadFailed(InstallError):
    """A package could not be downloaded, although it was tried several times.

    The message names the URL and what the server or the network answered. What was received is kept: the same
    command goes on where this one stopped. Behind a proxy set ``HTTPS_PROXY``.
    """

    code = "ENV030"
    title = "Download failed"
    exit_code = ExitCode.SERVICE


class DownloadRefused(InstallError):
    """The package index wants a login, or refuses the one that it was given (401, 403).

    Locks hold no credentials. They are looked up by host when downloading: in the index URL of your settings and
    in ``~/.netrc``. ``flowkiln env indexes`` shows which hosts have one.
    """

    code = "ENV031"
    title = "Download refused"
    exit_code = ExitCode.SERVICE


class ArtefactGone(InstallError):
    """A package that the lock names is no longer at its URL (404, 410).

    It was deleted, or the index moved. ``flowkiln env lock --upgrade PACKAGE`` chooses a file that exists.
    """

    code = "ENV032"
    title = "Package is gone from the index"
    exit_code = ExitCode.SERVICE


class DownloadStalled(InstallError):
    """The server stopped sending bytes for longer than the stall limit, several times in a row.

    A slow download is never cut off, only one that stands still. What was received is kept.
    """

    code = "ENV033"
    title = "Download stalled"
    exit_code = ExitCode.SERVICE


class Throttled(InstallError):
    """The server keeps answering "too many requests" (429).

    flowkiln waited as long as the server asked for, several times. Try again later.
    """

    code = "ENV034"
    title = "Too many requests"
    exit_code = ExitCode.SERVICE


class WrongHash(InstallError):
    """A downloaded file is not the one that was locked: its sha256 differs, twice in a row.

    The message names the URL, the expected and the received sha256. Nothing of the file is kept. Either the index
    serves another file under the same name, or something between the index and this machine changes it.
    """

    code = "ENV035"
    title = "Downloaded file has another sha256"
    exit_code = ExitCode.SERVICE


class NotCached(InstallError):
    """``--offline`` was given, and packages are missing from this machine's cache.

    The message names them. Run the same command once without ``--offline``.
    """

    code = "ENV036"
    title = "Missing offline"
    exit_code = ExitCode.SERVICE


class CertificateRefused(InstallError):
    """The server's TLS certificate is not signed by an authority that this machine trusts.

    Behind a proxy that signs with its own authority, name that authority's file in ``SSL_CERT_FILE``.
    """

    code = "ENV037"
    title = "Certificate not trusted"
    exit_code = ExitCode.SERVICE


class HostileWheel(InstallError):
    """A wheel holds something that no wheel may hold, and was refused before anything was installed.

    Such as a path that leaves the environment, a link, two members with one name, a file that claims the
    environment's interpreter, or more bytes than it declares. The message names the wheel and the member.
    """

    code = "ENV040"
    title = "Wheel refused"


class RecordMismatch(InstallError):
    """The files of a wheel and its RECORD do not agree.

    The message lists files that RECORD lacks, files that are missing and files with another hash. The wheel was
    built badly; its author has to publish it again. Lock another version meanwhile.
    """

    code = "ENV041"
    title = "Wheel disagrees with its RECORD"


class WheelMismatch(InstallError):
    """A wheel is not the distribution that the lock says: its file name or metadata name another one.

    The message shows both. ``flowkiln env lock --upgrade PACKAGE`` locks it anew.
    """

    code = "ENV042"
    title = "Wheel is not the locked distribution"


class WrongTags(InstallError):
    """A locked wheel cannot run on the platform or Python that it is locked for.

    The message names the wheel's tags and the platform. ``flowkiln env lock`` locks it anew.
    """

    code = "ENV043"
    title = "Wheel is for another platform"


class PathOwnedTwice(InstallError):
    """Two distributions install different files at one path.

    The message names both and the path. Drop one of them, or say whose file wins in the environment's
    ``winners`` table.
    """

    code = "ENV044"
    title = "Two packages own one file"


class WheelUnreadable(InstallError):
    """A file is not a wheel that can be read: not a zip, damaged, encrypted, or of a newer wheel format."""

    code = "ENV045"
    title = "Wheel cannot be read"


class EnvironmentMismatch(InstallError):
    """An environment on disk is not what was locked: files were changed, removed or added, or it is gone.

    The message names the files. No step was started. ``flowkiln env verify --repair`` makes it anew from the
    wheel store, fetching again what is damaged there too.
    """

    code = "ENV050"
    title = "Environment differs from its lock"
    exit_code = ExitCode.ENVIRONMENT


class InterpreterMissing(InstallError):
    """This machine has no Python of the version that the environment needs.

    The message lists the versions that were found. Install one (``uv python install 3.12``), or let flowkiln do
    it with the setting ``python.downloads = auto``.
    """

    code = "ENV051"
    title = "No such Python on this machine"


class InterpreterRefused(InstallError):
    """A Python was named that environments cannot use.

    Usable are released CPython versions from 3.11 on, with the GIL, built for this machine's architecture.
    """

    code = "ENV052"
    title = "Python cannot be used"


class InterpreterOutOfBounds(InstallError):
    """The Python at hand is outside the patch versions that the lock holds for.

    A requirement's marker on the patch version decided something while locking. The message names the bounds.
    Install a Python inside them, or lock again with the one you have.
    """

    code = "ENV053"
    title = "Python is outside the lock's bounds"


class PlatformTooOld(InstallError):
    """This machine cannot run the environment: another system or architecture, or a glibc below its floor.

    The message names both sides. Lock with a lower floor, or use a newer system or a container.
    """

    code = "ENV054"
    title = "Machine cannot run the environment"


class InterpreterNotInstalled(InstallError):
    """uv could not download and install the Python that is needed.

    The message holds what uv said. Install a Python of that version yourself, or name a mirror with
    ``UV_PYTHON_INSTALL_MIRROR``.
    """

    code = "ENV055"
    title = "Python could not be installed"
    exit_code = ExitCode.SERVICE
