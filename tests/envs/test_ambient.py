from __future__ import annotations

import os
from pathlib import Path

import pytest

from flowkiln.envs import ambient, indexes
from flowkiln.envs.errors import UnsupportedSetting

INDEX = "https://index.example/simple"
HERE = {"HOME": "/nonexistent", "XDG_CONFIG_DIRS": "/nonexistent", "PIP_CONFIG_FILE": os.devnull}


def names(*declared: str, **environ: str) -> list[str]:
    return [one.name for one in indexes.plan(declared, environ={**HERE, **environ}).refused]


CHANGING = {
    "PIP_NO_INDEX": "1",
    "PIP_FIND_LINKS": "https://wheels.example/all.html",
    "PIP_CONSTRAINT": "limits.txt",
    "PIP_PRE": "true",
    "PIP_NO_BINARY": ":all:",
    "PIP_NO_DEPS": "yes",
    "PIP_UPLOADED_PRIOR_TO": "2025-01-01",
    "UV_NO_INDEX": "1",
    "UV_FIND_LINKS": "https://wheels.example/all.html",
    "UV_INDEX_STRATEGY": "unsafe-best-match",
    "UV_RESOLUTION": "lowest",
    "UV_PRERELEASE": "allow",
    "UV_CONSTRAINT": "limits.txt",
    "UV_OVERRIDE": "overrides.txt",
    "UV_EXCLUDE": "numpy",
    "UV_EXCLUDE_NEWER": "7 days",
    "UV_TORCH_BACKEND": "auto",
    "UV_NO_BINARY": "1",
    "UV_NO_BINARY_PACKAGE": "numpy",
}
HARMLESS = {
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_CACHE_DIR": "/tmp/pip",
    "PIP_NO_CACHE_DIR": "1",
    "PIP_DEFAULT_TIMEOUT": "60",
    "PIP_CERT": "/ca.pem",
    "PIP_ROOT_USER_ACTION": "ignore",
    "PIP_NO_INPUT": "1",
    "PIP_REQUIRE_VIRTUALENV": "1",
    "PIP_ONLY_BINARY": ":all:",
    "PIP_PREFER_BINARY": "1",
    "PIP_NO_INDEX": "0",
    "PIP_PRE": "false",
    "PIP_NO_BINARY": ":none:",
    "PIP_CONSTRAINT": " ",
    "UV_NO_INDEX": "false",
    "UV_CACHE_DIR": "/tmp/uv",
    "UV_LINK_MODE": "copy",
    "UV_INDEX_STRATEGY": "first-index",
    "UV_RESOLUTION": "highest",
    "UV_PRERELEASE": "if-necessary-or-explicit",
    "UV_EXCLUDE_NEWER": "",
    "UV_NO_BUILD": "1",
}


@pytest.mark.parametrize(("name", "value"), CHANGING.items(), ids=CHANGING)
def test_a_setting_that_would_change_a_lock_is_refused_with_what_to_write(name: str, value: str) -> None:
    found = indexes.plan(environ={**HERE, name: value}).refused
    with pytest.raises(UnsupportedSetting) as caught:
        ambient.check(found)
    assert f"{name} = {value} (environment variable): " in caught.value.message
    assert caught.value.data["settings"] == [name]
    assert found[0].instead.endswith(".")


@pytest.mark.parametrize(("name", "value"), HARMLESS.items(), ids=lambda text: text)
def test_a_setting_that_changes_no_lock_passes(name: str, value: str) -> None:
    assert names(**{name: value}) == []


def test_every_refused_setting_is_named_at_once() -> None:
    assert names(UV_RESOLUTION="lowest", PIP_PRE="1", UV_NO_INDEX="1") == [
        "UV_NO_INDEX",
        "UV_RESOLUTION",
        "PIP_PRE",
    ]


def test_a_complete_list_of_indexes_stands_in_place_of_other_sources_alone() -> None:
    sources = {name: CHANGING[name] for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "UV_NO_INDEX", "UV_FIND_LINKS")}
    assert names(INDEX, **sources) == []
    assert names(INDEX, **CHANGING) == [name for name in names(**CHANGING) if name not in sources]
    assert indexes.plan((), (INDEX,), environ={**HERE, **sources}).refused == ()


def test_a_folder_of_links_counts_when_it_has_something_to_install(tmp_path: Path) -> None:
    nothing, wheels = tmp_path / "nothing", tmp_path / "wheels"
    nothing.mkdir()
    wheels.mkdir()
    (nothing / "README").touch()
    (wheels / "demo-1.0-py3-none-any.whl").touch()
    assert names(PIP_FIND_LINKS=f"{nothing} {tmp_path / 'missing'}") == []
    for told in (f"{nothing} {wheels}", f"file://{wheels}", str(wheels / "demo-1.0-py3-none-any.whl")):
        assert names(PIP_FIND_LINKS=told) == ["PIP_FIND_LINKS"], told
    assert names(UV_FIND_LINKS=f"{nothing},{wheels}") == ["UV_FIND_LINKS"]


def test_options_in_pip_conf_are_named_with_their_file(tmp_path: Path) -> None:
    path = tmp_path / "pip.conf"
    path.write_text("[global]\npre = true\nno-index = false\ncert = /x\n[install]\nconstraint = /c.txt\n")
    found = indexes.plan(environ={**HERE, "PIP_CONFIG_FILE": str(path)})
    assert [str(one) for one in found.refused] == [f"constraint = /c.txt ({path})", f"pre = true ({path})"]
    assert f"cert in {path}" in found.ignored


def test_settings_about_connections_are_listed_and_refuse_nothing() -> None:
    told = {"PIP_TRUSTED_HOST": "index.example", "PIP_PROXY": "http://p:1", "PIP_CLIENT_CERT": "/c.pem"}
    found = indexes.plan(environ={**HERE, **told, "UV_INSECURE_HOST": "index.example"})
    assert found.refused == ()
    assert set(found.ignored) == {*told, "UV_INSECURE_HOST"}


def test_a_refusal_shows_no_password() -> None:
    found = indexes.plan(environ={**HERE, "PIP_FIND_LINKS": "https://ann:CANARY@wheels.example/all"}).refused
    with pytest.raises(UnsupportedSetting) as caught:
        ambient.check(found)
    assert "CANARY" not in caught.value.message + repr(found) + repr(caught.value.data)
    assert "wheels.example" in caught.value.message
