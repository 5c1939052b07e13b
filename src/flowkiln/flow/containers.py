"""What a step's containers are given: ``@docker`` and ``@resources`` as the executor's values."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowkiln.executor.plan import ContainerSettings
    from flowkiln.flow.graph import Node

_MEGABYTE = 1 << 20
_MOUNT = "SOURCE:TARGET[:ro]"
_LEAST = {"cpu": 0.01, "memory": 1, "shared_memory": 1}
"""Less is nothing to an engine, and nothing means no limit."""
_MOST = {"cpu": 10**5, "memory": 10**9, "shared_memory": 10**9}
_MOST_GPUS = 10**4
_OWN = ("/opt/env", "/opt/flowkiln", "/mnt/flowkiln")
"""What is proved before a step begins, and what flowkiln itself mounts: nothing may lie over it or inside of it."""
_TEMPORARY = "/tmp"  # noqa: S108  inside a container
_LAST_ID = 2**31 - 1
_USER = re.compile(r"([0-9]+)(?::([0-9]+))?")


def problems(given: Mapping[str, Any]) -> list[str]:
    """What is wrong with the arguments of ``@docker``, a sentence each."""
    found = []
    for key, least in _LEAST.items():
        value = given[key]
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (number and least <= value <= _MOST[key]):
            found.append(f"{key} is a number from {least} to {_MOST[key]}, not {value!r}")
    gpus = given["gpu"]
    whole = isinstance(gpus, int) and not isinstance(gpus, bool)
    if gpus is not None and not (whole and -1 <= gpus <= _MOST_GPUS):
        found.append(f"gpu is a whole number from 0, or -1 for all, not {gpus!r}")
    for key in ("image", "network"):
        value = given[key]
        if value is not None and not (isinstance(value, str) and _one_word(value)):
            found.append(f"{key} is text without spaces, not {value!r}")
        elif key == "image" and value is not None and (why := _bad_reference(value)) is not None:
            found.append(f"image: {why}")
    if given["user"] is not None and not _is_user(given["user"]):
        found.append(f'user is UID[:GID], as "1000" or "1000:1000", not {given["user"]!r}')
    if not isinstance(given["read_only"], bool):
        found.append(f"read_only is True or False, not {given['read_only']!r}")
    return found + _mount_problems(given["mounts"])


def _bad_reference(image: str) -> str | None:
    """Why ``image`` names no image, None where it does."""
    from flowkiln.images import reference  # noqa: PLC0415  its imports are not every step's
    from flowkiln.images.errors import BadReference  # noqa: PLC0415

    try:
        reference.parse(image)
    except BadReference as error:
        return error.message
    return None


def _one_word(text: str) -> bool:
    return text.isprintable() and text.split() == [text]


def _is_user(value: object) -> bool:
    found = _USER.fullmatch(value) if isinstance(value, str) else None
    return found is not None and all(int(one) <= _LAST_ID for one in found.groups() if one)


def _mount_problems(mounts: object) -> list[str]:
    if mounts is None:
        return []
    if not isinstance(mounts, (list, tuple)) or not all(isinstance(one, str) for one in mounts):
        return [f'mounts is a list of texts such as ["./data:/data:ro"], not {mounts!r}']
    found = [f"{one!r} in mounts is not {_MOUNT} with an absolute target" for one in mounts if _parts(one) is None]
    targets = [parts[1] for parts in map(_parts, mounts) if parts is not None]
    found += [f"{one} is mounted to twice" for one in dict.fromkeys(targets) if targets.count(one) > 1]
    return found + [why for why in map(_taken, dict.fromkeys(targets)) if why is not None]


def _taken(target: str) -> str | None:
    """Why nothing may be mounted to ``target``, None where it may."""
    if target == _TEMPORARY:
        return f"{target} is every container's own: mount to a folder in it or elsewhere"
    for own in _OWN:
        if os.path.commonpath([own, target]) in (own, target):
            return f"a mount to {target} would hide or change {own}, which is flowkiln's: mount elsewhere"
    return None


def _parts(text: str) -> tuple[str, str, bool] | None:
    source, colon, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not colon or not source or not target.startswith("/") or mode not in ("", "ro", "rw") or "\0" in text:
        return None
    return source, os.path.normpath("/" + target.lstrip("/")), mode == "ro"


def base_of(node: Node) -> str | None:
    """The image that ``@docker`` names for a step, None where it names none."""
    used = _arguments(node, "docker") or {}
    image: str | None = used.get("image")
    return image


def wanted(node: Node) -> bool:
    """Whether the step runs in a container."""
    return _arguments(node, "docker") is not None


def settings(node: Node) -> ContainerSettings:
    """What the step's containers are given: the larger of what ``@docker`` and ``@resources`` ask for."""
    from flowkiln.executor.plan import ContainerSettings  # noqa: PLC0415  a step's process does without

    own, shared = _arguments(node, "docker") or {}, _arguments(node, "resources") or {}
    folder = os.path.dirname(os.path.abspath(node.file))
    gpus = max((int(value) for value in (own.get("gpu"), shared.get("gpu")) if value is not None), default=None)
    if own.get("gpu") == -1:
        gpus = -1
    return ContainerSettings(
        cpus=_at_least(_LEAST["cpu"], _larger(own.get("cpu"), shared.get("cpu"))),
        memory=_bytes(_larger(own.get("memory"), shared.get("memory"))),
        shared_memory=_bytes(_larger(own.get("shared_memory"), shared.get("shared_memory"))),
        gpus=gpus or None,
        user=own.get("user"),
        mounts=tuple(_mount(text, folder) for text in own.get("mounts") or ()),
        network=own.get("network"),
        read_only=bool(own.get("read_only")),
    )


def _mount(text: str, folder: str) -> tuple[str, str, bool]:
    parts = _parts(text)
    assert parts is not None
    source, target, read_only = parts
    return os.path.normpath(os.path.join(folder, os.path.expanduser(source))), target, read_only


def _larger(one: float | None, other: float | None) -> float | None:
    given = [float(value) for value in (one, other) if value is not None]
    return max(given, default=None)


def _at_least(least: float, value: float | None) -> float | None:
    """``value``, no less than ``least``: what an engine rounds to nothing would be no limit."""
    return None if value is None else max(least, value)


def _bytes(megabytes: float | None) -> int | None:
    return None if not megabytes else max(_MEGABYTE, int(megabytes * _MEGABYTE))


def _arguments(node: Node, name: str) -> Mapping[str, Any] | None:
    return next((one.arguments for one in node.decorators if one.name == name), None)
