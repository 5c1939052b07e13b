"""What a container engine's answers mean: errors, streams of messages, outputs of containers."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Literal

from flowkiln._base.engineerrors import (
    EngineDenied,
    EngineFailed,
    EngineFull,
    EngineRefused,
    EngineTooOld,
    EngineUnreachable,
    ImageMissing,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from flowkiln._base.endpoints import Endpoint
    from flowkiln._base.engineerrors import EngineError
    from flowkiln._base.json import JSONObject

Output = tuple[Literal["stdout", "stderr"], bytes]
_FULL = ("no space left on device", "disk quota exceeded")
_LONGEST = 2000
"""Characters of an engine's message that are shown."""
_HEAD = 8
"""Bytes before each piece of output: the stream, three zeros, the length."""


def api(text: str) -> tuple[int, int]:
    """An API version as numbers. Raises ``ValueError``."""
    major, _, minor = str(text).partition(".")
    return int(major), int(minor or 0)


def version(found: object, oldest: tuple[int, int], endpoint: Endpoint) -> JSONObject:
    """What an engine says of its version, if it is new enough. Raises ``EngineTooOld``."""
    told = str(found.get("ApiVersion")) if isinstance(found, dict) else ""
    try:
        number = api(told)
    except ValueError as error:
        message = f"what answers at {endpoint} is no container engine that tells its API version"
        raise EngineTooOld(message) from error
    assert isinstance(found, dict)
    if number < oldest:
        message = f"the engine at {endpoint} speaks API version {told}; needed is {oldest[0]}.{oldest[1]} or later"
        raise EngineTooOld(message, data={"api": told})
    return found


def refusal(status: int, body: bytes, kinds: Mapping[int, type[EngineError]]) -> EngineError:
    """The error for an answer with a bad status, with the engine's own words."""
    text = _text(body) or f"HTTP status {status}"
    if any(words in text.lower() for words in _FULL):
        return EngineFull(text, status=status)
    if "could not select device driver" in text and "gpu" in text:
        hint = "Install the NVIDIA Container Toolkit on the engine's machine, or run the step without gpu=."
        return EngineRefused(text, hint=hint, status=status)
    kind = kinds.get(status)
    if kind is None and status in {401, 403}:
        hint = "Whoever runs the engine forbids this: ask them, or use another engine."
        return EngineDenied(text, hint=hint, status=status)
    if kind is None:
        kind = EngineFailed if status >= 500 else EngineRefused
    return kind(text, status=status, retryable=status >= 500)


def raise_detail(message: JSONObject) -> None:
    """Nothing, or the error that a message of a stream tells although the status was good."""
    detail = message.get("errorDetail")
    told = (detail.get("message") if isinstance(detail, dict) else None) or message.get("error")
    if not told and not detail:
        return
    text = str(told or detail)[:_LONGEST]
    if any(words in text.lower() for words in _FULL):
        raise EngineFull(text)
    if re.search(r"manifest unknown|pull access denied|no such image", text, re.IGNORECASE):
        raise ImageMissing(text)
    raise EngineFailed(text)


def progress(message: JSONObject) -> tuple[str, int, int]:
    """What a pull's message says: what is done, bytes done, bytes in all."""
    detail = message.get("progressDetail") or {}
    what = " ".join(str(message[key]) for key in ("id", "status") if message.get(key))
    return what, int(detail.get("current") or 0), int(detail.get("total") or 0)


def loaded(messages: Iterable[JSONObject]) -> list[str]:
    """The names and ids that the messages of a load tell."""
    text = "".join(str(message.get("stream") or "") for message in messages)
    found = re.findall(r"Loaded image(?: ID|\(s\))?: (.+)", text)
    return [name.strip() for line in found for name in line.split(",")]


def messages(blocks: Iterable[bytes]) -> Iterator[JSONObject]:
    """The JSON objects of a stream, one in a line or several. Raises ``EngineUnreachable`` for anything else."""
    rest = ""
    decoder = json.JSONDecoder()
    for line in _lines(blocks):
        rest = (rest + line.decode(errors="replace")).lstrip()
        while rest:
            try:
                document, end = decoder.raw_decode(rest)
            except ValueError:
                break
            rest = rest[end:].lstrip()
            if isinstance(document, dict):
                yield document
    if rest:
        message = f"the container engine's answer is no JSON: {rest[:200]!r}"
        raise EngineUnreachable(message)


def outputs(blocks: Iterable[bytes]) -> Iterator[Output]:
    """The output of a container without a terminal: what was written to which stream, in order.

    Raises ``EngineUnreachable`` when the stream ends in the middle of a piece.
    """
    buffer = bytearray()
    name: Literal["stdout", "stderr"] = "stdout"
    left = 0
    for block in blocks:
        buffer += block
        while buffer:
            if not left:
                if len(buffer) < _HEAD:
                    break
                name = "stderr" if buffer[0] == 2 else "stdout"
                left = int.from_bytes(buffer[4:_HEAD], "big")
                del buffer[:_HEAD]
                continue
            piece = bytes(buffer[:left])
            del buffer[: len(piece)]
            left -= len(piece)
            yield name, piece
    if left or buffer:
        message = "the container's output broke off in the middle of a piece"
        raise EngineUnreachable(message, retryable=True)


def _lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for block in blocks:
        *lines, rest = (rest + block).split(b"\n")
        yield from (line for line in lines if line.strip())
    if rest.strip():
        yield rest


def _text(body: bytes) -> str:
    """The message of an error's body, whatever its form."""
    text = body.decode(errors="replace").strip()
    try:
        document = json.loads(text)
    except ValueError:
        return text[:_LONGEST]
    if isinstance(document, dict):
        text = str(document.get("message") or document.get("cause") or text)
    return text[:_LONGEST].strip()
