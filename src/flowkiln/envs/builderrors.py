"""Errors of building wheels from source: BLD001 to BLD019."""

from __future__ import annotations

from flowkiln._base.errors import ExitCode
from flowkiln.envs.errors import EnvError


class BuildError(EnvError):
    """Base of the errors about building wheels."""


class BuildFailed(BuildError):
    """The build of a wheel ended with an error.

    The message has the last lines of what the build said, the log all of it. A compiler or header that is missing
    belongs into the image that wheels are built in: name one that has it with the setting ``build.image``. A build
    that downloads something needs the setting ``build.network``.
    """

    code = "BLD001"
    title = "Build failed"
    advice = "The log has all that the build said."
    exit_code = ExitCode.UNSOLVABLE


class NotAProject(BuildError):
    """A source that is to be built holds no Python project: neither a pyproject.toml nor a setup.py, or a bad one.

    Where the project lies in a folder of the source, name it as ``subdirectory``.
    """

    code = "BLD002"
    title = "No Python project in the source"
    advice = "Name the folder of the project as `subdirectory`, or a version that is packaged properly."


class HostileSource(BuildError):
    """A source archive holds what no source has: paths or links that leave it, devices, too many bytes.

    Nothing of it was built.
    """

    code = "BLD003"
    title = "Source archive is not safe"
    advice = "Do not use this file; tell its publisher."
    exit_code = ExitCode.SERVICE


class BuildTimeout(BuildError):
    """A build took longer than the setting ``build.timeout`` allows, and was ended with all that it had started."""

    code = "BLD004"
    title = "Build took too long"
    advice = "Give it longer with the setting build.timeout, in seconds."
    exit_code = ExitCode.UNSOLVABLE


class NowhereToBuild(BuildError):
    """A package has to be built from source, and nothing here may or can build it for the platform.

    Wheels are built in a container of the platform: a container engine has to run. The setting ``build.where =
    "host"`` allows builds on this machine itself, for its own platform, where they can do what you can do.
    """

    code = "BLD005"
    title = "Nowhere to build"
    exit_code = ExitCode.UNSOLVABLE


class OtherWheel(BuildError):
    """A wheel that the lock names is neither here nor in the team's repository, and building it gave another one.

    Its build is not reproducible, or the tools in the build image have changed. Where the setting
    ``images.repository`` is set, built wheels are kept there and nobody builds them again. ``flowkiln env lock
    --upgrade PACKAGE`` locks what is built now.
    """

    code = "BLD006"
    title = "Another wheel than the locked one was built"
    exit_code = ExitCode.LOCK


class BadBuild(BuildError):
    """A build ended well and gave no usable wheel: none at all, of another name or version, or damaged."""

    code = "BLD007"
    title = "Build gave no usable wheel"
    advice = "Build it yourself and publish the wheel to an index, or choose another version."
    exit_code = ExitCode.UNSOLVABLE


class NoSource(BuildError):
    """A package has neither a wheel that fits nor a source distribution on its index that satisfies the request."""

    code = "BLD008"
    title = "No source distribution"
    advice = "Choose a version that has a wheel."
    exit_code = ExitCode.UNSOLVABLE


class BuiltTooNew(BuildError):
    """A built wheel needs a newer glibc than the environment's floor: the image it was built in is newer.

    Allow it with ``glibc="2.36"``, or build in an older image, which the setting ``build.image`` names.
    """

    code = "BLD009"
    title = "Built wheel needs a newer glibc"
    exit_code = ExitCode.UNSOLVABLE


class BuiltAbsent(BuildError):
    """A built wheel that the lock names is nowhere, and its source is not within reach to build it again."""

    code = "BLD010"
    title = "Built wheel is not here"
    advice = "Run `flowkiln env lock` where it can be built, with images.repository set."
    exit_code = ExitCode.SERVICE


class NowhereToLink(BuildError):
    """Link scripts of conda packages have to run, and nothing here runs them for the platform.

    They run in a container of the platform: a container engine for it has to run. Where the setting
    ``images.repository`` is set, what they leave is kept there, and nobody runs them again. There are no containers
    of macOS: a package whose scripts are allowed has no solution there.
    """

    code = "BLD011"
    title = "Nowhere to run link scripts"
    advice = "Start a container engine such as Docker, or lock where one runs, with images.repository set."
    exit_code = ExitCode.UNSOLVABLE


class LinkScriptFailed(BuildError):
    """A link script of a conda package ended with an error, in a container of the image that ``build.image`` names.

    The message has its last lines, the log all that the scripts said. A script that downloads something needs the
    setting ``build.network``; a program that it calls has to be in the environment or in that image.
    """

    code = "BLD012"
    title = "Link script failed"
    advice = "The log has all that the scripts said. Another build of the package may do without."
    exit_code = ExitCode.UNSOLVABLE


class LinkScriptTimeout(BuildError):
    """The link scripts of an environment took longer than the setting ``build.timeout`` allows, and were ended."""

    code = "BLD013"
    title = "Link scripts took too long"
    advice = "Give them longer with the setting build.timeout, in seconds."
    exit_code = ExitCode.UNSOLVABLE


class BadLinking(BuildError):
    """Link scripts did to the environment what no package can say.

    They may make and change files below the prefix. Files that they delete, links that leave the environment,
    devices and sockets, and what belongs to the environment itself (its interpreter, ``conda-meta``) are refused.
    """

    code = "BLD014"
    title = "Link scripts left what cannot be locked"
    advice = "Take another build of the package, or the same library from PyPI."
    exit_code = ExitCode.UNSOLVABLE


class OtherLinkedFiles(BuildError):
    """Link scripts were run again and left other files than the lock names.

    They write something that changes, such as the time, or what they use has changed. Where the setting
    ``images.repository`` is set, what they left is kept there and nobody runs them again. ``flowkiln env lock
    --upgrade PACKAGE`` locks what they leave now.
    """

    code = "BLD015"
    title = "Link scripts left other files than the locked ones"
    exit_code = ExitCode.LOCK
