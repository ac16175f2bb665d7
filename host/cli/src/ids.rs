//! Token ids in a text: integers separated by white space.

/// Parses ids, each of which must be below `vocabulary`.
///
/// # Errors
/// One sentence with the word's number, the word, and what was expected.
pub(super) fn parse(text: &str, vocabulary: usize) -> Result<Vec<u32>, String> {
    let ids = text.split_whitespace().enumerate().map(|(index, word)| {
        let id = word.parse::<u32>().ok().filter(|id| (*id as usize) < vocabulary);
        id.ok_or_else(|| {
            let shown: String = word.chars().take(40).collect();
            format!(
                "word {} is {shown:?}, where a token id from 0 to {} was expected",
                index + 1,
                vocabulary - 1
            )
        })
    });
    let ids = ids.collect::<Result<Vec<u32>, String>>()?;
    if ids.is_empty() {
        Err("holds no token ids, where at least one was expected".to_owned())
    } else {
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn takes_any_white_space() {
        assert_eq!(parse(" 1 2\n3\t4\r\n", 5), Ok(vec![1, 2, 3, 4]));
    }

    #[test]
    fn says_which_word_is_wrong() {
        for (text, word) in
            [("1 2 x", "word 3 is \"x\""), ("5", "word 1 is \"5\""), ("-1", "\"-1\""), ("1.0", "\"1.0\"")]
        {
            let error = parse(text, 5).unwrap_err();
            assert!(error.contains(word) && error.contains("from 0 to 4"), "{error}");
        }
        assert!(parse(" \n", 5).unwrap_err().contains("no token ids"));
        let long = parse(&"9".repeat(1000), 5).unwrap_err();
        assert!(long.len() < 150, "{long}");
    }
}
