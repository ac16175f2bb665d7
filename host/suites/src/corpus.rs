//! The benchmarks' texts, the same every time.

/// English, for scoring.
pub(super) const PASSAGE: &str = "The lighthouse stood at the end of a long stone pier, and every evening an old man \
walked out to it with a lamp in his hand. In winter the waves broke over the wall, so he tied a rope around his waist \
and held on to the iron rings that his father had set into the stone. When he reached the door he was wet and cold, but \
he lit the fire first, and only then did he take off his coat. From the window he could see the boats coming home, one \
after another, each with a small light at the top of its mast. He counted them as they passed. If one was missing, he \
waited, and sometimes he waited until the morning. The people of the village said that he had never once gone to bed \
before the last boat was in the harbour, and that no one had ever asked him to do it.";

/// A short prompt.
pub(super) const SHORT: &str = "The three most important things to know about the sea are";

/// A prompt of a few sentences.
pub(super) const MEDIUM: &str = "The harbour had been quiet all week, and the fishermen had begun to mend their nets on the \
quay. On Thursday a ship came in that nobody knew. It was painted grey, it carried no flag, and its captain, a tall \
woman with a red scarf, asked for nothing but water. The children followed her up the hill, and what she told them there \
was this:";

/// Topics of requests' prompts.
const TOPICS: [&str; 40] = [
    "rivers",
    "glass",
    "the moon",
    "bread",
    "clocks",
    "bees",
    "salt",
    "bridges",
    "maps",
    "snow",
    "copper",
    "music",
    "gardens",
    "wheels",
    "trains",
    "coral",
    "paper",
    "deserts",
    "horses",
    "tea",
    "volcanoes",
    "ships",
    "mirrors",
    "wool",
    "cities",
    "forests",
    "lightning",
    "coins",
    "ladders",
    "owls",
    "rain",
    "candles",
    "islands",
    "mountains",
    "engines",
    "silk",
    "honey",
    "tides",
    "kites",
    "libraries",
];

/// Forms of requests' prompts.
const FORMS: [&str; 5] = [
    "Write a short paragraph about {} for a child who has never seen one before:",
    "Here is what every traveller should know about {} before the journey begins:",
    "The history of {} is longer than most people think. It began when",
    "My grandmother used to say that {} and people have one thing in common, which is",
    "A good question about {} that is seldom asked in school is the following one:",
];

/// The prompt of request `index`; 200 of them differ.
pub(super) fn prompt(index: usize) -> String {
    FORMS[index / TOPICS.len() % FORMS.len()].replace("{}", TOPICS[index % TOPICS.len()])
}

/// A text of about `bytes` bytes for the tokenizer: common and made-up words, numbers, punctuation and some non-ASCII
/// letters, without repetition.
pub(super) fn varied(bytes: usize) -> String {
    let words: Vec<&str> = PASSAGE.split_whitespace().chain(MEDIUM.split_whitespace()).collect();
    let mut random = Random(11);
    let mut text = String::with_capacity(bytes + 64);
    while text.len() < bytes {
        match random.below(12) {
            0 => {
                let letters = 3 + random.below(9);
                (0..letters).for_each(|_| text.push((b'a' + random.below(26) as u8) as char));
            }
            1 => text.push_str(&random.below(100_000).to_string()),
            2 => text.push_str(["naïve", "Zürich", "π", "日本", "«non»"][random.below(5)]),
            _ => text.push_str(words[random.below(words.len())]),
        }
        text.push_str([" ", " ", " ", " ", " ", " ", ", ", ". ", "\n"][random.below(9)]);
    }
    text
}

/// About `bytes` bytes of English words in random order.
pub(super) fn plain(bytes: usize) -> String {
    let words: Vec<&str> = PASSAGE.split_whitespace().chain(MEDIUM.split_whitespace()).collect();
    let mut random = Random(5);
    let mut text = String::with_capacity(bytes + 64);
    while text.len() < bytes {
        text.push_str(words[random.below(words.len())]);
        text.push(' ');
    }
    text
}

/// A small random number generator: Knuth's MMIX, whose upper bits are the good ones.
pub(super) struct Random(pub(super) u64);

impl Random {
    /// A number below `n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % n.max(1) as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn two_hundred_prompts_differ() {
        assert_eq!((0..200).map(prompt).collect::<HashSet<_>>().len(), 200);
    }

    #[test]
    fn the_varied_text_is_reproducible_and_has_the_requested_length() {
        let text = varied(10_000);
        assert_eq!(text, varied(10_000));
        assert!((10_000..10_100).contains(&text.len()));
    }
}
