"""Which tests hold each case of environments that people have met: faults, and points of pain by their letters."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.source import ROOT, tree

CASES = {
    "specs that nothing satisfies": ["e2e/test_private_channels::specs_that_nothing_satisfies_are_explained"],
    "channel that is missing": ["e2e/test_private_channels::a_channel_that_is_not_there_is_told"],
    "channel that is stale": ["e2e/test_conda_faults::a_locked_package_that_the_channel_has_withdrawn_is_named"],
    "channel that refuses (401)": ["e2e/test_private_channels::a_login_that_is_refused_is_told_without_it"],
    "channel that serves a changed hash": [
        "e2e/test_private_channels::a_channel_that_changes_a_package_is_not_installed"
    ],
    "conda package cut short or with .. in a path": [
        "e2e/test_conda_faults::a_package_that_is_cut_short_changed_or_leaves_its_folder_is_not_installed",
        "envs/test_condaunpack::a_hostile_package_is_refused_and_nothing_leaves",
    ],
    "conda package and wheel both bring numpy": [
        "e2e/test_conda_faults::numpy_of_conda_and_of_a_wheel_is_there_once",
        "e2e/test_conda_faults::a_conda_package_and_a_wheel_that_own_one_path_need_a_winner",
    ],
    "environment.yml with keys that cannot be honoured": [
        "envs/test_environmentyml::what_cannot_be_honoured_is_named"
    ],
    "lock for another platform": [
        "e2e/test_conda_faults::a_lock_for_another_platform_is_told_before_anything_is_installed"
    ],
    "requirements with -r, -c, markers, hashes, extras, odd spacing, BOM": [
        "envs/test_requirements::a_requirements_file_with_everything",
        "envs/test_requirements::extras_odd_spacing_and_line_ends_of_windows_are_read",
    ],
    "two processes on one lock": ["e2e/test_conda_faults::two_processes_lock_one_mixed_environment_at_once"],
    "build that fails": ["e2e/test_builds::a_build_that_fails_is_told_with_its_last_words"],
    "build that hangs": ["e2e/test_builds::a_build_that_hangs_is_ended"],
    "build that writes outside its folder": [
        "e2e/test_builds::a_build_on_this_machine_writes_below_its_folder_alone"
    ],
    "back end that leaves a sentinel": ["e2e/test_builds::a_build_in_a_container_reaches_nothing_of_this_machine"],
    "A02": [
        "e2e/test_builds::a_build_in_a_container_reaches_nothing_of_this_machine",
        "e2e/test_builds::what_is_compiled_for_one_platform_is_not_taken_for_another",
    ],
    "A03": [
        "e2e/test_builds::a_source_distribution_is_built_in_a_container_and_runs_on_both_backends",
        "e2e/test_builds::a_second_machine_with_the_teams_repository_builds_nothing",
    ],
    "A07": [
        "e2e/test_hosts::shown_3_locks_of_both_linux_platforms_are_the_same_bytes_from_every_host",
        "e2e/test_conda::shown_3_an_arm64_image_of_a_mixed_environment_is_baked_without_running_it",
        "envs/test_condaside::linux_platforms_have_equal_versions_where_there_are_such",
    ],
    "A13": [
        "e2e/test_sources::six_kinds_of_files_are_environments_of_steps",
        "e2e/test_sources::a_given_lock_is_taken_without_a_solver_an_index_or_a_channel",
    ],
    "B01": [
        "envs/test_indexes::precedence_cell_by_cell",
        "envs/test_channels::the_first_place_that_names_channels_decides",
        "e2e/test_private_channels::env_indexes_shows_the_channels_masked",
    ],
    "B02": [
        "envs/test_resolve::the_first_index_that_has_a_package_decides",
        "envs/test_index_pins::a_package_that_only_others_need_comes_from_its_index_too",
    ],
    "B03": [
        "e2e/test_secrets::shown_5_a_secret_of_every_index_channel_and_registry_is_nowhere_afterwards",
        "envs/test_gathering::credentials_are_looked_up_when_fetching_and_stored_nowhere",
    ],
    "B05": [
        "e2e/test_corporate_network::a_token_that_expires_on_the_way_is_renewed_and_is_nowhere_at_rest",
        "envs/test_condaaccess::a_password_that_is_refused_is_asked_for_once_more",
    ],
    "B06": [
        "envs/test_sourcearchives::a_branch_stays_where_it_was_locked",
        "envs/test_sourcearchives::a_repository_with_a_password",
        "envs/test_scmversions::versions",
    ],
    "B07": [
        "envs/test_sourcearchives::a_folders_content_is_its_archive_and_changes_with_it",
        "flow/test_package::a_package_over_the_limit_names_its_largest_files",
    ],
    "C01": ["e2e/test_conda_faults::numpy_of_conda_and_of_a_wheel_is_there_once"],
    "C02": ["envs/test_condaside::a_mixed_environment_has_each_distribution_from_one_side"],
    "C03": ["envs/test_proof::changed_missing_and_extra_files_are_named_with_what_to_do"],
    "C04": [
        "e2e/test_hosts::shown_3_locks_of_both_linux_platforms_are_the_same_bytes_from_every_host",
        "envs/test_virtual::nothing_of_this_machine_gets_in",
    ],
    "C05": ["envs/test_fetch::a_wrong_hash_once_is_fetched_once_more"],
    "C06": ["envs/test_condasolve::the_first_channel_that_has_a_package_decides"],
    "C07": [
        "e2e/test_conda::activation_is_the_same_in_processes_and_containers",
        "e2e/test_conda::c07_programs_of_the_environment_are_found_by_name_from_python_and_shells",
    ],
    "C08": ["cli/test_verbs::c08_doctor_names_each_tool_with_its_place"],
    "D01": [
        "envs/test_variants::d01_two_environments_have_two_variants",
        "envs/test_variants::d01_the_driver_that_a_variant_needs_is_recorded",
    ],
    "E07": ["e2e/test_secrets::shown_5_a_secret_of_every_index_channel_and_registry_is_nowhere_afterwards"],
    "E14": ["e2e/test_conda::shown_3_an_arm64_image_of_a_mixed_environment_is_baked_without_running_it"],
    "F02": [
        "e2e/test_docker_faults::b04_f02_a_step_needs_no_network_no_root_and_sees_nothing_of_the_host",
        "e2e/test_environments::a_poisoned_host_environment_stays_outside",
    ],
}
"""Case -> ``FOLDER/MODULE::NAME`` of the tests that fail when it does not hold, without ``.py`` and ``test_``."""


@pytest.mark.parametrize("case", CASES)
def test_every_case_names_tests_that_exist(case: str) -> None:
    assert CASES[case]
    for named in CASES[case]:
        module, _, name = named.partition("::")
        assert f"test_{name}" in names(ROOT / "tests" / f"{module}.py"), named


def names(path: Path) -> set[str]:
    """The functions of a module."""
    return {node.name for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef)}
