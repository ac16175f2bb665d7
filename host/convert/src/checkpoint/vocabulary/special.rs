//! The tokens that steer: their ids, which are put around texts, and the chat templates.
//!
//! The rules are those of `SpecialVocab` of llama.cpp's package `gguf`.

use serde_json::{Map, Value};

use super::super::config::Config;
use super::super::error::Result;
use super::super::meta::{Item, Meta};
use super::files::Files;

/// Kinds of tokens and their names in GGUF (one of which llama.cpp spells so, and one of which it has none for).
const KINDS: [(&str, &str); 7] = [
    ("bos", "bos_token_id"),
    ("eos", "eos_token_id"),
    ("unk", "unknown_token_id"),
    ("sep", "seperator_token_id"),
    ("pad", "padding_token_id"),
    ("cls", ""),
    ("mask", "mask_token_id"),
];
const EOT: (&str, &str) = ("eot", "eot_token_id");

/// What is known of tokens that steer.
pub(super) struct Special {
    ids: Vec<(&'static str, usize)>,
    adds: Vec<(&'static str, bool)>,
    templates: Vec<(String, String)>,
    lowercase: Option<bool>,
    strip_accents: Option<bool>,
    /// How many tokens there are, where ids beyond are left out.
    count: Option<usize>,
}

/// The tokens by kind, as the tokenizer's settings name them; what a template finds is added.
struct Named {
    settings: Map<String, Value>,
    has_settings: bool,
    eot: Option<Value>,
}

impl Named {
    fn token(&self, kind: &str) -> Option<String> {
        let value = match kind {
            "eot" => self.eot.as_ref()?,
            _ => self.settings.get(&format!("{kind}_token"))?,
        };
        let text = value.as_str().or_else(|| value.get("content")?.as_str())?;
        Some(text.to_owned()).filter(|text| !text.is_empty())
    }

    fn set(&mut self, kind: &str, token: &str) {
        self.settings.insert(format!("{kind}_token"), token.into());
    }
}

impl Special {
    /// Reads it from a tokenizer's files and the model's settings.
    pub(super) fn of(files: &Files, config: &Config, count: Option<usize>) -> Result<Self> {
        let mut special = Self {
            ids: Vec::new(),
            adds: Vec::new(),
            templates: Vec::new(),
            lowercase: None,
            strip_accents: None,
            count,
        };
        let mut named =
            Named { settings: files.settings.clone(), has_settings: files.has_settings, eot: None };
        if let Some(tokenizer) = &files.tokenizer {
            if let Some(normalizer) = tokenizer.get("normalizer") {
                special.normalizer(normalizer);
            }
            for (kind, other) in [("bos", "cls"), ("eos", "sep")] {
                if let (None, Some(token)) = (named.token(kind), named.token(other)) {
                    named.set(kind, &token);
                }
            }
            let processor = tokenizer.get("post_processor").filter(|processor| !processor.is_null());
            let alone = processor.into_iter().cloned().collect::<Vec<_>>();
            let several = processor.and_then(|processor| processor.get("processors")?.as_array());
            for processor in several.unwrap_or(&alone) {
                special.processor(processor, &mut named);
            }
        }
        if files.has_settings {
            special.templates.clone_from(&files.templates);
            special.named(files, &named);
        }
        for (kind, _) in KINDS.iter().chain(named.eot.iter().map(|_| &EOT)) {
            let id = config.raw(&format!("{kind}_token_id")).and_then(Value::as_u64);
            if let Some(id) = id {
                special.set(kind, id as usize);
            }
        }
        Ok(special)
    }

    /// Sets a kind's id, unless it has one.
    pub(super) fn set(&mut self, kind: &'static str, id: usize) {
        let fits = self.count.is_none_or(|count| id < count);
        if fits && u32::try_from(id).is_ok() && !self.ids.iter().any(|(other, _)| *other == kind) {
            self.ids.push((kind, id));
        }
    }

    fn add(&mut self, kind: &'static str, value: bool) {
        match self.adds.iter_mut().find(|(other, _)| *other == kind) {
            Some((_, former)) => *former = value,
            None => self.adds.push((kind, value)),
        }
    }

    fn normalizer(&mut self, normalizer: &Value) {
        let flag = |key: &str| normalizer.get(key).and_then(Value::as_bool);
        match normalizer.get("type").and_then(Value::as_str) {
            Some("Lowercase") => self.lowercase = Some(true),
            Some("StripAccents") => self.strip_accents = Some(true),
            Some("BertNormalizer") => {
                self.lowercase = flag("lowercase").or(self.lowercase);
                self.strip_accents = flag("strip_accents").or(self.strip_accents);
            }
            Some("Sequence") => {
                let all = normalizer.get("normalizers").and_then(Value::as_array);
                all.into_iter().flatten().for_each(|normalizer| self.normalizer(normalizer));
            }
            _ => {}
        }
    }

    fn processor(&mut self, processor: &Value, named: &mut Named) {
        match processor.get("type").and_then(Value::as_str) {
            Some("ByteLevel") => {
                for kind in ["bos", "eos"] {
                    if !self.adds.iter().any(|(other, _)| *other == kind) {
                        self.add(kind, false);
                    }
                }
            }
            Some("RobertaProcessing") => {
                for kind in ["bos", "eos", "sep"] {
                    self.add(kind, true);
                }
                for kind in ["cls", "sep"] {
                    let token = processor.get(kind).and_then(|pair| pair.get(0)?.as_str());
                    if let (None, Some(token), true) = (named.token(kind), token, named.has_settings) {
                        named.set(kind, token);
                    }
                }
            }
            Some("TemplateProcessing") => self.template(processor, named),
            _ => {}
        }
    }

    /// Which tokens a template puts around a text, and between two.
    fn template(&mut self, processor: &Value, named: &mut Named) {
        let list =
            |key: &str| processor.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let token = |part: Option<&Value>| {
            part.and_then(|part| part.get("SpecialToken")?.get("id")?.as_str()).map(str::to_owned)
        };
        let single = list("single");
        let (mut first, mut last) = (None, None);
        if single.len() > 1 {
            first = token(single.first());
            last = token(single.last());
        }
        if let Some(first) = &first {
            let mut known = [named.token("bos"), named.token("cls")];
            for (kind, known) in ["bos", "cls"].into_iter().zip(&mut known) {
                let missing = known.is_none()
                    && named.token("bos").as_ref() != Some(first)
                    && named.token("cls").as_ref() != Some(first);
                if missing || !named.has_settings && kind == "bos" {
                    named.set(kind, first);
                    *known = Some(first.clone());
                }
            }
            self.add("bos", known.iter().flatten().any(|token| token == first));
        }
        if let Some(last) = &last {
            if named.token("eos").as_ref() != Some(last) {
                // What ended texts before ends turns.
                if named.has_settings {
                    named.eot = named.settings.get("eos_token").cloned();
                }
                named.set("eos", last);
            }
            self.add("eos", true);
        }
        let pair = list("pair");
        let start = usize::from(first.is_some() && token(pair.first()) == first);
        let end = pair.len() - usize::from(last.is_some() && token(pair.last()) == last).min(pair.len());
        let Some([_, between @ .., _]) = pair.get(start..end) else { return };
        if between.is_empty() {
            return;
        }
        let ends = |part: &Value| {
            let id = token(Some(part));
            id.is_some() && (id == named.token("sep") || id == named.token("eos"))
        };
        let separates = match between {
            [one] => ends(one) && last.is_none(),
            [one, two] => ends(one) && last.is_none() || ends(two),
            [one, ..] => ends(one) && last.is_none(),
            [] => false,
        };
        self.add("sep", separates);
        if let (true, None, Some(eos)) = (separates, named.token("sep"), named.token("eos")) {
            named.set("sep", &eos);
        }
    }

    /// What the tokenizer's settings say by name.
    fn named(&mut self, files: &Files, named: &Named) {
        for (kind, _) in KINDS.iter().chain(named.eot.iter().map(|_| &EOT)) {
            if let Some(Value::Bool(add)) = named.settings.get(&format!("add_{kind}_token"))
                && !self.adds.iter().any(|(other, _)| other == kind)
            {
                self.add(kind, *add);
            }
            if let Some(id) = named.token(kind).and_then(|token| files.added_id(&token)) {
                self.set(kind, id);
            }
        }
    }

    /// Writes it.
    pub(super) fn write(&self, meta: &mut Meta) {
        for (kind, id) in &self.ids {
            if let Some((_, name)) =
                KINDS.iter().chain([&EOT]).find(|(other, name)| other == kind && !name.is_empty())
            {
                meta.set(&format!("tokenizer.ggml.{name}"), *id as u32);
            }
        }
        for (kind, add) in self.adds.iter().filter(|(kind, _)| ["bos", "eos", "sep"].contains(kind)) {
            meta.set(&format!("tokenizer.ggml.add_{kind}_token"), *add);
        }
        self.write_templates(meta);
        for (key, value) in [("lowercase", self.lowercase), ("strip_accents", self.strip_accents)] {
            if let Some(value) = value {
                meta.set(&format!("tokenizer.ggml.normalizer.{key}"), value);
            }
        }
    }

    /// The template by the name `default`, and the others under theirs.
    fn write_templates(&self, meta: &mut Meta) {
        let mut names = Vec::new();
        for (name, template) in &self.templates {
            if name == "default" {
                meta.set("tokenizer.chat_template", template.as_str());
                continue;
            }
            let plain: String =
                name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            if !plain.is_empty() && !names.contains(&plain) {
                meta.set(&format!("tokenizer.chat_template.{plain}"), template.as_str());
                names.push(plain);
            }
        }
        if !names.is_empty() {
            meta.set("tokenizer.chat_templates", Item::Texts(names));
        }
    }
}
