"""Errors of distributions that are asked for by where their source is: BLD030 to BLD049."""

from __future__ import annotations

from flowkiln._base.errors import ExitCode
from flowkiln.envs.errors import EnvError


class SourceError(EnvError):
    """Base of the errors about sources that a request names."""


class BadReference(SourceError):
    """A distribution is asked for by URL, repository or path in a form that is not understood or not supported.

    Git repositories, archives and wheels by ``https``, ``http`` or ``file`` URL, and folders can be named;
    Subversion, Mercurial and Bazaar can not.
    """

    code = "BLD030"
    title = "Source of a distribution not understood"
    advice = "Correct the entry there."


class ReferencesContradict(SourceError):
    """One request asks for the same distribution from two sources, or from a source and in a version.

    A source decides the version by itself.
    """

    code = "BLD031"
    title = "Two sources for one distribution"
    advice = "Leave one of the two out."


class GitMissing(SourceError):
    """A repository is asked for, or a folder lies in one, and the ``git`` command cannot be run here."""

    code = "BLD032"
    title = "git is missing"
    advice = "Install git, or ask for an archive instead of a repository."
    exit_code = ExitCode.SERVICE


class NoSuchRef(SourceError):
    """A repository has no branch, tag or commit of the name that is asked for, or no commit at all.

    A locked commit can vanish when a branch is rewritten: ``flowkiln env lock --upgrade NAME`` locks what the
    branch is now.
    """

    code = "BLD033"
    title = "No such branch, tag or commit"
    advice = "Name a branch, tag or commit that the repository has."
    exit_code = ExitCode.UNSOLVABLE


class RepositoryRefused(SourceError):
    """The server of a repository asks for a login and got none, or a wrong one, or there is no such repository.

    Logins are those of your own ``git``: its credential helper, the ssh agent, ``~/.netrc``. flowkiln never asks
    for a password. Servers answer the same for a repository that is absent and for one that you may not see.
    """

    code = "BLD034"
    title = "Repository refused"
    advice = "Try `git ls-remote URL` with the URL of the message: it has to work without a question."
    exit_code = ExitCode.SERVICE


class RepositoryUnreachable(SourceError):
    """git could not get an answer from the server of a repository, or the answer was cut short."""

    code = "BLD035"
    title = "Repository not reachable"
    advice = "Check the network, then run the same command again."
    exit_code = ExitCode.SERVICE


class FolderMissing(SourceError):
    """A distribution is asked for by the path of its folder, and there is no such folder.

    Relative paths start at the folder of the file that declares them.
    """

    code = "BLD036"
    title = "Folder of a distribution missing"
    advice = "Correct the path, or restore the folder."


class NoProject(SourceError):
    """A folder or archive is asked for whose project does not say what has to be known before it is built.

    The name of a distribution, and for ``as = "code"`` its dependencies too, are read from the ``[project]`` table
    of its pyproject.toml (the name from a setup.cfg too); what a back end would compute is not.
    """

    code = "BLD037"
    title = "Project not understood"
    advice = "Write the name before the path: `NAME @ ./path`."


class OtherSource(SourceError):
    """A source is not what the request or the lock says: a file with another hash, a folder that was changed.

    When the change is meant, ``flowkiln env lock --upgrade NAME`` locks what is there now.
    """

    code = "BLD038"
    title = "Source is not the one that was locked"
    exit_code = ExitCode.LOCK


class HasSubmodules(SourceError):
    """The project in a repository has submodules, which are not part of the commit and would be missing."""

    code = "BLD039"
    title = "Project has submodules"
    advice = "Publish an archive with everything in it, or name the submodule's own repository."
    exit_code = ExitCode.UNSOLVABLE


class LinkLeaves(SourceError):
    """A symbolic link in a project leads to something that is not below the project's folder.

    What it leads to would not be in the archive that is built. In a repository, the whole repository counts.
    """

    code = "BLD040"
    title = "Link leads out of the project"
    advice = "Replace the link by a copy of the file."
    exit_code = ExitCode.UNSOLVABLE


class SourceTooLarge(SourceError):
    """A project's folder or repository holds more files or bytes than source code has.

    Left out are files that git ignores, virtual environments, ``build``, ``dist`` and bytecode.
    """

    code = "BLD041"
    title = "Source is too large"
    advice = "Let git ignore what is no source, or move it elsewhere."


class SourceOffline(SourceError):
    """A source is not in the cache and would have to be fetched, which ``--offline`` forbids."""

    code = "BLD042"
    title = "Source not in the cache"
    advice = "Run the same command once without --offline."
    exit_code = ExitCode.SERVICE


class CodeCollides(SourceError):
    """A package that travels as code has the name of a file or folder beside the flow, or of another such package.

    Both would be found under the same name when a step imports it.
    """

    code = "BLD043"
    title = "Two things of one name in the code"
    advice = 'Rename one of them, or leave out `"as": "code"` so that the package is built and installed.'
