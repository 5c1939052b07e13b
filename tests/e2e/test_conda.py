"""Conda and mixed environments through the command line: locked, run as processes and in containers, baked."""

from __future__ import annotations

import json
import re
import shutil
import struct
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flowkiln.images.places import BYTECODE
from tests.images import elves
from tests.services import unavailable
from tests.services.condachannel import _wheel
from tests.services.condapackages import PLACEHOLDER
from tests.services.wheels import wheel
from tests.source import ROOT
from tests.stack.place import CannotRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.project import Project
    from tests.services.channel import Channel, ChannelServer
    from tests.services.index import PackageIndex
    from tests.stack import Engine

pytestmark = pytest.mark.e2e

PYPI = [
    (
        "patsy-1.0.1-py2.py3-none-any.whl",
        "751fb38f9e97e62312e921a1954b81e1bb2bcda4f5eeabaf94db251ee791509c",
        "87/2b/b50d3d08ea0fc419c183a84210571eba005328efa62b6b98bc28e9ead32a",
    ),
    (
        "humanize-4.12.3-py3-none-any.whl",
        "2cbf6370af06568fa6d2da77c86edb7886f3160ecd19ee1ffef07979efc597f6",
        "a0/1e/62a2ec3104394a2975a2629eec89276ede9dbe717092f6966fcf963e1bf0",
    ),
]
"""What the example has from PyPI: file, sha256, place."""


@pytest.fixture
def mixed(
    project: Project,
    package_index: PackageIndex,
    channel_server: ChannelServer,
    conda_channel: Channel,
    docker_engine: Engine,
    slim_base: str,
) -> Project:
    """A project with a channel, an index and an engine."""
    package_index.add(wheel("alpha", "1.0"))
    project.environ |= {
        "FLOWKILN_CHANNELS": channel_server.mount("main", conda_channel),
        "UV_DEFAULT_INDEX": package_index.url,
        "DOCKER_HOST": docker_engine.host,
        "FLOWKILN_IMAGES_BASE": slim_base.replace("3.11", "{python}"),
    }
    project.flow("activating")
    return project


DOCKER = ("--with", "docker")
SEEN = """\
import os
for name in ("ACTIVATED_HOME", "ACTIVATED_PATHS", "ENV_VARS_ONE"):
    print(os.environ[name].replace(os.environ["CONDA_PREFIX"], "@"))
"""
"""Says what activation set, with the prefix as a sign."""


def environments(project: Project, flow: str = "Activating") -> dict[str, dict[str, Any]]:
    """What the last run recorded of the environment of each step."""
    run = (project.folder / "id").read_text().strip()
    shown = project.flowkiln("run", "show", f"{flow}/{run}", "--json").ok().json
    return {task["step"]: task["environment"] for task in shown["tasks"] if task["step"] != "_parameters"}


def locks(project: Project, folder: str = "flow.locks") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (project.folder / folder).iterdir()}


def versions(project: Project, env: str) -> dict[str, str]:
    shown = project.flowkiln("env", "show", f"flow.py:{env}", "--json").ok().json
    return {one["name"]: one["version"] for one in shown["shown"]["packages"]}


