//! What is to be generated: the one internal form of every API's requests.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use herald::sampler::SamplerConfig;
use herald::{Constraint, LoraScale, NeuroEngine};

use crate::conversation::Conversation;
use crate::error::ApiError;
use crate::fields::{Body, wrong};

/// The most answers to one prompt.
const MAX_ANSWERS: usize = 128;

/// Where a prompt comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A text. `special`: special tokens that it spells are meant. `around`: with what the model puts before and after a prompt.
    Text {
        text: String,
        special: bool,
        around: bool,
    },
    Ids(Vec<u32>),
    Chat(Box<Conversation>),
    /// A gap to fill, between two texts, with the names and texts of other files.
    Fill {
        prefix: String,
        suffix: String,
        others: Vec<(String, String)>,
    },
}

/// A request, whichever API it came by.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// The prompts; each gets its own answers.
    pub(crate) sources: Vec<Source>,
    /// Answers to each prompt that are given.
    pub(crate) n: usize,
    /// Answers to each prompt that are made.
    pub(crate) best_of: usize,
    pub(crate) sampling: Sampling,
    pub(crate) max_tokens: Option<usize>,
    pub(crate) min_tokens: usize,
    /// How many tokens thoughts may have, where that is bounded.
    pub(crate) max_thoughts: Option<usize>,
    pub(crate) stop: Vec<String>,
    pub(crate) stop_tokens: Vec<u32>,
    pub(crate) ignore_eos: bool,
    /// Whether special tokens are written out.
    pub(crate) special: bool,
    pub(crate) constraint: Option<Constraint>,
    /// Whether the prompt stands before the answer.
    pub(crate) echo: bool,
    /// How many of the likeliest tokens are given with each token's log-probability, where that is wanted.
    pub(crate) logprobs: Option<u32>,
    /// Which of the server's models answers, where it is named, or which of its adapters.
    pub(crate) model: Option<String>,
    /// The adapters that it is computed with; `None`: as `model` says, or else as the server was started.
    pub(crate) loras: Option<Vec<LoraScale>>,
    /// Who shares what the prompts compute; `None`: everybody.
    pub(crate) cache_key: Option<String>,
    /// Whose request it is.
    pub(crate) client: String,
    pub(crate) stream: bool,
    /// Whether thoughts are told from text.
    pub(crate) reads_thoughts: bool,
    /// Whether calls are told from text.
    pub(crate) reads_calls: bool,
}

impl Job {
    pub(crate) fn new(sources: Vec<Source>) -> Self {
        Self {
            sources,
            n: 1,
            best_of: 1,
            sampling: Sampling::default(),
            max_tokens: None,
            min_tokens: 0,
            max_thoughts: None,
            stop: Vec::new(),
            stop_tokens: Vec::new(),
            ignore_eos: false,
            special: false,
            constraint: None,
            echo: false,
            logprobs: None,
            model: None,
            loras: None,
            cache_key: None,
            client: String::new(),
            stream: false,
            reads_thoughts: true,
            reads_calls: true,
        }
    }

    /// Takes the fields that say how tokens are chosen and where the answer ends.
    ///
    /// # Errors
    /// Where one is of no use.
    pub(crate) fn take_sampling(&mut self, body: &mut Body) -> Result<(), ApiError> {
        self.sampling = Sampling::take(body)?;
        self.stop = body.texts("stop").unwrap_or_default();
        self.stop.retain(|text| !text.is_empty());
        self.min_tokens = body.count("min_tokens")?.unwrap_or(0);
        self.ignore_eos = body.flag("ignore_eos").unwrap_or(false);
        self.special = !body.flag("skip_special_tokens").unwrap_or(true);
        self.loras = body.list("lora").map(|loras| loras_of("lora", &loras)).transpose()?;
        if let Some(ids) = body.list("stop_token_ids") {
            let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
            let ids: Option<Vec<u32>> = ids.iter().map(id).collect();
            self.stop_tokens =
                ids.ok_or_else(|| wrong("stop_token_ids", "another list", "a list of token ids"))?;
        }
        Ok(())
    }

