"""What one member of a team has baked, nobody bakes again: not a byte of a package moves."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from flowkiln._base import digests
from flowkiln.envs.installerrors import DownloadFailed
from flowkiln.images import entries, oci
from flowkiln.images.decompress import decompressed
from flowkiln.images.errors import CompilerMissing, LayerDiffers
from flowkiln.images.registryerrors import RegistryFailed
from tests.images.team import Machine, fresh, large, push_base, small
from tests.services.registry import Fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flowkiln.images.layers import LayerSpec
    from flowkiln.images.plan import ImagePlan
    from tests.images.registries import Clients
    from tests.services.index import PackageIndex
    from tests.services.registry import FakeRegistry

    Join = Callable[..., Machine]

ALPHA, BETA, GAMMA = large("alpha"), large("beta"), large("gamma")
TINY = small("tiny")


@pytest.fixture
def index(start_index: Callable[[], PackageIndex]) -> PackageIndex:
    found = start_index()
    for one in (ALPHA, BETA, GAMMA, TINY):
        found.add(one)
    return found


@pytest.fixture
def join(fake_registry: FakeRegistry, clients: Clients, tmp_path: Path) -> Join:
    """Makes machines with empty caches, all of one team."""
    registry = clients(fake_registry.host, retries=1).registry
    base = push_base(registry, "base")

    def make(name: str, repository: str = "team/images", **more: Any) -> Machine:
        return Machine(tmp_path / name, registry, base, repository, **more)

    return make


def uploaded(registry: FakeRegistry, repository: str, tag: str) -> dict[str, int]:
    """Layers that were uploaded for an image, by the title in its history, with their bytes."""
    data = registry.state.manifests[repository][registry.state.tags[repository][tag]][1]
    document = json.loads(data)
    config = json.loads(registry.state.blobs[repository][document["config"]["digest"]])
    titles = [one.get("created_by", "") for one in config["history"]]
    layers = document["layers"][-len(titles) :]
    received = registry.received
    return {
        title.removeprefix("flowkiln: "): one["size"]
        for title, one in zip(titles, layers, strict=True)
        if one["digest"] in received
    }


def test_known_packages_in_a_new_combination_move_no_bytes(
    join: Join, index: PackageIndex, fake_registry: FakeRegistry
) -> None:
    first = join("first")
    one, other = first.plan(index, [ALPHA, BETA, TINY]), first.plan(index, [GAMMA, TINY], name="other")
    for plan in (one, other):
        assert first.publisher().push(plan).built
    expected = first.plan(index, [ALPHA, GAMMA, TINY], name="new")
    again = first.publisher().push(expected)
    index.stop()
    fake_registry.state.tags["team/images"].pop(expected.tag)
    second = join("second")
    plan = second.plan(index, [ALPHA, GAMMA, TINY], name="new")
    fake_registry.forget_requests()
    pushed = second.publisher().push(plan)
    assert (pushed.reference, pushed.config) == (again.reference, again.config)
    assert pushed.tree_digest == again.tree_digest
    assert second.wheels() == []
    assert uploaded(fake_registry, "team/images", plan.tag) == {}  # the glue and the config were there too
    assert second.reporter.warnings == []


def test_only_what_is_new_is_uploaded_and_it_is_a_few_kilobytes(
    join: Join, index: PackageIndex, fake_registry: FakeRegistry
) -> None:
    first = join("first")
    for packages, name in (([ALPHA, BETA], "one"), ([GAMMA], "two")):
        first.publisher().push(first.plan(index, packages, name=name))
    index.stop()
    second = join("second")
    plan = second.plan(index, [ALPHA, GAMMA])
    fake_registry.forget_requests()
    pushed = second.publisher().push(plan)
    assert pushed.built
    assert set(uploaded(fake_registry, "team/images", plan.tag)) == {"environment"}
    assert sum(fake_registry.received.values()) == pushed.moved < 10_000
    glue = plan.layers[-1]
    tar = second.baker.blobs.find(*dict(second.baker.records.layer(glue.key).blobs)["gzip"])  # type: ignore[union-attr]
    assert tar is not None
    data = b"".join(decompressed([tar.read_bytes()]))
    assert b"print('a script')" in data
    assert b"from gamma import main" in data


def test_the_image_is_the_one_that_a_machine_without_catalog_makes(join: Join, index: PackageIndex) -> None:
    join("first").publisher().push(join("first").plan(index, [ALPHA, GAMMA, TINY]))
    alone = join("alone", "elsewhere/images")
    plan = alone.plan(index, [TINY, GAMMA, ALPHA], name="new")
    made = alone.publisher().push(plan)
    index.stop()
    pushed = join("second").publisher().push(plan)
    assert pushed.reference.version == made.reference.version
    assert pushed.moved < made.moved


def test_one_new_package_is_all_that_is_downloaded(
    join: Join, index: PackageIndex, fake_registry: FakeRegistry
) -> None:
    join("first").publisher().push(join("first").plan(index, [ALPHA, BETA, TINY]))
    second = join("second")
    plan = second.plan(index, [ALPHA, GAMMA, TINY])
    fake_registry.forget_requests()
    second.publisher().push(plan)
    assert second.wheels() == [GAMMA.sha256]
    assert set(uploaded(fake_registry, "team/images", plan.tag)) == {
        "gamma 1.0",
        "bytecode of gamma 1.0",
        "environment",
    }
    index.stop()
    third = join("third")  # the second machine has told the catalog of gamma
    assert third.publisher().push(third.plan(index, [GAMMA, BETA], name="third")).built
    assert third.wheels() == []


def test_layers_are_mounted_from_the_teams_repository(
    join: Join, index: PackageIndex, fake_registry: FakeRegistry
) -> None:
    join("first").publisher().push(join("first").plan(index, [ALPHA, TINY]))
    index.stop()
    second = join("second", "own/images")
    plan = second.plan(index, [TINY, ALPHA], name="mine")
    fake_registry.forget_requests()
    pushed = second.publisher("team/images").push(plan)
    assert second.wheels() == []
    assert set(uploaded(fake_registry, "own/images", plan.tag)) <= {"environment"}
    assert pushed.moved < 10_000
    third = join("third", "own/images")  # what was mounted is in the catalog of that repository as well
    assert third.publisher().push(third.plan(index, [ALPHA, TINY], name="again")).moved < 10_000


def test_forms_of_compression_have_entries_of_their_own(join: Join, index: PackageIndex) -> None:
    join("first").publisher().push(join("first").plan(index, [ALPHA]))
    second = join("second", compression="zstd")
    plan = second.plan(index, [ALPHA])
    assert second.catalog().fetch(plan.layers) == {}
    second.publisher().push(plan)
    found = second.catalog().fetch(plan.layers)
    assert {layer.kind for layer in plan.layers if layer.key not in found} == {"glue"}
    assert join("third").catalog().fetch(plan.layers).keys() == found.keys()


def test_bytecode_comes_from_the_catalog_where_its_compiler_is_missing(join: Join, index: PackageIndex) -> None:
    first = join("first")
    made = first.publisher().push(first.plan(index, [ALPHA]))
    second = join("second", compiles=False)
    plan = second.plan(index, [ALPHA, BETA])
    with pytest.raises(CompilerMissing):
        second.publisher().push(plan)
    assert second.publisher().push(second.plan(index, [ALPHA])).reference == made.reference
    local = join("local", compiles=False, team="team/images")
    baked = local.baker.bake(plan := local.plan(index, [ALPHA]), None)
    kinds = [one.spec.kind for one in baked.layers]
    assert kinds.count("bytecode") == kinds.count("stdlib-bytecode") == kinds.count("runtime-bytecode") == 1
    for one in baked.layers:
        parts: list[bytes] = []
        local.baker.open(plan, one, parts.append)
        assert digests.of_bytes(b"".join(parts)) == one.record.diff_id


def test_a_catalog_that_does_not_answer_is_no_empty_catalog(
    join: Join, index: PackageIndex, fake_registry: FakeRegistry
) -> None:
    second = join("second")
    plan = second.plan(index, [ALPHA])
    fake_registry.fault("manifest", Fault(status=500), method="GET")
    with pytest.raises(RegistryFailed):
        second.catalog().fetch(plan.layers)


def test_a_catalog_that_cannot_be_written_is_a_warning(
    join: Join, index: PackageIndex, fake_registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = join("first")
    publisher = first.publisher()

    remember = publisher._remember

    def pushed(*about: Any) -> None:
        remember(*about)
        fake_registry.fault("manifest", Fault(status=403, code="DENIED"), method="PUT")

    monkeypatch.setattr(publisher, "_remember", pushed)
    assert publisher.push(first.plan(index, [ALPHA])).built
    assert len(first.reporter.warnings) == 1
    assert "catalog in" in first.reporter.warnings[0]


# -- what stands in the catalog is not believed ----------------------------------------------------------------


def packages(plan: ImagePlan) -> LayerSpec:
    return next(layer for layer in plan.layers if layer.kind == "packages")


def rewrite(registry: FakeRegistry, tag: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Puts another manifest under a tag, with its blobs."""
    repository = "team/images"
    document = json.loads(registry.state.manifests[repository][registry.state.tags[repository][tag]][1])
    change(document)
    registry.add_manifest(repository, oci.MANIFEST, json.dumps(document).encode(), tag=tag)


