from __future__ import annotations

import errno
import hashlib
import os
import re
import threading
from typing import TYPE_CHECKING

import pytest

from flowkiln._base.errors import NoSpace
from flowkiln.envs.fetch import Artefact, Fetcher, Network
from flowkiln.envs.installerrors import (
    ArtefactGone,
    DownloadFailed,
    DownloadRefused,
    DownloadStalled,
    NotCached,
    Throttled,
    WrongHash,
)
from tests.services.index import Fault
from tests.services.wheels import wheel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.services.index import PackageIndex

BIG = wheel("big", files={"big/data.bin": os.urandom(3 << 20)})


@pytest.fixture
def fetcher() -> Fetcher:
    return Fetcher(Network(stall=0.5), backoff=0.01, retries=3)


def artefact(index: PackageIndex, **changes: object) -> Artefact:
    index.add(BIG)
    url = f"{index.base}/files/big/{BIG.filename}"
    values: dict[str, object] = {"name": "big", "url": url, "sha256": BIG.sha256, "size": BIG.size}
    return Artefact(**{**values, **changes})  # type: ignore[arg-type]


def test_a_download_is_verified_and_counted(package_index: PackageIndex, fetcher: Fetcher, tmp_path: Path) -> None:
    amounts: list[int] = []
    path = fetcher.fetch(artefact(package_index), tmp_path, advance=amounts.append)
    assert path == tmp_path / BIG.sha256
    assert path.read_bytes() == BIG.data
    assert sum(amounts) == BIG.size
    assert [one.name for one in tmp_path.iterdir()] == [BIG.sha256]


def test_a_cut_body_is_continued_by_range(package_index: PackageIndex, fetcher: Fetcher, tmp_path: Path) -> None:
    package_index.fault("big", Fault(cut_after=1 << 20, times=1))
    amounts: list[int] = []
    path = fetcher.fetch(artefact(package_index), tmp_path, advance=amounts.append)
    assert path.read_bytes() == BIG.data
    ranges = [one.range for one in package_index.seen]
    assert ranges[0] is None
    assert re.fullmatch(r"bytes=[1-9]\d*-", ranges[1] or "")
    assert sum(amounts) == BIG.size


def test_a_cut_body_of_a_server_without_ranges_is_fetched_again(
    package_index: PackageIndex, fetcher: Fetcher, tmp_path: Path
) -> None:
    package_index.fault("big", Fault(cut_after=1 << 20, ranges=False, times=1))
    package_index.fault("big", Fault(ranges=False, times=1))
    amounts: list[int] = []
    assert fetcher.fetch(artefact(package_index), tmp_path, advance=amounts.append).read_bytes() == BIG.data
    assert sum(amounts) == BIG.size


def test_a_slow_line_with_cuts_succeeds_in_one_call(package_index: PackageIndex, tmp_path: Path) -> None:
    """B08: progress resets the count of attempts, and no limit on the whole time exists."""
    for _ in range(4):
        package_index.fault("big", Fault(cut_after=700_000, times=1))
    fetcher = Fetcher(Network(stall=0.5), backoff=0.01, retries=5)
    assert fetcher.fetch(artefact(package_index), tmp_path).read_bytes() == BIG.data
    assert package_index.total == 5


def test_a_partial_download_of_a_killed_process_is_continued(
    package_index: PackageIndex, fetcher: Fetcher, tmp_path: Path
) -> None:
    (tmp_path / BIG.sha256).write_bytes(BIG.data[:2_000_000])
    fetcher.fetch(artefact(package_index), tmp_path)
    assert [one.range for one in package_index.seen] == ["bytes=2000000-"]


def test_a_whole_file_of_a_killed_process_needs_no_request(
    package_index: PackageIndex, fetcher: Fetcher, tmp_path: Path
) -> None:
    (tmp_path / BIG.sha256).write_bytes(BIG.data)
    assert fetcher.fetch(artefact(package_index), tmp_path).read_bytes() == BIG.data
    (tmp_path / BIG.sha256).write_bytes(BIG.data)
    assert fetcher.fetch(artefact(package_index, size=None), tmp_path).read_bytes() == BIG.data
    assert [one.range for one in package_index.seen] == [f"bytes={BIG.size}-"]


def test_a_damaged_partial_download_is_evicted_and_fetched_again(
    package_index: PackageIndex, fetcher: Fetcher, tmp_path: Path
) -> None:
    (tmp_path / BIG.sha256).write_bytes(b"x" * 1000)
    amounts: list[int] = []
    assert fetcher.fetch(artefact(package_index), tmp_path, advance=amounts.append).read_bytes() == BIG.data
    assert sum(amounts) == BIG.size
    assert package_index.total == 2


def test_a_partial_download_longer_than_the_file_starts_again(
    package_index: PackageIndex, fetcher: Fetcher, tmp_path: Path
) -> None:
    (tmp_path / BIG.sha256).write_bytes(BIG.data + b"more")
    assert fetcher.fetch(artefact(package_index), tmp_path).read_bytes() == BIG.data


def test_a_file_that_changed_since_the_cut_starts_again(
    package_index: PackageIndex, fetcher: Fetcher, tmp_path: Path
) -> None:
    (tmp_path / BIG.sha256).write_bytes(b"older bytes")
    (tmp_path / f"{BIG.sha256}.json").write_text('{"validator": "\\"another\\""}')
    assert fetcher.fetch(artefact(package_index), tmp_path).read_bytes() == BIG.data
    assert package_index.total == 1


def test_a_wrong_hash_once_is_fetched_once_more(
    package_index: PackageIndex, fetcher: Fetcher, tmp_path: Path
) -> None:
    package_index.fault("big", Fault(corrupt=True, times=1))
    assert fetcher.fetch(artefact(package_index), tmp_path).read_bytes() == BIG.data
    assert package_index.total == 2