    /// Takes the fields that name the client and the model, and whether the answer is streamed.
    pub(crate) fn take_client(&mut self, body: &mut Body) {
        let names = [body.text("user"), body.text("safety_identifier")];
        self.client = names.into_iter().flatten().next().unwrap_or_default();
        self.stream = body.flag("stream").unwrap_or(false);
        self.model = body.text("model");
        self.cache_key = body.text("cache_salt");
    }

    /// Takes the number of answers.
    ///
    /// # Errors
    /// Where it is 0, or more than there may be.
    pub(crate) fn take_n(&mut self, body: &mut Body) -> Result<(), ApiError> {
        let mut count = |name: &str| -> Result<Option<usize>, ApiError> {
            let n = body.count(name)?;
            match n {
                Some(n) if n == 0 || n > MAX_ANSWERS => {
                    Err(wrong(name, &n.to_string(), &format!("a number from 1 to {MAX_ANSWERS}")))
                }
                n => Ok(n),
            }
        };
        self.n = count("n")?.unwrap_or(1);
        self.best_of = count("best_of")?.unwrap_or(self.n);
        if self.best_of < self.n {
            return Err(wrong(
                "best_of",
                &self.best_of.to_string(),
                &format!("at least n, which is {}", self.n),
            ));
        }
        if self.best_of > self.n && self.stream {
            return Err(wrong(
                "best_of",
                &self.best_of.to_string(),
                &format!("n, which is {}, since answers that are streamed can't be compared", self.n),
            ));
        }
        Ok(())
    }

    /// Takes the most tokens of an answer from the first of these fields that is given.
    pub(crate) fn take_max_tokens(&mut self, body: &mut Body, names: &[&str], default: Option<usize>) {
        let mut given = None;
        for name in names {
            let limit = body.limit(name);
            given = given.or(limit);
        }
        self.max_tokens = given.map_or(default, |limit| limit.map(|limit| limit as usize));
    }
}

/// Adapters with their scales: objects with `id` and `scale`.
///
/// # Errors
/// Where one is no such object.
fn loras_of(name: &str, list: &[Value]) -> Result<Vec<LoraScale>, ApiError> {
    let lora = |value: &Value| {
        let object =
            value.as_object().filter(|object| object.keys().all(|key| key == "id" || key == "scale"))?;
        let index = object.get("id")?.as_u64().and_then(|id| usize::try_from(id).ok())?;
        Some(LoraScale { index, scale: object.get("scale")?.as_f64()? as f32 })
    };
    list.iter()
        .map(|value| {
            let expected = "an adapter, as {\"id\": 0, \"scale\": 0.5},";
            lora(value).ok_or_else(|| wrong(name, &format!("a list with {value}"), expected))
        })
        .collect()
}

/// Sets a number of a sampler's configuration.
type Number = fn(&mut SamplerConfig) -> &mut f32;

const NUMBERS: [(&str, Number); 17] = [
    ("temperature", |config| &mut config.temperature),
    ("top_p", |config| &mut config.top_p),
    ("min_p", |config| &mut config.min_p),
    ("typical_p", |config| &mut config.typical_p),
    ("top_n_sigma", |config| &mut config.top_n_sigma),
    ("xtc_probability", |config| &mut config.xtc_probability),
    ("xtc_threshold", |config| &mut config.xtc_threshold),
    ("repetition_penalty", |config| &mut config.repetition_penalty),
    ("repeat_penalty", |config| &mut config.repetition_penalty),
    ("presence_penalty", |config| &mut config.presence_penalty),
    ("frequency_penalty", |config| &mut config.frequency_penalty),
    ("dry_multiplier", |config| &mut config.dry_multiplier),
    ("dry_base", |config| &mut config.dry_base),
    ("mirostat_tau", |config| &mut config.mirostat_tau),
    ("mirostat_eta", |config| &mut config.mirostat_eta),
    ("typical", |config| &mut config.typical_p),
    ("temp", |config| &mut config.temperature),
];

