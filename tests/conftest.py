"""Fixtures of all tests: a package index, isolated homes, a hostile environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.services import unavailable
from tests.services.channel import Channel, ChannelServer
from tests.services.condachannel import conda_channel as shared_channel
from tests.services.home import HOSTILE, MACHINE, Home, is_ambient
from tests.services.index import PackageIndex
from tests.services.registry import FakeRegistry
from tests.stack.place import CannotRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytest_plugins = ["tests.stack.fixtures"]


@pytest.fixture(scope="session", autouse=True)
def _no_ambient_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the developer's own caches and settings, whatever their environment says."""
    home = Home(tmp_path_factory.mktemp("isolated")).prepare()
    with pytest.MonkeyPatch.context() as patch:
        for name in [one for one in os.environ if is_ambient(one)]:
            patch.delenv(name)
        for name, value in {**home.variables(), "PATH": MACHINE["PATH"]}.items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home, cache, settings file and store of this test's own; the environment points there."""
    own = Home(tmp_path / "isolated").prepare()
    for name, value in own.variables().items():
        monkeypatch.setenv(name, value)
    return own


@pytest.fixture
def hostile_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The environment of a badly configured machine, umask included."""
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    before = os.umask(0o077)
    yield HOSTILE
    os.umask(before)


@pytest.fixture(scope="session")
def _index_server() -> Iterator[PackageIndex]:
    with PackageIndex() as index:
        yield index


@pytest.fixture
def package_index(_index_server: PackageIndex) -> Iterator[PackageIndex]:
    """An empty package index on a local port. The server is shared, packages, faults and counters are not."""
    _index_server.reset()
    yield _index_server
    _index_server.reset()


@pytest.fixture
def start_index() -> Iterator[Callable[[], PackageIndex]]:
    """Starts further indexes: for tests of which index wins, or of an index that is stopped."""
    started: list[PackageIndex] = []

    def start() -> PackageIndex:
        started.append(PackageIndex().start())
        return started[-1]

    yield start
    for index in started:
        index.stop()


@pytest.fixture(scope="session")
def _fake_registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        yield registry


@pytest.fixture
def fake_registry(_fake_registry: FakeRegistry) -> Iterator[FakeRegistry]:
    """An empty registry of images in memory, for faults that a real one won't produce. The server is shared."""
    _fake_registry.reset()
    yield _fake_registry
    _fake_registry.reset()


@pytest.fixture(scope="session")
def conda_channel() -> Channel:
    """The channel of several hundred conda packages; not to be written into, ``mirror`` gives one's own."""
    try:
        return shared_channel()
    except CannotRun as reason:
        unavailable(str(reason))


@pytest.fixture(scope="session")
def _channel_server() -> Iterator[ChannelServer]:
    with ChannelServer() as server:
        yield server


@pytest.fixture
def channel_server(_channel_server: ChannelServer) -> Iterator[ChannelServer]:
    """A server of conda channels that serves none yet: ``url = channel_server.mount("main", conda_channel)``."""
    _channel_server.reset()
    yield _channel_server
    _channel_server.reset()


@pytest.fixture
def start_channels() -> Iterator[Callable[[], ChannelServer]]:
    """Starts further servers of channels: for tests of mirrors, of accounts of their own, or of one that stops."""
    started: list[ChannelServer] = []

    def start() -> ChannelServer:
        started.append(ChannelServer().start())
        return started[-1]

    yield start
    for server in started:
        server.stop()
