//! Against float64 references written for clearness, and against exact distributions.

use proptest::prelude::*;

use super::*;

fn config() -> SamplerConfig {
    SamplerConfig { temperature: 1.0, seed: Some(1), ..SamplerConfig::default() }
}

fn sampler(config: SamplerConfig, vocab_size: usize) -> Sampler {
    Sampler::new(config, vocab_size).unwrap()
}

/// The exact softmax of `logits / temperature`.
fn softmax(logits: &[f64], temperature: f64) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exp: Vec<f64> = logits.iter().map(|logit| ((logit - max) / temperature).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.into_iter().map(|value| value / sum).collect()
}

fn widen(logits: &[f32]) -> Vec<f64> {
    logits.iter().map(|&logit| f64::from(logit)).collect()
}

/// Pearson's statistic for `draws` draws from `sampler` must stay below a bound that a correct sampler exceeds with a
/// probability below one in a million; the seed is fixed, so a test that passes keeps passing.
fn check_distribution(sampler: &mut Sampler, logits: &[f32], expected: &[f64], draws: u32) {
    let mut counts = vec![0u32; logits.len()];
    for _ in 0..draws {
        counts[sampler.sample(logits).unwrap().token as usize] += 1;
    }
    let mut statistic = 0.0;
    let mut cells = 0.0;
    for (&count, &probability) in counts.iter().zip(expected) {
        if probability == 0.0 {
            assert_eq!(count, 0);
            continue;
        }
        let mean = probability * f64::from(draws);
        statistic += (f64::from(count) - mean).powi(2) / mean;
        cells += 1.0;
    }
    // The normal approximation of the chi-squared distribution, seven deviations out.
    let bound = cells + 7.0 * (2.0f64 * cells).sqrt() + 20.0;
    assert!(statistic < bound, "chi-squared {statistic} over {cells} cells");
}

#[test]
fn draws_follow_the_softmax() {
    let logits: Vec<f32> = (0..8).map(|token| (token as f32 * 1.7).sin() * 2.0).collect();
    for temperature in [0.3, 1.0, 2.5] {
        let mut sampler = sampler(SamplerConfig { temperature, ..config() }, 8);
        let expected = softmax(&widen(&logits), f64::from(temperature));
        check_distribution(&mut sampler, &logits, &expected, 20_000);
    }
}

#[test]
fn draws_from_several_blocks_follow_the_softmax() {
    // 3 whole blocks and an odd tail, with banned tokens.
    let mut logits: Vec<f32> = (0..1543).map(|token| (token as f32 * 0.37).cos()).collect();
    logits[0] = f32::NEG_INFINITY;
    logits[1542] = f32::NEG_INFINITY;
    let expected = softmax(&widen(&logits), 1.0);
    check_distribution(&mut sampler(config(), 1543), &logits, &expected, 100_000);
}

#[test]
fn draws_after_a_filter_follow_the_softmax_of_what_remains() {
    let logits = [1.0, 0.0, 3.0, 2.0, -1.0];
    let mut sampler = sampler(SamplerConfig { top_k: 3, temperature: 1.5, ..config() }, 5);
    let kept = softmax(&[1.0, f64::NEG_INFINITY, 3.0, 2.0, f64::NEG_INFINITY], 1.5);
    check_distribution(&mut sampler, &logits, &kept, 20_000);
}

/// What stands in the candidates after the filters, or every token that may be drawn.
fn survivors(sampler: &mut Sampler, logits: &[f32]) -> Vec<u32> {
    let summary = Summary::of(logits, "").unwrap();
    let mut tokens: Vec<u32> = if sampler.filter(logits, &summary) {
        sampler.candidates.iter().map(|candidate| candidate.token).collect()
    } else {
        (0..logits.len() as u32).filter(|&token| logits[token as usize] > f32::NEG_INFINITY).collect()
    };
    tokens.sort_unstable();
    tokens
}