/// How tokens are chosen, as far as the client says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sampling {
    numbers: Vec<(usize, f32)>,
    top_k: Option<u32>,
    repeat_last_n: Option<Option<u32>>,
    dry_allowed_length: Option<u32>,
    dry_last_n: Option<Option<u32>>,
    dry_breakers: Option<Vec<String>>,
    mirostat: Option<u32>,
    seed: Option<u64>,
    /// By token, or by the text of one.
    bias: Vec<(Token, f32)>,
}

#[derive(Clone, Debug)]
enum Token {
    Id(u32),
    Text(String),
}

impl Sampling {
    fn take(body: &mut Body) -> Result<Self, ApiError> {
        let mut sampling = Self::default();
        for (index, (name, _)) in NUMBERS.iter().enumerate() {
            if let Some(number) = body.number(name) {
                sampling.numbers.push((index, number));
            }
        }
        let to_u32 = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        sampling.top_k = body.limit("top_k").map(|limit| limit.unwrap_or(0));
        sampling.repeat_last_n = body.limit("repeat_last_n");
        sampling.dry_allowed_length = body.count("dry_allowed_length")?.map(to_u32);
        sampling.dry_last_n = body.limit("dry_penalty_last_n");
        sampling.dry_breakers = body.texts("dry_sequence_breakers");
        sampling.mirostat = body.count("mirostat")?.map(to_u32);
        // -1 is any; as llama.cpp has it, so is 2^32 - 1.
        let seed = body.integer("seed").filter(|seed| *seed != -1 && *seed != i64::from(u32::MAX));
        sampling.seed = seed.map(i64::cast_unsigned);
        sampling.bias = body.any("logit_bias").map_or(Ok(Vec::new()), |bias| biases(&bias))?;
        Ok(sampling)
    }

    /// The sampler's configuration: what the client doesn't say is as the model's makers recommend.
    ///
    /// # Errors
    /// A text in `logit_bias` that is no single token.
    pub(crate) fn config(&self, engine: &NeuroEngine) -> Result<SamplerConfig, ApiError> {
        let mut config = engine.recommended_sampling();
        for (index, number) in &self.numbers {
            *NUMBERS[*index].1(&mut config) = *number;
        }
        config.top_k = self.top_k.unwrap_or(config.top_k);
        config.repeat_last_n = self.repeat_last_n.unwrap_or(config.repeat_last_n);
        config.dry_allowed_length = self.dry_allowed_length.unwrap_or(config.dry_allowed_length);
        config.dry_penalty_last_n = self.dry_last_n.unwrap_or(config.dry_penalty_last_n);
        config.mirostat = self.mirostat.unwrap_or(config.mirostat);
        config.seed = self.seed;
        if let Some(breakers) = &self.dry_breakers {
            let breakers: Vec<&str> = breakers.iter().map(String::as_str).collect();
            config.dry_breakers = Some(engine.tokens_with(&breakers)?);
        }
        let mut bias = BTreeMap::new();
        for (token, add) in &self.bias {
            match token {
                Token::Id(id) => {
                    bias.insert(*id, *add);
                }
                Token::Text(text) => {
                    for id in engine.tokenizer().encode(text, true)? {
                        bias.insert(id, *add);
                    }
                }
            }
        }
        config.logit_bias = bias;
        Ok(config)
    }
}

