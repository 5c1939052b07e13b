"""B03, E07: one secret in every index, channel and registry, used, refused, and then looked for everywhere."""

from __future__ import annotations

import base64
import json
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

import pytest

from tests.services import canary
from tests.services.condapackages import package
from tests.services.index import Fault
from tests.services.wheels import wheel

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.project import Done, Project
    from tests.services.channel import Channel, ChannelServer
    from tests.services.index import PackageIndex
    from tests.stack import Engine, Registry

pytestmark = pytest.mark.e2e

SECRET = "kiln-Canary+5d81%ea"
USER = "reader"
FLOW = """
from flowkiln import FlowSpec, conda, pypi, step


class Secret(FlowSpec):
    @conda(packages={"markupsafe": "", "only-there": ""}, python="3.11", platforms=["linux/amd64"])
    @pypi(packages={"alpha": "*", "beta": "*"})
    @step
    def start(self):
        import alpha, beta, markupsafe, os

        secret = "".join(["kiln-Can", "ary+5d81%ea"])  # or the file itself would be found
        print("told", sorted(name for name, value in os.environ.items() if secret in value))
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Secret()
"""


class Arguments:
    """Watches what every process of the machine is started with; ``forms`` that were seen are in ``found``."""

    def __init__(self, *forms: str) -> None:
        self.found: set[str] = set()
        self.seen: set[str] = set()
        self._forms = [form.encode() for form in forms]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        known: set[tuple[str, bytes]] = set()
        while not self._stop.is_set():
            for place in Path("/proc").glob("[0-9]*"):
                try:
                    words = (place / "cmdline").read_bytes()
                except OSError:
                    continue
                if (place.name, words) not in known:
                    known.add((place.name, words))
                    self.seen.add(Path(words.partition(b"\0")[0].decode(errors="replace")).name)
                    self.found.update(words.decode(errors="replace") for form in self._forms if form in words)
            time.sleep(0.005)


class Private:
    """A project whose indexes, channels and registry all want :data:`SECRET`, each told in another way."""

    def __init__(
        self, project: Project, user: Path, indexes: list[PackageIndex], channels: list[ChannelServer]
    ) -> None:
        self.project, self.user, self.indexes, self.channels = project, user, indexes, channels
        self.told: list[Done] = []

    def flowkiln(self, *words: str, **environ: str) -> Done:
        self.told.append(self.project.flowkiln(*words, **environ))
        return self.told[-1]

    def run(self, *words: str, **environ: str) -> Done:
        self.told.append(self.project.run(*words, **environ))
        return self.told[-1]

    def found(self, *secrets: tuple[str, str], more: tuple[Path, ...] = ()) -> list[str]:
        """Where a secret is, in whatever form."""
        (self.project.folder / "terminal.txt").write_text("".join(done.out + done.err for done in self.told))
        folders = (self.project.folder, self.project.home, *more)
        return [place for user, secret in secrets for place in canary.find(secret, *folders, pairs=[user])]


