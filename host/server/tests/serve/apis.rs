//! The other APIs: Responses, embeddings, Anthropic's, Ollama's and llama.cpp's.

use std::io::Read;

use herald::schedule::SchedulerOptions;
use herald_testing::{smollm2, tiny};
use serde_json::{Value, json};

use crate::{alone, parsed, serve};

fn question() -> Value {
    json!([{"role": "user", "content": "What is gravity?"}])
}

/// The data of a stream's events, and their names.
fn named_events(body: &str) -> Vec<(String, Value)> {
    let event = |text: &str| {
        let mut lines = text.lines();
        let name = lines.next().and_then(|line| line.strip_prefix("event: ")).expect("a name").to_owned();
        (name, parsed(lines.next().and_then(|line| line.strip_prefix("data: ")).expect("data")))
    };
    body.split("\n\n").filter(|text| !text.trim().is_empty()).map(event).collect()
}

#[test]
fn every_api_gives_the_same_answer() {
    let served = serve(&smollm2(), SchedulerOptions::default());
    let (_, said) = served
        .post("/v1/chat/completions", &json!({"messages": question(), "max_tokens": 8, "temperature": 0}));
    let expected = parsed(&said)["choices"][0]["message"]["content"].as_str().expect("a text").to_owned();

    let (status, said) =
        served.post("/v1/responses", &json!({"input": question(), "max_output_tokens": 8, "temperature": 0}));
    let response = parsed(&said);
    assert_eq!((status, &response["status"]), (200, &json!("incomplete")), "{said}");
    assert_eq!(response["output"][0]["content"][0]["text"], expected.as_str());
    let body = json!({"input": "What is gravity?", "max_output_tokens": 8, "temperature": 0, "stream": true});
    let streamed = named_events(&served.post("/v1/responses", &body).1);
    let numbers: Vec<u64> =
        streamed.iter().filter_map(|(_, value)| value["sequence_number"].as_u64()).collect();
    assert_eq!(numbers, (0..streamed.len() as u64).collect::<Vec<_>>());
    let of = |events: &[(String, Value)], name: &str| -> String {
        events
            .iter()
            .filter(|(other, _)| other == name)
            .filter_map(|(_, value)| value["delta"].as_str())
            .collect()
    };
    assert_eq!(of(&streamed, "response.output_text.delta"), expected);
    let (last, value) = streamed.last().expect("events");
    assert_eq!(
        (last.as_str(), &value["response"]["output"][0]["content"][0]["text"]),
        ("response.incomplete", &json!(expected))
    );

    let body = json!({"messages": question(), "max_tokens": 8, "temperature": 0});
    let (status, said) = served.post("/v1/messages", &body);
    let message = parsed(&said);
    assert_eq!(
        (status, &message["stop_reason"], &message["content"][0]["text"]),
        (200, &json!("max_tokens"), &json!(expected))
    );
    let mut streaming = body.clone();
    streaming["stream"] = true.into();
    let streamed = named_events(&served.post("/v1/messages", &streaming).1);
    let names: Vec<&str> = streamed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((names[0], names[names.len() - 1]), ("message_start", "message_stop"));
    let text: String = streamed.iter().filter_map(|(_, value)| value["delta"]["text"].as_str()).collect();
    assert_eq!(text, expected);
    let (_, said) = served.post("/v1/messages/count_tokens", &json!({"messages": question()}));
    let usage = &message["usage"];
    let prompt =
        usage["input_tokens"].as_u64().zip(usage["cache_read_input_tokens"].as_u64()).map(|(a, b)| a + b);
    assert_eq!(parsed(&said)["input_tokens"].as_u64(), prompt);

    let body =
        json!({"messages": question(), "options": {"num_predict": 8, "temperature": 0}, "stream": false});
    let (status, said) = served.post("/api/chat", &body);
    let line = parsed(&said);
    assert_eq!(
        (status, &line["message"]["content"], &line["done_reason"]),
        (200, &json!(expected), &json!("length"))
    );
    let (_, said) = served.post(
        "/api/generate",
        &json!({"prompt": "What is gravity?", "options": {"num_predict": 8, "temperature": 0}}),
    );
    let lines: Vec<Value> = said.lines().map(parsed).collect();
    let text: String = lines.iter().filter_map(|line| line["response"].as_str()).collect();
    assert_eq!((text, &lines[lines.len() - 1]["done"]), (expected, &json!(true)));
    served.wait_until_idle();
}

