"""The scanner finds a secret in every form that it knows, and nothing in clean folders."""

from __future__ import annotations

import base64
import gzip
import io
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.services.canary import find

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "canary/4711+bird"


def zipped() -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside.txt", SECRET)
    return raw.getvalue()


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (f"url = https://me:{SECRET}@host".encode(), "plain"),
        (b"https://me:canary%2F4711%2Bbird@host", "percent-encoded"),
        (base64.b64encode(SECRET.encode()), "base64"),
        (b"Authorization: Basic " + base64.b64encode(f"me:{SECRET}".encode()), "Basic me"),
        (SECRET.encode().hex().encode(), "hex"),
        (gzip.compress(SECRET.encode()), "(gz): plain"),
        (zipped(), "!inside.txt: plain"),
    ],
    ids=["url", "percent", "base64", "header", "hex", "gzip", "zip"],
)
def test_each_form_is_found(tmp_path: Path, data: bytes, form: str) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(b"before " * (data[:2] == b"ur") + data)
    found = find(SECRET, tmp_path, pairs=["me"])
    assert any(one.endswith(form) for one in found), found


def test_names_count_and_folders_can_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "token-bird").write_text("")
    assert find("bird", tmp_path) == [f"{tmp_path}/cache/token-bird: name"]
    assert find("bird", tmp_path, besides=["cache"]) == []


def test_clean_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 10)
    assert find(SECRET, tmp_path) == []
