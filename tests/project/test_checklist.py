"""Each row of the user's checklist, and each weakness of the first implementation, has a test.

The numbers are those of the checklist that came with the user's description. Here stands, for each,
which tests would catch its breach: `file::test`, without the `test_` of both.
"""

import ast
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

import pytest

_TESTS: Final = Path(__file__).parents[1]

CHECKLIST: Final = {
    # Workload
    1: "e2e/life::created_again_and_again_makes_one_container",
    2: "e2e/refusals::two_containers_are_refused_and_the_running_one_is_left",
    3: "e2e/refusals::a_tenant_cannot_reach_the_host unit/policy::what_is_not_allowed_is_refused",
    4: "e2e/container::tenants_never_share_their_environment",
    5: "e2e/container::environment_values_arrive_byte_for_byte",
    6: (
        "e2e/life::a_delete_removes_a_container_in_any_state "
        "e2e/life::a_delete_leaves_volumes_with_a_name "
        "unit/reconciler::a_deleted_tenant_is_not_told_gone_while_something_is_left"
    ),
    7: "e2e/life::a_delete_is_idempotent",
    8: "e2e/container::command_and_args_make_the_process",
    9: "e2e/container::name_and_labels_are_as_the_contract_says",
    10: "e2e/images::a_missing_image_is_pulled integration/images::a_digest_is_pulled",
    11: (
        "integration/images::without_a_login_the_pull_is_denied "
        "integration/images::a_wrong_password_is_denied_and_not_told "
        "integration/images::a_password_file_opens_the_registry"
    ),
    # Configuration
    12: "e2e/start::the_seeds_settings_are_accepted_and_docker_host_wins",
    13: "e2e/refusals::another_provider_is_refused",
    14: "unit/settings::without_file_and_environment_there_are_the_defaults",
    15: (
        "integration/engines_elsewhere::an_engine_is_driven_by_tls "
        "e2e/elsewhere::clear_text_to_an_engine_elsewhere_is_warned_of "
        "unit/settings::an_address_that_cannot_be_the_engines_is_refused"
    ),
    16: (
        "e2e/start::the_seeds_settings_are_accepted_and_docker_host_wins "
        "e2e/elsewhere::docker_host_never_falls_back"
    ),
    17: (
        "integration/engines_elsewhere::an_engine_is_driven_by_tls "
        "integration/engines_elsewhere::the_certificate_of_another_ca_is_not_trusted "
        "integration/engines_elsewhere::without_a_certificate_of_its_ca_nobody_is_let_in "
        "e2e/elsewhere::an_engine_is_reached_by_dockers_own_variables "
        "unit/settings::the_tls_port_without_tls_is_refused"
    ),
    18: "integration/networks::a_network_that_was_made_by_hand_is_joined",
    19: (
        "integration/networks::a_missing_network_is_made_once "
        "e2e/networks::tenants_that_come_at_once_share_one_network"
    ),
    20: (
        "integration/networks::an_overlay_is_made_attachable "
        "integration/networks::an_overlay_without_a_swarm_is_told_in_the_engines_words "
        "integration/networks::an_overlay_for_services_alone_is_refused"
    ),
    21: "e2e/container::name_and_labels_are_as_the_contract_says",
    22: "e2e/container::name_and_labels_are_as_the_contract_says",
    23: "e2e/elsewhere::an_engine_is_reached_by_dockers_own_variables",
    # In-container access
    24: "e2e/in_container::the_mounted_socket_and_its_group_are_enough",
    25: "e2e/elsewhere::an_engine_in_a_container_may_come_late",
    26: "e2e/compose::docker_in_docker_by_tls",
    27: (
        "e2e/in_container::without_the_group_it_says_what_is_missing "
        "integration/docker_client::a_missing_socket_is_told_as_one "
        "integration/engines_elsewhere::a_forbidden_socket_is_told_from_a_missing_one"
    ),
    # Ports, limits, naming
    28: "e2e/container::host_port_zero_publishes_nothing",
    29: "e2e/container::host_port_zero_publishes_nothing",
    30: "e2e/container::a_host_port_answers_without_expose",
    31: (
        "e2e/refusals::a_port_of_another_tenant_is_a_conflict "
        "e2e/refusals::a_port_of_a_foreign_container_is_a_conflict "
        "e2e/refusals::a_port_of_a_host_process_is_a_conflict"
    ),
    32: "unit/document::port unit/document::port_is_refused",
    33: "e2e/life::status_tells_what_the_engine_has",
    34: "e2e/container::the_users_own_examples_run_verbatim",
    35: "e2e/container::limits_arrive_exactly",
    36: "e2e/container::limits_arrive_exactly e2e/container::a_mebibyte_too_much_is_killed",
    37: "e2e/container::a_document_without_resources_gets_the_operators",
    # Status
    38: "e2e/life::a_tenant_lives_and_goes e2e/life::a_tenant_nobody_knows_is_not_found",
    39: (
        "e2e/truth::an_exit_is_told_by_its_code e2e/truth::a_memory_hog_is_told_within_two_seconds "
        "e2e/truth::a_removed_container_is_made_again "
        "e2e/truth::a_container_stopped_by_hand_runs_again e2e/truth::a_crash_loop_is_told_as_one"
    ),
    40: (
        "e2e/health::a_tenant_runs_once_it_is_healthy e2e/health::the_images_own_check_counts_too "
        "e2e/health::a_failing_check_is_a_failure_and_may_pass_again"
    ),
    41: "e2e/life::status_tells_what_the_engine_has",
    42: "e2e/life::status_tells_what_the_engine_has",
    43: "e2e/truth::a_container_stopped_by_hand_runs_again",
    44: (
        "e2e/metrics::startup_seconds_hold_what_really_happened "
        "e2e/metrics::failures_are_counted_by_reason e2e/metrics::metrics_pass_promtools_check"
    ),
    45: "e2e/metrics::buckets_tell_one_second_from_five",
    # Documents
    46: (
        "e2e/container::the_users_own_examples_run_verbatim "
        "unit/messages::json_example_with_comments"
    ),
    47: (
        "e2e/container::the_users_own_examples_run_verbatim "
        "unit/messages::yaml_example_of_a_web_service unit/messages::yaml_example_of_an_application"
    ),
    48: "unit/document::every_field_reaches_the_spec",
    49: (
        "e2e/container::restart_policy_and_log_driver_are_applied "
        "unit/document::provider_config_is_refused"
    ),
    50: (
        "e2e/container::restart_policy_and_log_driver_are_applied "
        "unit/policy::the_host_limits_hold_once_the_engine_has_been_asked"
    ),
    51: "unit/document::an_unknown_field_is_refused_by_name",
    52: "e2e/life::created_again_and_again_makes_one_container",
    # Errors and operations
    53: (
        "e2e/outages::a_consumer_started_without_an_engine_waits_for_it "
        "e2e/outages::the_engine_is_away_for_twenty_seconds"
    ),
    54: (
        "e2e/refusals::a_missing_program_is_a_failed_start "
        "integration/docker::the_holder_of_a_port_is_named"
    ),
    55: "e2e/images::an_unknown_image_is_not_found",
    56: (
        "e2e/images::an_unknown_image_is_not_found "
        "e2e/refusals::a_port_of_another_tenant_is_a_conflict "
        "e2e/container::a_mebibyte_too_much_is_killed"
    ),
    57: (
        "e2e/refusals::a_tenant_cannot_reach_the_host unit/policy::other_paths_may_not_be_mounted"
    ),
    58: (
        "unit/policy::an_image_that_is_not_listed_is_refused "
        "unit/policy::an_image_without_a_digest_is_refused_where_one_is_needed"
    ),
    59: "integration/networks::tenants_reach_each_other_only_where_set",
    60: (
        "e2e/refusals::environment_values_show_up_nowhere "
        "e2e/secrets::nothing_of_it_is_anywhere_else"
    ),
    61: "integration/engines_elsewhere::dropped_packets_are_told_within_seconds",
}

