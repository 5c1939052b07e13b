from __future__ import annotations

from flowkiln.executor.shape import regions_of
from tests.executor.plans import Foreach, Line, Split, flow


def test_a_flow_without_foreach_is_one_region() -> None:
    made = flow([Split([[Line()], [Line(), Line()]]), Line()])
    (region,) = regions_of(made.plan)
    assert [node.plan.name for node in region.nodes] == [step.name for step in made.plan.steps]
    assert (region.opener, region.outer) == (None, None)


def test_each_foreach_opens_a_region_and_its_join_lies_outside() -> None:
    regions = regions_of(flow([Foreach(2, [Line(), Foreach(2, [Line()])])]).plan)
    assert [(region.opener, region.outer) for region in regions] == [(None, None), ("s01", 0), ("s03", 1)]
    names = [[node.plan.name for node in region.nodes] for region in regions]
    assert names == [["start", "s01", "s06", "end"], ["s02", "s03", "s05"], ["s04"]]
    inner, outer = regions[2], regions[1]
    assert inner.nodes[inner.tail].leaves == 2
    assert outer.nodes[outer.tail].plan.name == "s05"


def test_branches_of_a_join_keep_the_order_of_the_split() -> None:
    (region,) = regions_of(flow([Split([[Line(), Line()], [Line()], [Split([[Line()], [Line()]])]])]).plan)
    join = next(node for node in region.nodes if node.plan.closes == "s01")
    assert [region.nodes[position].plan.name for position in join.branches] == ["s03", "s04", "s08"]


def test_depth_is_the_longest_way_from_the_start() -> None:
    (region,) = regions_of(flow([Split([[Line(), Line()], [Line()]])]).plan)
    depth = {node.plan.name: node.depth for node in region.nodes}
    assert depth == {"start": 1, "s01": 2, "s02": 3, "s03": 4, "s04": 3, "s05": 5, "end": 6}