#[test]
fn tools_by_each_api() {
    let served = serve(&smollm2(), SchedulerOptions::default());
    let schema = json!({"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"], "additionalProperties": false});
    let say = "Turn the lamp on.";
    let tool = json!({"name": "lamp", "description": "A lamp.", "input_schema": schema});
    let body = json!({"messages": [{"role": "user", "content": say}], "tools": [tool], "max_tokens": 60,
        "tool_choice": {"type": "tool", "name": "lamp", "disable_parallel_tool_use": true}});
    let (status, said) = served.post("/v1/messages", &body);
    let message = parsed(&said);
    assert_eq!((status, &message["stop_reason"]), (200, &json!("tool_use")), "{said}");
    let block = &message["content"][0];
    assert!(block["type"] == "tool_use" && block["input"]["on"].is_boolean(), "{said}");
    let result = json!([{"type": "tool_result", "tool_use_id": block["id"], "content": [{"type": "text", "text": "done"}]}]);
    let turns = json!([{"role": "user", "content": say}, {"role": "assistant", "content": message["content"]}, {"role": "user", "content": result}]);
    let (status, said) =
        served.post("/v1/messages", &json!({"messages": turns, "tools": [tool], "max_tokens": 4}));
    assert_eq!(status, 200, "{said}");
    let mut streaming = body;
    streaming["stream"] = true.into();
    let streamed = named_events(&served.post("/v1/messages", &streaming).1);
    let json: String =
        streamed.iter().filter_map(|(_, value)| value["delta"]["partial_json"].as_str()).collect();
    assert!(parsed(&json)["on"].is_boolean(), "{json}");

    let tool = json!({"type": "function", "name": "lamp", "parameters": schema});
    let body = json!({"input": say, "tools": [tool], "tool_choice": "required", "parallel_tool_calls": false, "max_output_tokens": 60});
    let (status, said) = served.post("/v1/responses", &body);
    let call = parsed(&said)["output"][0].clone();
    assert_eq!(
        (status, &call["type"], &call["name"]),
        (200, &json!("function_call"), &json!("lamp")),
        "{said}"
    );
    assert!(parsed(call["arguments"].as_str().expect("a text"))["on"].is_boolean(), "{said}");
    let output = json!({"type": "function_call_output", "call_id": call["call_id"], "output": "done"});
    let (status, said) = served.post("/v1/responses", &json!({"input": [{"role": "user", "content": say}, call, output], "tools": [tool], "max_output_tokens": 4}));
    assert_eq!(status, 200, "{said}");
}

