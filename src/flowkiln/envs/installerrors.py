"""Errors of ``flowkiln.envs`` about downloads, packages, trees and interpreters: ENV030 to 055, 080 to 089."""

from __future__ import annotations

from flowkiln._base.errors import ExitCode
from flowkiln.envs.errors import EnvError


class InstallError(EnvError):
    """Base of the errors about fetching, unpacking, trees and interpreters."""


class DownloadFailed(InstallError):
    """A package could not be downloaded, although it was tried several times.

    The message names the URL and what the server or the network answered. What was received is kept: the same
    command goes on where this one stopped. Behind a proxy set ``HTTPS_PROXY``.
    """

    code = "ENV030"
    title = "Download failed"
    advice = "Try again later; `flowkiln doctor` checks indexes, proxies and certificates."
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
    advice = "Try again later; `flowkiln doctor` checks indexes, proxies and certificates."
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
    advice = "Take another version of it, or tell its publisher."


class RecordMismatch(InstallError):
    """The files of a wheel and its RECORD do not agree.

    The message lists files that RECORD lacks, files that are missing and files with another hash. The wheel was
    built badly; its author has to publish it again. Lock another version meanwhile.
    """

    code = "ENV041"
    title = "Wheel disagrees with its RECORD"
    advice = "Take another version of it, or tell its publisher."


class WheelMismatch(InstallError):
    """A wheel is not the distribution that the lock says: its file name or metadata name another one.

    The message shows both. ``flowkiln env lock --upgrade PACKAGE`` locks it anew.
    """

    code = "ENV042"
    title = "Wheel is not the locked distribution"
    advice = "Take another version of it, or tell its publisher."


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
    """A file is not a wheel that can be read: not a zip, damaged, encrypted, or of a newer wheel format.

    Its sha256 is the locked one, so the index has served this very file. Lock another version of the package.
    """

    code = "ENV045"
    title = "Wheel cannot be read"
    advice = "Take another version of it, or tell its publisher."


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


class HostileConda(InstallError):
    """A conda package holds something that no package may hold, and was refused before anything was installed.

    Such as a path or a link that leaves the environment, a file that it does not list or that is another than the
    one listed, one that claims what belongs to the environment, or far more bytes than its size lets expect. The
    message names package and member.
    """

    code = "ENV080"
    title = "Conda package refused"
    advice = "Take another version or build of it, or tell its channel."


class CondaUnreadable(InstallError):
    """A file is not a conda package that can be read: cut short, damaged, or without its metadata.

    Its sha256 is the locked one, so the channel has served this very file. Lock another build of the package.
    """

    code = "ENV081"
    title = "Conda package cannot be read"
    advice = "Take another version or build of it, or tell its channel."


class CondaMismatch(InstallError):
    """A conda package is not the one that the lock says: its own metadata name another one.

    The message shows both. ``flowkiln env lock --upgrade PACKAGE`` locks it anew.
    """

    code = "ENV082"
    title = "Conda package is not the locked one"
    advice = "Lock it anew: `flowkiln env lock --upgrade PACKAGE`."


class PrefixTooLong(InstallError):
    """The place of an environment has a longer path than a conda package has room for.

    Binary files hold the prefix in a place of fixed length, mostly 255 bytes. Move flowkiln's cache to a shorter
    path: the setting ``cache``, or ``FLOWKILN_CACHE``.
    """

    code = "ENV083"
    title = "Path of the environment is too long"
    advice = "Set `cache` (FLOWKILN_CACHE) to a shorter path."


class LinkScripts(InstallError):
    """A conda package wants to run a script when it is installed, and the environment does not allow it.

    The message names the packages. Often the script only prints a text or builds a cache, and another build of the
    package, or the same library from PyPI, does without. Where it is needed, ``link_scripts=["NAME"]`` in
    ``@conda`` lets it run, once, while locking, in a container of the platform; what it leaves is locked like a
    package.
    """

    code = "ENV084"
    title = "Conda package wants to run a script"
    advice = "Take another build of it, or the same library from PyPI."


class DriverTooOld(InstallError):
    """The lock was made for a CUDA that the NVIDIA driver of this machine is too old for.

    ``cuda="12.4"`` says that the machines of a step have a driver that offers CUDA 12.4, and packages were chosen
    for that. The message names the oldest such driver and the one that is here. Where no driver can be seen, as on
    a machine without a GPU, nothing is refused. For an engine on another machine it is not known either.
    """

    code = "ENV085"
    title = "GPU driver is too old"
    exit_code = ExitCode.ENVIRONMENT
    advice = "Update the driver, run where a newer one is, or lock with an older `cuda=`."
