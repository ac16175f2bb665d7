#!/bin/sh
# Prints the notice of the third parties' crates that HERALD's binaries contain: their names, versions and licences, then
# each licence's text once. It asks cargo and reads the crates' sources that the build unpacked; it needs no network.
set -eu

repository=$(cd "$(dirname "$0")/.." && pwd)
sources=${CARGO_HOME:-$HOME/.cargo}/registry/src
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# A line for each crate: name, version, licence, repository. Path dependencies are HERALD's own, and macros only run at
# build time.
"${CARGO:-cargo}" tree --offline --locked --quiet --manifest-path "$repository/Cargo.toml" \
    --package herald-cli --package herald-capi --package herald-cpu --package herald-simd --package herald-blas \
    --edges normal --prefix none --no-dedupe --format '{p}|{l}|{r}' >"$work/tree"
grep -v -e '^$' -e '(/' -e '(proc-macro)' "$work/tree" | sed 's/ v\([^|]*\)|/|\1|/; s/ (\*)//' | LC_ALL=C sort -u >"$work/crates"

cat <<EOF
HERALD's programs and libraries contain the Rust standard library (MIT OR Apache-2.0, https://www.rust-lang.org) and these
crates. Their licences' texts follow.

EOF
while IFS='|' read -r name version licence home; do
    printf '%s %s: %s%s\n' "$name" "$version" "$licence" "${home:+, $home}"
    for folder in "$sources"/*/"$name-$version"; do
        [ -d "$folder" ] || continue
        # A folder of licences counts too.
        find "$folder" -maxdepth 2 -type f \( -iname 'licen[sc]e*' -o -iname 'unlicense*' -o -iname 'copying*' \
            -o -iname 'copyright*' -o -iname 'notice*' -o -path '*/LICENSES/*' \) ! -name '*.rs' ! -name '*.toml' |
            LC_ALL=C sort | while IFS= read -r text; do
            sum=$(cksum <"$text" | tr ' ' '-')
            [ -f "$work/$sum.text" ] || { cp "$text" "$work/$sum.text" && printf '%s\n' "$sum" >>"$work/order"; }
            printf '%s\n' "$name" >>"$work/$sum.names"
        done
        break
    done
done <"$work/crates"

[ -f "$work/order" ] || exit 0
while IFS= read -r sum; do
    printf '\n--------------------------------------------------------------------------------\n'
    LC_ALL=C sort -u "$work/$sum.names" | paste -s -d ' ' - | sed 's/^/Licence of: /' | fold -s -w 100
    printf '\n'
    cat "$work/$sum.text"
done <"$work/order"

# The web page's packages, as its build lists them.
printf '\n--------------------------------------------------------------------------------\n'
cat "$repository/host/server/page/dist/licences.txt"
