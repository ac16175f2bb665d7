//! `/v1/completions` by its fields.

use herald::schedule::SchedulerOptions;
use herald_testing::{smollm2, tiny};
use serde_json::{Value, json};

use crate::{events, parsed, serve};

const PATH: &str = "/v1/completions";

#[test]
fn a_prompt_has_four_forms() {
    let served = serve(&tiny("llama"), SchedulerOptions::default());
    let tokenizer = served.scheduler.engine().tokenizer();
    let ids = |text: &str| tokenizer.encode_prompt(text, true).expect("tokens");
    let ask = |prompt: Value| {
        let (status, body) = served.post(PATH, &json!({"prompt": prompt, "temperature": 0, "max_tokens": 5}));
        assert_eq!(status, 200, "{body}");
        let choices = parsed(&body)["choices"].as_array().expect("choices").clone();
        assert!(choices.iter().enumerate().all(|(index, choice)| choice["index"] == index), "{body}");
        choices.iter().map(|choice| choice["text"].as_str().expect("a text").to_owned()).collect::<Vec<_>>()
    };
    let (one, other) = (ask(json!("hello world")), ask(json!("once upon")));
    assert_eq!(ask(json!(["hello world"])), one);
    assert_eq!(ask(json!(ids("hello world"))), one);
    assert_eq!(ask(json!(["hello world", "once upon"])), [one.clone(), other.clone()].concat());
    assert_eq!(ask(json!([ids("hello world"), ids("once upon")])), [one, other].concat());
    served.wait_until_idle();
}

#[test]
fn null_is_not_given() {
    let served = serve(&tiny("llama"), SchedulerOptions::default());
    let mut body = json!({"prompt": "hello", "max_tokens": 2, "temperature": 0});
    for name in [
        "stream",
        "stream_options",
        "logit_bias",
        "user",
        "echo",
        "n",
        "best_of",
        "suffix",
        "logprobs",
        "stop",
        "seed",
    ] {
        body[name] = Value::Null;
    }
    let (status, said) = served.post(PATH, &body);
    assert_eq!(status, 200, "{said}");
    // -1 is no limit, all tokens, any seed.
    body["top_k"] = json!(-1);
    body["seed"] = json!(-1);
    body["repeat_last_n"] = json!(-1);
    let (status, said) = served.post(PATH, &body);
    assert_eq!(status, 200, "{said}");
}

/// The log-probabilities of a prompt are those that the same tokens have when the model is asked for the next.
#[test]
fn echo_and_logprobs() {
    let served = serve(&tiny("llama"), SchedulerOptions::default());
    let ask = |echo: bool, max_tokens: usize, prompt: &Value| {
        let body = json!({"prompt": prompt, "temperature": 0, "max_tokens": max_tokens, "logprobs": 3, "echo": echo});
        let (status, body) = served.post(PATH, &body);
        assert_eq!(status, 200, "{body}");
        parsed(&body)["choices"][0].clone()
    };
    let tokenizer = served.scheduler.engine().tokenizer();
    let mut ids = tokenizer.encode_prompt("hello world", true).expect("tokens");
    let answered = ask(false, 1, &json!(ids));
    let first = &answered["logprobs"];
    assert_eq!(first["tokens"].as_array().map(Vec::len), Some(1));
    let best = first["top_logprobs"][0].as_object().expect("the likeliest");
    assert!(
        best.len() >= 3
            && best.values().all(|logprob| logprob.as_f64().is_some_and(|logprob| logprob <= 0.0))
    );
    // The token that was chosen, now as part of the prompt.
    let engine = served.scheduler.engine();
    let mut sequence = engine.sequence().expect("a sequence");
    let mut last = Vec::new();
    engine.logits(&mut sequence, &ids, &mut |logits| last = logits.to_vec()).expect("logits");
    let best = last.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(id, _)| id as u32);
    let chosen = best.expect("a vocabulary");
    ids.push(chosen);
    let echoed = ask(true, 0, &json!(ids));
    let logprobs = echoed["logprobs"]["token_logprobs"].as_array().expect("numbers");
    assert_eq!((logprobs.len(), &logprobs[0]), (ids.len(), &Value::Null));
    let (again, before) = (logprobs[ids.len() - 1].as_f64(), first["token_logprobs"][0].as_f64());
    assert!(again.zip(before).is_some_and(|(a, b)| (a - b).abs() < 1e-4), "{again:?} {before:?}");
    assert_eq!(echoed["finish_reason"], "length");
}