def config_of(document: dict[str, Any], **changes: Any) -> None:
    config = json.loads(base64.b64decode(document["config"]["data"])) | changes
    data = json.dumps(config).encode()
    document["config"] |= {"digest": digests.of_bytes(data), "size": len(data)}
    document["config"]["data"] = base64.b64encode(data).decode()


DAMAGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "another key": lambda one: config_of(one, key="sha256:" + 64 * "0"),
    "no digest": lambda one: config_of(one, diff_id="sha256:nothing"),
    "a negative size": lambda one: config_of(one, size=-1),
    "a size that is none": lambda one: config_of(one, size="10"),
    "a config of other bytes": lambda one: one["config"].update(digest="sha256:" + 64 * "0"),
    "another type": lambda one: one["config"].update(mediaType=oci.CONFIG),
    "a layer in another form": lambda one: one["layers"][0].update(mediaType=oci.LAYER_ZSTD),
    "no layer": lambda one: one.update(layers=[]),
    "no descriptions": lambda one: one["layers"].pop(),
    "descriptions that are not there": lambda one: one["layers"][1].update(digest="sha256:" + 64 * "0"),
    "descriptions without end": lambda one: one["layers"][1].update(size=1 << 40),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_entry_that_is_not_sound_is_as_good_as_none(
    damage: str, join: Join, index: PackageIndex, fake_registry: FakeRegistry
) -> None:
    first = join("first")
    plan = first.plan(index, [ALPHA])
    made = first.publisher().push(plan)
    layer, tag = packages(plan), first.catalog().tag_of(packages(plan))
    before = fake_registry.state.tags["team/images"][tag]
    rewrite(fake_registry, tag, DAMAGES[damage])
    fake_registry.state.tags["team/images"].pop(plan.tag)
    second = join("second")
    assert layer.key not in second.catalog().fetch([layer])
    assert second.publisher().push(plan).reference == made.reference
    assert any(tag in warning for warning in second.reporter.warnings)
    assert second.wheels() == [ALPHA.sha256]
    assert fake_registry.state.tags["team/images"][tag] == before  # and it is whole again


