//! What Python's `str` knows of characters: their cases, and which kinds they are of.

use unicode_general_category::{GeneralCategory as Category, get_general_category};

use super::error::Error;
use super::lexer::is_space;
use super::meter::Shared;
use super::show;
use super::value::{Builder, Value};

/// The methods that change the case of a string.
pub(super) fn cased(meter: &Shared, text: &str, name: &str) -> Result<Value, Error> {
    let mut out = Builder::new(meter)?;
    // A letter in another case has up to three times as many bytes.
    let _room = meter.charge(text.len().saturating_mul(3))?;
    match name {
        "upper" => return Value::text(meter, text.to_uppercase()),
        "lower" => return Value::text(meter, text.to_lowercase()),
        "casefold" => text.chars().try_for_each(|c| push_all(&mut out, folded(c)))?,
        _ => change(text, name, &mut out)?,
    }
    out.finish()
}

/// `capitalize`, `swapcase` and `title`: character by character.
fn change(text: &str, name: &str, out: &mut Builder) -> Result<(), Error> {
    // How a capital sigma is written small depends on what is around it.
    let small = text.to_lowercase();
    let mut sigmas = small.chars().filter(|c| matches!(c, 'σ' | 'ς'));
    let mut within = false;
    for (place, c) in text.chars().enumerate() {
        let sigma = if matches!(c, 'Σ' | 'σ' | 'ς') { sigmas.next() } else { None };
        let lower = |out: &mut Builder| match sigma.filter(|_| c == 'Σ') {
            Some(sigma) => out.push(sigma),
            None => push_all(out, c.to_lowercase()),
        };
        match name {
            "swapcase" if c.is_uppercase() => lower(out)?,
            "swapcase" if c.is_lowercase() => push_all(out, c.to_uppercase())?,
            "swapcase" => out.push(c)?,
            "capitalize" if place > 0 => lower(out)?,
            "title" if within => lower(out)?,
            _ => push_all(out, titled(c))?,
        }
        within = has_case(c);
    }
    Ok(())
}

fn push_all(out: &mut Builder, chars: impl IntoIterator<Item = char>) -> Result<(), Error> {
    chars.into_iter().try_for_each(|c| out.push(c))
}

/// Up to three characters.
type Few = std::iter::Flatten<std::array::IntoIter<Option<char>, 3>>;

fn few(chars: impl IntoIterator<Item = char>) -> Few {
    let mut chars = chars.into_iter();
    [chars.next(), chars.next(), chars.next()].into_iter().flatten()
}

/// A letter with which a word begins (Unicode's Titlecase_Mapping).
fn titled(c: char) -> Few {
    const IOTA: char = '\u{345}';
    const CIRCUMFLEX: char = '\u{342}';
    let shifted = |c: char| few(char::from_u32(c as u32 | 8));
    match c {
        'ŉ' => few("ʼN".chars()),
        'Ǆ' | 'ǅ' | 'ǆ' => few(['ǅ']),
        'Ǉ' | 'ǈ' | 'ǉ' => few(['ǈ']),
        'Ǌ' | 'ǋ' | 'ǌ' => few(['ǋ']),
        'Ǳ' | 'ǲ' | 'ǳ' => few(['ǲ']),
        // Georgian has no words with one large letter.
        '\u{10D0}'..='\u{10FF}' => few([c]),
        // Greek letters with an iota below keep it there.
        '\u{1F80}'..='\u{1FAF}' => shifted(c),
        '\u{1FB3}' | '\u{1FBC}' => few(['\u{1FBC}']),
        '\u{1FC3}' | '\u{1FCC}' => few(['\u{1FCC}']),
        '\u{1FF3}' | '\u{1FFC}' => few(['\u{1FFC}']),
        '\u{1FB2}' => few(['\u{1FBA}', IOTA]),
        '\u{1FB4}' => few(['\u{386}', IOTA]),
        '\u{1FC2}' => few(['\u{1FCA}', IOTA]),
        '\u{1FC4}' => few(['\u{389}', IOTA]),
        '\u{1FF2}' => few(['\u{1FFA}', IOTA]),
        '\u{1FF4}' => few(['\u{38F}', IOTA]),
        '\u{1FB7}' => few(['\u{1FBC}', CIRCUMFLEX]),
        '\u{1FC7}' => few(['\u{1FCC}', CIRCUMFLEX]),
        '\u{1FF7}' => few(['\u{1FFC}', CIRCUMFLEX]),
        _ => {
            let mut upper = c.to_uppercase();
            let first = upper.next();
            few(first.into_iter().chain(upper.flat_map(char::to_lowercase)))
        }
    }
}

/// A letter for comparing without case (Unicode's full Case_Folding).
fn folded(c: char) -> Few {
    match c {
        'ı' | '\u{13A0}'..='\u{13F5}' => few([c]),
        // Cherokee folds to its large letters.
        '\u{13F8}'..='\u{13FD}' => few(char::from_u32(c as u32 - 8)),
        '\u{AB70}'..='\u{ABBF}' => few(char::from_u32(c as u32 - 0xAB70 + 0x13A0)),
        'ẞ' => few("ss".chars()),
        _ => few(c.to_uppercase().flat_map(char::to_lowercase)),
    }
}

