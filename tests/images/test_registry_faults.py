"""What registries do when they fail, lie, throttle or forget: nothing of it is taken for yes or no."""

from __future__ import annotations

import io
import json
import os
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from flowkiln.images import oci
from flowkiln.images.registryerrors import (
    ManifestUnknown,
    PushNotVerified,
    RegistryDenied,
    RegistryError,
    RegistryFailed,
    RegistryForbidden,
    RegistrySilent,
    RegistryThrottled,
    RegistryUnreachable,
    RepositoryUnknown,
    UploadFailed,
    WrongContent,
)
from tests.images.registries import Clients, digest_of, image, push, referrer
from tests.services.registry import FakeRegistry, Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowkiln.images.registry import Registry

NAME = "team/flows"
ABSENT = "sha256:" + "0" * 64
DATA = os.urandom(3 << 20)
DIGEST = digest_of(DATA)


def put(registry: Registry, data: bytes = DATA) -> list[int]:
    """Uploads ``data``; what was told of its progress."""
    sent: list[int] = []
    registry.put_blob(NAME, digest_of(data), len(data), lambda: io.BytesIO(data), advance=sent.append)
    return sent


QUESTIONS: dict[str, Callable[[Registry], object]] = {
    "manifest": lambda registry: registry.manifest(NAME, "v1"),
    "exists": lambda registry: registry.exists(NAME, "v1"),
    "blob": lambda registry: registry.has_blob(NAME, DIGEST),
    "read": lambda registry: registry.read_blob(NAME, DIGEST),
    "tags": lambda registry: registry.tags(NAME),
    "put": put,
    "push": lambda registry: registry.put_manifest(NAME, image(b"x").document),
    "check": lambda registry: registry.check_push(NAME),
    "remove": lambda registry: registry.delete_manifest(NAME, ABSENT),
}


def everywhere(registry: FakeRegistry, fault: Fault) -> None:
    for kind in ("manifest", "blob", "upload", "tags"):
        registry.fault(kind, fault)


# -- each thing that can be wrong has its own message ------------------------------------------------------------


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize(
    ("fault", "kind", "waits"),
    [
        (Fault(status=401, code="UNAUTHORIZED"), RegistryDenied, 0),
        (Fault(status=403, code="DENIED"), RegistryForbidden, 0),
        (Fault(status=429, code="TOOMANYREQUESTS"), RegistryThrottled, 2),
        (Fault(status=500), RegistryFailed, 2),
        (Fault(status=503, body=b"<html>down</html>"), RegistryFailed, 2),
        (Fault(status=418, code="TEAPOT"), RegistryFailed, 0),
    ],
    ids=["401", "403", "429", "500", "503", "418"],
)
def test_every_question_fails_when_the_registry_does(
    fake_registry: FakeRegistry,
    clients: Clients,
    question: str,
    fault: Fault,
    kind: type[RegistryError],
    waits: int,
) -> None:
    everywhere(fake_registry, fault)
    client = clients(fake_registry.host, retries=2)
    with pytest.raises(RegistryError) as raised:
        QUESTIONS[question](client.registry)
    assert type(raised.value) is kind
    assert raised.value.exit_code == 5
    assert raised.value.hint
    assert f"{fault.status}" in raised.value.message
    assert len(client.waits) == waits


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("body", [None, b"<html>log in</html>", b"[]"])
def test_success_with_an_error_in_it_is_an_error(
    fake_registry: FakeRegistry, clients: Clients, question: str, body: bytes | None
) -> None:
    headers = {"Content-Type": "text/html"} if body else {"Content-Type": "application/json"}
    everywhere(fake_registry, Fault(status=200, body=body, headers=headers, foreign=True))
    if question == "remove" and body is not None:
        return  # success without any word of what was removed is all that some registries say
    if question == "blob" and body is None:
        return  # a HEAD has no body
    with pytest.raises((RegistryFailed, WrongContent, PushNotVerified)):
        QUESTIONS[question](clients(fake_registry.host, retries=1).registry)


