//! The files of a tokenizer.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::super::error::{CheckpointError, Result, bad_file};
use super::super::json;

/// The most tokens: each costs memory.
const MOST_TOKENS: u64 = 1 << 24;

/// A token beside those that merges make.
#[derive(Clone, Debug)]
pub(super) struct Added {
    pub(super) id: usize,
    pub(super) content: String,
    pub(super) special: bool,
}

/// What a tokenizer's files hold.
pub(super) struct Files {
    pub(super) folder: PathBuf,
    /// `tokenizer.json`.
    pub(super) tokenizer: Option<Map<String, Value>>,
    /// `tokenizer_config.json`; empty if there is none.
    pub(super) settings: Map<String, Value>,
    /// Whether there is one.
    pub(super) has_settings: bool,
    /// The tokens that `tokenizer.json` adds.
    pub(super) added: Vec<Added>,
    /// The tokens that `tokenizer_config.json` adds.
    pub(super) added_by_settings: Vec<Added>,
    /// The chat template, or several with their names.
    pub(super) templates: Vec<(String, String)>,
}

impl Files {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let tokenizer = json::object(&folder.join("tokenizer.json"))?;
        let settings = json::object(&folder.join("tokenizer_config.json"))?;
        let has_settings = settings.is_some();
        let settings = settings.unwrap_or_default();
        let mut files = Self {
            folder: folder.to_owned(),
            tokenizer,
            settings,
            has_settings,
            added: Vec::new(),
            added_by_settings: Vec::new(),
            templates: Vec::new(),
        };
        if let Some(Value::Array(list)) =
            files.tokenizer.as_ref().and_then(|tokenizer| tokenizer.get("added_tokens"))
        {
            files.added =
                list.iter().map(|token| files.token(token.get("id"), token)).collect::<Result<_>>()?;
        }
        if let Some(Value::Object(map)) = files.settings.get("added_tokens_decoder") {
            let token = |(id, token): (&String, &Value)| {
                let id = id.parse::<u64>().ok().map(Value::from);
                files.token(id.as_ref(), token)
            };
            files.added_by_settings = map.iter().map(token).collect::<Result<_>>()?;
        }
        files.templates = templates(folder, &files.settings)?;
        Ok(files)
    }

    fn token(&self, id: Option<&Value>, token: &Value) -> Result<Added> {
        let id = id.and_then(Value::as_u64).filter(|id| *id < MOST_TOKENS);
        let content = token.get("content").and_then(Value::as_str);
        let Some((id, content)) = id.zip(content) else {
            return Err(self.bad(format_args!(
                "an added token is {}, where an id and a content were expected",
                json::shown(token)
            )));
        };
        let special = token.get("special").and_then(Value::as_bool).unwrap_or(false);
        Ok(Added { id: id as usize, content: content.to_owned(), special })
    }

    /// A refusal of `tokenizer.json`.
    pub(super) fn bad(&self, what: impl std::fmt::Display) -> CheckpointError {
        bad_file(&self.folder.join("tokenizer.json"), what)
    }

    /// The vocabulary of `tokenizer.json`: tokens with their ids.
    pub(super) fn vocabulary(&self) -> Result<Vec<(&str, usize)>> {
        let vocabulary =
            self.tokenizer.as_ref().and_then(|tokenizer| tokenizer.get("model")?.get("vocab")?.as_object());
        let Some(vocabulary) = vocabulary else {
            return Err(self.bad("its model has no object vocab, which was expected"));
        };
        let token = |(token, id): (&'_ String, &Value)| {
            let number = id.as_u64().filter(|id| *id < MOST_TOKENS);
            number.map(|id| id as usize).ok_or_else(|| {
                self.bad(format_args!(
                    "the id of {token:?} is {}, where an integer below {MOST_TOKENS} was expected",
                    json::shown(id)
                ))
            })
        };
        vocabulary.iter().map(|(text, id)| Ok((text.as_str(), token((text, id))?))).collect()
    }

    /// The id of an added token.
    pub(super) fn added_id(&self, content: &str) -> Option<usize> {
        self.added.iter().find(|token| token.content == content).map(|token| token.id)
    }
}

/// The chat templates: of the settings, or else of files beside them.
fn templates(folder: &Path, settings: &Map<String, Value>) -> Result<Vec<(String, String)>> {
    let default = |text: String| vec![("default".to_owned(), text)];
    let beside = match json::text(&folder.join("chat_template.jinja"))? {
        Some(text) => Some(Value::String(text)),
        None => json::object(&folder.join("chat_template.json"))?
            .and_then(|mut file| file.remove("chat_template")),
    };
    let found = settings.get("chat_template").filter(|template| !template.is_null()).or(beside.as_ref());
    let named = |template: &Value| {
        let part = |key| template.get(key).and_then(Value::as_str).map(str::to_owned);
        part("name").zip(part("template"))
    };
    Ok(match found {
        Some(Value::String(text)) => default(text.clone()),
        Some(Value::Array(list)) => list.iter().filter_map(named).collect(),
        _ => Vec::new(),
    })
}
