//! Several models behind one server, and documents sorted by one.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use herald_server::{Keep, ModelSource};
use herald_testing::cpu_options;

use super::*;

/// A model that counts how often it is loaded.
fn source(name: &'static str, file: &str) -> (ModelSource, Arc<AtomicUsize>) {
    let loads = Arc::new(AtomicUsize::new(0));
    let (count, path) = (Arc::clone(&loads), tiny(file));
    let of_load = path.clone();
    let load = move || {
        count.fetch_add(1, Ordering::Relaxed);
        let engine = Arc::new(NeuroEngine::load(&of_load, &cpu_options())?);
        Scheduler::start(engine, SchedulerOptions::default())
    };
    (ModelSource::new(name.to_owned(), &path, Box::new(load)).expect("a model"), loads)
}

fn bytes(file: &str) -> u64 {
    std::fs::metadata(tiny(file)).expect("the file").len()
}

fn serve_several(sources: Vec<ModelSource>, keep: Keep) -> Listening {
    let models = Models::several(sources, keep).expect("models");
    listen(models, Access::default(), Limits::default())
}

const FOR_EVER: Keep = Keep { bytes: u64::MAX, idle: None };

fn named(model: &str) -> Value {
    json!({"model": model, "prompt": "hello world", "temperature": 0, "max_tokens": 4})
}