@pytest.mark.parametrize("question", ["manifest", "exists", "tags", "remove"])
def test_page_that_is_not_found_does_not_say_that_an_image_is_not_there(
    fake_registry: FakeRegistry, clients: Clients, question: str
) -> None:
    everywhere(fake_registry, Fault(status=404, body=b"<html>404</html>", foreign=True))
    with pytest.raises(RegistryFailed, match="no word of what is unknown"):
        QUESTIONS[question](clients(fake_registry.host).registry)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_nothing_listens(clients: Clients) -> None:
    for question in QUESTIONS.values():
        with pytest.raises(RegistryUnreachable, match=r"^127\.0\.0\.1") as raised:
            question(clients(f"127.0.0.1:{closed_port()}").registry)
        assert "refused" in raised.value.message
        assert "Connection(" not in raised.value.message


@pytest.mark.parametrize("kind", ["base", "manifest"])
def test_server_that_says_nothing(fake_registry: FakeRegistry, clients: Clients, kind: str) -> None:
    fake_registry.fault(kind, Fault(silent=True))  # type: ignore[arg-type]
    with pytest.raises(RegistrySilent, match=r"not a byte for 0\.2 s"):
        clients(fake_registry.host, stall=0.2, retries=1).registry.manifest(NAME, "v1")


def test_slow_server_is_waited_for(fake_registry: FakeRegistry, clients: Clients) -> None:
    push(clients(fake_registry.host).registry, NAME, image(b"x"), tag="v1")
    fake_registry.fault("manifest", Fault(delay=0.3))
    client = clients(fake_registry.host)
    assert client.registry.exists(NAME, "v1")
    assert client.waits == []


def test_repository_that_nobody_made(fake_registry: FakeRegistry, clients: Clients) -> None:
    fake_registry.repositories = {"other"}
    registry = clients(fake_registry.host).registry
    assert registry.manifest(NAME, "v1") is None
    for question in ("check", "put", "push"):
        with pytest.raises(RepositoryUnknown, match=f"{NAME} does not exist") as raised:
            QUESTIONS[question](registry)
        assert "images.repository" in (raised.value.hint or "")


def test_blob_that_is_needed_and_not_there(fake_registry: FakeRegistry, clients: Clients) -> None:
    with pytest.raises(ManifestUnknown, match=ABSENT):
        clients(fake_registry.host).registry.read_blob(NAME, ABSENT)


def test_errors_hold_no_secrets(fake_registry: FakeRegistry, clients: Clients) -> None:
    told = "see https://me:geheim@a.example/?token=geheim\r\n\x1b[31m"
    everywhere(fake_registry, Fault(status=403, message=told))
    with pytest.raises(RegistryForbidden, match="see https") as raised:
        clients(fake_registry.host).registry.tags(NAME)
    assert "geheim" not in str(raised.value.to_json())
    assert raised.value.message.isprintable()


# -- what passes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("status", [429, 503])
def test_what_passes_is_asked_again(
    fake_registry: FakeRegistry, clients: Clients, question: str, status: int
) -> None:
    one = image(b"x")
    client = clients(fake_registry.host)
    for data in (DATA, *(data for _, data in one.blobs)):
        fake_registry.add_blob(NAME, data)
    fake_registry.add_manifest(NAME, oci.MANIFEST, one.document.data, tag="v1")
    expected = QUESTIONS[question](client.registry)
    assert client.waits == []
    everywhere(fake_registry, Fault(status=status, times=2))
    assert QUESTIONS[question](client.registry) == expected
    assert len(client.waits) == 2


@pytest.mark.parametrize("status", [408, 500, 502, 504])
def test_other_answers_that_pass(fake_registry: FakeRegistry, clients: Clients, status: int) -> None:
    fake_registry.fault("tags", Fault(status=status, times=1))
    client = clients(fake_registry.host)
    assert client.registry.tags(NAME) == []
    assert len(client.waits) == 1


