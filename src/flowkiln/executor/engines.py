"""The part of a container engine's client that running steps needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from flowkiln._base.endpoints import Endpoint
    from flowkiln._base.json import JSONObject

    Body = bytes | Iterable[bytes] | Callable[[Callable[[bytes], object]], None]

Item = TypeVar("Item", covariant=True)
Output = tuple[Literal["stdout", "stderr"], bytes]


class Stream(Protocol[Item]):
    """What an engine tells as it happens."""

    def __iter__(self) -> Iterator[Item]: ...

    def close(self) -> None:
        """Ends the stream, from any thread."""


class Engine(Protocol):
    """One container engine, used from several threads; see ``_base.engine.Engine``, which it is in practice."""

    @property
    def endpoint(self) -> Endpoint: ...

    @property
    def rootless(self) -> bool: ...

    def info(self) -> JSONObject: ...

    def image(self, reference: str) -> JSONObject | None: ...

    def create(self, name: str, spec: JSONObject, *, platform: str | None = None) -> str: ...

    def start(self, container: str) -> None: ...

    def inspect(self, container: str) -> JSONObject | None: ...

    def signal(self, container: str, name: str) -> bool: ...

    def remove(self, container: str, *, force: bool = True) -> bool: ...

    def containers(self, *, labels: Mapping[str, str | None], all: bool = True) -> list[JSONObject]: ...  # noqa: A002

    def logs(self, container: str, *, follow: bool, since: float | None = None) -> Stream[Output]: ...

    def events(self, *, labels: Mapping[str, str | None], since: float | None = None) -> Stream[JSONObject]: ...

    def put_archive(self, container: str, path: str, data: Body) -> None: ...

    def get_archive(self, container: str, path: str) -> Iterator[bytes]: ...
