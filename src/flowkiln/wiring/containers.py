"""The images of a run's containers: found where they are, baked where they are missing, named by what they are."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flowkiln._base import paths
from flowkiln._base.engineerrors import ImageMissing
from flowkiln._base.errors import concerning
from flowkiln._base.platforms import Platform
from flowkiln.envs import driver
from flowkiln.executor.plan import ImageRef, Prefix
from flowkiln.images import loading, places, reference
from flowkiln.images.errors import NoImage, NotBaked
from flowkiln.images.local import LocalImages
from flowkiln.images.plan import python_of
from flowkiln.wiring import locks
from flowkiln.wiring.baking import Bakery, Wish, default_base

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowkiln._base.report import Reporter
    from flowkiln._base.settings import Settings
    from flowkiln.envs.basepin import BasePin
    from flowkiln.envs.lock import EnvLock
    from flowkiln.images.local import Placed
    from flowkiln.images.plan import ImagePlan
    from flowkiln.wiring.locks import Request
    from flowkiln.wiring.policy import Policy

_AT_ONCE = 2
"""Images that are baked at once; each uses several threads itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A step that runs in a container: its lock with the request that it answers, if any, and the base it names."""

    lock: EnvLock | None
    request: Request | None
    base: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a step runs in: the prefix inside of its image, the image, and the base that it was baked on."""

    prefix: Prefix
    image: ImageRef
    pin: BasePin | None = None


def prepare(
    steps: Mapping[str, Wanted], settings: Settings, reporter: Reporter, policy: Policy
) -> dict[str, Prepared]:
    """What each step runs in, its image being in the engine.

    Raises the errors of engines, bases, registries and baking, ``NotBaked`` where nothing may be baked.
    """
    with closing(Bakery(settings, reporter)) as bakery:
        return _prepared(bakery, steps, settings, policy)


def _prepared(
    bakery: Bakery, steps: Mapping[str, Wanted], settings: Settings, policy: Policy
) -> dict[str, Prepared]:
    platform = Platform.parse(bakery.engine.platform)
    wishes = {step: _wish(step, one, platform) for step, one in steps.items() if one.lock is not None}
    if settings.text("images.policy") == "never":  # no image of a base that is not pinned can be there
        policy = replace(policy, locked=True)
    pins = bakery.pin(list(dict.fromkeys(wishes.values())), policy)
    plans = {step: bakery.plan(wish, pins[wish]) for step, wish in wishes.items()}
    if not bakery.engine.endpoint.remote:
        for step, plan in plans.items():
            with concerning(step):
                driver.check(plan.part)
    unique = {plan.image_key: (wishes[step], plan) for step, plan in plans.items()}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        done = pool.map(lambda one: _placed(one[0], one[1], bakery, settings), unique.values())
        placed = dict(zip(unique, done, strict=True))
    found = {step: placed[plan.image_key] for step, plan in plans.items()}
    for step, one in steps.items():
        if one.lock is None:
            with concerning(step):
                prefix, image = as_it_is(one.base, bakery, settings)
            found[step] = Prepared(prefix=prefix, image=image)
    return found


def baked(wish: Wish, plan: ImagePlan, bakery: Bakery, settings: Settings) -> tuple[Prefix, ImageRef]:
    """What runs in the image of ``plan``, which is in the engine then. Raises the errors of ``prepare``."""
    one = _placed(wish, plan, bakery, settings)
    return one.prefix, one.image


def _wish(step: str, one: Wanted, platform: Platform) -> Wish:
    assert one.lock is not None
    assert one.request is not None
    folder = locks.standing_folder(one.request.folder)
    return Wish(lock=one.lock, folder=folder, platform=platform, base=one.base, steps=(step,))


def local_images(bakery: Bakery) -> LocalImages:
    """The images of the user's engine."""

    def pull(plan: ImagePlan) -> None:
        bakery.pull(str(reference.parse(plan.base.reference).at(plan.base.manifest)), plan.base)

    return LocalImages(
        bakery.engine,
        bakery.baker,
        bakery.bases,
        bakery.registries,
        pull,
        reporter=bakery.reporter,
        locks=paths.cache_root() / "locks" / "images",
    )


