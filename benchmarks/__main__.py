"""``python -m benchmarks``: measures every row and writes ``docs/benchmarks.md``."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import artifacts, locking, materialise
from benchmarks.peers import Peers
from benchmarks.running import Running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.measure import Row

GROUPS = ("running", "locking", "materialise", "artifacts")
HEADER = "| work | compared with | ours | theirs | measured | aim | met |\n|---|---|---|---|---|---|---|\n"


def measured(groups: list[str], folder: Path, wide: tuple[int, ...], megabytes: int) -> Iterator[Row]:
    """Every row of ``groups``, as it is measured."""
    peers = Peers(folder)
    if "running" in groups:
        yield from Running(peers, folder / "running", wide=wide).rows()
    if "locking" in groups:
        yield from locking.rows(peers, folder / "locking")
    if "materialise" in groups:
        yield from materialise.rows(peers, folder / "materialise")
    if "artifacts" in groups:
        yield from artifacts.rows(peers.flowkiln(), folder / "artifacts", megabytes=megabytes)


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = (
        f"| {r.work} | {r.peer} | {r.ours} | {r.theirs} | {r.ratio} | {r.aim} | {'yes' if r.met else 'no'} |"
        for r in rows
    )
    return HEADER + "\n".join(lines) + "\n"


def page(rows: list[Row]) -> str:
    """``docs/benchmarks.md``: the table with machine, versions and date."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("flowkiln", "uv"))
    return (
        "# Benchmarks\n\nRatios measured alternately in one run by `make bench`; medians. Absolute times belong to "
        "this machine on this day.\n\n"
        f"{dt.datetime.now(tz=dt.UTC):%Y-%m-%d}, {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}, {versions}.\n\n"
        + table(rows)
        + missed(rows, explanations())
    )


def explanations() -> dict[str, str]:
    """Why aims are missed, by the beginning of a row's work: ``missed.toml``, which outlives the page."""
    return tomllib.loads(Path(__file__).with_name("missed.toml").read_text(encoding="utf-8"))


def missed(rows: list[Row], known: dict[str, str]) -> str:
    """The section on the rows that miss their aim, with what is known of each; empty when all meet it."""
    short = [row for row in rows if not row.met]
    if not short:
        return ""
    lines = ["", "## Where an aim is missed", ""]
    for row in short:
        why = next((text for work, text in known.items() if row.work.startswith(work)), "not explained yet.")
        lines.append(f"* **{row.work}** (aim: {row.aim}): {' '.join(why.split())}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parses the arguments, measures and writes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("groups", nargs="*", default=list(GROUPS), help=f"of {', '.join(GROUPS)} (default: all)")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "flowkiln-bench")
    parser.add_argument("--wide", default="10000,100000", help="foreach widths of the linearity rows")
    parser.add_argument("--megabytes", type=int, default=1024, help="size of the artifact")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    wide = tuple(int(text) for text in options.wide.split(",") if text)
    rows: list[Row] = []
    for row in measured(options.groups, options.folder, wide, options.megabytes):
        rows.append(row)
        print(f"{row.work}: ours {row.ours}, {row.peer} {row.theirs}: {row.ratio} (aim {row.aim})", flush=True)
    if options.write:
        (Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md").write_text(page(rows))
    sys.stdout.write("\n" + table(rows))


if __name__ == "__main__":
    main()
