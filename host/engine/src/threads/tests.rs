//! Each item once, on a worker of its own; no lost wake-up, deadlock or dead pool whatever the callers do.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::pool::Team;
use super::share::{Shares, share_of};
use super::*;

fn pool(threads: usize) -> ThreadPool {
    ThreadPool::new(NonZeroUsize::new(threads).unwrap()).unwrap()
}

/// Runs a loop and checks that it reached each item once, by one call of a worker at a time.
fn check_loop(pool: &ThreadPool, items: usize) {
    let visits: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
    let workers: Vec<Mutex<()>> = (0..pool.threads().get()).map(|_| Mutex::new(())).collect();
    pool.run(items, &|range, worker| {
        let _alone = workers[worker].try_lock().expect("one call of a worker at a time");
        assert!(!range.is_empty());
        for item in range {
            visits[item].fetch_add(1, Ordering::Relaxed);
        }
    });
    // Relaxed suffices: `run` has made the workers' writes visible.
    assert!(visits.iter().all(|visits| visits.load(Ordering::Relaxed) == 1));
}

/// Runs a loop in which each worker has one item: none gets on before all have theirs.
fn one_each(pool: &ThreadPool, body: impl Fn(usize) + Sync) {
    let threads = pool.threads().get();
    let all = Barrier::new(threads);
    pool.run(threads, &|range, worker| {
        assert_eq!(range.len(), 1);
        all.wait();
        body(worker);
    });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn shares_are_contiguous_and_even(items in prop_oneof![0usize..100, any::<usize>()], workers in 1usize..70) {
        let mut next = 0;
        let mut sizes = Vec::new();
        for worker in 0..workers {
            let share = share_of(items, worker, workers);
            prop_assert_eq!(share.start, next);
            next = share.end;
            sizes.push(share.len());
        }
        prop_assert_eq!(next, items);
        prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
        prop_assert!(share_of(items, workers, workers).is_empty());
    }

    /// Whoever takes when: items are given once, all of them, in no more pieces than pay off.
    #[test]
    fn shares_give_each_item_once(
        items in prop_oneof![0usize..200, any::<usize>()],
        workers in 1usize..9,
        turns in prop::collection::vec(0usize..8, 0..60),
    ) {
        let shares = Shares::new(8);
        let division = shares.divide(items, workers);
        let turns = turns.into_iter().filter(|turn| *turn < workers);
        let mut given = Vec::new();
        // Whatever the others have left, one worker can take.
        for worker in turns.chain(std::iter::repeat(workers - 1)) {
            match shares.take(&division, worker) {
                Some(range) => given.push(range),
                None => break,
            }
        }
        given.sort_by_key(|range| range.start);
        let mut next = 0;
        for range in &given {
            prop_assert!(range.start == next && !range.is_empty(), "{given:?}");
            next = range.end;
        }
        prop_assert_eq!(next, items);
        // Halves, of which the last few are as small as pieces get.
        prop_assert!(given.len() <= workers * 16, "{} pieces", given.len());
    }
}

#[test]
fn who_is_done_takes_what_others_have_left() {
    let pool = pool(2);
    let done = AtomicUsize::new(0);
    let slow = AtomicUsize::new(0);
    let begun = Instant::now();
    pool.run(1000, &|range, worker| {
        let first = worker == 0 && slow.fetch_add(1, Ordering::Relaxed) == 0;
        // Returns once all items but these are done: by the other worker, that is, half of whose own they aren't.
        while first && done.load(Ordering::Relaxed) + range.len() < 1000 {
            assert!(begun.elapsed() < Duration::from_secs(60), "the items of a slow worker are left to it");
            thread::yield_now();
        }
        done.fetch_add(range.len(), Ordering::Relaxed);
    });
    assert_eq!(done.into_inner(), 1000);
}

#[test]
fn each_item_is_visited_once() {
    for threads in [1, 2, 3, 8] {
        let pool = pool(threads);
        for items in [0, 1, 2, 3, 7, 8, 9, 1000] {
            (0..20).for_each(|_| check_loop(&pool, items));
        }
    }
}

