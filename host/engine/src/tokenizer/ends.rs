//! Tokens that end a generation, found by how they are spelt: files name one or two of them at most, and some give them
//! the wrong type.

use std::collections::HashSet;

use herald_api::TokenType;

/// Tokens that end a text or a turn, as models' makers spell them (llama.cpp's list).
const ENDS: [&str; 23] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
    "<|EOT|>",
];

/// Tokens that begin another file or pad one: a model that completes code says them when it is done. Text may spell them,
/// so they keep their type.
const NEXT_FILES: [&str; 11] = [
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
];

/// The bytes that begin all of these.
const BEGINS: &[u8] = b"<_[";

/// The tokens that end a generation.
#[derive(Debug, Default)]
pub(super) struct Ends {
    pub(super) ids: HashSet<u32>,
    /// Those that the file takes for ordinary text.
    pub(super) mistyped: Vec<String>,
}

impl Ends {
    /// Finds them, and makes those control tokens that have another type in the file.
    pub(super) fn find(tokens: &[&[u8]], types: &mut Vec<u32>) -> Self {
        let mut ends = Self::default();
        let mut found: Vec<(&str, u32)> = Vec::new();
        for (id, token) in (0..).zip(tokens) {
            // Of a hundred thousand tokens few can be one of these.
            if token.len() > 32 || !token.first().is_some_and(|first| BEGINS.contains(first)) {
                continue;
            }
            let is = |other: &&&str| other.as_bytes() == *token;
            if let Some(spelt) = ENDS.iter().find(is) {
                found.push((spelt, id));
            } else if NEXT_FILES.iter().any(|other| is(&other)) {
                ends.ids.insert(id);
            }
        }
        let has = |spelt: &str| found.iter().any(|(other, _)| *other == spelt);
        let harmony = has("<|end|>")
            && ((has("<|return|>") && has("<|call|>")) || (has("<|flush|>") && has("<|calls|>")));
        let gemma4 = has("<|tool_response>");
        for (spelt, id) in found {
            match spelt {
                // In these a turn has several messages, and this ends one of them.
                "<|end|>" if harmony => continue,
                // Gemma 4 and PaddleOCR have it as text.
                "</s>" if gemma4 => continue,
                _ => ends.ids.insert(id),
            };
            if !matches!(types.get(id as usize), Some(code) if *code == TokenType::Control as u32) {
                types.resize(tokens.len(), TokenType::Normal as u32);
                types[id as usize] = TokenType::Control as u32;
                ends.mistyped.push(spelt.to_owned());
            }
        }
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(tokens: &[&str], mut types: Vec<u32>) -> (Vec<u32>, Vec<u32>, Vec<String>) {
        let tokens: Vec<&[u8]> = tokens.iter().map(|token| token.as_bytes()).collect();
        let ends = Ends::find(&tokens, &mut types);
        let mut ids: Vec<u32> = ends.ids.into_iter().collect();
        ids.sort_unstable();
        (ids, types, ends.mistyped)
    }

    #[test]
    fn all_begin_as_is_said() {
        assert!(ENDS.iter().chain(&NEXT_FILES).all(|spelt| BEGINS.contains(&spelt.as_bytes()[0])));
    }

    #[test]
    fn a_wrong_type_is_put_right() {
        let mistyped = vec!["<|im_end|>".to_owned()];
        assert_eq!(ends(&["a", "<|im_end|>"], vec![1, 3]), (vec![1], vec![1, 3], vec![]));
        assert_eq!(ends(&["a", "<|im_end|>"], vec![1, 4]), (vec![1], vec![1, 3], mistyped.clone()));
        assert_eq!(ends(&["a", "<|im_end|>"], vec![]), (vec![1], vec![1, 3], mistyped));
        assert_eq!(ends(&["a", "<|file_sep|>"], vec![1, 4]), (vec![1], vec![1, 4], vec![]));
    }

    #[test]
    fn what_ends_a_message_ends_no_turn() {
        let harmony = ["<|return|>", "<|call|>", "<|end|>"];
        assert_eq!(ends(&harmony, vec![3; 3]).0, [0, 1]);
        assert_eq!(ends(&["<|flush|>", "<|calls|>", "<|end|>"], vec![3; 3]).0, [0, 1]);
        assert_eq!(ends(&["<|return|>", "<|end|>"], vec![3; 2]).0, [0, 1]);
        assert_eq!(ends(&["<|tool_response>", "</s>"], vec![3, 1]), (vec![0], vec![3, 1], vec![]));
    }
}
