//! From a conversation to the text that a chat model continues.

use std::ffi::c_char;

use herald_api::abi::HeraldError;

use super::HeraldEngine;
use super::arguments;
use super::status::{Outcome, guard};
use herald_engine::chat::Message;

/// One turn of a conversation.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HeraldMessage {
    /// sizeof(HeraldMessage), the same in all messages of an array.
    pub struct_size: usize,
    /// Who speaks: "system", "user", "assistant", or what else the model's template knows. NUL-terminated UTF-8.
    pub role: *const c_char,
    /// What was said, NUL-terminated UTF-8.
    pub content: *const c_char,
}

/// Writes the text for n_messages messages by the model's chat template to text, NUL-terminated, and its length without
/// the NUL to *len; where add_generation_prompt is not 0, up to where the model's next turn begins. To be given to
/// herald_generate with HERALD_TEXT_SPECIAL | HERALD_TEXT_PROMPT. capacity: bytes that text has room for, which must be
/// more than *len. Any thread, many at once. Statuses: OK; BUFFER_TOO_SMALL, with *len the length; UNSUPPORTED (the model
/// has no chat template, or none that can be compiled); INVALID_ARGUMENT (also where the template refuses the messages).
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
    // SAFETY: the caller keeps to the header's rules.
    unsafe {
        guard(error, || {
            let engine = arguments::value(engine, "engine")?;
            let messages = arguments::structs(messages, n_messages)?;
            let messages: Vec<Message> = messages
                .iter()
                .enumerate()
                .map(|(index, message)| {
                    let role =
                        arguments::required_text(message.role, &format!("the role of message {index}"))?;
                    let content = arguments::required_text(
                        message.content,
                        &format!("the content of message {index}"),
                    )?;
                    Ok(Message::new(role, content))
                })
                .collect::<Outcome<_>>()?;
            let rendered = engine
                .template()?
                .render(&messages, add_generation_prompt != 0)
                .map_err(herald_engine::Error::from)?;
            arguments::answer_text(rendered.as_bytes(), text, capacity, len)
        })
    }
}
