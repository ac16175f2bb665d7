//! What the commands print.

use std::fs;
use std::io::Write;
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::Command;
use herald_testing::tiny;
use safetensors::SafeTensors;
use serde_json::Value;

use crate::{GREEDY, fails, home, host, host_of_real_model, json, misused, on, stderr, stdout};

#[test]
fn generate_prints_only_the_text() {
    let first = on("llama", &GREEDY).success();
    assert!(stdout(&first).ends_with('\n'));
    assert_eq!(stderr(&first), "");
    assert_eq!(stdout(&first), stdout(&on("llama", &GREEDY).success()), "greedy text is the same every time");
}

#[test]
fn generate_reports_as_json() {
    let mut arguments = GREEDY.to_vec();
    arguments.extend(["--json", "--logprobs", "3"]);
    let report = json(&on("llama", &arguments).success());
    assert_eq!(report["tokens"].as_array().map(Vec::len), Some(8));
    assert_eq!(report["finish"], "length");
    assert_eq!(report["backends"][0]["name"], "cpu");
    let logprobs = report["logprobs"].as_array().expect("log-probabilities");
    assert_eq!(logprobs.len(), 8);
    for (token, entry) in report["tokens"].as_array().expect("tokens").iter().zip(logprobs) {
        assert_eq!(&entry["id"], token);
        assert_eq!(entry["top"].as_array().map(Vec::len), Some(3));
        assert_eq!(&entry["top"][0]["id"], token, "greedy takes the likeliest");
    }
}

#[test]
fn answers_match_the_schema_or_expression() {
    let folder = home();
    let schema = folder.path().join("schema.json");
    fs::write(
        &schema,
        r#"{"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"],
        "additionalProperties": false}"#,
    )
    .expect("a file");
    let path = schema.to_str().expect("a path");
    let answer = on("llama", &["generate", "hello", "--json-schema", path, "-n", "40"]).success();
    assert!(json(&answer)["a"].is_boolean());
    let answer = on("llama", &["generate", "hello", "--regex", "[ab]{4}", "--json"]).success();
    let report = json(&answer);
    assert_eq!(
        (report["text"].as_str().map(str::len), report["finish"].as_str()),
        (Some(4), Some("complete"))
    );
    fails(on("llama", &["generate", "hello", "--regex", "a(b"]), &["regular expression"]);
    fails(
        on("llama", &["generate", "hello", "--json-schema", "/nowhere.json"]),
        &["/nowhere.json", "schema"],
    );
    fs::write(&schema, "{").expect("a file");
    fails(on("llama", &["generate", "hello", "--json-schema", path]), &["schema.json", "no JSON"]);
    on("llama", &["generate", "hello", "--json-schema", path, "--regex", "a"]).code(2);
}

/// 0 tokens are no limit, as in C: until the context is full.
#[test]
fn no_maximum_of_tokens_is_no_limit() {
    let endless = ["generate", "hello", "--context", "40", "--ignore-eos", "--json", "--max-tokens", "0"];
    let report = json(&on("llama", &endless).success());
    assert_eq!(report["finish"], "context");
    assert!(report["tokens"].as_array().map(Vec::len) > Some(16), "{report}");
}

