from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowkiln._base.errors import FormatTooNew
from flowkiln.store import packs
from flowkiln.store.errors import BlobDamaged, BlobMissing
from flowkiln.store.folder import FolderStore
from flowkiln.store.packs import Pack


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.binary(max_size=600), max_size=30))
def test_packs_round_trip(store: FolderStore, items: list[bytes]) -> None:
    pack = packs.write(iter(items), store.blobs)
    assert pack.count == len(items)
    assert (pack.inline is None) == (pack.size > 4096) == (pack.sha256 is not None)
    again = Pack.from_json(pack.to_json())
    assert again == pack
    assert [packs.read(again, index, store.blobs) for index in range(pack.count)] == items
    assert list(packs.iterate(again, store.blobs)) == items


def test_a_hundred_thousand_items_stream_through(store: FolderStore) -> None:
    pack = packs.write((b"%d" % number for number in range(100_000)), store.blobs)
    assert packs.read(pack, 99_999, store.blobs) == b"99999"
    assert packs.read(pack, 0, store.blobs) == b"0"
    assert sum(int(item) for item in packs.iterate(pack, store.blobs)) == 99_999 * 50_000


def test_an_exception_from_the_items_leaves_nothing(store: FolderStore) -> None:
    def items() -> object:
        yield b"x" * 10_000
        raise KeyError

    with pytest.raises(KeyError):
        packs.write(items(), store.blobs)  # type: ignore[arg-type]
    assert store.scratch_files() == []


@pytest.mark.parametrize("index", [-1, 3, 10**9])
def test_there_is_no_such_item(store: FolderStore, index: int) -> None:
    pack = packs.write([b"a", b"b", b"c"], store.blobs)
    with pytest.raises(IndexError):
        packs.read(pack, index, store.blobs)


def test_damage_is_an_error(store: FolderStore) -> None:
    pack = packs.write([b"x" * 3000, b"y" * 3000], store.blobs)
    path = Path(store.blobs.path(pack.sha256 or ""))
    data = path.read_bytes()
    path.chmod(0o644)
    for broken in (data[:-1], data[:100], b"z" * len(data), data[:-24] + b"\xff" * 24):
        path.write_bytes(broken)
        with pytest.raises(BlobDamaged):
            list(packs.iterate(pack, store.blobs))
    path.write_bytes(data[:6008] + b"\xff" * 24 + data[6032:])
    with pytest.raises(BlobDamaged):
        packs.read(pack, 0, store.blobs)
    path.unlink()
    with pytest.raises(BlobMissing):
        packs.read(pack, 0, store.blobs)


def test_a_newer_pack_is_refused() -> None:
    with pytest.raises(FormatTooNew, match="the pack has format 2"):
        Pack.from_json({"schema": 2, "count": 0, "size": 0})


def test_a_frozen_pack_of_version_1_is_read(store: FolderStore) -> None:
    data = (Path(__file__).parent / "fixtures" / "pack-v1.bin").read_bytes()
    pack = Pack(count=3, size=len(data), inline=data)
    assert list(packs.iterate(pack, store.blobs)) == [b"first", b"", b"third"]
    assert packs.read(pack, 2, store.blobs) == b"third"
