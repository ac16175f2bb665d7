//! Stop strings in a stream of text.

/// One of the stop strings is empty, and would stop every text before it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stop string {index} is empty, expected at least one character")]
pub struct EmptyStop {
    /// Its index among the stop strings.
    pub index: usize,
}

/// Passes text on until one of several stop strings appears in it.
///
/// The stop string that is complete first counts; of several that are complete at the same position, the longest. The text
/// before it is passed on; the stop string and what follows are not. A stop string may come in pieces: text that may be the
/// beginning of one is held back until that is decided, so the output does not depend on where the pieces end.
///
/// ```
/// use herald::stream_text::StopMatcher;
///
/// let (mut matcher, mut text) = (StopMatcher::new(["User:".to_owned()])?, String::new());
/// assert_eq!(matcher.push("Certainly. Us", &mut text), None);
/// assert_eq!(text, "Certainly. ");
/// assert_eq!(matcher.push("er: And", &mut text), Some(0));
/// assert_eq!(text, "Certainly. ");
/// # Ok::<(), herald::stream_text::EmptyStop>(())
/// ```
#[derive(Clone, Debug)]
pub struct StopMatcher {
    stops: Vec<Stop>,
    /// Text that may yet turn out to be part of a stop string.
    held: String,
    matched: Option<usize>,
}

/// A stop string and how much of it the text ends with (Knuth, Morris and Pratt's matcher).
#[derive(Clone, Debug)]
struct Stop {
    text: String,
    /// At `i`: the length of the longest proper prefix of `text` that `text[..=i]` ends with.
    borders: Vec<usize>,
    /// How many bytes of `text` match so far; less than all between calls.
    matching: usize,
}

impl Stop {
    fn new(text: String) -> Self {
        let mut stop = Self { borders: vec![0; text.len()], text, matching: 0 };
        // A prefix that the text ends with is found by matching the text against itself.
        for index in 1..stop.text.len() {
            stop.advance(stop.text.as_bytes()[index]);
            stop.borders[index] = stop.matching;
        }
        stop.matching = 0;
        stop
    }

    /// Takes one more byte of the text; true where it completes the stop string.
    fn advance(&mut self, byte: u8) -> bool {
        let text = self.text.as_bytes();
        while self.matching > 0 && text[self.matching] != byte {
            self.matching = self.borders[self.matching - 1];
        }
        if text[self.matching] == byte {
            self.matching += 1;
        }
        self.matching == text.len()
    }
}

impl StopMatcher {
    /// A matcher for these stop strings; with none, all text passes.
    ///
    /// # Errors
    /// A stop string is empty.
    pub fn new(stops: impl IntoIterator<Item = String>) -> Result<Self, EmptyStop> {
        let stops: Vec<String> = stops.into_iter().collect();
        if let Some(index) = stops.iter().position(String::is_empty) {
            return Err(EmptyStop { index });
        }
        Ok(Self { stops: stops.into_iter().map(Stop::new).collect(), held: String::new(), matched: None })
    }

    /// Takes the next piece of text and appends to `out` what is not part of a stop string whatever follows. Returns
    /// the index of the stop string that has appeared, now or before; all later text is ignored then.
    pub fn push(&mut self, text: &str, out: &mut String) -> Option<usize> {
        if self.matched.is_some() {
            return self.matched;
        }
        let held = self.held.len();
        self.held.push_str(text);
        for (index, &byte) in text.as_bytes().iter().enumerate() {
            let mut longest: Option<usize> = None;
            for stop in 0..self.stops.len() {
                let complete = self.stops[stop].advance(byte);
                if complete
                    && longest.is_none_or(|other| self.stops[stop].text.len() > self.stops[other].text.len())
                {
                    longest = Some(stop);
                }
            }
            if let Some(stop) = longest {
                self.matched = longest;
                let end = held + index + 1;
                out.push_str(&self.held[..end - self.stops[stop].text.len()]);
                self.held.clear();
                return longest;
            }
        }
        // Prefixes of stop strings begin where a character does, so the cut is between characters.
        let undecided = self.stops.iter().map(|stop| stop.matching).max().unwrap_or(0);
        out.extend(self.held.drain(..self.held.len() - undecided));
        None
    }

