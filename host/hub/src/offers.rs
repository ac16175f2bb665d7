//! The models among a repository's files, and which of them is taken.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::names::Wanted;

/// Quants from the one that is taken first: of about 4 bits, which cost little quality; then larger ones; then smaller ones, for
/// what would not fit otherwise. `UD-` before one (Unsloth's mixes) counts as the one itself where it has no place of its own.
pub const ORDER: [&str; 50] = [
    "Q4_K_M",
    "UD-Q4_K_XL",
    "Q4_K_XL",
    "Q4_K_L",
    "MXFP4",
    "MXFP4_MOE",
    "Q4_K_S",
    "Q4_K",
    "IQ4_NL",
    "IQ4_XS",
    "Q4_1",
    "Q4_0",
    "NVFP4",
    "Q4",
    "Q5_K_M",
    "Q5_K_XL",
    "Q5_K_L",
    "Q5_K_S",
    "Q5_K",
    "Q5_1",
    "Q5_0",
    "Q6_K",
    "Q6_K_XL",
    "Q6_K_L",
    "Q8_0",
    "Q8_K_XL",
    "BF16",
    "F16",
    "F32",
    "Q3_K_XL",
    "Q3_K_L",
    "Q3_K_M",
    "IQ3_M",
    "Q3_K_S",
    "IQ3_S",
    "IQ3_XS",
    "Q3_K",
    "IQ3_XXS",
    "Q2_K_XL",
    "Q2_K_L",
    "Q2_K",
    "IQ2_M",
    "IQ2_S",
    "IQ2_XS",
    "IQ2_XXS",
    "TQ2_0",
    "TQ1_0",
    "IQ1_M",
    "IQ1_S",
    "Q1_0",
];

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoFile {
    /// Its path in the repository.
    pub path: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its SHA-256 in hexadecimal, where the hub has one.
    pub sha256: Option<String>,
}

/// A model: a file, or the parts of a split one in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its quant as its files' names have it, in capitals; `None` where they have none.
    pub quant: Option<String>,
    /// Its files.
    pub files: Vec<RepoFile>,
}

impl Offer {
    /// The size of its files in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    /// The path of its first file.
    #[must_use]
    pub fn path(&self) -> &str {
        self.files.first().map_or("", |file| &file.path)
    }

    /// Where its quant stands in [`ORDER`]; one without a place comes last.
    fn rank(&self) -> usize {
        let quant = self.quant.as_deref().unwrap_or_default();
        let place = |name: &str| ORDER.iter().position(|known| *known == name);
        let plain = quant.strip_prefix("UD-").unwrap_or(quant);
        place(quant).or_else(|| place(plain)).unwrap_or(ORDER.len())
    }

    /// The name that a user can tell it by: its quant, or its file.
    #[must_use]
    pub fn tag(&self) -> &str {
        self.quant.as_deref().unwrap_or_else(|| file_name(self.path()))
    }
}

/// The models among these files. Those of images and sound (`mmproj`) and importance matrices are none, nor are parts of a split
/// one whose others are missing.
#[must_use]
pub fn offers(files: &[RepoFile]) -> Vec<Offer> {
    let mut groups: BTreeMap<(String, u32), BTreeMap<u32, RepoFile>> = BTreeMap::new();
    for file in files {
        let lower = file.path.to_ascii_lowercase();
        let name = file_name(&lower);
        if !name.ends_with(".gguf") || name.contains("mmproj") || name.contains("imatrix") {
            continue;
        }
        let stem = &file.path[..file.path.len() - ".gguf".len()];
        let (stem, part, count) = part_of(stem).unwrap_or((stem, 1, 1));
        groups.entry((stem.to_owned(), count)).or_default().insert(part, file.clone());
    }
    let whole = groups.into_iter().filter(|((_, count), parts)| {
        parts.len() as u64 == u64::from(*count) && parts.keys().copied().eq(1..=*count)
    });
    whole
        .map(|((stem, _), parts)| Offer { quant: quant_of(&stem), files: parts.into_values().collect() })
        .collect()
}

