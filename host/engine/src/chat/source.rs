//! What must change in a template's source before it can be compiled.

/// Replaces `{% generation %}` and `{% endgeneration %}`, which mark an assistant's words for training and otherwise
/// print what is between them, by a condition that holds. Their whitespace control stays.
pub(super) fn without_training_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start + 2);
        out.push_str(before);
        let name = tag.trim_start_matches(['-', '+']).trim_start();
        let replaced =
            [("generation", "if true"), ("endgeneration", "endif")].into_iter().find_map(|(from, to)| {
                let end = name.strip_prefix(from)?;
                let close = end.trim_start().trim_start_matches(['-', '+']);
                close.starts_with("%}").then_some((end, to))
            });
        rest = tag;
        if let Some((end, to)) = replaced {
            out.push_str(&tag[..tag.len() - name.len()]);
            out.push_str(to);
            rest = end;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::without_training_tags;

    #[test]
    fn only_the_tags_change() {
        for (source, expected) in [
            ("a {%- generation -%} b {% endgeneration%}", "a {%- if true -%} b {% endif%}"),
            ("{% set generation = 1 %}{{ generation }}", "{% set generation = 1 %}{{ generation }}"),
            ("{% generations %}{% generation", "{% generations %}{% generation"),
            ("é{%generation%}🦀{%+ endgeneration +%}\n", "é{%if true%}🦀{%+ endif +%}\n"),
        ] {
            assert_eq!(without_training_tags(source), expected);
        }
    }
}
