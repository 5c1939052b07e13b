"""The client of the container engine: what it makes of answers and faults, and both real engines."""

from __future__ import annotations

import base64
import io
import json
import os
import ssl
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest
import trustme

from flowkiln._base.endpoints import TLS, Endpoint
from flowkiln._base.engine import Engine
from flowkiln._base.engineerrors import (
    ContainerMissing,
    EngineDenied,
    EngineError,
    EngineFailed,
    EngineFull,
    EngineNotFound,
    EngineRefused,
    EngineTooOld,
    EngineUnreachable,
    ImageMissing,
    NameTaken,
)
from flowkiln._base.errors import ExitCode
from tests import stack
from tests.services.engine import (
    VERSION,
    Cut,
    FakeEngine,
    Hold,
    Reply,
    document,
    message,
    output,
    stream,
    unprivileged,
)
from tests.services.tinyimage import tiny_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FULL = "write /var/lib/docker/tmp/x: no space left on device"


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeEngine]:
    with FakeEngine(tmp_path / "e.sock") as engine:
        yield engine


@pytest.fixture
def engine(fake: FakeEngine) -> Iterator[Engine]:
    with Engine(Endpoint(fake.url, "DOCKER_HOST")) as client:
        yield client


# -- the engine itself


@pytest.mark.parametrize(
    ("told", "used"),
    [
        ({"ApiVersion": "1.41", "MinAPIVersion": "1.12"}, "1.41"),
        ({"ApiVersion": "1.51", "MinAPIVersion": "1.24"}, "1.43"),
        ({"ApiVersion": "1.52", "MinAPIVersion": "1.44"}, "1.44"),
        ({"ApiVersion": "1.41"}, "1.41"),
    ],
)
def test_the_version_is_one_that_both_speak(tmp_path: Path, told: dict[str, str], used: str) -> None:
    version = {"Os": "linux", "Arch": "arm64", **told}
    with FakeEngine(tmp_path / "e.sock", version=version) as fake, Engine(Endpoint(fake.url, "test")) as client:
        assert client.info()
        assert client.info()
        assert [(one.path, one.version) for one in fake.requests] == [("/info", used)]
        assert client.platform == "linux/arm64"


@pytest.mark.parametrize("told", [{"ApiVersion": "1.39"}, {}, [], {"ApiVersion": "new"}])
def test_what_is_too_old_or_no_engine_is_refused(fake: FakeEngine, engine: Engine, told: Any) -> None:
    fake.on("GET", "/version", document(told))
    with pytest.raises(EngineTooOld):
        engine.image("x")


def test_kinds_of_engines(tmp_path: Path) -> None:
    info = {
        "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]],
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"],
    }
    version = {**VERSION, "Components": [{"Name": "Podman Engine", "Version": "5.0"}]}
    special = FakeEngine(tmp_path / "a.sock", version=version, info=info)
    with special, Engine(Endpoint(special.url, "test")) as client:
        assert (client.podman, client.rootless, client.containerd_store) == (True, True, True)
    with FakeEngine(tmp_path / "b.sock") as plain, Engine(Endpoint(plain.url, "test")) as client:
        assert (client.podman, client.rootless, client.containerd_store) == (False, False, False)


# -- errors


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(EngineNotFound, match=r"e\.sock \(DOCKER_HOST\)") as caught:
        Engine(Endpoint(f"unix://{tmp_path}/e.sock", "DOCKER_HOST")).version()
    assert caught.value.exit_code == ExitCode.SERVICE


def test_nobody_listens(tmp_path: Path) -> None:
    with FakeEngine(tmp_path / "e.sock") as gone:
        pass
    with pytest.raises(EngineUnreachable, match="refused"):
        Engine(Endpoint(gone.url, "default socket")).version()
    with pytest.raises(EngineUnreachable, match="refused"):
        Engine(Endpoint("tcp://127.0.0.1:1", "DOCKER_HOST")).version()


