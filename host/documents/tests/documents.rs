//! Documents: texts are found by meaning and by words, kept in files, and put into prompts.

use std::collections::HashSet;
use std::fs;
use std::sync::Arc;

use herald::NeuroEngine;
use herald_documents::{DocumentStore, Documents, DocumentsOptions};
use herald_testing::{backends, load_tiny, repository, smollm2, tiny};

fn engine() -> Arc<NeuroEngine> {
    Arc::new(load_tiny("llama"))
}

fn small(mut documents: Documents) -> Documents {
    documents.set_options(DocumentsOptions { chunk_tokens: 32, overlap_tokens: 8 }).expect("options");
    documents
}

/// Short passages, each with a sentence that paraphrases it or asks about it.
fn paraphrases() -> Vec<[String; 2]> {
    let path = repository().join("host/tests/data/paraphrases.json");
    serde_json::from_slice(&fs::read(path).expect("the test data")).expect("JSON")
}

/// Chance would rank one of 40 passages first; without common words, only meaning finds it.
#[test]
fn paraphrases_are_found_by_meaning() {
    let (name, options) = backends().iter().find(|(name, _)| *name == "simd").unwrap_or(&backends()[0]);
    let engine = NeuroEngine::load(&smollm2(), options).expect("the model");
    let documents = Documents::in_memory(Arc::new(engine));
    // The reference kernels are slow.
    let n_pairs = if *name == "cpu" { 12 } else { 40 };
    let pairs = &paraphrases()[..n_pairs];
    for (index, [passage, _]) in pairs.iter().enumerate() {
        documents.add(&index.to_string(), passage).expect("a passage");
    }
    let (mut first, mut near, mut fused) = (0, 0, 0);
    for (index, [_, query]) in pairs.iter().enumerate() {
        let hits = documents.search(query, pairs.len()).expect("hits");
        assert_eq!(hits.len(), pairs.len(), "every chunk has a rank");
        let hit = hits.iter().find(|hit| hit.name == index.to_string()).expect("the passage");
        first += usize::from(hit.meaning_rank == 1);
        near += usize::from(hit.meaning_rank <= 5);
        fused += usize::from(hits[0].name == index.to_string());
    }
    println!(
        "{name}: of {n_pairs}, {first} rank first by meaning, {near} in the first five, {fused} first with words"
    );
    assert!(first * 10 >= n_pairs * 8 && near * 10 >= n_pairs * 9, "{first} and {near} of {n_pairs}");
    assert!(fused * 10 >= n_pairs * 8, "{fused} of {n_pairs}");
}

#[test]
fn words_find_what_meaning_does_not() {
    let documents = small(Documents::in_memory(engine()));
    for index in 0..12 {
        documents
            .add(&format!("note {index}"), &format!("the quick fox number {index} runs away"))
            .expect("a text");
    }
    documents.add("key", "the code is XZQ417 and nothing else").expect("a text");
    let hits = documents.search("what is xzq417?", 3).expect("hits");
    let hit = hits.iter().find(|hit| hit.name == "key").expect("the only one with the word");
    assert_eq!(hit.word_rank, Some(1));
    assert!(hit.words > 1.0 && hits.windows(2).all(|pair| pair[0].score >= pair[1].score), "{hits:?}");
    let expected = 1.0 / (60.0 + hit.meaning_rank as f64) + 1.0 / 61.0;
    assert!((hit.score - expected).abs() < 1e-12, "reciprocal ranks are summed");
}

#[test]
fn long_texts_become_chunks_that_overlap_and_lose_nothing() {
    let documents = small(Documents::in_memory(engine()));
    let text: String = (0..60).map(|index| format!("Sentence {index} is about größe and 猫. ")).collect();
    let added = documents.add("long", &text).expect("a text");
    assert!(added.chunks > 5 && added.tokens > 24 * (added.chunks - 1), "{added:?}");
    let mut hits = documents.search("Sentence", 1000).expect("hits");
    assert_eq!(hits.len(), added.chunks);
    hits.sort_by_key(|hit| hit.chunk);
    let mut end = 0;
    for hit in &hits {
        // Each begins before the previous one ends.
        let at = text[..end].len().saturating_sub(hit.text.len());
        let at = text.floor_char_boundary(at);
        let start = at + text[at..].find(&hit.text).expect("a part of the text");
        assert!(start <= end, "{} bytes are missing before chunk {}", start - end, hit.chunk);
        end = end.max(start + hit.text.len());
        assert_eq!(hit.first_token, hit.chunk * 24);
    }
    assert_eq!(end, text.len());
}

