"""Built wheels in a pylock file: the source as PEP 751 has it, the wheel and its build in ``[packages.tool]``.

Other tools build the source themselves; flowkiln takes the wheel that was built of it.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any

from flowkiln._base import digests
from flowkiln.envs.builtwheels import build_from_json, build_to_json
from flowkiln.envs.lock import LockedWheel
from flowkiln.envs.tomltext import quoted

if TYPE_CHECKING:
    from flowkiln.envs.lock import LockedBuild, LockedSource

_UP = ".."
"""From the folder of lock files to that of the declaring file, which relative sources start at."""


def block(wheel: LockedWheel, build: LockedBuild) -> list[str]:
    """The lines of an entry below its name, version and dependencies."""
    told = build_to_json(build)
    source = told.pop("source")
    return [
        *_source(build.source),
        "",
        "[packages.tool.flowkiln.wheel]",
        f"name = {quoted(wheel.filename)}",
        *([f"size = {wheel.size}"] if wheel.size is not None else []),
        f"sha256 = {quoted(wheel.sha256)}",
        "",
        "[packages.tool.flowkiln.build]",
        *(f"{name} = {quoted(str(told[name]))}" for name in ("key", "python", "platform", "where")),
        *(["requires = [", *(f"  {quoted(one)}," for one in told["requires"]), "]"] if told["requires"] else []),
        "",
        "[packages.tool.flowkiln.build.source]",
        *(f"{name} = {value if isinstance(value, int) else quoted(str(value))}" for name, value in source.items()),
    ]


def read(entry: dict[str, Any]) -> LockedWheel:
    """The built wheel of an entry, without what it needs.

    Raises ``KeyError``, ``TypeError``, ``ValueError`` or ``AttributeError``.
    """
    told = entry["tool"]["flowkiln"]
    wheel = told["wheel"]
    if not digests.is_digest(f"sha256:{wheel['sha256']}") or "/" in wheel["name"]:
        raise ValueError(wheel)
    build = build_from_json({"requires": [], **told["build"]})
    return LockedWheel(
        name=str(entry["name"]),
        version=str(entry["version"]),
        index=entry.get("index"),
        filename=str(wheel["name"]),
        url=build.source.url,
        sha256=str(wheel["sha256"]),
        size=int(wheel["size"]) if "size" in wheel else None,
        build=build,
    )


def _source(source: LockedSource) -> list[str]:
    """The source in the tables of PEP 751."""
    sized = [f"size = {source.size}"] if source.size is not None else []
    hashed = f"hashes = {{ sha256 = {quoted(source.sha256)} }}"
    inside = [f"subdirectory = {quoted(source.subdirectory)}"] if source.subdirectory else []
    if source.kind == "sdist":
        name = source.url.rpartition("/")[2]
        return ["", "[packages.sdist]", f"name = {quoted(name)}", f"url = {quoted(source.url)}", *sized, hashed]
    if source.kind == "archive":
        return ["", "[packages.archive]", f"url = {quoted(source.url)}", *sized, *inside, hashed]
    if source.kind == "git":
        asked = [f"requested-revision = {quoted(source.ref)}"] if source.ref else []
        commit = f"commit-id = {quoted(source.commit or '')}"
        return ["", "[packages.vcs]", 'type = "git"', f"url = {quoted(source.url)}", *asked, commit, *inside]
    path = posixpath.normpath(posixpath.join(_UP, source.url))
    return ["", "[packages.directory]", f"path = {quoted(path)}", *inside]