def test_not_permitted() -> None:
    with tempfile.TemporaryDirectory() as name, FakeEngine(Path(name) / "e.sock") as fake:
        Path(name).chmod(0o755)
        (Path(name) / "e.sock").chmod(0)
        with unprivileged(), pytest.raises(EngineDenied) as caught:
            Engine(Endpoint(fake.url, "default socket")).version()
    assert "usermod -aG docker" in str(caught.value.hint)


def create(engine: Engine) -> str:
    return engine.create("n", {"Image": "x"})


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (400, "invalid mount", EngineRefused),
        (403, "authorization denied by plugin", EngineDenied),
        (404, "No such image: x:latest", ImageMissing),
        (404, "network blue not found", EngineRefused),
        (409, 'Conflict. The container name "/n" is already in use', NameTaken),
        (500, "devmapper: broken", EngineFailed),
        (500, FULL, EngineFull),
    ],
)
def test_refusals_have_kinds_and_the_engines_words(
    fake: FakeEngine, engine: Engine, status: int, text: str, kind: type[EngineError]
) -> None:
    fake.on("POST", "/containers/create", message(status, text))
    with pytest.raises(EngineError) as caught:
        create(engine)
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.status) == (text, status)


def test_an_engine_that_has_no_gpus_says_what_to_install(engine: Engine, fake: FakeEngine) -> None:
    text = 'could not select device driver "" with capabilities: [[gpu]]'
    fake.on("POST", "/containers/create", message(500, text))
    with pytest.raises(EngineRefused, match="could not select") as caught:
        create(engine)
    assert "NVIDIA Container Toolkit" in str(caught.value.hint)


def test_an_error_that_is_no_json_is_shown(fake: FakeEngine, engine: Engine) -> None:
    fake.on("POST", "/containers/create", Reply(502, (b"<html>Bad Gateway</html>",)))
    with pytest.raises(EngineFailed, match="Bad Gateway"):
        create(engine)


@pytest.mark.parametrize(
    "call",
    [
        lambda engine: engine.start("c"),
        lambda engine: engine.wait("c"),
        lambda engine: engine.logs("c", follow=True),
        lambda engine: engine.get_archive("c", "/x"),
        lambda engine: engine.put_archive("c", "/x", b""),
    ],
)
def test_a_container_that_is_not_there(fake: FakeEngine, engine: Engine, call: Callable[[Engine], object]) -> None:
    for method in ("GET", "POST", "PUT"):
        fake.on(method, "/containers/c/.*", message(404, "No such container: c"))
    with pytest.raises(ContainerMissing):
        call(engine)


def test_a_network_that_a_container_needs_at_its_start(fake: FakeEngine, engine: Engine) -> None:
    fake.on("POST", "/containers/c/start", message(404, "network blue not found"))
    with pytest.raises(EngineRefused, match="network blue not found"):
        engine.start("c")


@pytest.mark.parametrize(
    ("call", "absent"),
    [
        (lambda engine: engine.image("x"), None),
        (lambda engine: engine.inspect("c"), None),
        (lambda engine: engine.remove("c"), False),
        (lambda engine: engine.remove_image("x"), False),
        (lambda engine: engine.signal("c", "SIGTERM"), False),
        (lambda engine: engine.stop("c", 1), False),
    ],
)
def test_absent_is_only_what_the_engine_says_is_absent(
    fake: FakeEngine, engine: Engine, call: Callable[[Engine], object], absent: object
) -> None:
    for method in ("GET", "POST", "DELETE"):
        fake.on(method, "/(images|containers)/.*", message(404, "no such thing"), message(500, "broken"))
    assert call(engine) is absent
    with pytest.raises(EngineFailed, match="broken"):
        call(engine)


def test_an_image_that_goes_away_during_a_list(fake: FakeEngine, engine: Engine) -> None:
    gone = message(404, "failed to calculate size of image x: content digest sha256:0: not found")
    fake.on("GET", "/images/json", gone, gone, document([{"Id": "sha256:1"}]))
    assert engine.images(labels={}) == [{"Id": "sha256:1"}]
    fake.on("GET", "/images/json", gone)
    with pytest.raises(EngineRefused, match="calculate size"):
        engine.images(labels={})


