//! An index of the words of chunks, ranked by BM25 (Robertson and Zaragoza, doi.org/10.1561/1500000019).
//!
//! A chunk's score is the sum over the query's different words w of
//!
//! ```text
//! ln(1 + (N - n + 1/2) / (n + 1/2)) * f * (k + 1) / (f + k * (1 - b + b * l / L))
//! ```
//!
//! where of N chunks n have w, f is how often this one has it, l how many words this one has, L how many chunks have on
//! average, k = 1.2 and b = 0.75. Words are Unicode's (UAX #29) in lower case, as they are spelt.
//!
//! A few words that everybody uses are no sign that a chunk is meant: it is found if the words that it has make up a
//! quarter of the query's rareness, which is the sum of the logarithms above over all of its words.

use std::collections::{BTreeSet, HashMap};

use unicode_segmentation::UnicodeSegmentation;

const K: f64 = 1.2;
const B: f64 = 0.75;

/// The part of the query's rareness that a chunk must have.
const SHARE: f64 = 0.25;

/// A chunk: a document's number, and the chunk's place in it.
pub(super) type Key = (u64, usize);

/// The index.
#[derive(Default)]
pub(super) struct Words {
    /// For each word, the chunks that have it, and how often.
    postings: HashMap<String, Vec<(Key, u32)>>,
    /// How many words each chunk has.
    lengths: HashMap<Key, u32>,
    total: u64,
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.unicode_words().map(str::to_lowercase)
}

impl Words {
    pub(super) fn add(&mut self, key: Key, text: &str) {
        let mut counts: HashMap<String, u32> = HashMap::new();
        let mut length = 0;
        for word in words(text) {
            *counts.entry(word).or_default() += 1;
            length += 1;
        }
        for (word, count) in counts {
            self.postings.entry(word).or_default().push((key, count));
        }
        self.lengths.insert(key, length);
        self.total += u64::from(length);
    }

    /// Forgets a document's chunks.
    pub(super) fn remove(&mut self, document: u64) {
        self.postings.retain(|_, chunks| {
            chunks.retain(|((other, _), _)| *other != document);
            !chunks.is_empty()
        });
        let total = &mut self.total;
        self.lengths.retain(|(other, _), length| {
            let stays = *other != document;
            *total -= if stays { 0 } else { u64::from(*length) };
            stays
        });
    }

    /// The chunks that have enough of the query's words, best first.
    pub(super) fn search(&self, query: &str) -> Vec<(Key, f64)> {
        let n_chunks = self.lengths.len() as f64;
        let mean_length = (self.total as f64 / n_chunks).max(1.0);
        let rareness = |having: f64| (1.0 + (n_chunks - having + 0.5) / (having + 0.5)).ln();
        // For each chunk its score, and the rareness of the words that it has.
        let mut scores: HashMap<Key, (f64, f64)> = HashMap::new();
        // In order, so that sums come out the same in every run.
        let query: BTreeSet<String> = words(query).collect();
        let known: Vec<_> = query.iter().filter_map(|word| self.postings.get(word)).collect();
        let unknown = (query.len() - known.len()) as f64;
        let whole =
            known.iter().map(|chunks| rareness(chunks.len() as f64)).sum::<f64>() + unknown * rareness(0.0);
        for chunks in &known {
            let rareness = rareness(chunks.len() as f64);
            for (key, count) in *chunks {
                let count = f64::from(*count);
                let length = f64::from(self.lengths.get(key).copied().unwrap_or(0));
                let share = count * (K + 1.0) / (count + K * (1.0 - B + B * length / mean_length));
                let (score, had) = scores.entry(*key).or_default();
                *score += rareness * share;
                *had += rareness;
            }
        }
        let enough = scores.into_iter().filter(|(_, (_, had))| *had >= whole * SHARE);
        let mut found: Vec<(Key, f64)> = enough.map(|(key, (score, _))| (key, score)).collect();
        found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_the_formulas() {
        let mut index = Words::default();
        index.add((1, 0), "The cat sat. The CAT ran.");
        index.add((1, 1), "A dog barked");
        index.add((2, 0), "cat");
        let found = index.search("cat, Cat!");
        assert_eq!(found.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [(2, 0), (1, 0)]);
        // By hand: N = 3, n = 2, lengths 6, 3 and 1, 10/3 on average.
        let rareness = (1.0_f64 + 1.5 / 2.5).ln();
        let expected = [
            rareness * 2.2 / (1.0 + 1.2 * (0.25 + 0.75 * 1.0 / (10.0 / 3.0))),
            rareness * 2.0 * 2.2 / (2.0 + 1.2 * (0.25 + 0.75 * 6.0 / (10.0 / 3.0))),
        ];
        for ((_, score), expected) in found.iter().zip(expected) {
            assert!((score - expected).abs() < 1e-12, "{score} {expected}");
        }
        assert!(index.search("cat bird fish").is_empty(), "one common word of three");
        assert_eq!(index.search("dog barked").first().map(|(key, _)| *key), Some((1, 1)));
        index.remove(1);
        assert_eq!(index.search("cat").iter().map(|(key, _)| *key).collect::<Vec<_>>(), [(2, 0)]);
        assert_eq!((index.total, index.postings.len()), (1, 1));
        assert!(index.search("").is_empty() && Words::default().search("cat").is_empty());
    }
}
