"""A run's journal: what was decided, numbered from 0, one record each, written before its effects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowkiln._base import json
from flowkiln.store import formats, keys
from flowkiln.store.errors import Displaced, JournalDamaged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowkiln._base.json import JSONObject
    from flowkiln.store.interfaces import Records


class Journal:
    """The journal of one run as one driver sees it.

    An entry goes right after those that this object has read or written. When somebody else has written there,
    this driver has been displaced: whoever takes over reads the entries, then appends.
    """

    def __init__(self, records: Records, run: str) -> None:
        self._records = records
        self._run = run
        self._next: int | None = None
        self._unsynced: list[int] = []

    def append(self, entry: JSONObject) -> int:
        """Writes ``entry`` and returns its number. Raises ``Displaced`` when another process took that number.

        A new object that has read nothing first reads the journal to its end.
        """
        if self._next is None:
            for _ in self.entries():
                pass
        number = self._next or 0
        document = json.compact({"schema": formats.RECORD_SCHEMA, **entry})
        if not self._records.create(keys.journal(self._run, number), document):
            message = f"another process drives run {self._run}: it wrote journal entry {number}"
            raise Displaced(message, hint="`flowkiln run show` tells how the run goes on.", data={"run": self._run})
        self._next = number + 1
        self._unsynced.append(number)
        return number

    def entries(self) -> Iterator[JSONObject]:
        """All entries in order; the next ``append`` goes after them once the end was reached.

        Raises ``JournalDamaged`` at a gap, ``RecordDamaged`` and ``FormatTooNew``.
        """
        number = 0
        while (data := self._records.read(keys.journal(self._run, number))) is not None:
            what = f"journal entry {number} of run {self._run}"
            document = formats.document_of(data, formats.RECORD_SCHEMA, what)
            yield {key: value for key, value in document.items() if key != "schema"}
            number += 1
        later = [name for name in self._records.names(keys.journal_folder(self._run)) if int(name) > number]
        if later and self._records.read(keys.journal(self._run, number)) is None:
            message = f"entry {number} of run {self._run}'s journal is missing, but {int(later[0])} is there"
            raise JournalDamaged(message, hint="Start a new run.", data={"run": self._run, "entry": number})
        self._next = number

    def sync(self) -> None:
        """Returns once every entry that this object appended would survive a power loss (``fsync``)."""
        self._records.sync([keys.journal(self._run, number) for number in self._unsynced])
        self._unsynced.clear()