# -- what an engine says with status 200


def test_a_pull_that_fails_in_its_stream(fake: FakeEngine, engine: Engine) -> None:
    detail = {"errorDetail": {"message": "unexpected EOF from the registry"}, "error": "unexpected EOF"}
    seen: list[tuple[str, int, int]] = []
    layer = {"status": "Downloading", "id": "abc", "progressDetail": {"current": 3, "total": 9}}
    fake.on("POST", "/images/create", stream({"status": "Pulling"}, layer, detail))
    with pytest.raises(EngineFailed, match="unexpected EOF from the registry"):
        engine.pull("team/x:1", progress=lambda *one: seen.append(one))
    assert seen == [("Pulling", 0, 0), ("abc Downloading", 3, 9)]


@pytest.mark.parametrize("text", ["manifest unknown", "pull access denied for x, repository does not exist"])
def test_a_pull_of_an_image_that_is_not_there(fake: FakeEngine, engine: Engine, text: str) -> None:
    fake.on("POST", "/images/create", stream({"errorDetail": {"message": text}}), message(404, text + " image"))
    for _ in range(2):
        with pytest.raises(ImageMissing):
            engine.pull("x")


def test_no_space_left_in_a_load(fake: FakeEngine, engine: Engine) -> None:
    fake.on("POST", "/images/load", stream({"errorDetail": {"message": FULL}, "error": FULL}))
    with pytest.raises(EngineFull, match="no space left") as caught:
        engine.load([b"tar"])
    assert "docker system df" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("reference", "repository", "tag"),
    [
        ("python", "python", "latest"),
        ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b", "latest"),
        ("127.0.0.1:5000/a/b:1", "127.0.0.1:5000/a/b", "1"),
        ("a/b:1@sha256:00", "a/b", "sha256:00"),
    ],
)
def test_a_pull_names_one_version(
    fake: FakeEngine, engine: Engine, reference: str, repository: str, tag: str
) -> None:
    fake.on("POST", "/images/create", stream({"status": "done"}))
    engine.pull(reference, platform="linux/arm64", auth={"username": "u", "password": "p"})
    (request,) = fake.requests
    asked = {"fromImage": [repository], "tag": [tag], "platform": ["linux/arm64"]}
    assert parse_qs(request.query) == asked
    told = json.loads(base64.urlsafe_b64decode(request.headers["X-Registry-Auth"]))
    assert told == {"username": "u", "password": "p"}


# -- time and connections


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "last"])
def test_a_silent_log_is_no_failure(fake: FakeEngine, kept: bool) -> None:
    """The limit is for the first byte of an answer: a container may be silent for longer."""
    hold = Hold()
    pieces = (output("stdout", b"one\n"), hold, output("stderr", b"two\n"))
    fake.on("GET", "/containers/c/logs", Reply(200, pieces, read=kept))
    with Engine(Endpoint(fake.url, "test"), timeout=1.0) as client:
        client.version()
        threading.Timer(1.5, hold.release).start()
        assert list(client.logs("c", follow=True)) == [("stdout", b"one\n"), ("stderr", b"two\n")]


def test_waiting_for_a_container_has_no_limit(fake: FakeEngine) -> None:
    hold = Hold()
    fake.on("POST", "/containers/c/wait", Reply(200, (b'{"StatusCode":3}',), before=hold))
    with Engine(Endpoint(fake.url, "test")) as client:
        client.version()
        client._wire.timeout = 0.2
        threading.Timer(0.6, hold.release).start()
        assert client.wait("c") == 3


def test_an_engine_that_does_not_answer(fake: FakeEngine) -> None:
    fake.on("GET", "/containers/c/json", Reply(before=Hold()))
    with Engine(Endpoint(fake.url, "test")) as client:
        client.version()
        client._wire.timeout = 0.2
        with pytest.raises(EngineUnreachable, match=r"did not answer within 0\.2 s"):
            client.inspect("c")


