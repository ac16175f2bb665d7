//! SentencePiece's rules of normalising (`precompiled_charsmap`): what stretches of text become before they are split.
//!
//! Four bytes say how long the double array is that follows, little endian; behind it are the replacements, each with a
//! NUL at its end. The double array is Darts-clone's: of each unit, bits 10 to 30 are the offset of its children (times
//! 256 where bit 9 is set), bit 8 says that a value hangs on it, and bits 0 to 7 are the byte that leads to it; a unit
//! with bit 31 is a value, here the place of a replacement.

use crate::pieces::corrupt;
use herald_api::Result;

/// The longest stretch of text that is looked up, and the longest replacement, in bytes. Unicode's longest are about
/// half as long; the limits keep a rule from looping or growing without bound.
const LONGEST: usize = 64;

/// The rules; none where the vocabulary has none.
#[derive(Default)]
pub(crate) struct Charsmap {
    units: Vec<u32>,
    replacements: String,
}

impl Charsmap {
    /// Reads the rules of a vocabulary.
    pub(crate) fn new(charsmap: &[u8]) -> Result<Self> {
        let Some((length, rest)) = charsmap.split_first_chunk::<4>() else {
            return match charsmap.len() {
                0 => Ok(Self::default()),
                short => Err(corrupt(format!(
                    "the vocabulary's charsmap has {short} bytes, where the four of its length were expected"
                ))),
            };
        };
        let length = u32::from_le_bytes(*length) as usize;
        let (units, replacements) =
            rest.split_at_checked(length).filter(|_| length.is_multiple_of(4)).ok_or_else(|| {
                corrupt(format!(
                    "the double array of the vocabulary's charsmap has {length} bytes, where a multiple of 4 up to {} was \
                     expected",
                    rest.len()
                ))
            })?;
        let replacements = str::from_utf8(replacements).map_err(|error| {
            corrupt(format!("the replacements of the vocabulary's charsmap are no UTF-8: {error}"))
        })?;
        if let Some(long) = replacements.split('\0').map(str::len).find(|&length| length > LONGEST) {
            return Err(corrupt(format!(
                "a replacement of the vocabulary's charsmap has {long} bytes, where at most {LONGEST} were expected"
            )));
        }
        let units =
            units.chunks_exact(4).map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]]));
        Ok(Self { units: units.collect(), replacements: replacements.to_owned() })
    }

    /// What the beginning of `text` becomes, by the rule for the longest stretch, and how many bytes it replaces. Where
    /// no rule applies the first character stays. `text` isn't empty.
    #[inline]
    pub(crate) fn replace<'t>(&'t self, text: &'t str) -> (&'t str, usize) {
        self.rule(text).unwrap_or_else(|| {
            let length = text.chars().next().map_or(0, char::len_utf8);
            (&text[..length], length)
        })
    }

    fn rule(&self, text: &str) -> Option<(&str, usize)> {
        let offset = |unit: u32| (unit >> 10) << ((unit & (1 << 9)) >> 6);
        let mut node = offset(*self.units.first()?);
        let mut best = None;
        for (length, byte) in (1..).zip(text.bytes().take(LONGEST).map(u32::from)) {
            node ^= byte;
            let Some(&unit) = self.units.get(node as usize) else { break };
            if byte == 0 || unit & (1 << 31 | 0xFF) != byte {
                break;
            }
            node ^= offset(unit);
            if unit >> 8 & 1 == 1
                && text.is_char_boundary(length)
                && let Some(value) = self.units.get(node as usize)
            {
                best = Some((*value & !(1 << 31), length));
            }
        }
        let (place, length) = best?;
        let replacement = self.replacements.get(place as usize..)?;
        Some((replacement.split('\0').next()?, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(charsmap: &[u8]) -> String {
        Charsmap::new(charsmap).err().expect("a refusal").message().to_owned()
    }

    #[test]
    fn no_rules_keep_each_character() {
        assert_eq!(Charsmap::new(&[]).unwrap().replace("éa"), ("é", 2));
        assert_eq!(Charsmap::new(&[0, 0, 0, 0]).unwrap().replace("a"), ("a", 1));
    }

    #[test]
    fn one_rule() {
        // The root's children lie at 256 ^ byte; "a" (0x61) has a value at its own offset, 1.
        let mut units = vec![0_u32; 0x200];
        units[0] = 0x100 << 10;
        units[0x161] = (0x160 << 10) | 1 << 8 | 0x61;
        units[0x161 ^ 0x160] = 1 << 31 | 2;
        let mut charsmap = ((units.len() * 4) as u32).to_le_bytes().to_vec();
        charsmap.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        charsmap.extend(b"x\0bc\0");
        let charsmap = Charsmap::new(&charsmap).unwrap();
        assert_eq!(charsmap.replace("ab"), ("bc", 1));
        assert_eq!(charsmap.replace("ba"), ("b", 1));
        assert_eq!(charsmap.replace("\0"), ("\0", 1));
    }

    #[test]
    fn damage() {
        assert_eq!(
            refused(&[1]),
            "the vocabulary's charsmap has 1 bytes, where the four of its length were expected"
        );
        let message = "has 5 bytes, where a multiple of 4 up to 8 was expected";
        assert!(refused(&[5, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]).ends_with(message));
        assert!(
            refused(&[4, 0, 0, 0, 1]).ends_with("has 4 bytes, where a multiple of 4 up to 1 was expected")
        );
        assert!(refused(&[0, 0, 0, 0, 0xFF]).contains("are no UTF-8"));
        let long = [&[0, 0, 0, 0], &[b'a'; 65][..]].concat();
        assert!(refused(&long).ends_with("has 65 bytes, where at most 64 were expected"));
    }
}
