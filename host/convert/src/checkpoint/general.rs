//! What a file says of itself: the keys `general.*`.

use std::path::Path;

use serde_json::{Map, Value};

use super::error::Result;
use super::json;
use super::meta::{Item, Meta};
use super::recipe::Recipe;

/// How a publisher recommends to sample, by the names of `generation_config.json`.
const SAMPLING: [(&str, &str); 6] = [
    ("top_k", "top_k"),
    ("top_p", "top_p"),
    ("min_p", "min_p"),
    ("temperature", "temp"),
    ("repetition_penalty", "penalty_repeat"),
    ("penalty_last_n", "penalty_last_n"),
];

/// What is written of the model as a whole, in the order in which llama.cpp's converter does.
pub(super) fn write(meta: &mut Meta, folder: &Path, name: &str, tensors: &[(String, Recipe)]) -> Result<()> {
    meta.set("general.type", "model");
    // Not all checkpoints have a valid one, and none needs it.
    let sampling = json::object(&folder.join("generation_config.json")).ok().flatten().unwrap_or_default();
    write_sampling(meta, &sampling);
    meta.set("general.name", name);
    meta.set("general.size_label", size_label(tensors).as_str());
    Ok(())
}

fn write_sampling(meta: &mut Meta, sampling: &Map<String, Value>) {
    for (published, key) in SAMPLING {
        let Some(value) = sampling.get(published) else { continue };
        let key = format!("general.sampling.{key}");
        if published == "top_k" || published == "penalty_last_n" {
            if let Some(count) = value.as_i64().and_then(|count| i32::try_from(count).ok()) {
                meta.set(&key, Item::I32(count));
            }
        } else if let Some(number) = value.as_f64().filter(|number| (*number as f32).is_finite()) {
            meta.set(&key, number);
        }
    }
}

/// A name as a title: words apart, and those in small letters with a capital.
pub(super) fn title(name: &str) -> String {
    let is_version = |word: &str| {
        let digits = word.strip_prefix('v').unwrap_or(word);
        digits.starts_with(|c: char| c.is_ascii_digit())
            && (digits.len() == word.len() || digits.chars().all(|c| c.is_ascii_digit() || c == '.'))
    };
    let is_small = |word: &str| word.chars().any(char::is_lowercase) && !word.chars().any(char::is_uppercase);
    let capital = |word: &str| {
        let mut after_letter = false;
        word.chars()
            .map(|c| {
                let capital = if after_letter { c } else { c.to_ascii_uppercase() };
                after_letter = c.is_alphabetic();
                capital
            })
            .collect()
    };
    let words = name.split(|c: char| c == '-' || c.is_whitespace()).filter(|word| !word.is_empty());
    let words: Vec<String> = words
        .map(|word| if is_small(word) && !is_version(word) { capital(word) } else { word.to_owned() })
        .collect();
    words.join(" ")
}

/// How large it is, in few letters: `1.5B`, or `8x7B` with experts.
fn size_label(tensors: &[(String, Recipe)]) -> String {
    let (mut shared, mut of_expert, mut experts, mut stacks) = (0_usize, 0_usize, 0_usize, 0_usize);
    for (name, recipe) in tensors {
        let size = recipe.elements();
        let from_end = if name.contains(".bias") { 2 } else { 3 };
        let count = recipe.dims.len().checked_sub(from_end).and_then(|at| recipe.dims.get(at)).copied();
        match count.filter(|count| name.contains("_exps.") && recipe.dims.len() >= 3 && *count > 0) {
            Some(count) => {
                of_expert += size / count;
                experts += count;
                stacks += 1;
            }
            None => shared += size,
        }
    }
    match experts.checked_div(stacks) {
        Some(count) => format!("{count}x{}", rounded(shared + of_expert)),
        None => rounded(shared),
    }
}

/// A count with two digits at least.
fn rounded(count: usize) -> String {
    let count = count as f64;
    let (scaled, unit) = match count {
        _ if count > 1e12 => (count * 1e-12, "T"),
        _ if count > 1e9 => (count * 1e-9, "B"),
        _ if count > 1e6 => (count * 1e-6, "M"),
        _ => (count * 1e-3, "K"),
    };
    let whole = scaled.round_ties_even();
    let digits = if whole == 0.0 { 0 } else { format!("{whole}").len() };
    format!("{scaled:.*}{unit}", 2_usize.saturating_sub(digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_titles() {
        for (name, expected) in [
            ("smollm2-135m-instruct", "Smollm2 135m Instruct"),
            ("Qwen2.5-0.5B v1.2-chat", "Qwen2.5 0.5B v1.2 Chat"),
            ("hf_llama", "Hf_Llama"),
        ] {
            assert_eq!(title(name), expected);
        }
    }

    #[test]
    fn sizes_have_two_digits() {
        for (count, expected) in [
            (134_515_008, "135M"),
            (1_543_714_304, "1.5B"),
            (7_000, "7.0K"),
            (99, "0.10K"),
            (46_700_000_000, "47B"),
        ] {
            assert_eq!(rounded(count), expected);
        }
    }
}