def test_a_log_that_broke_off_is_no_end(fake: FakeEngine, engine: Engine) -> None:
    whole = output("stdout", b"one\n")
    fake.on("GET", "/containers/c/logs", Reply(200, (whole, Cut())), Reply(200, (whole, whole[:10], b"")))
    for _ in range(2):
        got: list[object] = []
        with pytest.raises(EngineUnreachable):
            got.extend(iter(engine.logs("c", follow=True)))


def test_pieces_of_output_arrive_as_they_were_cut(fake: FakeEngine, engine: Engine) -> None:
    """A frame may come in several reads, and several frames in one."""
    text = b"".join(output(name, name.encode() * count) for name in ("stdout", "stderr") for count in (1, 0, 99))
    fake.on("GET", "/containers/c/logs", Reply(200, [bytes([byte]) for byte in text]), Reply(200, (text,)))
    for _ in range(2):
        joined: dict[str, bytes] = {}
        for name, data in engine.logs("c", follow=False):
            joined[name] = joined.get(name, b"") + data
        assert joined == {"stdout": b"stdout" * 100, "stderr": b"stderr" * 100}


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "last"])
@pytest.mark.parametrize("begun", [True, False])
def test_a_stream_is_ended_from_another_thread(fake: FakeEngine, engine: Engine, begun: bool, kept: bool) -> None:
    hold = Hold()
    fake.on("GET", "/containers/c/logs", Reply(200, (output("stdout", b"one"), hold), read=kept))
    log = engine.logs("c", follow=True)
    got: list[object] = []
    reader = threading.Thread(target=lambda: got.extend(log))
    if begun:
        reader.start()
        hold.reached.wait()
        while not got:
            time.sleep(0.01)
        log.close()
    else:
        log.close()
        reader.start()
    reader.join(20)
    assert not reader.is_alive()
    assert got == ([("stdout", b"one")] if begun else [])


def test_a_task_is_three_requests_on_one_connection(fake: FakeEngine, engine: Engine) -> None:
    fake.on("POST", "/containers/create", document({"Id": "c"}, 201))
    fake.on("POST", "/containers/c/start", Reply(204))
    fake.on("POST", "/containers/c/wait", document({"StatusCode": 0}))
    for _ in range(5):
        engine.start(create(engine))
        assert engine.wait("c") == 0
    assert len(fake.requests) == 15
    assert fake.connections == 1


def test_a_kept_connection_that_died_is_replaced(fake: FakeEngine, engine: Engine) -> None:
    fake.on("POST", "/containers/create", document({"Id": "c"}, 201))
    create(engine)
    fake.hang_up()
    assert create(engine) == "c"
    assert len(fake.requests) == 2
    assert fake.connections == 2


def test_threads_do_not_wait_for_each_other(fake: FakeEngine, engine: Engine) -> None:
    holds = [Hold() for _ in range(3)]
    for number, hold in enumerate(holds):
        reply = Reply(200, (b'{"StatusCode":%d}' % number,), before=hold)
        fake.on("POST", f"/containers/c{number}/wait", reply)
    engine.version()
    codes: dict[int, int] = {}
    threads = [
        threading.Thread(target=lambda n=number: codes.__setitem__(n, engine.wait(f"c{n}"))) for number in range(3)
    ]
    for thread in threads:
        thread.start()
    for hold in holds:
        hold.reached.wait()
    for hold in holds:
        hold.release()
    for thread in threads:
        thread.join(20)
    assert codes == {0: 0, 1: 1, 2: 2}


def test_an_engine_that_answers_before_it_has_read_everything(fake: FakeEngine, engine: Engine) -> None:
    reply = Reply(507, (json.dumps({"message": FULL}).encode(),), read=False)
    fake.on("POST", "/images/load", reply)
    with pytest.raises(EngineFull):
        engine.load(bytes(1 << 16) for _ in range(400))


