//! Many requests over one engine: each answer is the one given alone, none is lost, and no memory is left behind.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use herald::sampler::SamplerConfig;
use herald::schedule::{Event, Request, Scheduler, SchedulerOptions, Ticket};
use herald::{Error, Finish, GenerateOptions, Generated, LoadOptions, NeuroEngine};
use herald_testing::{cpu_options, load_tiny, tiny};

/// Numbers that look random and are the same every time.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % most
    }
}

/// A greedy request of random length. (Drawn tokens turn on the last bit of a logit, which may depend on a batch's size.)
fn request(random: &mut Random, vocabulary: usize) -> Request {
    let len = 1 + random.below(60);
    let prompt = (0..len).map(|_| random.below(vocabulary) as u32).collect();
    let options = GenerateOptions {
        max_tokens: Some(1 + random.below(24)),
        sampler: SamplerConfig {
            repetition_penalty: if random.below(3) == 0 { 1.1 } else { 1.0 },
            seed: Some(random.below(1000) as u64),
            ..SamplerConfig::default()
        },
        stop: if random.below(4) == 0 { vec!["e".to_owned()] } else { Vec::new() },
        ignore_eos: random.below(2) == 0,
        ..GenerateOptions::default()
    };
    Request { prompt, options, client: format!("client {}", random.below(5)) }
}

fn alone(engine: &NeuroEngine, request: &Request) -> Generated {
    let mut sequence = engine.sequence().expect("a sequence");
    let (prompt, options) = (&request.prompt, &request.options);
    engine.generate(&mut sequence, prompt, options, &mut || true, &mut |_| true).expect("an answer")
}

/// Pages beside those of the prefix cache.
fn pages(engine: &NeuroEngine) -> u64 {
    engine.forget_prefixes();
    engine.memory_usage().tiers().iter().map(|(_, stats)| stats.pages).sum()
}

fn start(engine: &Arc<NeuroEngine>, options: SchedulerOptions) -> Scheduler {
    Scheduler::start(Arc::clone(engine), options).expect("a scheduler")
}

fn long(engine: &NeuroEngine, n: usize) -> Request {
    let options = GenerateOptions { max_tokens: Some(n), ignore_eos: true, ..GenerateOptions::default() };
    let prompt = vec![7 % engine.plan().vocabulary as u32; 5];
    Request { prompt, options, client: String::new() }
}

/// 200 requests at once.
fn equal_to_alone(model: &str, options: SchedulerOptions) {
    let engine = Arc::new(load_tiny(model));
    let mut random = Random(42);
    let requests: Vec<Request> = (0..200).map(|_| request(&mut random, engine.plan().vocabulary)).collect();
    let expected: Vec<Generated> = requests.iter().map(|request| alone(&engine, request)).collect();
    let scheduler = start(&engine, options);
    let tickets: Vec<Ticket> =
        requests.iter().map(|request| scheduler.submit(request.clone()).expect("a slot")).collect();
    for (index, ((ticket, expected), request)) in tickets.into_iter().zip(expected).zip(&requests).enumerate()
    {
        let (mut text, mut tokens) = (String::new(), Vec::new());
        let answer = loop {
            match ticket.next().expect("an end") {
                Event::Token { sampled, text: piece, tail } => {
                    text.push_str(&piece);
                    tokens.extend((!tail).then_some(sampled.token));
                }
                Event::Done(answer) => break answer,
                Event::Failed(error) => panic!("request {index}: {error}"),
            }
        };
        let found = &answer.generated;
        assert_eq!(found.text, expected.text, "{model}, request {index}: {request:?}");
        assert_eq!(found.tokens, expected.tokens, "{model}, request {index}: {request:?}");
        assert_eq!((found.finish.clone(), found.seed), (expected.finish, expected.seed), "request {index}");
        assert_eq!((text, tokens), (found.text.clone(), found.tokens.clone()), "request {index}");
        assert_eq!(found.prompt_tokens, request.prompt.len());
        assert_eq!(answer.metrics.generated_tokens, found.tokens.len());
        assert!(answer.metrics.first_token_s >= answer.metrics.queue_s, "{:?}", answer.metrics);
    }
    assert_eq!(pages(&engine), 0);
}

#[test]
fn answers_are_those_given_alone_llama() {
    equal_to_alone("llama", SchedulerOptions::default());
}

#[test]
fn answers_are_those_given_alone_gemma3_in_small_pieces() {
    equal_to_alone(
        "gemma3",
        SchedulerOptions { max_running: 7, prompt_piece: 5, ..SchedulerOptions::default() },
    );
}