/// The answers that README.md and docs/TOUR.md show.
#[test]
fn the_showcases_are_answered_so() {
    let folder = home();
    let read = |file: &str| fs::read_to_string(herald_testing::repository().join(file)).expect("a page");
    let (readme, tour) = (read("README.md"), read("docs/TOUR.md"));
    let answers = |page: &str, command: &str, arguments: &[&str], answer: &str| {
        assert!(
            page.contains(&format!("$ host {command}\n{answer}\n")),
            "{command} and its answer are shown"
        );
        let mut host = host_of_real_model(&folder);
        host.args(arguments).args(["--temperature", "0", "--quiet"]);
        assert_eq!(stdout(&host.assert().success()), format!("{answer}\n"), "{command}");
    };
    let question = "What is the capital of Germany?";
    let command = format!("generate --chat \"{question}\"");
    answers(&readme, &command, &["generate", "--chat", question], "The capital of Germany is Berlin.");
    let question = "Is Paris in France?";
    let command = format!("generate --chat --regex \"(yes|no)\" \"{question}\"");
    answers(&tour, &command, &["generate", "--chat", "--regex", "(yes|no)", question], "yes");
    let (_, schema) = tour.split_once("$ cat city.json\n").expect("the schema");
    let (schema, _) = schema.split_once("$ host").expect("its end");
    let path = folder.path().join("city.json");
    fs::write(&path, schema).expect("a file");
    let question = "Which city is the Eiffel Tower in?";
    let command = format!("generate --chat --json-schema city.json \"{question}\"");
    let arguments = ["generate", "--chat", "--json-schema", path.to_str().expect("UTF-8"), question];
    for page in [&readme, &tour] {
        answers(page, &command, &arguments, r#"{"city": "Paris", "country": "France"}"#);
    }
}

#[test]
fn a_seed_makes_sampling_repeatable() {
    let run = |seed: &str| {
        let sampled = [
            "generate",
            "hello",
            "-n",
            "12",
            "--ignore-eos",
            "--temperature",
            "1.5",
            "--seed",
            seed,
            "--json",
        ];
        json(&on("llama", &sampled).success())["tokens"].clone()
    };
    assert_eq!(run("1"), run("1"));
    assert_ne!(run("1"), run("2"));
}

#[test]
fn prompts_come_from_files_and_stdin_too() {
    let expected = stdout(&on("llama", &GREEDY).success());
    let home = home();
    let file = home.path().join("prompt.txt");
    fs::write(&file, "hello world").expect("a file");
    let mut arguments = vec!["generate", "--file", file.to_str().expect("UTF-8")];
    arguments.extend(&GREEDY[2..]);
    assert_eq!(stdout(&on("llama", &arguments).success()), expected);
    let mut command = host(&home);
    command.arg("--model").arg(tiny("llama")).arg("generate").args(&GREEDY[2..]).write_stdin("hello world");
    assert_eq!(stdout(&command.assert().success()), expected);
}

#[test]
fn stop_texts_end_and_are_left_out() {
    let text = stdout(&on("llama", &GREEDY).success());
    let text = text.trim_end_matches('\n');
    let stop: String = text.chars().skip(3).take(2).collect();
    let mut arguments = GREEDY.to_vec();
    arguments.extend(["--stop", &stop, "--json"]);
    let report = json(&on("llama", &arguments).success());
    assert_eq!(report["finish"], "stop");
    assert_eq!(report["text"].as_str(), text.split(&stop).next());
}

#[test]
fn tokenize_prints_ids() {
    let report = json(&on("llama", &["tokenize", "--json", "--", "hello"]).success());
    let keys: Vec<&String> = report.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["ids"]);
    let plain = json(&on("llama", &["tokenize", "--json", "--", "<|im_start|>"]).success());
    let special = json(&on("llama", &["tokenize", "--json", "--special", "--", "<|im_start|>"]).success());
    assert!(plain["ids"].as_array().is_some_and(|ids| ids.len() > 1));
    assert_eq!(special["ids"], serde_json::json!([1]));
    let table = stdout(&on("llama", &["tokenize", "--", "--help"]).success());
    assert!(table.contains("ID") && table.contains('"'), "{table}");
}

#[test]
fn logits_are_written_whole_whatever_the_pieces() {
    let home = home();
    let ids = home.path().join("ids.txt");
    fs::write(&ids, "3 4 5\n6\t7 8 9 10\n").expect("a file");
    let mut written = Vec::new();
    for pieces in ["8", "1", "3"] {
        let out = home.path().join(format!("{pieces}.safetensors"));
        let paths = [ids.to_str().expect("UTF-8"), out.to_str().expect("UTF-8")];
        let arguments =
            ["logits", "--ids", paths[0], "--out", paths[1], "--pieces", pieces, "--quiet", "--json"];
        let report = json(&on("llama", &arguments).success());
        assert_eq!((&report["tokens"], &report["vocabulary"]), (&8.into(), &512.into()));
        let bytes = fs::read(&out).expect("the file");
        let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
        let (ids, logits) = (tensors.tensor("ids").expect("ids"), tensors.tensor("logits").expect("logits"));
        assert_eq!((ids.dtype(), ids.shape()), (safetensors::Dtype::I32, &[8][..]));
        assert_eq!((logits.dtype(), logits.shape()), (safetensors::Dtype::F32, &[8, 512][..]));
        let floats = logits
            .data()
            .chunks_exact(4)
            .map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        written.push(floats.collect::<Vec<f32>>());
    }
    for others in &written[1..] {
        let off = others.iter().zip(&written[0]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 0.001, "pieces change logits by {off}");
    }
}

