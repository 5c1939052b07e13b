"""What the journal of a run fixes: id blocks, the first failure, a cancellation, submissions.

Everything else follows from the sealed outcomes: state = fold(journal, outcomes).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flowkiln._base.json import JSONObject


@dataclass(slots=True)
class History:
    """The decisions found in a journal.

    ``blocks`` maps (foreach task, attempt) to (first id, width), ``next_id`` is free after them. ``failed`` is
    the first final failure, ``cancelled`` how it was cancelled, ``submitted`` maps (task, attempt) to
    the last batch that holds it. ``epoch`` is that of the last driver, -1 without one.
    """

    epoch: int = -1
    blocks: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    next_id: int = 0
    failed: tuple[int, int] | None = None
    cancelled: Literal["cancelled", "interrupted"] | None = None
    submitted: dict[tuple[int, int], int] = field(default_factory=dict)
    last_batch: int = 0

    @classmethod
    def of(cls, entries: Iterable[JSONObject]) -> History:
        """The decisions of ``entries``, in their order."""
        history = cls()
        for entry in entries:
            history.add(entry)
        return history

    def add(self, entry: JSONObject) -> None:
        """Takes one journal entry in."""
        if "took" in entry:
            self.epoch = max(self.epoch, entry["epoch"])
        for task, attempt, width, first, size in entry.get("blocks", ()):
            self.blocks[task, attempt] = (first, width)
            self.next_id = max(self.next_id, first + size)
        if self.failed is None and "failed" in entry:
            self.failed = (entry["failed"][0], entry["failed"][1])
        if self.cancelled is None and "cancelled" in entry:
            self.cancelled = entry["cancelled"]
        for batch, members in entry.get("submitted", ()):
            self.last_batch = max(self.last_batch, batch)
            for task, attempt in members:
                self.submitted[task, attempt] = batch