#[test]
fn folders_outlive_the_process_and_damage_is_reported() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let engine = engine();
    let open = || small(Documents::open(Arc::clone(&engine), folder.path()).expect("the folder"));
    let (one, two) = {
        let documents = open();
        let one = documents.add("one", "the cat sat on the mat").expect("a text");
        (one, documents.add("two", "a dog barked at the moon").expect("a text"))
    };
    let documents = open();
    assert_eq!(documents.documents(), [one.clone(), two.clone()]);
    let before = documents.search("dog", 5).expect("hits");
    assert_eq!(before[0].name, "two");
    assert_eq!(open().search("dog", 5).expect("hits"), before, "to the bit");

    // Another process removes one; this one adds another.
    let mut store = DocumentStore::open(folder.path()).expect("the folder");
    assert_eq!(store.documents(), documents.documents());
    assert!(store.remove(one.id).expect("removed") && !store.remove(one.id).expect("removed"));
    let three = documents.add("three", "birds sing").expect("a text");
    assert_eq!(open().documents(), [two.clone(), three.clone()]);
    assert!(documents.remove(one.id).expect("known here still") && !documents.remove(99).expect("nothing"));

    let path = folder.path().join(format!("{:08}.memory", two.id));
    let mut bytes = fs::read(&path).expect("the file");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, &bytes).expect("the file");
    fs::write(folder.path().join("00000077.memory"), &bytes[..40]).expect("a file");
    let documents = open();
    assert_eq!(documents.documents(), [three]);
    let damaged: Vec<String> = documents
        .damaged()
        .iter()
        .map(|damaged| format!("{}: {}", damaged.path.display(), damaged.reason))
        .collect();
    assert_eq!(damaged.len(), 2, "{damaged:?}");
    assert!(damaged[0].contains("00000002.memory") && damaged[0].contains("checksum"), "{damaged:?}");
    assert!(damaged[1].contains("00000077.memory") && damaged[1].contains("safetensors"), "{damaged:?}");
    assert_eq!(documents.add("four", "on it goes").expect("a text").id, 78);
    let mut store = DocumentStore::open(folder.path()).expect("the folder");
    assert_eq!(store.tidy().expect("tidy").0, 2);
    assert_eq!(
        (store.damaged().len(), DocumentStore::open(folder.path()).expect("the folder").damaged().len()),
        (0, 0)
    );
    assert_eq!(store.clear().expect("cleared"), 2);
    assert!(open().documents().is_empty() && open().search("x", 3).expect("hits").is_empty());
}

#[test]
fn another_models_vectors_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let documents = Documents::open(engine(), folder.path()).expect("the folder");
    documents.add("one", "some text").expect("a text");
    let other = Arc::new(load_tiny("qwen3"));
    let Err(error) = Documents::open(other, folder.path()) else { panic!("it was opened") };
    let sentence = error.to_string();
    for word in ["llama.f32.gguf", "qwen3.f32.gguf", "\"one\""] {
        assert!(sentence.contains(word), "{sentence}");
    }
}

#[test]
fn prompts_hold_the_found_chunks_within_their_budget() {
    let documents = small(Documents::in_memory(engine()));
    for index in 0..6 {
        let text = format!(
            "Report {index}: the ship number {index} carries apples, pears and plums to the harbour."
        );
        documents.add(&format!("report {index}"), &text).expect("a text");
    }
    let question = "Which ship carries pears?";
    let all = documents.recall(question, 3, 10_000).expect("a prompt");
    assert!(all.hits.len() == 3 && all.prompt.contains(question), "{all:?}");
    assert!(all.hits.iter().all(|hit| all.prompt.contains(hit.text.trim())), "{all:?}");
    let tokens = |text: &str| documents.engine().tokenizer().encode(text, false).expect("tokens").len();
    assert_eq!(all.tokens, tokens(&all.prompt));
    for budget in [all.tokens - 1, all.tokens * 3 / 4, all.tokens / 2] {
        let less = documents.recall(question, 3, budget).expect("a prompt");
        assert!(less.tokens <= budget && tokens(&less.prompt) <= budget, "{budget}: {less:?}");
        assert!(less.prompt.contains(question));
    }
    let sentence = documents.recall(question, 3, 2).expect_err("too little").to_string();
    assert!(sentence.contains("at most 2"), "{sentence}");
    let own = documents.recall_as("{{ notes | length }} {{ question }}", "Why?", 2, 100).expect("a prompt");
    assert_eq!(own.prompt, "2 Why?");
    documents.recall_as("{{ notes", "Why?", 2, 100).expect_err("no template");
}