def test_a_wrong_hash_twice_names_url_expected_and_received(
    package_index: PackageIndex, fetcher: Fetcher, tmp_path: Path
) -> None:
    package_index.fault("big", Fault(corrupt=True))
    wrong = hashlib.sha256(BIG.data[:-1] + bytes([BIG.data[-1] ^ 0xFF])).hexdigest()
    with pytest.raises(WrongHash) as caught:
        fetcher.fetch(artefact(package_index), tmp_path)
    assert caught.value.exit_code == 5
    for told in (BIG.filename, BIG.sha256):
        assert told in caught.value.message
    assert caught.value.data["received"] in caught.value.message
    assert caught.value.data["received"] != BIG.sha256
    assert len(wrong) == 64
    assert package_index.total == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "error", "requests"),
    [
        (401, DownloadRefused, 1),
        (403, DownloadRefused, 1),
        (404, ArtefactGone, 1),
        (410, ArtefactGone, 1),
        (429, Throttled, 3),
        (500, DownloadFailed, 3),
        (503, DownloadFailed, 3),
        (418, DownloadFailed, 1),
    ],
)
def test_a_status_is_a_clear_error(
    status: int,
    error: type[Exception],
    requests: int,
    package_index: PackageIndex,
    fetcher: Fetcher,
    tmp_path: Path,
) -> None:
    package_index.fault("big", Fault(status=status))
    with pytest.raises(error, match=str(status)) as caught:
        fetcher.fetch(artefact(package_index), tmp_path)
    assert caught.value.exit_code == 5  # type: ignore[attr-defined]
    assert package_index.total == requests


def test_failures_that_pass_are_not_seen(package_index: PackageIndex, fetcher: Fetcher, tmp_path: Path) -> None:
    package_index.fault("big", Fault(status=503, times=1))
    package_index.fault("big", Fault(status=429, retry_after="0", times=1))
    assert fetcher.fetch(artefact(package_index), tmp_path).read_bytes() == BIG.data


def test_the_server_says_how_long_to_wait(package_index: PackageIndex, fetcher: Fetcher, tmp_path: Path) -> None:
    package_index.fault("big", Fault(status=429, retry_after="1", times=1))
    fetcher.fetch(artefact(package_index), tmp_path)
    first, second = package_index.seen
    assert second.at - first.at >= 0.9


def test_a_stall_is_an_error_and_keeps_what_came(
    package_index: PackageIndex, fetcher: Fetcher, tmp_path: Path
) -> None:
    package_index.fault("big", Fault(stall_after=100_000))
    with pytest.raises(DownloadStalled, match=r"no byte for 0\.5 s") as caught:
        fetcher.fetch(artefact(package_index), tmp_path)
    assert caught.value.exit_code == 5
    kept = (tmp_path / BIG.sha256).read_bytes()
    assert kept
    assert BIG.data.startswith(kept)


def test_a_stall_that_passes_is_continued(package_index: PackageIndex, fetcher: Fetcher, tmp_path: Path) -> None:
    package_index.fault("big", Fault(stall_after=100_000, times=1))
    assert fetcher.fetch(artefact(package_index), tmp_path).read_bytes() == BIG.data


def test_a_dead_server_is_an_error(
    start_index: Callable[[], PackageIndex], fetcher: Fetcher, tmp_path: Path
) -> None:
    index = start_index()
    wanted = artefact(index)
    index.stop()
    with pytest.raises(DownloadFailed, match="refused"):
        fetcher.fetch(wanted, tmp_path)


def test_offline_names_what_is_missing_and_asks_nobody(package_index: PackageIndex, tmp_path: Path) -> None:
    with pytest.raises(NotCached, match="big"):
        Fetcher(offline=True).fetch(artefact(package_index), tmp_path)
    assert package_index.total == 0


def test_file_urls_are_copied_also_offline(tmp_path: Path) -> None:
    source = BIG.write(tmp_path / "with space")
    wanted = Artefact(name="big", url=source.as_uri(), sha256=BIG.sha256)
    path = Fetcher(offline=True).fetch(wanted, tmp_path / "partial")
    assert path.read_bytes() == BIG.data
    assert path.stat().st_ino != source.stat().st_ino
    source.unlink()
    path.unlink()
    with pytest.raises(ArtefactGone, match="does not exist"):
        Fetcher().fetch(wanted, tmp_path / "partial")


def test_other_schemes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="only http, https and file"):
        Fetcher().fetch(Artefact(name="x", url="ftp://index.invalid/x.whl", sha256="0" * 64), tmp_path)


def test_a_stopped_download_ends_and_keeps_what_came(
    package_index: PackageIndex, fetcher: Fetcher, tmp_path: Path
) -> None:
    stopped = threading.Event()

    def stop(_: int) -> None:
        if (tmp_path / BIG.sha256).exists():
            stopped.set()

    with pytest.raises(DownloadFailed, match="interrupted"):
        fetcher.fetch(artefact(package_index), tmp_path, advance=stop, stopped=stopped)
    assert (tmp_path / BIG.sha256).exists()


def test_a_full_disk_is_told_and_the_bytes_so_far_stay(
    package_index: PackageIndex, fetcher: Fetcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        if len(data) > 1000 and (tmp_path / BIG.sha256).exists() and os.fstat(descriptor).st_size > 500_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(NoSpace, match=str(tmp_path)):
        fetcher.fetch(artefact(package_index), tmp_path)
    monkeypatch.undo()
    assert fetcher.fetch(artefact(package_index), tmp_path).read_bytes() == BIG.data
