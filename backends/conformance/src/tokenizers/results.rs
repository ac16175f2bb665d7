//! What tokenizers give: ids, bytes, and the lengths of both.

use herald_api::abi::{HERALD_TEXT_CONTINUES, HERALD_TEXT_SPECIAL};
use herald_api::{DecodeOptions, EncodeOptions, Error, Status, TokenType, Tokenizer};

use super::Case;
use super::made::{FLAGS, Made, short};
use super::texts::{SPECIAL, TEXTS};
use crate::Outcome;
use crate::answer::Answer;
use crate::check::{Verdict, ensure};
use crate::values::Values;

/// All texts to encode, with their names.
fn texts() -> impl Iterator<Item = (&'static str, &'static str)> {
    TEXTS.into_iter().chain([("special tokens spelt out", SPECIAL)])
}

/// Sequences of ids to decode: those of the texts, and some that no text gives.
fn sequences(case: &Case<'_>) -> Verdict<Vec<Vec<u32>>> {
    let mut all = Vec::new();
    for (_, text) in texts() {
        if let Ok(ids) = case.made.ids(text, HERALD_TEXT_SPECIAL)? {
            all.push(ids);
        }
    }
    let n = case.made.words.tokens.len();
    let mut random = Values::new(3);
    for len in 1..40 {
        all.push((0..len).map(|_| random.below(n) as u32).collect());
    }
    all.push((0..n as u32).collect());
    Ok(all)
}

fn same_refusal(mine: &Answer, theirs: &Error) -> bool {
    mine.code == theirs.status().code()
}

/// The same ids as the reference's, or for a model of its own none that plain text may not become.
pub(super) fn ids(case: &Case<'_>) -> Verdict {
    let mut count = 0;
    for (name, text) in texts() {
        for (flags, with) in FLAGS {
            let mine = case.made.ids(text, flags)?;
            count += mine.as_ref().map_or(0, Vec::len);
            let Some(reference) = &case.reference else {
                own_ids(&case.made, name, text, flags, &mine)?;
                continue;
            };
            let options = EncodeOptions {
                special: flags & HERALD_TEXT_SPECIAL != 0,
                continues: flags & HERALD_TEXT_CONTINUES != 0,
            };
            let mut ids = Vec::new();
            let theirs = reference.encode(text, options, &mut ids).map(|()| ids);
            match (&mine, &theirs) {
                (Ok(mine), Ok(theirs)) => {
                    let differ =
                        (0..mine.len().max(theirs.len())).find(|at| mine.get(*at) != theirs.get(*at));
                    if let Some(at) = differ {
                        let said = |ids: &[u32]| ids.get(at).map_or("missing".to_owned(), u32::to_string);
                        ensure!(
                            false,
                            WrongResult,
                            "{name}{with}: id {at} of {} is {}, where {} gives {}",
                            short(text),
                            said(mine),
                            reference.plugin(),
                            said(theirs)
                        );
                    }
                }
                (Err(mine), Err(theirs)) if same_refusal(mine, theirs) => {}
                (mine, theirs) => {
                    let mine = mine.as_ref().map_or_else(Answer::say, |ids| format!("{} ids", ids.len()));
                    let theirs =
                        theirs.as_ref().map_or_else(ToString::to_string, |ids| format!("{} ids", ids.len()));
                    ensure!(
                        false,
                        WrongStatus,
                        "{name}{with} gave {mine}, where {} gives: {theirs}",
                        reference.plugin()
                    );
                }
            }
        }
    }
    let beside = case.reference.as_ref().map_or(String::new(), |other| format!(", as {}", other.plugin()));
    Ok(format!("{} texts, {count} ids{beside}", TEXTS.len() + 1))
}

fn own_ids(
    made: &Made<'_>,
    name: &str,
    text: &str,
    flags: u32,
    mine: &Result<Vec<u32>, Answer>,
) -> Verdict<()> {
    match mine {
        Err(answer) => answer.refused(&format!("encode of {name}"), &[Status::Unsupported]),
        Ok(ids) => {
            if text.is_empty() {
                ensure!(
                    ids.is_empty(),
                    WrongResult,
                    "the empty text became {ids:?}, where no ids were expected"
                );
            }
            let special = flags & HERALD_TEXT_SPECIAL != 0;
            let never = |id: &&u32| match made.words.kind(**id) {
                Some(TokenType::Control) => !special,
                Some(TokenType::Unused) => true,
                _ => false,
            };
            let found = ids.iter().find(never);
            ensure!(
                found.is_none(),
                WrongResult,
                "{name} became the token {:?}, which is not one for plain text",
                found
            );
            Ok(())
        }
    }
}

