//! Figures of many measurements. Of none there is no figure: NaN, `null` in JSON.

/// The value below which `share` of the sorted values lie; one of them, or none.
#[must_use]
pub fn quantile<T: Copy>(sorted: &[T], share: f64) -> Option<T> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let index = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied()
}

/// The middle one of some measurements, of an even count the mean of the middle two.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let upper = values.len() / 2;
    let lower = values.len().saturating_sub(1) / 2;
    match (values.get(lower), values.get(upper)) {
        (Some(lower), Some(upper)) => f64::midpoint(*lower, *upper),
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let values: Vec<u32> = (1..=100).collect();
        let quantiles = [0.5, 0.99, 1.0].map(|share| quantile(&values, share));
        assert_eq!(quantiles, [Some(51), Some(100), Some(100)]);
        assert_eq!(quantile::<u32>(&[], 0.5), None);
    }

    #[test]
    fn a_median_is_the_middle_or_between_the_middle_two() {
        let of = |values: &[f64]| median(values.to_vec());
        assert!((of(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((of(&[10.0, 1.0, 4.0, 2.0]) - 3.0).abs() < f64::EPSILON);
        assert!((of(&[7.0]) - 7.0).abs() < f64::EPSILON);
        assert!(of(&[]).is_nan());
    }
}
