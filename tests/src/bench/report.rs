//! `docs/bench.md`: tables, plots and method, written from the figures beside it.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::plot::{Lines, Plot};

/// How everything was measured.
const METHOD: &str = include_str!("report/method.md");
/// A column of a table: its head, the field, how it is written.
type Column = (&'static str, &'static str, fn(f64) -> String);

const COST: [Column; 4] = [
    ("packets per CPU second", "packets_per_cpu_second", whole),
    ("x Janus", "times_janus", two),
    ("x LiveKit", "times_livekit", two),
    ("server CPU / load CPU", "server_over_client", two),
];
const LATENCY: [Column; 3] = [
    ("p50 ms", "p50_micros", thousandths),
    ("p95 ms", "p95_micros", thousandths),
    ("p99 ms", "p99_micros", thousandths),
];
const LOSS: Column = ("lost", "loss_percent", percent);
const RESENT: Column = ("resent", "resent_percent", percent);
const USE: [Column; 3] = [
    ("server CPU", "server_cpu_percent", whole_percent),
    ("load CPU", "load_percent", whole_percent),
    ("noise", "noise_percent", whole_percent),
];
const MEMORY: Column = ("KiB each", "kib_per_receiver", whole);
const IDLE: Column = ("MiB before", "idle_mib", one);

/// A part of the report.
struct Part {
    /// The file of its figures, less `.json`.
    file: &'static str,
    title: &'static str,
    /// What the steps are.
    step: &'static str,
    columns: fn() -> Vec<Column>,
    plots: &'static [Drawn],
}

/// A plot of a part: its file's ending, title, name of the value, the field, and what one of it is.
type Drawn = (&'static str, &'static str, &'static str, &'static str, f64);

const SPEED: Drawn =
    ("speed", "Forwarded packets per CPU second", "packets per CPU second", "packets_per_cpu_second", 1.0);
const DELAY: Drawn = ("latency", "99th percentile of latency, ms", "ms", "p99_micros", 1000.0);

const PARTS: [Part; 10] = [
    Part {
        file: "forward",
        title: "Fan-out: one camera and microphone to many",
        step: "subscribers",
        columns: load,
        plots: &[SPEED, DELAY],
    },
    Part { file: "forward-cm", title: "The same with AES-CM", step: "subscribers", columns: load, plots: &[SPEED] },
    Part {
        file: "conference",
        title: "Conference: 8 rooms of 4, everybody sends camera and microphone to everybody",
        step: "rooms",
        columns: load,
        plots: &[],
    },
    Part {
        file: "forward-apart",
        title: "Fan-out, receivers served by another CPU",
        step: "subscribers",
        columns: load,
        plots: &[SPEED, DELAY],
    },
    Part {
        file: "conference-apart",
        title: "Conference, receivers served by another CPU",
        step: "rooms",
        columns: load,
        plots: &[],
    },
    Part { file: "conference-cm", title: "The same with AES-CM", step: "rooms", columns: load, plots: &[] },
    Part {
        file: "room",
        title: "Large room: 50 participants, 6 with camera and microphone, 44 with a microphone nobody speaks into",
        step: "rooms",
        columns: load,
        plots: &[],
    },
    Part {
        file: "audio",
        title: "Audio alone: one microphone to many",
        step: "subscribers",
        columns: load,
        plots: &[SPEED],
    },
    Part {
        file: "lossy",
        title: "Loss: a camera to 50 subscribers who lose a part of what comes and ask for it again",
        step: "loss",
        columns: lossy,
        plots: &[],
    },
    Part {
        file: "idle",
        title: "Idle: 1,000 sessions in 100 rooms without media",
        step: "sessions",
        columns: idle,
        plots: &[],
    },
];

fn load() -> Vec<Column> {
    COST.into_iter().chain(LATENCY).chain([LOSS, MEMORY]).chain(USE).collect()
}

