//! Formats a conversation as the text that a chat model continues.

use std::ffi::c_char;

use herald_api::abi::HeraldError;

use super::HeraldEngine;
use super::arguments::Call;
use super::status::Outcome;
use herald_engine::chat::Message;

/// One turn of a conversation.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HeraldMessage {
    /// sizeof(HeraldMessage), the same in all messages of an array.
    pub struct_size: usize,
    /// The speaker: "system", "user", "assistant", or another role that the model's template knows. NUL-terminated UTF-8.
    pub role: *const c_char,
    /// The message, NUL-terminated UTF-8.
    pub content: *const c_char,
}

/// Formats n_messages messages by the model's chat template, and writes the text, NUL-terminated, to text, and its length
/// without the NUL to *len. If add_generation_prompt is not 0, the text ends where the model's next turn begins. Pass it to
/// herald_generate with HERALD_TEXT_SPECIAL | HERALD_TEXT_PROMPT. capacity: size of text in bytes, which must be greater
/// than *len. Any thread, many at once. Statuses: OK; BUFFER_TOO_SMALL, with *len the length; UNSUPPORTED (the model has no
/// chat template, or it can't be compiled); INVALID_ARGUMENT (also if the template refuses the messages).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_chat_format(
    engine: *const HeraldEngine,
    messages: *const HeraldMessage,
    n_messages: usize,
    add_generation_prompt: u32,
    text: *mut c_char,
    capacity: usize,
    len: *mut usize,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let engine = call.handle(engine, "engine")?;
        let rendered = render(call, engine, messages, n_messages, add_generation_prompt != 0)?;
        call.write_text(rendered.as_bytes(), text, capacity, len)
    })
}

/// A conversation as the model's chat template formats it.
pub(super) fn render(
    call: &Call,
    engine: &HeraldEngine,
    messages: *const HeraldMessage,
    n_messages: usize,
    add_generation_prompt: bool,
) -> Outcome<String> {
    let messages = call.structs(messages, n_messages)?;
    let messages: Vec<Message> = messages
        .iter()
        .enumerate()
        .map(|(index, message)| {
            let role = call.required_text(message.role, &format!("the role of message {index}"))?;
            let content = call.required_text(message.content, &format!("the content of message {index}"))?;
            Ok(Message::new(role, content))
        })
        .collect::<Outcome<_>>()?;
    let rendered = engine.template()?.render(&messages, add_generation_prompt);
    Ok(rendered.map_err(herald_engine::Error::from)?)
}
