"""Settings: precedence, origins, and that nothing unknown passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowkiln._base import known, settings
from flowkiln._base.errors import SettingError


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLOWKILN_CONFIG", str(tmp_path / "user" / "config.toml"))
    (tmp_path / "user").mkdir()
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def write_user(project: Path, text: str) -> None:
    (project.parent / "user" / "config.toml").write_text(text)


def test_defaults_have_their_origin(project: Path) -> None:
    found = settings.load(project, environ={})
    assert found.text("python.downloads") == "auto"
    assert {value.origin for _, value in found} == {"default"}
    assert found.store == project / ".flowkiln"


def test_each_level_wins_over_the_next(project: Path) -> None:
    write_user(project, 'isolation = "fork"\nmax-workers = 1\n[profiles.ci]\nmax-workers = 3\n')
    seen = [settings.load(project, environ={}).count("max-workers")]
    (project / "pyproject.toml").write_text("[tool.flowkiln]\nmax-workers = 2\n")
    seen.append(settings.load(project, environ={}).count("max-workers"))
    seen.append(settings.load(project, environ={"FLOWKILN_PROFILE": "ci"}).count("max-workers"))
    environ = {"FLOWKILN_PROFILE": "ci", "FLOWKILN_MAX_WORKERS": "4"}
    seen.append(settings.load(project, environ=environ).count("max-workers"))
    last = settings.load(project, environ=environ, flags={"max-workers": 5})
    assert [*seen, last.count("max-workers")] == [1, 2, 3, 4, 5]
    assert last.origin("max-workers") == "--max-workers"
    assert last.text("isolation") == "fork"
    assert last.origin("isolation").endswith("config.toml")


@pytest.mark.parametrize("name", ["'pkgs.example.com'", "pkgs.example.com"])
def test_a_table_has_the_same_names_quoted_or_not(project: Path, name: str) -> None:
    write_user(
        project, f"[credentials]\n{name} = 'print-token --for=x'\n[profiles.ci.credentials]\n{name} = 'ci'\n"
    )
    assert settings.load(project, environ={}).pairs("credentials") == {"pkgs.example.com": "print-token --for=x"}
    assert settings.load(project, environ={}, profile="ci").pairs("credentials") == {"pkgs.example.com": "ci"}


def test_a_file_in_a_folder_below_finds_the_projects_settings_and_store(project: Path) -> None:
    (project / "pyproject.toml").write_text('[tool.flowkiln]\nstore = "runs"\n')
    below = project / "a" / "b"
    below.mkdir(parents=True)
    assert settings.load(below, environ={}).store == project / "runs"


def test_a_store_folder_marks_the_project(project: Path) -> None:
    (project / ".flowkiln").mkdir()
    (project / "a").mkdir()
    assert settings.load(project / "a", environ={}).store == project / ".flowkiln"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("isolatoin = 'fork'\n", "unknown setting 'isolatoin'"),
        ("isolation = 'both'\n", "accepted: auto or fork or spawn"),
        ("max-workers = 0\n", "a whole number above zero"),
        ("max-workers = true\n", "a whole number above zero"),
        ("offline = 'yes'\n", "true or false"),
        ("platforms = 'linux/amd64'\n", "a list of texts"),
        ("[python]\ndownloads = 1\n", "a text"),
        ("credentials = 'a command'\n", "a table from names to texts"),
        ("[credentials]\n'pkgs.example.com' = 1\n", "a table from names to texts"),
        ("[python\n", "not valid TOML"),
    ],
)
def test_bad_settings_name_the_file(project: Path, text: str, part: str) -> None:
    write_user(project, text)
    with pytest.raises(SettingError) as caught:
        settings.load(project, environ={})
    assert part in caught.value.message
    assert "config.toml" in caught.value.message


def test_a_misspelt_variable_is_an_error_with_the_near_name(project: Path) -> None:
    with pytest.raises(SettingError) as caught:
        settings.load(project, environ={"FLOWKILN_MAX_WORKER": "3"})
    assert caught.value.hint == "Did you mean 'FLOWKILN_MAX_WORKERS'?"


def test_variables_of_parameters_are_not_settings(project: Path) -> None:
    settings.load(project, environ={"FLOWKILN_RUN_ALPHA": "1", "FLOWKILN_CONFIG": "/none"})


def test_a_variable_that_nothing_reads_is_an_error(project: Path) -> None:
    with pytest.raises(SettingError, match="FLOWKILN_INDEX_CORP_TOKEN"):
        settings.load(project, environ={"FLOWKILN_INDEX_CORP_TOKEN": "x"})


def test_every_variable_is_read_somewhere() -> None:
    source = Path(settings.__file__).parents[1]
    elsewhere = "".join(path.read_text() for path in source.rglob("*.py") if path != Path(settings.__file__))
    inside = {"FLOWKILN_PROFILE"}
    assert [name for name in settings.VARIABLES if f'"{name}"' not in elsewhere and name not in inside] == []


def test_unknown_profile(project: Path) -> None:
    with pytest.raises(SettingError, match="no profile 'prod'"):
        settings.load(project, environ={}, profile="prod")


def test_secrets_in_urls_are_masked_when_shown(project: Path) -> None:
    found = settings.load(project, environ={"FLOWKILN_INDEXES": "https://me:pw@corp.example/simple"})
    assert found.items("indexes") == ("https://me:pw@corp.example/simple",)
    assert found.to_json()["indexes"]["value"] == ("https://***@corp.example/simple",)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("platforms", "linux/amd64,linux/arm64", ("linux/amd64", "linux/arm64")),
        ("offline", "on", True),
        ("max-workers", "7", 7),
        ("isolation", "spawn", "spawn"),
        ("credentials", "b.example=print b\n\n a.example = x=y\n", ("a.example=x=y", "b.example=print b")),
    ],
)
def test_texts_become_values(key: str, text: str, value: object) -> None:
    assert settings.parse(key, text) == value


def test_every_setting_has_help_and_a_variable() -> None:
    assert all(setting.help.endswith(".") for setting in known.TABLE)
    assert len({setting.variable for setting in known.TABLE}) == len(known.TABLE)


def test_the_store_is_that_of_the_nearest_project_root(project: Path) -> None:
    (project / ".flowkiln").mkdir()
    for root in ("pyproject.toml", ".git"):
        below = project / root.strip(".") / "a"
        below.mkdir(parents=True)
        (below.parent / root).write_text("")
        assert settings.load(below, environ={}).store == below.parent / ".flowkiln"


def test_a_store_in_the_home_folder_does_not_take_in_what_lies_below(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(project))
    (project / ".flowkiln").mkdir()
    (project / "a").mkdir()
    assert settings.load(project / "a", environ={}).store == project / "a" / ".flowkiln"
    assert settings.load(project, environ={}).store == project / ".flowkiln"


def test_the_variable_and_the_setting_win_over_the_search(project: Path, tmp_path: Path) -> None:
    (project / ".flowkiln").mkdir()
    (project / "pyproject.toml").write_text('[tool.flowkiln]\nstore = "set"\n')
    assert settings.load(project, environ={}).store == project / "set"
    assert settings.load(project, environ={"FLOWKILN_STORE": str(tmp_path / "told")}).store == tmp_path / "told"


@pytest.mark.parametrize("url", ["s3://bucket/runs", "file:///runs", "https://me:secret@host/x"])
def test_a_store_at_a_url_is_refused(project: Path, url: str) -> None:
    with pytest.raises(SettingError, match="not a URL") as caught:
        settings.load(project, environ={}, flags={"store": url})
    assert "secret" not in caught.value.message


def test_a_store_that_links_to_nothing_is_named(project: Path) -> None:
    (project / ".flowkiln").symlink_to("gone")
    found = settings.load(project, environ={})
    with pytest.raises(SettingError, match="is a link to gone, which does not exist"):
        str(found.store)
    assert found.to_json()["store"]["value"] == str(project / ".flowkiln")


def test_a_home_that_is_no_folder_has_no_settings_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWKILN_CONFIG", "/dev/null/.config/flowkiln/config.toml")
    assert settings.load(project, environ={}).store == project / ".flowkiln"
