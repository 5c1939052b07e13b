from __future__ import annotations

import hashlib
import shutil
import ssl
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme
from rattler.exceptions import SolverError

from flowkiln._base import paths
from flowkiln._base.command import Limits
from flowkiln.envs import channels, condafailures
from flowkiln.envs.condaerrors import (
    BrokenChannel,
    ChannelDenied,
    ChannelUnavailable,
    CondaConflict,
    NoSuchChannel,
)
from flowkiln.envs.condaquestion import CondaQuestion
from flowkiln.envs.condasolve import ask
from flowkiln.envs.errors import LockTimeout, Offline
from tests.envs.condasolving import chosen, conda_solver, demo, made, question, solved
from tests.envs.locking import ARM64
from tests.services.channel import Channel, ChannelServer
from tests.services.condacases import dist_info
from tests.services.condapackages import package
from tests.services.index import Fault

if TYPE_CHECKING:
    from flowkiln._base.errors import FlowkilnError
    from tests.services.home import Home

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def channel(tmp_path: Path) -> Channel:
    return demo(tmp_path / "channel")


@pytest.fixture
def url(channel: Channel, channel_server: ChannelServer) -> str:
    return channel_server.mount("main", channel)


def test_an_answer_is_sorted_complete_and_a_function_of_the_platform(url: str, channel: Channel) -> None:
    answer = solved(url, "demo")
    assert chosen(answer) == {"demo": "2.0", "leaf": "2.0"}
    assert [one.name for one in answer.packages] == ["demo", "leaf", "python"]
    assert answer.channels == (url,)
    demo = answer.packages[0]
    data = channel.find("demo", "2.0").read_bytes()
    assert demo.url == f"{url}/noarch/{demo.filename}"
    assert (demo.sha256, demo.size) == (hashlib.sha256(data).hexdigest(), len(data))
    assert demo.md5 == hashlib.md5(data, usedforsecurity=False).hexdigest()
    assert demo.depends == ("leaf >=2",)
    assert {one.subdir for one in solved(url, "demo", platform=ARM64).packages} == {"linux-aarch64", "noarch"}
    assert solved(url, "demo") == answer


def test_python_is_always_there_and_an_ordinary_build(tmp_path: Path, channel_server: ChannelServer) -> None:
    builds = {"3.13.1": "0_cp313", "3.13.2": "0_cp313t", "3.12.9": "0_cpython"}
    url = channel_server.mount("main", made(tmp_path / "channel", **builds))
    (python,) = solved(url, python="3.13").packages
    assert (python.version, python.build) == ("3.13.1", "0_cp313")
    with pytest.raises(CondaConflict):
        solved(url, python="3.13.2")
    assert solved(url, python="3.12.9").packages[0].version == "3.12.9"


def test_virtual_packages_are_those_that_are_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONDA_OVERRIDE_CUDA", "12.9")
    monkeypatch.setenv("CONDA_OVERRIDE_GLIBC", "2.99")
    with pytest.raises(CondaConflict) as caught:
        solved(url, "gpu")
    said = caught.value.message
    for part in ("fit", "linux/amd64", "train", "__cuda >=12", "__glibc 2.28 (glibc)", "__linux 5.10", url):
        assert part in said
    assert "cuda=" in str(caught.value.hint)
    assert caught.value.exit_code == 4
    assert chosen(solved(url, "gpu", own=(("cuda", "12.4"),))) == {"gpu": "1.0"}
    with pytest.raises(CondaConflict) as caught:
        solved(url, "new")
    assert 'glibc="2.34"' in str(caught.value.hint)


def test_a_conflict_keeps_the_explanation(url: str) -> None:
    with pytest.raises(CondaConflict) as caught:
        solved(url, "old-leaf", "demo >=2")
    for part in ("old-leaf", "leaf >=2", "leaf <2"):
        assert part in caught.value.message


