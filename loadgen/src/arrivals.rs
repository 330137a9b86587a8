//! When the next record of an open loop is due, whatever the broker does meanwhile.
//!
//! Pure: times are nanoseconds on the run's clock.

use crate::scenario;

pub struct Arrivals {
    kind: scenario::Arrivals,
    /// Nanoseconds between two records, on average.
    gap: f64,
    /// When the next one is due. Kept with fractions, so that rounding never adds up.
    next: f64,
    random: fastrand::Rng,
}

impl Arrivals {
    /// `rate`: records a second, above 0.
    pub fn new(kind: scenario::Arrivals, rate: f64, start: u64, seed: u64) -> Arrivals {
        assert!(rate > 0.0);
        let mut arrivals =
            Arrivals { kind, gap: 1e9 / rate, next: start as f64, random: fastrand::Rng::with_seed(seed) };
        arrivals.advance();
        arrivals
    }

    /// When the next record is due, ns.
    pub fn due(&self) -> u64 {
        self.next as u64
    }

    pub fn advance(&mut self) {
        self.next += match self.kind {
            scenario::Arrivals::Constant => self.gap,
            // The gaps of a Poisson process are exponential.
            scenario::Arrivals::Poisson => -(1.0 - self.random.f64()).ln() * self.gap,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(kind: scenario::Arrivals) -> Vec<f64> {
        let mut arrivals = Arrivals::new(kind, 1000.0, 5_000_000, 3);
        let mut last = 5_000_000;
        (0..100_000)
            .map(|_| {
                let due = arrivals.due();
                arrivals.advance();
                let gap = (due - last) as f64;
                last = due;
                gap
            })
            .collect()
    }

    #[test]
    fn constant_arrivals_are_evenly_spaced() {
        assert!(gaps(scenario::Arrivals::Constant).iter().all(|gap| (gap - 1e6).abs() <= 1.0));
    }

    #[test]
    fn poisson_arrivals_keep_the_rate_and_vary_as_they_must() {
        let gaps = gaps(scenario::Arrivals::Poisson);
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        assert!((mean - 1e6).abs() < 2e4, "{mean}");
        assert!((deviation - mean).abs() < 3e4, "an exponential deviates by its mean: {deviation}");
    }
}