def test_waits_grow_and_are_never_equal(fake_registry: FakeRegistry, clients: Clients) -> None:
    everywhere(fake_registry, Fault(status=503))
    client = clients(fake_registry.host, retries=6, backoff=1.0)
    with pytest.raises(RegistryFailed):
        client.registry.tags(NAME)
    assert all(2**n / 2 <= wait <= 2**n for n, wait in enumerate(client.waits[:5])), client.waits
    assert client.waits[5] <= 30
    assert len(set(client.waits)) == 6


def test_registry_that_says_how_long_is_believed(fake_registry: FakeRegistry, clients: Clients) -> None:
    fake_registry.fault("tags", Fault(status=429, headers={"Retry-After": "17"}, times=1))
    client = clients(fake_registry.host)
    assert client.registry.tags(NAME) == []
    assert client.waits == [17]


def test_an_hour_is_not_waited_for(fake_registry: FakeRegistry, clients: Clients) -> None:
    fake_registry.fault("tags", Fault(status=429, headers={"Retry-After": "3600"}))
    client = clients(fake_registry.host)
    with pytest.raises(RegistryThrottled) as raised:
        client.registry.tags(NAME)
    assert (client.waits, raised.value.data["retry_after"]) == ([], 3600)


# -- pushes ------------------------------------------------------------------------------------------------------


def test_manifest_counts_as_pushed_once_it_was_read_back(fake_registry: FakeRegistry, clients: Clients) -> None:
    fake_registry.hide = 3
    client = clients(fake_registry.host)
    digest = push(client.registry, NAME, image(b"x"), tag="v1")
    assert client.registry.exists(NAME, "v1") == digest
    assert len(client.waits) == 3


def test_manifest_that_cannot_be_read_back(fake_registry: FakeRegistry, clients: Clients) -> None:
    fake_registry.hide = 100
    client = clients(fake_registry.host, retries=2)
    with pytest.raises(PushNotVerified, match="accepted"):
        push(client.registry, NAME, image(b"x"), tag="v1")
    assert len(client.waits) == 2


@pytest.mark.parametrize("version", ["tag", "digest"])
def test_other_bytes_than_the_digest_says(fake_registry: FakeRegistry, clients: Clients, version: str) -> None:
    registry = clients(fake_registry.host).registry
    one = image(b"x")
    digest = push(registry, NAME, one, tag="v1")
    fake_registry.fault(
        "manifest",
        Fault(
            status=200,
            body=one.document.data + b" ",
            headers={"Docker-Content-Digest": digest, "Content-Type": oci.MANIFEST},
        ),
        method="GET",
    )
    with pytest.raises(WrongContent, match=digest):
        registry.manifest(NAME, "v1" if version == "tag" else digest)
    with pytest.raises(PushNotVerified, match=digest):
        registry.put_manifest(NAME, one.document)


def test_registry_that_makes_another_manifest_of_it(fake_registry: FakeRegistry, clients: Clients) -> None:
    fake_registry.fault("manifest", Fault(status=201, body=b"", headers={"Docker-Content-Digest": ABSENT}))
    with pytest.raises(PushNotVerified, match=ABSENT):
        clients(fake_registry.host).registry.put_manifest(NAME, image(b"x").document)


# -- uploads that are cut ----------------------------------------------------------------------------------------


def test_upload_goes_on_from_where_it_was_cut(fake_registry: FakeRegistry, clients: Clients) -> None:
    fake_registry.fault("upload", Fault(cut_after=1 << 20, times=1), method="PUT")
    fake_registry.fault("upload", Fault(cut_after=1 << 19, times=2), method="PATCH")
    sent = put(clients(fake_registry.host).registry)
    assert fake_registry.holds(NAME, DIGEST)
    assert fake_registry.received[DIGEST] == len(DATA), "no byte that arrived is sent again"
    assert sum(sent) == len(DATA)
    assert fake_registry.requests["POST", "upload"] == 1


