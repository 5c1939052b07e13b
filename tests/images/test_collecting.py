"""Freeing what flowkiln left in an engine, on real engines: ours goes, and nothing of anybody else's."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flowkiln._base import digests
from flowkiln._base.endpoints import Endpoint
from flowkiln._base.engine import Engine
from flowkiln._base.files import write_atomic
from flowkiln.envs.collect import DAY, Collector, Entry, Item, Plan, Policy
from flowkiln.images.collecting import EngineGarbage
from flowkiln.images.records import LayerRecord, Records
from tests.services import tinyimage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests import stack

pytestmark = pytest.mark.e2e
LATER = 40 * DAY


@dataclass
class Place:
    """An engine with images and containers of one test, which go afterwards, and a cache of its own."""

    engine: Engine
    cache: Path
    made: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)

    def image(self, *names: str, key: str = "", layer: bytes = b"", **labels: str) -> str:
        """The key of an image of ours; ``{key}`` in its names stands for its digits."""
        key = key or f"sha256:{os.urandom(32).hex()}"
        layer = layer or tinyimage.layer(key)
        for name in names or ("flowkiln:fk-{key}",):
            self.made.append(name.format(key=key.removeprefix("sha256:")))
            told = {"io.flowkiln.image-key": key, **labels}
            tinyimage.load_plain(self.engine, self.made[-1], layer, labels=told)
        return key

    def container(self, image: str, labels: dict[str, str] | None = None, *, start: bool = True) -> str:
        name = f"collecting-tests-{os.urandom(6).hex()}"
        about = {f"io.flowkiln.{name}": value for name, value in (labels or {}).items()}
        spec = {"Image": image, "Cmd": ["/bin/true"], "Labels": about, "HostConfig": {"NetworkMode": "none"}}
        self.started.append(self.engine.create(name, spec))
        if start:
            self.engine.start(self.started[-1])
            self.engine.wait(self.started[-1])
        return name

    def garbage(self, repository: str | None = None) -> EngineGarbage:
        return EngineGarbage(self.engine, self.cache, repository)

    def plan(self, policy: Policy | None = None, *, after: float = LATER, repository: str | None = None) -> Plan:
        """What would go of this test's, so much later."""
        whole = Collector(self.cache, [self.garbage(repository)]).plan(policy or Policy(), now=time.time() + after)
        mine = {*self.made, *(str(row["Names"][0]).lstrip("/") for row in self._rows())}
        items = tuple(
            one for one in whole.items if str(one.path) in mine or str(one.path).startswith(str(self.cache))
        )
        return Plan(items=items, size=whole.size, freed=whole.freed)

    def collect(self, plan: Plan) -> tuple[list[str], list[str]]:
        done = Collector(self.cache, [self.garbage()]).collect(plan)
        return named(done.removed), named(done.in_use)

    def _rows(self) -> list[dict[str, Any]]:
        return [one for one in self.engine.containers(labels={}) if one["Id"] in self.started]

    def close(self) -> None:
        for one in self.started:
            self.engine.remove(one)
        for one in self.made:
            self.engine.remove_image(one, force=True)
        self.engine.close()


@dataclass
class OnlyThese:
    """A source of some of another's entries."""

    source: EngineGarbage
    names: set[str]

    def entries(self) -> list[Entry]:
        return [one for one in self.source.entries() if str(one.path) in self.names]

    def remove(self, item: Item) -> bool | None:
        return self.source.remove(item)


def named(items: tuple[Item, ...]) -> list[str]:
    return sorted(str(item.path) for item in items)


@pytest.fixture
def place(any_engine: stack.Engine, tmp_path: Path) -> Iterator[Place]:
    made = Place(Engine(Endpoint(any_engine.host, "test")), tmp_path / "cache")
    yield made
    made.close()


def digits(key: str) -> str:
    return key.removeprefix("sha256:")


def test_images_unused_for_long_go_and_those_of_others_stay(place: Place) -> None:
    old, used = place.image(), place.image()
    place.image(f"mine-{os.urandom(4).hex()}:1")  # built on one of ours: the label came along
    both = place.image("flowkiln:fk-{key}")
    place.made.append(f"named-{os.urandom(4).hex()}:1")
    place.engine.tag(place.made[-2], *place.made[-1].split(":"))
    Records(place.cache).use_image(used)
    assert place.plan(after=29 * DAY).items == ()
    os.utime(place.cache / "images" / "used" / f"{digits(used)}.json", (time.time() + 39 * DAY,) * 2)
    plan = place.plan()
    assert named(plan.items) == [f"flowkiln:fk-{digits(old)}"]
    assert place.collect(plan) == ([f"flowkiln:fk-{digits(old)}"], [])
    assert place.engine.image(f"flowkiln:fk-{digits(old)}") is None
    assert place.engine.image(f"flowkiln:fk-{digits(both)}") is not None


