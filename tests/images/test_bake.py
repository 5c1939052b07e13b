"""Baking: layers that hold what a host tree holds, made once, equal everywhere, whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

from flowkiln._base.report import Silent
from flowkiln.envs.describing import Describer
from flowkiln.envs.fetch import Fetcher
from flowkiln.envs.installerrors import NotCached, PathOwnedTwice
from flowkiln.envs.tree import Trees
from flowkiln.envs.wheelstore import WheelStore
from flowkiln.executor import marker
from flowkiln.images import content, manifest
from flowkiln.images.errors import ContentDamaged, LayerDiffers
from tests.envs.made import PYTHON, interpreter
from tests.images.bakery import BASE, Kitchen, base_config, large, pin, plan
from tests.services.wheels import data_folder, wheel

if TYPE_CHECKING:
    from pathlib import Path

    from flowkiln.images.bake import Baked, Baker
    from flowkiln.images.manifest import Made
    from tests.services.wheels import Distribution

SITE = f"lib/python{PYTHON}/site-packages"


@pytest.fixture
def kitchen(tmp_path: Path) -> Kitchen:
    return Kitchen(tmp_path / "cache", tmp_path / "wheels")


def packages() -> tuple[Distribution, ...]:
    return (
        large("numbers"),
        wheel("tool", console={"tool": "tool:main"}, files={"tool.py": "def main(): pass\n"}),
        wheel(
            "scripted",
            files={
                "scripted/__init__.py": "x = 1\n",
                f"{data_folder('scripted')}/scripts/run-it": "#!python\nprint('ran')\n",
                f"{data_folder('scripted')}/data/share/doc.txt": "doc\n",
            },
        ),
    )


def unpacked(baker: Baker, baked: Baked, folder: Path) -> Path:
    """The layers of an image, in order, as a runtime would put them on each other."""
    for one in baked.layers:
        stream = io.BytesIO()
        baker.open(baked.plan, one, stream.write)
        stream.seek(0)
        with tarfile.open(fileobj=stream) as archive:
            archive.extractall(folder, filter="fully_trusted")
    return folder


def config_of(baked: Baked) -> str:
    return manifest.config(baked.plan, base_config(), baked.layers, baked.tree_digest).digest


def layer(baked: Baked, start: str) -> Made:
    return next(one for one in baked.layers if one.spec.title.startswith(start))


def members(baker: Baker, baked: Baked, one: Made) -> dict[str, tarfile.TarInfo]:
    stream = io.BytesIO()
    baker.open(baked.plan, one, stream.write)
    stream.seek(0)
    with tarfile.open(fileobj=stream) as archive:
        return {member.name: member for member in archive.getmembers()}


def test_an_image_holds_what_a_tree_of_this_host_holds(kitchen: Kitchen, tmp_path: Path) -> None:
    part = kitchen.part(*packages())
    baker = kitchen.baker()
    baked = baker.bake(plan(part), None)
    tree = Trees(kitchen.cache).materialise(part, interpreter())
    assert baked.tree_digest == tree.tree_digest
    root = unpacked(baker, baked, tmp_path / "root") / "opt" / "env"
    for path, (mode, sha256) in tree.files().items():
        file = root / path
        assert stat.S_IMODE(file.stat().st_mode) == mode, path
        assert hashlib.sha256(file.read_bytes()).hexdigest() == sha256, path
    assert (root / "bin" / "tool").read_bytes().startswith(b"#!/opt/env/bin/python\n")
    assert (root / "bin" / "run-it").read_bytes() == b"#!/opt/env/bin/python\nprint('ran')\n"
    assert os.readlink(root / "bin" / "python") == f"/usr/local/bin/python{PYTHON}"  # noqa: PTH115
    assert (root / "share" / "doc.txt").read_text() == "doc\n"
    assert not list(root.rglob("*.pyc"))
    cached = tmp_path / "root" / "opt" / "flowkiln" / "pyc"
    assert (cached / "opt" / "env" / SITE / f"tool.cpython-{PYTHON.replace('.', '')}.pyc").is_file()


@pytest.mark.parametrize("level", ["digest", "stat", "full"])
def test_the_supervisor_takes_it_for_proved(kitchen: Kitchen, tmp_path: Path, level: str) -> None:
    part = kitchen.part(*packages())
    baker = kitchen.baker()
    baked = baker.bake(plan(part), None)
    root = unpacked(baker, baked, tmp_path / "root") / "opt" / "env"
    marker.verify(str(root), part.env_id, baked.tree_digest, level)
    changed = root / SITE / "tool.py"
    changed.chmod(0o644)
    changed.write_text("def main(): evil\n" if level == "full" else "def main(): longer\n")
    changed.chmod(0o444)
    if level == "digest":
        marker.verify(str(root), part.env_id, baked.tree_digest, level)
        return
    with pytest.raises(marker.Mismatch, match=r"tool\.py"):
        marker.verify(str(root), part.env_id, baked.tree_digest, level)


def test_what_is_known_is_neither_made_nor_fetched(kitchen: Kitchen) -> None:
    part = kitchen.part(*packages())
    first = kitchen.baker().bake(plan(part), "gzip")
    assert {one.spec.kind for one in first.built} >= {"packages", "bytecode", "glue", "runtime"}
    kitchen.counted.clear()
    WheelStore(kitchen.cache).root.rename(kitchen.cache / "gone")
    again = kitchen.baker().bake(plan(part), "gzip")
    assert again.layers == first.layers
    assert again.built == ()
    assert kitchen.counted == []


def test_the_config_is_one_for_all_compressions(kitchen: Kitchen) -> None:
    one = plan(kitchen.part(*packages()))
    baker = kitchen.baker()
    plain, gzipped, zstd = (baker.bake(one, kind) for kind in (None, "gzip", "zstd"))
    assert config_of(plain) == config_of(gzipped) == config_of(zstd)
    made = layer(gzipped, "numbers")
    data = gzip.decompress(baker.blob(one, made, "gzip").read_bytes())
    assert "sha256:" + hashlib.sha256(data).hexdigest() == made.record.diff_id


def test_a_change_of_one_package_makes_its_layers_alone(kitchen: Kitchen) -> None:
    numbers, tool, scripted = packages()
    kitchen.baker().bake(plan(kitchen.part(numbers, tool, scripted)), "gzip")
    changed = kitchen.baker().bake(plan(kitchen.part(large("numbers", "1.1", seed=2), tool, scripted)), "gzip")
    assert [one.spec.title for one in changed.built] == [
        "numbers 1.1",
        "bytecode of numbers 1.1",
        "environment",
    ]


def test_a_package_without_python_has_no_bytecode_layer(kitchen: Kitchen) -> None:
    baked = kitchen.baker().bake(plan(kitchen.part(wheel("data", files={"data/a.bin": b"1"}))), "gzip")
    assert not [one for one in baked.layers if one.spec.title.startswith("bytecode of data")]


def test_bytecode_none_leaves_it_out(kitchen: Kitchen) -> None:
    baked = kitchen.baker().bake(plan(kitchen.part(*packages()), pin(bytecode=False)), "gzip")
    assert {one.spec.kind for one in baked.layers} == {"packages", "glue", "runtime"}
    environ = manifest.config(baked.plan, base_config(), baked.layers, baked.tree_digest).data
    assert b"PYTHONPYCACHEPREFIX" not in environ
    assert kitchen.counted == []


def test_the_winner_of_a_path_is_in_the_image_and_the_loser_is_not(kitchen: Kitchen, tmp_path: Path) -> None:
    alpha = large("alpha")
    beta = wheel("beta", files={"beta.py": "", "tests/test.py": "beta\n", "z.bin": os.urandom(1_100_000)})
    other = wheel("gamma", files={"gamma.py": "", "tests/test.py": "gamma\n"})
    with pytest.raises(PathOwnedTwice):
        kitchen.baker().bake(plan(kitchen.part(alpha, beta, other)), None)
    part = kitchen.part(alpha, beta, other, winners=((f"{SITE}/tests/test.py", "gamma"),))
    baker = kitchen.baker()
    baked = baker.bake(plan(part), None)
    assert f"opt/env/{SITE}/tests/test.py" not in members(baker, baked, layer(baked, "beta"))
    root = unpacked(baker, baked, tmp_path / "root")
    assert (root / "opt" / "env" / SITE / "tests" / "test.py").read_text() == "gamma\n"
    marker.verify(str(root / "opt" / "env"), part.env_id, baked.tree_digest, "full")


def test_a_damaged_wheel_is_unpacked_anew(kitchen: Kitchen) -> None:
    part = kitchen.part(*packages())
    first = kitchen.baker().bake(plan(part), "gzip")
    store = WheelStore(kitchen.cache)
    victim = next(one for one in part.wheels if one.name == "tool")
    path = store.content(victim.sha256) / "tool.py"
    path.chmod(0o644)
    path.write_text("def main(): EVIL\n")
    for record in (kitchen.cache / "images" / "layers").iterdir():
        record.unlink()
    again = kitchen.baker().bake(plan(part), "gzip")
    assert [one.record for one in again.layers] == [one.record for one in first.layers]
    assert path.read_text() == "def main(): pass\n"


def test_what_stays_damaged_is_an_error(kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch) -> None:
    part = kitchen.part(*packages())
    Describer(kitchen.cache, Fetcher()).describe(part, Silent())
    monkeypatch.setattr(Describer, "stored", lambda _self, _sha256, path: f"/nonexistent/{path}")
    with pytest.raises(ContentDamaged):
        kitchen.baker().bake(plan(part), "gzip")
    assert not list((kitchen.cache / "images" / "blobs").glob(".scratch*"))


def test_a_layer_that_comes_out_otherwise_than_recorded_is_refused(kitchen: Kitchen) -> None:
    one = plan(kitchen.part(*packages()))
    baker = kitchen.baker()
    made = layer(baker.bake(one, "gzip"), "numbers")
    blob = made.record.blob("gzip")
    assert blob is not None
    baker.blobs.path(blob[0]).unlink()
    assert baker.blob(one, made, "gzip").exists()
    record = kitchen.cache / "images" / "layers" / f"{made.spec.key[7:]}.json"
    document = json.loads(record.read_text())
    document["blobs"]["gzip"] = ["sha256:" + "5" * 64, 5]
    record.write_text(json.dumps(document))
    other = kitchen.baker()
    with pytest.raises(LayerDiffers):
        other.blob(one, layer(other.bake(one, "gzip"), "numbers"), "gzip")


def test_offline_names_what_is_missing(kitchen: Kitchen) -> None:
    part = kitchen.part(*packages())
    part = type(part)(
        **{
            **{name: getattr(part, name) for name in part.__dataclass_fields__},
            "wheels": tuple(
                type(one)(
                    **{
                        **{name: getattr(one, name) for name in one.__dataclass_fields__},
                        "url": "https://index.invalid/x.whl",
                    }
                )
                for one in part.wheels
            ),
        }
    )
    kitchen.offline = True
    with pytest.raises(NotCached, match="numbers"):
        kitchen.baker().bake(plan(part), "gzip")


SCRIPT = """
import json, os, sys
from pathlib import Path
from tests.images.bakery import Kitchen, plan
from tests.images.test_bake import config_of, packages
from flowkiln.images import manifest
from tests.images.bakery import base_config
os.umask(int(sys.argv[2], 8))
kitchen = Kitchen(Path(sys.argv[1]) / "cache", Path(sys.argv[1]) / "wheels")
baked = kitchen.baker().bake(plan(kitchen.part(*packages())), "gzip")
config = manifest.config(baked.plan, base_config(), baked.layers, baked.tree_digest)
print(json.dumps([config.digest, manifest.manifest(baked.plan, config, [], baked.layers, "gzip").digest,
                  len(baked.built), len(baked.layers)]))
