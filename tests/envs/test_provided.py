from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from flowkiln.envs import provided
from flowkiln.envs.condaerrors import ProvidedConflict
from flowkiln.envs.lock import LockedConda


def conda(name: str, *provides: tuple[str, str]) -> LockedConda:
    filename = f"{name}-1-0.conda"
    url = f"https://example.com/c/noarch/{filename}"
    return LockedConda(
        name=name, version="1", build="0", filename=filename, url=url, sha256="0" * 64, provides=provides
    )


NUMPY = (conda("numpy-base", ("numpy", "2.2.6")),)


def test_each_distribution_comes_once_by_the_name_of_its_package() -> None:
    packages = (conda("z", ("both", "2"), ("z", "1")), conda("a", ("both", "1")))
    assert provided.of(packages) == (("both", "1"), ("z", "1"))


@given(st.from_regex(r"[0-9]{1,2}(\.[0-9]{1,2}){0,2}(a1|rc1|\.post2|\.dev3)?(\+cu12)?", fullmatch=True))
def test_a_marked_version_satisfies_what_the_version_does(version: str) -> None:
    marked = provided.marked(version)
    assert provided.is_stub(marked)
    assert not provided.is_stub(version)
    public = Version(version).public
    for specifier in (f"=={public}", f">={public}", f"<={public}"):
        assert SpecifierSet(specifier).contains(marked, prereleases=True)
    assert not SpecifierSet(f">{public}").contains(marked, prereleases=True)


def test_a_version_that_pypi_does_not_know_satisfies_no_range() -> None:
    assert provided.constraints([("odd", "2024x-y")]) == ("odd==0+conda",)


def test_a_stub_has_a_name_and_a_version_and_nothing_else(tmp_path: Path) -> None:
    folder = provided.write(tmp_path, [("two-words", "1.0+cu12")])
    (path,) = folder.iterdir()
    assert path.name == "two_words-1.0+cu12.conda-py3-none-any.whl"
    with zipfile.ZipFile(path) as archive:
        metadata = archive.read("two_words-1.0+cu12.conda.dist-info/METADATA").decode()
        assert len(archive.namelist()) == 3
    assert "Requires" not in metadata


def test_words_of_uv_are_read_and_written_for_people() -> None:
    said = "Because you require numpy==2.2.6+conda and torch==2.5.1+cu124.conda, `a==1.0+local` cannot be used."
    assert provided.named_in(said) == ("numpy", "torch")
    assert provided.readable(said) == (
        "Because you require numpy 2.2.6 of conda and torch 2.5.1 of conda, `a==1.0+local` cannot be used."
    )


@pytest.mark.parametrize(
    "line", ["numpy", "numpy>=2", "numpy==2.2.6", "NumPy<3", "other>9", "numpy>3; os_name=='nt'"]
)
def test_a_requirement_that_accepts_what_conda_provides_passes(line: str) -> None:
    provided.check([line], NUMPY, "fit", "train")


@pytest.mark.parametrize("line", ["numpy>=3", "numpy==1.26", "numpy!=2.2.6", "numpy[extra]"])
def test_a_requirement_that_does_not_is_named_with_the_package(line: str) -> None:
    with pytest.raises(ProvidedConflict) as caught:
        provided.check(["a", line], NUMPY, "environment 'fit'", "train")
    assert line in caught.value.message
    assert "numpy 2.2.6 (in the package numpy-base 1 0)" in caught.value.message
    assert caught.value.step == "train"
    assert caught.value.exit_code == 4