/// `kept` must be a run of the tokens in the order of `key` (smallest first) that has at least `p` of the probability,
/// and no more tokens than that takes.
fn check_prefix(kept: &[u32], probabilities: &[f64], key: &[f64], p: f64) -> Result<(), TestCaseError> {
    const SLACK: f64 = 1e-5;
    prop_assert!(!kept.is_empty());
    let is_kept = |token: usize| kept.contains(&(token as u32));
    let mass: f64 = kept.iter().map(|&token| probabilities[token as usize]).sum();
    prop_assert!(mass >= p - SLACK, "kept {mass} of {p}");
    let last =
        kept.iter().copied().max_by(|&a, &b| key[a as usize].total_cmp(&key[b as usize]).then(a.cmp(&b)));
    let last = last.unwrap() as usize;
    let before_last = mass - probabilities[last];
    prop_assert!(kept.len() == 1 || before_last < p + SLACK, "{before_last} was enough for {p}");
    for token in (0..key.len()).filter(|&token| !is_kept(token) && key[token].is_finite()) {
        prop_assert!(key[token] >= key[last] - SLACK, "token {token} was passed over");
        prop_assert!(
            key[token] != key[last] || token > last,
            "token {token} lost to an equal of a higher id"
        );
    }
    Ok(())
}

/// Logits with many equal ones, and some -inf.
fn logits() -> impl Strategy<Value = Vec<f32>> {
    let logit = prop_oneof![
        8 => (-80i32..80).prop_map(|eighths| eighths as f32 / 8.0),
        8 => -20.0f32..20.0,
        1 => Just(f32::NEG_INFINITY),
    ];
    prop::collection::vec(logit, 1..1200)
        .prop_filter("a token to draw", |logits| logits.iter().any(|&logit| logit > f32::NEG_INFINITY))
}

