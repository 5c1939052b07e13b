"""A small client of the container engine's HTTP API (Docker, and Podman where it speaks it).

Safe to use from several threads. Every failure is one of ``engineerrors``: what the engine says with status 200
and ``errorDetail`` too. What the engine does not have is None or False only where it said so itself.
"""

from __future__ import annotations

import base64
import json
import math
import threading
import time
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, urlencode

from flowkiln._base import engineanswers as answers
from flowkiln._base.engineerrors import (
    ContainerMissing,
    EngineFailed,
    EngineRefused,
    ImageMissing,
    NameTaken,
)
from flowkiln._base.enginewire import Stream, Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from flowkiln._base.endpoints import Endpoint
    from flowkiln._base.engineanswers import Output
    from flowkiln._base.engineconnection import Body
    from flowkiln._base.engineerrors import EngineError
    from flowkiln._base.enginewire import Answer
    from flowkiln._base.json import JSONObject

OURS = (1, 43)
"""The API version that this client was written for."""
OLDEST = (1, 40)
_PULL_LIMIT = 300.0
"""Seconds until an engine must have found an image in its registry."""
_PAUSES = (0.05, 0.2, 0.8)
"""Seconds before what failed because of others is asked again."""
_TAR = "application/x-tar"


class Engine:
    """One container engine. Nothing is asked before the first call.

    ``timeout`` bounds connecting and the wait for the first byte of an answer; streams may be silent for ever.
    """

    def __init__(self, endpoint: Endpoint, *, timeout: float = 60.0) -> None:
        self.endpoint = endpoint
        self._wire = Wire(endpoint, timeout)
        self._timeout = timeout
        self._lock = threading.Lock()
        self._version: JSONObject | None = None
        self._info: JSONObject | None = None

    def close(self) -> None:
        """Ends the connections that are kept; the engine can be used again."""
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- the engine itself

    def version(self) -> JSONObject:
        """What the engine says of its version, asked once. Raises ``EngineTooOld``."""
        with self._lock:
            if self._version is None:
                answer = self._checked(self._wire.ask("GET", "/version"))
                found = answer.json()
                self._version = answers.version(found, OLDEST, self.endpoint)
            return self._version

    def info(self) -> JSONObject:
        """What the engine says of its machine and settings, asked once."""
        prefix = self._prefix()
        with self._lock:
            if self._info is None:
                self._info = dict(self._checked(self._wire.ask("GET", f"{prefix}/info")).json())
            return self._info

    @property
    def platform(self) -> str:
        """The platform whose images run without emulation: ``linux/amd64``."""
        version = self.version()
        return f"{version.get('Os', 'linux')}/{version.get('Arch', '')}"

    @property
    def containerd_store(self) -> bool:
        """Whether images are kept by containerd, and so an image's id is the digest of its manifest."""
        return any("containerd.snapshotter" in str(pair) for pair in self.info().get("DriverStatus") or ())

    @property
    def rootless(self) -> bool:
        """Whether the engine runs without root, and so root in a container is this user outside."""
        return any("rootless" in str(option) for option in self.info().get("SecurityOptions") or ())

    @property
    def podman(self) -> bool:
        """Whether it is Podman."""
        components = self.version().get("Components") or ()
        return any("podman" in str(one.get("Name", "")).lower() for one in components)

    # -- images

    def image(self, reference: str) -> JSONObject | None:
        """What the engine knows of an image, None when it has none of that name, id or digest."""
        answer = self._ask("GET", f"/images/{_quoted(reference)}/json")
        if answer.status == 404:
            answer.read()
            return None
        return dict(self._checked(answer).json())

    def images(self, *, labels: Mapping[str, str | None]) -> list[JSONObject]:
        """The images with all these labels; a value of None means any value."""
        query = {"filters": _filters(label=_labels(labels))}
        answer = self._ask("GET", "/images/json", query)
        for pause in _PAUSES:  # "not found" is said of an image that goes away while the containerd store lists it
            if answer.status != 404:
                break
            answer.read()
            time.sleep(pause)
            answer = self._ask("GET", "/images/json", query)
        return list(self._checked(answer).json() or [])

    def pull(
        self,
        reference: str,
        *,
        platform: str | None = None,
        auth: Mapping[str, str] | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        """The engine has the image afterwards. ``progress(what, done, total)`` is called in bytes, 0 when unknown.

        ``auth`` is ``username``, ``password`` and ``serveraddress``, or ``identitytoken``. Raises ``ImageMissing``
        when the registry says that there is none.
        """
        repository, version = _split(reference)
        query = {"fromImage": repository, "tag": version} | ({"platform": platform} if platform else {})
        told = json.dumps(dict(auth or {})).encode()
        headers = {"X-Registry-Auth": base64.urlsafe_b64encode(told).decode()}
        answer = self._ask("POST", "/images/create", query, headers=headers, patience=_PULL_LIMIT)
        for message in self._messages(self._checked(answer, {404: ImageMissing})):
            if progress is not None:
                progress(*answers.progress(message))

    def load(self, archive: Body) -> list[str]:
        """The names, or ids where there are none, of the images of an archive that the engine has taken."""
        answer = self._ask(
            "POST", "/images/load", {"quiet": "1"}, body=archive, headers={"Content-Type": _TAR}, patience=math.inf
        )
        return answers.loaded(self._messages(self._checked(answer)))

    def tag(self, image: str, repository: str, tag: str) -> None:
        """``repository:tag`` names the image afterwards. Raises ``ImageMissing``."""
        answer = self._ask("POST", f"/images/{_quoted(image)}/tag", {"repo": repository, "tag": tag})
        self._checked(answer, {404: ImageMissing}).read()

    def remove_image(self, reference: str, *, force: bool = False) -> bool:
        """Whether there was such an image; it is gone. Raises ``EngineRefused`` while a container uses it."""
        answer = self._ask("DELETE", f"/images/{_quoted(reference)}", {"force": "1"} if force else {})
        return self._done(answer, {404: False})

    # -- containers

    def create(self, name: str, spec: JSONObject, *, platform: str | None = None) -> str:
        """The id of a new container. Raises ``ImageMissing`` and ``NameTaken``."""
        query = {"name": name} | ({"platform": platform} if platform else {})
        answer = self._ask(
            "POST",
            "/containers/create",
            query,
            body=json.dumps(spec).encode(),
            headers={"Content-Type": "application/json"},
        )
        if answer.status == 404:  # the image, or a network or volume
            body = answer.read()
            raise answers.refusal(404, body, {404: ImageMissing if b"image" in body.lower() else EngineRefused})
        return str(self._checked(answer, {409: NameTaken}).json()["Id"])

    def start(self, container: str) -> None:
        """The container runs, or has run. Raises ``ContainerMissing``."""
        answer = self._ask("POST", f"/containers/{_quoted(container)}/start")
        if answer.status == 404:  # the container, or a network
            body = answer.read()
            kind = ContainerMissing if b"no such container" in body.lower() else EngineRefused
            raise answers.refusal(404, body, {404: kind})
        self._done(answer)

    def inspect(self, container: str) -> JSONObject | None:
        """What the engine knows of a container, None when there is none."""
        answer = self._ask("GET", f"/containers/{_quoted(container)}/json")
        if answer.status == 404:
            answer.read()
            return None
        return dict(self._checked(answer).json())

    def signal(self, container: str, name: str) -> bool:
        """Whether the container ran and was sent the signal, as in ``SIGTERM``."""
        answer = self._ask("POST", f"/containers/{_quoted(container)}/kill", {"signal": name})
        return self._done(answer, {404: False, 409: False})

    def stop(self, container: str, seconds: int) -> bool:
        """Whether there is such a container; it has ended, killed where it did not end within ``seconds``."""
        patience = self._timeout + seconds
        answer = self._ask("POST", f"/containers/{_quoted(container)}/stop", {"t": str(seconds)}, patience=patience)
        return self._done(answer, {404: False})

    def remove(self, container: str, *, force: bool = True) -> bool:
        """Whether there was such a container; it and its anonymous volumes are gone, or going."""
        query = {"v": "1"} | ({"force": "1"} if force else {})
        answer = self._ask("DELETE", f"/containers/{_quoted(container)}", query)
        try:
            return self._done(answer, {404: False})
        except EngineRefused as error:
            if error.status == 409 and "already in progress" in error.message:
                return True
            raise

    def wait(self, container: str, *, condition: str = "not-running") -> int:
        """The exit code of a container, when it has ended, however long that takes. Raises ``ContainerMissing``.

        A container that was not started counts as ended; ``next-exit`` as condition waits for its start too.
        """
        answer = self._ask(
            "POST", f"/containers/{_quoted(container)}/wait", {"condition": condition}, patience=math.inf
        )
        found = self._checked(answer, {404: ContainerMissing}).json() or {}
        problem = (found.get("Error") or {}).get("Message")
        if problem:
            raise EngineFailed(f"the engine could not wait for container {container}: {problem}")
        return int(found["StatusCode"])

    def containers(self, *, labels: Mapping[str, str | None], all: bool = True) -> list[JSONObject]:  # noqa: A002
        """The containers with all these labels, with ``all`` those that have ended too."""
        query = {"filters": _filters(label=_labels(labels))} | ({"all": "1"} if all else {})
        return list(self._checked(self._ask("GET", "/containers/json", query)).json() or [])

    # -- streams

    def logs(
        self, container: str, *, follow: bool, since: float | None = None, timestamps: bool = False
    ) -> Stream[Output]:
        """What a container without a terminal wrote, as (stream, bytes); with ``follow`` until it ends.

        With ``timestamps`` each line begins with the engine's time of it and a space. A stream that broke off
        raises ``EngineUnreachable``: it is no end.
        """
        query = {"stdout": "1", "stderr": "1"}
        query |= {"follow": "1"} if follow else {}
        query |= {"timestamps": "1"} if timestamps else {}
        query |= {"since": f"{since:.9f}"} if since is not None else {}
        answer = self._ask("GET", f"/containers/{_quoted(container)}/logs", query, patience=self._silent())
        return Stream(self._checked(answer, {404: ContainerMissing}), answers.outputs)

    def events(self, *, labels: Mapping[str, str | None], since: float | None = None) -> Stream[JSONObject]:
        """What happens to objects with all these labels, until closed."""
        query = {"filters": _filters(label=_labels(labels))}
        query |= {"since": f"{since:.9f}"} if since is not None else {}
        answer = self._ask("GET", "/events", query, patience=self._silent())
        return Stream(self._checked(answer), answers.messages)

    # -- files

    def put_archive(self, container: str, path: str, data: Body) -> None:
        """The tar ``data`` is unpacked in the container's folder ``path``. Raises ``ContainerMissing``."""
        target = f"/containers/{_quoted(container)}/archive"
        answer = self._ask(
            "PUT", target, {"path": path}, body=data, headers={"Content-Type": _TAR}, patience=math.inf
        )
        self._done(answer)

    def get_archive(self, container: str, path: str) -> Iterator[bytes]:
        """A tar of the container's file or folder ``path``, in pieces. Raises ``ContainerMissing``, at once."""
        answer = self._ask("GET", f"/containers/{_quoted(container)}/archive", {"path": path})
        return self._checked(answer, {404: ContainerMissing}).chunks()

    def changes(self, container: str) -> list[str]:
        """The paths of the container that differ from those of its image. Raises ``ContainerMissing``."""
        answer = self._checked(
            self._ask("GET", f"/containers/{_quoted(container)}/changes"), {404: ContainerMissing}
        )
        return [str(one["Path"]) for one in answer.json() or ()]

    # -- requests

    def _prefix(self) -> str:
        """The part of every path that names the API version: ours, or the nearest that the engine takes."""
        version = self.version()
        chosen = max(
            min(OURS, answers.api(version["ApiVersion"])), answers.api(version.get("MinAPIVersion") or "1.0")
        )
        return f"/v{chosen[0]}.{chosen[1]}"

    def _silent(self) -> float | None:
        """How long the first byte of a stream may take: Podman sends none before there is something to tell."""
        return math.inf if self.podman else None

    def _ask(
        self,
        method: Literal["GET", "POST", "PUT", "DELETE"],
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        patience: float | None = None,
    ) -> Answer:
        target = self._prefix() + path + (f"?{urlencode(query)}" if query else "")
        return self._wire.ask(method, target, body=body, headers=headers, patience=patience)

    def _checked(self, answer: Answer, kinds: Mapping[int, type[EngineError]] | None = None) -> Answer:
        """The answer, if it is a good one. Raises its error, of the kind that ``kinds`` has for the status."""
        if answer.status < 400:
            return answer
        raise answers.refusal(answer.status, answer.read(), kinds or {})

    def _done(self, answer: Answer, absent: Mapping[int, bool] | None = None) -> bool:
        """True when done, what ``absent`` has for the status otherwise."""
        if absent and answer.status in absent:
            body = answer.read()
            if answer.status != 409 or b"not running" in body or b"can only kill" in body:
                return absent[answer.status]
            raise answers.refusal(answer.status, body, {})
        self._checked(answer, {404: ContainerMissing}).read()
        return True

    def _messages(self, answer: Answer) -> Iterator[JSONObject]:
        """The messages of an answer that comes in pieces. Raises the error that is among them."""
        for message in answers.messages(answer.chunks()):
            answers.raise_detail(message)
            yield message


def _quoted(reference: str) -> str:
    """A name as part of a path."""
    return quote(reference, safe="/:@")


def _split(reference: str) -> tuple[str, str]:
    """Repository, and digest or tag: without a tag the engine would pull every one."""
    name, _, digest = reference.partition("@")
    before, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        before, tag = name, "latest"
    return before, digest or tag


def _labels(labels: Mapping[str, str | None]) -> list[str]:
    return [name if value is None else f"{name}={value}" for name, value in sorted(labels.items())]


def _filters(**filters: list[str]) -> str:
    return json.dumps({name: values for name, values in filters.items() if values})
