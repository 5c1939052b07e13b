from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowkiln._base import redact


def test_url_keeps_the_host_and_drops_the_secret() -> None:
    assert (
        redact.url("https://user:CANARY@index.example:8443/simple/?a=1") == "https://index.example:8443/simple/?a=1"
    )
    assert redact.url("https://index.example/simple/") == "https://index.example/simple/"


def test_text_masks_every_url_and_token() -> None:
    shown = redact.text(
        "tried https://u:CANARY@a.example/x and git+ssh://CANARY@b.example then ?X-Token=CANARY&z=1"
    )
    assert "CANARY" not in shown
    assert "https://***@a.example/x" in shown
    assert "z=1" in shown


def test_odd_urls_are_masked_too() -> None:
    assert redact.text("HTTPS://u:CANARY@a.example/x") == "HTTPS://***@a.example/x"
    assert redact.text("https://u:p@CANARY@a.example/x@v1") == "https://***@a.example/x@v1"
    assert redact.url("https://u:CANARY@[::1/x") == "https://[::1/x"


@given(st.text(st.characters(categories=["L", "N"]), min_size=8))
def test_no_password_survives(secret: str) -> None:
    marked = f"canary{secret}"
    assert marked not in redact.text(f"error at https://name:{marked}@host.example/simple: 401")
    assert marked not in redact.url(f"https://name:{marked}@host.example/simple")
