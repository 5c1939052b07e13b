"""Output of a process as lines: bytes in, texts out, whatever the process writes."""

from __future__ import annotations

_LONGEST = 64 * 1024
"""Bytes after which a line without an end is cut into two."""
_REDRAW = 1.0
"""Seconds between two states of a line that redraws itself by carriage returns."""


class Lines:
    r"""Splits one stream. What is not UTF-8 is shown as ``\xNN``; nothing is dropped but redrawn states.

    Of a line that redraws itself (a progress bar), the last state is kept and one state per second meanwhile.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._drawn = float("-inf")

    def feed(self, data: bytes, now: float) -> list[str]:
        """The lines that ``data`` completes; ``now`` is any clock in seconds."""
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        whole, self._rest = data[:end], data[end:]
        texts = _decode(whole).split("\n") if whole else []
        if texts:
            texts.pop()  # what follows the last line's end: nothing
        if b"\r" in whole:
            texts = [_last_state(text) for text in texts]
        if self._rest:
            texts += self._from_rest(now)
        return texts

    def finish(self) -> list[str]:
        """What is left at the end of the stream: at most one line that had no end."""
        rest, self._rest = self._rest, b""
        return [_last_state(_decode(rest))] if rest else []

    def _from_rest(self, now: float) -> list[str]:
        texts: list[str] = []
        head, redrawn, tail = self._rest.rpartition(b"\r")
        if redrawn and tail:  # a return at the very end may belong to a line's end
            self._rest = tail
            if now - self._drawn >= _REDRAW:
                self._drawn = now
                texts.append(_last_state(_decode(head)))
        while len(self._rest) > _LONGEST:
            cut = _character_start(self._rest, _LONGEST)
            texts.append(_decode(self._rest[:cut]))
            self._rest = self._rest[cut:]
        return [text for text in texts if text] if redrawn else texts


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _last_state(text: str) -> str:
    """What a terminal shows last of a line with carriage returns in it."""
    states = [state for state in text.split("\r") if state]
    return states[-1] if states else ""


def _character_start(data: bytes, position: int) -> int:
    """The nearest place at or up to three bytes before ``position`` where a character may start."""
    for start in range(position, position - 4, -1):
        if data[start] & 0xC0 != 0x80:
            return start
    return position
