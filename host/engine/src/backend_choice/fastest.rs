//! From speeds to the fastest plugin, or the fastest two.

use super::Speeds;

/// How many times as fast two plugins must be as one, to be worth the memory of a second copy of the weights.
const WORTH: f64 = 1.1;

/// Speeds that differ by less count as the same: then the higher score decides. Where the rounds of either lay farther apart,
/// half of that counts, up to [`MOST_NOISE`].
const NOISE: f64 = 0.03;
const MOST_NOISE: f64 = 0.25;

/// Plugins are compared by the time of a request with a prompt of this many tokens and this many decoded tokens.
const PROMPT: f64 = 512.0;
const DECODED: f64 = 128.0;

/// The indices of the plugins to use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fastest {
    pub(super) prefill: usize,
    pub(super) decode: usize,
    /// How many times as fast the two are as the best one alone.
    pub(super) gain: f64,
}

/// The fastest of the plugins, which come in the order of their scores; two of them where `two` allows it and it pays off.
pub(super) fn fastest(speeds: &[(&str, Speeds)], two: bool) -> Option<Fastest> {
    let seconds = |prefill: usize, decode: usize| {
        PROMPT / speeds[prefill].1.prefill + DECODED / speeds[decode].1.decode
    };
    let noise = |spread: f64| (spread / 2.0).clamp(NOISE, MOST_NOISE);
    let both = |spread: [f64; 2]| noise(spread[0].max(spread[1]));
    let one = least(
        speeds.iter().enumerate().map(|(plugin, (_, speeds))| (seconds(plugin, plugin), both(speeds.spread))),
    )?;
    let prefill = least(speeds.iter().map(|(_, speeds)| (1.0 / speeds.prefill, noise(speeds.spread[0]))))?;
    let decode = least(speeds.iter().map(|(_, speeds)| (1.0 / speeds.decode, noise(speeds.spread[1]))))?;
    let gain = seconds(one, one) / seconds(prefill, decode);
    if two && prefill != decode && gain >= WORTH {
        return Some(Fastest { prefill, decode, gain });
    }
    Some(Fastest { prefill: one, decode: one, gain: 1.0 })
}

/// The index of the first time that is the least, but for the noise of both: times, each with its noise.
fn least(times: impl Iterator<Item = (f64, f64)> + Clone) -> Option<usize> {
    let (least, of_least) = times.clone().min_by(|a, b| a.0.total_cmp(&b.0))?;
    times.into_iter().position(|(time, noise)| time <= least * (1.0 + noise.max(of_least)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(speeds: &[[f64; 2]], two: bool) -> (usize, usize) {
        spreading(speeds, [0.0; 2], two)
    }

    fn spreading(speeds: &[[f64; 2]], spread: [f64; 2], two: bool) -> (usize, usize) {
        let speeds: Vec<_> = speeds
            .iter()
            .map(|[prefill, decode]| {
                ("", Speeds { prefill: *prefill, decode: *decode, prompt_tokens: 256, spread })
            })
            .collect();
        let fastest = fastest(&speeds, two).expect("there are some");
        (fastest.prefill, fastest.decode)
    }

    #[test]
    fn one_that_is_the_fastest_at_both_is_taken() {
        assert_eq!(of(&[[100.0, 10.0], [200.0, 20.0], [150.0, 15.0]], true), (1, 1));
    }

    #[test]
    fn two_are_taken_where_it_is_worth_it_and_allowed() {
        let speeds = [[1000.0, 50.0], [300.0, 200.0]];
        // 512 / 300 + 128 / 200 = 2.35 s against 512 / 1000 + 128 / 200 = 1.15 s.
        assert_eq!(of(&speeds, true), (0, 1));
        assert_eq!(of(&speeds, false), (1, 1));
        // 512 / 1000 + 128 / 100 = 1.79 s against 512 / 1000 + 128 / 110 = 1.68 s: 1.07 times.
        assert_eq!(of(&[[1000.0, 100.0], [300.0, 110.0]], true), (0, 0));
    }

    #[test]
    fn of_speeds_that_are_as_good_as_equal_the_higher_score_decides() {
        assert_eq!(of(&[[100.0, 10.0], [101.0, 10.2]], true), (0, 0));
        assert_eq!(of(&[[100.0, 10.0], [104.0, 10.4]], true), (1, 1));
    }

    #[test]
    fn what_a_busy_machine_measured_counts_for_less() {
        let speeds = [[100.0, 10.0], [110.0, 11.0]];
        assert_eq!(of(&speeds, true), (1, 1));
        assert_eq!(spreading(&speeds, [0.3, 0.3], true), (0, 0));
        // Twice as fast is faster, however busy it was.
        assert_eq!(spreading(&[[100.0, 10.0], [200.0, 20.0]], [5.0, 5.0], true), (1, 1));
    }

    #[test]
    fn of_none_there_is_no_fastest() {
        assert_eq!(fastest(&[], true), None);
    }
}
