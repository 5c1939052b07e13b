"""The part of a container engine's client that running steps needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from flowkiln._base.endpoints import Endpoint
    from flowkiln._base.json import JSONObject

    Body = bytes | Iterable[bytes] | Callable[[Callable[[bytes], object]], None]

Item_co = TypeVar("Item_co", covariant=True)
Output = tuple[Literal["stdout", "stderr"], bytes]


class Stream(Protocol[Item_co]):
    """What an engine tells as it happens."""

    def __iter__(self) -> Iterator[Item_co]: ...

    def close(self) -> None:
        """Ends the stream, from any thread."""


class Engine(Protocol):
    """One container engine, used from several threads; see ``_base.engine.Engine``, which it is in practice."""

    @property
    def endpoint(self) -> Endpoint:
        """Its address."""

    def close(self) -> None:
        """Ends the connections that are kept; the engine can be used again."""

    @property
    def rootless(self) -> bool:
        """Whether root in a container is this user outside."""

    def info(self) -> JSONObject:
        """What the engine says of its machine and settings."""

    def image(self, reference: str) -> JSONObject | None:
        """What it knows of an image, None when it has none of that name."""

    def create(self, name: str, spec: JSONObject, *, platform: str | None = None) -> str:
        """The id of a new container. Raises ``ImageMissing`` and ``NameTaken``."""

    def start(self, container: str) -> None:
        """The container runs, or has run."""

    def inspect(self, container: str) -> JSONObject | None:
        """What it knows of a container, None when there is none."""

    def signal(self, container: str, name: str) -> bool:
        """Whether the container ran and was sent the signal."""

    def remove(self, container: str, *, force: bool = True) -> bool:
        """Whether there was such a container; it and its anonymous volumes are gone."""

    def containers(self, *, labels: Mapping[str, str | None], all: bool = True) -> list[JSONObject]:  # noqa: A002
        """The containers with all these labels."""

    def logs(self, container: str, *, follow: bool, since: float | None = None) -> Stream[Output]:
        """What a container wrote; with ``follow`` until it ends."""

    def events(self, *, labels: Mapping[str, str | None], since: float | None = None) -> Stream[JSONObject]:
        """What happens to objects with all these labels, until closed."""

    def put_archive(self, container: str, path: str, data: Body) -> None:
        """The tar ``data`` is unpacked in the container's folder ``path``."""

    def get_archive(self, container: str, path: str) -> Iterator[bytes]:
        """A tar of the container's file or folder, in pieces. Raises ``ContainerMissing``."""
