#!/bin/sh
# Installs what `cargo build --release` has built:
#
#     PREFIX/bin/host                    the program
#     PREFIX/lib/libherald.so, .a        the library, for C and C++
#     PREFIX/lib/herald/plugins          the backends
#     PREFIX/include                     herald.h, herald_plugin.h
#     PREFIX/lib/pkgconfig/herald.pc     flags for compiling and linking
#
# Environment variables: PREFIX (default /usr/local), DESTDIR (default empty; prepended to every path, for packagers), and
# BUILD (default target/release), cargo's output folder.
set -eu

repository=$(cd "$(dirname "$0")/.." && pwd)
prefix=${PREFIX:-/usr/local}
destination=${DESTDIR:-}
build=${BUILD:-$repository/target/release}

fail() {
    echo "install.sh: $1" >&2
    exit 1
}

case $prefix in
*[\|\&\\]*) fail "PREFIX is \"$prefix\", where a path without | & and \\ was expected" ;; # They would confuse sed below.
/*) ;;
*) fail "PREFIX is \"$prefix\", where an absolute path was expected" ;;
esac
case $(uname -s) in
Darwin) dynamic=dylib ;;
*) dynamic=so ;;
esac

for file in host "libherald.$dynamic" libherald.a "libherald_cpu.$dynamic"; do
    [ -f "$build/$file" ] || fail "$build/$file is missing: build it with cargo build --release"
done
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$repository/Cargo.toml" | head -n 1)

# Only the owner may write to installed files: the library refuses plugins that others could have changed.
folder() { install -d -m 755 "$destination$prefix/$1"; }
put() { install -m "$1" "$2" "$destination$prefix/$3"; }

for name in bin lib lib/herald lib/herald/plugins lib/pkgconfig include; do
    folder "$name"
done
put 755 "$build/host" bin/host
put 755 "$build/libherald.$dynamic" "lib/libherald.$dynamic"
put 644 "$build/libherald.a" lib/libherald.a
for plugin in "$build"/libherald_*."$dynamic"; do
    put 755 "$plugin" "lib/herald/plugins/$(basename "$plugin")"
done
put 644 "$repository/include/herald.h" include/herald.h
put 644 "$repository/include/herald_plugin.h" include/herald_plugin.h

config="$destination$prefix/lib/pkgconfig/herald.pc"
sed -e "s|@PREFIX@|$prefix|" -e "s|@VERSION@|$version|" "$repository/packaging/herald.pc.in" >"$config"
chmod 644 "$config"
echo "installed HERALD $version in $destination$prefix"
