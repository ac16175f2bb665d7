//! Choosing by measurement: which plugin is asked first, for prompts and for single tokens, and that one goes on after the
//! other.

use std::fs;
use std::path::{Path, PathBuf};

use herald::backend_choice::{self, Machine, Measured, PluginId, Reason, Record, Shapes, Speeds};
use herald::gguf::Gguf;
use herald::plugin::{Plugins, Search, this_machine};
use herald::{LoadOptions, NeuroEngine, calibrate, model};
use herald_testing::{compile, cpu_plugin, folder, search, tiny};

/// The example, which computes MLPs and nothing else.
fn example(folder: &Path) -> PathBuf {
    compile("examples/plugin-c/example.c", "EXAMPLE", folder)
}

fn options(plugins: &[&Path], calibrations: &Path) -> LoadOptions {
    LoadOptions {
        search: Search { allow_insecure: true, ..search(plugins) },
        calibrations: Some(calibrations.to_owned()),
        ..LoadOptions::default()
    }
}

fn named(options: &LoadOptions, backend: &str) -> LoadOptions {
    LoadOptions { backend: Some(backend.to_owned()), ..options.clone() }
}

/// A calibration that finds each plugin as fast as `speeds` has it by its name: prefill, decode.
fn invented(model: &Path, options: &LoadOptions, speeds: impl Fn(&str) -> [f64; 2]) -> Record {
    let plugins = Plugins::discover(&options.search, &this_machine());
    let gguf = Gguf::open(model).expect("a model");
    let shapes = Shapes::of(&gguf, &model::plan(&gguf).expect("a plan"));
    let threads = herald::threads::available_threads().get();
    let figures = plugins.usable.iter().map(|loaded| {
        let [prefill, decode] = speeds(loaded.plugin.name());
        let plugin = PluginId::of(loaded).expect("a file");
        let speeds = Some(Speeds { prefill, decode, prompt_tokens: 512, spread: [0.0; 2] });
        Measured { plugin, speeds, refused: None }
    });
    Record::new(Machine::of(&this_machine(), threads), shapes, figures.collect())
}

