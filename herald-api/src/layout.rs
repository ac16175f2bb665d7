//! The layouts of the ABI's structs, as text: what Rust plugins carry, so that a mismatch is named field by field.
//!
//! The report has one line a field, `Struct field offset size type`. It is made from `abi_stable`'s `StableAbi`
//! derive over the same structs, behind the feature `layout`; only text crosses the boundary, none of abi_stable's
//! types.

use std::collections::HashMap;
use std::sync::OnceLock;

#[cfg(feature = "layout")]
mod derived {
    use std::fmt::Write as _;
    use std::sync::OnceLock;

    use abi_stable::StableAbi;
    use abi_stable::type_layout::TypeLayout;

    use crate::abi;

    type TypeLayoutCtor = extern "C" fn() -> &'static TypeLayout;

    /// The structs that cross the boundary, in the header's order.
    fn layouts() -> Vec<&'static TypeLayout> {
        let mut layouts = vec![
            <abi::HeraldError as StableAbi>::LAYOUT,
            <abi::HeraldHost as StableAbi>::LAYOUT,
            <abi::HeraldHardware as StableAbi>::LAYOUT,
            <abi::HeraldProbe as StableAbi>::LAYOUT,
            <abi::HeraldTask as StableAbi>::LAYOUT,
            <abi::HeraldParallel as StableAbi>::LAYOUT,
            <abi::HeraldTensor as StableAbi>::LAYOUT,
        ];
        layouts.extend(crate::layers::param_layouts());
        layouts.extend([
            <abi::HeraldLayerDesc as StableAbi>::LAYOUT,
            <abi::HeraldPackStore as StableAbi>::LAYOUT,
            <abi::HeraldLayerRequest as StableAbi>::LAYOUT,
            <abi::HeraldLayerInfo as StableAbi>::LAYOUT,
            <abi::HeraldPage as StableAbi>::LAYOUT,
            <abi::HeraldLora as StableAbi>::LAYOUT,
            <abi::HeraldSequence as StableAbi>::LAYOUT,
            <abi::HeraldFetch as StableAbi>::LAYOUT,
            <abi::HeraldCall as StableAbi>::LAYOUT,
            <abi::HeraldProduct as StableAbi>::LAYOUT,
            <abi::HeraldObserver as StableAbi>::LAYOUT,
            <abi::HeraldLayerTable as StableAbi>::LAYOUT,
            <abi::HeraldVocabulary as StableAbi>::LAYOUT,
            <abi::HeraldTokenizerTable as StableAbi>::LAYOUT,
            <abi::HeraldTierConfig as StableAbi>::LAYOUT,
            <abi::HeraldTierQuery as StableAbi>::LAYOUT,
            <abi::HeraldTierStats as StableAbi>::LAYOUT,
            <abi::HeraldTierTable as StableAbi>::LAYOUT,
            <abi::HeraldPlugin as StableAbi>::LAYOUT,
        ]);
        layouts
    }

    pub(super) fn report() -> &'static str {
        static REPORT: OnceLock<String> = OnceLock::new();
        REPORT.get_or_init(|| {
            let mut text = String::new();
            for layout in layouts() {
                let mut offset = 0_usize;
                for field in layout.get_fields().into_iter().flat_map(|fields| fields.iter()) {
                    let of_type = field.layout();
                    // C's rule: each field at the next multiple of its alignment.
                    offset = offset.next_multiple_of(of_type.alignment());
                    let words = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
                    let shown = match field.function_range().iter().next() {
                        // Names of parameters are no part of a layout.
                        Some(function) => {
                            let type_of = |layout: TypeLayoutCtor| words(layout().full_type().to_string());
                            let parameters: Vec<_> =
                                function.param_type_layouts.iter().map(type_of).collect();
                            let returns = function.return_type_layout().map(type_of);
                            format!("fn({}) -> {}", parameters.join(", "), returns.as_deref().unwrap_or("()"))
                        }
                        None => words(field.full_type().to_string()),
                    };
                    let (name, field_name, size) = (layout.name(), field.name(), of_type.size());
                    let _ = writeln!(text, "{name} {field_name} {offset} {size} {shown}");
                    offset += of_type.size();
                }
            }
            text
        })
    }
}

/// This library's own report; `None` where it was built without the feature `layout`.
#[must_use]
pub fn report() -> Option<&'static str> {
    #[cfg(feature = "layout")]
    return Some(derived::report());
    #[cfg(not(feature = "layout"))]
    None
}

