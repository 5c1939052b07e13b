from __future__ import annotations

from pathlib import Path

import pytest

from flowkiln.envs import channels
from flowkiln.envs.errors import UnknownOption

ALIAS = "https://conda.anaconda.org"


@pytest.fixture
def condarc(tmp_path: Path) -> Path:
    """The user's ``.condarc`` in a home of its own."""
    return tmp_path / ".condarc"


def plan(condarc: Path, *declared: str, settings: tuple[str, ...] = (), **environ: str) -> channels.ChannelPlan:
    return channels.plan(declared, settings, environ={"HOME": str(condarc.parent), **environ})


def shown(found: channels.ChannelPlan) -> list[str]:
    return [channel.shown.removeprefix(f"{ALIAS}/") for channel in found.channels]


def test_the_first_place_that_names_channels_decides(condarc: Path) -> None:
    assert shown(plan(condarc)) == ["conda-forge"]
    condarc.write_text("channels: [of-file, of-file, bioconda]\n")
    assert shown(plan(condarc)) == ["of-file", "bioconda"]
    assert shown(plan(condarc, CONDA_CHANNELS="of-variable,two")) == ["of-variable", "two"]
    assert shown(plan(condarc, settings=("of-setting",), CONDA_CHANNELS="x")) == ["of-setting"]
    declared = plan(condarc, "declared", "nodefaults", settings=("x",), CONDA_CHANNELS="x")
    assert shown(declared) == ["declared"]
    assert [channel.origin for channel in declared.channels] == ["environment"]


def test_files_are_merged_the_nearest_first(condarc: Path, tmp_path: Path) -> None:
    condarc.write_text("channels: [user]\n")
    further = tmp_path / "further.yml"
    further.write_text("channels: [told, user]\nchannel_alias: https://mirror.example.com/conda\n")
    found = plan(condarc, CONDARC=str(further))
    assert [channel.shown for channel in found.channels] == [
        "https://mirror.example.com/conda/told",
        "https://mirror.example.com/conda/user",
    ]
    assert [channel.origin for channel in found.channels] == [str(further), str(further)]


def test_names_become_urls_by_the_settings(condarc: Path) -> None:
    condarc.write_text(
        "custom_channels:\n  team: https://conda.example.com/private\n  pkgs/main: https://example.com\n"
        "custom_multichannels:\n  both: [team, conda-forge]\n"
        "default_channels: [pkgs/main, https://example.com/pkgs/r]\n"
    )
    assert shown(plan(condarc, "both")) == ["https://conda.example.com/private/team", "conda-forge"]
    assert shown(plan(condarc, "team/label/dev")) == ["https://conda.example.com/private/team/label/dev"]
    assert shown(plan(condarc, "defaults")) == ["https://example.com/pkgs/main", "https://example.com/pkgs/r"]
    condarc.unlink()
    assert shown(plan(condarc, "defaults")) == list(channels.DEFAULTS)
    assert shown(plan(condarc, "/srv/channel/")) == ["file:///srv/channel"]


def test_credentials_are_used_and_never_shown(condarc: Path, tmp_path: Path) -> None:
    condarc.write_text("channel_alias: https://conda.example.com/t/${TEAM_TOKEN}/\n")
    found = plan(condarc, "team", "https://joe:hush@other.example.com/c", TEAM_TOKEN="hush")
    assert [channel.shown for channel in found.channels] == [
        "https://conda.example.com/team",
        "https://other.example.com/c",
    ]
    assert found.channels[0].asked == ("https://conda.example.com/t/hush/team",)
    assert "hush" not in repr(found)
    assert "hush" not in found.shown
    assert found.credentials("https://other.example.com/c/noarch/repodata.json") == ("joe", "hush")
    (tmp_path / ".netrc").write_text("machine third.example.com login ann password quiet\n")
    assert found.credentials("https://third.example.com/c") == ("ann", "quiet")
    assert found.credentials("https://fourth.example.com/c") is None
    assert found.source("https://conda.example.com/team/noarch/a-1-0.conda") == (
        "https://conda.example.com/t/hush/team/noarch/a-1-0.conda"
    )


def test_mirrors_are_asked_in_place_of_a_channel(condarc: Path) -> None:
    mirrors = "[https://one.example.com/cf, https://two.example.com/cf]"
    condarc.write_text(f"mirrored_channels:\n  conda-forge: {mirrors}\n")
    (channel,) = plan(condarc).channels
    assert channel.shown == f"{ALIAS}/conda-forge"
    assert channel.asked == ("https://one.example.com/cf", "https://two.example.com/cf")


def test_settings_that_would_change_the_result_are_listed(condarc: Path) -> None:
    condarc.write_text(
        "channel_priority: flexible\npinned_packages: [numpy 1.*]\nssl_verify: true\nauto_activate_base: false\n"
        "show_channel_urls: true\ndisallowed_packages: [a]\n"
    )
    ignored = plan(condarc, CONDA_PINNED_PACKAGES="a").ignored
    assert [one.partition(" in ")[0] for one in ignored] == [
        "CONDA_PINNED_PACKAGES",
        "channel_priority: flexible",
        "pinned_packages",
        "disallowed_packages",
    ]
    condarc.write_text("channel_priority: strict\nssl_verify: false\n")
    assert [one.partition(" in ")[0] for one in plan(condarc, CONDA_CHANNEL_PRIORITY="strict").ignored] == [
        "ssl_verify"
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("channels: [a\n", "line"),
        ("- a\n", "mapping"),
        ("channels: [[a]]\n", "text"),
        ("custom_channels: [a]\n", "mapping"),
        ("channels: ['https://example.com/${UNSET_TOKEN}/c']\n", "UNSET_TOKEN"),
        ("channels: ['s3://bucket/c']\n", "s3://bucket/c"),
        ("channels: ['c[linux-64]']\n", "channel"),
    ],
)
def test_a_file_that_cannot_be_honoured_is_refused_by_name(condarc: Path, text: str, told: str) -> None:
    condarc.write_text(text)
    with pytest.raises(UnknownOption) as caught:
        plan(condarc)
    assert told in caught.value.message
    assert str(condarc) in caught.value.message


@pytest.mark.parametrize("name", ["", "oci://example.com/c", "https://", "two words"])
def test_what_is_no_channel_is_refused(condarc: Path, name: str) -> None:
    with pytest.raises(UnknownOption):
        plan(condarc, name)


def test_a_channel_named_by_a_match_spec_is_one_of_the_plan_or_one_more(condarc: Path) -> None:
    found = plan(condarc, "conda-forge", "team")
    assert found.named("team") == found.channels[1]
    assert found.named("bioconda").shown == f"{ALIAS}/bioconda"
    with pytest.raises(UnknownOption):
        found.named("defaults")