def test_an_entry_of_a_later_version_stays(join: Join, index: PackageIndex, fake_registry: FakeRegistry) -> None:
    first = join("first")
    plan = first.plan(index, [ALPHA])
    first.publisher().push(plan)
    tag = first.catalog().tag_of(packages(plan))
    rewrite(fake_registry, tag, lambda one: config_of(one, schema=entries.SCHEMA + 1))
    theirs = fake_registry.state.tags["team/images"].pop(plan.tag), fake_registry.state.tags["team/images"][tag]
    second = join("second")
    second.publisher().push(plan)
    assert second.reporter.warnings == []
    assert fake_registry.state.tags["team/images"][tag] == theirs[1]


def test_a_layer_that_is_made_here_has_to_be_the_one_of_the_catalog(
    join: Join, index: PackageIndex, fake_registry: FakeRegistry
) -> None:
    first = join("first")
    plan = first.plan(index, [ALPHA])
    first.publisher().push(plan)
    layer = packages(plan)
    rewrite(
        fake_registry,
        first.catalog().tag_of(layer),
        lambda one: config_of(one, diff_id="sha256:" + 64 * "1"),
    )
    fake_registry.state.tags["team/images"].pop(plan.tag)
    fake_registry.state.blobs["own/images"] = {}
    second = join("second", "own/images")
    fake_registry.mounts = False
    with pytest.raises(LayerDiffers, match=r"alpha 1\.0"):
        second.publisher("team/images").push(plan)