    /// Ends the text: what was held back is no stop string, and is appended to `out`. Returns the index of the stop
    /// string that appeared.
    pub fn finish(&mut self, out: &mut String) -> Option<usize> {
        out.push_str(&self.held);
        self.held.clear();
        self.stops.iter_mut().for_each(|stop| stop.matching = 0);
        self.matched
    }

    /// The index of the stop string that has appeared.
    #[must_use]
    pub fn matched(&self) -> Option<usize> {
        self.matched
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matcher(stops: &[&str]) -> StopMatcher {
        StopMatcher::new(stops.iter().map(|&stop| stop.to_owned())).unwrap()
    }

    /// What passes of the whole text, and which stop string ends it, by trying every end.
    fn naive(stops: &[String], text: &str) -> (String, Option<usize>) {
        for end in 0..=text.len() {
            let complete =
                (0..stops.len()).filter(|&stop| text.as_bytes()[..end].ends_with(stops[stop].as_bytes()));
            // `max_by_key` takes the last of equals; the first is asked for.
            if let Some(stop) = complete.rev().max_by_key(|&stop| stops[stop].len()) {
                return (text[..end - stops[stop].len()].to_owned(), Some(stop));
            }
        }
        (text.to_owned(), None)
    }

    #[test]
    fn holds_back_only_what_may_be_a_stop() {
        let (mut matcher, mut out) = (matcher(&["</s>", "\n\n"]), String::new());
        assert_eq!(matcher.push("a<", &mut out), None);
        assert_eq!(out, "a");
        matcher.push("/", &mut out);
        assert_eq!(out, "a");
        matcher.push("b\n", &mut out);
        assert_eq!(out, "a</b");
        matcher.push("c\n", &mut out);
        assert_eq!(out, "a</b\nc");
        assert_eq!(matcher.push("\nmore", &mut out), Some(1));
        assert_eq!(matcher.push("</s>", &mut out), Some(1));
        assert_eq!(matcher.finish(&mut out), Some(1));
        assert_eq!(out, "a</b\nc");
    }

    #[test]
    fn finish_passes_on_what_was_held() {
        let (mut matcher, mut out) = (matcher(&["stop"]), String::new());
        matcher.push("non sto", &mut out);
        assert_eq!(out, "non ");
        assert_eq!(matcher.finish(&mut out), None);
        assert_eq!(out, "non sto");
    }

    #[test]
    fn the_first_complete_counts_and_the_longest_of_those() {
        let run = |stops: &[&str], text: &str| {
            let mut out = String::new();
            let matched = matcher(stops).push(text, &mut out);
            (out, matched)
        };
        assert_eq!(run(&["abcd", "bc"], "abcd"), ("a".to_owned(), Some(1)));
        assert_eq!(run(&["bc", "abc"], "abc"), (String::new(), Some(1)));
        assert_eq!(run(&[], "abc"), ("abc".to_owned(), None));
    }

    #[test]
    fn an_empty_stop_is_refused() {
        let error = StopMatcher::new(["a".to_owned(), String::new()]).unwrap_err();
        assert_eq!(error.to_string(), "stop string 1 is empty, expected at least one character");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn pieces_match_as_the_whole(
            stops in prop::collection::vec("[abé🦀]{1,4}", 0..4),
            pieces in prop::collection::vec("[abé🦀]{0,4}", 0..10),
        ) {
            let (expected, stop) = naive(&stops, &pieces.concat());
            let mut matcher = StopMatcher::new(stops.clone()).unwrap();
            let mut out = String::new();
            let mut so_far = String::new();
            for piece in &pieces {
                matcher.push(piece, &mut out);
                so_far.push_str(piece);
                // As early as may be: all is out but the longest end that begins a stop string.
                if matcher.matched().is_none() {
                    let begins = |from: &usize| so_far.get(*from..).is_some_and(|end| stops.iter().any(|s| s.starts_with(end)));
                    let undecided = (0..so_far.len()).find(begins).unwrap_or(so_far.len());
                    prop_assert_eq!(&out, &so_far[..undecided]);
                }
            }
            prop_assert_eq!(matcher.finish(&mut out), stop);
            prop_assert_eq!(out, expected);
        }
    }
}