@pytest.mark.parametrize("form", ["iterable", "writer", "bytes"])
def test_an_archive_in_any_form(fake: FakeEngine, engine: Engine, form: str) -> None:
    forms: dict[str, Any] = {
        "iterable": iter([b"ab", b"", b"cd"]),
        "writer": lambda sink: [sink(b"ab"), sink(b""), sink(b"cd")],
        "bytes": b"abcd",
    }
    fake.on(
        "POST",
        "/images/load",
        stream({"stream": "Loaded image: a/b:1\n"}, {"stream": "Loaded image ID: sha256:0\n"}),
    )
    assert engine.load(forms[form]) == ["a/b:1", "sha256:0"]
    assert fake.requests[-1].body == b"abcd"


@pytest.mark.parametrize("kind", [KeyError, ConnectionResetError, BrokenPipeError, TimeoutError])
def test_what_fails_while_it_is_sent_is_what_is_raised(
    fake: FakeEngine, engine: Engine, kind: type[Exception]
) -> None:
    """A registry that breaks off while a layer is streamed through is no failure of the engine."""

    def torn() -> Iterator[bytes]:
        yield b"half"
        raise kind("the registry is gone")

    fake.on("POST", "/images/load", stream({"stream": "Loaded image: a/b:1\n"}))
    with pytest.raises(kind, match="the registry is gone"):
        engine.load(torn())


def test_events_until_closed(fake: FakeEngine, engine: Engine) -> None:
    hold = Hold()
    first = b'{"Action":"start"}\n{"Action":'
    fake.on("GET", "/events", Reply(200, (first, b'"die"}\n', hold)))
    with engine.events(labels={"run": "7", "any": None}, since=12.5) as events:
        found = iter(events)
        assert [next(found)["Action"], next(found)["Action"]] == ["start", "die"]
    assert list(found) == []
    assert "since=12.500000000" in fake.requests[-1].query
    assert "%22any%22%2C+%22run%3D7%22" in fake.requests[-1].query


# -- other ways to the engine


