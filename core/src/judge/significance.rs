//! Whether more bad events than before can be chance.
//!
//! Two counts of rare events are compared by the exact conditional test for Poisson rates (Przyborowski and Wilenski,
//! 1940): if the rate now were no more than `times` the rate of the warm-up, then of all bad events together those of now
//! would be a binomial share. It says nothing about few events, whatever their ratio, and needs no guess about an empty
//! warm-up.

use super::Level;

/// How unlikely chance must be before it is ruled out. Rules are asked again and again, so it is far from 1 in 20.
pub const CHANCE: f64 = 0.001;

/// From here on the rest of a sum changes no answer.
const CERTAIN: f64 = 0.99;

/// Whether `now` has a higher share of bad events than `times` that of `before`, and chance does not explain it.
#[expect(clippy::cast_precision_loss, reason = "a share needs no more than the 52 bits of a float")]
pub(super) fn is_worse(now: Level, before: Level, times: f64) -> bool {
    let (now_all, before_all) = (now.events() as f64, before.events() as f64);
    if now.bad == 0 || before_all == 0.0 {
        return false;
    }
    let worse = now.bad as f64 * before_all > times * before.bad as f64 * now_all;
    let share = times * now_all / (times * now_all + before_all);
    worse && at_least(now.bad, now.bad.saturating_add(before.bad), share) < CHANCE
}

/// The probability of at least `count` hits in `tries`, each a hit with probability `share`; `count` is above the mean.
#[expect(clippy::cast_precision_loss, reason = "counts of events are far below 2^52")]
fn at_least(count: u64, tries: u64, share: f64) -> f64 {
    let (k, n) = (count as f64, tries as f64);
    let first = ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k) + k * share.ln() + (n - k) * (-share).ln_1p();
    let mut term = first.exp();
    let mut sum = term;
    let odds = share / (1.0 - share);
    let mut hits = k;
    // A sum that is likely already need not be known better.
    while hits < n && term > sum * f64::EPSILON && sum < CERTAIN {
        term *= (n - hits) / (hits + 1.0) * odds;
        sum += term;
        hits += 1.0;
    }
    sum.min(1.0)
}

/// The logarithm of a factorial, by Stirling's series; small ones are worked out.
fn ln_factorial(n: f64) -> f64 {
    let x = n + 1.0;
    if x < 10.0 {
        let mut product = 1.0;
        let mut factor = 2.0;
        while factor <= n {
            product *= factor;
            factor += 1.0;
        }
        return f64::ln(product);
    }
    let (inverse, square) = (1.0 / x, 1.0 / (x * x));
    let series = inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square / 1260.0));
    (x - 0.5).mul_add(x.ln(), series - x) + 0.5 * std::f64::consts::TAU.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(good: u64, bad: u64) -> Level {
        Level { good, bad }
    }

    #[test]
    fn tails_of_the_binomial_distribution() {
        // Worked out by hand, and the last with exact fractions.
        for (count, tries, share, expected) in [
            (1, 1, 0.25, 0.25),
            (3, 3, 0.5, 0.125),
            (9, 10, 0.5, 11.0 / 1024.0),
            (60, 100, 0.5, 0.028_443_966_820_490_39),
            (700, 1_000, 0.6, 3.149_945_928_472_09e-11),
        ] {
            let found = at_least(count, tries, share);
            assert!((found / expected - 1.0).abs() < 1e-6, "{count} of {tries}: {found} and not {expected}");
        }
    }

    #[test]
    fn little_traffic_proves_nothing_and_much_does() {
        assert!(!is_worse(level(0, 0), level(100, 0), 3.0));
        assert!(!is_worse(level(10, 2), level(30, 0), 3.0), "twelve probes");
        assert!(!is_worse(level(900, 100), level(0, 0), 3.0), "nothing is known of before");
        assert!(is_worse(level(900, 100), level(1_000, 0), 3.0), "and nothing bad is not nothing known");
        assert!(!is_worse(level(950, 50), level(1_900, 40), 3.0), "less than three times");
        assert!(is_worse(level(8_000, 2_000), level(19_600, 400), 3.0));
        assert!(is_worse(level(u64::MAX / 4, u64::MAX / 4), level(u64::MAX / 2, 1), 3.0), "no count is too large");
    }
}
