from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from flowkiln.executor import holder
from flowkiln.executor.lease import BEAT, EXPIRY, FIRST_BEAT, Heartbeat, last_sign
from flowkiln.store import keys
from flowkiln.store.folder import FolderStore

if TYPE_CHECKING:
    from pathlib import Path

RUN = "1700000000000000"


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def now_us() -> int:
    return time.time_ns() // 1000


def entry(who: dict[str, object], at_us: int) -> dict[str, object]:
    return {"epoch": 3, "took": {"who": who, "at_us": at_us}}


def test_this_process_is_alive(store: FolderStore) -> None:
    sign = last_sign(store.records, RUN, entry(holder.this_process(), 1))
    assert (sign.alive, sign.epoch, sign.seen_us) == (True, 3, 1)


def test_a_process_that_has_ended_is_not(store: FolderStore) -> None:
    code = "import json; from flowkiln.executor import holder; print(json.dumps(holder.this_process()))"
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env={"PYTHONPATH": paths})
    assert last_sign(store.records, RUN, entry(json.loads(done.stdout), now_us())).alive is False


def test_another_host_is_judged_by_its_heartbeat(store: FolderStore) -> None:
    elsewhere: dict[str, object] = {"host": "elsewhere.invalid", "pid": 1, "boot": "b", "start": 1}
    old = now_us() - int((EXPIRY + 1) * 1_000_000)
    assert last_sign(store.records, RUN, entry(elsewhere, now_us())).alive is True
    assert last_sign(store.records, RUN, entry(elsewhere, old)).alive is None
    beat = json.dumps({"schema": 1, "epoch": 3, "at_us": now_us(), "who": elsewhere}).encode()
    store.records.write(keys.heartbeat(RUN), beat)
    sign = last_sign(store.records, RUN, entry(elsewhere, old))
    assert sign.alive is True
    assert sign.seen_us > old


def test_heartbeats_begin_after_a_minute(store: FolderStore) -> None:
    heartbeat = Heartbeat(store.records, RUN, 0, 0.0)
    heartbeat.beat(FIRST_BEAT - 1, at_us=1)
    assert not store.records.exists(keys.heartbeat(RUN))
    heartbeat.beat(FIRST_BEAT, at_us=2)
    heartbeat.beat(FIRST_BEAT + BEAT - 1, at_us=3)
    assert json.loads(store.records.read(keys.heartbeat(RUN)) or b"")["at_us"] == 2
    heartbeat.beat(FIRST_BEAT + BEAT, at_us=4)
    assert json.loads(store.records.read(keys.heartbeat(RUN)) or b"")["at_us"] == 4