#[test]
fn several_answers_and_the_best() {
    let served = serve(&tiny("llama"), SchedulerOptions::default());
    let ask = |body: &Value| {
        let (status, said) = served.post(PATH, body);
        assert_eq!(status, 200, "{said}");
        parsed(&said)
    };
    let body = json!({"prompt": ["hello", "once"], "max_tokens": 6, "temperature": 1.5, "seed": 3, "n": 3});
    let answer = ask(&body);
    let texts: Vec<&str> = answer["choices"]
        .as_array()
        .expect("choices")
        .iter()
        .filter_map(|choice| choice["text"].as_str())
        .collect();
    assert_eq!(texts.len(), 6);
    assert!(texts[0] != texts[1] || texts[1] != texts[2], "each answer has a seed of its own: {texts:?}");
    assert_eq!(ask(&body)["choices"], answer["choices"], "seeds repeat");
    let best = ask(
        &json!({"prompt": "hello", "max_tokens": 6, "temperature": 1.5, "seed": 3, "n": 1, "best_of": 4, "logprobs": 0}),
    );
    assert_eq!(best["choices"].as_array().map(Vec::len), Some(1));
    assert_eq!(best["choices"][0]["index"], 0);
    let (status, said) = served.post(PATH, &json!({"prompt": "a", "n": 3, "best_of": 2}));
    assert_eq!((status, &parsed(&said)["error"]["param"]), (400, &json!("best_of")), "{said}");
}

#[test]
fn where_answers_end() {
    let served = serve(&tiny("llama"), SchedulerOptions::default());
    let engine = served.scheduler.engine();
    let ask = |fields: Value| {
        let mut body =
            json!({"prompt": "hello world", "temperature": 0, "max_tokens": 8, "ignore_eos": true});
        for (name, value) in fields.as_object().expect("fields") {
            body[name] = value.clone();
        }
        let (status, said) = served.post(PATH, &body);
        assert_eq!(status, 200, "{said}");
        parsed(&said)
    };
    let whole = ask(json!({}));
    assert_eq!(
        (&whole["usage"]["completion_tokens"], &whole["choices"][0]["finish_reason"]),
        (&json!(8), &json!("length"))
    );
    // The first token of that answer, as one that ends it.
    let first = crate::alone(engine, "hello world", 1);
    let id = engine.tokenizer().encode(&first, false).expect("tokens");
    if let [id] = id[..] {
        let ended = ask(json!({"stop_token_ids": [id]}));
        assert_eq!(ended["choices"][0]["finish_reason"], "stop");
        assert!(ended["usage"]["completion_tokens"].as_u64() < Some(8));
        let later = ask(json!({"stop_token_ids": [id], "min_tokens": 4}));
        assert!(later["usage"]["completion_tokens"].as_u64() >= Some(4), "{later}");
    }
    let stopped = ask(json!({"stop": first.trim()}));
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
}

