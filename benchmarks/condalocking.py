"""The lock rows of conda packages: `flowkiln env lock` against `conda-lock lock` with a solver that solves alike.

The solver that conda-lock drives is the tests' stand-in, rattler in a program of its own, as the real ones can't be
installed everywhere. The channel is the tests' own, served on this machine.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tests.services import condalock
from tests.services.channel import ChannelServer
from tests.services.condachannel import conda_channel
from tests.services.standin import stand_in

from benchmarks.measure import Pair, Row, alternate, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.peers import Peers

PACKAGES = ("scikit-learn", "pandas", "series-29")
PLATFORMS = {"linux/amd64": "linux-64", "linux/arm64": "linux-aarch64"}
PEER = "`conda-lock lock`"


def rows(peers: Peers, folder: Path) -> Iterator[Row]:
    """Two platforms on both sides, from one channel."""
    work = folder / "conda-lock"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    with ChannelServer() as server:
        url = server.mount("main", conda_channel())
        _declare(work, url)
        conda_lock = condalock.python().with_name("conda-lock")
        environ = peers.environ(folder / "conda-lock-home") | {"FLOWKILN_CONDA_LOCK": str(conda_lock)}
        program = stand_in(work / "bin" / "conda")
        flowkiln = peers.flowkiln().parent / "flowkiln"

        def ours(**more: str) -> None:
            shutil.rmtree(work / "environment.locks", ignore_errors=True)
            run([flowkiln, "env", "lock", "environment.yml"], cwd=work, environ=environ | more)

        def driving() -> None:
            ours(FLOWKILN_CONDA_SOLVER="conda", FLOWKILN_CONDA_PROGRAM=str(program))

        def theirs() -> None:
            (work / "conda-lock.yml").unlink(missing_ok=True)
            options = ("--kind", "lock", "--pypi_to_conda_lookup_file", "names.json", "--without-cuda")
            words = (conda_lock, "lock", "--conda", program, "--file", "environment.yml", *options)
            run(words, cwd=work, environ=environ)

        def forget() -> None:
            shutil.rmtree(folder / "conda-lock-home" / "cache", ignore_errors=True)

        cold = alternate(ours, theirs, pairs=5, before=forget)
        yield _row("lock of conda packages, nothing cached", cold)
        yield _row("lock of conda packages, warm", alternate(ours, theirs, pairs=5))
        driven = alternate(driving, theirs, pairs=5)
        yield _row('the same with `conda.solver = "conda"`, warm', driven, aimed=False)


def _declare(work: Path, url: str) -> None:
    subdirs, names = ("".join(f"  - {one}\n" for one in group) for group in (PLATFORMS.values(), PACKAGES))
    text = f"channels:\n  - {url}\nplatforms:\n{subdirs}dependencies:\n  - python 3.11.*\n{names}"
    (work / "environment.yml").write_text(text)
    (work / "names.json").write_text("{}")


def _row(work: str, pair: Pair, *, aimed: bool = True) -> Row:
    return Row(
        work=work,
        peer=PEER,
        ours=f"{pair.ours:.2f} s",
        theirs=f"{pair.theirs:.2f} s",
        ratio=f"{pair.ratio:.2f} times",
        aim="faster" if aimed else "none: told for the cost of driving it",
        met=pair.ratio < 1 if aimed else None,
    )
