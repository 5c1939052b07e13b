"""What an image's layers hold, held against marker, labels and lock."""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from flowkiln.envs import installer
from flowkiln.envs.treefile import Description
from flowkiln.images import inside
from flowkiln.images.errors import BaseUnreadable, LayerDiffers
from flowkiln.images.judging import Claims, Locked, Verdict, judge
from tests.images.rootfs_layers import stream, tar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flowkiln.images.inside import Found

LIBRARY = "lib/python3.11/site-packages"
MODULE = f"{LIBRARY}/alpha/__init__.py"
FILES = {MODULE: b"one = 1\n", f"{LIBRARY}/alpha/data.bin": bytes(5000)}
ENV, LOCK = "sha256:" + 64 * "a", "sha256:" + 64 * "b"
BASE = "sha256:" + 64 * "c"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


ROWS = [(path, 0o444, sha(data)) for path, data in FILES.items()]
TREE = "sha256:" + sha(installer.document(ROWS))
MARKER = Description(
    env_id=ENV,
    tree_digest=TREE,
    platform="linux/amd64",
    version="3.11.9",
    interpreter="/usr/local/bin/python3.11",
    prefix="/opt/env",
    wheels=(),
    glue={"bin/python": (0o777, "-> /usr/local/bin/python3.11"), "pyvenv.cfg": (0o444, sha(b"home"))},
)
CLAIMS = Claims(
    env_id=ENV, lock_id=LOCK, tree_digest=TREE, image_key=None, base=BASE, python="3.11.9", bytecode="none"
)
LOCKED = Locked(name="fit", env_id=ENV, lock_id=LOCK, tree_digest=TREE, bases=(BASE,))


def packed(rows: list[tuple[str, int, str]] = ROWS) -> bytes:
    listed = [[*row, len(FILES.get(row[0], b""))] for row in rows]
    return json.dumps({"schema": 1, "files": listed}).encode()


def environment(marker: Description = MARKER, **more: Any) -> dict[str, Any]:
    """Everything that lies below /opt/env, as entries of one layer."""
    own: dict[str, Any] = {f"opt/env/{path}": data for path, data in FILES.items()}
    own |= {"opt/env/bin/python": "/usr/local/bin/python3.11", "opt/env/pyvenv.cfg": b"home"}
    own |= {"opt/env/.flowkiln/parts/one.json": packed(), "opt/env/.flowkiln/tree.json": marker.to_bytes()}
    return {**own, **more}


def opened(entries: dict[str, Any]) -> tuple[str, Callable[[], Iterator[bytes]]]:
    data = tar(entries, dict.fromkeys(entries, 292))
    return f"sha256:{sha(data)}", stream(gzip.compress(data))


def read(*layers: dict[str, Any]) -> dict[str, Found]:
    return inside.of_layers("image", [opened(entries) for entries in layers])


def test_an_environment_that_is_what_it_says_is_sound() -> None:
    verdict = judge(read({"usr/bin/sh": b"sh"}, environment()), CLAIMS, LOCKED)
    assert verdict.sound, verdict.text()
    assert (verdict.env_id, verdict.tree_digest, verdict.files) == (ENV, TREE, 2)


def test_an_engines_archive_is_read_alike() -> None:
    entries = {name.removeprefix("opt/"): data for name, data in environment().items()}
    found = inside.of_archive([tar(entries, dict.fromkeys(entries, 292))])
    assert found == read(environment())


@pytest.mark.parametrize(
    ("above", "told"),
    [
        ({f"opt/env/{MODULE}": b"one = 2\n"}, f"changed: {MODULE}"),
        ({f"opt/env/{LIBRARY}/alpha/.wh.__init__.py": b""}, f"missing: {MODULE}"),
        ({f"opt/env/{LIBRARY}/evil.pth": b"import os"}, f"extra: {LIBRARY}/evil.pth"),
        ({"opt/env/bin/tool": "/bin/sh"}, "extra: bin/tool"),
        ({"opt/env/bin/python": "/tmp/python"}, "changed: bin/python"),
        ({"alias": "opt/env", f"alias/{MODULE}": b"one = 2\n"}, f"changed: {MODULE}"),
        ({"alias": "opt/env", f"alias/{LIBRARY}/sitecustomize.py": b""}, f"extra: {LIBRARY}/sitecustomize.py"),
        ({"opt/env/.flowkiln/tree.json": b"x"}, "the marker of the environment was changed"),
        ({"opt/env/.flowkiln/parts/two.json": b"x"}, "parts/two.json cannot be read"),
        ({"opt/.wh.env": b""}, "there is no marker in it"),
        ({"srv": None, "opt/env": "/srv"}, "there is no marker in it"),
    ],
)
def test_a_layer_that_changes_the_environment_is_found(above: dict[str, Any], told: str) -> None:
    verdict = judge(read(environment(), above), CLAIMS)
    assert not verdict.sound
    assert told in verdict.text()


def test_files_that_change_together_with_their_list_are_found_by_the_label_or_the_lock() -> None:
    rows = [(MODULE, 0o444, sha(b"one = 2\n")), ROWS[1]]
    tree = "sha256:" + sha(installer.document(rows))
    changed = {f"opt/env/{MODULE}": b"one = 2\n", "opt/env/.flowkiln/parts/one.json": packed(rows)}
    files = read(environment(replace(MARKER, tree_digest=tree)), changed)
    assert f"the label's tree {TREE}, the marker's is {tree}" in judge(files, CLAIMS).text()
    forged = replace(CLAIMS, tree_digest=tree)
    assert judge(files, forged).sound  # the image agrees with itself: only a lock can tell
    assert f"installs the tree {TREE}, its files are {tree}" in judge(files, forged, LOCKED).text()


@pytest.mark.parametrize(
    ("locked", "told"),
    [
        (replace(LOCKED, env_id="sha256:" + 64 * "0"), "environment 'fit' of the lock is sha256:000"),
        (replace(LOCKED, lock_id="sha256:" + 64 * "0"), "the lock's id of 'fit' is sha256:000"),
        (replace(LOCKED, bases=("sha256:" + 64 * "0",)), f"the image is baked on {BASE}"),
    ],
)
def test_another_lock_is_told(locked: Locked, told: str) -> None:
    files = read(environment())
    assert told in judge(files, CLAIMS, locked).text()
    assert judge(files, CLAIMS, replace(LOCKED, tree_digest=None, bases=None)).sound


def test_a_layer_that_is_not_the_configs_is_an_error() -> None:
    _, layer = opened(environment())
    with pytest.raises(LayerDiffers) as caught:
        inside.of_layers("image", [("sha256:" + 64 * "0", layer)])
    assert "layer 1 of image" in caught.value.message


def test_a_layer_that_is_no_archive_is_an_error() -> None:
    with pytest.raises(BaseUnreadable, match="layer 1 of image is no archive"):
        inside.of_layers("image", [("sha256:" + 64 * "0", stream(b"no archive" * 100))])


def test_only_the_first_files_of_a_kind_are_listed() -> None:
    verdict = Verdict(extra=[f"bin/{number}" for number in range(9)])
    assert verdict.text().endswith("extra: bin/5\n... and 3 more extra")
