"""Errors of container engines: not found, not permitted, full, refusing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowkiln._base.errors import BaseError, ExitCode

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject


class EngineError(BaseError):
    """Base of the errors about a container engine (Docker, Podman).

    ``status`` is the HTTP status of the engine's answer, or None where there was no answer.
    """

    exit_code = ExitCode.SERVICE

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        data: JSONObject | None = None,
        status: int | None = None,
        retryable: bool = False,
    ) -> None:
        facts = data if status is None else {**(data or {}), "status": status}
        super().__init__(message, hint=hint, data=facts, retryable=retryable)
        self.status = status


class EngineNotFound(EngineError):
    """There is no container engine where one was looked for.

    An engine is looked for as the docker command does: ``DOCKER_HOST``, ``DOCKER_CONTEXT``, the current context of
    ``~/.docker/config.json``, ``/var/run/docker.sock``, then the sockets of rootless Docker and of Podman. The
    message names what was looked at.
    """

    code = "ENG001"
    title = "No container engine"
    advice = "Start Docker or Podman, or set DOCKER_HOST to the engine's address."


class EngineUnreachable(EngineError):
    """The engine's address is known, but nothing usable answers there.

    It refused the connection, did not answer in time, broke off in the middle of an answer, or its certificate is
    not trusted. ``docker version`` asks the same address.
    """

    code = "ENG002"
    title = "Container engine does not answer"
    advice = "See whether `docker version` works, and restart the engine if it does not."


class EngineDenied(EngineError):
    """The engine is there, but this user may not use it.

    Its socket belongs to a group: join it and log in again, or run the engine rootless. A plugin of the engine can
    also forbid single calls.
    """

    code = "ENG003"
    title = "Container engine refused access"
    advice = (
        "Run `sudo usermod -aG docker $USER` and log in again, or use a rootless engine "
        "(`dockerd-rootless-setuptool.sh install`)."
    )


class EngineFailed(EngineError):
    """The engine failed at what it was asked to do. The message is the engine's own."""

    code = "ENG004"
    title = "Container engine failed"
    advice = "The engine's own log tells more: `journalctl -u docker`."


class EngineFull(EngineError):
    """The disk on which the engine keeps images and containers is full.

    ``docker system df`` shows what takes the space. Nothing half-made is used.
    """

    code = "ENG005"
    title = "Container engine has no space left"
    advice = "`docker system df` shows what takes the space, `docker image prune` frees what nobody uses."


class ImageMissing(EngineError):
    """The engine has no such image, and where it was asked to pull it, the registry has none either.

    Registries also answer so when the image exists but this user may not read it: then ``docker login`` helps.
    """

    code = "ENG006"
    title = "No such image"
    advice = "Check the image's name; for a private one run `docker login` first."


class NameTaken(EngineError):
    """A container of that name exists already, perhaps of a run that was ended in a hurry."""

    code = "ENG007"
    title = "Name of a container is taken"
    advice = "`docker ps --all` shows it; remove it with `docker rm`, or choose another name."


class EngineTooOld(EngineError):
    """The engine is too old, or what answers is no container engine.

    Needed is the API version 1.40 or later: Docker 19.03, Podman 3.
    """

    code = "ENG008"
    title = "Container engine is too old"
    advice = "Update the engine: Docker 19.03 or later, Podman 3 or later."


class EngineRefused(EngineError):
    """The engine refused what it was asked to do. The message is the engine's own."""

    code = "ENG009"
    title = "Container engine refused a request"
    advice = "The message is the engine's: change what it names."


class ContainerMissing(EngineError):
    """The engine has no such container, or the container has no such file.

    It was removed by somebody else, or the name is wrong.
    """

    code = "ENG010"
    title = "No such container"
    advice = "`docker ps --all` lists the containers that exist."


class BadEndpoint(EngineError):
    """The address of the engine is not understood: ``DOCKER_HOST``, or the host of a Docker context.

    Addresses are ``unix:///path``, ``tcp://host:port`` and ``ssh://user@host``.
    """

    code = "ENG011"
    title = "Address of the container engine is not understood"
    exit_code = ExitCode.BAD_INPUT
    advice = "Write unix:///path, tcp://host:port or ssh://user@host."
