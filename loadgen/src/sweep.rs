//! The highest rate at which a latency stays within a bound: doubled until it does not, then halved in between.
//!
//! Pure: what measures a rate is handed in.

/// A bound on a percentile, as `--sweep p99=5ms` says it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// 50, 90, 99, 99.9 or 99.99.
    pub percent: f64,
    pub us: f64,
}

/// How near the answer comes to the truth.
const PRECISION: f64 = 0.05;
/// A rate counts as kept when this share of it was acknowledged in time.
const KEPT: f64 = 0.98;

impl std::str::FromStr for Bound {
    type Err = String;

    fn from_str(text: &str) -> Result<Bound, String> {
        let wrong = || format!("{text:?} is no bound; write e.g. p99=5ms or p99.9=800us");
        let (percentile, limit) = text.split_once('=').ok_or_else(wrong)?;
        let percent: f64 = percentile.strip_prefix('p').and_then(|digits| digits.parse().ok()).ok_or_else(wrong)?;
        let (digits, scale) = match limit {
            limit if limit.ends_with("us") => (limit.trim_end_matches("us"), 1.0),
            limit if limit.ends_with("µs") => (limit.trim_end_matches("µs"), 1.0),
            limit => (limit.strip_suffix("ms").ok_or_else(wrong)?, 1000.0),
        };
        let us: f64 = digits.parse::<f64>().map_err(|_| wrong())? * scale;
        let is_known = [50.0, 90.0, 99.0, 99.9, 99.99].contains(&percent);
        if is_known && us > 0.0 { Ok(Bound { percent, us }) } else { Err(wrong()) }
    }
}

/// What a rate gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Records a second that were acknowledged.
    pub kept: f64,
    /// The latency at the bound's percentile, µs.
    pub us: f64,
}

/// The highest of the rates tried that kept `bound`; `None` where not even the first did, `first` being 1 % of it after some steps.
///
/// # Errors
/// Those of `measure`.
pub fn sweep<E>(
    bound: Bound,
    first: f64,
    mut measure: impl FnMut(f64) -> Result<Measured, E>,
) -> Result<Option<f64>, E> {
    let mut holds = |rate: f64| measure(rate).map(|found| found.us <= bound.us && found.kept >= rate * KEPT);
    let (mut good, mut bad) = (None, None);
    let mut rate = first;
    while good.is_none() || bad.is_none() {
        if holds(rate)? {
            good = Some(rate);
            rate *= 2.0;
        } else {
            bad = Some(rate);
            rate /= 2.0;
        }
        if good.is_none() && rate < first / 100.0 {
            return Ok(None);
        }
        if good.is_some() && bad.is_some() {
            break;
        }
    }
    let (mut good, mut bad) = (good.expect("found"), bad.expect("found"));
    while bad / good > 1.0 + PRECISION {
        let middle = (good * bad).sqrt();
        if holds(middle)? {
            good = middle;
        } else {
            bad = middle;
        }
    }
    Ok(Some(good))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A broker whose latency grows beyond all bounds as the rate nears `capacity`.
    fn queue(capacity: f64) -> impl FnMut(f64) -> Result<Measured, ()> {
        move |rate| {
            let load = (rate / capacity).min(0.9999);
            Ok(Measured { kept: rate.min(capacity), us: 100.0 / (1.0 - load) })
        }
    }

    #[test]
    fn the_highest_rate_within_the_bound_is_found_from_above_and_below() {
        let bound: Bound = "p99=1ms".parse().expect("a bound");
        for first in [10.0, 1000.0, 80_000.0, 1e6] {
            // 1000 = 100 / (1 − load): 90 % of the capacity.
            let found = sweep(bound, first, queue(100_000.0)).expect("measured").expect("a rate");
            assert!((85_000.0..=90_000.0).contains(&found), "{first}: {found}");
        }
    }

    #[test]
    fn a_bound_that_no_rate_keeps_has_no_answer() {
        let bound: Bound = "p99.9=50us".parse().expect("a bound");
        assert_eq!(sweep(bound, 1000.0, queue(1e5)), Ok(None));
    }

    #[test]
    fn bounds_are_read_or_refused() {
        assert_eq!("p99.9=800us".parse(), Ok(Bound { percent: 99.9, us: 800.0 }));
        for text in ["p99", "99=5ms", "p98=5ms", "p99=5", "p99=-1ms", "p99=xms"] {
            assert!(text.parse::<Bound>().expect_err(text).contains("p99=5ms"), "{text}");
        }
    }
}