/// The model that is wanted, of those that a repository has. `memory` is this machine's RAM in bytes, of which a model's file
/// may take three quarters; 0 where that isn't known. A tag or a path is taken whatever its size.
///
/// # Errors
/// Where there is none, with those that there are.
pub fn choose<'a>(repo: &str, offers: &'a [Offer], wanted: &Wanted, memory: u64) -> Result<&'a Offer> {
    if offers.is_empty() {
        return Err(Error::Failed(format!(
            "{repo} has no model as a GGUF file, where one was expected: a repository whose name ends in -GGUF may have it"
        )));
    }
    match wanted {
        Wanted::Path(path) => {
            offers.iter().find(|offer| offer.files.iter().any(|file| file.path == *path)).ok_or_else(|| {
                Error::Failed(format!(
                    "{repo} has no model {path}, where one of these was expected: {}",
                    listed(offers)
                ))
            })
        }
        Wanted::Tag(tag) => only(repo, tag, tagged(offers, tag), offers),
        Wanted::Any => {
            let limit = limit(memory);
            let fit = offers.iter().filter(|offer| offer.bytes() <= limit);
            let Some(best) = fit.min_by_key(|offer| (offer.rank(), offer.bytes())) else {
                return Err(none_fits(repo, offers, memory));
            };
            let same = offers.iter().filter(|offer| offer.quant == best.quant && offer.bytes() <= limit);
            only(repo, best.tag(), same.collect(), offers)
        }
    }
}

/// The model that is wanted of those that were pulled. Unlike [`choose`] it never asks for more: of several, the best is meant.
pub(crate) fn best<'a>(offers: &'a [Offer], wanted: &Wanted, memory: u64) -> Option<&'a Offer> {
    match wanted {
        Wanted::Path(path) => offers.iter().find(|offer| offer.files.iter().any(|file| file.path == *path)),
        Wanted::Tag(tag) => {
            tagged(offers, tag).into_iter().min_by_key(|offer| offer.path().matches('/').count())
        }
        Wanted::Any => {
            let limit = limit(memory);
            offers.iter().min_by_key(|offer| (offer.bytes() > limit, offer.rank(), offer.bytes()))
        }
    }
}

/// The models that are meant where all of a kind are.
pub(crate) fn all<'a>(offers: &'a [Offer], wanted: &Wanted) -> Vec<&'a Offer> {
    match wanted {
        Wanted::Any => offers.iter().collect(),
        Wanted::Tag(tag) => tagged(offers, tag),
        Wanted::Path(_) => best(offers, wanted, 0).into_iter().collect(),
    }
}

/// Bytes that a model may have on a machine with so much RAM.
fn limit(memory: u64) -> u64 {
    if memory == 0 { u64::MAX } else { memory / 4 * 3 }
}

fn none_fits(repo: &str, offers: &[Offer], memory: u64) -> Error {
    let smallest = offers.iter().min_by_key(|offer| offer.bytes());
    let (tag, bytes) = smallest.map_or(("", 0), |offer| (offer.tag(), offer.bytes()));
    Error::Failed(format!(
        "no model of {repo} fits into three quarters of this machine's RAM of {}: the smallest, {tag}, has {}; {repo}:{tag} \
         names it all the same",
        gigabytes(memory),
        gigabytes(bytes)
    ))
}

