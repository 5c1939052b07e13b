"""What lies in the layers of packages and of their bytecode."""

from __future__ import annotations

import hashlib
import marshal
import platform
import sys
from pathlib import Path

import pytest

from flowkiln.envs import installer
from flowkiln.envs.describing import Described
from flowkiln.envs.lock import LockedWheel
from flowkiln.envs.wheel import Wheel, WheelFile
from flowkiln.images import content, layers
from flowkiln.images.bytecode import HostCompiler
from flowkiln.images.layers import LayerSpec
from tests.images.made import MIB, part, wheel

VERSION = platform.python_version()
PYTHON = VERSION.rpartition(".")[0]
SITE = "lib/python3.11/site-packages"
SHARED = [name for name in (f"pack{number}" for number in range(90)) if layers.bucket_of(name) == 0][:2]


class Stored:
    """Unpacked wheels in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def stored(self, sha256: str, path: str) -> str:
        return str(self.folder / sha256 / path)

    def unpacked(self, locked: LockedWheel, files: dict[str, bytes]) -> Wheel:
        rows = []
        for path, data in sorted(files.items()):
            target = Path(self.stored(locked.sha256, path))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            rows.append(WheelFile("site", path, path, len(data), hashlib.sha256(data).hexdigest(), False, False))
        return Wheel(
            sha256=locked.sha256,
            name=locked.name,
            version=locked.version,
            filename=locked.filename,
            dist_info=f"{locked.name}-{locked.version}.dist-info",
            files=tuple(rows),
            entry_points=(),
        )


def cut(
    folder: Path, sizes: dict[str, int], files: dict[str, dict[str, bytes]], winners: tuple[tuple[str, str], ...]
) -> tuple[list[LayerSpec], Described, Stored]:
    """The layers of an environment of these packages, and what installing it writes."""
    stored = Stored(folder)
    locked = part(*(wheel(name, size) for name, size in sizes.items()), winners=winners)
    packages = [
        installer.package(stored.unpacked(one, {**files[one.name], f"{one.name}/own.py": b"own = 1\n"}), "3.11")
        for one in locked.wheels
    ]
    tree = installer.combine(packages, dict(winners))
    return layers.cut(locked), Described(packages={p.of.sha256: p for p in packages}, tree=tree), stored


@pytest.mark.parametrize("size", [1000, 2 * MIB])
@pytest.mark.parametrize("winner", SHARED)
def test_the_chosen_distribution_gives_the_file_and_its_bytecode(tmp_path: Path, winner: str, size: int) -> None:
    """Whether the two share a layer or not. Bytecode is loaded without a look at the source: it must be of it."""
    files = {name: {"both.py": f"who = {name!r}\n".encode()} for name in SHARED}
    path = f"{SITE}/both.py"
    found, described, stored = cut(tmp_path, dict.fromkeys(SHARED, size), files, ((path, winner),))
    assert len(found) == (1 if size == 1000 else 2)
    sources, codes = [], []
    compiler = HostCompiler(sys.executable, VERSION)
    for layer in found:
        for member in content.package_members(layer, described, stored):
            if member.path == f"opt/env/{path}":
                sources.append(Path(str(member.source)).read_bytes())
        twin = layers.bytecode_of(layer, VERSION)
        for member in content.bytecode_members(twin, described, stored, compiler, PYTHON):
            if member.path.startswith("opt/flowkiln/pyc/opt/env/") and "/both." in member.path:
                assert isinstance(member.source, bytes)
                codes.append(marshal.loads(member.source[16:]))
    assert sources == [files[winner]["both.py"]]
    assert [code.co_consts[0] for code in codes] == [winner]


def test_equal_files_lie_in_each_layer_once(tmp_path: Path) -> None:
    """A layer depends on its own packages alone, so that environments can share it."""
    files = {name: {"both.py": b"x = 1\n"} for name in SHARED}
    path = f"opt/env/{SITE}/both.py"
    for size, count in ((1000, 1), (2 * MIB, 2)):
        found, described, stored = cut(tmp_path / str(count), dict.fromkeys(SHARED, size), files, ())
        members = [one.path for layer in found for one in content.package_members(layer, described, stored)]
        assert members.count(path) == count


def test_a_layer_is_compiled_in_one_go(tmp_path: Path) -> None:
    found, described, stored = cut(tmp_path, dict.fromkeys(SHARED, 1000), {name: {} for name in SHARED}, ())
    calls: list[list[str]] = []

    class Counting:
        version = VERSION

        def compile(self, sources: list[tuple[str, str | bytes]]) -> dict[str, bytes]:
            calls.append([path for path, _ in sources])
            return {}

    assert content.bytecode_members(found[0], described, stored, Counting(), PYTHON) == []  # type: ignore[arg-type]
    assert calls == [[f"/opt/env/{SITE}/{name}/own.py" for name in sorted(SHARED)]]
