//! docs/PLUGINS.md and docs/PLUGINS_REFERENCE.md name everything that `include/herald_plugin.h` does, and nothing that it doesn't.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names in a text: runs of letters, digits and `_`.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The header's constants.
fn constants(header: &str) -> Vec<&str> {
    let of = |line: &'_ str| -> Option<(usize, usize)> {
        let name = line.strip_prefix("#define ")?.split(' ').next()?;
        // A constant has a number; guards have none, and HERALD_EXPORT is a word of the compiler's.
        let number = line.split(' ').nth(2)?.starts_with(|c: char| c.is_ascii_digit() || c == '(');
        number.then_some(("#define ".len(), "#define ".len() + name.len()))
    };
    header.lines().filter_map(|line| of(line).map(|(start, end)| &line[start..end])).collect()
}

/// The header's structs, each with its fields.
fn structs(header: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut found = BTreeMap::new();
    let mut rest = header;
    while let Some(start) = rest.find("typedef struct Herald") {
        rest = &rest[start + "typedef struct ".len()..];
        let Some((name, body)) = rest.split_once([' ', ';']).filter(|(_, body)| body.starts_with('{')) else {
            continue;
        };
        let body = &body[1..body.find(&format!("}} {name};")).expect("the struct's end")];
        let code: Vec<&str> = body.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        // A function's parameters lie between its field's declaration and the next `;`.
        let starts = code.iter().scan(true, |begins, line| {
            let first = std::mem::replace(begins, line.trim_end().ends_with(';') || line.trim().is_empty());
            Some(if first { Some(*line) } else { None })
        });
        let field = |line: &'_ str| -> Option<(usize, usize)> {
            let start = line.find("(*").map(|at| at + 2);
            let end = match start {
                Some(start) => start + line[start..].find(')')?,
                None => line.find([';', '['])?,
            };
            let start = start.unwrap_or(line[..end].rfind([' ', '*'])? + 1);
            Some((start, end))
        };
        let fields = starts.flatten().filter_map(|line| field(line).map(|(start, end)| &line[start..end]));
        found.insert(name, fields.filter(|field| !["struct_size", "reserved"].contains(field)).collect());
    }
    found
}

/// The part of a page under a heading, up to the next.
fn section<'p>(page: &'p str, heading: &str) -> &'p str {
    let start =
        page.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("there is no heading {heading:?}"));
    let text = &page[start + heading.len() + 2..];
    &text[..text.find("\n#").unwrap_or(text.len())]
}

#[test]
fn every_constant_is_in_the_guide() {
    let (header, reference) = (read("include/herald_plugin.h"), read("docs/PLUGINS_REFERENCE.md"));
    let constants = constants(&header);
    assert!(constants.len() > 100, "{constants:?}");
    let missing: Vec<_> =
        constants.iter().filter(|name| !words(&reference).any(|word| word == **name)).collect();
    assert!(missing.is_empty(), "docs/PLUGINS_REFERENCE.md lacks {missing:?}");
    let defined = |word: &str| {
        constants.contains(&word)
            || header.contains(&format!("#define {word} "))
            // As in HERALD_STATUS_*.
            || (word.ends_with('_') && constants.iter().any(|name| name.starts_with(word)))
    };
    let unknown: Vec<_> =
        words(&reference).filter(|word| word.starts_with("HERALD_") && !defined(word)).collect();
    assert!(unknown.is_empty(), "docs/PLUGINS_REFERENCE.md has {unknown:?}, which the header doesn't");
}

#[test]
fn every_field_is_in_the_guide() {
    let (header, reference) = (read("include/herald_plugin.h"), read("docs/PLUGINS_REFERENCE.md"));
    let structs = structs(&header);
    assert!(structs.len() >= 30 && structs["HeraldTierTable"].contains(&"flush"), "{structs:?}");
    for (name, fields) in structs {
        let rows: Vec<&str> = section(&reference, &format!("### {name}"))
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .collect();
        assert_eq!(
            rows, fields,
            "the fields of {name} in docs/PLUGINS_REFERENCE.md, and those in the header"
        );
    }
}

/// What an author implements or calls is explained, not only listed.
#[test]
fn every_function_is_explained() {
    let (header, guide) = (read("include/herald_plugin.h"), read("docs/PLUGINS.md"));
    for (name, fields) in structs(&header) {
        let is_function = |field: &&&str| header.contains(&format!("(*{field})("));
        for field in fields.iter().filter(is_function) {
            assert!(
                words(&guide).any(|word| word == *field),
                "docs/PLUGINS.md says nothing of {name}.{field}"
            );
        }
    }
}

/// The code that the page shows for pages is the example's, which is tested.
#[test]
fn the_code_for_pages_is_the_examples() {
    let (guide, example) = (read("docs/PLUGINS.md"), read("examples/plugin-attention/pages.c"));
    let blocks: Vec<&str> = section(&guide, "### Pages")
        .split("```c\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        assert!(example.contains(block), "examples/plugin-attention/pages.c has not this code:\n{block}");
    }
}