def test_tls_with_a_certificate_of_the_clients(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    client = authority.issue_cert("me@example.com")
    client.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    client.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    known = TLS(ca=tmp_path / "ca.pem", certificate=tmp_path / "cert.pem", key=tmp_path / "key.pem")
    with FakeEngine(tls=context) as fake:
        hold = Hold()
        fake.on("GET", "/containers/c/logs", Reply(200, (output("stdout", b"x"), hold)))
        with Engine(Endpoint(fake.url, "DOCKER_HOST", known)) as engine:
            assert engine.platform == "linux/amd64"
            log = engine.logs("c", follow=True)
            reader = threading.Thread(target=lambda: list(log))
            reader.start()
            hold.reached.wait()
            log.close()
            reader.join(20)
            assert not reader.is_alive()
            stranger = Engine(Endpoint(fake.url, "DOCKER_HOST", TLS()))
            with pytest.raises(EngineUnreachable, match="certificate verify failed"):
                stranger.version()


SSH = """\
#!{python}
import json, os, socket, sys, threading
json.dump(sys.argv[1:], open({log!r}, "w"))
if "down" in sys.argv:
    sys.exit("ssh: connect to host down port 22: No route to host")
engine = socket.socket(socket.AF_UNIX)
engine.connect({socket!r})
def give():
    while data := os.read(0, 65536):
        engine.sendall(data)
    engine.shutdown(socket.SHUT_WR)
threading.Thread(target=give, daemon=True).start()
while data := engine.recv(65536):
    os.write(1, data)
"""


DIAL = ["docker", "--host", "unix:///run/docker.sock", "system", "dial-stdio"]


def test_an_engine_behind_ssh(fake: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(SSH.format(python=sys.executable, log=str(tmp_path / "log"), socket=str(fake.path)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    with Engine(Endpoint("ssh://me@far:2222/run/docker.sock", "context far")) as client:
        assert (client.platform, client.info()["SecurityOptions"]) == ("linux/amd64", ["name=seccomp"])
        assert fake.connections == 1
        told = json.loads((tmp_path / "log").read_text())
        assert told[3:] == ["-l", "me", "-p", "2222", "--", "far", *DIAL]
        with pytest.raises(EngineUnreachable, match="No route to host"):
            Engine(Endpoint("ssh://down", "context far")).version()
        program.unlink()
        with pytest.raises(EngineUnreachable, match="ssh is needed"):
            Engine(Endpoint("ssh://far", "context far")).version()


# -- real engines


@pytest.fixture(scope="module", params=["overlay2", "containerd"])
def real(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with Engine(Endpoint(stack.engine(request.param).host, "tests")) as client:
        yield client


@pytest.fixture(scope="module")
def tiny(real: Engine) -> str:
    """The name of a small image with a shell."""
    return tiny_image(real)


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def spec(image: str, command: str, mark: str) -> dict[str, Any]:
    return {
        "Image": image,
        "Cmd": ["/bin/sh", "-c", command],
        "Labels": {"engine-test": mark},
        "HostConfig": {"NetworkMode": "none"},
    }


@pytest.mark.e2e
def test_the_life_of_a_container(real: Engine, tiny: str) -> None:
    mark = name = f"engine-test-{os.urandom(6).hex()}"
    labels: dict[str, str | None] = {"engine-test": mark}
    identity = real.create(name, spec(tiny, "cat /in/put; echo err >&2; read -t 30 x; exit 3", mark))
    try:
        with pytest.raises(NameTaken):
            real.create(name, spec(tiny, "true", mark))
        assert [one["Id"] for one in real.containers(labels=labels)] == [identity]
        assert real.containers(labels=labels, all=False) == []
        real.put_archive(identity, "/", archive({"in/put": b"hello\n"}))
        began = time.time() - 5
        real.start(identity)
        assert sorted(real.logs(identity, follow=True)) == [("stderr", b"err\n"), ("stdout", b"hello\n")]
        assert real.wait(identity) == 3
        ((_, line),) = [one for one in real.logs(identity, follow=False, timestamps=True) if one[0] == "stdout"]
        assert line.split(b" ")[0].startswith(b"20")
        assert list(real.logs(identity, follow=False, since=began + 3600)) == []
        assert len(list(real.logs(identity, follow=False, since=began))) == 2
        with real.events(labels=labels, since=began) as events:
            assert next(one["Action"] for one in events if one["Action"] in {"start", "die"}) == "start"
        found = real.inspect(identity)
        assert found is not None
        assert found["State"]["ExitCode"] == 3
        with tarfile.open(fileobj=io.BytesIO(b"".join(real.get_archive(identity, "/in/put")))) as tar:
            assert tar.getnames() == ["put"]
        with pytest.raises(ContainerMissing):
            real.get_archive(identity, "/none")
        assert real.signal(identity, "SIGTERM") is False
    finally:
        assert real.remove(identity)
    assert (real.remove(identity), real.inspect(identity), real.stop(identity, 1)) == (False, None, False)


@pytest.mark.e2e
def test_a_silent_container_is_killed_and_its_log_closed(real: Engine, tiny: str, tmp_path: Path) -> None:
    identity = real.create("", spec(tiny, "sleep 600", tmp_path.name))
    try:
        real.start(identity)
        log = real.logs(identity, follow=True)
        got: list[object] = []
        reader = threading.Thread(target=lambda: got.extend(log))
        reader.start()
        log.close()
        reader.join(20)
        assert not reader.is_alive()
        assert real.signal(identity, "SIGKILL")
        assert real.wait(identity) == 137
    finally:
        real.remove(identity)


@pytest.mark.e2e
def test_what_a_real_engine_does_not_have(real: Engine, tiny: str) -> None:
    assert real.image("no/such:1") is None
    assert real.remove_image("no/such:1") is False
    with pytest.raises(ImageMissing):
        real.create("", {"Image": "no/such:1"})
    registry = stack.registry("plain").address
    with pytest.raises(ImageMissing):
        real.pull(f"{registry}/no/such:1")
    with pytest.raises(EngineError):
        real.load([b"no tar"])
    real.tag(tiny, "engine-test/other", "7")
    assert real.image("engine-test/other:7") is not None
    assert real.remove_image("engine-test/other:7")
