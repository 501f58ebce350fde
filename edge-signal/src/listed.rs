//! Lists in variables.

/// What a variable lists, one a line or separated by commas or blanks.
pub(crate) fn listed(text: Option<&str>) -> impl Iterator<Item = &str> {
    text.unwrap_or_default().split([',', ' ', '\n', '\r', '\t']).filter(|item| !item.is_empty())
}
