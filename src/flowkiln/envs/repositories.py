"""Git repositories, asked with the user's own ``git``: what a name stands for, and the files of a commit.

A repository is kept bare below the cache. Nothing of it is ever checked out, so no filter and no hook runs.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from flowkiln._base import command, files, redact
from flowkiln._base.errors import ToolMissing
from flowkiln.envs import sourcetar
from flowkiln.envs.directerrors import (
    GitMissing,
    HasSubmodules,
    NoSuchRef,
    RepositoryRefused,
    RepositoryUnreachable,
    SourceOffline,
)
from flowkiln.envs.sourcetar import SourceFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import IO

    from flowkiln._base.command import Finished

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SHORT = re.compile(r"[0-9a-f]{7,64}")
_SSH = ("ssh", "git+ssh")
_REFUSED = re.compile(
    r"(?i)authentication failed|could not read (?:username|password)|permission denied|access denied|"
    r"returned error: 40[13]|host key verification failed|repository not found|does not appear to be a git|"
    r"repository '.*' not found|returned error: 404|not exported|does not exist"
)
_WHOLE = "flowkiln-whole"
"""A file in a repository whose history and tags were fetched at least once."""
_BATCH = 64 << 20
_LIMITS = command.Limits(total=1800.0, stall=300.0)
# Nothing that a repository, its server or a folder's configuration says may run a program.
_SAFE = (
    *("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "gc.auto=0"),
    *("-c", "maintenance.auto=false", "-c", "fetch.recurseSubmodules=false", "-c", "protocol.ext.allow=never"),
    *("-c", "core.quotePath=false", "-c", "fetch.fsckObjects=false", "-c", "safe.directory=*"),
    # A fetch that is cut short leaves no commit without its files: objects become visible as a whole pack.
    *("-c", "fetch.unpackLimit=1", "-c", "transfer.unpackLimit=1"),
)


def public(url: str) -> str:
    """``url`` as a lock has it: without a password; the user name of ssh stays, as it is no secret."""
    parts = urlsplit(url)
    if parts.scheme not in _SSH or "@" not in parts.netloc:
        return redact.url(url)
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit((parts.scheme, f"{user.partition(':')[0]}@{host}", parts.path, parts.query, parts.fragment))


def run_git(
    arguments: Sequence[str | Path],
    *,
    environ: Mapping[str, str],
    given: bytes = b"",
    folder: Path | None = None,
    settings: Mapping[str, str] | None = None,
) -> Finished:
    """How ``git`` ended, asked without any prompt. Raises ``GitMissing``.

    ``settings`` reach it in its environment: what everybody on the machine can see are its arguments.
    """
    # Where flowkiln runs in a hook, git's own variables name the repository of the hook.
    kept = {key: value for key, value in environ.items() if not key.startswith("GIT_") or key in _OF_THE_USER}
    told = {"GIT_CONFIG_COUNT": str(len(settings))} if settings else {}
    for number, (key, value) in enumerate((settings or {}).items()):
        told |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    environment = {**kept, **told, "GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1", "LC_ALL": "C"}
    try:
        return command.run(
            ["git", *_SAFE, *arguments], environment=environment, folder=folder, given=given, limits=_LIMITS
        )
    except ToolMissing as error:
        raise GitMissing(f"a source in a git repository: {error.message}") from error


_OF_THE_USER = frozenset(
    {
        *("GIT_SSH", "GIT_SSH_COMMAND", "GIT_ASKPASS", "GIT_PROXY_COMMAND", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH"),
        *("GIT_SSL_CERT", "GIT_SSL_KEY", "GIT_SSL_NO_VERIFY", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"),
        *("GIT_CONFIG_NOSYSTEM", "GIT_EXEC_PATH", "GIT_TRACE", "GIT_CURL_VERBOSE", "GIT_HTTP_USER_AGENT"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A repository by its URL, kept below ``cache``. ``environ`` is the environment that git runs in."""

    url: str
    cache: Path
    environ: Mapping[str, str]
    offline: bool = False

    @property
    def shown(self) -> str:
        """Its URL for people and locks."""
        return public(self.url)

    @property
    def _login(self) -> dict[str, str]:
        """The setting by which git asks the URL with its login where it is told the one without."""
        return {f"url.{self.url}.insteadOf": self.shown} if self.url != self.shown else {}

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        return self.cache / "git" / hashlib.sha256(self.shown.encode()).hexdigest()[:32]

    def commit_of(self, ref: str | None) -> str:
        """The commit that ``ref`` is on its server now; None is the default branch. Fetched afterwards.

        Raises ``NoSuchRef``, ``RepositoryRefused``, ``RepositoryUnreachable``, ``SourceOffline``, ``GitMissing``.
        """
        if ref is not None and _COMMIT.fullmatch(ref):
            self.fetch(ref)
            return ref
        self._online(f"what {ref or 'the default branch'} is now is not known")
        found = self._remote_refs(ref)
        if found is None and ref is not None and _SHORT.fullmatch(ref):
            with self._held():
                self._fetch_all()
                told = self._git("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
            found = told.stdout.strip() if told.code == 0 else None
        if found is None:
            what = f"no branch, tag or commit {ref!r}" if ref else "no commit yet"
            raise NoSuchRef(f"{self.shown} has {what}")
        self.fetch(found)
        return found

    def fetch(self, commit: str) -> None:
        """``commit`` is here. Raises what ``commit_of`` does."""
        with self._held():
            if self._has(commit):
                return
            self._online(f"commit {commit[:12]} of {self.shown} is not in the cache")
            # A login of the URL is known now and never again: what may be needed later is fetched as well.
            whole = self.shown != self.url
            told = None if whole else self._git("fetch", "--quiet", "--no-tags", "--depth=1", self.shown, commit)
            if told is None or told.code != 0:  # servers differ in whether a commit may be asked for by itself
                self._fetch_all()
            if not self._has(commit):
                raise NoSuchRef(f"{self.shown} has no commit {commit}")

    def archive(self, commit: str, subdirectory: str | None, target: IO[bytes]) -> tuple[str, int]:
        """Writes the archive of ``commit``, which is here, to ``target``; its sha256 and size.

        Raises ``HasSubmodules``, ``LinkLeaves``, ``SourceTooLarge``.
        """
        label = f"{self.shown} at {commit[:12]}"
        told = self._git("ls-tree", "-r", "-l", "-z", "--full-tree", commit)
        if told.code != 0:
            raise self._failure(told)
        entries = sorted(_entries(told.output), key=lambda entry: entry[2].path)
        inside = f"{subdirectory.strip('/')}/" if subdirectory else ""
        for mode, _, file in entries:
            if mode == "160000" and f"{file.path}/".startswith(inside):
                raise HasSubmodules(f"{label}: {file.path} is a submodule, whose files are not in the repository")
        kept = [(mode, blob, file) for mode, blob, file in entries if mode != "160000"]
        sourcetar.check([file for _, _, file in kept], label)
        return sourcetar.write(self._linked(kept, label), target)

    def describe(self, commit: str) -> str | None:
        """``git describe --tags --long`` of ``commit``, with its history fetched; None where no tag leads to it."""
        self.fetch(commit)
        arguments = ("describe", "--tags", "--long", "--match", "*[0-9]*", commit)
        with self._held():
            whole = (self.folder / _WHOLE).exists() and not (self.folder / "shallow").exists()
            if not whole and not self.offline:
                self._fetch_all()
            told = self._git(*arguments)
        return told.stdout.strip() or None if told.code == 0 else None

    # -- within ----------------------------------------------------------------------------------------------------

    def _linked(
        self, entries: Sequence[tuple[str, str, SourceFile]], label: str
    ) -> Iterator[tuple[SourceFile, Callable[[], bytes]]]:
        """The files with what reads them, in batches that fit into memory."""
        batch: list[tuple[str, str, SourceFile]] = []
        size = 0
        for entry in (*entries, None):
            if entry is not None:
                batch.append(entry)
                size += entry[2].size
            if batch and (entry is None or size > _BATCH):
                contents = self._blobs([blob for _, blob, _ in batch])
                linked = []
                for (mode, _, file), data in zip(batch, contents, strict=True):
                    link = data.decode("utf-8", "surrogateescape") if mode == "120000" else None
                    linked.append((SourceFile(file.path, file.size, mode == "100755", link), data))
                sourcetar.check([file for file, _ in linked], label)
                yield from ((file, lambda data=data: data) for file, data in linked)
                batch, size = [], 0

    def _blobs(self, names: Sequence[str]) -> list[bytes]:
        told = self._git("cat-file", "--batch", given="".join(f"{name}\n" for name in names).encode())
        if told.code != 0:
            raise self._failure(told)
        found, at = [], 0
        for _ in names:
            end = told.output.index(b"\n", at)
            told_of = told.output[at:end].split(b" ")
            if len(told_of) != 3:
                message = f"{self.shown}: its copy in the cache lacks {told_of[0].decode()}"
                raise RepositoryUnreachable(message, hint=f"Remove {self.folder} and run the same command again.")
            size = int(told_of[2])
            found.append(told.output[end + 1 : end + 1 + size])
            at = end + 1 + size + 1
        return found

    @contextmanager
    def _held(self) -> Iterator[None]:
        with files.locked(self.folder.with_name(f".{self.folder.name}.lock")):
            if not self.offline and next(self.folder.rglob("*.lock"), None):
                # Left by a git that was killed: no other one would ever write here. It may still be ending.
                gone = self.folder.with_name(f".{self.folder.name}.{os.getpid()}.gone")
                with files.disk_errors(self.folder):
                    self.folder.rename(gone)
                shutil.rmtree(gone, ignore_errors=True)
            if not ((self.folder / "HEAD").is_file() and (self.folder / "objects").is_dir()):
                with files.disk_errors(self.folder):
                    self.folder.mkdir(parents=True, exist_ok=True)
                told = run_git(["init", "--quiet", "--bare", "--template=", self.folder], environ=self.environ)
                if told.code != 0:
                    raise self._failure(told)
            os.utime(self.folder)  # used now, for garbage collection
            yield

    def _git(self, *arguments: str, given: bytes = b"") -> Finished:
        return run_git(
            ["--git-dir", self.folder, *arguments], environ=self.environ, given=given, settings=self._login
        )

    def _has(self, commit: str) -> bool:
        return self._git("cat-file", "-e", f"{commit}^{{tree}}").code == 0

    def _online(self, what: str) -> None:
        if self.offline:
            raise SourceOffline(f"{what}, and --offline forbids to ask {self.shown}")

    def _remote_refs(self, ref: str | None) -> str | None:
        wanted = [f"refs/tags/{ref}", f"refs/heads/{ref}"] if ref is not None else ["HEAD"]
        if ref is not None and ref.startswith("refs/"):
            wanted = [ref]
        asked = [one for name in wanted for one in (name, f"{name}^{{}}")]
        told = run_git(
            ["ls-remote", "--quiet", "--", self.shown, *asked], environ=self.environ, settings=self._login
        )
        if told.code != 0:
            raise self._failure(told)
        lines = (line.split("\t", 1) for line in told.stdout.splitlines() if "\t" in line)
        found = {name: commit for commit, name in lines}
        for name in wanted:  # an annotated tag is an object of its own: ^{} is the commit that it names
            if commit := found.get(f"{name}^{{}}", found.get(name)):
                return commit
        return None

    def _fetch_all(self) -> None:
        whole = ["--unshallow"] if (self.folder / "shallow").exists() else []
        refs = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
        told = self._git("fetch", "--quiet", "--force", *whole, self.shown, *refs)
        if told.code != 0:
            raise self._failure(told)
        (self.folder / _WHOLE).touch()

    def _failure(self, told: Finished) -> RepositoryRefused | RepositoryUnreachable:
        lines = [line for line in told.stderr.splitlines() if line.strip() and not line.startswith("warning: ")]
        text = redact.text("\n".join(lines[-5:]))
        if told.ended != "exit":
            return RepositoryUnreachable(f"{self.shown}: git did not end in time\n{text}")
        if _REFUSED.search(text):
            return RepositoryRefused(f"{self.shown}: {text}")
        return RepositoryUnreachable(f"{self.shown}: {text}")


def _entries(output: bytes) -> Iterator[tuple[str, str, SourceFile]]:
    """Mode, object and file of each entry that ``ls-tree -l -z`` tells."""
    for record in output.split(b"\0"):
        if record:
            told, _, name = record.partition(b"\t")
            mode, _, blob, size = told.decode().split()
            path = name.decode("utf-8", "surrogateescape")
            yield mode, blob, SourceFile(path, int(size) if size.isdecimal() else 0, mode == "100755")