def test_an_image_that_a_container_uses_is_kept(place: Place) -> None:
    name = f"flowkiln:fk-{digits(place.image())}"
    plan = place.plan()
    assert named(plan.items) == [name]
    place.container(name)  # somebody's own, without a label of ours
    assert place.plan().items == ()
    assert place.collect(plan) == ([], [name])  # it came after the plan was made: the engine says so
    assert place.engine.image(name) is not None


def test_keep_counts_images_and_a_size_takes_those_used_last_last(place: Place) -> None:
    layers = [tinyimage.layer(os.urandom(8).hex()) for _ in range(3)]
    names = [f"flowkiln:fk-{digits(place.image(layer=one))}" for one in layers]
    records = Records(place.cache)
    for number, (name, layer) in enumerate(zip(names, layers, strict=True)):
        diff_id = digests.of_bytes(layer)
        records.add_layer(LayerRecord(key=digests.of_bytes(layer + b"key"), diff_id=diff_id, size=10_000_000))
        key = name.partition("fk-")[2]
        records.use_image(key)
        then = time.time() + (number + 1) * DAY
        os.utime(place.cache / "images" / "used" / f"{key}.json", (then, then))
    # Others' images in the engine are left out: the engine is shared with other tests.
    mine = OnlyThese(place.garbage(), set(names))
    collector = Collector(place.cache, [mine])
    now = time.time() + 5 * DAY
    assert named(collector.plan(Policy(keep=1), now=now).items) == sorted(names[:2])
    plan = collector.plan(Policy(max_size=21_000_000), now=now)
    assert (named(plan.items), plan.freed) == ([names[0]], 10_000_000)


def test_sizes_are_those_of_our_layers(place: Place) -> None:
    layer = tinyimage.layer(os.urandom(8).hex())
    key = place.image(layer=layer)
    before = {str(one.path): sum(one.blocks.values()) for one in place.garbage().entries()}
    record = LayerRecord(key="sha256:" + 64 * "a", diff_id=digests.of_bytes(layer), size=1234)
    Records(place.cache).add_layer(record)
    after = {str(one.path): sum(one.blocks.values()) for one in place.garbage().entries()}
    name = f"flowkiln:fk-{digits(key)}"
    assert (before[name] > 1_000_000, after[name]) == (True, 1234)


def test_a_load_that_was_killed_leaves_a_name_for_a_day(place: Place) -> None:
    place.image("flowkiln:loading-" + os.urandom(8).hex())
    assert place.plan(after=DAY / 2).items == ()
    assert named(place.plan(after=1.1 * DAY).items) == place.made
    place.collect(place.plan(after=1.1 * DAY))
    assert place.engine.image(place.made[0]) is None


def test_containers_of_ours_that_ended_go_after_a_week(place: Place) -> None:
    name = tinyimage.tiny_image(place.engine)
    labels = {"kind": "task", "run": "r1"}
    ended = place.container(name, labels)
    unstarted = place.container(name, labels, start=False)
    foreign = place.container(name)
    assert named(place.plan(after=DAY * 1.1).items) == [unstarted]
    plan = place.plan(after=DAY * 8)
    assert named(plan.items) == sorted([ended, unstarted])
    assert place.collect(plan) == (sorted([ended, unstarted]), [])
    assert [place.engine.inspect(one) is None for one in (ended, unstarted, foreign)] == [True, True, False]


def test_work_folders_go_when_there_is_no_container_of_their_attempt(place: Place) -> None:
    for attempt in (1, 2):
        write_atomic(place.cache / "docker" / "r1" / f"3-{attempt}" / "task.json", b"{}")
    labels = {"kind": "task", "run": "r1", "task": "3", "attempt": "2"}
    place.container(tinyimage.tiny_image(place.engine), labels)
    assert [one for one in place.plan(after=DAY / 2).items if one.kind == "work"] == []
    plan = place.plan(after=2 * DAY)
    assert named(plan.items) == [str(place.cache / "docker" / "r1" / "3-1")]
    place.collect(plan)
    assert sorted(path.name for path in (place.cache / "docker" / "r1").iterdir()) == ["3-2"]
    blind = Collector(place.cache, [EngineGarbage(None, place.cache)])
    assert blind.plan(Policy(), now=time.time() + 2 * DAY).items == ()  # without an engine nobody knows
    blind.collect(blind.plan(Policy(), now=time.time() + LATER))
    assert not (place.cache / "docker" / "r1").exists()
