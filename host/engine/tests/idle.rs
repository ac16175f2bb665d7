//! A process that has computed and computes no more uses no CPU. A test binary of its own, since it looks at its whole
//! process.

use std::num::NonZeroUsize;
use std::time::Duration;

use herald::metrics::cpu_time;
use herald::{LoadOptions, NeuroEngine};
use herald_testing::{cpu_options, tiny};

/// Threads of this process whose name begins as those of a pool.
#[cfg(target_os = "linux")]
fn pool_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("the threads of this process").flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("herald-")).count()
}

#[test]
fn idle_engines_share_their_threads_and_use_no_cpu() {
    let engines = [2, 3].map(|threads| {
        let options = LoadOptions { threads: NonZeroUsize::new(threads), ..cpu_options() };
        NeuroEngine::load(&tiny("llama"), &options).expect("the model")
    });
    std::thread::scope(|scope| {
        for engine in &engines {
            scope.spawn(|| {
                let mut sequence = engine.sequence().expect("a sequence");
                engine.prefill(&mut sequence, &[1, 2, 3, 4, 5]).expect("logits");
                for id in 0..20 {
                    engine.decode(&mut [(&mut sequence, id)]).expect("logits");
                }
            });
        }
    });
    #[cfg(target_os = "linux")]
    assert_eq!(pool_threads(), 2, "threads beside the callers");
    // Time to fall asleep; then half a second in which a thread that watched would use half a second.
    std::thread::sleep(Duration::from_millis(100));
    let before = cpu_time().expect("the system says");
    std::thread::sleep(Duration::from_millis(500));
    let used = cpu_time().expect("the system says") - before;
    assert!(used < Duration::from_millis(100), "idle for 500 ms, the process used {used:?}");
}