def test_the_solvers_own_limit_is_no_conflict_and_a_name_is_no_limit(tmp_path: Path) -> None:
    needing = ("needing", "1", {"depends": ["timeout-tool <2"]})
    url = made(tmp_path / "channel", needing, ("timeout-tool", "2"), ("leaf", "1")).url
    with pytest.raises(CondaConflict, match="timeout-tool"):
        solved(url, "needing", "timeout-tool")
    solver = conda_solver(url)
    told = condafailures.translate(SolverError("Solve operation has been cancelled"), solver, question("leaf"))
    assert isinstance(told, LockTimeout)


def test_a_package_that_no_channel_has_is_named(url: str) -> None:
    with pytest.raises(CondaConflict) as caught:
        solved(url, "dmeo")
    assert "dmeo" in str(caught.value.hint)


def test_the_first_channel_that_has_a_package_decides(
    tmp_path: Path, url: str, channel_server: ChannelServer
) -> None:
    first = channel_server.mount("first", made(tmp_path / "first", ("leaf", "1.5")))
    solver = conda_solver(first, url)
    assert chosen(ask(solver, question("leaf"))) == {"leaf": "1.5"}
    with pytest.raises(CondaConflict, match="channel priority"):
        ask(solver, question("leaf >=2"))
    answer = ask(solver, question(f"{url}::leaf"))
    assert [one.url for one in answer.packages if one.name == "leaf"] == [f"{url}/noarch/leaf-2.0-0.conda"]


def test_a_channel_that_a_match_spec_names_is_asked_after_the_others(
    tmp_path: Path, url: str, channel_server: ChannelServer
) -> None:
    other = channel_server.mount("other", made(tmp_path / "other", ("only", "1.0"), ("leaf", "9.0")))
    answer = solved(url, f"{other}::only", "leaf")
    assert chosen(answer) == {"only": "1.0", "leaf": "2.0"}
    assert answer.channels == (url, other)


def test_packages_of_an_earlier_lock_are_kept_while_a_channel_has_them(url: str, channel: Channel) -> None:
    before = solved(url, "demo ==1.0", "leaf ==1.0").packages
    assert chosen(solved(url, "demo", "leaf", preferred=before)) == {"demo": "1.0", "leaf": "1.0"}
    assert chosen(solved(url, "demo", "leaf", preferred=before, upgrade=True)) == {"demo": "2.0", "leaf": "2.0"}
    only_leaf = solved(url, "demo", "leaf", preferred=before, upgrade=frozenset({"leaf"}))
    assert chosen(only_leaf) == {"demo": "1.0", "leaf": "2.0"}
    changed = tuple(replace(one, sha256="0" * 64) for one in before)
    assert chosen(solved(url, "demo", "leaf", preferred=changed)) == {"demo": "2.0", "leaf": "2.0"}


def test_versions_of_another_platform_are_taken_where_they_can_be(url: str) -> None:
    assert chosen(solved(url, "demo", versions={"demo": "1.0", "absent": "1"})) == {"demo": "1.0", "leaf": "2.0"}
    assert chosen(solved(url, "demo >=2", versions={"demo": "1.0", "leaf": "2.0"}))["demo"] == "2.0"
    # leaf 1.0 cannot be with demo 2.0, which alone is asked for
    assert chosen(solved(url, "demo", versions={"demo": "2.0", "leaf": "1.0"})) == {"demo": "2.0", "leaf": "2.0"}


def test_what_was_built_after_the_cut_off_does_not_exist(url: str, channel: Channel) -> None:
    assert chosen(solved(url, "leaf", exclude_newer="2026-01-01T00:00:00Z")) == {"leaf": "2.0"}
    with pytest.raises(CondaConflict) as caught:
        solved(url, "leaf", exclude_newer="2021-01-01T00:00:00Z")  # python is younger
    assert "2021" in str(caught.value.hint)


def test_what_python_finds_inside_is_recorded_and_read_once(tmp_path: Path, channel_server: ChannelServer) -> None:
    inside = {"depends": ["python"], "files": dist_info("site-packages", "In.Side", "1.5"), "noarch": "python"}
    legacy = {"depends": ["python"], "files": dist_info("site-packages", "old", "1"), "format": "tar.bz2"}
    folder = tmp_path / "channel"
    url = channel_server.mount(
        "main", made(folder, ("inside", "2", inside), ("legacy", "2", {**legacy, "legacy": True}), ("none", "1"))
    )
    found = {one.name: one.provides for one in solved(url, "inside", "legacy", "none").packages}
    assert found == {"inside": (("in-side", "1.5"),), "legacy": (("old", "1"),), "none": (), "python": ()}
    asked = channel_server.count("inside")
    solved(url, "inside", "legacy")
    assert (channel_server.count("inside"), channel_server.count("none")) == (asked, 0)