/// Prompts' templates are bounded as chat templates are: by what their operations take.
#[test]
fn prompt_templates_are_cut_off() {
    let documents = small(Documents::in_memory(engine()));
    documents.add("report", "The ship carries apples, pears and plums.").expect("a text");
    let doubled = "{% set x = namespace(v=[0], w=[0]) %}{% for i in range(60) %}{% set x.v = [x.v, x.v] %}\
         {% set x.w = [x.w, x.w] %}{% endfor %}";
    for (source, words) in [
        (format!("{doubled}\n{{{{ x.v == x.w }}}}"), "line 2: it used more than"),
        (format!("{doubled}\n{{{{ [x.v, x.w] | sort }}}}"), "line 2: it used more than"),
        (
            "{% set x = namespace(v='ab') %}{% for i in range(60) %}{% set x.v = x.v + x.v %}{% endfor %}"
                .to_owned(),
            "MiB",
        ),
        (" ".repeat(200_000), "200000 bytes"),
        ("{{ raise_exception('no notes') }}".to_owned(), "no notes"),
        ("\n{{ notes.nothing.more }}".to_owned(), "line 2"),
        ("{{ notes".to_owned(), "line 1: syntax error"),
    ] {
        let error = documents.recall_as(&source, "Why?", 2, 100).expect_err(words).to_string();
        let begins = error.starts_with("the prompt's template can't be used: ");
        assert!(begins && error.contains(words) && !error.contains('\n'), "{error}");
    }
    // A template that writes the same for any note never fits, and is left soon.
    let stubborn = "{% if notes %}{{ 'word ' * 300 }}{% endif %}{{ question }}";
    assert_eq!(documents.recall_as(stubborn, "Why?", 2, 100).expect("a prompt").prompt, "Why?");
}

#[test]
fn nothing_is_neither_kept_nor_looked_for() {
    let documents = small(Documents::in_memory(engine()));
    documents.search("", 1).expect_err("an empty query");
    documents.add("nothing", "").expect_err("an empty text");
}

#[test]
fn cancelled_additions_leave_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let documents = small(Documents::open(engine(), folder.path()).expect("the folder"));
    let text = "word ".repeat(200);
    let error = documents.add_while("long", &text, &mut |done, _| done < 2).expect_err("stopped");
    assert!(matches!(error, herald::Error::Cancelled));
    assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 0);
    assert!(documents.documents().is_empty());
}

#[test]
fn many_threads_add_search_and_remove() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let engine = engine();
    let documents = small(Documents::open(Arc::clone(&engine), folder.path()).expect("the folder"));
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let documents = &documents;
            scope.spawn(move || {
                for index in 0..8 {
                    let name = format!("{thread}.{index}");
                    let added = documents
                        .add(&name, &format!("thread {thread} wrote word{thread}x{index}"))
                        .expect("a text");
                    let hits = documents.search(&format!("word{thread}x{index}"), 5).expect("hits");
                    assert!(hits.iter().any(|hit| hit.name == name), "{name} is found at once");
                    if index % 2 == 1 {
                        assert!(documents.remove(added.id).expect("removed"));
                    }
                }
            });
        }
    });
    let names = |documents: &Documents| -> HashSet<String> {
        documents.documents().into_iter().map(|document| document.name).collect()
    };
    let expected: HashSet<String> =
        (0..6).flat_map(|thread| [0, 2, 4, 6].map(|index| format!("{thread}.{index}"))).collect();
    assert_eq!(names(&documents), expected);
    let again = Documents::open(engine, folder.path()).expect("the folder");
    assert_eq!((names(&again), again.usage()), (expected, documents.usage()));
}

#[test]
fn models_with_states_give_vectors_too() {
    let engine = NeuroEngine::load(&tiny("mamba"), &herald_testing::cpu_options()).expect("the model");
    let documents = Documents::in_memory(Arc::new(engine));
    documents.add("a", "once upon a time").expect("a text");
    documents.add("b", "numbers: 1 2 3 4").expect("a text");
    assert_eq!(documents.search("once upon a time", 1).expect("hits")[0].name, "a");
}
