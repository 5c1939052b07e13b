"""``python -m benchmarks``: measures rows and writes them into ``docs/benchmarks.md``, a section for each group."""

from __future__ import annotations

import argparse
import datetime as dt
import itertools
import os
import platform
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import artifacts, baking, conda, condabaking, condalocking, containers, locking, materialise, stack
from benchmarks.measure import Row
from benchmarks.peers import Peers
from benchmarks.running import Running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from benchmarks.stack import Stack

GROUPS = {
    "running": "Running flows",
    "locking": "Locking",
    "materialise": "Environments on disk",
    "conda": "Conda environments on disk",
    "artifacts": "Artifacts",
    "baking": "Images",
    "condabaking": "Images of conda packages",
    "containers": "Containers",
}
"""The groups of rows, in the order of the page, with the titles of their sections."""
PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
HEADER = "| work | compared with | ours | theirs | measured | aim | met |\n|---|---|---|---|---|---|---|\n"
_MET = {True: "yes", False: "no", None: "-"}
_MISSED = "Where an aim is missed"


def measured(group: str, peers: Peers, options: argparse.Namespace) -> Iterator[Row]:
    """Every row of ``group``, as it is measured."""
    folder = peers.root / group
    if group == "running":
        return Running(peers, folder, wide=options.wide).rows()
    if group == "locking":
        return itertools.chain(locking.rows(peers, folder), condalocking.rows(peers, folder))
    if group == "materialise":
        return materialise.rows(peers, folder)
    if group == "conda":
        return conda.rows(folder)
    if group == "artifacts":
        return iter(artifacts.rows(peers.flowkiln(), folder, megabytes=options.megabytes))
    of_images = {"baking": baking.rows, "condabaking": condabaking.rows, "containers": containers.rows}
    return _of_images(of_images[group], peers, folder, options.pairs)


def _of_images(
    rows: Callable[[Peers, Path, Stack, int], Iterator[Row]], peers: Peers, folder: Path, pairs: int
) -> Iterator[Row]:
    try:
        yield from rows(peers, folder, stack.started(), pairs)
    finally:
        stack.ended()


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = (f"| {r.work} | {r.peer} | {r.ours} | {r.theirs} | {r.ratio} | {r.aim} | {_MET[r.met]} |" for r in rows)
    return HEADER + "\n".join(lines) + "\n"


def section(rows: list[Row]) -> str:
    """What stands below a section's title: the table with machine, versions and date."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("flowkiln", "uv"))
    return (
        f"{dt.datetime.now(tz=dt.UTC):%Y-%m-%d}, {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}, {versions}.\n\n"
        + table(rows)
    )


def sections(text: str) -> dict[str, str]:
    """The sections of a page that are of a group, by its name, without their titles."""
    titles = {title: group for group, title in GROUPS.items()}
    found = {}
    for part in text.split("\n## ")[1:]:
        title, _, body = part.partition("\n")
        if title in titles:
            found[titles[title]] = body.strip("\n") + "\n"
    return found


def rows_of(text: str) -> list[Row]:
    """The rows of the tables in ``text``."""
    back = {word: met for met, word in _MET.items()}
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and len(cells) == 7 and cells[-1] in back:
            work, peer, ours, theirs, ratio, aim, met = cells
            found.append(Row(work=work, peer=peer, ours=ours, theirs=theirs, ratio=ratio, aim=aim, met=back[met]))
    return found


def page(parts: Mapping[str, str]) -> str:
    """``docs/benchmarks.md`` made of the sections in ``parts``, by group."""
    known = [(GROUPS[group], parts[group]) for group in GROUPS if group in parts]
    rows = [row for _, text in known for row in rows_of(text)]
    return (
        "# Benchmarks\n\nRatios measured alternately in one run by `make bench`; medians. Absolute times belong to "
        "the machine and the day that stand above each table.\n"
        + "".join(f"\n## {title}\n\n{text}" for title, text in known)
        + missed(rows, explanations())
    )


def explanations() -> dict[str, str]:
    """Why aims are missed, by the beginning of a row's work: ``missed.toml``, which outlives the page."""
    return tomllib.loads(Path(__file__).with_name("missed.toml").read_text(encoding="utf-8"))


def missed(rows: list[Row], known: dict[str, str]) -> str:
    """The section on the rows that miss their aim, with what is known of each; empty when all meet it."""
    short = [row for row in rows if row.met is False]
    if not short:
        return ""
    lines = ["", f"## {_MISSED}", ""]
    for row in short:
        why = next((text for work, text in known.items() if row.work.startswith(work)), "not explained yet.")
        lines.append(f"* **{row.work}** (aim: {row.aim}): {' '.join(why.split())}")
    return "\n".join(lines) + "\n"


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(one) for one in text.split(",") if one)


def main() -> None:
    """Parses the arguments, measures and writes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "groups", nargs="*", default=list(GROUPS), help=f"of {', '.join(GROUPS)} (default: all)", metavar="GROUP"
    )
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "flowkiln-bench")
    parser.add_argument(
        "--wide", default="10000,100000", type=_numbers, help="foreach widths of the linearity rows"
    )
    parser.add_argument("--pairs", type=int, choices=range(1, 6), default=5, help="pairs of the rows about images")
    parser.add_argument("--megabytes", type=int, default=1024, help="size of the artifact")
    parser.add_argument(
        "--write", action="store_true", help="write docs/benchmarks.md; sections of other groups stay as they are"
    )
    options = parser.parse_args()
    if unknown := set(options.groups) - set(GROUPS):
        parser.error(f"no group is called {', '.join(sorted(unknown))}")
    options.folder.mkdir(parents=True, exist_ok=True)
    peers = Peers(options.folder)
    parts = sections(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else {}
    for group in options.groups:
        rows: list[Row] = []
        for row in measured(group, peers, options):
            rows.append(row)
            print(f"{row.work}: ours {row.ours}, {row.peer} {row.theirs}: {row.ratio} (aim {row.aim})", flush=True)
        parts[group] = section(rows)
        if options.write:
            PAGE.write_text(page(parts), encoding="utf-8")
    sys.stdout.write("\n" + "\n".join(parts[group] for group in options.groups))


if __name__ == "__main__":
    main()