fn lossy() -> Vec<Column> {
    let [packets, ..] = COST;
    [LOSS, RESENT, packets].into_iter().chain(LATENCY).chain(USE).collect()
}

fn idle() -> Vec<Column> {
    let [server, ..] = USE;
    vec![(server.0, server.1, three_percent), MEMORY, IDLE]
}

/// Writes `bench.md` and the plots from the figures in `docs/bench/`.
///
/// # Errors
/// Figures cannot be read, or something cannot be written.
pub fn write(docs: &Path) -> Result<()> {
    let directory = docs.join("bench");
    let mut text =
        String::from("# Benchmarks\n\nWritten by `cargo xtask bench report` from the figures in `bench/`.\n");
    for part in &PARTS {
        if let Some(report) = read(&directory, part.file)? {
            part.write(&mut text, &report, &directory)?;
        }
    }
    if let Some(report) = read(&directory, "join")? {
        joins(&mut text, &report)?;
    }
    if let Some(report) = read(&directory, "impaired")? {
        impaired(&mut text, &report)?;
    }
    if let Some(report) = read(&directory, "crowd")? {
        crowd(&mut text, &report)?;
    }
    if let Some(report) = read(&directory, "failover")? {
        failover(&mut text, &report)?;
    }
    if let Some(report) = read(&directory, "drain")? {
        drain(&mut text, &report)?;
    }
    if let Some(report) = read(&directory, "api")? {
        api(&mut text, &report)?;
    }
    writeln!(text, "\n{}", METHOD.trim_end())?;
    fs::write(docs.join("bench.md"), text).context("bench.md")
}

