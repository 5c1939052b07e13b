"""Hands what ``flowkiln env bake --json`` printed to a job of GitHub Actions: an output and a table."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def main(path: str) -> int:
    """Appends to the files that the job names in its environment."""
    images = json.loads(Path(path).read_text(encoding="utf-8"))["images"]
    with Path(os.environ["GITHUB_OUTPUT"]).open("a", encoding="utf-8") as file:
        file.write(f"images={json.dumps(images)}\n")
    with Path(os.environ["GITHUB_STEP_SUMMARY"]).open("a", encoding="utf-8") as file:
        file.write("\n".join(table(images)) + "\n")
    return 0


def table(images: list[dict[str, Any]]) -> list[str]:
    """The lines of a table in Markdown."""
    lines = ["| environment | steps | platform | image | |", "|---|---|---|---|---|"]
    for one in images:
        steps = ", ".join(one["steps"])
        pushed = f"{one['status']}, {one['bytes_pushed'] / 1e6:.1f} MB pushed"
        lines.append(f"| {one['env']} | {steps} | {one['platform']} | `{one['image']}` | {pushed} |")
    return lines


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