def test_a_record_without_sha256_is_hashed_and_checked(url: str, channel: Channel) -> None:
    path = channel.find("leaf", "2.0")
    channel.state(path, sha256=None)
    channel.index()
    data = path.read_bytes()
    assert solved(url, "leaf").packages[0].sha256 == hashlib.sha256(data).hexdigest()
    channel.state(path, md5="0" * 32)
    channel.index()
    with pytest.raises(BrokenChannel, match="md5"):
        solved(url, "leaf")


def canary(home: Home) -> list[Path]:
    return [path for path in home.root.rglob("*") if path.is_file() and b"hush" in path.read_bytes()]


@pytest.mark.parametrize("how", ["password", "token", "netrc", "netrc-mirror"])
def test_credentials_are_sent_and_kept_nowhere(
    how: str, home: Home, channel: Channel, channel_server: ChannelServer, tmp_path: Path
) -> None:
    package(channel.folder, "inside", files=dist_info("site-packages", "inside", "1.0"), depends=["python"])
    channel.index()
    url = channel_server.mount("main", channel)
    told = url
    if how == "token":
        channel_server.require_token("hush")
        told = channel_server.url_with_token("hush", "main")
    else:
        channel_server.require("joe", "hush")
        if how == "password":
            told = channel_server.url_with("joe", "hush", "main")
    with pytest.raises(ChannelDenied) as caught:
        solved(url, "inside")
    assert "hush" not in caught.value.message
    assert caught.value.exit_code == 5
    environ = {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")}
    if how.startswith("netrc"):
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login joe password hush\n")
    if how == "netrc-mirror":
        (tmp_path / ".condarc").write_text(f"mirrored_channels: {{'{url}x': ['{url}']}}\n")
        told = url = f"{url}x"
    solver = replace(conda_solver(url), plan=channels.plan([told], environ=environ))
    answer = ask(solver, question("inside"))
    inside = answer.packages[0]
    assert (inside.url, inside.provides) == (f"{url}/noarch/inside-1.0-0.conda", (("inside", "1.0"),))
    assert "hush" not in repr(answer)
    assert canary(home) == []


def test_own_authorities_are_trusted_when_named(tmp_path: Path, channel: Channel) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with ChannelServer(tls=context) as server:
        url = server.mount("main", channel)
        with pytest.raises(ChannelUnavailable) as caught:
            solved(url, "leaf")
        assert "certificate" in caught.value.message
        solver = replace(conda_solver(url), environ={"FLOWKILN_CERTIFICATES": str(tmp_path / "ca.pem")})
        assert chosen(ask(solver, question("leaf"))) == {"leaf": "2.0"}


def test_offline_uses_what_was_read_before(url: str, channel_server: ChannelServer, tmp_path: Path) -> None:
    package(tmp_path / "channel", "leaf", "3.0", subdir="linux-64")
    cold = conda_solver(url, offline=True)
    with pytest.raises(Offline) as caught:
        ask(cold, question("leaf"))
    assert url in caught.value.message
    answer = solved(url, "leaf")
    channel_server.forget_requests()
    assert ask(cold, question("leaf")) == answer
    assert channel_server.total == 0


def test_offline_a_channel_that_has_nothing_for_the_platform_is_known_to_have_nothing(
    url: str, channel_server: ChannelServer, tmp_path: Path
) -> None:
    other = Channel(tmp_path / "other")
    package(other.folder, "intel", "1.0", subdir="linux-64")
    package(other.folder, "pure", "1.0")
    first = channel_server.mount("first", other.index())
    asked, offline = question("leaf", "pure", platform=ARM64), conda_solver(first, url, offline=True)
    assert chosen(ask(conda_solver(first, url), question("leaf", "intel"))) == {"leaf": "2.0", "intel": "1.0"}
    with pytest.raises(Offline, match="/linux-aarch64 was not read before"):
        ask(offline, asked)
    answer = ask(conda_solver(first, url), asked)
    channel_server.forget_requests()
    assert ask(offline, asked) == answer
    assert channel_server.total == 0
    with pytest.raises(CondaConflict, match="intel"):
        ask(offline, question("intel", platform=ARM64))
    package(other.folder, "arm", "1.0", subdir="linux-aarch64")
    other.index()
    ask(conda_solver(first, url), asked)
    assert chosen(ask(offline, question("arm", platform=ARM64))) == {"arm": "1.0"}


def test_a_channel_without_the_folder_for_all_platforms_is_none(
    url: str, channel_server: ChannelServer, tmp_path: Path
) -> None:
    other = Channel(tmp_path / "other")
    package(other.folder, "intel", "1.0", subdir="linux-64")
    first = channel_server.mount("first", other.index())
    shutil.rmtree(other.folder / "noarch")
    with pytest.raises(NoSuchChannel, match=f"{first} .it has no noarch/repodata.json"):
        ask(conda_solver(first, url), question("intel"))


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(status=403), ChannelDenied),
        (Fault(status=401), ChannelDenied),
        (Fault(status=404), NoSuchChannel),
        (Fault(status=503), ChannelUnavailable),
    ],
)
def test_what_a_channel_answers_is_told(
    url: str, channel_server: ChannelServer, fault: Fault, error: type[FlowkilnError]
) -> None:
    channel_server.fault("*", fault, on="repodata")
    with pytest.raises(error) as caught:
        solved(url, "leaf")
    assert url in caught.value.message
    assert "fit" in caught.value.message
    assert caught.value.step == "train"