fn load(model: &str, options: &LoadOptions) -> NeuroEngine {
    NeuroEngine::load(&tiny(model), options).unwrap_or_else(|error| panic!("{model}: {error}"))
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

#[test]
fn what_is_measured_is_chosen_by_until_a_plugin_changes() {
    let (folder, kept) = (folder(), folder());
    let (cpu, example) = (cpu_plugin(), example(folder.path()));
    let options = options(&[&cpu, &example], kept.path());
    assert_eq!(load("llama", &options).choice().by, Reason::Score);
    let mut steps = Vec::new();
    let record = calibrate(&tiny("llama"), &options, &mut |step| {
        steps.push(step.to_owned());
        true
    });
    let record = record.expect("it is measured");
    assert!(steps.iter().any(|step| step == "measuring cpu"), "{steps:?}");
    // Which is faster depends on what else the machine does.
    let sound = |figures: &Measured| {
        figures
            .speeds
            .is_some_and(|speeds| [speeds.prefill, speeds.decode].iter().all(|speed| speed.is_normal()))
    };
    assert!(record.backends.len() == 2 && record.backends.iter().all(sound), "{record:?}");
    backend_choice::keep(&record, kept.path()).expect("it is kept");
    let choice = load("llama", &options).choice().clone();
    assert_eq!(choice.by, Reason::Calibration);
    // Another model of the same type counts by its likeness, one of another kind doesn't.
    let similar = load("qwen3", &options).choice().clone();
    assert!(
        similar.by == Reason::Calibration && similar.why.contains("the most similar model"),
        "{similar:?}"
    );
    assert_eq!(load("mamba", &options).choice().by, Reason::Score);
    // Who is named is taken, and with other threads it is another machine.
    assert_eq!(load("llama", &named(&options, "cpu")).choice().by, Reason::Name);
    let threads = herald::threads::available_threads().saturating_add(1);
    assert_eq!(
        load("llama", &LoadOptions { threads: Some(threads), ..options.clone() }).choice().by,
        Reason::Score
    );
    // The same plugin built anew is another file.
    let file = fs::File::options().append(true).open(&example).expect("the plugin's file");
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("another time");
    let choice = load("llama", &options).choice().clone();
    assert!(choice.by == Reason::Score && choice.why.contains("other plugins"), "{choice:?}");
}

/// One plugin computes a prompt's pages and another reads them: as when one engine saves a sequence and another goes on.
#[test]
fn one_backend_computes_prompts_and_another_goes_on() {
    let (folder, kept) = (folder(), folder());
    let (cpu, example) = (cpu_plugin(), example(folder.path()));
    let options = options(&[&cpu, &example], kept.path());
    let ids: Vec<u32> = (0..41).map(|index| 7 * index + 3).collect();
    let (prompt, next) = (&ids[..40], ids[40]);
    let state = folder.path().join("state");
    for (prefill, decode) in [("example-c", "cpu"), ("cpu", "example-c")] {
        let speeds = |name: &str| if name == prefill { [1000.0, 10.0] } else { [500.0, 1000.0] };
        backend_choice::keep(&invented(&tiny("llama"), &options, speeds), kept.path()).expect("it is kept");
        let both = load("llama", &options);
        assert_eq!((both.choice().prefill.as_str(), both.choice().decode.as_str()), (prefill, decode));
        assert!(both.choice().why.contains("weights of their own"), "{}", both.choice().why);
        assert_eq!(both.backends().len(), 2, "{:?}", both.backends());
        let mut sequence = both.sequence().expect("a sequence");
        let after_prompt = both.prefill(&mut sequence, prompt).expect("logits");
        let after_next = both.decode(&mut [(&mut sequence, next)]).expect("logits");

        let first = load("llama", &named(&options, prefill));
        let mut sequence = first.sequence().expect("a sequence");
        assert_eq!(bits(&first.prefill(&mut sequence, prompt).expect("logits")), bits(&after_prompt));
        first.save(&sequence, &[], &state).expect("it is saved");
        let second = load("llama", &named(&options, decode));
        let mut sequence = second.restore(&state).expect("it is restored").sequence;
        assert_eq!(bits(&second.decode(&mut [(&mut sequence, next)]).expect("logits")), bits(&after_next));
    }
}

/// A plugin that takes seconds for a token ends the measurement of itself only.
#[test]
fn a_backend_that_is_too_slow_is_not_measured() {
    let (folder, kept) = (folder(), folder());
    let (cpu, slow) = (cpu_plugin(), compile("host/tests/plugins/faulty.c", "FORWARD_SLOW", folder.path()));
    let options = options(&[&cpu, &slow], kept.path());
    let limit = std::time::Duration::from_secs(2);
    let record =
        herald::calibrate_within(&tiny("llama"), &options, limit, &mut |_| true).expect("it is measured");
    let of =
        |name: &str| record.backends.iter().find(|measured| measured.plugin.name == name).expect("figures");
    let reason = of("faulty").refused.as_deref().expect("it is refused");
    assert!(reason.contains("too slow") && reason.contains("2 s"), "{reason}");
    // The reference is measured however slow the machine is, once.
    assert!(of("cpu").speeds.is_some() && of("faulty").speeds.is_none(), "{record:?}");
}

#[test]
fn models_with_recurrent_states_stay_on_one_backend() {
    let (folder, kept) = (folder(), folder());
    let (cpu, example) = (cpu_plugin(), example(folder.path()));
    let options = options(&[&cpu, &example], kept.path());
    let speeds = |name: &str| if name == "cpu" { [1000.0, 10.0] } else { [500.0, 1000.0] };
    backend_choice::keep(&invented(&tiny("jamba"), &options, speeds), kept.path()).expect("it is kept");
    let choice = load("jamba", &options).choice().clone();
    assert_eq!(
        (choice.by, choice.prefill, choice.decode),
        (Reason::Calibration, "example-c".into(), "example-c".into())
    );
}

#[test]
fn a_backend_that_fails_at_prompts_is_left_out() {
    let (folder, kept) = (folder(), folder());
    let (cpu, faulty) = (cpu_plugin(), compile("host/tests/plugins/faulty.c", "CREATE_FAILS", folder.path()));
    let options = options(&[&cpu, &faulty], kept.path());
    let speeds = |name: &str| if name == "faulty" { [1000.0, 10.0] } else { [500.0, 1000.0] };
    backend_choice::keep(&invented(&tiny("llama"), &options, speeds), kept.path()).expect("it is kept");
    let engine = load("llama", &options);
    let choice = engine.choice();
    assert!(choice.prefill == "cpu" && choice.why.contains("this plugin makes nothing"), "{choice:?}");
    assert_eq!(engine.backends(), [("cpu".to_owned(), 8)]);
    // It can be calibrated beside the others, and has no figures.
    let record = calibrate(&tiny("llama"), &options, &mut |_| true).expect("it is measured");
    let speeds = |name: &str| {
        let figures = record.backends.iter().find(|figures| figures.plugin.name == name);
        figures.expect("figures").speeds
    };
    assert!(speeds("cpu").is_some() && speeds("faulty").is_none(), "{record:?}");
}
