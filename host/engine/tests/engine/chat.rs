//! Chat templates against what Jinja2 makes of them (`chat/render.py` wrote it), and against hostile ones.

use herald::chat::{ChatError, ChatTemplate, Message};
use serde::Deserialize;

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
    let folder = herald_testing::repository().join("host/tests/data/chat");
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

#[test]
fn templates_have_limits() {
    let doubled = |statement: &str| {
        format!(
            "{{% set ns = namespace(x=['a']) %}}{{% for i in range(50) %}}{statement}{{% endfor %}}{{{{ ns.x | tojson }}}}"
        )
    };
    for source in [
        "{% for i in range(99999) %}{% for i in range(99999) %}x{% endfor %}{% endfor %}",
        "{% for i in range(1000000000) %}x{% endfor %}",
        "{{ 'a' * 9999999999 }}",
        "{{ [0] * 9999999999 }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ '{:999999999}'.format(1) }}",
        "{{ 'x' | indent(999999999) }}",
        "{{ {'a': 1} | tojson(indent=999999999) }}",
        "{{ 'a'.replace('', 'b' * 100000).replace('', 'b' * 100000) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% set ns = namespace(x=[]) %}{% set ns.x = ns %}{{ ns | tojson }}",
        "{% include 'chat' %}",
        &doubled("{% set ns.x = ns.x ~ ns.x %}"),
        &doubled("{% set ns.x = [ns.x, ns.x] %}"),
        &format!("{{{{ {}1 }}}}", "(".repeat(100_000)),
        &"{% if true %}".repeat(10_000),
    ] {
        assert!(render(source).is_err(), "{source:.80}");
    }
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
    let folder = herald_testing::repository().join("host/tests/data/chat");
    for name in ["smollm2.jinja", "gemma.jinja", "llama3.jinja", "qwen.jinja", "chatml.jinja"] {
        let source = std::fs::read_to_string(folder.join(name)).unwrap();
        let text = ChatTemplate::new(&source, "<bos>", "<eos>").unwrap().render(&messages, true).unwrap();
        assert!(text.len() > 500_000, "{name}");
    }
}
