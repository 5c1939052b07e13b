"""Compressed layers: what any gzip or zstd reads, equal however the bytes arrive."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import sys
from typing import TYPE_CHECKING, cast

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkiln._base import digests
from flowkiln.images import compress
from tests import stack
from tests.source import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowkiln.images.compress import Compression

FROZEN = {
    "gzip": "sha256:7eb54b6d870d54a1c1d07df224ffad4727243b4e0aaa72e179df5eaf3005b788",
    "zstd": "sha256:c337a2a0854f5e6355a293b3df0d4e9bbc1c4eb4bd83d3034b11c990abfd7fff",
}
"""The bytes of the first release: what another library version would change, and BUILDER_VERSION with it."""


LINES = b"".join(f"line {number % 977} of {number}\n".encode() for number in range(120_000))


def packed(kind: str, pieces: Sequence[bytes]) -> bytes:
    out: list[bytes] = []
    compressor = compress.compressor(cast("Compression", kind), out.append)
    for piece in pieces:
        compressor(piece)
    compressor.finish()
    return b"".join(out)


def unpacked(kind: str, data: bytes) -> bytes:
    if kind == "gzip":
        return gzip.decompress(data)
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
@given(pieces=st.lists(st.binary(max_size=5000), max_size=20))
@settings(max_examples=30, deadline=None)
def test_what_comes_out_is_what_went_in(kind: str, pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    assert unpacked(kind, packed(kind, pieces)) == whole if whole or kind == "zstd" else True


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_pieces_do_not_decide_the_bytes(kind: str) -> None:
    data = random.Random(7).randbytes(1000) * 4000
    whole = packed(kind, [data])
    cut = [data[start : start + 70_001] for start in range(0, len(data), 70_001)]
    assert packed(kind, cut) == whole
    assert unpacked(kind, whole) == data


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_bytes_are_those_of_the_first_release(kind: str) -> None:
    assert digests.of_bytes(packed(kind, [LINES])) == FROZEN[kind]


@pytest.mark.e2e
@pytest.mark.parametrize("processor", ["qemu64", "Nehalem", "max"])
def test_the_processor_does_not_decide_the_bytes(processor: str) -> None:
    script = (
        "import hashlib; from tests.images.test_compress import LINES, packed; "
        "print([hashlib.sha256(packed(kind, [LINES])).hexdigest() for kind in ('gzip', 'zstd')])"
    )
    command = [str(stack.tool("qemu-user")), "-cpu", processor, sys.executable, "-c", script]
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}/src:{ROOT}"}
    done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([FROZEN[kind].removeprefix("sha256:") for kind in ("gzip", "zstd")])
