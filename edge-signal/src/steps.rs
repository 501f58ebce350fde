//! Which steps tables of some layout still have to take. Pure.

/// The tables were written by a newer version.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error(
    "the object's tables are of layout {found}, this version of the edge reads up to {newest}: deploy the newer one"
)]
pub struct Newer {
    /// Their layout, as stored.
    found: f64,
    newest: usize,
}

/// Of all steps, those that tables of this layout have not taken. SQLite's numbers come as doubles.
///
/// # Errors
/// [`Newer`]; also when the layout is no whole number, which no version writes.
pub fn pending<T>(found: f64, steps: &[T]) -> Result<&[T], Newer> {
    let newer = Newer { found, newest: steps.len() };
    // More steps than this nobody writes.
    let layout = (0..=steps.len()).find(|layout| u32::try_from(*layout).is_ok_and(|layout| f64::from(layout) == found));
    layout.and_then(|layout| steps.get(layout..)).ok_or(newer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_layout_takes_the_steps_it_lacks() {
        let steps = ["make", "add", "drop"];
        assert_eq!(pending(0.0, &steps), Ok(steps.as_slice()));
        assert_eq!(pending(2.0, &steps), Ok(["drop"].as_slice()));
        assert_eq!(pending(3.0, &steps), Ok([].as_slice()));
    }

    #[test]
    fn a_newer_layout_is_refused_and_so_is_none() {
        for found in [4.0, 999.0, -1.0, 1.5, f64::NAN] {
            assert!(pending(found, &["make", "add", "drop"]).is_err(), "{found}");
        }
        let said = pending(4.0, &["make"]).unwrap_err().to_string();
        assert!(said.contains("of layout 4, this version of the edge reads up to 1"), "{said}");
    }
}
