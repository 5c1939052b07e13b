"""The image key: each input moves it, nothing else does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowkiln.images import plan as plans
from tests.images.made import MIB, digest, part, pin, plan, wheel

ONE = part(wheel("numpy", 18 * MIB), wheel("six"))


def test_the_same_inputs_give_the_same_key_and_a_tag_that_registries_take() -> None:
    assert plan(ONE).image_key == plan(replace(ONE)).image_key
    assert plan(ONE).tag == "fk-" + plan(ONE).image_key[7:]
    assert len(plan(ONE).tag) <= 128


@pytest.mark.parametrize(
    "changed",
    [
        plan(part(wheel("numpy", 18 * MIB), wheel("six", version="2"))),
        plan(ONE, pin(manifest="another base")),
        plan(ONE, pin(bytecode=None)),
        plan(ONE, runtime="s" * 32),
        plans.plan("fit", digest("another lock"), ONE, pin(), "r" * 32),
    ],
    ids=["package", "base", "bytecode", "runtime", "lock"],
)
def test_each_input_moves_the_key(changed: plans.ImagePlan) -> None:
    assert changed.image_key != plan(ONE).image_key


def test_names_and_references_do_not_move_the_key() -> None:
    renamed = plans.plan("train", digest("lock"), ONE, pin("registry.example.org/python:3.11"), "r" * 32)
    assert renamed.image_key == plan(ONE).image_key
    assert renamed.layers == plan(ONE).layers
