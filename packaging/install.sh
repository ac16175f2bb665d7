#!/bin/sh
# Installs what `cargo build --release` has built. `install.sh --help` says what and where.
set -eu
# The library refuses plugins in folders that others may write to.
umask 022

usage() {
    cat <<'EOF'
Installs what `cargo build --release` has built, or removes it.

    packaging/install.sh [--prefix FOLDER] [--no-alias] [--debug-info]
    packaging/install.sh --uninstall [--prefix FOLDER]
    packaging/install.sh --prepare

  --prefix FOLDER   where to install; without root, ~/.local is a good place [default: $PREFIX or /usr/local]
  --build FOLDER    what to install: cargo's output folder [default: $BUILD or target/release]
  --debug-info      install the debug information too, in PREFIX/lib/debug/.build-id (for gdb:
                    set debug-file-directory PREFIX/lib/debug)
  --no-alias        install no bin/host, for systems with another program of that name
  --no-strip        install the binaries as they were built
  --prepare         only make what needs cargo (licences of third parties, the crate for plugins) or takes long, in the
                    build's folder; then a user without cargo, such as root, can install
  --uninstall       remove what was installed in this prefix, and nothing else
  --help            print this

$DESTDIR, if set, is put before every path, for those who make packages. Installed are:

  bin/herald                        the program, with a link bin/host
  lib/libherald.so.VERSION, .a      the library for C and C++, with links libherald.so.0 and libherald.so
  lib/herald/plugins                the backends
  lib/pkgconfig, lib/cmake/herald   what pkg-config and CMake's find_package(herald) read
  include                           herald.h and the other headers
  share/herald/herald-api           the crate for plugins in Rust
  share/man/man1                    manual pages
  share/doc/herald                  documentation and licences
  share/bash-completion, share/zsh, share/fish
                                    completions
  share/herald/manifest             what was installed, for --uninstall
EOF
}

fail() {
    echo "install.sh: $1" >&2
    exit "${2:-1}"
}

repository=$(cd "$(dirname "$0")/.." && pwd)
prefix=${PREFIX:-/usr/local}
destination=${DESTDIR:-}
build=${BUILD:-$repository/target/release}
action=install debug_info= strip=yes alias=yes
while [ $# -gt 0 ]; do
    case $1 in
    --prefix | --build) [ $# -gt 1 ] || fail "$1 needs a folder after it" 2 ;;
    esac
    case $1 in
    --prefix) prefix=$2 && shift ;;
    --prefix=*) prefix=${1#*=} ;;
    --build) build=$2 && shift ;;
    --build=*) build=${1#*=} ;;
    --debug-info) debug_info=yes ;;
    --no-alias) alias= ;;
    --no-strip) strip= ;;
    --prepare) action=prepare ;;
    --uninstall) action=uninstall ;;
    -h | --help) usage && exit 0 ;;
    *) fail "there is no option \"$1\"; install.sh --help lists those that there are" 2 ;;
    esac
    shift
done
[ -z "$debug_info" ] || [ -n "$strip" ] || fail "--debug-info and --no-strip exclude each other" 2

newline='
'
case $prefix$destination in
*"$newline"*) fail "the prefix has a line break in it, where a path without one was expected" ;;
esac
case $prefix in
/*) ;;
*) fail "PREFIX is \"$prefix\", where an absolute path was expected" ;;
esac
prefix=${prefix%/}
root=${destination%/}$prefix
[ -n "$root" ] || root=/
manifest=$root/share/herald/manifest

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$repository/Cargo.toml" | head -n 1)
major=${version%%.*}
case $(uname -s) in
Darwin)
    dynamic=dylib shared=libherald.$version.dylib soname=libherald.$major.dylib
    system_libs='-lSystem -lc -lm'
    ;;
*)
    dynamic=so shared=libherald.so.$version soname=libherald.so.$major
    system_libs='-lgcc_s -lutil -lrt -lpthread -lm -ldl -lc'
    ;;
esac

# --- Removing ---

# Removes the files that a manifest lists, and then those of its folders that are empty. Folders end in a slash; ./ is the
# prefix itself, ../ a folder that it is in.
remove() {
    while IFS= read -r path; do
        case /$path in
        */) ;;
        */../* | */./*) fail "$manifest: \"$path\" was not written by install.sh" ;;
        *) rm -f "$root/$path" ;;
        esac
    done <"$1"
    LC_ALL=C sort -r "$1" | while IFS= read -r path; do
        case /$path in
        */./* | */../*) ;;
        */) rmdir "$root/$path" 2>/dev/null || : ;;
        esac
    done
    at=$root
    for level in ./ ../ ../../ ../../../ ../../../../ ../../../../../; do
        grep -q -x -F -e "$level" "$1" || continue
        rmdir "$at" 2>/dev/null || break
        at=$(dirname "$at")
    done
}

