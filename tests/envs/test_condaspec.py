from __future__ import annotations

import pytest
import rattler
from hypothesis import given
from hypothesis import strategies as st

from flowkiln.envs import condaspec
from flowkiln.envs.condaerrors import BadMatchSpec

READ = {
    "numpy": "numpy",
    "NumPy": "numpy",
    "numpy *": "numpy",
    "numpy=1.5": "numpy 1.5.*",
    "numpy==1.5": "numpy ==1.5",
    "numpy 1.5": "numpy ==1.5",
    "numpy=1.5=py311_0": "numpy ==1.5 py311_0",
    "numpy==1.5=py311_0": "numpy ==1.5 py311_0",
    "numpy =1.5 py311_0": "numpy 1.5.* py311_0",
    "numpy 1.5.* *_0": "numpy 1.5.* *_0",
    "numpy 1.5*": "numpy 1.5.*",
    "numpy >= 1.2 , < 2": "numpy >=1.2,<2",
    "numpy >=1.5.*": "numpy >=1.5",
    "numpy >=1|<0.5": "numpy >=1|<0.5",
    "numpy ~=1.4": "numpy ~=1.4",
    "numpy 1.5.*,!=1.5.3": "numpy 1.5.*,!=1.5.3",
    "libblas=*=*openblas": "libblas * *openblas",
    "conda-forge::numpy 1": "conda-forge::numpy ==1",
    "https://example.com/team::numpy >1": "https://example.com/team::numpy >1",
    "numpy[version='>=1', build=py_0]": "numpy >=1 py_0",
    "numpy[channel=conda-forge]": "conda-forge::numpy",
    "numpy 1.*[build_number='>=2']": 'numpy 1.*[build_number=">=2"]',
    "numpy >=1  # because of the ABI": "numpy >=1",
}
REFUSED = {
    "": "not a match spec",
    "numpy*": "not a match spec",
    "numpy >=": "version",
    "numpy ===1": "===",
    "numpy latest": "version",
    "numpy 1 py_0 more": "more than a version and a build",
    "numpy[extra]": "brackets",
    "numpy[md5=abc]": "md5",
    "numpy; python_version < '3'": "marker",
    "https://example.com/numpy-1-0.conda": "URL",
    "numpy @ https://example.com/numpy.whl": "URL",
    "./numpy-1-0.tar.bz2": "file",
    "__cuda >=12": "virtual package",
    "conda-forge/linux-64::numpy": "platform",
    "https://u:hush@example.com/c::numpy": "credentials",
    "https://example.com/t/hush/c::numpy": "credentials",
}


@pytest.mark.parametrize(("text", "normal"), READ.items())
def test_a_match_spec_has_one_form_that_the_solver_reads_strictly(text: str, normal: str) -> None:
    assert condaspec.match_spec(text) == normal
    assert condaspec.match_spec(normal) == normal
    assert (
        condaspec.name_of(normal)
        == condaspec.name_of(text)
        == rattler.MatchSpec(normal, strict=True).name.normalized
    )


@pytest.mark.parametrize(("text", "told"), REFUSED.items())
def test_what_is_no_match_spec_is_refused_with_its_place(text: str, told: str) -> None:
    with pytest.raises(BadMatchSpec) as caught:
        condaspec.match_spec(text, where="flow.py:7")
    assert told in caught.value.message
    assert caught.value.message.startswith("flow.py:7: ")
    assert caught.value.hint
    assert "hush" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("text", ["numpy[extra]", "numpy; python_version < '3'"])
def test_what_only_pypi_has_is_sent_there(text: str) -> None:
    with pytest.raises(BadMatchSpec) as caught:
        condaspec.match_spec(text)
    assert "@pypi" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "version", "normal"),
    [
        ("numpy", "1.26.4", "numpy ==1.26.4"),
        ("numpy", "", "numpy"),
        ("numpy", "*", "numpy"),
        ("numpy", "1.26.*", "numpy 1.26.*"),
        ("numpy", ">=1.26,<2", "numpy >=1.26,<2"),
        ("numpy", "=1.26", "numpy 1.26.*"),
        ("conda-forge::NumPy", "1.26", "conda-forge::numpy ==1.26"),
        ("numpy", "1.26=py311_0", "numpy ==1.26 py311_0"),
    ],
)
def test_an_entry_of_packages_is_exact_unless_it_says_more(name: str, version: str, normal: str) -> None:
    assert condaspec.package(name, version) == normal


@pytest.mark.parametrize(("name", "version"), [("numpy 1", "2"), ("", "1"), ("numpy[x]", "1"), ("numpy", 1.5)])
def test_an_entry_that_is_none_is_refused(name: str, version: str) -> None:
    with pytest.raises(BadMatchSpec):
        condaspec.package(name, version)


_VERSIONS = st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){0,3}(a1|rc2|\.post1)?", fullmatch=True)
_NAMES = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,12}[a-zA-Z0-9]", fullmatch=True)


@given(
    _NAMES, st.lists(st.tuples(st.sampled_from([">=", "<=", "==", "!=", ">", "<", "=", ""]), _VERSIONS), max_size=3)
)
def test_the_normal_form_is_stable_and_read_by_the_solver(name: str, atoms: list[tuple[str, str]]) -> None:
    normal = condaspec.match_spec(f"{name} " + ",".join(f"{operator}{version}" for operator, version in atoms))
    assert condaspec.match_spec(normal) == normal
    assert rattler.MatchSpec(normal, strict=True).name.normalized == condaspec.name_of(normal) == name.lower()


def test_a_channel_is_read_and_replaced() -> None:
    assert condaspec.channel_of("conda-forge::numpy >=1") == "conda-forge"
    assert condaspec.channel_of("numpy >=1") is None
    assert (
        condaspec.in_channel("conda-forge::numpy >=1", "https://example.com/c")
        == "https://example.com/c::numpy >=1"
    )
