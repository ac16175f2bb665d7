//! The names of faults.

use std::fmt;

macro_rules! faults {
    ($($variant:ident = $name:literal, $doc:literal;)*) => {
        /// What is wrong with a plugin. The names are stable: scripts may rely on them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Fault {
            $(#[doc = $doc] $variant,)*
        }

        impl Fault {
            /// Every fault.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// Its name, in lower case with hyphens.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it means, as the end of a sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
        }
    };
}

faults! {
    Refused = "refused", "The host can't load it: no library, no entry, or a table that breaks the ABI.";
    NotWritten = "not-written", "A call returned OK and didn't write its result.";
    WrongSign = "wrong-sign", "A result is the negative of the right one.";
    WrongResult = "wrong-result", "A result is further from the reference than any sound arithmetic.";
    NotFinite = "not-finite", "A result holds NaN or infinity where the reference doesn't.";
    BatchDependent = "batch-dependent", "A token's result depends on how the batch was cut, or on the sequences beside it.";
    Unstable = "unstable", "The same call gave different results.";
    WritesOutside = "writes-outside", "It wrote outside the buffers that it was given.";
    ReadsOutside = "reads-outside", "It read outside the buffers that it was given.";
    StartsThreads = "starts-threads", "It computes on threads or in processes of its own, not on the threads that the host lends.";
    Allocates = "allocates", "A forward call allocates memory.";
    Hangs = "hangs", "A call didn't return within its time limit.";
    Crashes = "crashes", "A call ended the process by a signal.";
    Exits = "exits", "A call ended the process by exit.";
    WrongLength = "wrong-length", "A length or size that it reports is wrong.";
    WrongStatus = "wrong-status", "It answered with a status that the ABI doesn't allow there.";
    Refuses = "refuses", "It refuses what it says that it supports.";
    LosesData = "loses-data", "What was stored doesn't come back.";
    AcceptsDamage = "accepts-damage", "It takes damaged or contradictory input for sound.";
    BadMessage = "bad-message", "The sentence of a failed call is missing, isn't UTF-8, or has no NUL at its end.";
    MisusesParallel = "misuses-parallel", "It used the threads that it was lent in a way that the ABI forbids.";
    Leaks = "leaks", "What was destroyed or dropped still takes memory.";
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_explains_every_fault() {
        let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/PLUGINS.md");
        let guide = std::fs::read_to_string(guide).expect("the guide");
        for fault in Fault::ALL {
            assert!(guide.contains(&format!("`{fault}`")), "docs/PLUGINS.md doesn't say what {fault} is");
        }
    }
}
