//! Long commands with visible progress: what runs, for how long, and its last words when it fails.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Between two signs of life on a terminal.
const TERMINAL_TICK: Duration = Duration::from_millis(500);
/// Between two signs of life in a log file.
const LOG_TICK: Duration = Duration::from_secs(15);
/// Lines of a failed command that are shown.
const SHOWN_LINES: usize = 60;
/// Characters of the command's last line in a sign of life.
const LINE_WIDTH: usize = 90;

/// Runs a command with its output folded into one line of progress: `what … 12 s`.
///
/// # Errors
/// When it cannot be started or fails; its last lines are printed first.
pub fn run(what: &str, command: &mut Command) -> Result<()> {
    let started = Instant::now();
    let terminal = std::io::stderr().is_terminal();
    eprintln!("  {what} …");
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let (sender, lines) = channel();
    forward(child.stdout.take(), sender.clone());
    forward(child.stderr.take(), sender);
    let mut last: VecDeque<String> = VecDeque::new();
    let tick = if terminal { TERMINAL_TICK } else { LOG_TICK };
    let mut next_sign = started + tick;
    loop {
        match lines.recv_timeout(next_sign.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if last.len() == SHOWN_LINES {
                    last.pop_front();
                }
                last.push_back(line);
            }
            Err(RecvTimeoutError::Timeout) => {
                next_sign = Instant::now() + tick;
                sign_of_life(terminal, started, last.back());
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child.wait()?;
    clear_line(terminal);
    let seconds = started.elapsed().as_secs_f32();
    if !status.success() {
        for line in &last {
            eprintln!("    {line}");
        }
        bail!("{what}: {program} failed ({status})");
    }
    eprintln!("  {what}: done in {seconds:.1} s");
    Ok(())
}

fn forward(stream: Option<impl Read + Send + 'static>, lines: Sender<String>) {
    let Some(stream) = stream else { return };
    // The thread ends with the stream.
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            if !line.is_empty() && lines.send(line).is_err() {
                return;
            }
        }
    });
}

fn sign_of_life(terminal: bool, started: Instant, line: Option<&String>) {
    let seconds = started.elapsed().as_secs();
    let line: String = line.map(|line| line.chars().take(LINE_WIDTH).collect()).unwrap_or_default();
    if terminal {
        eprint!("\r\x1b[K    {seconds} s  {line}");
        let _ = std::io::stderr().flush();
    } else {
        eprintln!("    {seconds} s  {line}");
    }
}

fn clear_line(terminal: bool) {
    if terminal {
        eprint!("\r\x1b[K");
    }
}