/// The models that a tag means: of that quant, or else of that file name, or else with it as a word of their path.
fn tagged<'a>(offers: &'a [Offer], tag: &str) -> Vec<&'a Offer> {
    let by = |is: &dyn Fn(&Offer) -> bool| offers.iter().filter(|offer| is(offer)).collect::<Vec<_>>();
    let same =
        |text: &str| text.eq_ignore_ascii_case(tag) || text.eq_ignore_ascii_case(&format!("{tag}.gguf"));
    let quant = by(&|offer| offer.quant.as_deref().is_some_and(|quant| quant.eq_ignore_ascii_case(tag)));
    if !quant.is_empty() {
        return quant;
    }
    let named = by(&|offer| offer.files.iter().any(|file| same(&file.path) || same(file_name(&file.path))));
    if !named.is_empty() {
        return named;
    }
    by(&|offer| has_word(&offer.path().to_ascii_lowercase(), &tag.to_ascii_lowercase()))
}

/// The one of several that are meant: of those that don't lie in folders, if there are any.
fn only<'a>(repo: &str, tag: &str, found: Vec<&'a Offer>, offers: &[Offer]) -> Result<&'a Offer> {
    let depth = |offer: &Offer| offer.path().matches('/').count();
    let least = found.iter().map(|offer| depth(offer)).min();
    let found: Vec<&Offer> = found.into_iter().filter(|offer| Some(depth(offer)) == least).collect();
    match found.as_slice() {
        [only] => Ok(only),
        [] => Err(Error::Failed(format!(
            "{repo} has no {tag}, where one of these was expected: {}",
            listed(offers)
        ))),
        several => {
            let names: Vec<&str> = several.iter().map(|offer| file_name(offer.path())).take(8).collect();
            Err(Error::Failed(format!(
                "{repo} has {} models that {tag} means, where one was expected: {repo}:FILE names one of {}",
                several.len(),
                names.join(", ")
            )))
        }
    }
}

/// The tags of models, with their sizes.
fn listed(offers: &[Offer]) -> String {
    let mut sorted: Vec<&Offer> = offers.iter().collect();
    sorted.sort_by_key(|offer| offer.bytes());
    let mut shown: Vec<String> = sorted
        .iter()
        .take(60)
        .map(|offer| format!("{} ({})", offer.tag(), gigabytes(offer.bytes())))
        .collect();
    if sorted.len() > shown.len() {
        shown.push(format!("and {} more", sorted.len() - shown.len()));
    }
    shown.join(", ")
}

