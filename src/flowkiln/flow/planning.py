"""From a flow's graph to the plan that the executor runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from flowkiln.executor.plan import RunPlan, StepPlan
from flowkiln.flow import containers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowkiln.executor.plan import ImageRef, Prefix
    from flowkiln.flow.graph import Graph, Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a run was started with, apart from its parameters."""

    user_folder: str
    max_workers: int
    max_splits: int
    isolation: Literal["auto", "fork", "spawn"] = "auto"
    verify: Literal["auto", "digest", "stat", "full"] = "auto"
    tags: tuple[str, ...] = ()
    local: bool = True
    """Whether retries follow each other at once, as they do on this machine."""


def plan(
    graph: Graph,
    prefixes: Mapping[str, Prefix],
    images: Mapping[str, ImageRef] | None = None,
    *,
    script: str,
    code: str,
    options: Options,
) -> RunPlan:
    """The plan of a sound graph. ``prefixes`` has one for each step; ``script`` is the flow file in ``code``.

    ``images`` has one for each step that runs in a container.
    """
    inside = graph.frames()
    steps = []
    for name in graph.order():
        parents = graph.parents(name)
        closes = graph.edge(parents[0], name, inside)[-1].step if graph.nodes[name].joins else None
        step = _step(graph, graph.nodes[name], prefixes[name], parents, closes, local=options.local)
        image = (images or {}).get(name)
        if image is not None:
            step = replace(step, image=image, container=containers.settings(graph.nodes[name]))
        steps.append(step)
    return RunPlan(
        flow=graph.flow,
        steps=tuple(steps),
        script=script,
        code=code,
        user_folder=options.user_folder,
        max_workers=options.max_workers,
        max_splits=options.max_splits,
        isolation=options.isolation,
        verify=options.verify,
        tags=options.tags,
    )


def _step(
    graph: Graph, node: Node, prefix: Prefix, parents: tuple[str, ...], closes: str | None, *, local: bool
) -> StepPlan:
    used = {decorator.name: decorator.arguments for decorator in node.decorators}
    retry, catch, timeout = used.get("retry"), used.get("catch"), used.get("timeout")
    variables = used.get("environment", {}).get("vars") or {}
    resources = used.get("resources", {})
    return StepPlan(
        name=node.name,
        kind=graph.kind(node.name),
        prefix=prefix,
        targets=node.targets,
        parents=parents,
        foreach=node.foreach,
        closes=closes,
        retries=retry["times"] if retry else 0,
        retry_delay=60.0 * retry["minutes_between_retries"] if retry and not local else 0.0,
        catch=catch is not None,
        catch_var=catch["var"] if catch else None,
        catch_print=catch["print_exception"] if catch else True,
        timeout=_seconds(timeout) if timeout else None,
        environ=tuple(sorted(variables.items())),
        resources=tuple(sorted((key, float(value)) for key, value in resources.items() if value is not None)),
    )


def _seconds(timeout: Mapping[str, float]) -> float:
    return timeout["seconds"] + 60.0 * timeout["minutes"] + 3600.0 * timeout["hours"]