fn read(directory: &Path, file: &str) -> Result<Option<Value>> {
    let path = directory.join(format!("{file}.json"));
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(serde_json::from_str(&text).with_context(|| path.display().to_string())?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

impl Part {
    fn write(&self, text: &mut String, report: &Value, directory: &Path) -> Result<()> {
        writeln!(text, "\n## {}\n", self.title)?;
        head(text, report, self.file)?;
        let rows = array(report, "/figures/rows");
        table(text, &["server", self.step], &(self.columns)(), rows, &["server", "step"])?;
        for row in rows {
            if let Some(said) = limit(row) {
                writeln!(text, "\n{} at {}: {said}.", string(row, "server"), string(row, "step"))?;
            }
        }
        bounds(text, rows)?;
        for (ending, title, y, field, unit) in self.plots {
            let name = format!("{}-{ending}.svg", self.file);
            let plot = Plot { title, x: self.step, y, lines: lines(rows, field, *unit) };
            plot.save(&directory.join(&name)).with_context(|| name.clone())?;
            writeln!(text, "\n![{title}](bench/{name})")?;
        }
        Ok(())
    }
}

/// Parts that are not made of runs: a row is one run, of as many events as it says.
const ONCE: [&str; 4] = ["crowd", "failover", "drain", "api"];

/// Where and when figures were taken, and how.
fn head(text: &mut String, report: &Value, file: &str) -> Result<()> {
    let (runs, seconds) = (whole(number(report, "runs")), whole(number(report, "seconds")));
    let taken = if ONCE.contains(&file) { String::new() } else { format!("medians of {runs} runs of {seconds} s; ") };
    writeln!(
        text,
        "{}, {} CPUs, {}; {}; {}; {taken}`{}`; [figures](bench/{file}.json)\n",
        string(report, "cpu_model"),
        whole(number(report, "cpus")),
        string(report, "kernel"),
        string(report, "date"),
        string(report, "srtp"),
        string(report, "command"),
    )?;
    Ok(())
}

/// A table: first these words of each row, then the columns of which there is any figure.
fn table(text: &mut String, heads: &[&str], columns: &[Column], rows: &[Value], words: &[&str]) -> Result<()> {
    let known = |field: &str| rows.iter().any(|row| row.get(field).is_some_and(Value::is_number));
    let columns: Vec<&Column> = columns.iter().filter(|(_, field, _)| known(field)).collect();
    let titles: Vec<&str> = heads.iter().copied().chain(columns.iter().map(|(title, ..)| *title)).collect();
    writeln!(text, "| {} |", titles.join(" | "))?;
    writeln!(text, "|{}{}|", "---|".repeat(heads.len()), vec!["---:"; columns.len()].join("|"))?;
    for row in rows {
        let figures = columns.iter().map(|(_, field, format)| match row.get(field).and_then(Value::as_f64) {
            Some(value) => format(value),
            None => "-".to_owned(),
        });
        let cells: Vec<String> = words.iter().map(|word| string(row, word)).chain(figures).collect();
        writeln!(text, "| {} |", cells.join(" | "))?;
    }
    Ok(())
}

/// Why a series of a server ends with this row.
fn limit(row: &Value) -> Option<String> {
    match row.get("limit")? {
        Value::String(limit) if limit == "loss" => Some("more than 1 % is lost, its limit".to_owned()),
        Value::String(limit) if limit == "load-client" => {
            let core = number(row, "receivers") * 100.0 / number(row, "server_cpu_percent");
            let line = format!("a line from the server's CPU there meets the whole core at {}", whole(core));
            Some(format!("the load client's CPU is full: its limit, not the server's; {line}"))
        }
        Value::Object(failed) => Some(format!("failed: {}", brief(failed.get("failed")?.as_str()?))),
        _ => None,
    }
}

/// The beginning of an error; the figures have all of it.
fn brief(error: &str) -> String {
    const ENOUGH: usize = 100;
    let line = error.lines().next().unwrap_or_default();
    if line.chars().count() <= ENOUGH { line.to_owned() } else { line.chars().take(ENOUGH).chain(['…']).collect() }
}

/// Crypto and send alone, and how far ours is from that.
fn bounds(text: &mut String, rows: &[Value]) -> Result<()> {
    let beside = |row| Some((row, Value::get(row, "bound").filter(|bound| bound.is_object())?));
    let bounds: Vec<_> = rows.iter().filter_map(beside).collect();
    if bounds.is_empty() {
        return Ok(());
    }
    writeln!(text, "\nWhat cannot be done without, measured beside each run (see [the bound](#the-bound)):\n")?;
    writeln!(
        text,
        "| subscribers | sealing and sending, ns a packet | of that sealing | Meridian, ns a packet | times |"
    )?;
    writeln!(text, "|---:|---:|---:|---:|---:|")?;
    for (row, bound) in bounds {
        let of_bound = whole(number(bound, "nanos_per_packet"));
        let sealing = whole(number(bound, "seal_nanos_per_packet"));
        let ours = whole(1e9 / number(row, "packets_per_cpu_second"));
        let (subscribers, times) = (whole(number(row, "receivers")), two(number(bound, "times")));
        writeln!(text, "| {subscribers} | {of_bound} | {sealing} | {ours} | {times} |")?;
    }
    Ok(())
}

fn joins(text: &mut String, report: &Value) -> Result<()> {
    writeln!(text, "\n## Joining: connect to first media packet\n")?;
    head(text, report, "join")?;
    let columns: [Column; 6] = [
        ("at a time", "at_a_time", whole),
        ("joins a second", "joins_per_second", one),
        ("p50 ms", "p50_ms", one),
        ("p95 ms", "p95_ms", one),
        ("server CPU ms a join", "server_cpu_ms", two),
        ("load CPU", "load_percent", whole_percent),
    ];
    table(text, &["server"], &columns, array(report, "/figures/rates"), &["server"])?;
    for (kind, title) in [("warm", "a second participant"), ("cold", "the first of a room")] {
        writeln!(text, "\nOurs step by step, {title}:\n")?;
        let columns: [Column; 2] = [("p50 ms", "p50", one), ("p95 ms", "p95", one)];
        table(text, &["step"], &columns, array(report, &format!("/figures/steps/{kind}/steps_ms")), &["step"])?;
    }
    Ok(())
}

fn impaired(text: &mut String, report: &Value) -> Result<()> {
    writeln!(text, "\n## Chromium on a bad path\n")?;
    head(text, report, "impaired")?;
    let columns: [Column; 7] = [
        ("frames a second", "frames_per_second", one),
        ("freezes", "freezes", whole),
        ("frozen s", "frozen_seconds", two),
        ("received kb/s", "received_kbps", whole),
        ("of the path", "utilisation_percent", whole_percent),
        ("lines at the end", "height", whole),
        ("s to adapt", "adapt_seconds", one),
    ];
    table(text, &["path"], &columns, array(report, "/figures/rows"), &["path"])
}

fn crowd(text: &mut String, report: &Value) -> Result<()> {
    writeln!(
        text,
        "\n## Crowd: what each of those in a room receives of a join, a change, a leave, and the edge's CPU\n"
    )?;
    head(text, report, "crowd")?;
    let columns: [Column; 11] = [
        ("messages a join", "join_messages", one),
        ("bytes", "join_bytes", whole),
        ("edge CPU ms", "join_cpu_ms", one),
        ("messages a change", "update_messages", one),
        ("bytes", "update_bytes", whole),
        ("edge CPU ms", "update_cpu_ms", one),
        ("messages a leave", "leave_messages", one),
        ("bytes", "leave_bytes", whole),
        ("edge CPU ms", "leave_cpu_ms", one),
        ("mute heard, p50 ms", "mute_p50_ms", one),
        ("p95 ms", "mute_p95_ms", one),
    ];
    table(text, &["in the room"], &columns, array(report, "/figures/rows"), &["step"])
}

fn failover(text: &mut String, report: &Value) -> Result<()> {
    writeln!(text, "\n## Failover: the node under a call of four browsers is lost\n")?;
    head(text, report, "failover")?;
    let columns: [Column; 7] = [
        ("times", "times", whole),
        ("pictures", "pictures", whole),
        ("still while nothing breaks, p50 ms", "usual_p50_ms", whole),
        ("still when it is lost, p50 ms", "still_p50_ms", whole),
        ("p95 ms", "still_p95_ms", whole),
        ("worst ms", "still_worst_ms", whole),
        ("resumes", "resumed", whole),
    ];
    table(text, &["the node", "clients with"], &columns, array(report, "/figures/rows"), &["end", "step"])
}

fn drain(text: &mut String, report: &Value) -> Result<()> {
    writeln!(text, "\n## Drain: the node under calls is told to end\n")?;
    head(text, report, "drain")?;
    let columns: [Column; 10] = [
        ("sessions", "sessions", whole),
        ("times", "times", whole),
        ("pictures", "pictures", whole),
        ("still while nothing happens, p50 ms", "usual_p50_ms", whole),
        ("p95 ms", "usual_p95_ms", whole),
        ("still during the drain, p50 ms", "still_p50_ms", whole),
        ("p95 ms", "still_p95_ms", whole),
        ("worst ms", "still_worst_ms", whole),
        ("resumes", "resumed", whole),
        ("process ended after, worst ms", "ended_worst_ms", whole),
    ];
    table(text, &["calls"], &columns, array(report, "/figures/rows"), &["step"])
}

fn api(text: &mut String, report: &Value) -> Result<()> {
    writeln!(text, "\n## Server API: rooms made, listed and deleted\n")?;
    head(text, report, "api")?;
    let columns: [Column; 8] = [
        ("rooms/s", "rooms_per_second", whole),
        ("edge CPU ms each", "edge_cpu_ms", two),
        ("create, p50 ms", "create_p50_ms", one),
        ("p95 ms", "create_p95_ms", one),
        ("list, p50 ms", "list_p50_ms", one),
        ("p95 ms", "list_p95_ms", one),
        ("delete, p50 ms", "delete_p50_ms", one),
        ("p95 ms", "delete_p95_ms", one),
    ];
    table(text, &["calls"], &columns, array(report, "/figures/rows"), &["step"])
}

/// A line for each server.
fn lines(rows: &[Value], field: &str, unit: f64) -> Lines {
    let mut lines = Lines::new();
    for row in rows {
        if let (Some(x), Some(y)) =
            (row.get("receivers").and_then(Value::as_f64), row.get(field).and_then(Value::as_f64))
        {
            lines.entry(string(row, "server")).or_default().push((x, y / unit));
        }
    }
    lines
}

fn array<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn string(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn number(value: &Value, field: &str) -> f64 {
    value.get(field).and_then(Value::as_f64).unwrap_or(f64::NAN)
}

/// With a space between thousands.
fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) && digit.is_ascii_digit() && !out.ends_with('-') {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

fn one(value: f64) -> String {
    format!("{value:.1}")
}

fn two(value: f64) -> String {
    format!("{value:.2}")
}

fn thousandths(value: f64) -> String {
    format!("{:.1}", value / 1000.0)
}

fn percent(value: f64) -> String {
    format!("{value:.2} %")
}

fn whole_percent(value: f64) -> String {
    format!("{value:.0} %")
}

fn three_percent(value: f64) -> String {
    format!("{value:.3} %")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report() -> Value {
        let row = |server: &str, packets: f64, times: Option<f64>, bound: Value| {
            json!({ "server": server, "step": "100", "receivers": 100, "packets_per_cpu_second": packets,
                    "times_janus": times, "p99_micros": 2100.0, "loss_percent": 0.0, "bound": bound })
        };
        let bound = json!({ "nanos_per_packet": 1250.0, "seal_nanos_per_packet": 200.0, "times": 1.99 });
        json!({ "cpu_model": "CPU", "cpus": 2, "kernel": "Linux 6", "date": "2026-01-01", "srtp": "GCM", "runs": 3,
                "seconds": 10, "command": "cargo xtask bench forward",
                "figures": { "rows": [row("Meridian", 400_000.0, Some(5.0), bound),
                                      row("Janus", 80_000.0, Some(1.0), Value::Null)] } })
    }

    #[test]
    fn figures_become_a_table_a_plot_and_a_distance() {
        let docs = std::env::temp_dir().join(format!("meridian-report-test-{}", std::process::id()));
        fs::create_dir_all(docs.join("bench")).unwrap();
        fs::write(docs.join("bench/forward.json"), report().to_string()).unwrap();
        write(&docs).unwrap();
        let text = fs::read_to_string(docs.join("bench.md")).unwrap();
        let drawn = docs.join("bench/forward-speed.svg").is_file();
        fs::remove_dir_all(docs).unwrap();
        assert!(text.contains("| Meridian | 100 | 400 000 | 5.00 | 2.1 | 0.00 % |"), "{text}");
        assert!(text.contains("| 100 | 1 250 | 200 | 2 500 | 1.99 |"), "{text}");
        assert!(!text.contains("x LiveKit"), "a column without figures");
        assert!(drawn && text.contains("(bench/forward-speed.svg)"));
    }

    #[test]
    fn a_series_says_why_it_ends() {
        let ends = |limit| super::limit(&json!({ "limit": limit }));
        assert_eq!(ends(Value::Null), None);
        assert!(ends(json!("loss")).unwrap().contains("1 %"));
        let row = json!({ "limit": "load-client", "receivers": 400, "server_cpu_percent": 32.0 });
        let said = super::limit(&row).unwrap();
        assert!(said.contains("not the server's") && said.ends_with("at 1 250"), "{said}");
        assert_eq!(ends(json!({ "failed": "fell out\nlater" })).unwrap(), "failed: fell out");
        assert_eq!(ends(json!({ "failed": "x".repeat(1000) })).unwrap().chars().count(), 109);
    }

    #[test]
    fn thousands_are_apart() {
        assert_eq!([1.0, 999.0, 1000.0, 1_234_567.0].map(whole), ["1", "999", "1 000", "1 234 567"]);
    }
}
