"""Conda channels that want a login: packages are chosen and fetched, and the secret is nowhere at rest."""

from __future__ import annotations

import pytest

from tests.e2e.project import Project
from tests.services import canary
from tests.services.channel import Channel, ChannelServer
from tests.services.index import Fault

pytestmark = pytest.mark.e2e

SECRET = "kiln-canary-9a41c7"
FLOW = """
from flowkiln import FlowSpec, conda, step


class Private(FlowSpec):
    @conda(packages={"markupsafe": "", "prefix-text": ""}, python="3.11", platforms=["linux/amd64"])
    @step
    def start(self):
        import markupsafe
        print("escaped", markupsafe.escape("<x>"))
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Private()
"""


@pytest.fixture
def private(project: Project, channel_server: ChannelServer, conda_channel: Channel) -> Project:
    channel_server.mount("team", conda_channel)
    project.write("flow.py", FLOW)
    project.write("pyproject.toml", '[tool.flowkiln]\nplatforms = ["linux/amd64"]\n')
    return project


@pytest.mark.parametrize("how", ["token", "password", "netrc"])
def test_a_login_is_used_and_kept_nowhere(private: Project, channel_server: ChannelServer, how: str) -> None:
    if how == "token":
        channel_server.require_token(SECRET)
        url = channel_server.url_with_token(SECRET, "team")
    else:
        channel_server.require("reader", SECRET)
        url = (
            channel_server.url_with("reader", SECRET, "team")
            if how == "password"
            else channel_server.url_of("team")
        )
    if how == "netrc":
        host = url.split("//")[1].split("/")[0].split(":")[0]
        (private.home / ".netrc").write_text(f"machine {host} login reader password {SECRET}\n")
        (private.home / ".netrc").chmod(0o600)
    done = private.run(FLOWKILN_CHANNELS=url).ok()
    assert "escaped &lt;x&gt;" in done.out
    assert SECRET not in done.out + done.err
    (private.home / ".netrc").unlink(missing_ok=True)
    assert canary.find(SECRET, private.folder, private.home, pairs=["reader"]) == []
    channel_server.expire()
    assert "escaped" in private.run(FLOWKILN_CHANNELS=url).ok().out  # the lock and the environment are here


def test_a_login_that_is_refused_is_told_without_it(private: Project, channel_server: ChannelServer) -> None:
    channel_server.require_token("another")
    url = channel_server.url_with_token(SECRET, "team")
    done = private.run(FLOWKILN_CHANNELS=url)
    done.failed(5, "error[ENV", "step 'start'", "hint:")
    assert SECRET not in done.out + done.err
    assert canary.find(SECRET, private.folder, private.home) == []


def test_a_channel_that_changes_a_package_is_not_installed(
    private: Project, channel_server: ChannelServer, conda_channel: Channel
) -> None:
    url = channel_server.url_of("team")
    private.flowkiln("env", "lock", "flow.py", FLOWKILN_CHANNELS=url).ok()
    channel_server.fault("markupsafe", Fault(corrupt=True), on="package")
    private.run(FLOWKILN_CHANNELS=url).failed(5, "ENV035", "markupsafe", "sha256")
    assert not list((private.home / "cache" / "trees").glob("*-own"))
    channel_server.reset()
    channel_server.mount("team", conda_channel)
    private.run(FLOWKILN_CHANNELS=url).ok()


def test_a_channel_that_is_not_there_is_told(private: Project, channel_server: ChannelServer) -> None:
    url = channel_server.url_of("team").replace("/team", "/absent")
    private.run(FLOWKILN_CHANNELS=url).failed(4, "error[ENV048]", "absent", "step 'start'", "hint:")


def test_specs_that_nothing_satisfies_are_explained(private: Project, channel_server: ChannelServer) -> None:
    text = FLOW.replace('"prefix-text": ""', '"needs-cuda": ""')
    private.write("flow.py", text)
    url = channel_server.url_of("team")
    done = private.run(FLOWKILN_CHANNELS=url)
    done.failed(4, "step 'start'", "__cuda", "linux/amd64", "hint:")
    private.write("flow.py", text.replace('python="3.11",', 'python="3.11", cuda="12.4",'))
    private.run(FLOWKILN_CHANNELS=url).ok()


def test_env_indexes_shows_the_channels_masked(private: Project, channel_server: ChannelServer) -> None:
    url = channel_server.url_with_token(SECRET, "team")
    done = private.flowkiln("env", "indexes", "flow.py", FLOWKILN_CHANNELS=url).ok()
    assert f"{channel_server.url_of('team')}  " in done.out
    assert "token in its URL" in done.out
    assert SECRET not in done.out + done.err
    places = private.flowkiln("env", "indexes", "flow.py", "--json", FLOWKILN_CHANNELS=url).ok().json
    assert [one["kind"] for one in places["environments"][0]["places"]] == ["channel", "index"]