/// The bytes of ids: as the reference's, or the text that was encoded.
pub(super) fn text(case: &Case<'_>) -> Verdict {
    let Some(reference) = &case.reference else { return round_trips(&case.made) };
    let all = sequences(case)?;
    for ids in &all {
        for (flags, with) in FLAGS {
            let mine = case.made.must_decode(ids, flags)?;
            let options = DecodeOptions {
                special: flags & HERALD_TEXT_SPECIAL != 0,
                continues: flags & HERALD_TEXT_CONTINUES != 0,
            };
            let mut theirs = Vec::new();
            reference
                .decode(ids, options, &mut theirs)
                .map_err(|error| Outcome::Skipped(format!("{} fails: {error}", reference.plugin())))?;
            ensure!(
                mine == theirs,
                WrongResult,
                "decode of {:?}{with} gave {}, where {} gives {}",
                &ids[..ids.len().min(12)],
                short(&String::from_utf8_lossy(&mine)),
                reference.plugin(),
                short(&String::from_utf8_lossy(&theirs))
            );
        }
    }
    Ok(format!("{} sequences of ids, as {}", all.len(), reference.plugin()))
}

/// Text that was encoded comes back; or, where the tokenizer normalises, text that came back comes back again.
fn round_trips(made: &Made<'_>) -> Verdict {
    let (mut exact, mut normalised) = (0, 0);
    for (name, text) in texts() {
        let Ok(ids) = made.ids(text, 0)? else { continue };
        let bytes = made.must_decode(&ids, 0)?;
        if bytes == text.as_bytes() {
            exact += 1;
            continue;
        }
        let came = String::from_utf8_lossy(&bytes).into_owned();
        let again = made.ids(&came, 0)?;
        ensure!(
            again.as_ref() == Ok(&ids) && !came.trim().is_empty(),
            WrongResult,
            "{name} came back as {}, where {} was expected",
            short(&came),
            short(text)
        );
        normalised += 1;
    }
    ensure!(exact + normalised > 0, WrongStatus, "it could encode no text at all");
    Ok(match normalised {
        0 => format!("{exact} texts"),
        _ => format!("{exact} texts exactly, {normalised} normalised"),
    })
}

/// Control tokens: found in text, and spelt out, only when the caller asks.
pub(super) fn special(case: &Case<'_>) -> Verdict {
    let made = &case.made;
    for id in made.words.of_kind(TokenType::Control) {
        let spelt = String::from_utf8_lossy(&made.words.tokens[id as usize]).into_owned();
        let text = format!("a{spelt}b");
        let with = made.must_encode(&text, HERALD_TEXT_SPECIAL)?;
        ensure!(
            with.contains(&id),
            WrongResult,
            "encode of {text:?} with SPECIAL gave {with:?}, where the control token {id} was expected among them"
        );
        if let Ok(without) = made.ids(&text, 0)? {
            ensure!(
                !without.contains(&id),
                WrongResult,
                "encode of {text:?} without SPECIAL gave the control token {id}, where plain text was expected"
            );
        }
        let shown = made.must_decode(&[id], HERALD_TEXT_SPECIAL)?;
        ensure!(
            shown == spelt.as_bytes(),
            WrongResult,
            "decode of the control token {id} with SPECIAL gave {}, where {spelt:?} was expected",
            short(&String::from_utf8_lossy(&shown))
        );
        let hidden = made.must_decode(&[id], 0)?;
        ensure!(
            hidden.is_empty(),
            WrongResult,
            "decode of the control token {id} without SPECIAL gave {}, where nothing was expected",
            short(&String::from_utf8_lossy(&hidden))
        );
    }
    Ok(String::new())
}

