"""The archives of layers, whatever they are compressed with."""

from __future__ import annotations

import gzip
import random
import zlib
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from flowkiln.images import compress
from flowkiln.images.decompress import Chunks, decompressed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "gzip in members": lambda data: gzip.compress(data[:7]) + gzip.compress(data[7:]),
    "gzip with padding": lambda data: gzip.compress(data) + bytes(700),
    "zstd": zstandard.compress,
    "zstd in frames": lambda data: zstandard.compress(data[:7]) + zstandard.compress(data[7:]),
    "zstd with frames to skip": lambda data: (
        b"\x5e\x2a\x4d\x18\x03\0\0\0abc" + zstandard.compress(data) + b"\x50\x2a\x4d\x18\x01\0\0\0a"
    ),
}


@pytest.mark.parametrize("form", FORMS)
@given(data=st.binary(max_size=2000), size=st.integers(1, 50))
def test_every_form_gives_the_bytes_in_pieces_of_any_size(form: str, data: bytes, size: int) -> None:
    data = b"name" + data  # an archive never begins as compressed data does
    assert b"".join(decompressed(pieces(FORMS[form](data), size))) == data


@pytest.mark.parametrize("form", ["gzip", "zstd"])
def test_what_grows_a_thousandfold_comes_in_small_pieces(form: str) -> None:
    data = bytes(64 << 20)
    packed = FORMS[form](data)
    assert len(packed) < len(data) // 900
    assert max(map(len, decompressed([packed]))) <= 1 << 18
    assert sum(map(len, decompressed([packed]))) == len(data)


def test_a_member_whose_end_waits_inside_zlib_is_whole() -> None:
    noise = random.Random(1).randbytes(1 << 18)
    for more in range(-2, 3):
        data = noise + bytes(more) if more >= 0 else noise[:more]
        assert b"".join(decompressed(pieces(zlib.compress(data, wbits=31), 1 << 16))) == data


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda: gzip.compress(b"x" * 100)[:-9], "gzip ends early"),
        (lambda: gzip.compress(b"x" * 100) + b"trailing", "gzip is damaged"),
        (lambda: b"\x1f\x8b" + bytes(20), "gzip is damaged"),
        (lambda: gzip.compress(b"x" * 100)[:-8] + bytes(8), "gzip is damaged"),
        (lambda: b"\x28\xb5\x2f\xfd" + b"\xff" * 20, "zstd is damaged"),
        (lambda: zstandard.compress(b"x" * 100) + b"trailing", "zstd is damaged"),
    ],
)
def test_damage_is_told(damage: Callable[[], bytes], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        list(decompressed(pieces(damage(), 5)))


def test_everything_is_taken_to_the_end() -> None:
    """What comes last decides over the digest of a layer."""
    taken = []

    def chunks() -> Iterator[bytes]:
        for block in pieces(gzip.compress(b"x" * 100) + bytes(50), 10):
            taken.append(block)
            yield block

    assert b"".join(decompressed(chunks())) == b"x" * 100
    assert b"".join(taken) == gzip.compress(b"x" * 100) + bytes(50)


def test_chunks_read_like_a_file() -> None:
    stream = Chunks([b"abc", b"", b"de"])
    assert stream.readable()
    assert (stream.read(2), stream.read(2), stream.ended, stream.read(), stream.ended) == (
        b"ab",
        b"c",
        False,
        b"de",
        True,
    )
    assert stream.read(5) == b""


@pytest.mark.parametrize("size", [1 << 16, 1 << 20, 1 << 26])
def test_members_of_a_layer_of_ours_are_read_to_the_end(size: int) -> None:
    content = random.Random(3).randbytes(1000) * 5000
    packed: list[bytes] = []
    compressor = compress.compressor("gzip", packed.append)
    compressor(content)
    compressor.finish()
    data = b"".join(packed)
    chunks = (data[start : start + size] for start in range(0, len(data), size))
    assert b"".join(decompressed(chunks)) == content