#[test]
fn answers_are_those_given_alone_qwen35_in_small_pieces() {
    equal_to_alone(
        "qwen35",
        SchedulerOptions { max_running: 7, prompt_piece: 5, ..SchedulerOptions::default() },
    );
}

#[test]
fn answers_are_those_given_alone_kimi_linear() {
    equal_to_alone("kimi_linear", SchedulerOptions::default());
}

#[test]
fn random_cancels_leave_nothing_and_harm_nobody() {
    let engine = Arc::new(load_tiny("llama"));
    let mut random = Random(7);
    let scheduler =
        start(&engine, SchedulerOptions { max_running: 9, prompt_piece: 16, ..Default::default() });
    let mut kept = Vec::new();
    let mut cancelled = Vec::new();
    for _ in 0..200 {
        let mut request = request(&mut random, engine.plan().vocabulary);
        let ticket = match scheduler.submit(request.clone()) {
            Ok(ticket) => ticket,
            Err(error) => panic!("{error}"),
        };
        match random.below(4) {
            // At once, most of them still waiting.
            0 => {
                ticket.cancel();
                cancelled.push(ticket);
            }
            // After its first event.
            1 => {
                let _ = ticket.next();
                ticket.cancel();
                cancelled.push(ticket);
            }
            // Nobody cares any more.
            2 => drop(ticket),
            _ => {
                request.client.clear();
                kept.push((request, ticket));
            }
        }
    }
    for ticket in cancelled {
        // It may have ended before the wish came.
        ticket.wait().expect("an answer, whole or not");
    }
    for (request, ticket) in kept {
        assert_eq!(ticket.wait().expect("an answer").generated.text, alone(&engine, &request).text);
    }
    let end = Instant::now() + Duration::from_secs(30);
    while scheduler.load() != (0, 0) && Instant::now() < end {
        std::thread::yield_now();
    }
    assert_eq!((scheduler.load(), pages(&engine)), ((0, 0), 0));
}