#[test]
fn embeddings_are_the_engines() {
    let served = serve(&tiny("llama"), SchedulerOptions::default());
    let options = herald::EmbedOptions { normalize: true, ..herald::EmbedOptions::default() };
    let expected =
        served.scheduler.engine().embed_texts(&["hello world", "once"], &options).expect("embeddings");
    let vector = |value: &Value| -> Vec<f32> {
        value.as_array().expect("numbers").iter().filter_map(|x| x.as_f64().map(|x| x as f32)).collect()
    };
    let (status, said) =
        served.post("/v1/embeddings", &json!({"input": ["hello world", "once"], "model": "x", "user": null}));
    let answer = parsed(&said);
    assert_eq!(status, 200, "{said}");
    // The engine computed both in one pass, the server each in its own: matmuls of floats round otherwise.
    let near = |found: &[f32], expected: &[f32]| {
        found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5)
    };
    for (index, expected) in expected.iter().enumerate() {
        let found = vector(&answer["data"][index]["embedding"]);
        assert!(near(&found, expected), "{found:?} {expected:?}");
    }
    let (_, said) = served.post("/api/embed", &json!({"input": ["hello world", "once"]}));
    assert!(near(&vector(&parsed(&said)["embeddings"][1]), &expected[1]), "{said}");
    let (_, said) = served.post("/v1/embeddings", &json!({"input": "once", "dimensions": 4}));
    let short = vector(&parsed(&said)["data"][0]["embedding"]);
    assert!(short.len() == 4 && (short.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
    for (body, param) in [
        (json!({"input": []}), "input"),
        (json!({}), "input"),
        (json!({"input": "a", "dimensions": 100_000}), "dimensions"),
        (json!({"input": "a", "encoding_format": "hex"}), "encoding_format"),
    ] {
        let (status, said) = served.post("/v1/embeddings", &body);
        assert_eq!((status, &parsed(&said)["error"]["param"]), (400, &json!(param)), "{said}");
    }
}

#[test]
fn llama_cpps_own_paths() {
    let served = serve(&tiny("llama"), SchedulerOptions::default());
    let engine = served.scheduler.engine();
    let expected = alone(engine, "hello world", 6);
    let body = json!({"prompt": "hello world", "n_predict": 6, "temperature": 0, "cache_prompt": true, "n_probs": 2, "return_tokens": true});
    let (status, said) = served.post("/completion", &body);
    let answer = parsed(&said);
    assert_eq!(
        (status, &answer["content"], &answer["stop"]),
        (200, &json!(expected), &json!(true)),
        "{said}"
    );
    assert_eq!(
        answer["completion_probabilities"].as_array().map(Vec::len),
        answer["tokens_predicted"].as_u64().map(|n| n as usize)
    );
    let mut streaming = body;
    streaming["stream"] = true.into();
    let (_, said) = served.post("/completion", &streaming);
    let text: String = said
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter_map(|data| parsed(data)["content"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(text, expected);

    let ids = engine.tokenizer().encode("hello world", false).expect("tokens");
    let (_, said) = served.post("/tokenize", &json!({"content": "hello world"}));
    assert_eq!(parsed(&said)["tokens"], json!(ids));
    let (_, said) = served.post("/tokenize", &json!({"content": "hello world", "with_pieces": true}));
    assert_eq!(parsed(&said)["tokens"][0]["id"], json!(ids[0]));
    let (_, said) = served.post("/detokenize", &json!({"tokens": ids}));
    assert_eq!(parsed(&said)["content"].as_str().map(str::trim), Some("hello world"));
    let (status, said) = served.post("/detokenize", &json!({"tokens": [1_000_000]}));
    assert_eq!(status, 400, "{said}");
    assert_eq!(parsed(&served.get("/props").1)["default_generation_settings"]["n_ctx"], engine.context());
    assert_eq!(parsed(&served.get("/slots").1).as_array().map(Vec::len), Some(4));
    let (status, said) = served.post("/infill", &json!({"input_prefix": "a", "input_suffix": "b"}));
    assert!(status == 400 && said.contains("can't fill in"), "{said}");
}

#[test]
fn errors_have_each_apis_form() {
    let served = serve(&tiny("llama"), SchedulerOptions::default());
    let (status, said) = served.post("/v1/messages", &json!({"messages": [], "max_tokens": 1}));
    assert_eq!(
        (status, &parsed(&said)["type"], &parsed(&said)["error"]["type"]),
        (400, &json!("error"), &json!("invalid_request_error"))
    );
    let (status, said) = served.post("/api/chat", &json!({"messages": 3}));
    assert!(status == 400 && parsed(&said)["error"].is_string(), "{said}");
    // Also where no handler is reached.
    let (status, said) = served.get("/v1/messages");
    assert_eq!((status, &parsed(&said)["type"]), (405, &json!("error")), "{said}");
    let (status, said) = served.get("/api/nothing");
    assert!(status == 404 && parsed(&said)["error"].is_string(), "{said}");
    let long = json!({"prompt": vec![5; 4_400], "max_tokens": 1});
    let (status, said) = served.post("/v1/completions", &long);
    assert_eq!((status, &parsed(&said)["error"]["code"]), (400, &json!("context_length_exceeded")), "{said}");
    for path in ["/api/tags", "/api/version", "/api/ps"] {
        assert_eq!(served.get(path).0, 200);
    }
    assert_eq!(served.post("/api/show", &json!({"model": "x"})).0, 200);
}

/// A stream's status can't be taken back once it has begun.
#[test]
fn a_model_that_writes_no_text_is_refused_before_a_stream_begins() {
    let served = serve(&tiny("bert"), SchedulerOptions::default());
    for path in ["/v1/completions", "/completion"] {
        let (status, said) = served.post(path, &json!({"prompt": "a", "stream": true}));
        assert!(status == 400 && said.contains("embeddings"), "{path}: {said}");
    }
}

#[test]
fn fields_that_llama_cpps_clients_choose_are_given_alone() {
    let served = serve(&tiny("llama"), SchedulerOptions::default());
    let body =
        json!({"prompt": "a", "n_predict": 2, "response_fields": ["content", "timings/prompt_n", "none"]});
    let said = parsed(&served.post("/completion", &body).1);
    let names: Vec<&String> = said.as_object().expect("an object").keys().collect();
    assert_eq!(names, ["content", "timings/prompt_n"], "{said}");
    // What is told of the seed gives the same answer again.
    let told =
        parsed(&served.post("/completion", &json!({"prompt": "a", "n_predict": 8, "temperature": 1})).1);
    let seed = &told["generation_settings"]["seed"];
    let again = json!({"prompt": "a", "n_predict": 8, "temperature": 1, "seed": seed});
    assert_eq!(parsed(&served.post("/completion", &again).1)["content"], told["content"], "{told}");
}

#[test]
fn the_description_has_every_path_and_field() {
    let served = serve(&tiny("llama"), SchedulerOptions::default());
    let description = parsed(&served.get("/openapi.json").1);
    for endpoint in herald_server::endpoints() {
        let path = endpoint.path.replace("NAME", "{NAME}");
        assert!(description["paths"][path][endpoint.method.to_lowercase()].is_object(), "{}", endpoint.path);
    }
    let chat = &description["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]
        ["schema"];
    assert!(chat["properties"]["tools"]["description"].is_string());
}

/// Compression asks a stream again after its end.
#[test]
fn a_compressed_stream_ends_well() {
    let served = serve(&tiny("llama"), SchedulerOptions::default());
    let body = json!({"messages": question(), "options": {"num_predict": 8}}).to_string();
    let headers = "Accept-Encoding: gzip\r\nContent-Type: application/json\r\n";
    let mut answer = Vec::new();
    served.open("POST", "/api/chat", headers, &body).read_to_end(&mut answer).expect("an answer");
    let head = String::from_utf8_lossy(&answer[..answer.len().min(600)]).to_lowercase();
    assert!(head.contains("content-encoding: gzip"), "{head}");
    assert!(answer.ends_with(b"\r\n0\r\n\r\n"), "the last chunk is missing");
}