#[test]
fn perplexity_is_measured() {
    let home = home();
    let file = home.path().join("text.txt");
    fs::write(&file, "The quick brown fox jumps over the lazy dog. ".repeat(8)).expect("a file");
    let file = file.to_str().expect("UTF-8");
    let report = json(&on("llama", &["perplexity", "--file", file, "--window", "64", "--json"]).success());
    assert!(report["perplexity"].as_f64().is_some_and(|perplexity| perplexity > 1.0), "{report}");
    let short = json(&on("llama", &["tokenize", "--json", "--file", file]).success());
    let tokens = short["ids"].as_array().map(Vec::len).expect("ids");
    assert_eq!(report["tokens"].as_u64(), Some(tokens as u64 - 1), "each token but the first counts once");
}

#[test]
fn info_shows_models_even_those_that_cannot_run() {
    let text = stdout(&on("gemma3", &["info"]).success());
    for word in ["gemma3.attention.sliding_window", "blk.0.attn_q.weight", "7 attention", "F32"] {
        assert!(text.contains(word), "{text}");
    }
    let report = json(&on("gemma3", &["info", "--json"]).success());
    assert_eq!(report["model"]["layers"]["attention"], 7);
}

#[test]
fn backends_lists_what_is_there_and_what_was_refused() {
    let home = home();
    let bad = home.path().join("libherald_bad.so");
    fs::write(&bad, "text").expect("a file");
    let listed = |arguments: &[&str]| {
        host(&home).env("HERALD_PLUGIN_PATH", home.path()).args(arguments).assert().success()
    };
    let report = json(&listed(&["backends", "--json"]));
    assert_eq!(report["chosen"], "cpu");
    let kinds: Vec<&str> = herald_api::LayerKind::ALL.iter().map(|kind| kind.name()).collect();
    let backends = report["backends"].as_array().expect("a list");
    let cpu = backends.iter().find(|backend| backend["name"] == "cpu").expect("cpu is there");
    assert_eq!(cpu["layers"], serde_json::json!(kinds));
    assert_eq!(report["refused"].as_array().map(Vec::len), Some(1));
    let text = stdout(&listed(&["backends"]));
    assert!(text.contains("cpu") && text.contains("Refused") && text.contains("libherald_bad.so"), "{text}");
}

/// Without the BLAS library that was named, its backend prints one warning and the others do the work.
#[cfg(all(unix, target_arch = "x86_64"))]
#[test]
fn without_a_blas_the_program_works_and_says_what_is_missing() {
    let (home, folder) = (home(), herald_testing::folder());
    std::os::unix::fs::symlink(herald_testing::blas_plugin(), folder.path().join("libherald_blas.so"))
        .expect("a link");
    let without = |backend: &str, arguments: &[&str]| {
        let mut command = host(&home);
        command.env("HERALD_BLAS", "libnone.so.9").env("HERALD_BACKEND", backend);
        command.env("HERALD_PLUGIN_PATH", folder.path()).arg("--model").arg(tiny("llama"));
        command.args(arguments).assert()
    };
    let missing = "HERALD_BLAS is \"libnone.so.9\", which can't be loaded";
    let generated = without("auto", &["generate", "once", "--max-tokens", "4"]).success();
    let said = stderr(&generated);
    let lines: Vec<&str> = said.lines().filter(|line| line.contains(missing)).collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(lines[0].starts_with("warning: ") && lines[0].contains("herald_blas"), "{said}");
    let listed = json(&without("auto", &["backends", "--json"]).success());
    let refused = listed["refused"].as_array().expect("a list");
    assert!(refused.iter().any(|refused| refused["reason"].as_str().expect("a sentence").contains(missing)));
    fails(without("blas", &["generate", "once"]), &["no backend \"blas\"", missing]);
}

