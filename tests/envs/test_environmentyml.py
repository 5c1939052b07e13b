from __future__ import annotations

from pathlib import Path

import pytest

from flowkiln._base.platforms import Platform
from flowkiln.envs import environmentyml, exporting
from flowkiln.envs.directerrors import FolderMissing
from flowkiln.envs.errors import BadRequirement, BadSource
from flowkiln.envs.lockfileerrors import NotHonoured
from tests.envs import condalocks
from tests.envs.test_lockfolder import a_wheel

PATH = Path("environment.yml")
TEXT = """\ufeff# made by the team
name: train
channels: [nvidia, conda-forge, https://channels.example/ours, nodefaults]
platforms: [linux-64, osx-arm64, win-64]
dependencies:
  - python=3.11          # the one of production
  - numpy  >=1.26,<2
  - pytorch::pytorch=2.4=py3.11_cuda12.4*
  - libblas[version='*', build='*openblas']
  - _openmp_mutex
  - pip
  - pip:
      - requests[socks] == 2.32.* ; python_version > "3.8"
      - --extra-index-url https://${USER_NAME}@index.example/simple
      - alpha==1.0 --hash=sha256:%s
variables:
  OMP_NUM_THREADS: 1
  RATIO: 1.10
  EMPTY:
""" % ("a" * 64)


def test_everything_that_is_honoured() -> None:
    found = environmentyml.read(TEXT, PATH, environ={"USER_NAME": "me"})
    assert found.name == "train"
    assert found.channels == ("nvidia", "conda-forge", "https://channels.example/ours")
    assert found.nodefaults
    assert found.platforms == (Platform("darwin", "arm64"), Platform("linux", "amd64"))
    assert found.others == ("win-64",)
    assert found.conda == (
        "python=3.11",
        "numpy >=1.26,<2",
        "pytorch::pytorch=2.4=py3.11_cuda12.4*",
        "libblas[version='*', build='*openblas']",
        "_openmp_mutex",
        "pip",
    )
    assert found.pip.requirements == ['requests[socks]==2.32.* ; python_version > "3.8"', "alpha==1.0"]
    assert found.pip.indexes == ("https://me@index.example/simple", "default")
    assert found.pip.hashes == {"alpha": {"a" * 64}}
    assert found.variables == (("EMPTY", ""), ("OMP_NUM_THREADS", "1"), ("RATIO", "1.10"))
    assert found.python == "3.11"


def test_an_empty_file_asks_for_nothing() -> None:
    found = environmentyml.read("name: x\ndependencies:\n", PATH)
    assert (found.conda, found.channels, found.pip.requirements, found.nodefaults, found.python) == (
        (),
        (),
        [],
        False,
        None,
    )


PYTHONS = {
    "python=3.11": "3.11",
    "python ==3.11.9": "3.11.9",
    "conda-forge::python 3.12.*": "3.12",
    "python=3.11.9=hb806964_0_cpython": "3.11.9",
    "python >=3.11": None,
    "python": None,
    "python=3.11|3.12": None,
    "python-dateutil=3.11": None,
}


@pytest.mark.parametrize("spec", PYTHONS)
def test_the_python_that_is_pinned(spec: str) -> None:
    assert environmentyml.read(f"dependencies: ['{spec}']", PATH).python == PYTHONS[spec]


def test_what_we_export_is_read() -> None:
    lock = condalocks.lock("fit", a_wheel("alpha"))
    found = environmentyml.read(exporting.environment(lock, lock.platforms[0]), PATH)
    assert found.channels == lock.channels
    assert found.nodefaults
    assert found.conda[:-1] == tuple(f"{one.name}={one.version}={one.build}" for one in lock.platforms[0].conda)
    assert (found.pip.requirements, found.pip.hashes) == (["alpha==1.0"], {"alpha": {a_wheel("alpha").sha256}})
    assert found.python == "3.11.9"


BAD = {
    "a key of others": ("name: x\ncategory: dev\n", NotHonoured, "line 2: the key 'category' cannot be honoured"),
    "an unknown key": ("name: x\n# extra\nextra: 1\n", NotHonoured, "line 3: the key 'extra' cannot be honoured"),
    "a category": ("category: dev\n", NotHonoured, "an environment has no categories"),
    "a selector": (
        "dependencies:\n  - numpy\n  - cuda  # [linux64]\n",
        NotHonoured,
        "line 3: the selector [linux64]",
    ),
    "another part": ("dependencies:\n  - npm: [x]\n", NotHonoured, "line 2: the part 'npm' cannot be honoured"),
    "a list in the list": ("dependencies:\n  - [x]\n", NotHonoured, "line 1: an entry is not a text"),
    "a URL": ("dependencies:\n  - https://c.example/x.conda\n", NotHonoured, "line 2: 'https://c.example/x.conda'"),
    "a path": ("dependencies: [./x-1-0.conda]\n", NotHonoured, "is a file, not a package of a channel"),
    "Windows alone": ("platforms: [win-64]\n", NotHonoured, "of win-64, flowkiln has no platform"),
    "no package": ("dependencies:\n  - numpy\n  - '>=1'\n", BadSource, "line 3: '>=1' is not a package"),
    "a text for a list": ("channels: conda-forge\n", BadSource, "line 1: channels is not a list of texts"),
    "a list for a text": ("name: [x]\n", BadSource, "name is not a text"),
    "a variable": ("variables: {a-b: 1}\n", BadSource, "'a-b' is no variable with a text"),
    "variables in a list": ("variables: [A=1]\n", BadSource, "variables is not a mapping"),
    "dependencies in a mapping": ("dependencies: {numpy: 1}\n", BadSource, "dependencies is not a list"),
    "an editable project": ("dependencies: [{pip: ['-e ./absent']}]\n", FolderMissing, "pip entry '-e ./absent'"),
    "no requirement": ("dependencies: [{pip: ['a b']}]\n", BadRequirement, "pip entry 'a b'"),
    "no YAML": ("name: x\ndependencies: [\n", BadSource, "environment.yml, line 3: not valid YAML"),
    "a key twice": ("name: x\nname: y\n", BadSource, "line 2: not valid YAML: the key 'name' stands there twice"),
    "a list alone": ("- numpy\n", BadSource, "it holds no mapping"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_honoured_is_named(case: str) -> None:
    text, kind, message = BAD[case]
    with pytest.raises(kind) as caught:
        environmentyml.read(text, PATH)
    assert message in caught.value.message
    assert caught.value.hint


def test_what_conda_env_export_writes_is_read() -> None:
    text = "name: x\nchannels: [conda-forge]\ndependencies: [numpy=1.26]\nprefix: /opt/conda/envs/x\n"
    assert environmentyml.read(text, PATH).conda == ("numpy=1.26",)


def test_files_that_the_pip_part_includes_are_read(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("beta\n")
    text = "dependencies: [{pip: ['-r more.txt', gamma]}]"
    assert environmentyml.read(text, tmp_path / "environment.yml").pip.requirements == ["beta", "gamma"]