/// Compares a plugin's report with this library's own. Structs and fields that only one side has are no mismatch: they
/// were appended.
///
/// # Errors
/// The first field that differs, as both sides have it.
pub fn check(theirs: &str) -> Result<(), String> {
    report().map_or(Ok(()), |ours| compare(ours, theirs))
}

/// Fields that had another name in version 0.1.0: the struct, the former name and today's. A name is no part of a layout,
/// but hosts of that version compare it, so plugins carry the former names.
const RENAMED: [(&str, &str, &str); 5] = [
    ("HeraldLayerDesc", "index", "block"),
    ("HeraldSequence", "far_starts", "selectable_starts"),
    ("HeraldSequence", "far_summaries", "selectable_summaries"),
    ("HeraldSequence", "n_far", "n_selectable"),
    ("HeraldSequence", "reach", "max_distance"),
];

/// The report that a plugin carries; `None` as for [`report`].
pub(crate) fn carried() -> Option<&'static str> {
    static CARRIED: OnceLock<String> = OnceLock::new();
    let report = report()?;
    Some(CARRIED.get_or_init(|| {
        RENAMED.iter().fold(report.to_owned(), |report, (name, former, today)| {
            report.replace(&format!("{name} {today} "), &format!("{name} {former} "))
        })
    }))
}

/// Today's name of a field in a report.
fn today<'r>(name: &str, field: &'r str) -> &'r str {
    let found = RENAMED.iter().find(|(of, former, _)| (*of, *former) == (name, field));
    found.map_or(field, |(_, _, today)| today)
}

/// Each struct's fields: name, and the rest of the line.
type Fields<'r> = HashMap<&'r str, Vec<(&'r str, &'r str)>>;

fn compare<'r>(ours: &'r str, theirs: &'r str) -> Result<(), String> {
    let fields = |report: &'r str| -> Result<Fields<'r>, String> {
        let mut structs = Fields::new();
        for line in str::lines(report) {
            let mut parts = line.splitn(3, ' ');
            let (Some(name), Some(field), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
                return Err(format!(
                    "its layout report has the line {line:?}, where \"struct field offset size type\" was expected"
                ));
            };
            structs.entry(name).or_default().push((today(name, field), rest));
        }
        Ok(structs)
    };
    let ours = fields(ours)?;
    for (name, theirs) in fields(theirs)? {
        let Some(ours) = ours.get(name) else { continue };
        for ((our_field, our_rest), (their_field, their_rest)) in ours.iter().zip(&theirs) {
            if (our_field, our_rest) != (their_field, their_rest) {
                return Err(format!(
                    "its {name} has the field {their_field} ({their_rest}), where {our_field} ({our_rest}) was expected"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "HeraldTask struct_size 0 8 usize\nHeraldTask argument 8 8 *mut c_void\n";

    #[test]
    fn appended_fields_and_structs_are_no_mismatch() {
        let longer = format!("{REPORT}HeraldTask hint 16 4 u32\nHeraldNew struct_size 0 8 usize\n");
        assert_eq!(compare(REPORT, &longer), Ok(()));
        assert_eq!(compare(&longer, REPORT), Ok(()));
    }

    #[test]
    fn a_changed_field_is_named() {
        let moved = REPORT.replace("argument 8 8 *mut c_void", "argument 16 8 *mut c_void");
        assert_eq!(
            compare(REPORT, &moved).unwrap_err(),
            "its HeraldTask has the field argument (16 8 *mut c_void), where argument (8 8 *mut c_void) was expected"
        );
    }

    #[test]
    fn a_former_name_is_no_mismatch() {
        let former = "HeraldLayerDesc index 12 4 u32\nHeraldSequence reach 80 8 u64\n";
        let today = "HeraldLayerDesc block 12 4 u32\nHeraldSequence max_distance 80 8 u64\n";
        assert_eq!(compare(today, former), Ok(()));
        let moved = former.replace("reach 80", "reach 88");
        assert_eq!(
            compare(today, &moved).unwrap_err(),
            "its HeraldSequence has the field max_distance (88 8 u64), where max_distance (80 8 u64) was expected"
        );
    }

    #[cfg(feature = "layout")]
    #[test]
    fn plugins_carry_former_names() {
        let carried = carried().unwrap();
        for (name, former, today) in RENAMED {
            assert!(
                carried.contains(&format!("{name} {former} "))
                    && !carried.contains(&format!("{name} {today} "))
            );
        }
        assert_eq!(check(carried), Ok(()));
    }

    #[test]
    fn nonsense_is_named() {
        assert!(compare(REPORT, "nonsense").unwrap_err().contains("\"nonsense\""));
    }
}