@pytest.fixture
def private(
    project: Project,
    start_index: Callable[[], PackageIndex],
    start_channels: Callable[[], ChannelServer],
    conda_channel: Channel,
    docker_engine: Engine,
    tls_registry: Registry,
    slim_base: str,
    tmp_path: Path,
) -> Private:
    indexes, channels = [start_index() for _ in range(2)], [start_channels() for _ in range(2)]
    for number, name in enumerate(("alpha", "beta")):
        indexes[number].add(wheel(name))
        indexes[number].require(USER, SECRET)
    user = tmp_path / "user"  # what the user wrote with the secret in it
    user.mkdir()
    (user / "netrc").write_text(f"machine 127.0.0.1 login {USER} password {SECRET}\n")
    (user / "netrc").chmod(0o600)
    own = type(conda_channel)(tmp_path / "own")
    package(own.folder, "only-there", files={"share/only-there.txt": b""})
    channels[0].mount("team", own.index())
    channels[0].require_token(SECRET)
    channels[1].mount("main", conda_channel)
    channels[1].require(USER, SECRET)
    urls = [channels[0].url_with_token(SECRET, "team"), channels[1].url_with(USER, SECRET, "main")]
    (user / "condarc").write_text(f"channels: {urls}\n")
    assert tls_registry.user
    assert tls_registry.password
    login = base64.b64encode(f"{tls_registry.user}:{tls_registry.password}".encode()).decode()
    (user / "config.json").write_text(json.dumps({"auths": {tls_registry.address: {"auth": login}}}))
    project.environ |= {
        "UV_DEFAULT_INDEX": indexes[0].url_with(USER, SECRET),
        "UV_INDEX": indexes[1].url,
        "NETRC": str(user / "netrc"),
        "CONDARC": str(user / "condarc"),
        "DOCKER_CONFIG": str(user),
        "DOCKER_HOST": docker_engine.host,
        "SSL_CERT_FILE": str(tls_registry.ca_file),
        "FLOWKILN_IMAGES_BASE": slim_base.replace("3.11", "{python}"),
        "FLOWKILN_IMAGES_REPOSITORY": f"{tls_registry.address}/secrets/{tmp_path.name}",
    }
    project.write("flow.py", FLOW)
    project.write("pyproject.toml", '[tool.flowkiln]\nplatforms = ["linux/amd64"]\n')
    return Private(project, user, indexes, channels)


def test_shown_5_a_secret_of_every_index_channel_and_registry_is_nowhere_afterwards(
    private: Private, tls_registry: Registry, tmp_path: Path
) -> None:
    assert tls_registry.user
    assert tls_registry.password
    basic = base64.b64encode(f"{USER}:{SECRET}".encode()).decode()
    secrets = (USER, SECRET), (tls_registry.user, tls_registry.password)
    with Arguments(SECRET, quote(SECRET, safe=""), basic, tls_registry.password) as arguments:
        private.flowkiln("env", "lock", "flow.py", "--verbose").ok()
        assert "told []" in private.run("--verbose").ok().out
        assert "told []" in private.run("--with", "docker", "--verbose").ok().out
        private.flowkiln("env", "bake", "flow.py", "--push", "--verbose").ok()
        private.flowkiln("env", "bake", "flow.py:start", "--to", f"oci:{tmp_path}/layout").ok()
        private.flowkiln("env", "indexes", "flow.py", "--json").ok()
        private.flowkiln("env", "export", "flow.py:start", "--format", "conda-lock", "-o", "exported.yml").ok()
        fail(private)
    assert {"uv", "python"} <= {name.rstrip("0123456789.") for name in arguments.seen}
    assert arguments.found == set()
    assert private.found(*secrets, more=(tmp_path / "layout",)) == []
    used = [one.authorization for server in (*private.indexes, private.channels[1]) for one in server.seen]
    assert f"Basic {basic}" in used, "what was looked for had been sent"


def fail(private: Private) -> None:
    """Everything that is refused, changed or missing once more, in words that people read."""
    private.indexes[1].fault("beta", Fault(corrupt=True), on="file")
    private.run("--verbose", FLOWKILN_CACHE=str(private.project.home / "wheel")).failed(5, "sha256")
    private.indexes[1].heal()
    private.channels[1].fault("markupsafe", Fault(corrupt=True), on="package")
    private.run("--verbose", FLOWKILN_CACHE=str(private.project.home / "package")).failed(5, "sha256")
    without = {"DOCKER_CONFIG": str(private.project.home), "FLOWKILN_CACHE": str(private.project.home / "none")}
    private.flowkiln("env", "bake", "flow.py", "--push", **without).failed(5, "IMG043")
    for index in private.indexes:
        index.expire()
    private.flowkiln("env", "lock", "--upgrade", "alpha", "flow.py", "--verbose").failed(5, "401", "full log")
    for channel in private.channels:
        channel.expire()
    private.run("--verbose", FLOWKILN_CACHE=str(private.project.home / "refused")).failed(5, "401")
    private.flowkiln("env", "lock", "--upgrade", "markupsafe", "flow.py", "--verbose").failed(5, "401")
