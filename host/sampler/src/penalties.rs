//! What was said already, and how it (and the user's bias) changes the logits.

use std::collections::{HashMap, VecDeque};

use super::{SamplerConfig, dry};

/// What the penalties in use need to know of the tokens so far.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// The repetition penalty's window, oldest first; empty where the window is everything.
    window: VecDeque<u32>,
    /// How often each token is in the window.
    in_window: HashMap<u32, u32>,
    /// How often each token was generated.
    generated: HashMap<u32, u32>,
    /// DRY's window, oldest first.
    dry: VecDeque<u32>,
}

impl History {
    /// Records a token, of the prompt or generated.
    pub(super) fn push(&mut self, token: u32, generated: bool, config: &SamplerConfig) {
        if config.repetition_penalty != 1.0 && config.repeat_last_n != Some(0) {
            *self.in_window.entry(token).or_insert(0) += 1;
            if let Some(length) = config.repeat_last_n {
                self.window.push_back(token);
                if self.window.len() > length as usize {
                    self.forget_oldest();
                }
            }
        }
        if generated && (config.presence_penalty != 0.0 || config.frequency_penalty != 0.0) {
            *self.generated.entry(token).or_insert(0) += 1;
        }
        if config.dry_multiplier > 0.0 {
            self.dry.push_back(token);
            if config.dry_penalty_last_n.is_some_and(|most| self.dry.len() > most as usize) {
                self.dry.pop_front();
            }
        }
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.window.pop_front() else { return };
        if let Some(count) = self.in_window.get_mut(&oldest) {
            *count -= 1;
            if *count == 0 {
                self.in_window.remove(&oldest);
            }
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.window.clear();
        self.in_window.clear();
        self.generated.clear();
        self.dry.clear();
    }

    /// Whether [`History::adjust`] would change any logit.
    pub(super) fn adjusts(&self, config: &SamplerConfig) -> bool {
        !config.logit_bias.is_empty()
            || !self.in_window.is_empty()
            || !self.generated.is_empty()
            || !self.dry.is_empty()
    }

    /// Changes one logit for each token of the vocabulary: bias, then repetition, then presence and frequency, then DRY.
    pub(super) fn adjust(&self, config: &SamplerConfig, logits: &mut [f32]) {
        for (&token, &bias) in &config.logit_bias {
            change(logits, token, |logit| logit + f64::from(bias));
        }
        let penalty = f64::from(config.repetition_penalty);
        for &token in self.in_window.keys() {
            change(logits, token, |logit| if logit > 0.0 { logit / penalty } else { logit * penalty });
        }
        let (presence, frequency) = (f64::from(config.presence_penalty), f64::from(config.frequency_penalty));
        for (&token, &count) in &self.generated {
            change(logits, token, |logit| logit - presence - frequency * f64::from(count));
        }
        for (token, penalty) in dry::penalties(&self.dry, config) {
            change(logits, token, |logit| logit - penalty);
        }
    }
}

/// Applies `f` in double precision, where finite single-precision operands cannot overflow. What single precision
/// cannot hold becomes its largest or smallest number; only `-inf` itself stays (or becomes, by a ban) `-inf`.
fn change(logits: &mut [f32], token: u32, f: impl Fn(f64) -> f64) {
    if let Some(logit) = logits.get_mut(token as usize) {
        let changed = f(f64::from(*logit));
        *logit = if changed == f64::NEG_INFINITY {
            f32::NEG_INFINITY
        } else {
            (changed as f32).clamp(f32::MIN, f32::MAX)
        };
    }
}
