//! A chat template and messages: a text or a sentence, in the time and the memory that a template may have.

use herald::chat::{ChatTemplate, Message};

use super::{DEFAULT, Target};

pub(super) const TARGET: Target = Target {
    name: "chat",
    run,
    seeds,
    words: &[
        "{% for i in range(99) %}",
        "{% endfor %}",
        "{% set ns = namespace(x=[1]) %}",
        "{% set ns.x = ns.x + ns.x %}",
        "{% set ns.x = [ns.x, ns.x] %}",
        "{{ ns.x == ns.x }}",
        "{% if ",
        "{% else %}",
        "{% endif %}",
        "{{ ",
        " }}",
        "{% macro m(a) %}",
        "{% endmacro %}",
        "{{ m(",
        "|tojson",
        "|sort",
        "|join(",
        "|string",
        "|map(",
        "|list",
        "|unique",
        "|replace(",
        "|indent(",
        "|groupby(",
        "|batch(",
        " in ",
        " ~ ",
        " * ",
        " ** ",
        "[::-1]",
        "(1,)",
        ".split(",
        ".format(",
        "%s",
        "|format(",
        "messages",
        "loop.",
        "{%- ",
        " -%}",
        "{% call(x) ",
        "{% endcall %}",
        "{% filter ",
        "{% endfilter %}",
        "recursive ",
        "{% raw %}",
        "{% endraw %}",
        "{#",
        "#}",
        "\n--\n",
        "**",
        "9999999",
    ],
    max_len: 16 << 10,
    // The budget of a small conversation, in a build for debugging.
    cpu_ms: 1000,
    memory_mb: 64,
    ..DEFAULT
};

/// The templates of the tests.
fn seeds() -> Vec<Vec<u8>> {
    let folder = super::super::folder().join("../host/tests/data/chat");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.path()).collect();
    files.sort();
    let templates = files.iter().filter(|file| file.extension().is_some_and(|name| name == "jinja"));
    templates
        .filter_map(|file| std::fs::read(file).ok())
        .map(|template| {
            [template, b"\n--\nHello!\n--\nHello. <think>x</think> y\n--\nAgain".to_vec()].concat()
        })
        .collect()
}

fn run(input: &[u8]) -> String {
    let parts = super::parts(input);
    let (template, messages) =
        parts.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    let roles = ["user", "assistant", "system"];
    let messages: Vec<Message> =
        messages.iter().enumerate().map(|(place, text)| Message::new(roles[place % 3], text)).collect();
    let rendered =
        ChatTemplate::new(template, "<s>", "</s>").and_then(|template| template.render(&messages, true));
    match rendered {
        Ok(_) => "rendered".to_owned(),
        // The template's own words may have lines.
        Err(herald::chat::ChatError::Refused(_)) => "refused".to_owned(),
        Err(error) => error.to_string(),
    }
}
