"""Logins for registries, as the docker and podman commands keep them. Nothing is written, nothing is kept here.

Looked for in this order: the files of logins (in each the host's own helper, the helper for all, the entry itself),
then the host's own command: ``aws`` for Amazon ECR, ``gcloud`` for Google's registries.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from flowkiln._base import command, redact
from flowkiln._base.errors import ToolMissing
from flowkiln.images.reference import HUB
from flowkiln.images.registryerrors import LoginFileUnreadable, LoginHelperFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flowkiln._base.json import JSONObject

_HUB_KEY = "https://index.docker.io/v1/"
"""What Docker calls its own registry where logins are kept."""
_HUB_NAMES = frozenset({HUB, "index.docker.io", "registry-1.docker.io"})
_TOKEN_USER = "<token>"  # noqa: S105 - a helper's word for "the secret is an identity token"
_ECR = re.compile(r"(?P<account>\d{12})\.dkr\.ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")
_GOOGLE = re.compile(r"(?:[a-z0-9-]+-docker\.pkg\.dev|(?:[a-z]+\.)?gcr\.io)")
_ABSENT = ("credentials not found", "no credentials server url", "no credentials username")


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A user's login for a registry. ``identity``: the secret is a token that is exchanged for others."""

    user: str
    secret: str = field(repr=False)
    identity: bool = False
    source: str = ""
    """Where it was found, for messages."""