/// Best first by definition: a full, stable sort.
fn sorted(logits: &[f32]) -> Vec<u32> {
    let mut tokens: Vec<u32> = (0..logits.len() as u32).collect();
    tokens.retain(|&token| logits[token as usize] > f32::NEG_INFINITY);
    tokens.sort_by(|&a, &b| logits[b as usize].partial_cmp(&logits[a as usize]).unwrap());
    tokens
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn exp_is_exp(x in -100.0f32..=0.0) {
        let (got, exact) = (f64::from(softmax::exp_nonpositive(x)), f64::from(x).exp());
        prop_assert!((got - exact).abs() <= 2e-7 * exact + 2e-38, "exp({x}) = {got}, exactly {exact}");
    }

    #[test]
    fn summary_and_greedy_match_a_plain_pass(logits in logits()) {
        let sampled = sampler(SamplerConfig::default(), logits.len()).sample(&logits).unwrap();
        let best = sorted(&logits)[0];
        prop_assert_eq!(sampled.token, best);
        let exact = softmax(&widen(&logits), 1.0)[best as usize].ln();
        prop_assert!((f64::from(sampled.logprob) - exact).abs() < 1e-5);
    }

    #[test]
    fn top_k_keeps_the_k_best(logits in logits(), k in 1u32..1300) {
        let mut sampler = sampler(SamplerConfig { top_k: k, ..config() }, logits.len());
        let mut expected = sorted(&logits);
        expected.truncate(k as usize);
        expected.sort_unstable();
        prop_assert_eq!(survivors(&mut sampler, &logits), expected);
    }

    #[test]
    fn top_p_keeps_the_nucleus(logits in logits(), top_p in 0.0f32..=1.0) {
        let kept = survivors(&mut sampler(SamplerConfig { top_p, ..config() }, logits.len()), &logits);
        let key: Vec<f64> = logits.iter().map(|&logit| -f64::from(logit)).collect();
        check_prefix(&kept, &softmax(&widen(&logits), 1.0), &key, f64::from(top_p))?;
    }

    #[test]
    fn typical_keeps_the_least_surprising_surprises(logits in logits(), typical_p in 0.01f32..0.99) {
        let kept = survivors(&mut sampler(SamplerConfig { typical_p, ..config() }, logits.len()), &logits);
        let probabilities = softmax(&widen(&logits), 1.0);
        let entropy: f64 = probabilities.iter().filter(|&&p| p > 0.0).map(|p| -p * p.ln()).sum();
        let log_sum = -probabilities[sorted(&logits)[0] as usize].ln();
        let max = f64::from(logits[sorted(&logits)[0] as usize]);
        let distance = |&logit: &f32| (log_sum + max - f64::from(logit) - entropy).abs();
        let key: Vec<f64> = logits.iter().map(distance).collect();
        check_prefix(&kept, &probabilities, &key, f64::from(typical_p))?;
    }

    #[test]
    fn min_p_keeps_what_is_probable_enough(logits in logits(), min_p in 0.0001f32..=1.0) {
        let kept = survivors(&mut sampler(SamplerConfig { min_p, ..config() }, logits.len()), &logits);
        let probabilities = softmax(&widen(&logits), 1.0);
        let least = f64::from(min_p) * probabilities[sorted(&logits)[0] as usize];
        for (token, &probability) in probabilities.iter().enumerate() {
            let right = if kept.contains(&(token as u32)) {
                probability >= least * 0.999_99
            } else {
                probability <= least * 1.000_01
            };
            prop_assert!(right, "token {}: {} where {} is the least", token, probability, least);
        }
    }

    #[test]
    fn each_filter_sees_what_the_one_before_left(logits in logits(), k in 1u32..100, top_p in 0.1f32..0.9) {
        let both = SamplerConfig { top_k: k, top_p, ..config() };
        let kept = survivors(&mut sampler(both, logits.len()), &logits);
        let mut cut = vec![f32::NEG_INFINITY; logits.len()];
        for &token in sorted(&logits).iter().take(k as usize) {
            cut[token as usize] = logits[token as usize];
        }
        let key: Vec<f64> = cut.iter().map(|&logit| -f64::from(logit)).collect();
        check_prefix(&kept, &softmax(&widen(&cut), 1.0), &key, f64::from(top_p))?;
    }

    #[test]
    fn any_logits_give_a_possible_token_or_an_error(
        logits in prop::collection::vec(any::<f32>(), 1..700),
        temperature in prop_oneof![Just(0.0), Just(f32::MIN_POSITIVE / 8.0), Just(f32::MAX), 0.1f32..3.0],
        (top_k, typical_p, top_p, min_p) in (0u32..5, 0.001f32..=1.0, 0.0f32..=1.0, 0.0f32..=1.0),
        (repetition_penalty, presence_penalty) in (prop_oneof![Just(1e-30f32), Just(1.0), Just(1e30)], any::<f32>()),
        biases in prop::collection::btree_map(0u32..700, any::<f32>(), 0..5),
    ) {
        let config = SamplerConfig {
            temperature, top_k, typical_p, top_p, min_p, repetition_penalty, presence_penalty,
            logit_bias: biases, top_logprobs: 1, ..config()
        };
        let Ok(mut sampler) = Sampler::new(config, logits.len()) else { return Ok(()) };
        for _ in 0..3 {
            if let Ok(sampled) = sampler.sample(&logits) {
                prop_assert!(logits[sampled.token as usize] > f32::NEG_INFINITY);
                prop_assert!(sampled.logprob <= 0.0);
            }
        }
    }

    #[test]
    fn penalties_match_their_formulas(
        prompt in prop::collection::vec(0u32..8, 0..20),
        generated in prop::collection::vec(0u32..8, 0..20),
        last_n in prop::option::of(0u32..12),
        (repetition, presence, frequency) in (0.5f32..2.0, -2.0f32..2.0, -2.0f32..2.0),
        bias in -3.0f32..3.0,
    ) {
        let config = SamplerConfig {
            repetition_penalty: repetition,
            repeat_last_n: last_n,
            presence_penalty: presence,
            frequency_penalty: frequency,
            logit_bias: [(2, bias)].into(),
            ..SamplerConfig::default()
        };
        let mut history = History::default();
        prompt.iter().for_each(|&token| history.push(token, false, &config));
        generated.iter().for_each(|&token| history.push(token, true, &config));
        let logits = [1.0f32, -1.0, 0.5, 0.0, 2.0, -3.0, 4.0, 0.25];
        let mut got = logits;
        history.adjust(&config, &mut got);

        let all: Vec<u32> = prompt.iter().chain(&generated).copied().collect();
        let window = &all[all.len().saturating_sub(last_n.unwrap_or(u32::MAX) as usize)..];
        for (token, &logit) in logits.iter().enumerate() {
            let mut expected = f64::from(logit) + if token == 2 { f64::from(bias) } else { 0.0 };
            if window.contains(&(token as u32)) {
                let penalty = f64::from(repetition);
                expected = if expected > 0.0 { expected / penalty } else { expected * penalty };
            }
            let count = generated.iter().filter(|&&other| other as usize == token).count();
            if count > 0 {
                expected -= f64::from(presence) + count as f64 * f64::from(frequency);
            }
            prop_assert!((f64::from(got[token]) - expected).abs() < 1e-5);
        }
    }
}

