//! A Jinja template within limits, whatever its variables are.

use std::sync::Arc;

use serde_json::Value;

use super::jinja::{self, Budget};
use super::{ChatError, clock, stack};

/// Bytes of a template's source. Real ones have some ten thousand.
const MAX_SOURCE: usize = 128 << 10;
/// Steps that a rendering may use for a start, then for each list and dict among its variables, and for each byte of their
/// texts. Real templates use some hundred for a message. A step takes some 30 ns.
const WORK: u64 = 2_000_000;
const WORK_PER_PART: u64 = 10_000;
const WORK_PER_BYTE: u64 = 2;
/// Bytes of memory for a start, and then for each list and dict, and each byte.
const MEMORY: usize = 32 << 20;
const MEMORY_PER_PART: usize = 4 << 10;
const MEMORY_PER_BYTE: usize = 8;

/// A template with variables of one's own: the language and the limits are those of chat templates, with `strftime_now`,
/// `raise_exception` and `tojson`.
///
/// ```
/// use herald_chat::Template;
/// use serde_json::json;
///
/// let template = Template::new("{% for name in names %}{{ loop.index }}. {{ name }}\n{% endfor %}")?;
/// assert_eq!(template.render([("names", json!(["Ada", "Grace"]))])?, "1. Ada\n2. Grace\n");
/// # Ok::<(), herald_chat::ChatError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Template {
    program: Arc<jinja::Program>,
}

impl Template {
    /// Compiles a template.
    ///
    /// # Errors
    /// The source is too long, or isn't a template: [`ChatError::TooLong`], [`ChatError::Syntax`].
    pub fn new(source: &str) -> Result<Self, ChatError> {
        if source.len() > MAX_SOURCE {
            return Err(ChatError::TooLong { length: source.len(), limit: MAX_SOURCE });
        }
        let program = stack::with_deep_stack(|| jinja::parse(source).map_err(ChatError::of_source))?;
        Ok(Self { program: Arc::new(program) })
    }

    /// The text for these variables.
    ///
    /// # Errors
    /// The template raises an exception ([`ChatError::Refused`]), fails ([`ChatError::Render`]), or exceeds the limits
    /// ([`ChatError::TooMuchWork`], [`ChatError::TooMuchMemory`]), which grow with the variables.
    pub fn render<'v>(
        &self,
        variables: impl IntoIterator<Item = (&'v str, Value)>,
    ) -> Result<String, ChatError> {
        let variables: Vec<_> = variables.into_iter().collect();
        let budget = budget(variables.iter().map(|(_, value)| value));
        // All values are made and dropped on the deep stack.
        stack::with_deep_stack(|| {
            jinja::render(&self.program, variables, clock::strftime_now, budget)
                .map_err(ChatError::of_rendering)
        })
    }
}

/// What a rendering with these variables may use.
fn budget<'v>(variables: impl Iterator<Item = &'v Value>) -> Budget {
    let (mut parts, mut bytes) = (0_usize, 0_usize);
    let mut left: Vec<&Value> = variables.collect();
    while let Some(value) = left.pop() {
        match value {
            Value::String(text) => bytes = bytes.saturating_add(text.len()),
            Value::Array(items) => {
                parts += 1;
                left.extend(items);
            }
            Value::Object(entries) => {
                parts += 1;
                bytes = entries.keys().fold(bytes, |bytes, key| bytes.saturating_add(key.len()));
                left.extend(entries.values());
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    Budget {
        work: WORK
            .saturating_add(WORK_PER_PART.saturating_mul(parts as u64))
            .saturating_add(WORK_PER_BYTE.saturating_mul(bytes as u64)),
        memory: MEMORY
            .saturating_add(MEMORY_PER_PART.saturating_mul(parts))
            .saturating_add(MEMORY_PER_BYTE.saturating_mul(bytes)),
    }
}
