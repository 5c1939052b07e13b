"""Rows about import and running flows, against Metaflow and against ourselves."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from benchmarks import flows
from benchmarks.measure import Row, alternate, peak_megabytes, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.peers import Peers

WORKERS = ("--max-workers", "2")


class Running:
    """Rows measured in ``folder``; ``wide`` are the foreach widths of the linearity row."""

    def __init__(self, peers: Peers, folder: Path, *, wide: tuple[int, ...]) -> None:
        self.peers = peers
        self.folder = folder
        self.environ = peers.environ(folder / "home")
        self.wide = wide

    def rows(self) -> Iterator[Row]:
        yield self.imports()
        yield self.three_steps()
        yield self.foreach("bare", flows.BARE, aim=40)
        yield self.foreach("pandas imported by the step", flows.PANDAS, aim=20)
        yield from self.linear()
        yield self.declared()

    def imports(self) -> Row:
        python = self.peers.flowkiln()
        code = "import flowkiln; flowkiln.FlowSpec, flowkiln.step, flowkiln.pypi, flowkiln.retry"
        pair = alternate(
            lambda: run([python, "-c", code], cwd=self.folder, environ=self.environ),
            lambda: run([python, "-c", "pass"], cwd=self.folder, environ=self.environ),
            pairs=15,
        )
        return Row(
            work="`import flowkiln` and the decorators",
            peer="bare interpreter",
            ours=_ms(pair.ours),
            theirs=_ms(pair.theirs),
            ratio=f"{pair.more * 1000:+.0f} ms",
            aim="at most 60 ms more",
            met=pair.more <= 0.060,
        )

    def three_steps(self) -> Row:
        ours, theirs = self._both("three", flows.THREE_STEPS)
        pair = alternate(ours, theirs, pairs=7)
        return _faster("3-step flow, no environments, local", pair.ours, pair.theirs, pair.times_faster, 8)

    def foreach(self, name: str, body: str, *, aim: int) -> Row:
        source = flows.FOREACH.replace("{body}", body)
        ours, theirs = self._both("wide", source)
        pair = alternate(ours, theirs, pairs=3)
        return _faster(f"foreach of 100 small tasks, {name}", pair.ours, pair.theirs, pair.times_faster, aim)

    def linear(self) -> Iterator[Row]:
        python = self.peers.flowkiln()
        source = flows.FOREACH.replace("{body}", flows.BARE)
        script = self._script("linear", source, "flowkiln")
        idle_seconds, idle = self._wide(python, script, 1)
        base_seconds, _ = self._wide(python, script, 1000)
        each = (base_seconds - idle_seconds) / 1000
        for width in self.wide:
            took, peak = self._wide(python, script, width)
            growth = (took - idle_seconds) / width / each
            objects = self._objects(script.parent) / (width + 4)
            yield Row(
                work=f"foreach of {width:,}",
                peer="itself at 1,000",
                ours=f"{took:.1f} s, {(took - idle_seconds) / width * 1000:.2f} ms a task",
                theirs=f"{base_seconds:.2f} s, {each * 1000:.2f} ms a task",
                ratio=f"{growth:.2f} a task; {peak - idle:+.0f} MB; {objects:.2f} objects a task",
                aim="linear; at most +100 MB; at most 2 objects a task",
                met=growth <= 1.25 and peak - idle <= 100 and objects <= 2.05,
            )

    def declared(self) -> Row:
        python = self.peers.flowkiln()
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        declared = self._script("declared", flows.DECLARED.format(python=version), "flowkiln")
        plain = self._script("plain", flows.THREE_STEPS, "flowkiln")
        pair = alternate(
            lambda: run([python, declared, "run", *WORKERS], cwd=declared.parent, environ=self.environ),
            lambda: run([python, plain, "run", *WORKERS], cwd=plain.parent, environ=self.environ),
            pairs=9,
        )
        return Row(
            work="`run` that finds its locks and environments in place",
            peer="the same flow without environments",
            ours=_ms(pair.ours),
            theirs=_ms(pair.theirs),
            ratio=f"{pair.more * 1000:+.0f} ms",
            aim="at most 100 ms more",
            met=pair.more <= 0.100,
        )

    def _both(self, name: str, source: str) -> tuple[Callable[[], str], Callable[[], str]]:
        ours = self._script(f"{name}-flowkiln", source, "flowkiln")
        theirs = self._script(f"{name}-metaflow", source, "metaflow")
        flowkiln, metaflow = self.peers.flowkiln(), self.peers.metaflow()
        return (
            lambda: run([flowkiln, ours, "run", *WORKERS], cwd=ours.parent, environ=self.environ),
            lambda: run([metaflow, theirs, "run", *WORKERS], cwd=theirs.parent, environ=self.environ),
        )

    def _script(self, name: str, source: str, library: str) -> Path:
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        script = folder / "flow.py"
        script.write_text(source.replace("{library}", library))
        return script

    def _wide(self, python: Path, script: Path, width: int) -> tuple[float, float]:
        shutil.rmtree(script.parent / ".flowkiln", ignore_errors=True)
        command: list[str | Path] = [python, script, "--quiet", "run", *WORKERS, "--width", str(width)]
        return peak_megabytes(command, cwd=script.parent, environ=self.environ)

    def _objects(self, folder: Path) -> int:
        return sum(1 for path in (folder / ".flowkiln" / "r").glob("*/t/*/*/*") if path.is_file())


def _ms(value: float) -> str:
    return f"{value * 1000:.0f} ms"


def _faster(work: str, ours: float, theirs: float, times: float, aim: int) -> Row:
    return Row(
        work=work,
        peer="Metaflow",
        ours=f"{ours:.2f} s",
        theirs=f"{theirs:.2f} s",
        ratio=f"{times:.1f} times faster",
        aim=f"{aim} times faster",
        met=times >= aim,
    )