@pytest.mark.parametrize("what", ["sha256", "name", "path", "script", "count", "hash"])
def test_descriptions_have_to_be_of_the_wheels_of_the_lock(
    what: str, join: Join, index: PackageIndex, fake_registry: FakeRegistry
) -> None:
    first = join("first")
    plan = first.plan(index, [ALPHA])
    first.publisher().push(plan)
    layer = packages(plan)
    tag = first.catalog().tag_of(layer)

    def change(document: dict[str, Any]) -> None:
        blobs = fake_registry.state.blobs["team/images"]
        told = json.loads(b"".join(decompressed([blobs[document["layers"][1]["digest"]]])))
        (row,) = told["wheels"]
        file = row["wheel"]["files"][0]
        changes: dict[str, Callable[[], object]] = {
            "sha256": lambda: row["wheel"].update(sha256="0" * 64),
            "name": lambda: row["wheel"].update(name="other"),
            "path": lambda: file.__setitem__(1, "../../../etc/passwd"),
            "script": lambda: row.update(scripts={"alpha-1.0.data/scripts/alpha-script": "IyE="}),
            "count": lambda: told.update(wheels=[row, row]),
            "hash": lambda: file.__setitem__(4, "0"),
        }
        changes[what]()
        data = json.dumps(told).encode()  # uncompressed is understood as well
        document["layers"][1] |= {"digest": fake_registry.add_blob("team/images", data), "size": len(data)}

    rewrite(fake_registry, tag, change)
    second = join("second")
    assert second.catalog().fetch([layer]) == {}
    assert len(second.reporter.warnings) == 1


# -- a real registry -------------------------------------------------------------------------------------------


@pytest.mark.e2e
def test_a_real_registry_keeps_the_catalog(
    plain_registry: Any, clients: Clients, index: PackageIndex, tmp_path: Path
) -> None:
    registry = clients(plain_registry.address).registry
    repository = fresh("catalog-tests")
    base = push_base(registry, f"{repository}/base")
    first = Machine(tmp_path / "first", registry, base, repository)
    for members, name in (([ALPHA, TINY], "one"), ([GAMMA, TINY], "two")):
        first.publisher().push(first.plan(index, members, name=name))
    index.stop()
    second = Machine(tmp_path / "second", registry, base, repository)
    plan = second.plan(index, [ALPHA, GAMMA, TINY], name="new")
    pushed = second.publisher().push(plan)
    assert second.wheels() == []
    assert pushed.moved < 10_000
    assert registry.exists(repository, plan.tag) == pushed.reference.version
    empty = [layer for layer in plan.layers if layer.title == "bytecode of tiny 1.0"]
    assert [entry.record.empty for entry in second.catalog().fetch(empty).values()] == [True]
    elsewhere = Machine(tmp_path / "third", registry, base, f"{repository}/own")
    mounted = elsewhere.publisher(repository).push(plan)
    assert mounted.reference.version == pushed.reference.version
    assert (mounted.moved < 10_000, elsewhere.wheels()) == (True, [])


def test_without_catalog_the_index_is_needed(join: Join, index: PackageIndex) -> None:
    second = join("second")
    plan = second.plan(index, [ALPHA])
    index.stop()
    with pytest.raises(DownloadFailed):
        second.publisher().push(plan)
