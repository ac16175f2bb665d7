//! Builds prompts from the found chunks.

use serde::Serialize;
use serde_json::{Value, json};

use super::Hit;
use herald::chat::{ChatError, Template};
use herald::{AscTokenizer, Error, Result};

/// The default prompt: a Jinja template with `question`, and `notes` with `name` and `text` each.
pub const PROMPT_TEMPLATE: &str = "\
{% if notes %}Here are notes, the most fitting first.

{% for note in notes %}[{{ loop.index }}] {{ note.name }}:
{{ note.text | trim }}

{% endfor %}Answer from the notes, in a few words.
{% endif %}Question: {{ question }}";

/// A prompt with the chunks that were found for a question.
#[derive(Clone, Debug, Serialize)]
pub struct Recalled {
    /// The text.
    pub prompt: String,
    /// Its length in tokens.
    pub tokens: usize,
    /// The hits whose texts are in it; the last one may be cut to fit.
    pub hits: Vec<Hit>,
}

/// Puts as much of the hits into a prompt, best first, as fits into `budget` tokens.
pub(super) fn recall(
    tokenizer: &AscTokenizer,
    template: &str,
    question: &str,
    mut hits: Vec<Hit>,
    budget: usize,
) -> Result<Recalled> {
    let template = Template::new(template).map_err(wrong)?;
    let render = |hits: &[Hit]| -> Result<(String, usize)> {
        let notes: Vec<Value> =
            hits.iter().map(|hit| json!({ "name": hit.name, "text": hit.text })).collect();
        let text = template.render([("question", json!(question)), ("notes", json!(notes))]);
        let text = text.map_err(wrong)?;
        let tokens = tokenizer.encode(&text, false)?.len();
        Ok((text, tokens))
    };
    let (mut prompt, mut tokens) = render(&[])?;
    if tokens > budget {
        return Err(Error::Invalid(format!(
            "the question alone makes a prompt of {tokens} tokens, where at most {budget} were expected"
        )));
    }
    let mut kept = 0;
    while kept < hits.len() {
        let (text, length) = render(&hits[..=kept])?;
        if length <= budget {
            (prompt, tokens) = (text, length);
            kept += 1;
            continue;
        }
        // Cut the next hit to fit. A part of a text may have a few more tokens than its share of the whole.
        let ids = tokenizer.encode(&hits[kept].text, false)?;
        let mut room = ids.len().saturating_sub(length - budget);
        let mut least = 1;
        while room > 0 {
            hits[kept].text = tokenizer.decode(&ids[..room], false)?.trim_end_matches('\u{FFFD}').to_owned();
            let (text, length) = render(&hits[..=kept])?;
            if length <= budget {
                (prompt, tokens) = (text, length);
                kept += 1;
                break;
            }
            // Larger steps each time, so that a template that writes no less for less can't hold this up.
            room = room.saturating_sub((length - budget).max(least));
            least *= 2;
        }
        break;
    }
    hits.truncate(kept);
    Ok(Recalled { prompt, tokens, hits })
}

/// What is wrong with a template, in a sentence about the prompt's.
fn wrong(error: ChatError) -> Error {
    let reason = match error {
        ChatError::TooLong { length, limit } => {
            format!("its source has {length} bytes, where at most {limit} were expected")
        }
        ChatError::Syntax { line, reason } | ChatError::Render { line, reason } => {
            format!("line {line}: {reason}")
        }
        ChatError::TooMuchWork { line, limit } => {
            format!(
                "line {line}: it used more than {limit} steps for these notes, where far fewer were expected"
            )
        }
        ChatError::TooMuchMemory { line, limit } => {
            format!(
                "line {line}: it used more than {} MiB for these notes, where far less was expected",
                limit >> 20
            )
        }
        ChatError::Refused(reason) | ChatError::Internal(reason) => reason,
    };
    Error::Invalid(format!("the prompt's template can't be used: {reason}"))
}
