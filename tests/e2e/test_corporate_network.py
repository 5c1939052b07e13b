"""B09: the package index is behind a proxy, and its certificate is signed by the company."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.services import canary
from tests.services.index import PackageIndex
from tests.services.proxy import Authority, Proxy
from tests.services.wheels import wheel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.project import Project

pytestmark = pytest.mark.e2e

HOST = "packages.example"
FLOW = f"""
import sys
from flowkiln import FlowSpec, pypi, step

class Corporate(FlowSpec):
    @pypi(python="{{python}}", packages={{{{"demo": "1.*"}}}}, indexes=["https://{HOST}/simple/"])
    @step
    def start(self):
        import demo
        self.version = demo.__version__
        self.next(self.end)

    @step
    def end(self):
        print("demo", self.version)

if __name__ == "__main__":
    Corporate()
"""


@pytest.fixture
def authority() -> Authority:
    """The company's own."""
    return Authority(HOST)


@pytest.fixture
def index(authority: Authority) -> Iterator[PackageIndex]:
    """The company's index, with the package that the flow needs."""
    with PackageIndex(tls=authority.server()) as served:
        yield served.add(wheel("demo", "1.2"))


@pytest.fixture
def network(project: Project, tmp_path: Path, authority: Authority, index: PackageIndex) -> Iterator[Proxy]:
    """The project's machine reaches the index through the proxy alone, and knows the company's authority."""
    project.write("flow.py", FLOW.format(python=f"{sys.version_info.major}.{sys.version_info.minor}"))
    with Proxy(int(index.base.rpartition(":")[2])) as proxy:
        project.environ["HTTPS_PROXY"] = proxy.url
        project.environ["NO_PROXY"] = ""
        project.environ["SSL_CERT_FILE"] = str(authority.write(tmp_path / "company.pem"))
        yield proxy


def test_lock_and_download_go_through_the_proxy(project: Project, network: Proxy) -> None:
    assert "demo 1.2" in project.run().ok().out
    assert set(network.seen) == {f"CONNECT {HOST}:443"}


def test_unknown_authority_is_named_with_the_setting_that_adds_it(project: Project, network: Proxy) -> None:
    del project.environ["SSL_CERT_FILE"]
    project.run(SSL_CERT_FILE="/etc/ssl/certs/ca-certificates.crt").failed(5, HOST, "SSL_CERT_FILE")


def test_a_token_that_expires_on_the_way_is_renewed_and_is_nowhere_at_rest(
    project: Project, network: Proxy, index: PackageIndex, tmp_path: Path
) -> None:
    tokens = [f"CANARY{number}" for number in range(4)]
    told = tmp_path / "told"
    told.write_text("\n".join(tokens))
    script = tmp_path / "print-token"
    script.write_text(f"#!/bin/sh\nhead -n 1 {told} && sed -i 1d {told}\n")
    script.chmod(0o755)
    index.require("__token__", tokens[0], uses=1)
    for token in tokens[1:]:
        index.require("__token__", token)
    project.environ["FLOWKILN_CREDENTIALS"] = f"{HOST}={script}"
    done = project.run().ok()
    assert "demo 1.2" in done.out
    assert tokens[-1] in told.read_text(), "one for the launcher, one after the refusal, at most one besides"
    for token in tokens:
        assert token not in done.out + done.err
        assert canary.find(token, project.folder, project.home, pairs=["__token__"]) == []
    shown = project.flowkiln("env", "indexes", "flow.py", "--json").ok().out
    assert "*** (command)" in shown
