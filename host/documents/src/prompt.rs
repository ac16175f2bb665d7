//! Builds prompts from the found chunks.

use minijinja::{Environment, Value, context};
use serde::Serialize;

use super::Hit;
use herald::AscTokenizer;
use herald::{Error, Result};

/// The default prompt: a Jinja template with `question`, and `notes` with `name` and `text` each.
pub const PROMPT_TEMPLATE: &str = "\
{% if notes %}Here are notes, the most fitting first.

{% for note in notes %}[{{ loop.index }}] {{ note.name }}:
{{ note.text | trim }}

{% endfor %}Answer from the notes, in a few words.
{% endif %}Question: {{ question }}";

/// Limit on the instructions that a template may run.
const FUEL: u64 = 10_000_000;

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
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    let wrong =
        |error: minijinja::Error| Error::Invalid(format!("the prompt's template can't be used: {error}"));
    environment.add_template("prompt", template).map_err(wrong)?;
    let template = environment.get_template("prompt").map_err(wrong)?;
    let render = |hits: &[Hit]| -> Result<(String, usize)> {
        let notes: Vec<Value> =
            hits.iter().map(|hit| context! { name => &hit.name, text => &hit.text }).collect();
        let text = template.render(context! { question, notes }).map_err(wrong)?;
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
        while room > 0 {
            hits[kept].text = tokenizer.decode(&ids[..room], false)?.trim_end_matches('\u{FFFD}').to_owned();
            let (text, length) = render(&hits[..=kept])?;
            if length <= budget {
                (prompt, tokens) = (text, length);
                kept += 1;
                break;
            }
            room = room.saturating_sub((length - budget).max(1));
        }
        break;
    }
    hits.truncate(kept);
    Ok(Recalled { prompt, tokens, hits })
}
