//! The system tests, a module for each promise, in one binary: it is linked once. `cargo xtask test` runs each module as a
//! process of its own (`--only NAME` runs those named so), for what one breaks or measures is no other's business.

mod a_crowd_shares_a_room;
mod a_dead_node_costs_no_call;
mod a_machine_boots_into_a_node;
mod a_room_spreads_over_shards;
mod a_room_waits_for_a_node;
mod a_switch_a_second_freezes_nothing;
mod app_servers_ask;
mod app_servers_hear_of_calls;
mod bad_frames_hurt_nobody_else;
mod bad_tokens_are_refused;
mod benchmarks_end_what_they_start;
mod browser_call;
mod browsers_come_back;
mod calls_go_on_when_the_network_breaks;
mod clients_that_ask_too_often_wait;
mod dev_command;
mod draining_nodes_move_their_calls;
mod json_and_protobuf_answer_alike;
mod layers_follow_the_path;
mod logs_hold_no_secrets;
mod media_port_trusts_nothing_before_ice;
mod meeting_page;
mod native_call;
mod nodes_prove_who_they_are;
mod one_scalable_stream_serves_every_size;
mod operators_drain_nodes;
mod probe_proves_a_call;
mod room_survives;
mod rows_of_another_version;
mod second_join_replaces_the_first;
mod session_tokens_open_one_session;
mod the_edge_answers_http;
mod what_the_server_mutes_is_silent;