work=$(mktemp -d)
unfinished=

# An installation that fails or is interrupted leaves a manifest of what it did, for --uninstall.
finish() {
    if [ -n "$unfinished" ] && [ -s "$work/manifest" ] && [ -d "$root/share/herald" ]; then
        cat "$work/manifest" >>"$manifest"
    fi
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

if [ "$action" = uninstall ]; then
    [ -f "$manifest" ] || fail "$manifest is missing, so nothing of HERALD is installed in $root"
    [ -w "$root/share/herald" ] || fail "$root can't be changed by this user: run it as the one who installed HERALD"
    cp "$manifest" "$work/manifest"
    remove "$work/manifest"
    echo "removed HERALD from $root"
    exit
fi

# --- Preparing: what needs cargo or takes long ---

for file in host "libherald.$dynamic" libherald.a "libherald_cpu.$dynamic"; do
    [ -f "$build/$file" ] || fail "$build/$file is missing: build it with cargo build --release"
done
build=$(cd "$build" && pwd)
prepared=$build/packaging

have() { command -v "$1" >/dev/null; }

# One section for each kind in an object: as many as there are functions and constants, with names as long, take half as much
# again. Not in the step that leaves out what nothing reaches: that would leave out what unwinds the stack.
merge_sections() {
    {
        echo 'SECTIONS {'
        for kind in .text .rodata .data.rel.ro .gcc_except_table .data .bss .tdata .tbss; do
            echo "$kind 0 : { *($kind $kind.*) }"
        done
        echo '}'
    } >"$work/sections"
    if ld -r -T "$work/sections" -o "$1.merged" "$1" 2>"$work/said"; then mv "$1.merged" "$1"; fi
}

# The static library as one object with what the header's functions reach: all else only takes space, and could clash with
# another Rust library's symbols in the same program.
slim_archive() {
    cp -L "$build/libherald.a" "$1"
    [ "$dynamic" = so ] && have objcopy || return 0
    nm -D --defined-only "$build/libherald.so" | sed -n 's/.* T \(herald_.*\)/\1/p' >"$work/exported"
    # .llvmbc is the code once more, for the compiler's link-time optimisation.
    if ld -r --gc-sections $(sed 's/^/-u /' "$work/exported") -o "$work/herald.o" "$1" 2>"$work/said"; then
        objcopy --strip-debug --remove-section=.llvmbc --remove-section=.llvmcmd \
            --keep-global-symbols="$work/exported" "$work/herald.o"
        merge_sections "$work/herald.o"
        objcopy --strip-unneeded "$work/herald.o"
        rm "$1"
        ar rcs "$1" "$work/herald.o"
        rm "$work/herald.o"
    else
        objcopy --strip-debug --remove-section=.llvmbc --remove-section=.llvmcmd "$1"
    fi
}

prepare() {
    cargo=${CARGO:-cargo}
    have "$cargo" || fail "cargo isn't there, which makes the licences of third parties: as the user who \
built HERALD, run packaging/install.sh --prepare first"
    rm -rf "$prepared" "$prepared.new"
    mkdir -p "$prepared.new"
    "$repository/packaging/third-party.sh" >"$prepared.new/THIRD-PARTY"
    # As it would be published: on its own, without this workspace.
    "$cargo" package --offline --quiet --no-verify --allow-dirty --package herald-api --target-dir "$work/target" \
        --manifest-path "$repository/Cargo.toml"
    tar -x -z -f "$work/target/package/herald-api-$version.crate" -C "$work"
    rm -f "$work/herald-api-$version/Cargo.toml.orig" "$work/herald-api-$version/.cargo_vcs_info.json"
    mv "$work/herald-api-$version" "$prepared.new/herald-api"
    slim_archive "$prepared.new/libherald.a"
    mv "$prepared.new" "$prepared"
}

stale() {
    [ -d "$prepared" ] || return 0
    for file in "$repository/Cargo.lock" "$build/host" "$build/libherald.a"; do
        [ -z "$(find -L "$file" -newer "$prepared/THIRD-PARTY")" ] || return 0
    done
    return 1
}

if [ "$action" = prepare ] || stale; then prepare; fi
[ "$action" = install ] || exit 0

# --- Installing ---

# The folder to be created in: the first above the prefix that is there.
at=$root level=./
: >"$work/manifest"
while [ ! -d "$at" ]; do
    echo "$level" >>"$work/manifest"
    case $level in
    ./) level=../ ;;
    *) level=../$level ;;
    esac
    at=$(dirname "$at")