WEAKNESSES: Final = {
    # Container creation
    1: "e2e/container::a_host_port_answers_without_expose",
    2: "e2e/container::host_port_zero_publishes_nothing",
    3: "e2e/container::limits_arrive_exactly",
    4: "e2e/container::limits_arrive_exactly",
    5: "e2e/images::a_missing_image_is_pulled",
    6: "e2e/container::name_and_labels_are_as_the_contract_says",
    7: "e2e/container::restart_policy_and_log_driver_are_applied",
    8: "unit/document::port_is_refused e2e/refusals::all_faults_are_told_at_once",
    9: "unit/document::ports_that_go_together unit/docker_spec::what_is_sent_of_the_host",
    10: "e2e/container::command_and_args_make_the_process",
    11: "unit/document::the_document_given_is_left_as_it_was",
    12: "unit/document::provider_config contract/engine::a_created_container_is_what_was_asked_for",
    13: "e2e/health::a_tenant_runs_once_it_is_healthy",
    14: "unit/document::what_serialisers_always_send_is_refused_when_filled",
    15: "e2e/refusals::a_tenant_cannot_reach_the_host",
    16: "unit/document::provider_config_is_refused unit/policy::other_paths_may_not_be_mounted",
    17: "unit/image_reference::parse_image_refuses",
    18: "unit/document::port",
    19: "unit/docker_spec::the_order_of_a_map_changes_nothing",
    # Lifecycle
    20: (
        "e2e/ledger_loss::an_adopted_tenant_can_be_deleted "
        "e2e/restart::a_restart_looks_once_and_touches_nothing"
    ),
    21: "e2e/life::created_again_and_again_makes_one_container",
    22: "e2e/ledger_loss::another_document_updates_an_adopted_one",
    23: "e2e/updates::a_failed_update_leaves_the_former_version_serving",
    24: "e2e/updates::the_former_document_after_a_rollback_changes_nothing",
    25: "e2e/refusals::a_missing_program_is_a_failed_start",
    26: "integration/docker::a_lost_answer_to_a_start_is_looked_up",
    27: (
        "e2e/life::a_delete_is_idempotent contract/engine::removing_what_is_gone_is_success "
        "e2e/truth::a_removed_container_is_made_again"
    ),
    28: "unit/status::an_update_names_what_it_changed e2e/life::an_update_replaces_the_container",
    29: "e2e/truth::one_tenants_slow_stop_holds_up_no_other",
    30: "contract/engine::what_ignores_the_signal_is_killed",
    31: (
        "e2e/life::a_delete_leaves_volumes_with_a_name "
        "e2e/truth::a_deleted_tenant_still_has_its_own_grace_period"
    ),
    32: "e2e/truth::a_crash_loop_is_told_as_one",
    # Status, errors, surroundings
    33: "e2e/life::a_second_update_is_recorded_too",
    34: "e2e/truth::an_exit_is_told_by_its_code e2e/truth::a_memory_hog_is_told_within_two_seconds",
    35: "unit/docker_spec::health_is_read_and_never_invented",
    36: "e2e/truth::a_crash_loop_is_told_as_one e2e/truth::a_container_stopped_by_hand_runs_again",
    37: "e2e/truth::a_restart_by_the_policy_is_told",
    38: "e2e/life::status_tells_what_the_engine_has e2e/truth::an_exit_is_told_by_its_code",
    39: "e2e/life::a_tenant_lives_and_goes",
    40: "unit/docker_spec::ports_are_what_the_engine_bound",
    41: "e2e/truth::an_exit_right_after_the_start_is_no_success",
    42: "e2e/truth::a_removed_container_is_made_again",
    43: "contract/engine::a_missing_program_is_a_failed_start",
    44: "e2e/kill_points::killed_with_a_confirm_on_the_way",
    45: "e2e/refusals::a_failed_tenant_is_mended_by_an_update",
    46: "contract/ledger::a_setback_is_kept_and_cleared_by_the_next_event",
    47: "integration/docker_client::an_engine_that_is_too_old_is_refused",
    48: "integration/engines_elsewhere::an_engine_is_driven_by_tls",
    49: (
        "integration/docker_client::an_engine_that_hangs_is_unavailable "
        "e2e/outages::a_consumer_started_without_an_engine_waits_for_it"
    ),
    50: "e2e/container::limits_arrive_exactly e2e/container::command_and_args_make_the_process",
    51: "e2e/container::name_and_labels_are_as_the_contract_says",
    52: "unit/docker_spec::the_filter_asks_for_what_is_ours",
    53: "project/checklist::no_test_is_skipped",
    54: "project/checklist::nothing_that_is_needed_is_ignored",
    55: "e2e/in_container::a_health_check_without_a_consumer_fails",
    56: "unit/metrics::the_documented_metrics_are_the_contracts",
}


