from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkiln.envs.directerrors import SourceError
from flowkiln.envs.errors import BadRequirement, BadSource, EnvError
from flowkiln.envs.requirements import package, read_file, requirement

H = "a" * 64


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Pandas", "pandas"),
        ("zope.interface_x >= 1 , < 2", "zope-interface-x<2,>=1"),
        ("a[B,A_c]==1.0", "a[a-c,b]==1.0"),
        ("a ; python_version<'3.12'", 'a ; python_version < "3.12"'),
    ],
)
def test_normal_form(text: str, wanted: str) -> None:
    assert requirement(text) == wanted
    assert requirement(wanted) == wanted


@pytest.mark.parametrize(
    ("version", "wanted"),
    [
        ("", "a"),
        ("*", "a"),
        ("1.2.3", "a==1.2.3"),
        ("1.2.*", "a==1.2.*"),
        (" >=1, <2 ", "a<2,>=1"),
        ("~=1.4", "a~=1.4"),
        ("1.0 ; sys_platform == 'linux'", 'a==1.0 ; sys_platform == "linux"'),
    ],
)
def test_versions_of_packages(version: str, wanted: str) -> None:
    assert package("A", version) == wanted


@pytest.mark.parametrize("version", ["latest", ">=", "1.0 beta", "==1.0;;", "@git+https://x/y"])
def test_bad_versions_of_packages(version: str) -> None:
    with pytest.raises(BadRequirement) as caught:
        package("a", version, where="step fit")
    assert "step fit" in caught.value.message


@pytest.mark.parametrize("text", ["foo bar", "", "-e .", "a @ https://h/a.whl", "a==", "./a.whl", "a_", "a[b_]"])
def test_bad_requirements(text: str) -> None:
    with pytest.raises(BadRequirement):
        requirement(text)


@given(st.text(max_size=30))
def test_any_text_is_a_requirement_or_a_clear_error(text: str) -> None:
    try:
        once = requirement(text)
    except EnvError:
        return
    assert requirement(once) == once


def test_a_requirements_file_with_everything(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "more.txt").write_text("-c limits.txt\nmore==1\n")
    (tmp_path / "sub" / "limits.txt").write_text("limited<5\n")
    path = tmp_path / "requirements.txt"
    path.write_text(
        "\ufeff# a comment\n"
        "--index-url https://${USER_OF}:${SECRET}@h.example/simple  # private\n"
        "--extra-index-url=https://x.example/simple\n"
        "--require-hashes\n--only-binary :all:\n"
        f"Pinned==1.0 \\\n    --hash=sha256:{H} \\\n    --hash sha256:{'b' * 64}\n"
        "marked>1; sys_platform == 'linux' # why\n"
        "-r sub/more.txt\n-csub/limits.txt\n",
        encoding="utf-8",
    )
    found = read_file(path, environ={"USER_OF": "ann", "SECRET": "s3"})
    assert found.requirements == ["pinned==1.0", 'marked>1 ; sys_platform == "linux"', "more==1"]
    assert found.constraints == ["limited<5", "limited<5"]
    assert found.hashes == {"pinned": {H, "b" * 64}}
    assert found.indexes == ("https://x.example/simple", "https://ann:s3@h.example/simple")


def test_extra_indexes_alone_keep_the_default(tmp_path: Path) -> None:
    path = tmp_path / "r.txt"
    path.write_text("--extra-index-url https://x.example/simple\na\n")
    assert read_file(path).indexes == ("https://x.example/simple", "default")
    path.write_text("a\n")
    assert read_file(path).indexes == ()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("foo bar", "line 2"),
        ("-e .", "holds no Python project"),
        ("--editable=.", "holds no Python project"),
        ("-f wheels/", "option -f"),
        ("--find-links wheels/", "option --find-links"),
        ("--pre", "option --pre"),
        ("./local", "there is no folder"),
        ("/abs/x.whl", "does not say|there is no folder"),
        ("x-1.0-py3-none-any.whl", "where nothing is"),
        ("git+https://h/x", "does not say which distribution"),
        ("svn+https://h/x#egg=x", "not supported"),
        ("a @ git@h:x", "neither a URL nor a path"),
        ("a --global-option=x", "option --global-option"),
        ("a --hash=md5:123", "sha256"),
        ("-r", "needs a value"),
        ("-r missing.txt", r"missing\.txt cannot be read"),
        ("-i https://${UNSET_HERE}@h/simple", "UNSET_HERE is not set"),
        ("-i 'open", "not understood"),
        ("a @ https://h/a.whl", "not the name of a wheel"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "r.txt"
    path.write_text(f"fine\n{line}\n")
    with pytest.raises((BadSource, BadRequirement, SourceError), match=said) as caught:
        read_file(path, environ={})
    assert "missing" in said or "line 2" in caught.value.message
    assert "r.txt" in caught.value.message or "missing" in said


def test_files_that_include_each_other(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("-r b.txt\n")
    (tmp_path / "b.txt").write_text("-r a.txt\n")
    with pytest.raises(BadSource, match="includes itself"):
        read_file(tmp_path / "a.txt")


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadSource, match="UTF-8"):
        read_file(tmp_path / "a.txt")
    with pytest.raises(BadSource, match=r"cannot be read: Is a directory"):
        read_file(tmp_path)