def layout_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The files of all layers of the one image in an OCI layout."""

    def blob(digest: str) -> Path:
        return folder / "blobs" / digest.replace(":", "/")

    (named,) = json.loads((folder / "index.json").read_text())["manifests"]
    for layer in json.loads(blob(named["digest"]).read_bytes())["layers"]:
        with tarfile.open(blob(layer["digest"])) as archive:
            for entry in archive:
                file = archive.extractfile(entry) if entry.isreg() else None
                if file is not None:
                    yield entry.name, file.read()


def after(word: str, out: str) -> list[str]:
    """What follows ``word`` in the lines of tasks that begin with it."""
    return re.findall(rf"\] {word} (.*)", out)


@pytest.fixture
def example(
    mixed: Project,
    start_index: Callable[[], PackageIndex],
    start_channels: Callable[[], ChannelServer],
    conda_channel: Channel,
) -> tuple[Project, Callable[[], None]]:
    """The project with the example in it, and what stops the index and the channel, which are its own."""
    index, channels = start_index(), start_channels()
    index.add_folder(pypi_wheels(mixed.home / "wheels"))
    mixed.environ["UV_DEFAULT_INDEX"] = index.url
    mixed.environ["FLOWKILN_STORE"] = str(mixed.folder / ".flowkiln")
    mixed.environ["FLOWKILN_CHANNELS"] = channels.mount("main", conda_channel)
    shutil.copytree(
        ROOT / "examples" / "mixed",
        mixed.folder / "mixed",
        ignore=shutil.ignore_patterns(".*", "*.locks", "__pycache__"),
    )
    (mixed.folder / "flights").mkdir()
    shutil.copy(ROOT / "examples" / "flights" / "weather.csv.gz", mixed.folder / "flights")

    def stop() -> None:
        index.stop()
        channels.stop()

    return mixed, stop


def pypi_wheels(folder: Path) -> Path:
    """A folder with what the example has from PyPI."""
    folder.mkdir()
    for name, sha256, place in PYPI:
        url = f"https://files.pythonhosted.org/packages/{place}/{name}"
        try:
            shutil.copy(_wheel({"filename": name, "sha256": sha256, "url": url}), folder)
        except CannotRun as reason:
            unavailable(str(reason))
    return folder


def results(out: str) -> list[str]:
    """What the last step printed."""
    return re.findall(r"/end/\d+\] (?!Task)(.*)", out)


def check_sides(project: Project, lines: list[str]) -> None:
    """Holds each row that the example prints of a distribution against the lock and against what is installed."""
    rows = [found.groups() for line in lines if (found := re.fullmatch(r"(\w+) +(\S+) +(\S+) +(lib/\S+)", line))]
    for step in ("start", "fit", "end"):
        own = [row[1:] for row in rows if row[0] == step]
        shown = project.flowkiln("env", "show", f"mixed/weather.py:{step}", "--json").ok().json["shown"]
        sides = {one["name"]: one["from"] for one in shown["packages"]}
        installers = {"conda": "conda", "flowkiln": "pypi"}
        assert own
        assert {name: installers[installer] for name, installer, _ in own} == {
            name: sides[name] for name, _, _ in own
        }
        root = Path(project.flowkiln("env", "path", f"mixed/weather.py:{step}").ok().out.strip())
        metas = [json.loads(one.read_text()) for one in root.glob("conda-meta/*.json")]
        of_conda = {file for meta in metas for file in meta["files"]}
        assert {path in of_conda for _, installer, path in own if installer == "conda"} <= {True}
        assert {path in of_conda for _, installer, path in own if installer != "conda"} <= {False}
    assert {row[1:3] for row in rows if row[0] == "fit"} >= {("patsy", "flowkiln"), ("numpy", "conda")}


def test_the_example_is_the_same_as_processes_and_in_containers(
    example: tuple[Project, Callable[[], None]],
) -> None:
    project, stop = example
    texts, proofs = [], []
    for words in ((), ("--with", "docker")):
        command = ("mixed/weather.py", "run", "--run-id-file", "id", *words)
        texts.append(results(project.python(*command).ok().out))
        proofs.append(environments(project, "Weather"))
    assert texts[0] == texts[1]
    assert texts[0][:2] == ["1,977 hours at 3 airports", "error 1.288 miles, of the mean alone 1.775"]
    check_sides(project, texts[0])
    for step, proof in proofs[1].items():
        assert {proof[key] == proofs[0][step][key] for key in ("env_id", "tree_digest", "lock_id")} == {True}
        assert (proof["level"], proof["vouched"]) == ("digest", "engine")
    before = locks(project, "mixed/pyproject.locks")
    stop()
    for words in ((), DOCKER):
        done = project.python("mixed/weather.py", "run", "--verify-env", "full", *words).ok()
        assert results(done.out) == texts[0]
    others = [results(project.python("mixed/stations.py", "run", *words).ok().out) for words in ((), DOCKER)]
    assert others[0] == others[1]
    assert others[0][0] == "741 hours that all airports have"
    assert locks(project, "mixed/pyproject.locks") == before


def test_activation_is_the_same_in_processes_and_containers(mixed: Project) -> None:
    told, proofs = [], []
    for words in (("--with", "docker"), ()):
        done = mixed.run("--run-id-file", "id", *words).ok()
        assert after("result", done.out) == ["2.2.6 1.0 found by its variable"]
        told.append(json.loads(*after("seen", done.out)))
        proofs.append(environments(mixed))
    activated = {
        "ACTIVATED_HOME": "@/share/activated",
        "ACTIVATED_PATHS": "a:",
        "ENV_VARS_ONE": "1",
        "ENV_VARS_TEXT": 'two words, "quoted" = $HOME',
    }
    assert told[0] == told[1] == [activated, {**activated, "ENV_VARS_ONE": "the step's"}]
    as_processes, in_containers = ({step: one["activation"] for step, one in found.items()} for found in proofs)
    assert as_processes == in_containers
    assert set(activated) <= set(as_processes["start"]["variables"])
    assert "ENV_VARS_ONE" not in as_processes["end"]["variables"]
    run = (mixed.folder / "id").read_text().strip()
    for env, one in (("flow.py:end", "1"), (f"Activating/{run}/end/2", "the step's")):
        for words in (("--with", "docker"), ()):
            seen = mixed.flowkiln("env", "exec", env, *words, "--", "python", "-c", SEEN).ok().out
            assert seen.splitlines() == ["@/share/activated", "a:", one]
    absent = ("env", "exec", "flow.py:end", "--with", "docker", "--", "no-such-program")
    mixed.flowkiln(*absent).failed(127, "no-such-program could not be started: No such file or directory")


def test_libraries_that_no_package_brings_are_named_for_conda_packages_too(mixed: Project) -> None:
    mixed.flowkiln("env", "lock", "flow.py").ok()
    words = ("env", "bake", "flow.py:end", "--to", "oci:images", "--platform", "linux/amd64")
    baked = mixed.flowkiln(*words).ok()
    (told,) = re.findall(r"neither its packages nor its base have (.*)\. If it is used", baked.err)
    # the interpreter is Debian's, whose module nis needs what no package of the channel has
    assert told == "libnsl.so.2 (needed by python), libtirpc.so.3 (needed by python)"


def test_c07_programs_of_the_environment_are_found_by_name_from_python_and_shells(mixed: Project) -> None:
    text = (mixed.folder / "flow.py").read_text()
    text = text.replace('@conda(packages={"numpy": "*"})', '@conda(packages={"numpy": "*", "noarch-python": "*"})')
    look = """
        import subprocess
        prefix = os.environ["CONDA_PREFIX"]
        for words in (["noarch-main"], ["bash", "-c", "noarch-main"]):
            told = subprocess.run(words, capture_output=True, text=True).stdout
            print("tool", told.strip().replace(prefix, "@"))
