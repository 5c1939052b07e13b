from __future__ import annotations

import os
from pathlib import Path

import pytest

from flowkiln.envs.errors import UnknownOption
from flowkiln.envs.indexes import PYPI, IndexPlan, plan

A, B, C, D, E, F = (f"https://{name}.example/simple" for name in "abcdef")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "pip.conf"
    path.write_text(f"[global]\nindex-url = {E}\nextra-index-url =\n    {F}\n    {F}/two\n")
    return path


def urls(found: IndexPlan) -> list[str]:
    return [index.url for index in found.indexes]


def ambient(**environ: str) -> dict[str, str]:
    return {"HOME": "/nonexistent", "XDG_CONFIG_DIRS": "/nonexistent", "PIP_CONFIG_FILE": os.devnull, **environ}


@pytest.mark.parametrize(
    ("declared", "settings", "environ", "wanted"),
    [
        ((), (), {}, [PYPI]),
        ((A,), (B,), {"UV_INDEX": C, "PIP_INDEX_URL": D}, [A]),
        ((A, "pypi"), (), {"UV_DEFAULT_INDEX": C}, [A, PYPI]),
        ((A, "default"), (B,), {"UV_DEFAULT_INDEX": C}, [A, C]),
        ((A, "default"), (), {"PIP_INDEX_URL": D}, [A, D]),
        ((), (A, B), {"UV_INDEX": C, "PIP_INDEX_URL": D}, [A, B]),
        ((), (), {"UV_INDEX": C}, [C, PYPI]),
        ((), (), {"UV_INDEX": f"{C} named={D}"}, [C, D, PYPI]),
        ((), (), {"UV_INDEX": C, "UV_DEFAULT_INDEX": D}, [C, D]),
        ((), (), {"UV_DEFAULT_INDEX": A, "UV_INDEX_URL": B}, [A]),
        ((), (), {"UV_INDEX_URL": A, "UV_EXTRA_INDEX_URL": B}, [B, A]),
        ((), (), {"UV_INDEX": A, "UV_EXTRA_INDEX_URL": B}, [A, PYPI]),
        ((), (), {"UV_INDEX": A, "PIP_INDEX_URL": B, "PIP_EXTRA_INDEX_URL": C}, [A, B]),
        ((), (), {"PIP_INDEX_URL": A, "PIP_EXTRA_INDEX_URL": f"{B} {C}"}, [B, C, A]),
        ((), (), {"PIP_EXTRA_INDEX_URL": f"{B}  {C}"}, [B, C, PYPI]),
        ((), (), {"PIP_INDEX_URL": A, "conf": "yes"}, [F, f"{F}/two", A]),
        ((), (), {"PIP_EXTRA_INDEX_URL": A, "conf": "yes"}, [A, E]),
        ((), (), {"conf": "yes"}, [F, f"{F}/two", E]),
        ((A, f"{A}/", "https://u:p@a.example/simple"), (), {}, [A]),
    ],
)
def test_precedence_cell_by_cell(
    declared: tuple[str, ...], settings: tuple[str, ...], environ: dict[str, str], wanted: list[str], config: Path
) -> None:
    given = dict(environ)
    if given.pop("conf", None):
        given["PIP_CONFIG_FILE"] = str(config)
    assert urls(plan(declared, settings, environ=ambient(**given))) == wanted


def test_pip_files_of_a_machine_a_user_and_a_venv(tmp_path: Path) -> None:
    places = {
        "machine": tmp_path / "xdg" / "pip" / "pip.conf",
        "old": tmp_path / ".pip" / "pip.conf",
        "user": tmp_path / ".config" / "pip" / "pip.conf",
        "venv": tmp_path / "venv" / "pip.conf",
    }
    environ = {
        "HOME": str(tmp_path),
        "XDG_CONFIG_DIRS": str(tmp_path / "xdg"),
        "VIRTUAL_ENV": str(tmp_path / "venv"),
    }
    for name, path in places.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"[global]\nindex-url = https://{name}.example/simple\n")
        assert urls(plan(environ=environ))[-1] == f"https://{name}.example/simple"
    places["user"].write_text("[install]\nextra-index-url = https://late.example/simple\n[global]\ncert = /x\n")
    found = plan(environ=environ)
    assert urls(found)[0] == "https://late.example/simple"
    assert any("cert in" in line for line in found.ignored)


def test_a_broken_pip_conf_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pip.conf"
    path.write_text("index-url = no section\n")
    with pytest.raises(UnknownOption, match=r"pip\.conf"):
        plan(environ=ambient(PIP_CONFIG_FILE=str(path)))


@pytest.mark.parametrize("text", ["ftp://a/simple", "./here", "simple", "https://", "file:///wheels"])
def test_what_is_no_index_is_an_error(text: str) -> None:
    with pytest.raises(UnknownOption, match="not the URL of a package index"):
        plan((text,), environ=ambient())


def test_an_index_that_is_no_url_is_named() -> None:
    with pytest.raises(UnknownOption, match="is not the URL of a package index"):
        plan(("http://[::1/simple",), environ=ambient())


def test_a_bad_index_is_named_without_its_password() -> None:
    with pytest.raises(UnknownOption) as caught:
        plan(("ftp://ann:CANARY@host/x",), environ=ambient())
    assert "CANARY" not in caught.value.message
    assert "host" in caught.value.message


def test_variables_for_uv() -> None:
    assert plan((A,), environ=ambient()).variables() == {"UV_DEFAULT_INDEX": A}
    assert plan((A, B, C), environ=ambient()).variables() == {"UV_DEFAULT_INDEX": C, "UV_INDEX": f"{A} {B}"}


def test_credentials_by_host(tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine b.example login bob password from-netrc\n")
    netrc.chmod(0o600)
    found = plan(("https://ann:p%40ss@a.example:8443/simple", B), environ=ambient(NETRC=str(netrc)))
    assert found.credentials("https://a.example:8443/files/x.whl") == ("ann", "p@ss")
    assert found.credentials("https://a.example/files/x.whl") is None
    assert found.credentials("https://b.example/files/x.whl") == ("bob", "from-netrc")
    assert found.credentials("https://u:v@c.example/files/x.whl") == ("u", "v")
    assert found.credentials("https://c.example/files/x.whl") is None
    assert "p%40ss" not in repr(found) + found.shown


def test_a_named_index_of_uv_gets_its_variables() -> None:
    environ = ambient(UV_INDEX=f"my-own={A}", UV_INDEX_MY_OWN_USERNAME="a/b", UV_INDEX_MY_OWN_PASSWORD="c d")
    found = plan(environ=environ)
    assert found.credentials(f"{A}/x/") == ("a/b", "c d")
    assert found.shown == f"{A}, {PYPI}"


def test_an_unreadable_netrc_is_no_credentials(tmp_path: Path) -> None:
    bad = tmp_path / "netrc"
    bad.write_text("machine only\n")
    assert plan((A,), environ=ambient(NETRC=str(bad))).credentials(A) is None
