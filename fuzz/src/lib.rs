//! What the targets share: panics that the node contains are no crashes.

use std::panic::{PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::process::abort;
use std::sync::{Mutex, PoisonError};

/// The last panic.
static LAST: Mutex<String> = Mutex::new(String::new());

/// To be called once, at a target's start: a panic in a library is kept for [`contained`], which knows whether the node
/// went on; a panic in our own code ends the run even there.
pub fn expect_contained_panics() {
    let ours = take_hook();
    set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        if info.location().is_some_and(|location| location.file().contains("sfu-node/src")) {
            ours(info);
            abort();
        }
        *LAST.lock().unwrap_or_else(PoisonError::into_inner) = info.to_string();
    }));
}

/// Runs a target; a panic that comes out of it ends the run.
pub fn contained(target: fn(&[u8]), input: &[u8]) {
    if catch_unwind(|| target(input)).is_err() {
        eprintln!("{}", LAST.lock().unwrap_or_else(PoisonError::into_inner));
        abort();
    }
}