"""
    mixed.write("flow.py", text.replace("        self.seen = seen()\n", f"{look}        self.seen = seen()\n"))
    for words in (("--with", "docker"), ()):
        assert after("tool", mixed.run(*words).ok().out) == ["noarch-python @"] * 2


def test_scripts_of_packages_are_refused_with_the_step(mixed: Project) -> None:
    text = (mixed.folder / "flow.py").read_text()
    mixed.write("flow.py", text.replace('{"numpy": "*"}', '{"post-link": "*"}'))
    for words in (("--with", "docker"), ()):
        done = mixed.run(*words)
        done.failed(2, "[ENV084] step 'start': scripts of conda packages", "post-link 1.0 (post-link)", "hint:")
    assert not list(mixed.home.rglob("post-link-ran.txt"))


def test_a_driver_too_old_for_cuda_is_refused_at_launch_and_an_unknown_one_is_recorded(mixed: Project) -> None:
    text = (mixed.folder / "flow.py").read_text()
    mixed.write("flow.py", text.replace('python="3.11",', 'python="3.11", cuda="12.4",'))
    mixed.run("--run-id-file", "id").ok()
    run = (mixed.folder / "id").read_text().strip()
    opened = (mixed.folder / ".flowkiln" / "flows" / "Activating" / "runs" / run).read_text().splitlines()[0]
    recorded = [one["driver"] for one in json.loads(opened)["locks"].values()]
    assert recorded == [{"cuda": "12.4", "found": None}] * 2
    version = mixed.write("version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\n")
    patch = (
        f"from pathlib import Path\nfrom flowkiln.envs import driver\ndriver.KERNEL_FILE = Path({str(version)!r})\n"
    )
    mixed.environ["PYTHONPATH"] = str(mixed.write("patch/sitecustomize.py", patch).parent)
    for words in (DOCKER, ()):
        done = mixed.run(*words)
        done.failed(17, "[ENV085] step 'start': the lock is for CUDA 12.4", "driver 550.54.14", "has 535.104.05")


def test_a_lock_stays_until_an_upgrade_and_then_moves_that_package_only(
    mixed: Project, conda_channel: Channel, channel_server: ChannelServer, tmp_path: Path
) -> None:
    older = conda_channel.mirror(tmp_path / "older")
    for subdir in ("linux-64", "linux-aarch64"):
        for path in (older.folder / subdir).glob("numpy-2.*"):
            older.omit(path)
    channel_server.mount("main", older.index())
    mixed.flowkiln("env", "lock", "flow.py").ok()
    before, chosen = locks(mixed), versions(mixed, "start")
    assert chosen["numpy"] == "1.26.4"
    channel_server.mount("main", conda_channel)
    mixed.flowkiln("env", "lock", "flow.py").ok()
    assert locks(mixed) == before
    mixed.flowkiln("env", "lock", "--upgrade", "numpy", "flow.py").ok()
    assert versions(mixed, "start") == {**chosen, "numpy": "2.2.6"}
    after_it = locks(mixed)
    assert {name for name, data in after_it.items() if before.get(name) != data} == {
        "flowkiln.lock",
        "start.conda-lock.yml",
    }


def test_an_upgrade_in_a_mixed_environment_moves_only_what_it_must_on_both_sides(
    mixed: Project,
    package_index: PackageIndex,
    conda_channel: Channel,
    channel_server: ChannelServer,
    tmp_path: Path,
) -> None:
    older = conda_channel.mirror(tmp_path / "older")
    for subdir in ("linux-64", "linux-aarch64"):
        for path in (older.folder / subdir).glob("numpy-2.*"):
            older.omit(path)
    channel_server.mount("main", older.index())
    package_index.add(wheel("user", "1.0", requires=("numpy<2", "beta")), wheel("beta", "1.0"))
    text = (mixed.folder / "flow.py").read_text()
    text = text.replace('@pypi(packages={"alpha": "*"})', '@pypi(packages={"alpha": "*", "user": "*"})')
    mixed.write("flow.py", text.replace('"env-vars": "*"', '"env-vars": "*", "numpy": "*"'))
    mixed.flowkiln("env", "lock", "flow.py").ok()
    first = versions(mixed, "end")
    assert [first[name] for name in ("numpy", "user", "beta", "alpha")] == ["1.26.4", "1.0", "1.0", "1.0"]
    told = mixed.flowkiln("env", "why", "python", "flow.py:end").ok().out
    assert "\n  user 1.0 -> numpy 1.26.4 -> python 3.11.2\n" in told

    channel_server.mount("main", conda_channel)
    package_index.add(
        wheel("user", "2.0", requires=("numpy>=2", "beta")), wheel("user", "1.1", requires=("numpy<2",))
    )
    package_index.add(wheel("beta", "2.0"), wheel("alpha", "2.0"))

    def upgraded(name: str) -> dict[str, str]:
        before = versions(mixed, "end")
        mixed.flowkiln("env", "lock", "--upgrade", name, "flow.py").ok()
        now = versions(mixed, "end")
        return {one: now.get(one, "gone") for one in before if now.get(one) != before[one]}

    assert upgraded("beta") == {"beta": "2.0"}
    assert upgraded("user") == {"user": "1.1", "beta": "gone"}  # the newest that the numpy of the lock allows
    mixed.flowkiln("env", "lock", "--upgrade", "absent", "flow.py").failed(2)
    assert upgraded("numpy") == {"numpy": "2.2.6", "user": "2.0"}  # its 1.1 does not accept this one
    assert versions(mixed, "end")["alpha"] == "1.0"


def test_shown_3_an_arm64_image_of_a_mixed_environment_is_baked_without_running_it(
    mixed: Project, package_index: PackageIndex, tmp_path: Path
) -> None:
    """A07, E14: only programs of that architecture, the prefix written, and the same image from two caches."""
    for arch, machine in (("x86_64", elves.AMD64), ("aarch64", elves.ARM64)):
        files: dict[str, bytes | str] = {"fast/__init__.py": "", "fast/_fast.so": elves.shared(machine=machine)}
        package_index.add(wheel("fast", tag=f"cp311-cp311-manylinux_2_17_{arch}", files=files))
    both = '@pypi(packages={"fast": "*"})\n    @conda(packages={"numpy": "*", "prefix-binary": "*"})'
    text = (mixed.folder / "flow.py").read_text()
    mixed.write("flow.py", text.replace('@conda(packages={"numpy": "*"})', both))
    mixed.flowkiln("env", "lock", "flow.py").ok()
    images = []
    for number in ("one", "two"):
        bake = ("env", "bake", "flow.py:start", "--to", f"oci:{tmp_path / number}", "--platform", "linux/arm64")
        mixed.flowkiln(*bake, FLOWKILN_CACHE=str(tmp_path / f"cache-{number}")).ok()
        images.append(json.loads((tmp_path / number / "index.json").read_bytes())["manifests"])
    assert images[0] == images[1]
    everything = dict(layout_files(tmp_path / "one"))
    compiled = {name for name in everything if name.endswith(".pyc")}
    for module in ("os", "encodings/utf_8", "site-packages/numpy/__init__"):
        assert f"{BYTECODE}/opt/env/lib/python3.11/{module}.cpython-311.pyc".lstrip("/") in compiled
    files_of = {name: data for name, data in everything.items() if name.startswith("opt/")}
    elf = {name: data for name, data in files_of.items() if data[:4] == b"\x7fELF" and data[4] == 2}
    machines = {name: struct.unpack_from("<H", data, 18)[0] for name, data in elf.items()}
    assert set(machines.values()) == {elves.ARM64}
    site = "opt/env/lib/python3.11/site-packages"
    numpy = next(name for name in machines if name.startswith(f"{site}/numpy/"))
    assert {f"{site}/fast/_fast.so", "opt/env/bin/python3.11", numpy} <= set(machines)
    left = [name for name, data in files_of.items() if PLACEHOLDER.encode() in data]
    assert [name for name in left if not name.startswith("opt/env/.flowkiln/")] == []
    assert [data for name, data in files_of.items() if "/_sysconfigdata_" in name and b"'/opt/env" in data]
    assert b"\0/opt/env/lib/python3.11\0" in files_of["opt/env/bin/python3.11"]
    assert b"-Wl,-rpath,/opt/env/lib\0" in files_of["opt/env/lib/libprefix.so"]
