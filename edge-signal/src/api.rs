//! HTTP requests as values: who may, what is asked, what is answered. No worker types; `entry` carries it out.

pub mod access;
pub mod cors;
pub mod deployment;
pub mod description;
pub mod join_query;
pub mod join_request;
pub mod json;
pub mod metrics;
pub mod route;
pub mod token_request;
pub mod twirp;
pub mod user_agent;