#[test]
fn bench_speed_measures() {
    let report = json(&on("llama", &["bench", "speed", "-p", "16", "-n", "4", "--json"]).success());
    for key in ["prompt_tokens_per_s", "decode_tokens_per_s", "load_s", "peak_rss_bytes"] {
        assert!(report[key].as_f64().is_some_and(|value| value > 0.0), "{key}: {report}");
    }
    let home = home();
    let mut command = host(&home);
    command.args(["--backend", "cpu"]).arg("--model").arg(tiny("llama"));
    command.args(["bench", "speed", "-p", "16", "-n", "4"]).assert().success();
}

#[test]
fn completions_are_printed() {
    let home = home();
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&host(&home).args(["completions", shell]).assert().success());
        assert!(script.contains("perplexity"), "{shell}");
    }
}

/// The tiny models have no chat template, so this takes SmolLM2.
#[test]
fn chat_answers_line_by_line() {
    let home = home();
    let mut command = host_of_real_model(&home);
    command.args(["chat", "-n", "8", "--quiet"]);
    command.write_stdin("Say hello.\n/reset\nSay hello.\n");
    let text = stdout(&command.assert().success());
    let answers: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    assert!(answers.len() >= 2 && answers[0] == answers[answers.len() / 2], "{text:?}");
}

/// A conversation in two processes gives the same text as in one, even if the first process is killed while it waits for
/// the next message.
#[test]
fn a_session_continues_where_it_stopped() {
    let home = home();
    let chat = |session: &str| {
        let mut command = host_of_real_model(&home);
        command.args(["--active-tokens", "64", "--compressed-tokens", "64"]);
        command.args(["chat", "-n", "12", "--quiet", "--temperature", "1", "--session", session]);
        command
    };
    let [first, second] = ["Name three colours, and say what each of them is like.", "And three animals?"];
    let whole = stdout(
        &chat("whole").args(["--seed", "3"]).write_stdin(format!("{first}\n{second}\n")).assert().success(),
    );
    let begun =
        stdout(&chat("parts").args(["--seed", "3"]).write_stdin(format!("{first}\n")).assert().success());
    let ended = stdout(&chat("parts").write_stdin(format!("{second}\n")).assert().success());
    assert_eq!(format!("{begun}{ended}"), whole);

    let mut killed = Process::new(env!("CARGO_BIN_EXE_host"));
    let assembled = chat("killed");
    killed.args(assembled.get_args()).args(["--seed", "3"]);
    for (name, value) in assembled.get_envs() {
        match value {
            Some(value) => killed.env(name, value),
            None => killed.env_remove(name),
        };
    }
    let mut child = killed.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program");
    writeln!(child.stdin.as_mut().expect("its stdin"), "{first}").expect("a message");
    let session = home.path().join("data/herald/sessions/killed.session");
    let begin = Instant::now();
    while !session.exists() && begin.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let busy = chat("killed").write_stdin("Hello?\n").assert();
    fails(busy, &["killed", "in use"]);
    child.kill().expect("killed");
    child.wait().expect("its end");
    let ended_after = stdout(&chat("killed").write_stdin(format!("{second}\n")).assert().success());
    assert_eq!(ended_after, ended);
    let wrong = host(&home).args(["chat", "--session", "../x"]).assert();
    misused(wrong, &["--session", "letters"]);
}

