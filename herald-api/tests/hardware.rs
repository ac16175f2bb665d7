//! What the CPU's features are called.

use herald_api::{Hardware, abi};

#[test]
fn features_are_named_where_the_architecture_has_them() {
    let features = abi::HERALD_CPU_NEON | abi::HERALD_CPU_DOTPROD;
    let arm = Hardware { arch: abi::HERALD_ARCH_AARCH64, cpus: 1, features, memory_bytes: 0 };
    assert_eq!(arm.names_of(u64::MAX), ["neon", "dotprod"]);
    assert_eq!(arm.names_of_missing(u64::MAX), ["i8mm"]);
    assert_eq!(arm.names_of_missing(features), [""; 0]);
    let other = Hardware { arch: abi::HERALD_ARCH_OTHER, ..arm };
    assert_eq!(other.names_of(u64::MAX), [""; 0]);
    assert_eq!(other.names_of_missing(u64::MAX), [""; 0]);
}

#[test]
fn this_cpu_has_what_it_names() {
    let here = Hardware::features_only();
    let (there, missing) = (here.names_of(u64::MAX), here.names_of_missing(u64::MAX));
    assert!(there.iter().all(|name| !missing.contains(name)));
}