@cache
def _tests_in(place: str) -> frozenset[str]:
    folder, _, name = place.partition("/")
    tree = ast.parse((_TESTS / folder / f"test_{name}.py").read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, functions))


@pytest.mark.parametrize(("table", "count"), [(CHECKLIST, 61), (WEAKNESSES, 56)])
def test_every_number_has_its_tests(table: dict[int, str], count: int) -> None:
    """None is left out."""
    assert set(table) == set(range(1, count + 1))


@pytest.mark.parametrize("table", [CHECKLIST, WEAKNESSES])
def test_every_test_that_is_named_exists(table: dict[int, str]) -> None:
    """A test that gets another name takes its number along."""
    named = {name for names in table.values() for name in names.split()}

    missing = []
    for name in sorted(named):
        place, _, test = name.partition("::")
        if f"test_{test}" not in _tests_in(place):
            missing.append(name)
    assert missing == []


def test_no_test_is_skipped() -> None:
    """A test that needs what is not there fails: a skipped one proves nothing to anybody."""
    words = ("pytest.skip", "mark.skip", "mark.xfail", "importorskip")
    texts = {path: path.read_text() for path in _TESTS.rglob("*.py") if path != Path(__file__)}

    assert [path for path, text in texts.items() if any(word in text for word in words)] == []


def test_nothing_that_is_needed_is_ignored() -> None:
    """What git would leave out is missing in every clone."""
    root = _TESTS.parent
    needed = [
        str(path.relative_to(root))
        for folder in ("consumer", "deploy", "tests")
        for path in (root / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]

    # 1 is git's word for: none of them.
    outcome = subprocess.run(
        ("git", "check-ignore", "--no-index", "--stdin"),
        input="\n".join(needed),
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (outcome.returncode, outcome.stdout) == (1, ""), outcome.stderr
