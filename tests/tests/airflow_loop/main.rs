//! The whole loop, on real Airflows (2.11.2 and 3.3.2, and by `make compat` others): requests come over Kafka, their plans
//! are deployed, triggered and followed, rows are in PostgreSQL, and events say so.
//!
//! One Airflow each, and a story: what a step leaves behind, the next one finds.

mod approvals;
mod chaos;
mod faults;
mod steps;
mod world;

use dagwright_tests::airflow;
use world::{Deploy, World};

#[test]
fn airflow_2_runs_what_kafka_asks_for() {
    let mut world = World::start(&airflow::version_2(), Deploy::Folder);
    story(&mut world, 2);
}

#[test]
fn airflow_3_runs_what_kafka_asks_for() {
    let mut world = World::start(&airflow::version_3(), Deploy::Bundle);
    story(&mut world, 3);
}

fn story(world: &mut World, major: u32) {
    steps::a_request_is_loaded_rows(world, major);
    steps::doctor_finds_nothing_wrong(world);
    steps::the_same_again_changes_nothing(world, major);
    steps::a_run_that_somebody_starts_is_followed(world);
    steps::a_cleared_run_is_followed_anew(world);
    steps::a_daemon_that_was_killed_goes_on(world);
    steps::all_dags_go_to_one_loader(world, major);
    if major == 2 {
        // What follows is seen with both layouts.
        steps::all_dags_go_back_to_files(world);
    }
    steps::an_airflow_that_is_away_is_waited_for(world);
    faults::a_call_that_is_lost_is_made_again(world);
    faults::credentials_that_are_no_longer_taken_are_renewed(world, major);
    faults::a_run_that_nobody_tells_of_is_found(world);
    faults::a_spool_that_is_full_loses_no_run(world);
    chaos::daemons_are_killed_in_the_middle_of_calls(world);
    steps::a_dag_that_was_deleted_by_hand_comes_back(world);
    steps::an_airflow_that_forgot_everything_is_told_again(world);
    steps::what_is_away_is_waited_for_until_somebody_cancels(world);
    steps::a_missed_deadline_is_told(world, major);
    if world.can_ask() {
        approvals::people_decide_in_airflow(world);
        approvals::what_is_decided_elsewhere_is_asked_no_longer(world);
    }
    steps::what_drifted_is_planned_anew(world);
    steps::a_pipeline_rests_and_goes(world);
}