fn has_case(c: char) -> bool {
    c.is_lowercase() || c.is_uppercase() || is_title(c)
}

fn is_title(c: char) -> bool {
    get_general_category(c) == Category::TitlecaseLetter
}

/// Whether all letters that have a case have this one, and there are some.
pub(super) fn all_cased(text: &str, upper: bool) -> bool {
    let wanted = |c: char| if upper { c.is_uppercase() } else { c.is_lowercase() };
    let other = |c: char| is_title(c) || if upper { c.is_lowercase() } else { c.is_uppercase() };
    text.chars().any(wanted) && !text.chars().any(other)
}

/// The methods that say what kind of characters a string has.
pub(super) fn is(text: &str, name: &str) -> bool {
    let all = |holds: &dyn Fn(char) -> bool| !text.is_empty() && text.chars().all(holds);
    match name {
        "isalnum" => all(&|c| is_letter(c) || is_numeric(c)),
        "isalpha" => all(&is_letter),
        "isascii" => text.is_ascii(),
        "isdecimal" => all(&is_decimal),
        "isdigit" => all(&is_digit),
        "isidentifier" => {
            let begins = |c| c == '_' || is_letter(c) || get_general_category(c) == Category::LetterNumber;
            text.chars().next().is_some_and(begins) && text.chars().all(|c| begins(c) || goes_on(c))
        }
        "islower" => all_cased(text, false),
        "isnumeric" => all(&is_numeric),
        "isprintable" => text.chars().all(show::is_printable),
        "isspace" => all(&is_space),
        "istitle" => is_titled(text),
        _ => all_cased(text, true),
    }
}

/// Whether large letters begin words, and small ones go on.
fn is_titled(text: &str) -> bool {
    let (mut within, mut found) = (false, false);
    for c in text.chars() {
        let begins = c.is_uppercase() || is_title(c);
        if begins == within && has_case(c) {
            return false;
        }
        within = has_case(c);
        found |= begins;
    }
    found
}

fn is_letter(c: char) -> bool {
    matches!(
        get_general_category(c),
        Category::UppercaseLetter
            | Category::LowercaseLetter
            | Category::TitlecaseLetter
            | Category::ModifierLetter
            | Category::OtherLetter
    )
}

/// What a name may have after its first character.
fn goes_on(c: char) -> bool {
    matches!(
        get_general_category(c),
        Category::NonspacingMark
            | Category::SpacingMark
            | Category::DecimalNumber
            | Category::ConnectorPunctuation
    )
}

fn is_decimal(c: char) -> bool {
    get_general_category(c) == Category::DecimalNumber
}

/// Decimals, and what stands for a digit in another form (Unicode's Numeric_Type Digit).
fn is_digit(c: char) -> bool {
    is_decimal(c)
        || matches!(
            c,
            '\u{B2}'..='\u{B3}'
                | '\u{B9}'
                | '\u{1369}'..='\u{1371}'
                | '\u{19DA}'
                | '\u{2070}'
                | '\u{2074}'..='\u{2079}'
                | '\u{2080}'..='\u{2089}'
                | '\u{2460}'..='\u{2468}'
                | '\u{2474}'..='\u{247C}'
                | '\u{2488}'..='\u{2490}'
                | '\u{24EA}'
                | '\u{24F5}'..='\u{24FD}'
                | '\u{24FF}'
                | '\u{2776}'..='\u{277E}'
                | '\u{2780}'..='\u{2788}'
                | '\u{278A}'..='\u{2792}'
                | '\u{10A40}'..='\u{10A43}'
                | '\u{10E60}'..='\u{10E68}'
                | '\u{11052}'..='\u{1105A}'
                | '\u{1F100}'..='\u{1F10A}'
        )
}

/// Numbers, with the Chinese characters that are some (Unihan's numeric values).
fn is_numeric(c: char) -> bool {
    const CHINESE: &str = "\
        㐅㒃㠪㭍一七万三九二五亖亿什仟仨伍佰億兆兩八六十千卄卅卌叁参參叄四壱壹幺廾廿弌弍弎弐拾捌柒漆玖百肆萬\
        貮貳贰阡陆陌陸零\u{F96B}\u{F973}\u{F978}\u{F9B2}\u{F9D1}\u{F9D3}\u{F9FD}\u{20001}\u{20064}\u{200E2}\
        \u{20121}\u{2092A}\u{20983}\u{2098C}\u{2099C}\u{20AEA}\u{20AFD}\u{20B19}\u{22390}\u{22998}\u{23B1B}\
        \u{2626D}\u{2F890}";
    matches!(
        get_general_category(c),
        Category::DecimalNumber | Category::LetterNumber | Category::OtherNumber
    ) || (c >= '\u{3405}' && CHINESE.contains(c))
}