fn gigabytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{bytes} bytes"),
        1_000_000..1_000_000_000 => format!("{:.0} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// The last part of a path.
fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// What a name without its ending says of a split model: the rest of it, which part it is, and of how many.
pub(crate) fn part_of(stem: &str) -> Option<(&str, u32, u32)> {
    let number = |digits: &str| {
        let is_number = digits.len() == 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
        if is_number { digits.parse().ok().filter(|number| *number > 0) } else { None }
    };
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (rest, part) = rest.rsplit_once('-')?;
    Some((rest, number(part)?, number(count)?))
}

/// The quant that a name has, in capitals: the last word that is one.
fn quant_of(stem: &str) -> Option<String> {
    let name = file_name(stem).to_ascii_uppercase();
    let starts = name.char_indices().filter(|(at, c)| {
        c.is_ascii_alphanumeric() && !name[..*at].ends_with(|before: char| before.is_ascii_alphanumeric())
    });
    let word = |at: usize| {
        let rest = &name[at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    };
    let found = starts.map(|(at, _)| (at, word(at))).rfind(|(_, word)| is_quant(word));
    found.map(|(at, word)| match (name[..at].ends_with("UD-"), word) {
        (true, word) => format!("UD-{word}"),
        (false, "FP16") => "F16".to_owned(),
        (false, "FP32") => "F32".to_owned(),
        (false, word) => word.to_owned(),
    })
}

/// Whether a word in capitals is a quant's name: `Q4_K_M`, `IQ3_XXS`, `TQ1_0`, `BF16`, `MXFP4` and so on.
fn is_quant(word: &str) -> bool {
    let (head, tail) = word.split_once('_').map_or((word, None), |(head, tail)| (head, Some(tail)));
    let short = |part: &str| !part.is_empty() && part.len() <= 3;
    let is_tail = tail.is_none_or(|tail| tail.split('_').all(short));
    let floats = ["F32", "F16", "FP32", "FP16", "BF16"];
    let digit = ["IQ", "TQ", "Q"].iter().find_map(|start| head.strip_prefix(start));
    let is_head =
        digit.is_some_and(|digit| digit.len() == 1 && digit.bytes().all(|byte| byte.is_ascii_digit()));
    (floats.contains(&head) && tail.is_none()) || (is_tail && (is_head || ["MXFP4", "NVFP4"].contains(&head)))
}

/// Whether a text has a word between characters of neither words nor quants.
fn has_word(text: &str, word: &str) -> bool {
    let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(is_inside) && !text[at + word.len()..].starts_with(is_inside))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(of: &[(&str, u64)]) -> Vec<RepoFile> {
        of.iter().map(|&(path, bytes)| RepoFile { path: path.to_owned(), bytes, sha256: None }).collect()
    }

    fn chosen(of: &[(&str, u64)], wanted: &Wanted, memory: u64) -> Result<String> {
        let offers = offers(&files(of));
        choose("u/r", &offers, wanted, memory).map(|offer| offer.path().to_owned())
    }

    fn tag(text: &str) -> Wanted {
        Wanted::Tag(text.to_owned())
    }

    /// Names as they stand in the hub's most pulled repositories.
    #[test]
    fn quants_are_read_from_names() {
        for (name, quant) in [
            ("SmolLM2-135M-Instruct-Q4_K_M", Some("Q4_K_M")),
            ("qwen2.5-0.5b-instruct-q4_k_m", Some("Q4_K_M")),
            ("Qwen3-30B-A3B-UD-Q4_K_XL", Some("UD-Q4_K_XL")),
            ("gpt-oss-20b-mxfp4", Some("MXFP4")),
            ("Qwen3.5-35B-A3B-MXFP4_MOE", Some("MXFP4_MOE")),
            ("nomic-embed-text-v1.5.f16", Some("F16")),
            ("Model.Q4_1", Some("Q4_1")),
            ("Phi-3-mini-4k-instruct-q4", Some("Q4")),
            ("Phi-3-mini-4k-instruct-fp16", Some("F16")),
            ("llama_3_IQ3_XXS", Some("IQ3_XXS")),
            ("x-Q4_0_4_8", Some("Q4_0_4_8")),
            ("F32-model-BF16", Some("BF16")),
            ("BF16/model-BF16", Some("BF16")),
            ("Q4_K_M/model", None),
            ("llama-7b", None),
            ("qwen3-8b", None),
        ] {
            assert_eq!(quant_of(name).as_deref(), quant, "{name}");
        }
    }

    #[test]
    fn without_a_quant_the_best_that_fits_is_taken() {
        let repo = [
            ("m-Q8_0.gguf", 800),
            ("m-Q4_K_M.gguf", 450),
            ("m-Q3_K_M.gguf", 350),
            ("m-Q2_K.gguf", 300),
            ("m-BF16.gguf", 1600),
            ("mmproj-m-F16.gguf", 10),
            ("m.imatrix.gguf", 5),
            ("README.md", 1),
            ("m-IQ4_XS.gguf", 420),
        ];
        for (memory, expected) in [
            (0, "m-Q4_K_M.gguf"),
            (10_000, "m-Q4_K_M.gguf"),
            (600, "m-Q4_K_M.gguf"),
            (599, "m-IQ4_XS.gguf"),
            (500, "m-Q3_K_M.gguf"),
            (420, "m-Q2_K.gguf"),
        ] {
            assert_eq!(chosen(&repo, &Wanted::Any, memory).unwrap(), expected, "{memory}");
        }
        let sentence = chosen(&repo, &Wanted::Any, 300).unwrap_err().to_string();
        assert!(sentence.contains("Q2_K") && sentence.contains("u/r:Q2_K"), "{sentence}");
        assert_eq!(chosen(&repo, &tag("bf16"), 300).unwrap(), "m-BF16.gguf");
        let few = [("m-F16.gguf", 1600), ("m-Q8_0.gguf", 800)];
        assert_eq!(chosen(&few, &Wanted::Any, 0).unwrap(), "m-Q8_0.gguf");
        assert_eq!(chosen(&[("odd.gguf", 9)], &Wanted::Any, 0).unwrap(), "odd.gguf");
        assert!(chosen(&[("mmproj.gguf", 9)], &Wanted::Any, 0).unwrap_err().to_string().contains("-GGUF"));
    }

    #[test]
    fn tags_match_as_words() {
        let repo = [
            ("m-Q4_K_M.gguf", 4),
            ("m-UD-Q4_K_M.gguf", 5),
            ("m-Q4_K_S.gguf", 3),
            ("m-UD-Q4_K_XL.gguf", 6),
            ("special-m-Q8_0.gguf", 8),
            ("BF16/m.gguf", 9),
        ];
        for (text, expected) in [
            ("q4_k_m", "m-Q4_K_M.gguf"),
            ("UD-Q4_K_M", "m-UD-Q4_K_M.gguf"),
            ("ud-q4_k_xl", "m-UD-Q4_K_XL.gguf"),
            ("Q4_K_XL", "m-UD-Q4_K_XL.gguf"),
            ("special", "special-m-Q8_0.gguf"),
            ("bf16", "BF16/m.gguf"),
            ("m-Q4_K_S.gguf", "m-Q4_K_S.gguf"),
            ("m-q4_k_s", "m-Q4_K_S.gguf"),
        ] {
            assert_eq!(chosen(&repo, &tag(text), 1).unwrap(), expected, "{text}");
        }
        let sentence = chosen(&repo, &tag("Q4_K"), 0).unwrap_err().to_string();
        assert!(sentence.contains("no Q4_K,") && sentence.contains("UD-Q4_K_XL (6 bytes)"), "{sentence}");
        let two = [("a-Q8_0.gguf", 1), ("b-Q8_0.gguf", 2), ("old/c-Q8_0.gguf", 3)];
        for wanted in [tag("q8_0"), Wanted::Any] {
            let sentence = chosen(&two, &wanted, 0).unwrap_err().to_string();
            assert!(
                sentence.contains("a-Q8_0.gguf, b-Q8_0.gguf") && !sentence.contains("c-Q8_0"),
                "{sentence}"
            );
        }
        assert_eq!(chosen(&two, &tag("b-Q8_0.gguf"), 0).unwrap(), "b-Q8_0.gguf");
        assert_eq!(chosen(&two[1..], &Wanted::Any, 0).unwrap(), "b-Q8_0.gguf");
        assert_eq!(chosen(&two, &Wanted::Path("old/c-Q8_0.gguf".to_owned()), 0).unwrap(), "old/c-Q8_0.gguf");
    }

    #[test]
    fn split_models_are_one_if_they_are_whole() {
        let repo = files(&[
            ("Q8_0/m-Q8_0-00002-of-00002.gguf", 3),
            ("Q8_0/m-Q8_0-00001-of-00002.gguf", 7),
            ("m-Q4_0.gguf", 4),
            ("m-F16-00001-of-00003.gguf", 5),
            ("m-F16-00003-of-00003.gguf", 5),
            ("best-of-3.gguf", 1),
        ]);
        let found = offers(&repo);
        let split = found.iter().find(|offer| offer.quant.as_deref() == Some("Q8_0")).unwrap();
        assert_eq!(
            (split.bytes(), split.files.len(), split.path()),
            (10, 2, "Q8_0/m-Q8_0-00001-of-00002.gguf")
        );
        assert!(!found.iter().any(|offer| offer.quant.as_deref() == Some("F16")));
        assert_eq!(found.len(), 3);
    }
}
