"""The lock rows: `flowkiln env lock` against `uv pip compile`, with nothing cached and warm."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from benchmarks.measure import Row, alternate, run
from benchmarks.peers import uv

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.peers import Peers

REQUIREMENTS = "pandas>=2.2,<3\nscikit-learn\nrequests\n"
PYTHON = "3.11"


def rows(peers: Peers, folder: Path) -> Iterator[Row]:
    """One platform on both sides, so that the same question is asked."""
    work = folder / "lock"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / "requirements.txt").write_text(REQUIREMENTS)
    (work / "pyproject.toml").write_text('[tool.flowkiln]\nplatforms = ["linux/amd64"]\n')
    environ = peers.environ(folder / "lock-home") | {
        "UV_CACHE_DIR": str(folder / "lock-uv-cache"),
        "UV_PYTHON_DOWNLOADS": "never",
    }
    flowkiln = peers.flowkiln().parent / "flowkiln"

    def ours() -> None:
        shutil.rmtree(work / "requirements.locks", ignore_errors=True)
        run([flowkiln, "env", "lock", "requirements.txt"], cwd=work, environ=environ)

    def theirs() -> None:
        (work / "pylock.peer.toml").unlink(missing_ok=True)
        run(
            [
                *(uv(), "pip", "compile", "--quiet", "requirements.txt", "--python-version", PYTHON),
                *("--python-platform", "x86_64-manylinux_2_28", "--only-binary", ":all:", "--no-config"),
                *("--format", "pylock.toml", "-o", "pylock.peer.toml"),
            ],
            cwd=work,
            environ=environ,
        )

    def forget() -> None:
        shutil.rmtree(folder / "lock-uv-cache", ignore_errors=True)

    cold = alternate(ours, theirs, pairs=5, before=forget)
    yield Row(
        work="lock, nothing cached",
        peer="`uv pip compile`",
        ours=f"{cold.ours:.2f} s",
        theirs=f"{cold.theirs:.2f} s",
        ratio=f"{cold.ratio:.2f} times",
        aim="1.3 times",
        met=cold.ratio <= 1.3,
    )
    warm = alternate(ours, theirs, pairs=7)
    yield Row(
        work="lock, warm",
        peer="`uv pip compile`",
        ours=f"{warm.ours:.2f} s",
        theirs=f"{warm.theirs:.2f} s",
        ratio=f"{warm.more:+.2f} s",
        aim="at most 0.25 s more",
        met=warm.more <= 0.25,
    )
