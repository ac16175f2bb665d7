//! The reference passes its own checks.

use herald_api::import::Plugin;
use herald_conformance::{Finding, Observer, Outcome, Part, Sink};

/// Collects findings.
#[derive(Default)]
struct Collected(Vec<Finding>);

impl Observer for Collected {
    fn begins(&mut self, _subject: &str) -> bool {
        true
    }

    fn ends(&mut self, finding: Finding) {
        self.0.push(finding);
    }
}

fn cpu() -> Plugin {
    // SAFETY: it is the crate's own entry, linked into the test.
    let plugin = unsafe { Plugin::load(herald_cpu::herald_plugin_v1, Box::new(()), |_, _| {}) };
    plugin.expect("the plugin loads")
}

/// Checks a part; how many checks passed.
fn check(part: Part) -> usize {
    let mut collected = Collected::default();
    herald_conformance::check(&cpu(), &cpu(), &[part], &mut Sink::new(&mut collected));
    let failed: Vec<_> =
        collected.0.iter().filter(|finding| matches!(finding.outcome, Outcome::Failed(..))).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    collected.0.iter().filter(|finding| matches!(finding.outcome, Outcome::Passed(_))).count()
}

#[test]
fn tokenizers() {
    assert!(check(Part::Tokenizers) >= 100);
}

#[test]
fn tiers() {
    assert!(check(Part::Tiers) >= 40);
}