#[test]
fn greedy_takes_the_lowest_id_among_equals() {
    let mut logits = vec![0.0; 2000];
    for token in [1999, 777, 1024] {
        logits[token] = 5.0;
    }
    assert_eq!(sampler(SamplerConfig::default(), 2000).sample(&logits).unwrap().token, 777);
    // Zeros of either sign are equal.
    assert_eq!(sampler(SamplerConfig::default(), 2).sample(&[-0.0, 0.0]).unwrap().token, 0);
}

#[test]
fn top_logprobs_are_the_models_own() {
    let config =
        SamplerConfig { top_logprobs: 3, logit_bias: [(1, -100.0)].into(), ..SamplerConfig::default() };
    let logits = [0.5, 3.0, 0.5, -1.0];
    let sampled = sampler(config, 4).sample(&logits).unwrap();
    let exact = softmax(&widen(&logits), 1.0);
    // The bias moves the choice, not what the model thinks of it.
    assert_eq!(sampled.token, 0);
    assert!((f64::from(sampled.logprob) - exact[0].ln()).abs() < 1e-6);
    assert_eq!(sampled.top.iter().map(|top| top.0).collect::<Vec<_>>(), [1, 0, 2]);
    for (token, logprob) in sampled.top {
        assert!((f64::from(logprob) - exact[token as usize].ln()).abs() < 1e-6);
    }
}

#[test]
fn penalties_act_on_later_tokens() {
    let config = SamplerConfig { frequency_penalty: 0.6, ..SamplerConfig::default() };
    let mut frequency = sampler(config, 3);
    let tokens: Vec<u32> = (0..5).map(|_| frequency.sample(&[2.0, 1.5, 0.0]).unwrap().token).collect();
    // 2 | 1.4, 1.5 | 1.4, 0.9 | 0.8, 0.9 | 0.8, 0.3
    assert_eq!(tokens, [0, 1, 0, 1, 0]);

    let config =
        SamplerConfig { repetition_penalty: 2.0, repeat_last_n: Some(1), ..SamplerConfig::default() };
    let mut repetition = sampler(config, 3);
    repetition.accept(0).unwrap();
    let tokens: Vec<u32> = (0..4).map(|_| repetition.sample(&[2.0, 1.5, 0.0]).unwrap().token).collect();
    assert_eq!(tokens, [1, 0, 1, 0]);
}

#[test]
fn a_seed_decides_the_tokens() {
    let logits: Vec<f32> = (0..3000).map(|token| (token as f32 * 0.11).sin() * 3.0).collect();
    let draw = |sampler: &mut Sampler| -> Vec<u32> {
        (0..20).map(|_| sampler.sample(&logits).unwrap().token).collect()
    };
    let mut first = sampler(SamplerConfig { top_p: 0.95, ..config() }, 3000);
    let tokens = draw(&mut first);
    assert_eq!(draw(&mut sampler(SamplerConfig { top_p: 0.95, ..config() }, 3000)), tokens);
    assert_ne!(draw(&mut sampler(SamplerConfig { top_p: 0.95, seed: Some(2), ..config() }, 3000)), tokens);
    first.reset();
    assert_eq!(draw(&mut first), tokens);

    // Without one, the seed that was drawn reproduces the run.
    let mut unseeded = sampler(SamplerConfig { seed: None, ..config() }, 3000);
    let again = SamplerConfig { seed: Some(unseeded.seed()), ..config() };
    assert_eq!(draw(&mut sampler(again, 3000)), draw(&mut unseeded));
}

