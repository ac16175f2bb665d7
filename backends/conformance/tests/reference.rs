//! The reference passes its own checks.

use std::sync::Mutex;

use herald_api::import::Plugin;
use herald_conformance::{Finding, Observer, Outcome, Part, Sink};

/// Collects what isn't passed.
#[derive(Default)]
struct Collected {
    passed: usize,
    others: Vec<Finding>,
    begun: Option<std::time::Instant>,
}

impl Observer for Collected {
    fn begins(&mut self, _subject: &str) -> bool {
        self.begun = Some(std::time::Instant::now());
        true
    }

    fn ends(&mut self, finding: Finding) {
        if self.begun.unwrap().elapsed() > std::time::Duration::from_millis(500) || !matches!(finding.outcome, Outcome::Passed(_)) { println!("{:?} {} {:?}", self.begun.unwrap().elapsed(), finding.subject, finding.outcome);}
        match finding.outcome {
            Outcome::Passed(_) => self.passed += 1,
            _ => self.others.push(finding),
        }
    }
}

fn cpu() -> Plugin {
    // SAFETY: it is the crate's own entry, linked into the test.
    let plugin = unsafe { Plugin::load(herald_cpu::herald_plugin_v1, Box::new(()), |_, _| {}) };
    plugin.expect("the plugin loads")
}

fn check(part: Part) -> Collected {
    // The checks of memory count the whole process's.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock();
    let mut collected = Collected::default();
    herald_conformance::check(&cpu(), &cpu(), &[part], &mut Sink::new(&mut collected));
    let failed: Vec<_> =
        collected.others.iter().filter(|finding| matches!(finding.outcome, Outcome::Failed(..))).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    collected
}

#[test]
fn tokenizers() {
    let collected = check(Part::Tokenizers);
    assert!(collected.passed > 100 && collected.others.is_empty(), "{:?}", collected.others);
}

#[test]
fn tiers() {
    assert!(check(Part::Tiers).passed > 40);
}
