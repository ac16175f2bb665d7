//! Answers as the families' models write them, taken apart, however they come in pieces.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Choice, Delta, Form, Reader, Syntax, Tool, ToolUse, calls};
use crate::conversation::ChatModel;
use herald::Constraint;
use herald::chat::ChatTemplate;

/// What an answer was taken apart into.
#[derive(Debug, Default, PartialEq)]
struct Taken {
    text: String,
    thoughts: String,
    calls: Vec<(String, Value)>,
}

fn tools() -> Arc<[Tool]> {
    let weather = json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]});
    Arc::from([Tool::new("weather", None, Some(&weather)), Tool::new("now", None, None)])
}

fn read(form: &Form, thinks: bool, pieces: &[&str]) -> Taken {
    let mut reader = Reader::new(Some(Arc::new(form.clone())), tools(), thinks);
    let mut deltas = Vec::new();
    for piece in pieces {
        reader.push(piece, &mut deltas);
    }
    reader.finish(&mut deltas);
    let mut taken = Taken::default();
    let mut arguments: Vec<String> = Vec::new();
    for delta in deltas {
        match delta {
            Delta::Text(text) => taken.text.push_str(&text),
            Delta::Thought(text) => taken.thoughts.push_str(&text),
            Delta::Call(index, name) => {
                assert_eq!(index, taken.calls.len());
                taken.calls.push((name, Value::Null));
                arguments.push(String::new());
            }
            Delta::Arguments(index, text) => arguments[index].push_str(&text),
        }
    }
    for (call, arguments) in taken.calls.iter_mut().zip(arguments) {
        call.1 = serde_json::from_str(&arguments).unwrap_or(Value::String(arguments));
    }
    taken
}

