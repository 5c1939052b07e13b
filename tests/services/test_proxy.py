"""The corporate network of the tests: hosts that only the proxy finds, certificates that only one file knows."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

import pytest
import urllib3

from tests.services.index import PackageIndex
from tests.services.proxy import Authority, Proxy
from tests.services.wheels import wheel

if TYPE_CHECKING:
    from pathlib import Path

HOST = "packages.example"


def port_of(index: PackageIndex) -> int:
    return int(index.base.rpartition(":")[2])


def test_host_is_reached_through_the_proxy_with_the_own_authority_only(tmp_path: Path) -> None:
    authority = Authority(HOST)
    certificates = authority.write(tmp_path / "ca.pem")
    with PackageIndex(tls=authority.server()) as index, Proxy(port_of(index)) as proxy:
        index.add(wheel("demo"))
        context = ssl.create_default_context(cafile=str(certificates))
        with urllib3.ProxyManager(proxy.url, ssl_context=context) as pool:
            answer = pool.request("GET", f"https://{HOST}/simple/demo/", retries=False)
        assert answer.status == 200
        assert proxy.seen == [f"CONNECT {HOST}:443"]
        with urllib3.ProxyManager(proxy.url) as pool, pytest.raises(urllib3.exceptions.SSLError):
            pool.request("GET", f"https://{HOST}/simple/demo/", retries=False)
    with pytest.raises(OSError, match=r"."):
        socket.getaddrinfo(HOST, 443)


def test_plain_requests_are_forwarded_too(package_index: PackageIndex) -> None:
    package_index.add(wheel("demo"))
    with Proxy(port_of(package_index)) as proxy:
        with urllib3.ProxyManager(proxy.url) as pool:
            assert pool.request("GET", f"http://{HOST}/simple/demo/", retries=False).status == 200
        assert proxy.seen == [f"GET http://{HOST}/simple/demo/"]


def test_proxy_that_wants_a_password(package_index: PackageIndex) -> None:
    with Proxy(port_of(package_index), user="me", password="secret") as proxy:
        with urllib3.ProxyManager(proxy.url) as pool:
            assert pool.request("GET", f"http://{HOST}/simple/", retries=False).status == 407
        headers = urllib3.make_headers(proxy_basic_auth="me:secret")
        with urllib3.ProxyManager(proxy.url, proxy_headers=headers) as pool:
            assert pool.request("GET", f"http://{HOST}/simple/", retries=False).status == 200
    assert [one.split()[0] for one in proxy.seen] == ["407", "GET"]
