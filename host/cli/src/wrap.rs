//! Text on a terminal, as it is generated: lines are broken between words, not where the terminal ends.

use unicode_width::UnicodeWidthChar;

/// The marks of a block of code, whose lines stay as they are.
const FENCE: &str = "```";

/// Distance between a terminal's tab stops.
const TAB: usize = 8;

/// Breaks text into lines, piece by piece. It holds back the word that a piece ends in, until the word is complete.
#[derive(Debug, Default)]
pub(super) struct Wrap {
    /// Columns of the current line that are taken.
    column: usize,
    /// White space before the word, which a line break replaces.
    space: String,
    word: String,
    word_width: usize,
    /// How the text's current line begins, without white space: enough to see a fence.
    begins: String,
    /// Whether this is a block of code.
    code: bool,
}

impl Wrap {
    /// What to print of the text so far, on lines of `width` columns.
    pub(super) fn push(&mut self, text: &str, width: usize) -> String {
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            self.take(c, width, &mut out);
        }
        out
    }

    fn take(&mut self, c: char, width: usize, out: &mut String) {
        if c == '\n' {
            self.end_word(width, out);
            out.push_str(&self.space);
            out.push(c);
            self.code ^= self.begins == FENCE;
            self.begins.clear();
            self.space.clear();
            self.column = 0;
            return;
        }
        if self.begins.len() < FENCE.len() && !(c.is_whitespace() && self.begins.is_empty()) {
            self.begins.push(c);
        }
        if self.code {
            self.end_word(usize::MAX, out);
            out.push_str(&std::mem::take(&mut self.space));
            out.push(c);
        } else if c == ' ' || c == '\t' {
            self.end_word(width, out);
            self.space.push(c);
        } else {
            let columns = c.width().unwrap_or(0);
            // Wide characters, such as Chinese ones, are written without spaces: a line may end beside each.
            if columns > 1 {
                self.end_word(width, out);
            }
            self.word.push(c);
            self.word_width += columns;
            if columns > 1 || self.word_width >= width {
                self.end_word(width, out);
            }
        }
    }

    /// Prints the word, on a line of its own if the current one has no room for it.
    fn end_word(&mut self, width: usize, out: &mut String) {
        if self.word.is_empty() {
            return;
        }
        let after = self.space.chars().fold(self.column, |column, c| match c {
            '\t' => (column + 1).next_multiple_of(TAB),
            _ => column + 1,
        });
        if self.column > 0 && after + self.word_width > width {
            out.push('\n');
            self.column = 0;
        } else {
            out.push_str(&self.space);
            self.column = after;
        }
        out.push_str(&self.word);
        self.column += self.word_width;
        self.space.clear();
        self.word.clear();
        self.word_width = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::Wrap;

    /// The text on lines of `width` columns, in pieces of every size.
    fn wrapped(text: &str, width: usize) -> String {
        let chars: Vec<char> = text.chars().collect();
        let mut results = (1..=chars.len().max(1)).map(|size| {
            let mut wrap = Wrap::default();
            let pieces = chars.chunks(size).map(|piece| wrap.push(&String::from_iter(piece), width));
            let begun: String = pieces.collect();
            // The text's end prints what was held back.
            let whole = begun + &wrap.push("\n", width);
            whole.strip_suffix('\n').expect("its end").to_owned()
        });
        let first = results.next().expect("a size");
        assert!(results.all(|other| other == first), "{text:?} depends on its pieces");
        first
    }

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrapped("the quick brown fox", 10), "the quick\nbrown fox");
        assert_eq!(wrapped("the quick brown", 9), "the quick\nbrown");
        assert_eq!(wrapped("one\ntwo three\n\nfour ", 9), "one\ntwo three\n\nfour ");
        assert_eq!(wrapped("  indented as it was", 10), "  indented\nas it was");
        assert_eq!(wrapped("", 10), "");
    }

    #[test]
    fn words_longer_than_a_line_are_printed_all_the_same() {
        assert_eq!(wrapped("a abcdefghijkl b", 5), "a\nabcde\nfghij\nkl b");
        assert_eq!(wrapped("ab", 1), "a\nb");
    }

    #[test]
    fn wide_characters_count_twice_and_combining_ones_not_at_all() {
        assert_eq!(wrapped("你好世界", 5), "你好\n世界");
        assert_eq!(wrapped("e\u{301}e\u{301}e\u{301} abc", 7), "e\u{301}e\u{301}e\u{301} abc");
        assert_eq!(wrapped("ab 你好", 5), "ab 你\n好");
    }

    #[test]
    fn code_stays_as_it_is() {
        let code = "```rust\nlet a = b + c + d;\n```\n";
        assert_eq!(wrapped(code, 8), code);
        assert_eq!(wrapped(&format!("{code}the end of it"), 8), format!("{code}the end\nof it"));
    }

    /// Nothing is lost but white space where lines break, and no line is longer than the terminal's.
    #[test]
    fn nothing_is_lost() {
        let text = "All   work and no play\tmakes 傑克 a dull boy; supercalifragilistic. \n\n  - x\n  - y";
        // An indentation that fills a line of its own stays.
        for width in 4..40 {
            let broken = wrapped(text, width);
            let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            assert_eq!(letters(&broken), letters(text), "{width}");
            for line in broken.lines().filter(|line| !line.contains('\t')) {
                let columns = unicode_width::UnicodeWidthStr::width(line.trim_end());
                assert!(columns <= width, "{line:?} has more than {width} columns");
            }
        }
    }
}