"""


def run(folder: Path, umask: str = "022", **environ: str) -> subprocess.Popen[str]:
    root = __file__.rpartition("/tests/")[0]
    variables = {"PYTHONPATH": f"{root}/src:{root}", "PATH": "/usr/bin:/bin", "NO_PROXY": "127.0.0.1", **environ}
    command = [sys.executable, "-c", SCRIPT, str(folder), umask]
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answer(process: subprocess.Popen[str]) -> list[object]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    found: list[object] = json.loads(out)
    return found


def test_digests_are_the_same_from_anywhere(tmp_path: Path) -> None:
    first = answer(run(tmp_path / "a"))
    deep = tmp_path / "elsewhere" / ("x" * 100)
    other = answer(
        run(deep, "077", TZ="Pacific/Kiritimati", LC_ALL="C", LANG="tr_TR.UTF-8", PYTHONHASHSEED="77", HOME="/")
    )
    assert other[:2] == first[:2]


@pytest.mark.slow
def test_sixteen_bakes_at_once_make_each_layer_once(tmp_path: Path) -> None:
    processes = [run(tmp_path) for _ in range(16)]
    answers = [answer(process) for process in processes]
    assert len({tuple(one[:2]) for one in answers}) == 1
    assert sum(int(str(one[2])) for one in answers) == int(str(answers[0][3]))


@pytest.mark.slow
def test_kills_at_any_moment_leave_nothing_wrong(tmp_path: Path) -> None:
    expected = answer(run(tmp_path / "calm"))
    for number in range(8):
        process = run(tmp_path / "hit")
        try:
            process.wait(0.25 + 0.1 * number)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
    assert answer(run(tmp_path / "hit"))[:2] == expected[:2]


def test_base_documents_fit_the_pin() -> None:
    assert pin().manifest == BASE.document.digest
    assert content.PART_SCHEMA == 1
