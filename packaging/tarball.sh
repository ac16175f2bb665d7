#!/bin/sh
# Makes a tarball of what `cargo build --release` has built, with a script that installs it. `tarball.sh --help` says more.
set -eu
umask 022

usage() {
    cat <<'EOF'
Makes a tarball of what `cargo build --release` has built.

    packaging/tarball.sh [--build FOLDER] [--out FOLDER]

  --build FOLDER   cargo's output folder [default: $BUILD or target/release]
  --out FOLDER     where the tarball goes [default: target]
  --help           print this

Unpacked, it can be used where it is, or be installed by its install.sh. The glibc of the machine that made it, or a later one, is
needed. $SOURCE_DATE_EPOCH, if set, is the time of its files.
EOF
}

fail() {
    echo "tarball.sh: $1" >&2
    exit "${2:-1}"
}

repository=$(cd "$(dirname "$0")/.." && pwd)
build=${BUILD:-$repository/target/release}
out=$repository/target
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
    *) fail "there is no option \"$1\"; tarball.sh --help lists those that there are" 2 ;;
    esac
    shift
done

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$repository/Cargo.toml" | head -n 1)
name=herald-$version-$(uname -m)-$(uname -s | tr '[:upper:]' '[:lower:]')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$out"

DESTDIR=$work "$repository/packaging/install.sh" --prefix "/$name" --build "$build"
# Of folders, those count that the tarball brings; the one that it is in has a name of its own.
grep -v '^\.' "$work/$name/share/herald/manifest" >"$work/manifest"
cp "$work/manifest" "$work/$name/share/herald/manifest"
install -m 755 "$repository/packaging/tarball-install.sh" "$work/$name/install.sh"
cp "$repository/LICENSE-MIT" "$repository/LICENSE-APACHE" "$work/$name"
# GNU tar can give all files one time and owner; others make a tarball that differs each time.
if tar --version 2>/dev/null | grep -q GNU; then
    set -- --sort=name --owner=0 --group=0 --numeric-owner --mtime="@${SOURCE_DATE_EPOCH:-$(date +%s)}"
else
    set --
fi
tar -C "$work" "$@" -c "$name" | gzip -9n >"$work/$name.tar.gz"
mv "$work/$name.tar.gz" "$out/$name.tar.gz"
echo "$out/$name.tar.gz ($(du -h "$out/$name.tar.gz" | cut -f 1))"