/// A family: a part of its templates, and an answer that says "Wait.", calls weather and, where it can, now.
fn families() -> Vec<(&'static str, &'static str, &'static str)> {
    vec![
        (
            "hermes, qwen 2.5 and 3, granite 4",
            "<tool_call>",
            "Wait.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris }\", \"days\": 3}}\n</tool_call>\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>",
        ),
        (
            "qwen 3.5",
            "<function= <parameter= </parameter>",
            "Wait.\n\n<tool_call>\n<function=weather>\n<parameter=city>\nParis }\n</parameter>\n<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=now>\n</function>\n</tool_call>",
        ),
        (
            "mistral 7b v0.3",
            "[TOOL_CALLS]",
            "Wait.[TOOL_CALLS] [{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris }\", \"days\": 3}}, {\"name\": \"now\", \"arguments\": {}}]",
        ),
        (
            "mistral small 3.2",
            "[TOOL_CALLS] [ARGS]",
            "Wait.[TOOL_CALLS]weather[CALL_ID]abc[ARGS]{\"city\": \"Paris }\", \"days\": 3}[TOOL_CALLS]now[ARGS]{}",
        ),
        (
            "granite 3",
            "<|tool_call|>",
            "Wait.<|tool_call|>[{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris }\", \"days\": 3}}, {\"name\": \"now\", \"arguments\": {}}]",
        ),
        (
            "deepseek 3",
            "<｜tool▁calls▁begin｜> ```json",
            "Wait.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{\"city\": \"Paris }\", \"days\": 3}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ),
        (
            "deepseek 3.1",
            "<｜tool▁calls▁begin｜>",
            "Wait.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\": \"Paris }\", \"days\": 3}<｜tool▁call▁end｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ),
        (
            "glm 4.5",
            "<arg_key>",
            "Wait.\n<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Paris }</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>\n<tool_call>now\n</tool_call>",
        ),
        (
            "lfm2",
            "<|tool_list_start|>",
            "Wait.<|tool_call_start|>[weather(city=\"Paris }\", days=3), now()]<|tool_call_end|>",
        ),
        (
            "gemma 4",
            "<|tool_call>call:",
            "Wait.<|tool_call>call:weather{city:<|\"|>Paris }<|\"|>,days:3}<tool_call|><|tool_call>call:now{}<tool_call|>",
        ),
        (
            "functiongemma",
            "<start_function_call>",
            "Wait.<start_function_call>call:weather{city:<escape>Paris }<escape>,days:3}<end_function_call><start_function_call>call:now{}<end_function_call>",
        ),
        (
            "gpt-oss",
            "<|channel|> <|message|>",
            "<|channel|>commentary<|message|>Wait.<|end|><|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{\"city\": \"Paris }\", \"days\": 3}<|call|><|start|>assistant to=functions.now<|channel|>commentary json<|message|>{}",
        ),
        (
            "llama 3 with functions",
            "<function=",
            "Wait.<function=weather>{\"city\": \"Paris }\", \"days\": 3}</function><function=now>{}</function>",
        ),
        (
            "command r7b",
            "<|START_ACTION|>",
            "Wait.<|START_ACTION|>[{\"tool_call_id\": \"0\", \"tool_name\": \"weather\", \"parameters\": {\"city\": \"Paris }\", \"days\": 3}}, {\"tool_call_id\": \"1\", \"tool_name\": \"now\", \"parameters\": {}}]<|END_ACTION|>",
        ),
    ]
}

fn expected() -> Taken {
    Taken {
        text: "Wait.".to_owned(),
        thoughts: String::new(),
        calls: vec![
            ("weather".to_owned(), json!({"city": "Paris }", "days": 3})),
            ("now".to_owned(), json!({})),
        ],
    }
}

#[test]
fn each_familys_calls() {
    for (name, source, answer) in families() {
        let form = Form::of_source(source).unwrap_or_else(|| panic!("{name} has no form"));
        assert_eq!(read(&form, false, &[answer]), expected(), "{name}");
        // A character at a time.
        let characters: Vec<String> = answer.chars().map(String::from).collect();
        let characters: Vec<&str> = characters.iter().map(String::as_str).collect();
        assert_eq!(read(&form, false, &characters), expected(), "{name}, by characters");
    }
}

#[test]
fn llama_3_answers_with_an_object_or_with_text() {
    let form = Form::of_source("<|python_tag|> <|start_header_id|>").unwrap();
    let call = "{\"name\": \"weather\", \"parameters\": {\"city\": \"Paris\"}}";
    let calls = vec![("weather".to_owned(), json!({"city": "Paris"}))];
    assert_eq!(read(&form, false, &[call]), Taken { calls, ..Taken::default() });
    for text in ["Hello.", "{\"other\": 1}", "{", "It is {\"name\": 1}"] {
        assert_eq!(read(&form, false, &[text]), Taken { text: text.to_owned(), ..Taken::default() });
    }
}

#[test]
fn thoughts_before_calls() {
    let form = Form::of_source("<tool_call> <think> </think>").unwrap();
    let answer = "<think>\nHm, <tool_call>?\n</think>\n\nWait.\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";
    let taken = Taken {
        text: "Wait.".to_owned(),
        thoughts: "Hm, <tool_call>?".to_owned(),
        calls: vec![("now".to_owned(), json!({}))],
    };
    assert_eq!(read(&form, false, &[answer]), taken);
    assert_eq!(read(&form, true, &[&answer["<think>\n".len()..]]), taken);
    let cut = Taken { thoughts: "Hm".to_owned(), ..Taken::default() };
    assert_eq!(read(&form, true, &["Hm ", "\n"]), cut);
}

/// What can't be a call after all is text, and nothing of it is lost.
#[test]
fn what_is_no_call_is_text() {
    for (name, source, _) in families() {
        let form = Form::of_source(source).unwrap();
        if matches!(form.syntax, Syntax::Harmony) {
            continue;
        }
        let text = format!("a {} nothing", form.trigger());
        let taken = read(&form, false, &[&text]);
        assert!(taken.text.starts_with('a') && taken.text.ends_with("nothing"), "{name}: {taken:?}");
        assert!(taken.calls.is_empty(), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_are_taken_apart_as_the_whole(family in 0_usize..14, cuts in prop::collection::vec(0_usize..300, 0..12)) {
        let (name, source, answer) = families()[family];
        let form = Form::of_source(source).unwrap();
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| answer.is_char_boundary(*cut)).collect();
        cuts.extend([0, answer.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&str> = cuts.windows(2).map(|cut| &answer[cut[0]..cut[1]]).collect();
        prop_assert_eq!(read(&form, false, &pieces), expected(), "{}", name);
    }

    /// Whatever comes, nothing panics, and without marks all of it is text.
    #[test]
    fn any_text_is_taken_apart(family in 0_usize..14, text in "(<tool_call>|<function=|<parameter=|</|\\[TOOL_CALLS\\]|\\[ARGS\\]|<arg_key>|call:|[{}\":,a\\n<|>é\\]\\[]){0,20}") {
        let (_, source, _) = families()[family];
        let form = Form::of_source(source).unwrap();
        read(&form, false, &[&text]);
        read(&Form { thoughts: Some(["<think>".to_owned(), "</think>".to_owned()]), ..form }, true, &[&text]);
    }
}

/// A template that no list knows: what it writes for a call is its form.
#[test]
fn a_templates_own_form_is_found() {
    let source = "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}[{{ m.role }}]{{ m.content }}\
        {% if m.tool_calls %}{% for c in m.tool_calls %}<<CALL>>{\"name\": \"{{ c.function.name }}\", \"arguments\": {{ c.function.arguments | tojson }}}<<DONE>>{% endfor %}{% endif %}\
        [end]{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
    let template = ChatTemplate::new(source, "", "").unwrap();
    let model = ChatModel::new(template, source);
    assert_eq!(model.form.call, ["<<CALL>>", "<<DONE>>"]);
    let answer = "<<CALL>>{\"name\": \"now\", \"arguments\": {}}<<DONE>>";
    assert_eq!(read(&model.form, false, &[answer]).calls, [("now".to_owned(), json!({}))]);
}

/// Each family's grammar, as a compiler of its own takes it, lets its example pass.
#[test]
fn grammars_are_written_for_each_family() {
    for (name, source, _) in families() {
        let form = Form::of_source(source).unwrap();
        for choice in [Choice::Auto, Choice::Required, Choice::Named(vec!["now".to_owned()])] {
            let uses = ToolUse { tools: tools().to_vec(), choice: choice.clone(), parallel: true };
            let special = |text: &str| (text == "<|tool_call|>").then_some(7);
            let grammar = calls(&form, &uses, false, &special);
            let is_open = form.syntax == Syntax::Harmony && choice == Choice::Auto;
            match grammar {
                Some(Constraint::Lark(text)) => {
                    assert!(text.starts_with("start: ") && !is_open, "{name}: {text}")
                }
                other => assert!(other.is_none() && is_open, "{name}: {other:?}"),
            }
        }
    }
}

/// A small model at random, kept to each family's grammar, calls what it must, with arguments of the schema.
#[test]
fn constrained_calls_fit_their_schema() {
    let engine = herald_testing::load_smollm2();
    let schema = json!({"type": "object", "properties": {
        "city": {"type": "string", "maxLength": 10},
        "unit": {"type": "string", "enum": ["celsius", "kelvin"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    }, "required": ["city", "unit", "days"], "additionalProperties": false});
    let tool = Tool::new("weather", None, Some(&schema));
    let uses = ToolUse { tools: vec![tool.clone()], choice: Choice::Required, parallel: false };
    let prompt = engine.tokenizer().encode_prompt("The weather: ", true).expect("tokens");
    for (name, source, _) in families() {
        let form = Form::of_source(source).unwrap();
        // What are special tokens in other models is text in this one.
        let options = herald::GenerateOptions {
            max_tokens: Some(160),
            constraint: calls(&form, &uses, false, &|_| None),
            sampler: herald::sampler::SamplerConfig {
                temperature: 1.0,
                top_k: 40,
                seed: Some(3),
                ..herald::sampler::SamplerConfig::default()
            },
            ..herald::GenerateOptions::default()
        };
        let mut sequence = engine.sequence().expect("a sequence");
        let generated = engine
            .generate(&mut sequence, &prompt, &options, &mut || true, &mut |_| true)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut reader = Reader::new(Some(Arc::new(form)), Arc::from([tool.clone()]), false);
        let mut deltas = Vec::new();
        reader.push(&generated.text, &mut deltas);
        reader.finish(&mut deltas);
        let mut arguments = String::new();
        for delta in &deltas {
            match delta {
                Delta::Call(_, called) => assert_eq!(called, "weather", "{name}"),
                Delta::Arguments(_, text) => arguments.push_str(text),
                Delta::Thought(_) => {}
                Delta::Text(text) => panic!("{name}: {text:?} of {:?}", generated.text),
            }
        }
        let given: Value = serde_json::from_str(&arguments)
            .unwrap_or_else(|error| panic!("{name}: {error} in {arguments:?} of {:?}", generated.text));
        assert!(given["city"].is_string(), "{name}: {given}");
        assert!(["celsius", "kelvin"].iter().any(|unit| given["unit"] == *unit), "{name}: {given}");
        assert!(given["days"].as_i64().is_some_and(|days| (1..=9).contains(&days)), "{name}: {given}");
    }
}
