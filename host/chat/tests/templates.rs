//! Chat templates against what Jinja2 makes of them (`chat/render.py` wrote it), and hostile ones.

use std::path::{Path, PathBuf};

use herald_chat::{ChatError, ChatTemplate, Message};
use proptest::prelude::*;
use serde::Deserialize;

/// The folder of templates and what Jinja2 makes of them.
fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/chat")
}

#[derive(Deserialize)]
struct Case {
    template: String,
    messages: Vec<Message>,
    add_generation_prompt: bool,
    expected: Option<String>,
    raises: Option<String>,
}

#[test]
fn renders_as_jinja2_does() {
    let folder = data();
    let cases = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_str(&cases).unwrap();
    assert!(cases.len() > 50);
    for case in cases {
        let source = std::fs::read_to_string(folder.join(&case.template)).unwrap();
        let template = ChatTemplate::new(&source, "<bos>", "<eos>").unwrap();
        let rendered = template.render(&case.messages, case.add_generation_prompt);
        match case.raises {
            Some(message) => assert_eq!(rendered, Err(ChatError::Refused(message)), "{}", case.template),
            None => assert_eq!(rendered.unwrap(), case.expected.unwrap(), "{}", case.template),
        }
    }
}

#[derive(Deserialize)]
struct Snippet {
    source: String,
    /// None where Jinja2 fails.
    expected: Option<String>,
}

