from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkiln.images.errors import BadReference
from flowkiln.images.reference import HUB, Reference, parse, parse_repository

DIGEST = "sha256:" + "0123456789abcdef" * 4

COMPONENT = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,8}){0,3}", fullmatch=True)
HOST = st.from_regex(
    r"([a-z0-9]{1,8}(\.[a-z0-9-]{0,6}[a-z0-9]){1,3}(:[0-9]{1,5})?|localhost(:[0-9]{1,5})?"
    r"|[a-z]{1,8}:[0-9]{1,5}|\[::1\](:[0-9]{1,5})?)",
    fullmatch=True,
)
TAG = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", fullmatch=True)
REFERENCES = st.builds(
    Reference,
    HOST.filter(lambda host: not host.endswith("docker.io")),
    st.lists(COMPONENT, min_size=1, max_size=3).map("/".join),
    st.none() | TAG,
    st.none() | st.just(DIGEST),
)


@given(REFERENCES)
def test_what_is_written_is_read_again(reference: Reference) -> None:
    assert parse(str(reference)) == reference


@given(st.text(max_size=40) | st.from_regex(r"[a-zA-Z0-9./:@_-]{1,40}", fullmatch=True))
def test_any_text_is_a_reference_that_stays_or_refused(text: str) -> None:
    try:
        reference = parse(text)
    except BadReference:
        return
    assert parse(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("python", Reference(HUB, "library/python")),
        ("python:3.11-slim", Reference(HUB, "library/python", "3.11-slim")),
        ("docker.io/python", Reference(HUB, "library/python")),
        ("index.docker.io/python:3", Reference(HUB, "library/python", "3")),
        ("team/flows", Reference(HUB, "team/flows")),
        ("localhost/flows", Reference("localhost", "flows")),
        ("localhost:5000/flows:v1", Reference("localhost:5000", "flows", "v1")),
        ("host:5000", Reference(HUB, "library/host", "5000")),
        ("ghcr.io/a/b/c@" + DIGEST, Reference("ghcr.io", "a/b/c", None, DIGEST)),
        ("ghcr.io/a:v@" + DIGEST, Reference("ghcr.io", "a", "v", DIGEST)),
        ("[::1]:5000/a", Reference("[::1]:5000", "a")),
        ("a.b/c__d-e---f.g", Reference("a.b", "c__d-e---f.g")),
        ("a:" + "t" * 128, Reference(HUB, "library/a", "t" * 128)),
    ],
)
def test_docker_reads_it_so_too(text: str, reference: Reference) -> None:
    assert parse(text) == reference


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no repository"),
        ("Python", "lower case"),
        ("ghcr.io/Team/flows", "lower case"),
        ("a:", "no tag"),
        ("a:-x", "no tag"),
        ("a:é", "no tag"),
        ("a:" + "t" * 129, "no tag"),
        ("a@", "no sha256 digest"),
        ("a@sha256:123", "no sha256 digest"),
        ("a@md5:" + "0" * 32, "no sha256 digest"),
        ("a@" + DIGEST.upper(), "no sha256 digest"),
        ("a/", "no repository"),
        ("a//b", "no repository"),
        ("/a", "no repository"),
        ("a___b", "no repository"),
        ("a..b/", "no host|no repository"),
        ("a-", "no repository"),
        ("https://ghcr.io/a", "no host"),
        ("ghcr.io:/a", "no host"),
        ("-a.b/c", "no host"),
        ("a\n", "no repository"),
        ("f" * 64, "id of an image"),
        ("ghcr.io/" + "a" * 250, "longer than 255"),
    ],
)
def test_what_is_wrong_is_said(text: str, why: str) -> None:
    with pytest.raises(BadReference, match=why) as raised:
        parse(text)
    assert repr(text) in raised.value.message


@pytest.mark.parametrize("more", [":v1", f"@{DIGEST}"])
def test_a_repository_has_no_version(more: str) -> None:
    assert parse_repository("ghcr.io/a", named="here") == parse("ghcr.io/a")
    with pytest.raises(BadReference, match="is one image") as raised:
        parse_repository(f"ghcr.io/a{more}", named="here")
    assert raised.value.hint == "Write ghcr.io/a: images are tagged by what they hold."


def test_a_reference_moves_within_its_repository() -> None:
    reference = parse("ghcr.io/a:v1")
    assert str(reference.at(DIGEST)) == f"ghcr.io/a@{DIGEST}"
    assert str(reference.at(DIGEST).tagged("v2")) == "ghcr.io/a:v2"
    assert (reference.version, parse("a").version, reference.at(DIGEST).version) == ("v1", "latest", DIGEST)
    assert reference.name == "ghcr.io/a"