def test_upload_starts_anew_where_the_registry_forgot_it(fake_registry: FakeRegistry, clients: Clients) -> None:
    fake_registry.fault("upload", Fault(cut_after=1 << 20, times=1), method="PUT")
    fake_registry.fault("upload", Fault(status=404, code="BLOB_UPLOAD_UNKNOWN"), method="GET")
    sent = put(clients(fake_registry.host).registry)
    assert fake_registry.holds(NAME, DIGEST)
    assert fake_registry.requests["POST", "upload"] == 2
    assert sum(sent) == len(DATA)


def test_upload_of_which_nothing_was_kept(fake_registry: FakeRegistry, clients: Clients) -> None:
    fake_registry.fault("upload", Fault(cut_after=1 << 20, forget=True, times=2), method="PUT")
    put(clients(fake_registry.host).registry)
    assert fake_registry.holds(NAME, DIGEST)
    assert fake_registry.requests["POST", "upload"] == 1


def test_upload_that_is_cut_all_the_time_ends(fake_registry: FakeRegistry, clients: Clients) -> None:
    fake_registry.fault("upload", Fault(cut_after=1 << 20, forget=True), method="PUT")
    client = clients(fake_registry.host, retries=3)
    with pytest.raises(RegistryUnreachable):
        put(client.registry)
    assert not fake_registry.holds(NAME, DIGEST)
    assert fake_registry.requests["PUT", "upload"] == 4


def test_progress_gives_new_patience(fake_registry: FakeRegistry, clients: Clients) -> None:
    fake_registry.fault("upload", Fault(cut_after=1 << 18, times=1), method="PUT")
    fake_registry.fault("upload", Fault(cut_after=1 << 18, times=10), method="PATCH")
    put(clients(fake_registry.host, retries=1).registry)
    assert fake_registry.holds(NAME, DIGEST)
    assert fake_registry.received[DIGEST] == len(DATA)


def test_registry_that_was_wrong_about_the_offset(fake_registry: FakeRegistry, clients: Clients) -> None:
    fake_registry.fault("upload", Fault(cut_after=1 << 20, times=1), method="PUT")
    fake_registry.fault("upload", Fault(status=204, body=b"", headers={"Range": "0-99"}, times=1), method="GET")
    put(clients(fake_registry.host).registry)
    assert fake_registry.holds(NAME, DIGEST)
    assert fake_registry.requests["PATCH", "upload"] == 2, "416, then from where it really is"
    assert fake_registry.received[DIGEST] == len(DATA)


def test_answer_that_was_lost_is_not_an_upload_that_was_lost(fake_registry: FakeRegistry, clients: Clients) -> None:
    """All bytes arrived, and the connection broke before the answer."""
    client = clients(fake_registry.host)
    fake_registry.fault("upload", Fault(status=504, times=1), method="PUT")
    client.on_wait = lambda: setattr(fake_registry, "_", fake_registry.add_blob(NAME, DATA))
    put(client.registry)
    assert fake_registry.requests["PUT", "upload"] == 1


def test_registry_that_takes_long_to_keep_what_it_was_sent(fake_registry: FakeRegistry, clients: Clients) -> None:
    fake_registry.fault("upload", Fault(delay=0.5), method="PUT")
    client = clients(fake_registry.host, stall=0.2)
    put(client.registry)
    assert client.waits == []


def test_upload_that_is_throttled(fake_registry: FakeRegistry, clients: Clients) -> None:
    fake_registry.fault("upload", Fault(status=429, headers={"Retry-After": "9"}, times=1), method="PUT")
    client = clients(fake_registry.host)
    put(client.registry)
    assert fake_registry.holds(NAME, DIGEST)
    assert client.waits == [9]


