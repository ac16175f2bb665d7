//! Control tokens that a text spells out, and how it is told which of them are meant.

use std::collections::HashMap;

/// A model's control tokens by their spelling.
#[derive(Debug, Default)]
pub(super) struct Controls {
    ids: HashMap<String, u32>,
    /// The bytes that begin one.
    begins: Vec<u8>,
    /// The lengths that they have, in bytes, longest first.
    lengths: Vec<usize>,
}

impl Controls {
    /// Of these tokens. Those that are no UTF-8 can't be spelt.
    pub(super) fn new<'t>(tokens: impl Iterator<Item = (u32, &'t [u8])>) -> Self {
        let spelt = |(id, text): (u32, &[u8])| Some((std::str::from_utf8(text).ok()?.to_owned(), id));
        let ids: HashMap<String, u32> =
            tokens.filter_map(spelt).filter(|(text, _)| !text.is_empty()).collect();
        let mut begins: Vec<u8> = ids.keys().map(|text| text.as_bytes()[0]).collect();
        begins.sort_unstable();
        begins.dedup();
        let mut lengths: Vec<usize> = ids.keys().map(String::len).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        Self { ids, begins, lengths }
    }

    pub(super) fn id(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// The lengths of the tokens that this text begins with, longest first.
    fn at<'c>(&'c self, text: &'c str) -> impl Iterator<Item = usize> + 'c {
        let begins = text.as_bytes().first().is_some_and(|byte| self.begins.contains(byte));
        let lengths = if begins { &self.lengths[..] } else { &[] };
        lengths
            .iter()
            .copied()
            .filter(|length| text.get(..*length).is_some_and(|spelt| self.ids.contains_key(spelt)))
    }

    /// The text with a mark in each token that it spells, after its first character. Overlapping ones are all marked.
    pub(super) fn mark(&self, text: &str, mark: char) -> Option<String> {
        let mut marked = String::new();
        let mut done = 0;
        for (place, c) in text.char_indices() {
            if self.at(&text[place..]).next().is_some() {
                let after = place + c.len_utf8();
                marked.push_str(&text[done..after]);
                marked.push(mark);
                done = after;
            }
        }
        if done == 0 {
            return None;
        }
        marked.push_str(&text[done..]);
        Some(marked)
    }

    /// The text in pieces, without marks: each with whether special tokens that it spells are meant. What has marks is cut at the
    /// special tokens around it, where tokenizers cut as well.
    pub(super) fn pieces(&self, text: &str, mark: char) -> Vec<(String, bool)> {
        if !text.contains(mark) {
            return vec![(text.to_owned(), true)];
        }
        let mut plain = String::with_capacity(text.len());
        let mut marks = Vec::new();
        for c in text.chars() {
            if c == mark { marks.push(plain.len()) } else { plain.push(c) }
        }
        let is_marked = |from: usize, to: usize| {
            let first = marks.partition_point(|place| *place <= from);
            marks.get(first).is_some_and(|place| *place < to)
        };
        let mut pieces: Vec<(String, bool)> = Vec::new();
        let mut add = |text: &str, special: bool| {
            if text.is_empty() {
                return;
            }
            match pieces.last_mut() {
                Some((last, true)) if special => last.push_str(text),
                _ => pieces.push((text.to_owned(), special)),
            }
        };
        // Text since the last special token that is meant.
        let (mut start, mut place) = (0, 0);
        while let Some(c) = plain[place..].chars().next() {
            let meant = self.at(&plain[place..]).find(|length| !is_marked(place, place + length));
            if let Some(length) = meant {
                add(&plain[start..place], !is_marked(start, place));
                add(&plain[place..place + length], true);
                place += length;
                start = place;
            } else {
                place += c.len_utf8();
            }
        }
        add(&plain[start..], !is_marked(start, plain.len()));
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controls() -> Controls {
        let tokens = ["<|a|>", "<|a|>b", "</s>", "é!"];
        Controls::new((0..).zip(tokens.iter().map(|text| text.as_bytes())))
    }

    #[test]
    fn tokens_in_contents_are_marked_and_meant_ones_are_not() {
        let controls = controls();
        assert_eq!(controls.mark("nothing <|b|>", '#'), None);
        assert_eq!(controls.mark("x<|a|>by</s>é!", '#').as_deref(), Some("x<#|a|>by<#/s>é#!"));
        assert_eq!((controls.id("</s>"), controls.id("<s>")), (Some(2), None));
    }

    #[test]
    fn marked_text_is_cut_at_the_tokens_around_it() {
        let controls = controls();
        let pieces = |text| controls.pieces(text, '#');
        assert_eq!(pieces("<|a|>x</s>"), [("<|a|>x</s>".to_owned(), true)]);
        assert_eq!(
            pieces("<|a|>x<#|a|>y</s>z<|a|>"),
            [("<|a|>".to_owned(), true), ("x<|a|>y".to_owned(), false), ("</s>z<|a|>".to_owned(), true)]
        );
        // The longer token holds the mark, and so does the shorter.
        assert_eq!(pieces("<#|a|>b"), [("<|a|>b".to_owned(), false)]);
        // A mark that no token stands around any more is only left out.
        assert_eq!(pieces("é#?"), [("é?".to_owned(), false)]);
    }
}