#[test]
fn forms_by_everybodys_names() {
    let served = serve(&smollm2(), SchedulerOptions::default());
    let schema = json!({"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": false});
    let yes_or_no = ["yes", "no"];
    let fits = |text: &str| serde_json::from_str::<Value>(text).is_ok_and(|value| value["a"].is_boolean());
    for (name, form) in [
        ("response_format", json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})),
        ("response_format", json!({"type": "json_object", "schema": schema})),
        ("json_schema", schema.clone()),
        ("guided_json", schema.clone()),
        ("guided_json", schema.to_string().into()),
        ("structured_outputs", json!({"json": schema})),
    ] {
        let mut body = json!({"prompt": "As JSON: ", "max_tokens": 30, "temperature": 1, "seed": 1});
        body[name] = form;
        let (status, said) = served.post(PATH, &body);
        let text = parsed(&said)["choices"][0]["text"].as_str().map(str::to_owned);
        assert!(status == 200 && text.is_some_and(|text| fits(&text)), "{name}: {said}");
    }
    for (name, form) in [
        ("grammar", json!("root ::= \"yes\" | \"no\"")),
        ("grammar", json!("start: \"yes\" | \"no\"")),
        ("guided_grammar", json!("root ::= answer # one of two\nanswer ::= \"yes\"\n  | \"no\"")),
        ("guided_choice", json!(yes_or_no)),
        ("guided_regex", json!("yes|no")),
        ("regex", json!("yes|no")),
        ("structured_outputs", json!({"choice": yes_or_no})),
        ("response_format", json!({"type": "regex", "pattern": "yes|no"})),
        ("response_format", json!({"type": "grammar", "grammar": "root ::= \"yes\" | \"no\""})),
    ] {
        let mut body = json!({"prompt": "Is the sky blue? ", "max_tokens": 10, "temperature": 1, "seed": 1});
        body[name] = form;
        let (status, said) = served.post(PATH, &body);
        let text = parsed(&said)["choices"][0]["text"].as_str().map(str::to_owned);
        assert!(
            status == 200 && text.is_some_and(|text| yes_or_no.contains(&text.as_str())),
            "{name}: {said}"
        );
    }
    // A bracket within a bracket is no regular language.
    let body = json!({"prompt": "((", "grammar": "root ::= \"(\" root \")\" | [a-c]{1,2}", "max_tokens": 12, "temperature": 1});
    let (status, said) = served.post(PATH, &body);
    let text = parsed(&said)["choices"][0]["text"].as_str().map(str::to_owned).expect("a text");
    assert_eq!((status, text.matches('(').count()), (200, text.matches(')').count()), "{said}");
}

#[test]
fn what_is_not_served_is_refused_by_name() {
    let served = serve(&tiny("llama"), SchedulerOptions::default());
    for (fields, param) in [
        (json!({"use_beam_search": true}), "use_beam_search"),
        (json!({"prompt_logprobs": 1}), "prompt_logprobs"),
        (json!({"max_token": 5}), "max_token"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"logprobs": 101}), "logprobs"),
        (json!({"stream_options": {"x": true}}), "stream_options.x"),
        (json!({"response_format": {"type": "xml"}}), "response_format.type"),
        (json!({"regex": "a", "grammar": "root ::= \"a\""}), "grammar"),
        (json!({"logit_bias": {"5": "x"}}), "logit_bias"),
        (json!({"min_tokens": -1}), "min_tokens"),
        (json!({"structured_outputs": {"xml": "a"}}), "structured_outputs.xml"),
    ] {
        let mut body = json!({"prompt": "a", "max_tokens": 1});
        for (name, value) in fields.as_object().expect("fields") {
            body[name] = value.clone();
        }
        let (status, said) = served.post(PATH, &body);
        assert_eq!((status, &parsed(&said)["error"]["param"]), (400, &json!(param)), "{body}: {said}");
    }
}

#[test]
fn a_stream_of_two_prompts_is_the_two_answers() {
    let served = serve(&tiny("llama"), SchedulerOptions::default());
    let mut body =
        json!({"prompt": ["hello world", "once upon"], "temperature": 0, "max_tokens": 5, "echo": true});
    let (_, whole) = served.post(PATH, &body);
    let whole = parsed(&whole);
    body["stream"] = true.into();
    let (status, streamed) = served.post(PATH, &body);
    assert_eq!(status, 200, "{streamed}");
    let mut texts = [String::new(), String::new()];
    for event in events(&streamed) {
        let choice = &event["choices"][0];
        let index = choice["index"].as_u64().expect("an index") as usize;
        texts[index].push_str(choice["text"].as_str().expect("a text"));
    }
    for (index, text) in texts.iter().enumerate() {
        assert_eq!(whole["choices"][index]["text"], text.as_str());
    }
}