def test_upload_that_is_refused_says_why(fake_registry: FakeRegistry, clients: Clients) -> None:
    fake_registry.fault("upload", Fault(status=413, code="SIZE_INVALID", message="too large"), method="PUT")
    client = clients(fake_registry.host)
    with pytest.raises(UploadFailed, match="SIZE_INVALID: too large"):
        put(client.registry)
    assert client.waits == []


# -- reading -----------------------------------------------------------------------------------------------------


def test_blob_goes_on_from_where_it_was_cut(fake_registry: FakeRegistry, clients: Clients) -> None:
    fake_registry.add_blob(NAME, DATA)
    fake_registry.fault("blob", Fault(cut_after=(1 << 20) + 5, times=2))
    assert b"".join(clients(fake_registry.host).registry.blob(NAME, DIGEST)) == DATA
    asked = [one.range for one in fake_registry.seen if one.kind == "blob"]
    assert asked == [None, f"bytes={(1 << 20) + 5}-", f"bytes={2 * ((1 << 20) + 5)}-"]


def test_blob_of_a_registry_without_ranges(fake_registry: FakeRegistry, clients: Clients) -> None:
    fake_registry.add_blob(NAME, DATA)
    fake_registry.fault("blob", Fault(cut_after=(1 << 20) + 5, times=1))
    fake_registry.fault("blob", Fault(status=416, body=b"", times=1))
    assert b"".join(clients(fake_registry.host).registry.blob(NAME, DIGEST)) == DATA


def test_blob_with_another_sha256(fake_registry: FakeRegistry, clients: Clients) -> None:
    fake_registry.add_blob(NAME, DATA)
    fake_registry.fault("blob", Fault(corrupt=True))
    with pytest.raises(WrongContent, match=DIGEST):
        b"".join(clients(fake_registry.host).registry.blob(NAME, DIGEST))


def test_config_that_is_too_large(fake_registry: FakeRegistry, clients: Clients) -> None:
    fake_registry.add_blob(NAME, DATA)
    with pytest.raises(RegistryFailed, match="larger than 1000 bytes"):
        clients(fake_registry.host).registry.read_blob(NAME, DIGEST, limit=1000)


def test_login_is_not_told_to_the_host_that_a_blob_is_on(fake_registry: FakeRegistry, clients: Clients) -> None:
    fake_registry.add_blob(NAME, DATA)
    fake_registry.redirects = True
    fake_registry.require_token("me", "geheim", anonymous=True)
    fake_registry.fault("elsewhere", Fault(cut_after=1 << 20, times=1))
    assert b"".join(clients(fake_registry.host).registry.blob(NAME, DIGEST)) == DATA
    there = [(one.authorization, one.range) for one in fake_registry.seen if one.kind == "elsewhere"]
    assert there == [(None, None), (None, f"bytes={1 << 20}-")]
    assert [one.authorization is None for one in fake_registry.seen if one.kind == "blob"] == [True, False, False]


def test_redirects_end(fake_registry: FakeRegistry, clients: Clients) -> None:
    fake_registry.fault("blob", Fault(status=307, body=b"", headers={"Location": "/v2/a/blobs/sha256:0"}))
    with pytest.raises(RegistryFailed, match="redirected too often"):
        clients(fake_registry.host).registry.read_blob(NAME, DIGEST)
    assert fake_registry.requests["GET", "blob"] == 10


def test_redirect_to_something_else_than_http(fake_registry: FakeRegistry, clients: Clients) -> None:
    fake_registry.fault("blob", Fault(status=307, body=b"", headers={"Location": "file:///etc/passwd"}))
    with pytest.raises(RegistryFailed, match="not http"):
        clients(fake_registry.host).registry.read_blob(NAME, DIGEST)