/// Decoding two runs of tokens, the second with CONTINUES, gives the bytes of decoding both at once.
pub(super) fn pieces(case: &Case<'_>) -> Verdict {
    let mut count = 0;
    for ids in sequences(case)? {
        for special in [0, HERALD_TEXT_SPECIAL] {
            let whole = case.made.must_decode(&ids, special)?;
            // Long ones in a few places, short ones everywhere.
            for cut in (1..ids.len()).step_by(ids.len() / 24 + 1) {
                let mut joined = case.made.must_decode(&ids[..cut], special)?;
                joined.extend(case.made.must_decode(&ids[cut..], special | HERALD_TEXT_CONTINUES)?);
                ensure!(
                    joined == whole,
                    WrongResult,
                    "{} ids decoded in two pieces, cut before id {cut}, gave {}, where all at once give {}",
                    ids.len(),
                    short(&String::from_utf8_lossy(&joined)),
                    short(&String::from_utf8_lossy(&whole))
                );
                count += 1;
            }
        }
    }
    Ok(format!("{count} cuts"))
}

/// A buffer that is too small is left alone beyond its end, and the room that is needed is told; one that just suffices
/// does.
pub(super) fn buffers(case: &Case<'_>) -> Verdict {
    let made = &case.made;
    let mut count = 0;
    for (name, text) in texts() {
        let Ok(ids) = made.ids(text, 0)? else { continue };
        let n = ids.len();
        for room in [0, 1, n / 2, n.saturating_sub(1), n] {
            let given = made.encode(text.as_bytes(), 0, room)?;
            check_room(&format!("encode of {name}"), &given.answer, given.n, n, room)?;
            ensure!(
                room < n || given.written == ids,
                Unstable,
                "encode of {name} gave other ids with room for exactly {n}"
            );
            count += 1;
        }
        let bytes = made.must_decode(&ids, 0)?;
        let n = bytes.len();
        for room in [0, 1, n / 2, n.saturating_sub(1), n] {
            let [zeros, ones] = [0x00, 0xff].map(|fill| made.decode(&ids, 0, room, fill));
            let (zeros, ones) = (zeros?, ones?);
            check_room(&format!("decode of {name}"), &zeros.answer, zeros.n, n, room)?;
            ensure!(
                zeros.written == ones.written,
                WrongLength,
                "decode of {name} says that it wrote {n} bytes, and wrote fewer"
            );
            ensure!(
                room < n || zeros.written == bytes,
                Unstable,
                "decode of {name} gave other bytes with room for exactly {n}"
            );
            count += 1;
        }
    }
    Ok(format!("{count} calls"))
}

fn check_room(what: &str, answer: &Answer, said: usize, needed: usize, room: usize) -> Verdict<()> {
    if room >= needed {
        return answer.ok(&format!("{what} with room for {room}, and {needed} needed,"));
    }
    answer
        .refused(&format!("{what} with room for {room}, and {needed} needed,"), &[Status::BufferTooSmall])?;
    ensure!(
        said == needed,
        WrongLength,
        "{what} with room for {room} asks for room for {said}, where {needed} was expected"
    );
    Ok(())
}

/// Calls give the same again, and from a tokenizer whose vocabulary's memory is long gone.
pub(super) fn again(case: &Case<'_>) -> Verdict {
    let other = Made::create(case.table, &case.made.words)?;
    let mut other = other.map_err(|answer| {
        Outcome::Failed(
            crate::Fault::Unstable,
            format!("the same vocabulary, made again, gave {}", answer.say()),
        )
    })?;
    other.packed.scribble();
    for (name, text) in texts() {
        let first = case.made.ids(text, 0)?;
        ensure!(
            case.made.ids(text, 0)? == first,
            Unstable,
            "encode of {name} gave other ids the second time"
        );
        ensure!(
            other.ids(text, 0)? == first,
            ReadsOutside,
            "encode of {name} gave other ids after the vocabulary, which is valid during create only, was overwritten"
        );
        if let Ok(ids) = first {
            let bytes = case.made.must_decode(&ids, 0)?;
            ensure!(
                case.made.must_decode(&ids, 0)? == bytes,
                Unstable,
                "decode of {name} gave other bytes the second time"
            );
            ensure!(
                other.must_decode(&ids, 0)? == bytes,
                ReadsOutside,
                "decode of {name} gave other bytes after the vocabulary, which is valid during create only, was overwritten"
            );
        }
    }
    Ok(String::new())
}