done
[ -w "$at" ] || fail "$at can't be written to by this user: run it as root, or choose another place, such as --prefix ~/.local"
for name in bin lib include share share/herald; do
    [ ! -d "$root/$name" ] || [ -w "$root/$name" ] || fail "$root/$name can't be written to by this user"
done
mkdir -p "$root"
unfinished=yes

record() { printf '%s\n' "$1" >>"$work/manifest"; }

# Creates a folder and what leads to it, and records those that weren't there. Only the owner may write to what is
# installed: the library refuses plugins that others could have changed.
folder() {
    [ ! -d "$root/$1" ] || return 0
    case $1 in
    */*) folder "${1%/*}" ;;
    esac
    mkdir -m 755 "$root/$1"
    record "$1/"
}

# put MODE FILE PATH
put() {
    folder "${3%/*}"
    install -m "$1" "$2" "$root/$3"
    record "$3"
}

# link TARGET PATH
link() {
    rm -f "$root/$2"
    ln -s "$1" "$root/$2"
    record "$2"
}

# Puts a file with its @WORDS@ replaced.
fill() {
    libraries=$system_libs rpath=' -Wl,-rpath,${libdir}'
    # The system's own folder needs none.
    [ "$prefix" != /usr ] || rpath=
    # CMake takes names.
    case $1 in
    *.cmake.in) libraries=$(echo "$system_libs" | sed 's/^-l//; s/ -l/;/g') ;;
    esac
    sed -e "s|@VERSION@|$version|; s|@MAJOR@|$major|; s|@SHARED@|$shared|; s|@SONAME@|$soname|; s|@RPATH@|$rpath|" \
        -e "s|@SYSTEM_LIBS@|$libraries|" "$repository/packaging/$1" >"$work/filled"
    put 644 "$work/filled" "$2"
}

# put_binary FILE PATH KEPT: puts an executable or a library, with its debug information apart. KEPT says which symbols stay.
put_binary() {
    name=$(basename "$2")
    cp -L "$1" "$work/$name"
    chmod 755 "$work/$name"
    if [ -z "$strip" ]; then
        :
    elif [ "$dynamic" = dylib ]; then
        strip -x "$work/$name"
    elif have objcopy; then
        objcopy "--strip-$3" --remove-section=.gnu_debuglink "$work/$name"
        if [ -n "$debug_info" ]; then
            id=$(readelf -n "$1" | sed -n 's/.*Build ID: *\([0-9a-f]*\).*/\1/p' | head -n 1)
            rest=${id#??}
            debug=lib/debug/$name.debug
            [ -z "$id" ] || debug=lib/debug/.build-id/${id%"$rest"}/$rest.debug
            objcopy --only-keep-debug --compress-debug-sections "$1" "$work/$name.debug"
            objcopy --add-gnu-debuglink="$work/$name.debug" "$work/$name"
            put 644 "$work/$name.debug" "$debug"
        fi
    else
        echo "install.sh: objcopy isn't there (package binutils), so $name keeps its debug information" >&2
    fi
    put 755 "$work/$name" "$2"
    rm -f "$work/$name"
}

folder share/herald
record share/herald/manifest
put_binary "$build/host" bin/herald all
[ -z "$alias" ] || link herald bin/host
put_binary "$build/libherald.$dynamic" "lib/$shared" unneeded
link "$shared" "lib/$soname"
link "$soname" "lib/libherald.$dynamic"
case $strip in
yes) put 644 "$prepared/libherald.a" lib/libherald.a ;;
*) put 644 "$build/libherald.a" lib/libherald.a ;;
esac
for plugin in "$build"/libherald_*."$dynamic"; do
    put_binary "$plugin" "lib/herald/plugins/$(basename "$plugin")" unneeded