#[test]
fn the_caller_is_worker_zero() {
    let caller = thread::current().id();
    one_each(&pool(3), |worker| assert_eq!(thread::current().id() == caller, worker == 0));
}

/// Pauses of all lengths around the time that workers watch before they sleep.
#[test]
fn no_wake_up_is_lost() {
    let mut random = 1u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for threads in [2, 3, 8] {
        let pool = pool(threads);
        let count = AtomicUsize::new(0);
        let mut expected = 0;
        for _ in 0..2000 {
            let items = 1 + next(2 * threads as u64) as usize;
            let slow = next(40) == 0;
            let pause = Duration::from_micros(next(120));
            pool.run(items, &|range, worker| {
                // Keeps the caller waiting long enough to sleep.
                if slow && worker == 1 {
                    thread::sleep(pause);
                }
                count.fetch_add(range.len(), Ordering::Relaxed);
            });
            expected += items;
            assert_eq!(count.load(Ordering::Relaxed), expected);
            if next(3) == 0 {
                thread::sleep(pause);
            }
        }
    }
}

#[test]
fn results_are_visible_without_further_synchronisation() {
    let pool = pool(4);
    let cells: Vec<AtomicUsize> = (0..4).map(|_| AtomicUsize::new(0)).collect();
    let mut sums = Vec::new();
    for round in 0..5000 {
        pool.run(4, &|range, _| range.for_each(|cell| cells[cell].store(round, Ordering::Relaxed)));
        sums.push(cells.iter().map(|cell| cell.load(Ordering::Relaxed)).sum::<usize>());
    }
    assert!(sums.iter().enumerate().all(|(round, &sum)| sum == 4 * round));
}

#[test]
fn callers_take_turns() {
    let pool = pool(3);
    let computing = AtomicUsize::new(0);
    let done = AtomicUsize::new(0);
    let start = Barrier::new(4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                start.wait();
                for _ in 0..500 {
                    pool.run(5, &|range, _| {
                        assert!(computing.fetch_add(1, Ordering::SeqCst) < 3, "more tasks than threads");
                        done.fetch_add(range.len(), Ordering::Relaxed);
                        computing.fetch_sub(1, Ordering::SeqCst);
                    });
                }
            });
        }
    });
    assert_eq!(done.into_inner(), 4 * 500 * 5);
}

/// Pools of several sizes that share their threads: one loop at a time, on no more threads than its pool has.
#[test]
fn pools_of_one_team_take_turns() {
    let team = Arc::new(Team::new(4));
    let pools = [4, 2, 3].map(|threads| ThreadPool::of(&team, NonZeroUsize::new(threads).unwrap()).unwrap());
    let (computing, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let workers = Mutex::new(HashSet::new());
    thread::scope(|scope| {
        for pool in &pools {
            let (computing, done, workers) = (&computing, &done, &workers);
            scope.spawn(move || {
                let threads = pool.threads().get();
                one_each(pool, |worker| {
                    if worker > 0 {
                        workers.lock().unwrap().insert(thread::current().id());
                    }
                });
                for round in 0..700 {
                    pool.run(5, &|range, worker| {
                        assert!(computing.fetch_add(1, Ordering::SeqCst) < threads && worker < threads);
                        done.fetch_add(range.len(), Ordering::Relaxed);
                        computing.fetch_sub(1, Ordering::SeqCst);
                    });
                    if round % 100 == 0 {
                        thread::sleep(Duration::from_micros(80));
                    }
                }
            });
        }
    });
    assert_eq!(done.into_inner(), 3 * 700 * 5);
    assert_eq!(workers.into_inner().unwrap().len(), 3, "threads beside the callers");
    // A loop inside another's runs in place, as worker 0 of its own pool.
    let [four, two, _] = &pools;
    four.run(4, &|_, _| two.run(2, &|range, inner| assert_eq!((range, inner), (0..2, 0))));
}

#[test]
fn engines_share_their_threads() {
    let shared = |threads| process::shared(NonZeroUsize::new(threads)).unwrap();
    let (two, three) = (shared(2), shared(3));
    assert_eq!((two.threads().get(), three.threads().get()), (2, 3));
    assert!(two.is_of_team_of(&three));
}

/// What the system lets this thread use is what counts, however many processors there are.
#[cfg(target_os = "linux")]
#[test]
fn affinity_is_honoured() {
    let allowed = thread::spawn(|| {
        // SAFETY: all zeros is a set of processors, and the calls only read and write the one that they are given.
        unsafe {
            let mut all: libc::cpu_set_t = std::mem::zeroed();
            assert_eq!(libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut all), 0);
            let first = (0..libc::CPU_SETSIZE as usize).find(|cpu| libc::CPU_ISSET(*cpu, &all)).unwrap();
            let mut one: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(first, &mut one);
            assert_eq!(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const one), 0);
        }
        available_threads()
    });
    assert_eq!(allowed.join().unwrap().get(), 1);
}

