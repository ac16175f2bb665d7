//! Files that were damaged: what comes out of them is what went in, or nothing.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use herald_api::Status;

use super::Case;
use super::archive::{PAGES, written};
use super::contents::same;
use super::made::Made;
use super::page::Contents;
use crate::check::{Verdict, ensure};
use crate::values::Values;
use crate::{Fault, Outcome};

/// How many bits of a file are tried.
const FLIPS: usize = 40;

/// A bit of each part of the file was flipped, or a part overwritten with zeros.
pub(super) fn flips(case: &Case<'_>) -> Verdict {
    let before = written(case, "pages")?;
    let sound = read(case, "pages")?;
    // Where the file holds something: the rest is room that isn't used.
    let blocks: Vec<usize> = (0..sound.len())
        .step_by(BLOCK)
        .filter(|at| used(&sound[*at..(*at + BLOCK).min(sound.len())]))
        .collect();
    ensure!(!blocks.is_empty(), LosesData, "the file of {PAGES} pages is empty, or nothing but zeros");
    let mut random = Values::new(21);
    let mut refused = 0;
    for round in 0..FLIPS {
        // Over all of it, its beginning included.
        let block = if round < 4 { blocks[0] } else { blocks[round * (blocks.len() - 1) / (FLIPS - 1)] };
        let at = block + random.below(BLOCK.min(sound.len() - block));
        let mut damaged = sound.clone();
        let what = if round % 6 == 5 {
            damaged[block..(block + BLOCK).min(sound.len())].fill(0);
            format!("bytes {block} to {} of the file set to 0", block + BLOCK)
        } else {
            let bit = random.below(8);
            damaged[at] ^= 1 << bit;
            format!("bit {bit} of byte {at} of the file flipped")
        };
        refused += usize::from(damaged_file(case, &damaged, &what, &before)?);
    }
    Ok(format!("{FLIPS} places, {refused} noticed when the file was opened"))
}

/// The file ends somewhere before its end.
pub(super) fn cuts(case: &Case<'_>) -> Verdict {
    let before = written(case, "pages")?;
    let sound = read(case, "pages")?;
    let end = sound.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let lengths = [0, 1, 7, 100, 4095, 4096, 4097, end / 4, end / 2, end * 3 / 4, end.saturating_sub(1)];
    for len in lengths.into_iter().filter(|len| *len < sound.len()) {
        damaged_file(
            case,
            &sound[..len],
            &format!("the file cut to {len} bytes of {}", sound.len()),
            &before,
        )?;
    }
    let zeros = vec![0; sound.len()];
    damaged_file(case, &zeros, "the whole file set to 0", &before)?;
    Ok(String::new())
}

/// A file of something else is refused, and left as it was.
pub(super) fn foreign(case: &Case<'_>) -> Verdict {
    let path = PathBuf::from(case.wanted("other").path);
    let text = "This is a letter to a friend, and no archive of pages.\n".repeat(300);
    for (what, bytes) in [
        ("a text", text.as_bytes()),
        ("a short text", b"no pages"),
        ("numbers", &[0x5a; 9000]),
        ("zeros", &[0; 9000]),
        ("a zero", &[0]),
    ] {
        fs::write(&path, bytes).map_err(|error| unable(&error))?;
        match Made::create(case.table, &case.wanted("other"))? {
            Err(answer) => {
                let allowed = [Status::Corrupt, Status::InvalidArgument, Status::Io];
                answer.refused(&format!("create over {what}"), &allowed)?;
            }
            Ok(_) => {
                ensure!(false, AcceptsDamage, "create took {what} for an archive, where CORRUPT was expected")
            }
        }
        let after = fs::read(&path).map_err(|error| unable(&error))?;
        ensure!(after == bytes, LosesData, "create refused {what}, and changed the file");
    }
    let page = super::archive::page(case, 1);
    drop(case.tier("pages")?.put(1, &page)?);
    let mut other = case.wanted("pages");
    other.shape.value_dim += 1;
    match Made::create(case.table, &other)? {
        Err(answer) => {
            let allowed = [Status::Corrupt, Status::InvalidArgument];
            answer.refused("create over a file of pages of another shape", &allowed)?;
        }
        Ok(_) => ensure!(
            false,
            AcceptsDamage,
            "create took a file whose pages have another shape, where CORRUPT was expected"
        ),
    }
    Ok(String::new())
}

const BLOCK: usize = 64;

fn used(block: &[u8]) -> bool {
    block.iter().any(|byte| *byte != 0)
}

fn unable(error: &io::Error) -> Outcome {
    Outcome::Skipped(format!("this machine's temporary folder: {error}"))
}

fn read(case: &Case<'_>, file: &str) -> Verdict<Vec<u8>> {
    fs::read(case.wanted(file).path).map_err(|error| {
        Outcome::Failed(Fault::LosesData, format!("the file that create was given can't be read: {error}"))
    })
}

/// Writes a file without its zeros, which a hole stands for.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.set_len(bytes.len() as u64)?;
    for (index, chunk) in bytes.chunks(4096).enumerate().filter(|(_, chunk)| used(chunk)) {
        file.seek(SeekFrom::Start(4096 * index as u64))?;
        file.write_all(chunk)?;
    }
    Ok(())
}

/// Opens a file of these bytes: each page must be what it was, or gone, or refused. Whether the file was refused as a whole.
fn damaged_file(case: &Case<'_>, bytes: &[u8], what: &str, before: &[Contents]) -> Verdict<bool> {
    write(Path::new(&case.wanted("damaged").path), bytes).map_err(|error| unable(&error))?;
    let tier = match Made::create(case.table, &case.wanted("damaged"))? {
        Ok(tier) => tier,
        Err(answer) => {
            answer.refused(&format!("create with {what}"), &[Status::Corrupt, Status::Io])?;
            return Ok(true);
        }
    };
    if let Some((ids, n)) = tier.list(2 * PAGES as usize)? {
        let strange = ids.iter().find(|id| **id >= PAGES);
        ensure!(
            strange.is_none() && n <= PAGES as usize,
            AcceptsDamage,
            "with {what}, list names {n} pages and among them {strange:?}, where pages 0 to {} were put",
            PAGES - 1
        );
    }
    for (id, before) in (0..).zip(before) {
        match tier.get(id)? {
            Ok(got) => ensure!(
                same(case, before, &got),
                AcceptsDamage,
                "with {what}, get of page {id} gave OK and something else than was put, where CORRUPT was expected"
            ),
            Err(answer) => {
                let allowed = [Status::Corrupt, Status::NotFound, Status::Io];
                answer.refused(&format!("get of page {id} with {what}"), &allowed)?;
            }
        }
    }
    Ok(false)
}