done
for header in "$repository"/include/*.h*; do
    put 644 "$header" "include/$(basename "$header")"
done
fill herald.pc.in lib/pkgconfig/herald.pc
fill heraldConfig.cmake.in lib/cmake/herald/heraldConfig.cmake
fill heraldConfigVersion.cmake.in lib/cmake/herald/heraldConfigVersion.cmake

# put_tree FOLDER PATH: puts a folder's files.
put_tree() {
    (cd "$1" && find . -type f | LC_ALL=C sort) >"$work/tree"
    while IFS= read -r file; do
        put 644 "$1/${file#./}" "$2/${file#./}"
    done <"$work/tree"
}

put_tree "$prepared/herald-api" share/herald/herald-api
put_tree "$repository/docs" share/doc/herald/docs
for file in README.md CHANGELOG.md SECURITY.md LICENSE-MIT LICENSE-APACHE; do
    put 644 "$repository/$file" "share/doc/herald/$file"
done
put 644 "$prepared/THIRD-PARTY" share/doc/herald/THIRD-PARTY

# The program shows the name by which it is called: in its manual pages and completions too.
for name in herald ${alias:+host}; do
    mkdir -p "$work/called" "$work/man-$name"
    ln -s "$build/host" "$work/called/$name"
    "$work/called/$name" man "$work/man-$name" >"$work/said"
    put_tree "$work/man-$name" share/man/man1
    for shell in bash zsh fish; do
        case $shell in
        bash) path=share/bash-completion/completions/$name ;;
        zsh) path=share/zsh/site-functions/_$name ;;
        fish) path=share/fish/vendor_completions.d/$name.fish ;;
        esac
        "$work/called/$name" completions "$shell" >"$work/completions"
        put 644 "$work/completions" "$path"
    done
done

record_now() { printf '%s\n' "$1" >>"$work/now"; }

# An earlier installation's folders were its own too; its files that are no more are removed.
LC_ALL=C sort -u "$work/manifest" >"$work/now"
if [ -f "$manifest" ]; then
    LC_ALL=C sort -u "$manifest" >"$work/before"
    LC_ALL=C comm -23 "$work/before" "$work/now" >"$work/gone"
    grep -v '/$' "$work/gone" >"$work/old" || :
    remove "$work/old"
    # Its folders that are empty now go too, the deepest first.
    grep '/$' "$work/gone" | LC_ALL=C sort -r >"$work/folders" || :
    while IFS= read -r folder; do
        rmdir "$root/$folder" 2>"$work/said" || record_now "$folder"
    done <"$work/folders"
    LC_ALL=C sort -u -o "$work/now" "$work/now"
fi
install -m 644 "$work/now" "$manifest"
unfinished=
size=$(while IFS= read -r file; do
    case $file in
    */) ;;
    *) [ -L "$root/$file" ] || wc -c <"$root/$file" ;;
    esac
done <"$work/now" | awk '{ bytes += $1 } END { printf "%.1f", bytes / 1e6 }')
echo "installed HERALD $version in $root ($size MB)"
