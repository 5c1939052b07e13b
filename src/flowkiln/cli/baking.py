"""What ``env bake`` bakes and where to: environments as wishes, destinations as sinks."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from flowkiln._base.platforms import Platform
from flowkiln.cli import environments, targets
from flowkiln.cli.env_bake import DOCKER, LAYOUT, Row, target_of
from flowkiln.cli.errors import BadUsage
from flowkiln.wiring import loading
from flowkiln.wiring.baking import Bakery, Wish, compression_of
from flowkiln.wiring.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from flowkiln._base.settings import Settings
    from flowkiln.cli.env_bake import Sink
    from flowkiln.cli.environments import Environment
    from flowkiln.cli.output import Session
    from flowkiln.images.exporting import Exporter
    from flowkiln.images.local import LocalImages
    from flowkiln.images.plan import ImagePlan
    from flowkiln.images.pushing import Publisher

ANY = Platform("linux", "amd64")
"""Stands in a wish until its platforms are known."""


def policy(speaker: Session) -> Policy:  # noqa: ARG001  every command is given its session
    """What may be done about bases without a pin: in CI nothing."""
    return Policy(locked=bool(os.environ.get("CI")))


def bakery(home: Path, speaker: Session) -> Bakery:
    """What bakes environments that are declared in ``home``."""
    return Bakery(speaker.settings(home), speaker.reporter)


def wishes(envs: Sequence[str], speaker: Session) -> dict[Path, list[Wish]]:
    """What is to be baked, by the folder whose settings hold for it. Raises the errors of locks and targets."""
    found: dict[Path, list[Wish]] = {}
    for text in envs:
        target = targets.parse(text)
        named = _bases_of_flow(target) if isinstance(target, targets.FlowTarget) else {}
        for one in environments.named(text, speaker):
            lock = environments.locked(one, text)
            if one.folder is None:
                message = f"{text} has no lock folder to keep the pin of a base in"
                raise BadUsage(message, hint="Bake the flow or the lock folder that it came from.")
            for base, steps in _bases(one, named, target).items():
                wish = Wish(lock=lock, folder=one.folder, platform=ANY, base=base, steps=steps)
                found.setdefault(one.home, []).append(wish)
    return {home: list(dict.fromkeys(group)) for home, group in found.items()}


def _bases_of_flow(target: targets.FlowTarget) -> dict[str, str | None]:
    """The base that ``@docker`` names for each step of a flow."""
    from flowkiln.flow import checks, containers

    graph = checks.require(loading.load(target.path))
    return {name: containers.base_of(node) for name, node in graph.nodes.items()}


def _bases(
    one: Environment, named: dict[str, str | None], target: targets.Target
) -> dict[str | None, tuple[str, ...]]:
    """The bases that an environment is baked on, each with the steps that have it there."""
    if isinstance(target, targets.FolderTarget) and one.folder is not None:
        pinned: list[str | None] = [
            pin.reference for pin in one.folder.read_bases() if one.name in pin.environments
        ]
        return dict.fromkeys(pinned or [None], one.steps)
    found: dict[str | None, tuple[str, ...]] = {}
    for step in one.steps:
        base = named.get(step)
        found[base] = (*found.get(base, ()), step)
    return found or {None: ()}


def expanded(wishes: Sequence[Wish], chosen: Sequence[Platform], to: str | None, bakery: Bakery) -> list[Wish]:
    """Each wish for every platform that it is baked for: those chosen, else all Linux ones that its lock has.

    A local engine is given its own platform.
    """
    found = []
    for wish in wishes:
        locked = [part.platform for part in wish.lock.platforms if part.platform.os == "linux"]
        own = [Platform.parse(bakery.engine.platform)] if to == DOCKER else locked
        found += [replace(wish, platform=one) for one in chosen or own]
    return found


def sink(bakery: Bakery, settings: Settings, to: str | None, *, rebuild: bool) -> Sink:
    """Where images go, as ``--to`` says; without it the repository of the settings. Raises ``NoRepository``."""
    if to == DOCKER:
        from flowkiln.wiring import containers

        return _Engine(containers.local_images(bakery))
    if to is not None and to.startswith(LAYOUT):
        from flowkiln.images.exporting import Exporter

        compression = compression_of(settings)
        exporter = Exporter(bakery.baker, bakery.bases, bakery.registries, compression=compression)
        return _Layout(exporter, target_of(to))
    if to is not None and "/" not in to:
        message = f"--to {to!r} is neither docker nor oci:FOLDER, nor a repository with its host"
        raise BadUsage(message, hint="Write --to docker, --to oci:images or --to registry.example.com/team/flows.")
    return _Repository(bakery.publisher(to), rebuild=rebuild)


class _Repository:
    """Pushes, with an index of the platforms for people."""

    def __init__(self, publisher: Publisher, *, rebuild: bool) -> None:
        self._publisher = publisher
        self._rebuild = rebuild

    def put(self, wishes: Sequence[tuple[Wish, ImagePlan]]) -> list[Row]:
        pushed = [self._publisher.push(plan, rebuild=self._rebuild) for _, plan in wishes]
        if any(one.built for one in pushed):
            self._publisher.publish_index(pushed[0].plan.name, pushed)
        return [
            Row(
                wish=wish,
                plan=one.plan,
                image=str(one.reference),
                digest=one.reference.version,
                config=one.config,
                sent=one.moved,
                built=one.built,
            )
            for (wish, _), one in zip(wishes, pushed, strict=True)
        ]


class _Engine:
    """Loads into the local engine."""

    def __init__(self, images: LocalImages) -> None:
        self._images = images

    def put(self, wishes: Sequence[tuple[Wish, ImagePlan]]) -> list[Row]:
        rows = []
        for wish, plan in wishes:
            one = self._images.find(plan) or self._images.put(plan)
            rows.append(
                Row(
                    wish=wish,
                    plan=plan,
                    image=one.reference,
                    digest=one.id,
                    config=one.config,
                    sent=one.sent,
                    built=one.built,
                )
            )
        return rows


class _Layout:
    """Writes an OCI layout, in which an environment is named by itself."""

    def __init__(self, exporter: Exporter, target: Path) -> None:
        self._exporter = exporter
        self._target = target

    def put(self, wishes: Sequence[tuple[Wish, ImagePlan]]) -> list[Row]:
        name = wishes[0][1].name
        exported = self._exporter.export([plan for _, plan in wishes], self._target, name)
        return [
            Row(
                wish=wish,
                plan=plan,
                image=f"{LAYOUT}{self._target}:{name}",
                digest=one.digest,
                config=one.config,
                sent=one.size,
                built=True,
            )
            for (wish, plan), one in zip(wishes, exported, strict=True)
        ]
