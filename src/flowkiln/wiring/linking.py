"""Link scripts as the settings of one project say: in containers of the image that wheels are built in."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from flowkiln._base import paths
from flowkiln._base.engineerrors import EngineError
from flowkiln._base.errors import concerning
from flowkiln._base.platforms import Platform
from flowkiln.envs.builderrors import NowhereToLink

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowkiln._base.report import Reporter
    from flowkiln._base.settings import Settings
    from flowkiln.images.linkcontainer import LinkJob, LinkRunner
    from flowkiln.images.linking import ContainerLinker
    from flowkiln.wiring.baking import Bakery


def link_scripts(
    settings: Settings,
    reporter: Reporter,
    bakery: Callable[[], Bakery],
    where: Callable[[str, Platform], str],
) -> ContainerLinker:
    """What runs link scripts; ``where`` names the image for a Python and a platform. Nothing is asked before."""
    from flowkiln.envs.describing import Describer
    from flowkiln.images.linking import ContainerLinker, Means
    from flowkiln.images.wheelshelf import LinkedShelf
    from flowkiln.wiring.baking import team_shelf
    from flowkiln.wiring.trees import Host

    cache = paths.cache_root()
    return ContainerLinker(
        Means(
            cache=cache,
            describer=Describer(cache, Host(settings, reporter).fetcher),
            runner=partial(_runner, settings, reporter, bakery),
            where=where,
            shelf=lambda: team_shelf(LinkedShelf, settings, reporter, bakery),
            reporter=reporter,
        )
    )


def _runner(settings: Settings, reporter: Reporter, bakery: Callable[[], Bakery], platform: Platform) -> LinkRunner:
    if settings.text("build.where") == "never":
        message = 'link scripts have to run, and the setting build.where = "never" forbids it'
        raise NowhereToLink(message, hint="Allow it, or take builds of the packages that have no link script.")
    try:
        engine = bakery().engine
        native = Platform.parse(engine.platform)
    except EngineError as error:
        message = f"link scripts have to run, and no container engine answers to run them for {platform}"
        raise NowhereToLink(f"{message}: {error.message}") from error
    if native != platform:
        message = f"link scripts have to run on {platform}, and the container engine here is of {native}"
        hint = f"Lock on a machine with a container engine of {platform}, with images.repository set."
        raise NowhereToLink(message, hint=hint)
    from flowkiln.images.linkcontainer import LinkRunner

    return LinkRunner(
        engine,
        partial(_image_of, bakery()),
        seconds=float(settings.count("build.timeout") or 1800),
        network=settings.flag("build.network"),
        say=reporter.say,
    )


def _image_of(bakery: Bakery, job: LinkJob, where: str) -> str:
    """The image that scripts run in, in the engine: an environment without packages on the image ``where``."""
    from flowkiln.envs.lock import EnvLock, PlatformLock
    from flowkiln.images import plan
    from flowkiln.wiring.containers import local_images

    with concerning(what=f"the image that link scripts run in, {where}", named=where):
        pin = bakery.bases.pin(where, job.platform, python=job.python)
        part = PlatformLock(platform=job.platform, python=job.python, wheels=())
        lock = EnvLock(name="link-scripts", spec_id="", python=job.python, platforms=(part,))
        made = plan.plan(lock.name, lock.lock_id, part, pin, bakery.runtime_id)
        return local_images(bakery).put(made).id
