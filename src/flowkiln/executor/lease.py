"""Who drives a run, and whether that driver is alive: on the same host by its process, elsewhere by its heartbeat.

Short runs write no heartbeat: the first one comes after a minute.
"""

from __future__ import annotations

import json as json_
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowkiln._base import json
from flowkiln.executor import holder
from flowkiln.store import keys

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject
    from flowkiln.store.interfaces import Records

FIRST_BEAT = 60.0
BEAT = 30.0
EXPIRY = 120.0
"""Seconds without a new heartbeat after which a watcher takes the driver for dead."""


class Heartbeat:
    """Writes the driver's sign of life when it is due. Times are seconds of the driver's clock."""

    def __init__(self, records: Records, run: str, epoch: int, now: float) -> None:
        self._records = records
        self._run = run
        self._epoch = epoch
        self._due = now + FIRST_BEAT

    def beat(self, now: float, *, at_us: int) -> None:
        """Writes the record if it is time."""
        if now < self._due:
            return
        self._due = now + BEAT
        document: JSONObject = {"schema": 1, "epoch": self._epoch, "at_us": at_us, "who": holder.this_process()}
        self._records.write(keys.heartbeat(self._run), json.compact(document))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """The last sign of a run's driver: ``seen_us`` is its time, ``alive`` None where one cannot know yet."""

    who: JSONObject
    epoch: int
    seen_us: int
    alive: bool | None


def last_sign(records: Records, run: str, entry: JSONObject) -> Sign:
    """What is known of the driver that wrote ``entry``, the last journal entry of a takeover.

    ``alive`` is certain for a driver on this host; for another host it is True for a heartbeat younger than
    EXPIRY by this host's clock, else None: its host may be gone or asleep.
    """
    epoch, who, seen = entry["epoch"], entry["took"]["who"], entry["took"]["at_us"]
    found = records.read(keys.heartbeat(run))
    beat = json_.loads(found) if found is not None else None
    if beat is not None and beat["epoch"] >= epoch:
        seen = max(seen, beat["at_us"])
    if holder.is_gone(who):
        return Sign(who=who, epoch=epoch, seen_us=seen, alive=False)
    here = holder.this_process()
    young = time.time_ns() // 1000 - seen < EXPIRY * 1_000_000
    alive = True if who.get("host") == here.get("host") or young else None
    return Sign(who=who, epoch=epoch, seen_us=seen, alive=alive)
