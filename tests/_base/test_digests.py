from __future__ import annotations

from pathlib import Path

import pytest

from flowkiln._base import digests

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_bytes_and_file_agree(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert digests.of_bytes(b"") == EMPTY
    assert digests.of_file(tmp_path / "empty") == EMPTY


def test_hexdigits_takes_digests_only() -> None:
    assert digests.hexdigits(EMPTY) == EMPTY[7:]
    for wrong in ["", EMPTY[7:], EMPTY.upper(), EMPTY + "0", "md5:" + EMPTY[7:]]:
        assert not digests.is_digest(wrong)
        with pytest.raises(ValueError, match="not a sha256 digest"):
            digests.hexdigits(wrong)
