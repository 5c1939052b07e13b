"""What flowkiln left in a container engine, for garbage collection: images, containers that ended, work folders.

An image is ours when its label is and every name that it has is one that we gave: what somebody built on it, or
named anew, is theirs. One that a container uses, whoever's that is, is kept. Nothing is forced on the engine.
"""

from __future__ import annotations

import contextlib
import re
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from flowkiln._base import files
from flowkiln._base.engineerrors import EngineRefused
from flowkiln.envs.collect import DAY, Entry
from flowkiln.images.loading import LOADING
from flowkiln.images.local import REPOSITORY
from flowkiln.images.manifest import LABEL
from flowkiln.images.records import Records

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from flowkiln._base.json import JSONObject
    from flowkiln.envs.collect import Item

_KEY = f"{LABEL}.image-key"
_KIND = f"{LABEL}.kind"
_ENDED = ("exited", "dead")
_KEPT = 7 * DAY
"""Seconds for which a container that has ended is kept: `attach` reads how its attempt ended from it."""
_ABANDONED = DAY
"""Seconds after which a container that was never started, a load that did not end or a work folder is nobody's."""
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)")


class EngineLike(Protocol):
    """What is needed of an engine: ``flowkiln._base.engine.Engine`` is one."""

    def image(self, reference: str, /) -> JSONObject | None:
        """An image, None when there is none."""

    def images(self, *, labels: Mapping[str, str | None]) -> list[JSONObject]:
        """The images with these labels."""

    def remove_image(self, reference: str, /) -> bool:
        """Removes a name, and the image with its last one."""

    def containers(self, *, labels: Mapping[str, str | None]) -> list[JSONObject]:
        """The containers with these labels, ended ones too."""

    def inspect(self, container: str, /) -> JSONObject | None:
        """A container, None when there is none."""

    def remove(self, container: str, /, *, force: bool) -> bool:
        """Removes a container."""


class EngineGarbage:
    """A ``Source`` of what is ours in ``engine``, None for one that is not there or does not answer.

    Without an engine there are work folders alone: which of them are over cannot be known then. ``repository`` is
    the team's, from which images were pulled.
    """

    def __init__(self, engine: EngineLike | None, cache: Path, repository: str | None = None) -> None:
        self._engine = engine
        self._cache = cache
        self._repository = repository
        self._records = Records(cache)

    def entries(self) -> Iterator[Entry]:
        """Containers that ended, images with what they alone take, work folders. Raises the engine's errors."""
        containers = self._engine.containers(labels={}) if self._engine is not None else []
        if self._engine is not None:
            yield from self._containers(self._engine, containers)
            yield from self._images(self._engine, containers)
        yield from self._folders(containers)

    def remove(self, item: Item) -> bool | None:
        """Whether the item is gone; False for what the engine keeps because it is in use."""
        name = str(item.path)
        if item.kind == "work":
            _discard(item.path)
            return True
        if self._engine is None or item.kind not in ("image", "container"):
            return None
        try:
            if item.kind == "container":
                self._engine.remove(name, force=False)
            else:
                self._engine.remove_image(name)
        except EngineRefused:
            return False
        return True

    # -- containers --------------------------------------------------------------------------------------------

    def _containers(self, engine: EngineLike, rows: Iterable[JSONObject]) -> Iterator[Entry]:
        for row in rows:
            state = row.get("State")
            if _KIND not in (row.get("Labels") or {}) or state not in (*_ENDED, "created"):
                continue
            found = engine.inspect(str(row["Id"]))
            if found is None:
                continue
            told = (found.get("State") or {}).get("FinishedAt") if state in _ENDED else None
            used = _seconds(told) or float(row.get("Created") or time.time())
            left = _KEPT if state in _ENDED else _ABANDONED
            name = str((row.get("Names") or [row["Id"]])[0]).lstrip("/")
            yield Entry("container", Path(name), used, {}, left=left)

    # -- images ------------------------------------------------------------------------------------------------

    def _images(self, engine: EngineLike, containers: Iterable[JSONObject]) -> Iterator[Entry]:
        busy = {str(row.get("ImageID")) for row in containers}
        sizes = self._records.sizes()
        for row in engine.images(labels={_KEY: None}):
            key = str((row.get("Labels") or {}).get(_KEY))
            names = self._own_names(row, key)
            found = engine.image(str(row["Id"])) if names else None
            if found is None:
                continue
            layers = [str(one) for one in (found.get("RootFS") or {}).get("Layers") or ()]
            own: dict[int | str, int] = {one: sizes[one] for one in layers if one in sizes}
            tagged = _seconds((found.get("Metadata") or {}).get("LastTagTime"))
            # An engine that does not tell when, and no use of it here: nobody knows, and it counts as used.
            used = max(self._records.image_used(key) or 0.0, tagged or 0.0) or time.time()
            held = "used by a container" if str(row["Id"]) in busy else ""
            for name in names:
                loading = f":{LOADING}" in name
                blocks = own or {str(row["Id"]): int(row.get("Size") or 0)}
                yield Entry("image", Path(name), used, blocks, held=held, left=_ABANDONED if loading else None)

    def _own_names(self, row: JSONObject, key: str) -> list[str]:
        """The names of an image, all of them ours; none when one of them is not."""
        tags = [tag for tag in row.get("RepoTags") or () if tag != "<none>:<none>"]
        ours = f"{REPOSITORY}:fk-{key.removeprefix('sha256:')}"
        if tags:
            own = [tag for tag in tags if tag == ours or tag.startswith(f"{REPOSITORY}:{LOADING}")]
            return own if len(own) == len(tags) else []
        pulled = [one for one in row.get("RepoDigests") or () if not one.startswith("<none>@")]
        team = self._repository and self._repository.removeprefix("docker.io/").removeprefix("library/")
        return pulled if pulled and all(one.partition("@")[0] == team for one in pulled) else []

    # -- work folders ------------------------------------------------------------------------------------------

    def _folders(self, containers: Iterable[JSONObject]) -> Iterator[Entry]:
        """The folders of attempts: in use while there is a container of it; without an engine nobody knows."""
        busy = set()
        for row in containers:
            labels = row.get("Labels") or {}
            busy.add(
                (labels.get(f"{LABEL}.run"), f"{labels.get(f'{LABEL}.task')}-{labels.get(f'{LABEL}.attempt')}")
            )
        for run in _folders(self._cache / "docker"):
            for path in _folders(run):
                held = "a container uses it" if (run.name, path.name) in busy else ""
                left = _ABANDONED if self._engine is not None else None
                yield Entry("work", path, path.stat().st_mtime, held=held, left=left)


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))
    except OSError:
        return []


def _discard(path: Path) -> None:
    """Away from its name at once, then gone; its run's folder too when that is empty."""
    with files.scratch_folder(path.parent.parent) as scratch, contextlib.suppress(FileNotFoundError):
        path.rename(scratch / "gone")
    with contextlib.suppress(OSError):
        path.parent.rmdir()


def _seconds(text: object) -> float | None:
    """An engine's time in seconds since the epoch; None for its way of saying "never"."""
    found = _TIME.match(str(text))
    if found is None or found[1] < "1971":
        return None
    return datetime.fromisoformat(found[1] + found[2].replace("Z", "+00:00")).timestamp()
