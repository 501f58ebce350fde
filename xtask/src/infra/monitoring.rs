//! Alert rules and dashboard, checked by Prometheus's own tool. That their metrics exist is a test of the node's.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{Outcome, run_if_present, state};
use crate::repo;

/// The rules parse, and each alert fires on what it is for.
pub(super) fn alerts() -> Result<Outcome> {
    let promtool = |arguments: &[&str]| {
        run_if_present(Command::new("promtool").current_dir(repo::root().join("ops")).args(arguments))
    };
    match promtool(&["check", "rules", "alerts.yml"])? {
        Outcome::Passed => promtool(&["test", "rules", "alerts.test.yml"]),
        skipped @ Outcome::Skipped(_) => Ok(skipped),
    }
}

/// Every query of the dashboard parses.
pub(super) fn dashboard() -> Result<Outcome> {
    let text = fs::read_to_string(repo::root().join("ops/dashboard.json"))?;
    let dashboard: Value = serde_json::from_str(&text).context("ops/dashboard.json")?;
    let queries = queries(&dashboard);
    if queries.is_empty() {
        bail!("the dashboard has no queries");
    }
    let record = |(n, query): (usize, &String)| json!({ "record": format!("dashboard:{n}"), "expr": query });
    let rules: Vec<Value> = queries.iter().enumerate().map(record).collect();
    let file = state().join("dashboard-rules.json");
    fs::create_dir_all(state())?;
    fs::write(&file, json!({ "groups": [{ "name": "dashboard", "rules": rules }] }).to_string())?;
    run_if_present(Command::new("promtool").args(["check", "rules"]).arg(file))
}

/// All `expr` of a dashboard, with values for Grafana's variables.
fn queries(value: &Value) -> Vec<String> {
    match value {
        Value::Object(fields) => {
            let own = fields.get("expr").and_then(Value::as_str);
            let own = own.map(|query| query.replace("$__rate_interval", "5m").replace("$instance", ".*"));
            own.into_iter().chain(fields.values().flat_map(queries)).collect()
        }
        Value::Array(items) => items.iter().flat_map(queries).collect(),
        _ => Vec::new(),
    }
}