#[test]
fn expressions_are_pythons() {
    let path = data().join("snippets.json");
    let snippets: Vec<Snippet> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(snippets.len() > 100);
    let mut wrong = Vec::new();
    for Snippet { source, expected } in snippets {
        let rendered = ChatTemplate::new(&source, "<bos>", "<eos>")
            .and_then(|template| template.render(&[Message::new("user", "hello")], true));
        if rendered.as_ref().ok() != expected.as_ref() {
            wrong.push(format!("{source}: {rendered:?}, where {expected:?} was expected"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn render(source: &str) -> Result<String, ChatError> {
    ChatTemplate::new(source, "", "")?.render(&[Message::new("user", "hello")], true)
}

fn error(source: &str) -> String {
    render(source).expect_err(source).to_string()
}

#[test]
fn errors_are_one_sentence() {
    for (source, expected) in [
        ("{% for m in messages %}", ", line 1: syntax error: unexpected end of input, expected end of block"),
        ("\n{{ 'open", ", line 2: syntax error: unexpected end of string"),
        ("{% unknown %}", ", line 1: syntax error: unknown statement unknown"),
        ("{{ x | no_such }}", ", line 1: unknown filter: filter no_such is unknown"),
        ("{{ messages.no.such }}", ", line 1: undefined value: `messages.no` is undefined"),
        ("{{ no_such() }}", ", line 1: unknown function: no_such is unknown"),
        ("{{ 'a'.no_such() }}", ", line 1: unknown method: string has no method named no_such"),
        (
            "{% macro m() %}\n{{ 1 + 'a' }}{% endmacro %}\n{{ m() }}",
            ", line 2: invalid operation: tried to use + operator on unsupported types number and string",
        ),
        (
            "{{ nothing | tojson }}",
            ", line 1: invalid operation: tojson has no text for a value that is undefined",
        ),
        ("{{ raise_exception('Not you.') }}", ": refuses these messages: Not you."),
        (
            "{% macro m() %}{{ raise_exception('No.') }}{% endmacro %}{{ m() }}",
            ": refuses these messages: No.",
        ),
        (&" ".repeat(200_000), ": the source has 200000 bytes, expected at most 131072"),
    ] {
        assert_eq!(error(source), format!("chat template{expected}"));
    }
}

#[test]
fn the_date_is_there() {
    let year = render("{{ strftime_now('%Y') }}").unwrap();
    assert!(year.len() == 4 && year.parse::<u32>().unwrap() > 2020, "{year}");
}

/// Sixty steps that each double a value, and what then takes for ever.
fn doubled(init: &str, step: &str, then: &str) -> String {
    format!("{{% set ns = namespace({init}) %}}{{% for i in range(60) %}}{step}{{% endfor %}}{then}")
}

/// Asserts that each template is cut off, by whatever limit. They are as many as there are operations on values, so two threads
/// share them.
fn are_cut_off(sources: &[String]) {
    let is_cut_off = |source: &String| {
        let begin = std::time::Instant::now();
        let error = render(source).expect_err(source).to_string();
        assert!(!error.contains('\n') && error.len() < 300, "{source:.80}: {error}");
        // Far above what it takes, and far below for ever.
        assert!(begin.elapsed().as_secs() < 60, "{source:.80}");
    };
    let (half, others) = sources.split_at(sources.len() / 2);
    std::thread::scope(|scope| {
        scope.spawn(|| half.iter().for_each(is_cut_off));
        others.iter().for_each(is_cut_off);
    });
}

#[test]
fn shared_parts_are_counted_each_time() {
    let lists = |then: &str| {
        let step = "{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}";
        doubled("x=[1], y=[1]", step, then)
    };
    let tuples = |then: &str| {
        let step = "{% set ns.x = (ns.x, ns.x) %}{% set ns.y = (ns.y, ns.y) %}";
        doubled("x=(1,), y=(1,)", step, then)
    };
    let dicts = |then: &str| {
        let step = "{% set ns.x = {'a': ns.x, 'b': ns.x} %}{% set ns.y = {'a': ns.y, 'b': ns.y} %}";
        doubled("x=[1], y=[1]", step, then)
    };
    let mut sources = vec![
        tuples("{{ {ns.x: 1}[ns.y] }}"),
        tuples("{{ {ns.x: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 1, 7: 1, 8: 1, 9: 1} }}"),
        tuples("{{ [ns.x, ns.y] | unique | list }}"),
        tuples("{{ {}.fromkeys([ns.x, ns.y]) }}"),
    ];
    for then in [
        "{{ ns.x == ns.y }}",
        "{{ ns.x != ns.y }}",
        "{{ ns.x in [ns.y] }}",
        "{{ ns.x is eq ns.y }}",
        "{{ ns.x is in [ns.y] }}",
        "{{ ns.x }}",
        "{{ ns.x ~ '' }}",
        "{{ ns.x | string }}",
        "{{ ns.x | pprint }}",
        "{{ [ns.x] | join }}",
        "{{ ns.x | tojson }}",
        "{{ ns.x | tojson(indent=1) }}",
        "{{ '%s' % [ns.x] }}",
        "{{ '%r' | format(ns.x) }}",
        "{{ '{}'.format(ns.x) }}",
        "{{ '{!r}'.format(ns.x) }}",
        "{{ [ns.y].index(ns.x) }}",
        "{{ [ns.y].count(ns.x) }}",
        "{{ [ns.y] | select('eq', ns.x) | list }}",
        "{{ [{'a': ns.y}] | selectattr('a', 'eq', ns.x) | list }}",
        "{{ [ns.x] | map('string') | list }}",
        "{{ ns.x | upper }}",
        "{{ ns.x | trim }}",
        "{{ ns.x | indent }}",
        "{{ ns.x | wordcount }}",
        "{{ ns.x | replace(1, 2) }}",
        "{{ raise_exception(ns.x) }}",
        "{% for i in [ns.x, ns.y] %}{{ loop.changed(i) }}{% endfor %}",
        "{% set a %}{{ ns.x }}{% endset %}",
        "{% filter upper %}{{ ns.x }}{% endfilter %}",
        "{% macro m() %}{{ ns.x }}{% endmacro %}{{ m() }}",
    ] {
        sources.extend([lists(then), tuples(then), dicts(then)]);
    }
    for then in [
        "{{ [ns.x, ns.y] | sort }}",
        "{{ ns.x < ns.y }}",
        "{{ ns.x is lt ns.y }}",
        "{{ [ns.x, ns.y] | min }}",
        "{{ [{'a': ns.x}, {'a': ns.y}] | sort(attribute='a') }}",
        "{{ [{'a': ns.x}, {'a': ns.y}] | groupby('a') }}",
        "{{ {'a': ns.x, 'b': ns.y} | dictsort(by='value') }}",
    ] {
        sources.extend([lists(then), tuples(then)]);
    }
    are_cut_off(&sources);
}

#[test]
fn growth_is_counted() {
    let text = |step: &str| doubled("x='ab'", step, "{{ ns.x | length }}");
    let list = |step: &str| doubled("x=[1, 2]", step, "{{ ns.x | length }}");
    let mut sources: Vec<String> = [
        "{% set ns.x = ns.x ~ ns.x %}",
        "{% set ns.x = ns.x + ns.x %}",
        "{% set ns.x = ns.x * 2 %}",
        "{% set ns.x = ns.x.replace('a', 'aa') %}",
        "{% set ns.x = ns.x | replace('b', 'bb') %}",
        "{% set ns.x = ns.x | join(ns.x) %}",
        "{% set ns.x = ns.x.join([ns.x, ns.x]) %}",
        "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}",
        "{% set ns.x = '%s%s' % (ns.x, ns.x) %}",
        "{% set ns.x = '{0}{0}'.format(ns.x) %}",
        "{% set ns.x = (ns.x | list + ns.x | list) | join %}",
        "{% set ns.x = [ns.x, ns.x] | tojson %}",
        "{% set ns.x = ns.x.center(ns.x | length * 2) %}",
        "{% set ns.x = (ns.x, ns.x) | string %}",
        "{% set ns.x = ns.x | indent(1000000, true) %}",
    ]
    .map(text)
    .to_vec();
    sources.extend(
        [
            "{% set ns.x = ns.x + ns.x %}",
            "{% set ns.x = ns.x * 2 %}",
            "{% set ns.x = ns.x[:] + ns.x[::-1] %}",
            "{% set ns.x = ns.x | list + ns.x | reverse | list %}",
            "{% set ns.x = [ns.x, ns.x] | sum(start=[]) %}",
            "{% set ns.x = ns.x | map('string') | list + ns.x %}",
            "{% set ns.x = (ns.x + ns.x) | sort %}",
        ]
        .map(list),
    );
    are_cut_off(&sources);
}

#[test]
fn templates_have_limits() {
    let sources: Vec<String> = [
        "{% for i in range(99999) %}{% for i in range(99999) %}x{% endfor %}{% endfor %}",
        "{% for i in range(1000000000) %}x{% endfor %}",
        "{{ 'a' * 9999999999 }}",
        "{{ [0] * 9999999999 }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ '%.999999999f' % 1 }}",
        "{{ '{:999999999}'.format(1) }}",
        "{{ 'x' | indent(999999999, true) }}",
        "{{ 'x'.zfill(99999999999) }}{{ 'x'.rjust(999999999) }}",
        "{{ '\\t'.expandtabs(999999999) }}",
        "{{ [1] | batch(999999999, 0) | list }}",
        "{{ [1] | slice(999999999) | list }}",
        "{{ {'a': 1} | tojson(indent=999999999) }}",
        "{{ 'a'.replace('', 'b' * 100000).replace('', 'b' * 100000) }}",
        "{{ 7 ** 9999999999 }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(99) }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% set ns = namespace(x=[]) %}{% set ns.x = ns %}{{ ns | tojson }}",
        "{% include 'chat' %}",
        "{% set s = range(9999) | list %}{% for i in range(99999) %}{% set x = s | sort %}{% endfor %}",
        "{% set s = range(9999) | list %}{% for i in range(99999) %}{% set x = s == s[:] %}{% endfor %}",
        "{% set s = range(9999) | list %}{% for i in range(99999) %}{% set x = -1 in s %}{% endfor %}",
        "{% set s = 'a' * 999999 %}{% for i in range(99999) %}{% set x = s.upper() %}{% endfor %}",
        "{% set s = 'a' * 999999 %}{% for i in range(99999) %}{% set x = 'b' in s %}{% endfor %}",
        "{% set s = 'é' * 999999 %}{% for i in range(99999) %}{% set x = s[i] %}{% endfor %}",
        "{% set s = 'a' * 999999 %}{% for i in range(99999) %}{% set x = s.strip(s) %}{% endfor %}",
        "{% set s = 'a' * 999999 %}{% for i in range(99999) %}{% set x = s < s ~ 'b' %}{% endfor %}",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain([
        format!("{{{{ {}1 }}}}", "(".repeat(100_000)),
        format!("{{{{ {}1 }}}}", "[".repeat(100_000)),
        format!("{{{{ 1{} }}}}", " if 1".repeat(20_000)),
        "{% if true %}".repeat(10_000),
        format!("{{% for i in range(99999) %}}{}{{% endfor %}}", "x".repeat(60_000)),
    ])
    .collect();
    are_cut_off(&sources);
}

/// What would overflow a stack of usual size.
#[test]
fn deep_templates_are_harmless() {
    assert_eq!(render(&format!("{{{{ {}1 }}}}", "-".repeat(130_000))).unwrap(), "1");
    assert_eq!(render(&format!("{{{{ 1{} }}}}", "+1".repeat(50_000))).unwrap(), "50001");
    let nested = "{% set ns = namespace(x=[]) %}{% for i in range(400) %}{% for j in range(400) %}\
                  {% set ns.x = [ns.x] %}{% endfor %}{% endfor %}{{ ns.x | length }}";
    assert_eq!(render(nested).unwrap(), "1");
}

#[test]
fn long_conversations_are_within_the_limits() {
    let messages: Vec<Message> = (0..2000)
        .map(|turn| {
            Message::new(
                if turn % 2 == 0 { "user" } else { "assistant" },
                "Some words. ".repeat(1 + turn % 50),
            )
        })
        .collect();
    let folder = data();
    for name in ["smollm2.jinja", "gemma.jinja", "llama3.jinja", "qwen.jinja", "chatml.jinja"] {
        let source = std::fs::read_to_string(folder.join(name)).unwrap();
        let text = ChatTemplate::new(&source, "<bos>", "<eos>").unwrap().render(&messages, true).unwrap();
        assert!(text.len() > 500_000, "{name}");
    }
}

#[test]
fn megabytes_are_within_the_limits() {
    let messages: Vec<Message> = (0..60)
        .map(|turn| {
            let text = "Words é and <think>thoughts</think>, ".repeat(3000);
            Message::new(if turn % 2 == 0 { "user" } else { "assistant" }, text)
        })
        .collect();
    let folder = data();
    for name in ["smollm2.jinja", "gemma.jinja", "llama3.jinja", "qwen.jinja", "chatml.jinja"] {
        let source = std::fs::read_to_string(folder.join(name)).unwrap();
        let text = ChatTemplate::new(&source, "<bos>", "<eos>").unwrap().render(&messages, true).unwrap();
        assert!(text.len() > 500_000, "{name}");
    }
    // What a template may do with each text, and with all that it has written so far.
    let source = "{% set ns = namespace(out='') %}{% for m in messages %}{% set text = m.content | trim %}\
                  {% set text = (text.split('</think>') | join('|')).replace('a', 'b') | string | upper %}\
                  {% set ns.out = ns.out ~ text ~ (text | tojson) %}{% endfor %}{{ ns.out }}";
    assert!(ChatTemplate::new(source, "", "").unwrap().render(&messages, true).unwrap().len() > 10_000_000);
}

#[test]
fn a_hundred_tools_are_within_the_limits() {
    let source = "{% set ns = namespace(tools=[]) %}{% for i in range(100) %}\
        {% set p = namespace(d={}) %}{% for j in range(10) %}\
        {% set p.d = dict(p.d, **{'p' ~ j: {'type': 'string', 'description': 'words ' * 10}}) %}{% endfor %}\
        {% set ns.tools = ns.tools + [{'type': 'function', 'function': {'name': 'f' ~ i, 'parameters': {'properties': p.d}}}] %}\
        {% endfor %}\
        {% macro show(v) %}{% if v is mapping %}{% for k, w in v | dictsort %}{{ k }}: {{ show(w) }}{% endfor %}\
        {% else %}{{ v | tojson }}{% endif %}{% endmacro %}\
        {% for t in ns.tools %}{{ t | tojson(indent=4) }}{{ show(t.function) }}{% endfor %}";
    assert!(render(source).unwrap().len() > 200_000);
}

/// What templates are made of.
const PIECES: [&str; 48] = [
    "{% for x in ",
    "%}",
    "{% endfor %}",
    "{% if ",
    "{% elif ",
    "{% else %}",
    "{% endif %}",
    "{% set x = ",
    "{% set ns.x = ",
    "{% macro m(x) %}",
    "{% endmacro %}",
    "{% call m(1) %}",
    "{% endcall %}",
    "{% filter ",
    "{% endfilter %}",
    "{{ ",
    " }}",
    "{%- ",
    "-%}",
    "{# ",
    " #}",
    "{% raw %}",
    "{% endraw %}",
    "messages",
    "[0]",
    "[::-1]",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    ",",
    "'a%s'",
    "\"é\"",
    "1",
    "0.5",
    " if ",
    " else ",
    " in ",
    " not ",
    " is ",
    "| join(",
    "| tojson",
    ".split(",
    " ~ ",
    " * ",
    "\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_source_is_a_text_or_a_sentence(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..40)) {
        let source = pieces.concat();
        if let Err(error) = render(&source) {
            prop_assert!(!error.to_string().contains('\n'), "{source}: {error}");
            prop_assert!(!matches!(error, ChatError::Internal(_)), "{source}: {error}");
        }
    }
}
