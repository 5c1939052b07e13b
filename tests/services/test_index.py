"""The index that other tests trust: what it serves, what it counts, and each of its faults."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
import urllib3

from tests.services.index import Fault, PackageIndex
from tests.services.wheels import sdist, wheel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.services.home import Home

JSON = {"Accept": "application/vnd.pypi.simple.v1+json"}
BIG = wheel("big", files={"big/data.bin": bytes(range(256)) * 400})


def get(url: str, **headers: str) -> urllib3.BaseHTTPResponse:
    return urllib3.request("GET", url, headers=headers or None, retries=False, redirect=True, timeout=10)


def file_url(index: PackageIndex, name: str, filename: str) -> str:
    return f"{index.base}/files/{name}/{filename}"


def test_json_and_html_pages_name_the_same_file(package_index: PackageIndex) -> None:
    made = wheel("Demo.Pkg", "1.2", requires_python=">=3.11")
    package_index.add(made, yanked="broken")
    document = json.loads(get(package_index.url + "demo-pkg/", **JSON).data)
    (entry,) = document["files"]
    assert entry["filename"] == "Demo_Pkg-1.2-py3-none-any.whl"
    assert entry["hashes"] == {"sha256": made.sha256}
    assert entry["yanked"] == "broken"
    assert entry["requires-python"] == ">=3.11"
    assert entry["core-metadata"] == {"sha256": hashlib.sha256(made.metadata).hexdigest()}
    package_index.html_only()
    page = get(package_index.url + "demo-pkg/", **JSON).data.decode()
    assert f"Demo_Pkg-1.2-py3-none-any.whl#sha256={made.sha256}" in page
    assert 'data-yanked="broken"' in page


def test_requests_are_counted_by_path_and_in_total(package_index: PackageIndex) -> None:
    package_index.add(wheel("demo"))
    for _ in range(3):
        get(package_index.url + "demo/")
    get(package_index.url + "absent/")
    assert package_index.total == 4
    assert package_index.requests == {"/simple/demo/": 3, "/simple/absent/": 1}
    assert package_index.count("demo") == 3


def test_ranges_and_a_server_without_them(package_index: PackageIndex) -> None:
    package_index.add(BIG)
    url = file_url(package_index, "big", BIG.filename)
    part = get(url, Range="bytes=10-19")
    assert (part.status, part.data) == (206, BIG.data[10:20])
    assert get(url, Range=f"bytes={BIG.size}-").status == 416
    package_index.fault("big", Fault(ranges=False))
    whole = get(url, Range="bytes=10-19")
    assert (whole.status, whole.data) == (200, BIG.data)


def test_status_for_a_number_of_requests_then_fine(package_index: PackageIndex) -> None:
    package_index.add(wheel("demo"))
    package_index.fault("demo", Fault(status=503, times=2), on="page")
    package_index.fault("demo", Fault(status=429, retry_after="7", times=1), on="page")
    answers = [get(package_index.url + "demo/") for _ in range(4)]
    assert [one.status for one in answers] == [503, 503, 429, 200]
    assert answers[2].headers["Retry-After"] == "7"


def test_cut_body_once_then_whole(package_index: PackageIndex) -> None:
    package_index.add(BIG)
    package_index.fault("big", Fault(cut_after=100, times=1), on="file")
    url = file_url(package_index, "big", BIG.filename)
    with pytest.raises(urllib3.exceptions.HTTPError):
        get(url)
    assert get(url).data == BIG.data


def test_stalled_answer_sends_some_bytes_and_ends_with_the_reset(package_index: PackageIndex) -> None:
    package_index.add(BIG)
    package_index.fault("big", Fault(stall_after=64), on="file")
    url = file_url(package_index, "big", BIG.filename)
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        urllib3.request("GET", url, retries=False, timeout=0.2)


def test_wrong_hash_in_page_and_in_file(package_index: PackageIndex) -> None:
    package_index.add(BIG, sha256="0" * 64)
    (entry,) = json.loads(get(package_index.url + "big/", **JSON).data)["files"]
    assert entry["hashes"]["sha256"] == "0" * 64
    package_index.fault("big", Fault(corrupt=True), on="file")
    body = get(file_url(package_index, "big", BIG.filename)).data
    assert len(body) == BIG.size
    assert hashlib.sha256(body).hexdigest() != BIG.sha256


def test_password_token_that_expires_and_the_log_of_headers(package_index: PackageIndex) -> None:
    package_index.add(wheel("demo"))
    package_index.require("user", "secret", uses=1)
    assert get(package_index.url + "demo/").status == 401
    signed = urllib3.make_headers(basic_auth="user:secret")
    assert get(package_index.url + "demo/", **signed).status == 200
    assert get(package_index.url + "demo/", **signed).status == 401
    package_index.require("user", "fresh")
    assert get(package_index.url + "demo/", **urllib3.make_headers(basic_auth="user:fresh")).status == 200
    assert len(package_index.authorizations) == 3


def test_stopped_index_refuses_connections(start_index: Callable[[], PackageIndex]) -> None:
    index = start_index()
    index.stop()
    port = int(index.base.rpartition(":")[2])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()


def test_uv_resolves_against_it_preferring_what_is_not_yanked(package_index: PackageIndex, home: Home) -> None:
    package_index.add(wheel("demo", "1.0", requires=["leaf>=1"]), wheel("leaf", "1.5"))
    package_index.add(wheel("demo", "2.0"), yanked="no")
    package_index.add(sdist("leaf", "9.0"))
    (home.work / "in.txt").write_text("demo\n")
    done = subprocess.run(
        ["uv", "pip", "compile", "-q", "--no-build", "--index-url", package_index.url, "in.txt"],
        cwd=home.work,
        env=home.environ(UV_PYTHON_DOWNLOADS="never"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pins = [line for line in done.stdout.splitlines() if "==" in line]
    assert pins == ["demo==1.0", "leaf==1.5"]


def test_as_a_command_with_control_requests(tmp_path: Path, home: Home) -> None:
    wheel("demo").write(tmp_path / "wheels")
    command = [sys.executable, "-m", "tests.services.index", "--wheels", str(tmp_path / "wheels")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=home.environ()) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        base = url.removesuffix("/simple/")
        fault = json.dumps({"target": "demo", "status": 500, "times": 1}).encode()
        urllib.request.urlopen(f"{base}/_fault", data=fault).close()
        assert [get(url + "demo/").status for _ in range(2)] == [500, 200]
        assert json.loads(get(f"{base}/_requests").data)["total"] == 2
        server.terminate()


def test_stopping_ends_answers_that_are_still_slow(start_index: Callable[[], PackageIndex]) -> None:
    index = start_index().add(BIG)
    index.fault("big", Fault(rate=10))
    with socket.create_connection(("127.0.0.1", int(index.base.rpartition(":")[2])), timeout=5) as connection:
        connection.sendall(f"GET /files/big/{BIG.filename} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert connection.recv(4) == b"HTTP"
        index.stop()
