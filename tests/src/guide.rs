//! What the guides in `docs/` have people run, read from them: what a test runs is what is written there.

use anyhow::{Context, Result};
use xtask::repo;

/// The code blocks of a language in a guide, in their order.
///
/// # Errors
/// There is no such guide.
pub fn blocks(guide: &str, language: &str) -> Result<Vec<String>> {
    let path = repo::root().join("docs").join(guide);
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let (mut blocks, mut open): (Vec<String>, Option<(bool, String)>) = (Vec::new(), None);
    for line in text.lines() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(info), None) => open = Some((info == language, String::new())),
            (Some(_), Some((wanted, block))) => blocks.extend(wanted.then_some(block)),
            (None, Some((wanted, block))) => open = Some((wanted, block + line + "\n")),
            (None, None) => {}
        }
    }
    Ok(blocks)
}

/// The block of a language that has this in it.
///
/// # Errors
/// There is none.
pub fn block(guide: &str, language: &str, with: &str) -> Result<String> {
    let found = blocks(guide, language)?.into_iter().find(|block| block.contains(with));
    found.with_context(|| format!("no {language} with {with:?} in docs/{guide}"))
}
