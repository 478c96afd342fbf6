//! What many times amount to.

use crate::result::ContenderResult;
use std::time::Duration;

/// The samples of one contender.
#[derive(Debug, Default)]
pub(crate) struct Times {
    micros: Vec<f64>,
    flushes: Vec<f64>,
}

impl Times {
    /// One more sample.
    pub(crate) fn add(&mut self, took: Duration, flushes: u64) {
        self.micros.push(took.as_secs_f64() * 1e6);
        self.flushes.push(flushes as f64);
    }

    /// Median, quartiles, extremes, mean.
    pub(crate) fn result(mut self, name: &str) -> ContenderResult {
        self.micros.sort_by(f64::total_cmp);
        self.flushes.sort_by(f64::total_cmp);
        let mean = self.micros.iter().sum::<f64>() / self.micros.len().max(1) as f64;
        ContenderResult {
            name: name.to_owned(),
            samples: self.micros.len(),
            median_us: round(at(&self.micros, 0.5)),
            min_us: round(at(&self.micros, 0.0)),
            max_us: round(at(&self.micros, 1.0)),
            quartile_1_us: round(at(&self.micros, 0.25)),
            quartile_3_us: round(at(&self.micros, 0.75)),
            mean_us: round(mean),
            flushes: at(&self.flushes, 0.5),
            ..ContenderResult::default()
        }
    }
}

/// The value at this part of the way through sorted ones, between two if need be.
pub(crate) fn at(sorted: &[f64], part: f64) -> f64 {
    let place = part * sorted.len().saturating_sub(1) as f64;
    let (low, high) = (place.floor(), place.ceil());
    let get = |place: f64| sorted.get(place as usize).copied().unwrap_or(0.0);
    get(low) + (get(high) - get(low)) * (place - low)
}

/// To a tenth of a microsecond below a millisecond, to a microsecond beyond: more is noise.
fn round(micros: f64) -> f64 {
    if micros < 1000.0 {
        (micros * 100.0).round() / 100.0
    } else {
        micros.round()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_values() {
        let sorted = [1.0, 2.0, 4.0, 8.0];
        let seen = [0.0, 0.25, 0.5, 0.75, 1.0].map(|part| at(&sorted, part));
        assert_eq!(seen, [1.0, 1.75, 3.0, 5.0, 8.0]);
        assert_eq!(at(&[7.0], 0.5), 7.0);
        assert_eq!(at(&[], 0.5), 0.0);
    }
}
