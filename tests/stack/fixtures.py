"""Fixtures for the services of tests of images. The workers of a run share what is running."""

from __future__ import annotations

import pytest

from tests.stack import Engine, EngineKind, Registry, base, engine, registry


@pytest.fixture(scope="session")
def docker_engine() -> Engine:
    """A Docker engine with the classic image store."""
    return engine("overlay2")


@pytest.fixture(scope="session")
def containerd_engine() -> Engine:
    """A Docker engine with containerd's image store."""
    return engine("containerd")


@pytest.fixture(scope="session", params=["overlay2", "containerd"])
def any_engine(request: pytest.FixtureRequest) -> Engine:
    """Each of the engines: the test runs once with each."""
    kind: EngineKind = request.param
    return engine(kind)


@pytest.fixture(scope="session")
def plain_registry() -> Registry:
    """A registry that speaks http and asks for nothing."""
    return registry("plain")


@pytest.fixture(scope="session")
def tls_registry() -> Registry:
    """A registry behind a certificate of its own that asks for a password."""
    return registry("tls")


@pytest.fixture(scope="session")
def slim_base() -> str:
    """A base like the official slim image of Python 3.11, for amd64 and arm64."""
    return base("slim-python:3.11")


@pytest.fixture(scope="session")
def newer_slim_base() -> str:
    """The same with Python 3.13, for this machine's platform only."""
    return base("slim-python:3.13")


@pytest.fixture(scope="session")
def debian_base() -> str:
    """A Debian with its own Python 3.11 in ``/usr/bin``."""
    return base("debian-python:3.11")


@pytest.fixture(scope="session")
def bare_base() -> str:
    """A Debian without any Python."""
    return base("no-python:bookworm")


@pytest.fixture(scope="session")
def distroless_base() -> str:
    """Python 3.11 without shell and package tool, for a user who is not root."""
    return base("distroless-python:3.11")