#[test]
fn errors_are_one_sentence() {
    let new = |config: SamplerConfig| Sampler::new(config, 4).unwrap_err().to_string();
    let base = SamplerConfig::default;
    assert_eq!(
        new(SamplerConfig { temperature: -1.0, ..base() }),
        "sampler: temperature is -1, expected a finite number of at least 0 (0 is greedy)"
    );
    assert_eq!(
        new(SamplerConfig { top_p: 1.5, ..base() }),
        "sampler: top_p is 1.5, expected a number from 0 to 1 (1 is off)"
    );
    for (name, config) in [
        ("temperature", SamplerConfig { temperature: f32::NAN, ..base() }),
        ("temperature", SamplerConfig { temperature: f32::INFINITY, ..base() }),
        ("top_p", SamplerConfig { top_p: f32::NAN, ..base() }),
        ("min_p", SamplerConfig { min_p: -0.1, ..base() }),
        ("typical_p", SamplerConfig { typical_p: 0.0, ..base() }),
        ("repetition_penalty", SamplerConfig { repetition_penalty: 0.0, ..base() }),
        ("presence_penalty", SamplerConfig { presence_penalty: f32::NAN, ..base() }),
        ("frequency_penalty", SamplerConfig { frequency_penalty: f32::INFINITY, ..base() }),
        ("logit_bias", SamplerConfig { logit_bias: [(1, f32::INFINITY)].into(), ..base() }),
        ("top_logprobs", SamplerConfig { top_logprobs: 5, ..base() }),
    ] {
        let message = new(config);
        assert!(message.starts_with(&format!("sampler: {name} is ")), "{message}");
    }
    assert_eq!(
        new(SamplerConfig { logit_bias: [(4, 1.0)].into(), ..base() }),
        "sampler: token 4 is outside the vocabulary, expected an id below 4"
    );
    assert!(Sampler::new(base(), 0).is_err());

    let mut sampler = sampler(SamplerConfig { logit_bias: [(0, f32::NEG_INFINITY)].into(), ..base() }, 2);
    let inf = f32::INFINITY;
    assert_eq!(
        sampler.sample(&[0.0, f32::NAN]).unwrap_err().to_string(),
        "sampler: the logit of token 1 is NaN, expected a finite number or -inf"
    );
    assert_eq!(
        sampler.sample(&[inf, 0.0]).unwrap_err().to_string(),
        "sampler: the logit of token 0 is inf, expected a finite number or -inf"
    );
    assert_eq!(
        sampler.sample(&[-inf, -inf]).unwrap_err().to_string(),
        "sampler: all 2 logits are -inf, expected at least one token that may be drawn"
    );
    assert_eq!(
        sampler.sample(&[0.0, -inf]).unwrap_err().to_string(),
        "sampler: all 2 logits are -inf once the bias is added, expected at least one token that may be drawn"
    );
    assert_eq!(
        sampler.sample(&[0.0]).unwrap_err().to_string(),
        "sampler: got 1 logits, expected 2, one for each token of the vocabulary"
    );
    assert!(sampler.accept(2).is_err());
    assert_eq!(sampler.sample(&[5.0, 0.0]).unwrap().token, 1);
}

#[test]
fn configuration_survives_json() {
    let config =
        SamplerConfig { logit_bias: [(3, f32::NEG_INFINITY), (9, 1.5)].into(), seed: Some(3), ..config() };
    let json = serde_json::to_string(&config).unwrap();
    assert!(json.contains(r#""logit_bias":{"3":null,"9":1.5}"#), "{json}");
    assert_eq!(serde_json::from_str::<SamplerConfig>(&json).unwrap(), config);
    assert_eq!(serde_json::from_str::<SamplerConfig>("{}").unwrap(), SamplerConfig::default());
    assert!(serde_json::from_str::<SamplerConfig>(r#"{"topp": 1}"#).is_err());
}
