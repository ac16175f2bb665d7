//! Adapters: which of them a request gets, and that none changes what others get.

use herald::{LoadOptions, LoraFile, LoraScale};
use herald_testing::{cpu_options, repository};

use super::*;

/// The tiny llama model with an adapter that requests ask for.
fn serve_tuned() -> Served {
    let path = repository().join("host/tests/data/lora/llama_lora.gguf");
    let loras = vec![LoraFile { path, name: Some("tuned".to_owned()), scale: 0.0 }];
    let options = LoadOptions { loras, ..cpu_options() };
    let engine = Arc::new(NeuroEngine::load(&tiny("llama"), &options).expect("the model"));
    let scheduler = Arc::new(Scheduler::start(engine, SchedulerOptions::default()).expect("a scheduler"));
    let models = Models::one("the model".to_owned(), Arc::clone(&scheduler));
    Served { scheduler, listening: listen(models, Access::default(), Limits::default()) }
}

/// What the engine answers by itself.
fn expected(served: &Served, scale: f32) -> String {
    let engine = served.scheduler.engine();
    let loras = Some(vec![LoraScale { index: 0, scale }]);
    let options = GenerateOptions { max_tokens: Some(12), loras, ..GenerateOptions::default() };
    let ids = engine.tokenizer().encode_prompt("hello world", false).expect("tokens");
    let mut sequence = engine.sequence().expect("a sequence");
    engine.generate(&mut sequence, &ids, &options, &mut || true, &mut |_| true).expect("an answer").text
}

/// A request for twelve tokens, with these fields beside.
fn with(fields: Value) -> Value {
    let mut body = prompt(12);
    for (name, value) in fields.as_object().expect("fields") {
        body[name] = value.clone();
    }
    body
}

#[test]
fn each_request_gets_the_adapters_that_it_asks_for() {
    let served = serve_tuned();
    let [without, half, whole] = [0.0, 0.5, 1.0].map(|scale| expected(&served, scale));
    assert!(without != whole && half != whole && without != half, "the adapter changes nothing");
    let requests = [
        (json!({}), &without),
        (json!({"model": "tuned"}), &whole),
        (json!({"lora": [{"id": 0, "scale": 0.5}]}), &half),
        (json!({"model": "tuned", "lora": []}), &without),
        (json!({"model": "another", "lora": [{"id": 0, "scale": 1}]}), &whole),
        (json!({"model": "the model"}), &without),
    ];
    // All at once, and then again with what the first round has left in the prefix cache.
    for _ in 0..2 {
        std::thread::scope(|scope| {
            for (fields, expected) in &requests {
                let served = &served;
                scope.spawn(move || {
                    let (status, body) = served.post("/v1/completions", &with(fields.clone()));
                    assert_eq!(
                        (status, &parsed(&body)["choices"][0]["text"]),
                        (200, &json!(expected)),
                        "{fields}"
                    );
                });
            }
        });
    }
    let native = json!({"prompt": "hello world", "temperature": 0, "n_predict": 12, "lora": [{"id": 0, "scale": 0.5}]});
    assert_eq!(parsed(&served.post("/completion", &native).1)["content"], half.as_str());
    served.wait_until_idle();
}

#[test]
fn adapters_are_listed() {
    let served = serve_tuned();
    let listed = parsed(&served.get("/lora-adapters").1);
    assert_eq!(
        (&listed[0]["id"], &listed[0]["name"], &listed[0]["scale"]),
        (&json!(0), &json!("tuned"), &json!(0.0))
    );
    let models = parsed(&served.get("/v1/models").1);
    assert_eq!(
        (&models["data"][1]["id"], &models["data"][1]["parent"]),
        (&json!("tuned"), &json!("the model"))
    );
    let plain = serve(&tiny("llama"), SchedulerOptions::default());
    assert_eq!(plain.get("/lora-adapters"), (200, "[]".to_owned()));
}

#[test]
fn wrong_adapters_get_a_sentence() {
    let served = serve_tuned();
    for (lora, says) in [
        (json!([{"id": 3, "scale": 1}]), "there is no adapter 3"),
        (json!([{"id": 0}]), "lora is a list with {\"id\":0}"),
        (json!([{"id": 0, "scale": 1}, {"id": 0, "scale": 1}]), "is named twice"),
        (json!([{"id": 0, "scale": 1, "x": 2}]), "where an adapter, as"),
        (json!([0.5]), "lora is a list with 0.5"),
    ] {
        let (status, body) = served.post("/v1/completions", &with(json!({"lora": lora})));
        assert!(status == 400 && body.contains(&says.replace('"', "\\\"")), "{status}: {body}");
    }
}