/// Biases: an object by id, or llama.cpp's list of pairs.
fn biases(value: &Value) -> Result<Vec<(Token, f32)>, ApiError> {
    let number = |value: &Value| match value {
        Value::Bool(false) => Some(f32::NEG_INFINITY),
        value => value.as_f64().map(|number| number as f32),
    };
    let failed = |what: String| ApiError::invalid(what).at("logit_bias");
    match value {
        Value::Object(biases) => biases
            .iter()
            .map(|(key, value)| {
                let id = key.parse().map_err(|_| {
                    failed(format!("logit_bias has the key {key:?}, where a token's id was expected"))
                })?;
                let bias = number(value);
                let bias = bias.ok_or_else(|| {
                    failed(format!("logit_bias[{key}] is {value}, where a number was expected"))
                })?;
                Ok((Token::Id(id), bias))
            })
            .collect(),
        Value::Array(pairs) => pairs
            .iter()
            .map(|pair| {
                let token = match &pair[0] {
                    Value::String(text) => Some(Token::Text(text.clone())),
                    id => id.as_u64().and_then(|id| u32::try_from(id).ok()).map(Token::Id),
                };
                let pair_of = token.zip(number(&pair[1]));
                pair_of.ok_or_else(|| {
                    failed(format!("logit_bias has {pair}, where a token and a number were expected"))
                })
            })
            .collect(),
        other => Err(failed(format!("logit_bias is {other}, where an object by token id was expected"))),
    }
}

/// Takes the form that the answer must have, by whichever name it is asked for.
///
/// # Errors
/// Where it is none, or there are several.
pub(crate) fn take_form(body: &mut Body) -> Result<Option<Constraint>, ApiError> {
    let mut forms: Vec<(&str, Constraint)> = Vec::new();
    if let Some(format) = body.object("response_format")
        && let Some(form) = response_format("response_format", &format)?
    {
        forms.push(("response_format", form));
    }
    if let Some(schema) = body.object("json_schema") {
        forms.push(("json_schema", Constraint::JsonSchema(Value::Object(schema))));
    }
    if let Some(schema) = body.any("guided_json") {
        forms.push(("guided_json", schema_of("guided_json", &schema)?));
    }
    for name in ["regex", "guided_regex"] {
        forms.extend(body.text(name).map(|regex| (name, Constraint::Regex(regex))));
    }
    for name in ["grammar", "guided_grammar"] {
        let text = body.text(name).filter(|text| !text.is_empty());
        forms.extend(text.map(|text| (name, Constraint::grammar(&text))));
    }
    if let Some(choices) = body.list("guided_choice") {
        forms.push(("guided_choice", choice_of("guided_choice", &choices)?));
    }
    if let Some(outputs) = body.object("structured_outputs") {
        forms.push(("structured_outputs", structured(&outputs)?));
    }
    if let [(one, _), (other, _), ..] = &forms[..] {
        let what = format!("{one} and {other} are both set, where one was expected");
        return Err(ApiError::invalid(what).at(*other));
    }
    Ok(forms.pop().map(|(_, form)| form))
}

/// A schema: an object, or the text of one.
pub(crate) fn schema_of(name: &str, value: &Value) -> Result<Constraint, ApiError> {
    match value {
        Value::Object(_) | Value::Bool(true) => Ok(Constraint::JsonSchema(value.clone())),
        Value::String(text) => Constraint::json_schema(text).map_err(|what| ApiError::invalid(what).at(name)),
        other => Err(wrong(name, &other.to_string(), "a JSON schema")),
    }
}

fn any_object() -> Constraint {
    Constraint::JsonSchema(json!({"type": "object"}))
}

fn choice_of(name: &str, choices: &[Value]) -> Result<Constraint, ApiError> {
    let texts: Option<Vec<String>> =
        choices.iter().map(|choice| choice.as_str().map(|text| Value::from(text).to_string())).collect();
    let texts = texts.filter(|texts| !texts.is_empty());
    let texts =
        texts.ok_or_else(|| wrong(name, &Value::from(choices.to_vec()).to_string(), "a list of texts"))?;
    Ok(Constraint::Lark(format!("start: {}", texts.join(" | "))))
}

