#!/usr/bin/env bash
# Type-checks the workspace, tests included, for systems that nobody needs to have at hand: macOS on both processors, and Windows.
# Nothing is linked and no C is compiled (so the server's TLS is left out, and the benches, whose criterion has some), so no SDK is
# needed. Then sees that a 32-bit and a big-endian target are refused with one sentence.
#
#     tools/check_targets.sh [TARGET...]
#
# rustup's targets are added where they are missing, and what was built for each is removed again.
set -euo pipefail
cd "$(dirname "$0")/.."

targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(aarch64-apple-darwin x86_64-apple-darwin x86_64-pc-windows-gnu)
# Of these only the refusal is wanted.
refused=(i686-unknown-linux-gnu s390x-unknown-linux-gnu)

# Nothing of this is run, or built again.
export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=false

installed=$(rustup target list --installed)
for target in "${targets[@]}" "${refused[@]}"; do
    grep -qx "$target" <<<"$installed" || rustup target add "$target"
done

for target in "${targets[@]}"; do
    printf '\n== check %s\n' "$target"
    RUSTFLAGS="-D warnings" cargo check --quiet --locked --workspace --exclude herald-benches --all-targets --no-default-features --target "$target"
    rm -rf "target/$target"
done

for target in "${refused[@]}"; do
    printf '\n== refusal of %s\n' "$target"
    if said=$(cargo check --quiet --locked -p herald-api --target "$target" 2>&1); then
        echo "error: $target was expected to be refused" >&2
        exit 1
    fi
    grep "HERALD runs on 64-bit little-endian machines only" <<<"$said"
done
