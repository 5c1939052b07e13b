from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from flowkiln._base.report import Silent
from flowkiln.envs.fetch import Fetcher, Network
from flowkiln.envs.gathering import Gatherer
from flowkiln.envs.installerrors import ArtefactGone, NotCached, WrongHash
from flowkiln.envs.wheelstore import WheelStore
from tests.envs.made import locked
from tests.services.index import Fault
from tests.services.wheels import wheel

if TYPE_CHECKING:
    from tests.services.home import Home
    from tests.services.index import PackageIndex

WHEELS = [wheel(f"pkg{number}", files={f"pkg{number}/data": bytes([number]) * 50_000}) for number in range(12)]


class Telling(Silent):
    """Adds up the progress."""

    def __init__(self) -> None:
        self.done = 0
        self.total: int | None = None
        self.warned: list[str] = []

    def phase(self, name: str, *, total: int | None = None, unit: str = "") -> Silent:
        self.total = total
        return self

    def advance(self, amount: int = 1, *, item: str = "") -> None:
        self.done += amount

    def warn(self, text: str) -> None:
        self.warned.append(text)


def gatherer(home: Home, fetcher: Fetcher | None = None) -> Gatherer:
    return Gatherer(
        WheelStore(home.cache), home.cache, fetcher or Fetcher(Network(stall=2.0), backoff=0.01, retries=2)
    )


def test_all_are_fetched_once_with_progress_in_bytes(package_index: PackageIndex, home: Home) -> None:
    package_index.add(*WHEELS)
    locks = [locked(one, package_index.base) for one in WHEELS]
    telling = Telling()
    found = gatherer(home).gather(locks, telling)
    assert [one.name for one in found] == [one.name for one in locks]
    assert telling.done == telling.total == sum(one.size for one in WHEELS)
    assert package_index.total == len(WHEELS)
    assert gatherer(home).gather(locks, telling) == found
    assert package_index.total == len(WHEELS)
    assert list((home.cache / "partial").iterdir()) == []


def test_the_first_error_is_raised_and_the_finished_are_kept(package_index: PackageIndex, home: Home) -> None:
    package_index.add(*WHEELS[:-1])
    locks = [locked(one, package_index.base) for one in WHEELS]
    with pytest.raises(ArtefactGone, match="pkg11"):
        gatherer(home, Fetcher(workers=1)).gather(locks[::-1], Silent())
    package_index.add(WHEELS[-1])
    assert len(gatherer(home).gather(locks, Silent())) == len(WHEELS)


def test_offline_names_everything_that_is_missing(package_index: PackageIndex, home: Home) -> None:
    package_index.add(*WHEELS)
    locks = [locked(one, package_index.base) for one in WHEELS[:3]]
    gatherer(home).gather(locks[:1], Silent())
    package_index.forget_requests()
    with pytest.raises(NotCached) as caught:
        gatherer(home, Fetcher(offline=True)).gather(locks, Silent())
    assert caught.value.data["missing"] == [WHEELS[1].filename, WHEELS[2].filename]
    assert package_index.total == 0
    assert len(gatherer(home, Fetcher(offline=True)).gather(locks[:1], Silent())) == 1


def test_a_damaged_wheel_is_made_anew_when_asked_to_look(package_index: PackageIndex, home: Home) -> None:
    package_index.add(WHEELS[0])
    locks = [locked(WHEELS[0], package_index.base)]
    gatherer(home).gather(locks, Silent())
    stored = WheelStore(home.cache).content(WHEELS[0].sha256) / "pkg0/data"
    stored.chmod(0o644)
    stored.write_bytes(b"changed")
    telling = Telling()
    gatherer(home).gather(locks, telling, verify=True)
    assert stored.read_bytes() == bytes(50_000)
    assert WHEELS[0].filename in telling.warned[0]


def test_credentials_are_looked_up_when_fetching_and_stored_nowhere(
    package_index: PackageIndex, home: Home
) -> None:
    """B03: the lock has none; they come from somewhere else than at lock time."""
    package_index.add(*WHEELS[:2])
    package_index.require("user", "CANARY123")
    asked: list[str] = []

    def credentials(url: str) -> tuple[str, str]:
        asked.append(url)
        return "user", "CANARY123"

    locks = [locked(one, package_index.base) for one in WHEELS[:2]]
    gatherer(home, Fetcher(Network(credentials=credentials))).gather(locks, Silent())
    assert sorted(asked) == sorted(one.url for one in locks)
    for path in home.root.rglob("*"):
        assert not path.is_file() or b"CANARY123" not in path.read_bytes()


def test_a_wrong_hash_ends_the_work(package_index: PackageIndex, home: Home) -> None:
    package_index.add(*WHEELS)
    package_index.fault("pkg3", Fault(corrupt=True))
    locks = [locked(one, package_index.base) for one in WHEELS]
    with pytest.raises(WrongHash, match="pkg3"):
        gatherer(home).gather(locks, Silent())
    assert WheelStore(home.cache).get(WHEELS[3].sha256) is None