def test_tags_of_all_pages(fake_registry: FakeRegistry, clients: Clients) -> None:
    fake_registry.page = 2
    for number in range(5):
        fake_registry.add_manifest(NAME, oci.MANIFEST, b"{}", tag=f"t{number}")
    assert clients(fake_registry.host).registry.tags(NAME) == ["t0", "t1", "t2", "t3", "t4"]
    assert fake_registry.requests["GET", "tags"] == 3


# -- mounts and referrers ----------------------------------------------------------------------------------------


def test_asking_whether_a_push_is_allowed_leaves_nothing_behind(
    fake_registry: FakeRegistry, clients: Clients
) -> None:
    clients(fake_registry.host).registry.check_push(NAME)
    assert fake_registry.state.uploads == {}


def test_mount_that_is_not_done_leaves_no_upload_behind(fake_registry: FakeRegistry, clients: Clients) -> None:
    fake_registry.add_blob("other", DATA)
    fake_registry.mounts = False
    assert not clients(fake_registry.host).registry.mount(NAME, DIGEST, "other")
    assert fake_registry.state.uploads == {}
    fake_registry.mounts = True
    assert clients(fake_registry.host).registry.mount(NAME, DIGEST, "other")
    assert fake_registry.holds(NAME, DIGEST)


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_mount_that_is_not_allowed_is_an_upload(fake_registry: FakeRegistry, clients: Clients, status: int) -> None:
    fake_registry.fault("upload", Fault(status=status, code="DENIED"), method="POST")
    assert not clients(fake_registry.host).registry.mount(NAME, DIGEST, "other")


def test_mount_that_the_registry_failed_at_is_not_no(fake_registry: FakeRegistry, clients: Clients) -> None:
    fake_registry.fault("upload", Fault(status=503), method="POST")
    with pytest.raises(RegistryFailed):
        clients(fake_registry.host, retries=1).registry.mount(NAME, DIGEST, "other")


@pytest.mark.parametrize("api", [True, False])
def test_referrers_with_and_without_the_api(fake_registry: FakeRegistry, clients: Clients, api: bool) -> None:
    fake_registry.referrers = api
    registry, one = clients(fake_registry.host).registry, image(b"x")
    digest = push(registry, NAME, one)
    registry.put_referrer(NAME, one.document.descriptor, referrer(one))
    assert registry.tags(NAME) == ([] if api else [digest.replace(":", "-")])


def test_referrers_of_several_threads_are_all_listed(fake_registry: FakeRegistry, clients: Clients) -> None:
    fake_registry.referrers = False
    registry, one = clients(fake_registry.host).registry, image(b"x")
    digest = push(registry, NAME, one)
    first = referrer(one)
    several = [
        oci.Document(media_type=first.media_type, data=first.data.replace(b"sbom", b"sbom%d" % number))
        for number in range(6)
    ]
    threads = [
        threading.Thread(target=registry.put_referrer, args=(NAME, one.document.descriptor, document))
        for document in several
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = registry.manifest(NAME, digest.replace(":", "-"))
    assert found is not None
    listed = {row["digest"] for row in json.loads(found.data)["manifests"]}
    assert listed == {document.digest for document in several}


def test_referrer_that_names_another_subject(fake_registry: FakeRegistry, clients: Clients) -> None:
    one = image(b"x")
    with pytest.raises(ValueError, match="subject"):
        clients(fake_registry.host).registry.put_referrer(NAME, image(b"y").document.descriptor, referrer(one))


def test_tag_of_referrers_that_is_something_else_is_kept(fake_registry: FakeRegistry, clients: Clients) -> None:
    fake_registry.referrers = False
    registry, one = clients(fake_registry.host).registry, image(b"x")
    digest = push(registry, NAME, one, tag=one.document.digest.replace(":", "-"))
    with pytest.raises(PushNotVerified, match="not the index of referrers"):
        registry.put_referrer(NAME, one.document.descriptor, referrer(one))
    assert registry.exists(NAME, digest.replace(":", "-")) == digest