fn structured(outputs: &Map<String, Value>) -> Result<Constraint, ApiError> {
    let at = |name: &str| format!("structured_outputs.{name}");
    let mut given = outputs.iter().filter(|(_, value)| !value.is_null() && **value != Value::Bool(false));
    let (name, value) = given.next().ok_or_else(|| {
        let expected = "json, regex, choice, grammar or json_object";
        wrong("structured_outputs", "empty", expected)
    })?;
    if let Some((other, _)) = given.next() {
        return Err(wrong("structured_outputs", &format!("{name} and {other}"), "one form"));
    }
    match (name.as_str(), value) {
        ("json", schema) => schema_of(&at("json"), schema),
        ("json_object", _) => Ok(any_object()),
        ("regex", Value::String(regex)) => Ok(Constraint::Regex(regex.clone())),
        ("grammar", Value::String(text)) => Ok(Constraint::grammar(text)),
        ("choice", Value::Array(choices)) => choice_of(&at("choice"), choices),
        (name, value) => {
            let shown: String = value.to_string().chars().take(40).collect();
            Err(wrong(
                &at(name),
                &shown,
                "left out, or a value that suits one of json, regex, choice, grammar",
            ))
        }
    }
}

/// OpenAI's `response_format`, or the Responses API's `text.format`.
///
/// # Errors
/// Where it is another.
pub(crate) fn response_format(
    name: &str,
    format: &Map<String, Value>,
) -> Result<Option<Constraint>, ApiError> {
    let text = |key: &str| format.get(key).and_then(Value::as_str);
    let missing = |key: &str, expected: &str| {
        let place = format!("{name}.{key}");
        ApiError::invalid(format!("{place} was expected to be {expected}")).at(place)
    };
    let inner = format.get("json_schema").and_then(Value::as_object);
    // In json_schema, in itself (Responses), or beside the type (llama.cpp).
    let schema = inner.and_then(|inner| inner.get("schema")).or(format.get("schema"));
    match text("type") {
        None | Some("text") => Ok(None),
        Some("json_object") => match schema.filter(|schema| !schema.is_null()) {
            Some(schema) => schema_of(&format!("{name}.schema"), schema).map(Some),
            None => Ok(Some(any_object())),
        },
        Some("json_schema") => match schema {
            Some(schema) if schema.is_object() => Ok(Some(Constraint::JsonSchema(schema.clone()))),
            _ => Err(missing("json_schema.schema", "an object")),
        },
        Some("regex") => match text("regex").or(text("pattern")) {
            Some(regex) => Ok(Some(Constraint::Regex(regex.to_owned()))),
            None => Err(missing("regex", "a regular expression")),
        },
        Some("grammar") => match text("grammar") {
            Some(grammar) => Ok(Some(Constraint::grammar(grammar))),
            None => Err(missing("grammar", "a grammar")),
        },
        Some(kind) => Err(wrong(
            &format!("{name}.type"),
            &format!("{kind:?}"),
            "text, json_object, json_schema, grammar or regex",
        )),
    }
}

/// The prompts of a field that may be a text, a list of texts, ids, or a list of these.
///
/// # Errors
/// Where it is something else.
pub(crate) fn sources(
    name: &str,
    value: &Value,
    special: bool,
    around: bool,
) -> Result<Vec<Source>, ApiError> {
    let text = |text: &str| Source::Text { text: text.to_owned(), special, around };
    let ids = |values: &[Value]| -> Option<Source> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        values.iter().map(id).collect::<Option<Vec<u32>>>().map(Source::Ids)
    };
    let found = match value {
        Value::String(one) => Some(vec![text(one)]),
        Value::Array(list) if !list.is_empty() && list.iter().all(Value::is_number) => {
            ids(list).map(|one| vec![one])
        }
        Value::Array(list) => list
            .iter()
            .map(|item| match item {
                Value::String(one) => Some(text(one)),
                Value::Array(values) => ids(values),
                _ => None,
            })
            .collect(),
        _ => None,
    };
    let found = found.ok_or_else(|| {
        let shown: String = value.to_string().chars().take(60).collect();
        wrong(name, &shown, "a text, a list of texts, a list of token ids, or a list of such lists")
    })?;
    if found.is_empty() {
        return Err(ApiError::invalid(format!(
            "{name} is empty, where at least one text was expected: it has no tokens"
        ))
        .at(name));
    }
    Ok(found)
}