#[test]
fn a_cancelled_request_frees_its_pages_before_it_says_so() {
    let engine = Arc::new(load_tiny("llama"));
    let scheduler = start(&engine, SchedulerOptions::default());
    let ticket = scheduler.submit(long(&engine, 400)).expect("a slot");
    assert!(matches!(ticket.next(), Some(Event::Token { .. })));
    assert!(pages(&engine) > 0);
    ticket.cancel();
    let answer = loop {
        match ticket.next() {
            Some(Event::Token { .. }) => {}
            Some(Event::Done(answer)) => break answer,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(answer.generated.finish, Finish::Cancelled);
    assert_eq!(pages(&engine), 0);
    assert!(ticket.next().is_none(), "nothing comes after the end");
}

#[test]
fn a_full_queue_says_so_and_a_waiting_request_is_cancelled_at_once() {
    let engine = Arc::new(load_tiny("llama"));
    let options = SchedulerOptions { max_running: 1, queue: 2, ..SchedulerOptions::default() };
    let scheduler = start(&engine, options);
    let running = scheduler.submit(long(&engine, 400)).expect("a slot");
    assert!(matches!(running.next(), Some(Event::Token { .. })));
    let first = scheduler.submit(long(&engine, 1)).expect("room in the queue");
    let _second = scheduler.submit(long(&engine, 1)).expect("room in the queue");
    let refused = scheduler.submit(long(&engine, 1)).err().expect("a full queue").to_string();
    assert_eq!(refused, "2 requests wait already, where the queue has room for 2: try again later");
    first.cancel();
    // The running one hasn't ended: this one's end doesn't wait for it.
    assert_eq!(first.wait().expect("an end").generated.finish, Finish::Cancelled);
    let third = scheduler.submit(long(&engine, 1)).expect("room again");
    drop(scheduler);
    for ticket in [running, third] {
        assert_eq!(ticket.wait().expect("an end").generated.finish, Finish::Cancelled);
    }
    assert_eq!(pages(&engine), 0);
}

#[test]
fn a_greedy_client_holds_nobody_up() {
    let engine = Arc::new(load_tiny("llama"));
    let scheduler = start(&engine, SchedulerOptions { max_running: 2, ..SchedulerOptions::default() });
    let (sender, ends) = channel();
    let submit = |client: &str, n: usize| {
        let (sender, name) = (sender.clone(), client.to_owned());
        let sink = Box::new(move |event| {
            if matches!(event, Event::Done(_)) {
                sender.send(name.clone()).expect("the test listens");
            }
            true
        });
        let request = Request { client: client.to_owned(), ..long(&engine, n) };
        scheduler.submit_to(request, sink).expect("a slot");
    };
    for _ in 0..40 {
        submit("greedy", 12);
    }
    submit("modest", 12);
    let order: Vec<String> = (0..41).map(|_| ends.recv().expect("an end")).collect();
    let index = order.iter().position(|client| client == "modest").expect("it ends");
    // Those that had a slot when it came, and one that came before it, may end before it.
    assert!(index < 30, "it ended as number {index}");
}

#[test]
fn a_long_prompt_holds_nobody_up() {
    let engine = Arc::new(load_tiny("llama"));
    let scheduler = start(&engine, SchedulerOptions { prompt_piece: 8, ..SchedulerOptions::default() });
    let first = scheduler.submit(long(&engine, 60)).expect("a slot");
    assert!(matches!(first.next(), Some(Event::Token { .. })));
    let context = engine.context();
    let slow = Request { prompt: vec![3; context - 2], ..long(&engine, 1) };
    let slow = scheduler.submit(slow).expect("a slot");
    let quick = scheduler.submit(long(&engine, 2)).expect("a slot").wait().expect("an answer");
    let slow = slow.wait().expect("an answer");
    assert!(quick.metrics.total_s < slow.metrics.total_s);
    assert_eq!(first.wait().expect("an answer").generated.tokens.len(), 60);
}

#[test]
fn a_prompt_that_begins_as_an_earlier_one_takes_over_its_pages() {
    let options = LoadOptions { page_tokens: 16, ..cpu_options() };
    let load = |options| Arc::new(NeuroEngine::load(&tiny("llama"), &options).expect("the model"));
    let (engine, plain) = (load(options.clone()), load(LoadOptions { prefix_bytes: 0, ..options }));
    let scheduler = start(&engine, SchedulerOptions::default());
    for (last, shared) in [(3, 0), (4, 49), (3, 49)] {
        let mut request = long(&engine, 8);
        request.prompt = (1..50).chain([last]).collect();
        let expected = alone(&plain, &request);
        let found = scheduler.submit(request).expect("a slot").wait().expect("an answer").generated;
        assert_eq!((found.prompt_tokens, found.shared_tokens, found.tokens), (50, shared, expected.tokens));
    }
    assert_eq!(scheduler.metrics().report().shared_tokens, 98);
    let text = scheduler.metrics().prometheus(&engine);
    assert!(text.contains("\nherald_shared_tokens_total 98\n"), "{text}");
    assert_eq!(pages(&plain), 0);
    // Of the answers' last pages each is kept to its last token.
    assert_eq!(
        engine.memory_usage().prefix_bytes,
        engine.memory_usage().active.bytes,
        "only the cache's pages stay"
    );
}

#[test]
fn ends_are_as_alone() {
    let options = LoadOptions { context: Some(16), ..cpu_options() };
    let engine = Arc::new(NeuroEngine::load(&tiny("llama"), &options).expect("the model"));
    let scheduler = start(&engine, SchedulerOptions::default());
    let none = scheduler.submit(long(&engine, 0)).expect("a slot").wait().expect("an answer").generated;
    assert_eq!((none.finish, none.tokens.len()), (Finish::Length, 0));
    let full = scheduler.submit(long(&engine, 100)).expect("a slot").wait().expect("an answer").generated;
    assert_eq!((full.finish, full.tokens.len()), (Finish::ContextFull, 12));
    for (prompt, says) in [(vec![], "no tokens"), (vec![1; 17], "17 tokens"), (vec![99_999], "99999")] {
        let error = scheduler.submit(Request { prompt, ..Request::default() }).err().expect("a refusal");
        assert!(error.to_string().contains(says), "{error}");
    }
    let wrong = SamplerConfig { top_p: 2.0, ..SamplerConfig::default() };
    let options = GenerateOptions { sampler: wrong, ..GenerateOptions::default() };
    let refused = scheduler.submit(Request { options, ..long(&engine, 1) });
    assert!(matches!(refused.err(), Some(Error::Sampler(_))));
    let many = SchedulerOptions { max_running: 100_000, ..SchedulerOptions::default() };
    let error = Scheduler::start(Arc::clone(&engine), many).err().expect("a refusal").to_string();
    assert!(error.contains("100000") && error.contains("1 to 512"), "{error}");
}
