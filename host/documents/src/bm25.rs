//! An index of the words of chunks, ranked by BM25 (Robertson and Zaragoza, doi.org/10.1561/1500000019).
//!
//! A chunk's score is the sum over the query's different words w of
//!
//! ```text
//! ln(1 + (N - n + 1/2) / (n + 1/2)) * f * (k + 1) / (f + k * (1 - b + b * l / L))
//! ```
//!
//! where n of N chunks contain w, f is how often this chunk contains it, l is this chunk's number of words and L the
//! average, k = 1.2 and b = 0.75. Words are Unicode words (UAX #29) in lower case, without stemming.
//!
//! A few common words don't make a chunk relevant: it is found if its words make up a quarter of the query's total IDF,
//! which is the sum of the logarithms above over all of the query's words.

use std::collections::{BTreeSet, HashMap};

use unicode_segmentation::UnicodeSegmentation;

const K: f64 = 1.2;
const B: f64 = 0.75;

/// The share of the query's total IDF that a chunk must have.
const MIN_IDF_SHARE: f64 = 0.25;

/// A chunk: its document's number, and its index there.
pub(super) type Key = (u64, usize);

/// The index.
#[derive(Default)]
pub(super) struct Words {
    /// For each word, the chunks that contain it, and how often.
    postings: HashMap<String, Vec<(Key, u32)>>,
    /// Each chunk's number of words.
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

    /// Removes a document's chunks.
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
        let idf = |having: f64| (1.0 + (n_chunks - having + 0.5) / (having + 0.5)).ln();
        // For each chunk its score, and the total IDF of the query's words that it contains.
        let mut scores: HashMap<Key, (f64, f64)> = HashMap::new();
        // Sorted, so that sums are the same in every run.
        let query: BTreeSet<String> = words(query).collect();
        let known: Vec<_> = query.iter().filter_map(|word| self.postings.get(word)).collect();
        let unknown = (query.len() - known.len()) as f64;
        let total_idf = known.iter().map(|chunks| idf(chunks.len() as f64)).sum::<f64>() + unknown * idf(0.0);
        for chunks in &known {
            let idf = idf(chunks.len() as f64);
            for (key, count) in *chunks {
                let count = f64::from(*count);
                let length = f64::from(self.lengths.get(key).copied().unwrap_or(0));
                let share = count * (K + 1.0) / (count + K * (1.0 - B + B * length / mean_length));
                let (score, found_idf) = scores.entry(*key).or_default();
                *score += idf * share;
                *found_idf += idf;
            }
        }
        let enough = scores.into_iter().filter(|(_, (_, found_idf))| *found_idf >= total_idf * MIN_IDF_SHARE);
        let mut found: Vec<(Key, f64)> = enough.map(|(key, (score, _))| (key, score)).collect();
        found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_follow_the_formula() {
        let mut index = Words::default();
        index.add((1, 0), "The cat sat. The CAT ran.");
        index.add((1, 1), "A dog barked");
        index.add((2, 0), "cat");
        let found = index.search("cat, Cat!");
        assert_eq!(found.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [(2, 0), (1, 0)]);
        // By hand: N = 3, n = 2, lengths 6, 3 and 1, 10/3 on average.
        let idf = (1.0_f64 + 1.5 / 2.5).ln();
        let expected = [
            idf * 2.2 / (1.0 + 1.2 * (0.25 + 0.75 * 1.0 / (10.0 / 3.0))),
            idf * 2.0 * 2.2 / (2.0 + 1.2 * (0.25 + 0.75 * 6.0 / (10.0 / 3.0))),
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