def _placed(wish: Wish, plan: ImagePlan, bakery: Bakery, settings: Settings) -> Prepared:
    """The image of ``plan`` in the engine: there already, or pulled from the team's repository, or baked."""
    with wish.concerning():
        images = local_images(bakery)
        found = images.find(plan)
        if found is None and settings.text("images.repository"):
            pulled = _pulled(bakery, plan)
            if pulled is not None:
                return pulled
        if found is None:
            if settings.text("images.policy") == "never":
                raise _not_baked(wish)
            found = images.put(plan)
            bakery.missing(plan)
        return _ready(plan, found)


def _not_baked(wish: Wish) -> NotBaked:
    message = f"the image of environment {wish.lock.name!r} is neither in the engine nor in a repository"
    folder = os.path.relpath(wish.folder.path)
    hint = f"`flowkiln env bake {folder} --push` bakes it where images.policy allows that."
    return NotBaked(f"{message}, and images.policy is never", hint=hint)


def _ready(plan: ImagePlan, found: Placed) -> Prepared:
    image = ImageRef(
        reference=found.reference,
        config=found.config,
        ids=tuple(dict.fromkeys((found.id, found.config))),
        base=_base(plan),
    )
    return Prepared(prefix=_prefix(plan, found.tree_digest), image=image, pin=plan.base)


def _pulled(bakery: Bakery, plan: ImagePlan) -> Prepared | None:
    """The image as the team's repository has it, pulled by its digest; None where it has none."""
    publisher = bakery.publisher()
    found = publisher.find(plan)
    if found is None:
        return None
    if publisher.compression == "zstd" and not loading.reads_zstd(bakery.engine):
        version = bakery.engine.version().get("Version")
        bakery.reporter.say(f"engine {version} cannot read zstd: {plan.name} is not pulled but baked for it")
        return None
    name = str(publisher.repository.at(found.digest))
    try:
        bakery.pull(name, plan.base)
    except ImageMissing:  # the record of a push is older than what became of the image
        publisher.forget(plan)
        return None
    bakery.baker.records.use_image(plan.image_key)
    image = ImageRef(
        reference=name,
        config=found.config,
        ids=(found.digest, found.config),
        digest=found.digest,
        base=_base(plan),
    )
    return Prepared(prefix=_prefix(plan, found.tree_digest), image=image, pin=plan.base)


def _base(plan: ImagePlan) -> str:
    return f"{plan.base.reference}@{plan.base.manifest}"


def _prefix(plan: ImagePlan, tree_digest: str) -> Prefix:
    return Prefix(
        python=f"{places.PREFIX}/bin/python",
        version=python_of(plan.part, plan.base)[1],
        platform=str(plan.part.platform),
        root=places.PREFIX,
        name=plan.name,
        env_id=plan.part.env_id,
        lock_id=plan.lock_id,
        tree_digest=tree_digest,
    )


def as_it_is(base: str | None, bakery: Bakery, settings: Settings) -> tuple[Prefix, ImageRef]:
    """A step without an environment: it runs in the image as it is, by its id, so that all tasks have the same."""
    platform = bakery.engine.platform
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    name = base or default_base(settings, python)
    found = bakery.engine.image(name)
    if found is None:
        where = reference.parse(name)
        bakery.engine.pull(name, platform=platform, auth=bakery.registries.login(where.host))
        found = bakery.engine.image(name)
    if found is None:
        message = f"the engine has no image {name}, and pulling it did not bring one"
        raise NoImage(message, hint="Name an image that the engine has or can pull: @docker(image=...).")
    digests = [str(text).partition("@")[2] for text in found.get("RepoDigests") or ()]
    image = ImageRef(
        reference=str(found["Id"]),
        ids=(str(found["Id"]),),
        digest=digests[0] if digests else None,
        base=name,
        baked=False,
    )
    return Prefix(python="python3", version="", platform=platform), image
