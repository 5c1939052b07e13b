"""Cutting: which layers there are, and what moves a key."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from flowkiln.envs.lock import LockedWheel
from flowkiln.images import layers
from tests.images.made import MIB, part, plan, wheel

NAMES = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
SIZES = st.one_of(st.none(), st.integers(0, 3 * MIB))


def keys(*wheels_and_sizes: tuple[str, int | None]) -> set[str]:
    return {layer.key for layer in layers.cut(part(*(wheel(name, size) for name, size in wheels_and_sizes)))}


def test_a_large_package_is_alone_and_small_ones_share() -> None:
    found = layers.cut(part(wheel("pandas", 12 * MIB), wheel("numpy", 18 * MIB), wheel("six"), wheel("idna")))
    assert [one.title for one in found[:2]] == ["numpy 1.0", "pandas 1.0"]
    assert {one.name for layer in found[2:] for one in layer.wheels} == {"six", "idna"}


@given(st.dictionaries(NAMES, SIZES, max_size=120))
@settings(max_examples=60, deadline=None)
def test_every_wheel_lies_in_one_layer_and_there_are_never_too_many(sizes: dict[str, int | None]) -> None:
    one = part(*(wheel(name, size) for name, size in sizes.items()))
    found = layers.cut(one)
    assert sorted(each.name for layer in found for each in layer.wheels) == sorted(sizes)
    assert 2 * len(found) <= layers.MOST
    assert len({layer.key for layer in found}) == len(found)


@given(st.dictionaries(NAMES, SIZES, min_size=1, max_size=20), st.data())
@settings(max_examples=60, deadline=None)
def test_order_of_the_lock_decides_nothing(sizes: dict[str, int | None], data: st.DataObject) -> None:
    rows = list(sizes.items())
    assert keys(*rows) == keys(*data.draw(st.permutations(rows)))


def test_one_version_moves_one_layer_and_its_bytecode() -> None:
    before = plan(part(wheel("numpy", 18 * MIB), wheel("pandas", 12 * MIB), wheel("six")))
    after = plan(part(wheel("numpy", 18 * MIB), wheel("pandas", 12 * MIB, "1.1"), wheel("six")))
    moved = {one.key for one in after.layers} - {one.key for one in before.layers}
    titles = [one.title for one in after.layers if one.key in moved]
    assert titles == ["pandas 1.1", "bytecode of pandas 1.1", "environment"]


def test_environments_share_the_layers_of_equal_packages() -> None:
    one = keys(("numpy", 18 * MIB), ("pandas", 12 * MIB))
    other = keys(("numpy", 18 * MIB), ("scipy", 30 * MIB))
    assert len(one & other) == 1


def test_a_winner_moves_the_loser_and_nobody_else() -> None:
    wheels = (wheel("alpha", 2 * MIB), wheel("beta", 2 * MIB), wheel("gamma", 2 * MIB))
    first = layers.cut(part(*wheels, winners=(("lib/x.py", "alpha"),)))
    other = layers.cut(part(*wheels, winners=(("lib/x.py", "beta"),)))
    assert {layer.title: layer.without for layer in first}["beta 1.0"] == ("lib/x.py",)
    moved = {a.title for a, b in zip(first, other, strict=True) if a.key != b.key}
    assert moved == {"alpha 1.0", "beta 1.0"}


def test_a_winner_inside_a_shared_layer_moves_its_key() -> None:
    names = [name for name in (f"pack{number}" for number in range(60)) if layers.bucket_of(name) == 0][:2]
    one, other = names
    wheels = (wheel(one), wheel(other))
    assert keys_of(wheels, one) != keys_of(wheels, other)


def keys_of(wheels: tuple[LockedWheel, ...], winner: str) -> list[str]:
    return [layer.key for layer in layers.cut(part(*wheels, winners=(("lib/x.py", winner),)))]


def test_bytecode_is_a_layer_beside_each_only_where_it_was_decided() -> None:
    one = part(wheel("numpy", 18 * MIB))
    kinds = [layer.kind for layer in plan(one).layers]
    assert kinds == ["stdlib-bytecode", "runtime", "runtime-bytecode", "packages", "bytecode", "glue"]
    base = replace(plan(one).base, bytecode=None)
    assert [layer.kind for layer in plan(one, base).layers] == ["runtime", "packages", "glue"]


def test_the_compiler_moves_bytecode_alone() -> None:
    one = part(wheel("numpy", 18 * MIB))
    first, other = plan(one), plan(one, replace(plan(one).base, bytecode="3.11.9"))
    moved = [a.kind for a, b in zip(first.layers, other.layers, strict=True) if a.key != b.key]
    assert moved == ["stdlib-bytecode", "runtime-bytecode", "bytecode"]