def test_a_channel_that_nobody_serves(url: str) -> None:
    with pytest.raises(NoSuchChannel, match=f"{url}x"):
        solved(f"{url}x", "leaf")
    with pytest.raises(ChannelUnavailable, match="could not be reached"):
        solved("http://127.0.0.1:9/none", "leaf")


def test_repodata_that_are_no_json(url: str, channel: Channel) -> None:
    for path in channel.folder.glob("*/repodata.json*"):
        path.unlink() if path.suffix == ".zst" else path.write_text("{nope")
    with pytest.raises(BrokenChannel, match="cannot be read"):
        solved(url, "leaf")


def test_a_package_that_is_stated_and_not_there(url: str, channel: Channel) -> None:
    path = package(channel.folder, "gone", depends=["python"])
    channel.index()
    path.unlink()
    with pytest.raises(BrokenChannel, match=r"gone-1\.0-0\.conda"):
        solved(url, "gone")


def test_a_channel_that_says_nothing_ends_at_the_limit(url: str, channel_server: ChannelServer) -> None:
    channel_server.fault("*", Fault(stall_after=0), on="repodata")
    with pytest.raises(LockTimeout) as caught:
        ask(conda_solver(url, limits=Limits(total=1, stall=30)), question("leaf"))
    assert "fit" in caught.value.message


def test_work_that_is_given_up_ends(
    url: str, channel_server: ChannelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel_server.fault("*", Fault(stall_after=0), on="repodata")
    monkeypatch.setattr("flowkiln._base.parallel.stopped", lambda: channel_server.total > 0)
    with pytest.raises(KeyboardInterrupt):
        ask(conda_solver(url), question("leaf"))
    assert not [one for one in threading.enumerate() if one.name == "conda-solve"]


def test_a_folder_is_a_channel(channel: Channel) -> None:
    package(channel.folder, "inside", files=dist_info("site-packages", "inside", "1.0"), depends=["python"])
    channel.index()
    assert solved(channel.url, "inside").packages[0].provides == (("inside", "1.0"),)


def test_repodata_are_kept_in_the_cache_of_flowkiln(url: str) -> None:
    solved(url, "leaf")
    assert list((paths.cache_root() / "conda" / "repodata").iterdir())


def test_a_question_names_what_is_locked() -> None:
    asked: CondaQuestion = question("leaf")
    assert asked.label == "fit for linux/amd64"
