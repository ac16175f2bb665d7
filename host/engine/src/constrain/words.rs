//! What the compiler and the parser of forms say, in words that their users know.

/// What is said of each kind of failure, by a mark in the library's own message.
const WORDS: [(&str, &str); 10] = [
    ("NoExtensionBias", "no text that this model can write fits it"),
    ("too many expressions", "it is too large"),
    ("too many states", "it is too large"),
    ("too big", "it is too large"),
    ("schema too large", "it is too large"),
    ("fuel exhausted", "it is too large"),
    ("LexerTooComplex", "it takes too much work to follow"),
    ("ParserTooComplex", "it takes too much work to follow"),
    (
        "oneOf constraints are not supported",
        "oneOf is not supported where its alternatives overlap: anyOf was expected",
    ),
    ("InternalError", "the parser failed"),
];

/// A failure in one line of plain words.
pub(super) fn plainly(said: &str) -> String {
    if let Some((_, words)) = WORDS.iter().find(|(mark, _)| said.contains(mark)) {
        return (*words).to_owned();
    }
    let said = said.replace("<non-verbose/>", "");
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    match said.split_once("Unimplemented keys:") {
        // What follows the list is the grammar that the schema became a part of.
        Some((_, keys)) => {
            let keys = keys.split_inclusive(']').next().unwrap_or(keys);
            format!("these of its keywords are not supported:{keys}")
        }
        None => said,
    }
}

#[cfg(test)]
mod tests {
    use super::plainly;

    #[test]
    fn insides_stay_inside() {
        assert_eq!(
            plainly("stopped: NoExtensionBias\n<non-verbose/>"),
            "no text that this model can write fits it"
        );
        assert_eq!(
            plainly("Unimplemented keys: [\"not\"]"),
            "these of its keywords are not supported: [\"not\"]"
        );
        assert_eq!(
            plainly("failed: Unimplemented keys: [\"not\", \"if\"]\n1 | start: %json {}"),
            "these of its keywords are not supported: [\"not\", \"if\"]"
        );
        assert_eq!(plainly("unclosed\n  group\n<non-verbose/>"), "unclosed group");
    }
}