fn loaded(served: &Listening) -> Vec<String> {
    let listed = parsed(&served.get("/api/ps").1);
    let names = listed["models"].as_array().expect("a list").iter();
    names.map(|model| model["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn each_request_is_answered_by_the_model_that_it_names() {
    let ((llama, llama_loads), (granite, granite_loads)) =
        (source("llama", "llama"), source("granite", "granite"));
    let served = serve_several(vec![llama, granite], FOR_EVER);
    // Whoever watches loads nothing.
    assert_eq!(served.get("/metrics"), (200, "# EOF\n".to_owned()));
    assert_eq!(served.get("/metrics.json?model=granite"), (200, "{}".to_owned()));
    assert_eq!(served.get("/slots?model=granite"), (200, "[]".to_owned()));
    assert_eq!((served.get("/health").0, loaded(&served)), (200, Vec::new()));
    let models = parsed(&served.get("/v1/models").1);
    let ids: Vec<&Value> =
        models["data"].as_array().expect("a list").iter().map(|model| &model["id"]).collect();
    assert_eq!(ids, ["llama", "granite"]);
    assert_eq!(parsed(&served.get("/api/tags").1)["models"][1]["details"]["family"], "granite");
    for (model, file) in
        [("llama", "llama"), ("granite", "granite"), ("granite:latest", "granite"), ("", "llama")]
    {
        let engine = NeuroEngine::load(&tiny(file), &cpu_options()).expect("the model");
        let (status, said) = served.post("/v1/completions", &named(model));
        let answer = parsed(&said);
        assert_eq!(
            (status, &answer["choices"][0]["text"]),
            (200, &json!(alone(&engine, "hello world", 4))),
            "{said}"
        );
        assert_eq!(answer["model"], file);
    }
    assert_eq!((llama_loads.load(Ordering::Relaxed), granite_loads.load(Ordering::Relaxed)), (1, 1));
    assert_eq!(loaded(&served), ["llama", "granite"]);
    assert_eq!(parsed(&served.get("/props?model=granite").1)["model_alias"], "granite");
    assert!(served.get("/metrics?model=granite").1.contains("herald_generated_tokens_total 8"));
    for path in ["/v1/completions", "/v1/embeddings"] {
        let (status, said) = served.post(path, &json!({"model": "gpt-5", "prompt": "a", "input": "a"}));
        assert!(status == 400 || status == 404, "{path} {said}");
    }
    let (status, said) = served.post("/v1/completions", &named("gpt-5"));
    assert_eq!(status, 404, "{said}");
    assert!(said.contains("gpt-5") && said.contains("llama") && said.contains("granite"), "{said}");
    assert_eq!(served.get("/v1/models/granite").0, 200);
    assert_eq!(served.get("/v1/models/gpt-5").0, 404);
}

#[test]
fn a_model_makes_room_for_another_unless_it_is_in_use() {
    let (llama, loads) = source("llama", "llama");
    let keep = Keep { bytes: bytes("llama").max(bytes("granite")), idle: None };
    let served = serve_several(vec![llama, source("granite", "granite").0], keep);
    for (model, times) in [("llama", 1), ("granite", 1), ("llama", 2), ("llama", 2)] {
        assert_eq!(served.post("/v1/completions", &named(model)).0, 200);
        assert_eq!((loaded(&served), loads.load(Ordering::Relaxed)), (vec![model.to_owned()], times));
    }
    // A stream that nobody reads the whole of keeps its model.
    let long = json!({"model": "llama", "prompt": "hello", "max_tokens": 100_000, "stream": true, "ignore_eos": true});
    let mut socket =
        served.open("POST", "/v1/completions", "Content-Type: application/json\r\n", &long.to_string());
    let mut some = [0; 400];
    socket.read_exact(&mut some).expect("it begins");
    let (status, said) = served.post("/v1/completions", &named("granite"));
    assert_eq!(status, 503, "{said}");
    assert!(said.contains("no memory for the model") && said.contains("granite"), "{said}");
    drop(socket);
    let end = Instant::now() + Duration::from_secs(30);
    while served.post("/v1/completions", &named("granite")).0 != 200 {
        assert!(Instant::now() < end, "it is free at last");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(loaded(&served), ["granite"]);
}

/// As Ollama's clients load and unload.
#[test]
fn a_model_is_loaded_and_unloaded_as_asked() {
    let ((llama, _), (granite, _)) = (source("llama", "llama"), source("granite", "granite"));
    let served = serve_several(vec![llama, granite], FOR_EVER);
    let ask = |path: &str, body: &Value| parsed(&served.post(path, body).1)["done_reason"].clone();
    assert_eq!(ask("/api/chat", &json!({"model": "granite", "messages": []})), "load");
    assert_eq!(loaded(&served), ["granite"]);
    assert_eq!(ask("/api/generate", &json!({"model": "granite", "keep_alive": "0s"})), "unload");
    assert_eq!(loaded(&served), Vec::<String>::new());
    assert_eq!(ask("/api/generate", &json!({"model": "granite", "keep_alive": 0})), "unload");
}

#[test]
fn a_model_that_nobody_asks_for_is_unloaded() {
    let keep = Keep { bytes: u64::MAX, idle: Some(Duration::from_millis(300)) };
    let served = serve_several(vec![source("llama", "llama").0, source("granite", "granite").0], keep);
    assert_eq!(served.post("/v1/completions", &named("llama")).0, 200);
    let end = Instant::now() + Duration::from_secs(30);
    while !loaded(&served).is_empty() {
        assert!(Instant::now() < end, "it is unloaded at last");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(served.post("/v1/completions", &named("llama")).0, 200);
}

#[test]
fn a_model_that_cannot_be_loaded_says_why_and_the_others_answer() {
    let fails = || Err(herald::Error::Invalid("no such luck".to_owned()));
    let broken = ModelSource::new("broken".to_owned(), &tiny("granite"), Box::new(fails)).expect("a model");
    let served = serve_several(vec![source("llama", "llama").0, broken], FOR_EVER);
    let (status, said) = served.post("/v1/completions", &named("broken"));
    assert!(status == 500 && said.contains("broken") && said.contains("no such luck"), "{status} {said}");
    assert_eq!(served.post("/v1/completions", &named("llama")).0, 200);
    let two = vec![source("a", "llama").0, source("a", "granite").0];
    assert!(Models::several(two, FOR_EVER).is_err_and(|what| what.contains("\"a\"")));
    assert!(ModelSource::new("c".to_owned(), Path::new("Cargo.toml"), Box::new(fails)).is_err());
}

#[test]
fn documents_are_sorted_as_the_engine_scores_them() {
    let served = serve(&tiny("qwen3_rank"), SchedulerOptions::default());
    let documents = ["bamboo", "Paris is in France", "once upon a time"];
    let scores = served.scheduler.engine().rank("pandas", &documents, None).expect("scores");
    let mut best: Vec<usize> = (0..3).collect();
    best.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let body = json!({"query": "pandas", "documents": documents, "return_documents": true, "model": "x"});
    for path in ["/v1/rerank", "/rerank"] {
        let (status, said) = served.post(path, &body);
        let answer = parsed(&said);
        assert_eq!(status, 200, "{said}");
        for (result, index) in answer["results"].as_array().expect("results").iter().zip(&best) {
            assert_eq!(
                (&result["index"], &result["document"]["text"]),
                (&json!(index), &json!(documents[*index]))
            );
            let score = result["relevance_score"].as_f64().expect("a score") as f32;
            assert!((score - scores[*index]).abs() < 1e-5, "{said}");
        }
        assert!(answer["usage"]["total_tokens"].as_u64().is_some_and(|tokens| tokens > 3), "{said}");
    }
    let top = json!({"query": "pandas", "documents": [{"text": "bamboo"}, "once"], "top_n": 1});
    let results = parsed(&served.post("/v1/rerank", &top).1)["results"].clone();
    assert!(
        results.as_array().is_some_and(|results| results.len() == 1 && results[0].get("document").is_none())
    );
    for (body, param) in [
        (json!({"documents": ["a"]}), "query"),
        (json!({"query": "a"}), "documents"),
        (json!({"query": "a", "documents": []}), "documents"),
        (json!({"query": "a", "documents": ["a", 1]}), "documents[1]"),
        (json!({"query": "a", "documents": ["a"], "top_n": 0}), "top_n"),
    ] {
        let (status, said) = served.post("/v1/rerank", &body);
        assert_eq!((status, &parsed(&said)["error"]["param"]), (400, &json!(param)), "{said}");
    }
    let other = serve(&tiny("llama"), SchedulerOptions::default());
    let (status, said) = other.post("/v1/rerank", &json!({"query": "a", "documents": ["a"]}));
    assert!(status == 400 && said.contains("reranker"), "{status} {said}");
}
