"""Channels of conda packages, judged by the library that solves and installs them."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import subprocess
import urllib.error
import urllib.request
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import rattler
import trustme
from hypothesis import given
from hypothesis import strategies as st
from rattler.exceptions import SolverError

from tests.services.channel import Channel, ChannelServer, parts
from tests.services.condaarchive import Member, index_of, info_file
from tests.services.condapackages import PLACEHOLDER, package
from tests.services.condawheels import from_wheel
from tests.services.index import Fault
from tests.services.wheels import data_folder, wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Literal

    from rattler.platform import SubdirLiteral

    from tests.services.index import Kind

GLIBC = {"__glibc": "2.28", "__linux": "5.10", "__unix": "0"}


def solve(
    urls: Sequence[str],
    specs: Sequence[str],
    cache: Path,
    subdir: SubdirLiteral = "linux-64",
    virtual: dict[str, str] | None = None,
    exclude_newer: datetime | None = None,
) -> list[rattler.RepoDataRecord]:
    """What rattler chooses, with the virtual packages of an old Linux and ``virtual``."""
    assumed = [
        rattler.GenericVirtualPackage(rattler.PackageName(name), rattler.Version(version), rattler.BuildString("0"))
        for name, version in {**GLIBC, **(virtual or {})}.items()
    ]

    async def run() -> list[rattler.RepoDataRecord]:
        return await rattler.solve(
            urls,
            specs,
            gateway=rattler.Gateway(cache_dir=cache / "repodata"),
            platforms=[subdir, "noarch"],
            virtual_packages=assumed,
            exclude_newer=exclude_newer,
        )

    return asyncio.run(run())


def install(
    records: list[rattler.RepoDataRecord], prefix: Path, cache: Path, subdir: SubdirLiteral = "linux-64"
) -> Path:
    """The prefix that rattler made of ``records``."""

    async def run() -> None:
        await rattler.install(
            records, prefix, cache_dir=cache / "packages", show_progress=False, platform=rattler.Subdir(subdir)
        )

    asyncio.run(run())
    return prefix


def chosen(records: list[rattler.RepoDataRecord]) -> dict[str, str]:
    return {one.name.normalized: f"{one.version}={one.build}" for one in records}


def output(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, env={})
    assert done.returncode == 0, done.stderr
    return done.stdout


def fetch(url: str, headers: dict[str, str] | None = None) -> tuple[int, bytes, dict[str, str]]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {})) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), dict(error.headers)


@pytest.fixture
def small(tmp_path: Path) -> Channel:
    """A channel of two packages."""
    channel = Channel(tmp_path / "small")
    package(channel.folder, "demo", "1.0", depends=["base"], files={"share/demo.txt": b"demo\n" * 1000})
    package(channel.folder, "base", "1.0", subdir="linux-64", files={"share/base.txt": b"base\n"})
    return channel.index()


# -- packages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["conda", "tar.bz2"])
def test_equal_descriptions_give_equal_bytes(tmp_path: Path, kind: Literal["conda", "tar.bz2"]) -> None:
    made = [
        package(tmp_path / side, "demo", files={"b": b"2", "a": b"1"}, depends=["x"], format=kind) for side in "ab"
    ]
    assert made[0].read_bytes() == made[1].read_bytes()
    assert index_of(made[0])["depends"] == ["x"]


def test_rattler_places_everything_that_a_package_can_say(conda_channel: Channel, tmp_path: Path) -> None:
    names = ["soft-links", "hard-links", "prefix-text", "prefix-binary", "prefix-legacy", "no-link", "odd-names"]
    more = ["activated", "env-vars", "empty-file", "old-format", "metapackage", "md5-only", "post-link"]
    records = solve([conda_channel.url], names + more, tmp_path)
    prefix = install(records, tmp_path / "env", tmp_path)
    assert (prefix / "lib/libsoft.so").resolve().name == "libsoft.so.1.2"
    assert (prefix / "share/soft/current/values.txt").read_text() == "1\n2\n"
    assert (prefix / "share/soft/absent").is_symlink()
    assert (prefix / "share/hard/two.txt").read_text() == "one\n"
    assert output("/bin/sh", prefix / "bin/prefix-text") == f"{prefix}/share and {prefix}/lib\n"
    assert f"{prefix}/lib:{prefix}/lib64".encode() in (prefix / "lib/libprefix.so").read_bytes()
    for path in ("bin/prefix-legacy", "lib/liblegacy.so", "lib/libprefix.so", "lib/pkgconfig/prefix.pc"):
        assert PLACEHOLDER.encode() not in (prefix / path).read_bytes()
    assert (prefix / "share/unlinked.txt").stat().st_nlink == 1
    assert (prefix / "share/no-link.txt").stat().st_nlink == 1
    assert not (prefix / "post-link-ran.txt").exists()
    assert len(list((prefix / "share/odd names").iterdir())) == 3


def test_a_wheel_with_scripts_and_data_becomes_a_package_as_pip_would_place_it(tmp_path: Path) -> None:
    data = data_folder("Demo.Tool")
    made = wheel(
        "Demo.Tool",
        requires=["numpy>=1.22,<3", "other~=1.4", "extra; extra == 'x'", "old; python_version < '3'"],
        files={
            "demo/core.cpython-311-x86_64-linux-gnu.so": b"\x7fELF",
            f"{data}/scripts/run": "#!python\nprint()\n",
            f"{data}/data/share/d.txt": "d",
            f"{data}/headers/d.h": "h",
        },
        console={"Demo": "demo.core:main"},
        tag="cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64",
    )
    path = from_wheel(tmp_path / "channel", made)
    index = index_of(path)
    assert index["name"] == "demo-tool"
    assert index["depends"] == [
        "__glibc >=2.17",
        "numpy >=1.22,<3",
        "other ~=1.4",
        "python >=3.11,<3.12.0a0",
        "python_abi 3.11.* *_cp311",
    ]
    paths = {one["_path"]: one for one in json.loads(info_file(path, "paths.json"))["paths"]}
    site = "lib/python3.11/site-packages"
    assert {"bin/run", "bin/Demo", "share/d.txt", "include/python3.11/Demo_Tool/d.h"} <= set(paths)
    assert paths["bin/run"]["prefix_placeholder"] == PLACEHOLDER
    assert f"{site}/Demo_Tool-1.0.dist-info/INSTALLER" in paths


@pytest.mark.parametrize(
    ("requires_python", "expected"),
    [(">=3.8", "python >=3.8"), (None, "python"), (">=3.7, !=3.9.1", "python >=3.7,!=3.9.1")],
)
def test_a_pure_wheel_becomes_noarch_with_its_entry_points(
    tmp_path: Path, requires_python: str | None, expected: str
) -> None:
    made = wheel("pure", requires_python=requires_python, console={"pure": "pure:main [extra]"}).write(tmp_path)
    path = from_wheel(tmp_path / "channel", made, conda_name="other-name")
    assert path.parent.name == "noarch"
    assert index_of(path)["depends"] == [expected]
    assert index_of(path)["name"] == "other-name"
    assert json.loads(info_file(path, "link.json"))["noarch"]["entry_points"] == ["pure = pure:main"]


# -- repodata --------------------------------------------------------------------------------------------------


def test_indexing_twice_changes_no_byte_and_a_new_package_appears(small: Channel) -> None:
    before = {path: path.read_bytes() for path in small.folder.glob("*/repodata*")}
    assert {path.read_bytes() for path in small.index().folder.glob("*/repodata*")} == set(before.values())
    package(small.folder, "later", files={})
    assert "later-1.0-0.conda" in small.index().records("noarch")


def test_repodata_say_what_they_are_told_to(small: Channel) -> None:
    small.state(small.find("demo"), sha256=None, depends=["nothing"])
    small.omit(small.find("base"))
    small.index()
    assert small.records("linux-64") == {}
    record = small.records("noarch")["demo-1.0-0.conda"]
    assert "sha256" not in record
    assert "md5" in record
    assert record["depends"] == ["nothing"]


def test_a_mirror_holds_the_same_and_is_its_own(small: Channel, tmp_path: Path) -> None:
    mirror = small.mirror(tmp_path / "mirror", without={"base"})
    assert mirror.records("noarch") == small.records("noarch")
    assert mirror.records("linux-64") == {}
    mirror.cut(mirror.find("demo"), 10)
    assert mirror.index().records("noarch") == small.records("noarch")
    assert mirror.find("demo").stat().st_size == 10
    before = small.find("demo").read_bytes()
    assert len(before) > 10
    package(small.mirror(tmp_path / "third").folder, "demo", "1.0", files={})
    assert small.find("demo").read_bytes() == before


# -- the server ------------------------------------------------------------------------------------------------


def test_ranges_conditions_and_the_log(small: Channel, channel_server: ChannelServer) -> None:
    url = channel_server.mount("main", small)
    file, whole = f"{url}/noarch/demo-1.0-0.conda", small.find("demo").read_bytes()
    assert fetch(file, {"Range": "bytes=2-5"})[:2] == (206, whole[2:6])
    status, body, headers = fetch(f"{url}/noarch/repodata.json")
    assert (status, body) == (200, (small.folder / "noarch/repodata.json").read_bytes())
    assert fetch(f"{url}/noarch/repodata.json", {"If-None-Match": headers["ETag"]})[0] == 304
    assert fetch(f"{url}/noarch/repodata.json", {"If-Modified-Since": headers["Last-Modified"]})[0] == 304
    assert fetch(f"{url}/noarch/.index.json")[0] == 404
    assert fetch(f"{channel_server.base}/other/noarch/repodata.json")[0] == 404
    assert channel_server.count("demo") == 1
    assert channel_server.downloaded() == ["demo-1.0-0.conda"]


def test_tokens_and_passwords(small: Channel, channel_server: ChannelServer, tmp_path: Path) -> None:
    url = channel_server.mount("team/main", small)
    channel_server.require_token("tk-1")
    assert fetch(f"{url}/noarch/repodata.json")[0] == 401
    assert fetch(f"{channel_server.url_with_token('tk-2', 'team/main')}/noarch/repodata.json")[0] == 401
    with_token = channel_server.url_with_token("tk-1", "team/main")
    assert chosen(solve([with_token], ["demo"], tmp_path)) == {"demo": "1.0=0", "base": "1.0=0"}
    channel_server.expire()
    assert fetch(f"{with_token}/noarch/repodata.json")[0] == 401
    channel_server.reset()
    channel_server.mount("main", small)
    channel_server.require("user", "p@ss")
    with_password = channel_server.url_with("user", "p@ss", "main")
    assert chosen(solve([with_password], ["base"], tmp_path)) == {"base": "1.0=0"}


def test_packages_may_be_elsewhere(
    small: Channel, channel_server: ChannelServer, start_channels: Callable[[], ChannelServer], tmp_path: Path
) -> None:
    store = start_channels()
    channel_server.redirect("main", store.mount("files", small))
    records = solve([channel_server.mount("main", small)], ["base"], tmp_path)
    install(records, tmp_path / "env", tmp_path)
    assert channel_server.downloaded() == store.downloaded() == ["base-1.0-0.conda"]


def test_stale_repodata_go_on_to_be_served(small: Channel, channel_server: ChannelServer) -> None:
    url = f"{channel_server.mount('main', small)}/noarch/repodata.json"
    channel_server.freeze("main")
    channel_server.cache_control = "public, max-age=1200"
    package(small.folder, "later", files={})
    small.index()
    _, body, headers = fetch(url)
    assert b"later" not in body
    assert headers["Cache-Control"] == "public, max-age=1200"
    channel_server.thaw()
    assert b"later" in fetch(url)[1]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(status=404), "repodata"),
        (Fault(status=401), "repodata"),
        (Fault(corrupt=True), "package"),
        (Fault(cut_after=200), "package"),
    ],
    ids=["repodata-404", "repodata-401", "changed-hash", "package-cut"],
)
def test_a_planned_fault_reaches_rattler(
    fault: Fault, kind: Kind, small: Channel, channel_server: ChannelServer, tmp_path: Path
) -> None:
    url = channel_server.mount("main", small)
    channel_server.fault("*", fault, on=kind)
    with pytest.raises(Exception):  # noqa: B017 - rattler has a class of its own for each
        install(solve([url], ["demo"], tmp_path), tmp_path / "env", tmp_path)
    channel_server.heal()
    prefix = install(solve([url], ["demo"], tmp_path / "fresh"), tmp_path / "env2", tmp_path / "fresh")
    assert (prefix / "share/demo.txt").exists()


def test_tls_by_an_authority_of_its_own(small: Channel) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with ChannelServer(tls=context) as server:
        url = server.mount("main", small)
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        with urllib.request.urlopen(f"{url}/noarch/repodata.json", context=trusting) as answer:
            assert b"demo" in answer.read()


def test_the_shared_channel_has_a_past(conda_channel: Channel, tmp_path: Path) -> None:
    cutoff = datetime(2023, 6, 1, tzinfo=UTC)
    found = solve([conda_channel.url], ["series-07"], tmp_path, exclude_newer=cutoff)
    assert {name: one.partition("=")[0] for name, one in chosen(found).items()} == dict.fromkeys(
        ("series-00", "series-01", "series-03", "series-07"), "1.1"
    )


NAMES = st.from_regex(r"[a-z0-9_][a-z0-9_.-]{0,20}", fullmatch=True)
PARTS = st.from_regex(r"[a-z0-9_.]{1,10}", fullmatch=True)


@given(name=NAMES, version=PARTS, build=PARTS, kind=st.sampled_from([".conda", ".tar.bz2"]))
def test_a_file_name_is_read_back(name: str, version: str, build: str, kind: str) -> None:
    assert parts(f"{name}-{version}-{build}{kind}") == (name, version)


def test_a_mirror_of_the_shared_channel_takes_a_package_of_its_own(conda_channel: Channel, tmp_path: Path) -> None:
    mirror = conda_channel.mirror(tmp_path / "mirror", without={"pip"})
    package(mirror.folder, "own", files={})
    expected = {name: one for name, one in conda_channel.records("noarch").items() if not name.startswith("pip-")}
    found = mirror.index().records("noarch")
    assert found.pop("own-1.0-0.conda")["name"] == "own"
    assert found == expected


# -- the shared channel ----------------------------------------------------------------------------------------


def test_the_shared_channel_has_hundreds_of_packages_for_two_platforms(conda_channel: Channel) -> None:
    names = [
        {str(one["name"]) for one in conda_channel.records(subdir).values()}
        for subdir in ("linux-64", "linux-aarch64")
    ]
    assert names[0] == names[1] >= {"python", "numpy", "pandas", "scipy", "scikit-learn"}
    assert sum(len(conda_channel.records(subdir)) for subdir in conda_channel.subdirs) > 300


def test_python_with_numpy_and_pandas_runs_from_the_prefix(
    conda_channel: Channel, channel_server: ChannelServer, tmp_path: Path
) -> None:
    url = channel_server.mount("main", conda_channel)
    wanted = ["python 3.11.*", "scikit-learn 1.5.*", "pandas", "pip", "noarch-python"]
    prefix = install(solve([url], wanted, tmp_path), tmp_path / "env", tmp_path)
    code = (
        "import sys, sysconfig, ssl, numpy, pandas, sklearn.linear_model, importlib.metadata as m;"
        "print(sys.prefix, sysconfig.get_config_var('prefix'));"
        "print(m.version('numpy'), numpy.arange(4).sum(), sklearn.__version__, pandas.Series([1, 2]).mean())"
    )
    assert output(prefix / "bin/python", "-I", "-c", code) == f"{prefix} {prefix}\n2.2.6 6 1.5.2 1.5\n"
    assert PLACEHOLDER.encode() not in (prefix / "bin/python3.11").read_bytes()
    assert output(prefix / "bin/noarch-main") == f"noarch-python {prefix}\n"
    assert output(prefix / "bin/noarch-script") == "script\n"
    assert output(prefix / "bin/pip", "--version").startswith("pip 25.0.1 from ")
    site = prefix / "lib/python3.11/site-packages"
    assert (site / "noarch_python/where.txt").read_text() == f"at {prefix}\n"
    missing = (
        "import importlib.metadata as m;"
        "print([str(f) for d in m.distributions() for f in d.files or () if not f.locate().exists()])"
    )
    assert output(prefix / "bin/python", "-I", "-c", missing) == "[]\n"


def test_the_other_platform_has_its_own_files(conda_channel: Channel, tmp_path: Path) -> None:
    records = solve([conda_channel.url], ["python 3.11.*", "markupsafe"], tmp_path, "linux-aarch64")
    prefix = install(records, tmp_path / "env", tmp_path, "linux-aarch64")
    compiled = [prefix / "bin/python3.11", *prefix.glob("lib/python3.11/**/*.so")]
    assert len(compiled) > 10
    assert {path.read_bytes()[18:20] for path in compiled} == {b"\xb7\x00"}  # AArch64 in ELF's header


@pytest.mark.parametrize(
    ("virtual", "spec", "expected"),
    [
        ({}, "pytorch", "2.5.1=cpu_py311_1"),
        ({"__cuda": "12.4"}, "pytorch", "2.5.1=cuda124_py311_201"),
        ({"__cuda": "12.4"}, "needs-cuda", "1.0=0"),
        ({}, "needs-mkl", "1.0=0"),
        ({}, "needs-blas", "1.0=0"),
        ({"__glibc": "2.36"}, "needs-glibc", "1.0=0"),
    ],
)
def test_virtual_packages_choose(
    conda_channel: Channel, tmp_path: Path, virtual: dict[str, str], spec: str, expected: str
) -> None:
    found = chosen(solve([conda_channel.url], [spec], tmp_path, virtual=virtual))
    assert found[spec] == expected
    if spec.startswith("needs-") and "libblas" in found:
        assert found["libblas"].endswith("mkl" if spec == "needs-mkl" else "openblas")


@pytest.mark.parametrize(
    "specs",
    [
        ["needs-cuda"],
        ["needs-glibc"],
        ["needs-archspec"],
        ["wants-absent"],
        ["wants-old", "wants-new"],
        ["constrains-old", "series-01 >=2"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_together_is_unsatisfiable(conda_channel: Channel, tmp_path: Path, specs: list[str]) -> None:
    with pytest.raises(SolverError, match=re.escape(specs[0])):
        solve([conda_channel.url], specs, tmp_path)


@pytest.mark.parametrize("name", ["cut-short", "wrong-hash", "hostile-dotdot"])
def test_a_bad_package_is_refused_by_rattler_too(
    conda_channel: Channel, channel_server: ChannelServer, tmp_path: Path, name: str
) -> None:
    url = channel_server.mount("main", conda_channel)
    records = solve([url], [name], tmp_path)
    with pytest.raises(Exception):  # noqa: B017 - rattler has a class of its own for each
        install(records, tmp_path / "deep/er/env", tmp_path / "deep/er/cache")


def test_members_go_in_unchecked(tmp_path: Path) -> None:
    made = package(tmp_path, "bad", members=[Member("../out", b"1"), Member("hidden", b"2", listed=False)])
    assert info_file(made, "files") == b"../out\n"