#[test]
fn a_configuration_file_has_the_options_that_are_not_given() {
    let home = home();
    let path = home.path().join("config/herald/config.toml");
    fs::create_dir_all(path.parent().expect("a folder")).expect("the folder");
    let write = |text: &str| fs::write(&path, text).expect("the file");
    write(&format!(
        "model = {:?}\nactive-tokens = \"2MiB\"\nselected-pages = \"all\"\nthreads = 1\n",
        tiny("llama")
    ));
    host(&home).args(["info"]).assert().success();
    let other = home.path().join("other.toml");
    fs::write(&other, "context = 3\n").expect("the file");
    let mut full = host(&home);
    full.arg("--model").arg(tiny("llama")).arg("--config").arg(&other);
    fails(full.args(["generate", "a long text"]).assert(), &["context", "room for 3"]);
    let given = host(&home).arg("--config").arg(home.path().join("none.toml")).arg("info").assert();
    fails(given, &["none.toml", "can't be read"]);
    for (text, words) in [
        ("colour = 3", ["config.toml", "colour"]),
        ("selected-pages = 0", ["config.toml", "selected-pages"]),
        ("active-tokens = \"2 cats\"", ["active-tokens", "2 cats"]),
        ("threads = [", ["config.toml", "wrong"]),
    ] {
        write(text);
        fails(host(&home).args(["info"]).assert(), &words);
    }
}

/// If the archive's file reaches its size limit, the request fails with one sentence.
#[test]
fn a_full_archive_is_told_in_one_sentence() {
    let home = home();
    let program = host(&home);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "ulimit -f 64; exec \"$0\" \"$@\""])
        .arg(program.get_program())
        .args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.arg("--model").arg(tiny("llama")).args(["--active-tokens", "0", "--compressed-tokens", "0"]);
    shell.args(["--context", "100000", "bench", "context", "-p", "5000", "--quiet"]);
    fails(shell.assert(), &["archive", "has no room"]);
}

#[test]
fn a_long_context_is_measured_run_by_run() {
    let home = home();
    let mut command = host(&home);
    command.arg("--model").arg(tiny("llama")).args(["--active-tokens", "128", "--compressed-tokens", "128"]);
    command.args([
        "--selected-pages",
        "2",
        "bench",
        "context",
        "-p",
        "700",
        "--run",
        "300",
        "-n",
        "3",
        "--exact",
        "--json",
        "--quiet",
    ]);
    let report: Value = serde_json::from_str(&stdout(&command.assert().success())).expect("JSON");
    let runs: Vec<u64> =
        report["runs"].as_array().expect("runs").iter().filter_map(|run| run["tokens"].as_u64()).collect();
    assert_eq!(runs, [300, 300, 100]);
    let tiers = report["tiers"].as_array().expect("tiers");
    assert!(tiers.len() == 3 && tiers.iter().all(|tier| tier["pages"].as_u64() > Some(0)), "{tiers:?}");
    assert!(report["exact_decode_tokens_per_s"].as_f64() > Some(0.0), "{report}");
}

#[test]
fn conversations_are_measured() {
    let home = home();
    let mut command = host(&home);
    command.arg("--model").arg(tiny("llama")).args(["bench", "agents", "--turns", "4", "--tokens", "200"]);
    command.args(["-n", "4", "--conversations", "2", "--quiet"]);
    let table = stdout(&command.assert().success());
    assert!(table.contains("each turn appended") && table.contains("COMPUTED"), "{table}");
    command.arg("--json");
    let report: Value = serde_json::from_str(&stdout(&command.assert().success())).expect("JSON");
    let scenarios = report["scenarios"].as_array().expect("scenarios");
    assert_eq!(scenarios.len(), 5, "{report}");
    for scenario in scenarios {
        assert!(scenario["ratio"].as_f64() < Some(1.2), "{scenario}");
    }
}

/// A prompt goes on from what an earlier run of the program has computed, to the same answer.
#[test]
fn a_cache_folder_outlives_the_program() {
    let home = home();
    let folder = home.path().join("cache");
    let answer = |bytes: &str| -> Value {
        let mut command = host(&home);
        command.arg("--model").arg(tiny("qwen35")).args(["generate", "--json", "--ignore-eos", "-n", "4"]);
        command.arg("--cache-dir").arg(&folder).args(["--cache-bytes", bytes]);
        command.arg("one two three ".repeat(60));
        serde_json::from_str(&stdout(&command.assert().success())).expect("JSON")
    };
    let (first, second, without) = (answer("64MiB"), answer("64MiB"), answer("0B"));
    assert_eq!(first["tokens"], second["tokens"]);
    assert_eq!(first["tokens"], without["tokens"]);
    let tokens = |report: &Value| report["prompt_tokens"].as_u64().zip(report["cached_tokens"].as_u64());
    assert!(tokens(&first).is_some_and(|(all, cached)| all > 64 && cached == 0), "{first}");
    assert!(tokens(&second).is_some_and(|(all, cached)| cached > 0 && cached < all), "{second}");
    assert!(tokens(&without).is_some_and(|(_, cached)| cached == 0), "{without}");
    let mut wrong = host(&home);
    wrong.arg("--model").arg(tiny("llama")).args([
        "generate",
        "-n",
        "1",
        "hello",
        "--cache-dir",
        "/dev/null/x",
    ]);
    fails(wrong.assert(), &["/dev/null/x", "the folder of the prefix cache can't be used"]);
}