class Logins:
    """Finds logins when they are needed. ``environ`` is the user's environment, ``deadline`` a helper's seconds."""

    def __init__(self, environ: Mapping[str, str], *, deadline: float = 30.0) -> None:
        self._environ = dict(environ)
        self._deadline = deadline
        self._notes: dict[str, str] = {}

    def find(self, host: str) -> Login | None:
        """The login for ``host`` as it stands now, or None when the user has none.

        Raises LoginHelperFailed and LoginFileUnreadable: a login that cannot be read is not "none".
        """
        for path in self._files():
            document = _read(path)
            if document is not None and (found := self._in_file(path, document, host)) is not None:
                return found
        return self._native(host)

    def note(self, host: str) -> str | None:
        """Why the last ``find`` for ``host`` got nothing from the host's own command, if it was tried."""
        return self._notes.get(host)

    # -- files -------------------------------------------------------------------------------------------------

    def _files(self) -> Iterator[Path]:
        environ = self._environ
        home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
        if environ.get("REGISTRY_AUTH_FILE"):
            yield Path(environ["REGISTRY_AUTH_FILE"])
        docker = environ.get("DOCKER_CONFIG")
        yield (Path(docker) if docker else home / ".docker") / "config.json"
        if environ.get("XDG_RUNTIME_DIR"):
            yield Path(environ["XDG_RUNTIME_DIR"]) / "containers" / "auth.json"
        yield Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "containers" / "auth.json"

    def _in_file(self, path: Path, document: JSONObject, host: str) -> Login | None:
        helpers = _table(path, document, "credHelpers")
        for key, name in helpers.items():
            if _same_host(key, host):
                # the host's own helper has the last word in its file
                return self._ask_helper(str(name), host, path)
        store = document.get("credsStore")
        if store and (found := self._ask_helper(str(store), host, path)) is not None:
            return found
        for key, entry in _table(path, document, "auths").items():
            if _same_host(key, host) and (found := _entry(path, key, entry)) is not None:
                return found
        return None

    # -- programs ----------------------------------------------------------------------------------------------

    def _ask_helper(self, name: str, host: str, path: Path) -> Login | None:
        program = f"docker-credential-{name}"
        server = _HUB_KEY if host in _HUB_NAMES else host
        try:
            done = self._run([program, "get"], given=server)
        except ToolMissing as error:
            message = f"{path} names {program} as the keeper of the login for {host}, and it is not on PATH"
            raise LoginHelperFailed(message, hint=f"Install {program}, or remove it from {path}.") from error
        told = f"{done.stdout}\n{done.stderr}".lower()
        if done.ended != "exit":
            message = f"{program} did not give the login for {host} within {self._deadline:g} s"
            raise LoginHelperFailed(message, retryable=True)
        if done.code != 0:
            if any(text in told for text in _ABSENT):
                return None
            # what it prints on stderr, or where that is empty on stdout: a failed helper prints no secret there
            message = f"{program} failed for {host}: {_short(done.stderr or done.stdout) or f'exit {done.code}'}"
            raise LoginHelperFailed(message)
        try:
            document = json.loads(done.stdout)
            user, secret = str(document.get("Username") or ""), str(document["Secret"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            message = f"{program} gave something that is no login for {host}"
            raise LoginHelperFailed(message) from error
        return Login(user=user, secret=secret, identity=user == _TOKEN_USER, source=program)

    def _native(self, host: str) -> Login | None:
        """The login that the cloud's own command gives. Where that cannot be had, the reason is noted.

        Not an error yet: what is public can be read without it.
        """
        self._notes.pop(host, None)
        ecr = _ECR.fullmatch(host)
        if ecr is not None:
            return self._print(host, "AWS", ["aws", "ecr", "get-login-password", "--region", ecr["region"]])
        if _GOOGLE.fullmatch(host):
            if shutil.which("docker-credential-gcloud", path=self._environ.get("PATH")):
                try:
                    return self._ask_helper("gcloud", host, Path("the gcloud command"))
                except LoginHelperFailed as error:
                    self._notes[host] = error.message
                    return None
            return self._print(host, "oauth2accesstoken", ["gcloud", "auth", "print-access-token"])
        return None

    def _print(self, host: str, user: str, arguments: Sequence[str]) -> Login | None:
        shown = " ".join(arguments)
        try:
            done = self._run(arguments)
        except ToolMissing:
            self._notes[host] = f"`{shown}` would give the login, but {arguments[0]} is not installed"
            return None
        secret = done.stdout.strip()
        if done.ended != "exit":
            self._notes[host] = f"`{shown}` did not end within {self._deadline:g} s"
        elif done.code != 0:
            self._notes[host] = f"`{shown}` failed: {_short(done.stderr) or f'exit {done.code}'}"
        elif not secret:
            self._notes[host] = f"`{shown}` printed nothing"
        else:
            return Login(user=user, secret=secret, source=shown)
        return None

    def _run(self, arguments: Sequence[str], given: str | None = None) -> command.Finished:
        return command.run(
            arguments,
            environment=self._environ,
            limits=command.Limits(total=self._deadline, stall=self._deadline),
            given=(given or "").encode(),
            await_output=False,
        )


def ecr(host: str) -> tuple[str, str] | None:
    """Account and region of an Amazon ECR host, or None for another."""
    found = _ECR.fullmatch(host)
    return None if found is None else (found["account"], found["region"])


def _read(path: Path) -> JSONObject | None:
    try:
        document = json.loads(path.read_bytes() or b"{}")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        raise LoginFileUnreadable(message) from error
    except ValueError as error:
        message = f"{path} is no JSON: {error}"
        raise LoginFileUnreadable(message) from error
    if not isinstance(document, dict):
        message = f"{path} holds no table"
        raise LoginFileUnreadable(message)
    return document


def _table(path: Path, document: JSONObject, name: str) -> JSONObject:
    table = document.get(name) or {}
    if not isinstance(table, dict):
        message = f"{path}: {name} is no table"
        raise LoginFileUnreadable(message)
    return table


def _same_host(key: str, host: str) -> bool:
    """Whether an entry's key, with or without scheme and path, is ``host``; Docker Hub has several names."""
    bare = re.sub(r"^https?://", "", key).partition("/")[0]
    return bare == host or (bare in _HUB_NAMES and host in _HUB_NAMES)


def _entry(path: Path, key: str, entry: object) -> Login | None:
    """The login in an entry of ``auths``; None for the empty entry that docker leaves beside a helper."""
    if not isinstance(entry, dict):
        message = f"{path}: the entry of {key} is no table"
        raise LoginFileUnreadable(message)
    user, secret = str(entry.get("username") or ""), str(entry.get("password") or "")
    if entry.get("auth"):
        try:
            user, colon, secret = base64.b64decode(str(entry["auth"]), validate=True).decode().partition(":")
        except ValueError:
            colon = ""
        if not colon:
            message = f"{path}: `auth` of {key} is not the base64 of USER:PASSWORD"
            raise LoginFileUnreadable(message)
    secret = secret.rstrip("\0")
    if entry.get("identitytoken"):
        return Login(user=user, secret=str(entry["identitytoken"]), identity=True, source=str(path))
    return Login(user=user, secret=secret, source=str(path)) if user and secret else None


def _short(text: str) -> str:
    """The end of what a program said, in one line, without the secrets of URLs."""
    return redact.text(" ".join(text.split()))[-300:]