#[test]
fn a_loop_inside_a_loop_runs_in_place() {
    let (outer, other) = (pool(3), pool(2));
    let count = AtomicUsize::new(0);
    outer.run(3, &|_, worker| {
        let here = thread::current().id();
        outer.run(10, &|range, inner| {
            assert_eq!((thread::current().id(), inner, range.clone()), (here, worker, 0..10));
            count.fetch_add(range.len(), Ordering::Relaxed);
        });
        other.run(10, &|range, inner| {
            assert_eq!((thread::current().id(), inner, range.clone()), (here, 0, 0..10));
            count.fetch_add(range.len(), Ordering::Relaxed);
        });
    });
    assert_eq!(count.into_inner(), 60);
    // The caller is no worker any more.
    check_loop(&other, 2);
}

#[test]
fn two_pools_nested_both_ways_do_not_deadlock() {
    let (a, b) = (pool(2), pool(2));
    let count = AtomicUsize::new(0);
    thread::scope(|scope| {
        for (outer, inner) in [(&a, &b), (&b, &a)] {
            let count = &count;
            scope.spawn(move || {
                for _ in 0..500 {
                    outer.run(2, &|_, _| {
                        inner.run(2, &|range, _| {
                            count.fetch_add(range.len(), Ordering::Relaxed);
                        });
                    });
                }
            });
        }
    });
    assert_eq!(count.into_inner(), 2 * 500 * 2 * 2);
}

#[test]
fn a_panic_reaches_the_caller_after_all_have_ended() {
    let pool = pool(3);
    for culprit in 0..3 {
        let ended = AtomicUsize::new(0);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            one_each(&pool, |worker| {
                if worker == culprit {
                    std::panic::panic_any(format!("worker {worker}"));
                }
                thread::sleep(Duration::from_millis(1));
                ended.fetch_add(1, Ordering::Relaxed);
            });
        }));
        assert_eq!(*caught.unwrap_err().downcast::<String>().unwrap(), format!("worker {culprit}"));
        assert_eq!(ended.into_inner(), 2);
        check_loop(&pool, 100);
    }
    // All at once: the caller's own counts.
    let caught = catch_unwind(AssertUnwindSafe(|| one_each(&pool, |worker| std::panic::panic_any(worker))));
    assert_eq!(*caught.unwrap_err().downcast::<usize>().unwrap(), 0);
    check_loop(&pool, 100);
}

#[test]
fn dropped_awake_or_asleep_all_threads_end() {
    for pause in [0, 30, 60, 500] {
        for _ in 0..50 {
            let pool = pool(4);
            check_loop(&pool, 4);
            thread::sleep(Duration::from_micros(pause));
            drop(pool);
        }
    }
    drop(pool(4));
}

#[test]
fn too_many_threads_are_refused() {
    let error = ThreadPool::new(NonZeroUsize::MAX).unwrap_err().to_string();
    assert_eq!(error, format!("thread pool: {} threads were asked for, expected at most 1024", usize::MAX));
    assert!(available_threads().get() >= 1);
}