#[test]
fn embeddings_are_vectors_of_length_1_unless_told_otherwise() {
    let vectors = |arguments: &[&str]| -> Vec<Vec<f64>> {
        let report = json(&on("xlm_roberta", &[&["embed", "--json"], arguments].concat()).success());
        assert_eq!(report["dimensions"], 64);
        serde_json::from_value(report["embeddings"].clone()).expect("vectors")
    };
    let length = |vector: &[f64]| vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    let two = vectors(&["one text", "another one"]);
    assert!(two.len() == 2 && two[0] != two[1]);
    two.iter().for_each(|vector| assert!((length(vector) - 1.0).abs() < 1e-5));
    assert!((length(&vectors(&["--raw", "one text"])[0]) - 1.0).abs() > 0.1);
    assert_ne!(vectors(&["--pooling", "mean", "one text"])[0], two[0]);
    let lines = stdout(&on("xlm_roberta", &["embed", "one text", "another one"]).success());
    assert_eq!(lines.lines().map(|line| line.split(' ').count()).collect::<Vec<_>>(), [64, 64]);
    fails(on("xlm_roberta", &["embed", ""]), &["empty"]);
    fails(on("xlm_roberta", &["embed", "--ids", "no such file"]), &["no such file"]);
    let both = on("xlm_roberta", &["embed", "--ids", "-", "a text"]).code(2);
    assert!(stderr(&both).contains("--ids"), "{}", stderr(&both));
    fails(on("xlm_roberta", &["generate", "once"]), &["embeddings", "no output head"]);
}

#[test]
fn documents_are_sorted_by_their_scores() {
    let report =
        json(&on("xlm_roberta_rank", &["rerank", "--json", "a query", "one", "two words", "one"]).success());
    let results = report["results"].as_array().expect("a list");
    let scores: Vec<f64> = results.iter().map(|result| result["score"].as_f64().expect("a number")).collect();
    assert!(scores.len() == 3 && scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    let score_of = |index: u64| {
        results.iter().find(|result| result["index"] == index).expect("each is there")["score"].clone()
    };
    assert_eq!(score_of(0), score_of(2), "the same document");
    assert!(
        results.iter().any(|result| result["index"] == 1 && result["document"] == "two words"),
        "{report}"
    );
    let home = crate::home();
    let lines = home.path().join("lines.jsonl");
    fs::write(&lines, "\"one\"\n\n{\"id\": 7, \"text\": \"two words\"}\n").expect("a file");
    let lines = lines.to_str().expect("UTF-8");
    let arguments = ["rerank", "--json", "--top", "1", "--lines", lines, "a query"];
    let best = json(&on("xlm_roberta_rank", &arguments).success());
    assert_eq!(best["results"].as_array().map(Vec::len), Some(1));
    assert_eq!(best["results"][0]["document"], results[0]["document"]);
    let table = stdout(&on("xlm_roberta_rank", &["rerank", "a query", "one", "two\nwords"]).success());
    assert!(table.lines().count() == 2 && table.contains("\t1\ttwo words"), "{table}");
    fs::write(home.path().join("lines.jsonl"), "\"one\"\n{\"body\": 1}\n").expect("a file");
    fails(on("xlm_roberta_rank", &["rerank", "--lines", lines, "q"]), &["lines.jsonl: line 2", "\"text\""]);
    fails(on("xlm_roberta", &["rerank", "a query", "one"]), &["doesn't rank", "pooling_type = 4"]);
    on("xlm_roberta_rank", &["rerank"]).code(2);
}
