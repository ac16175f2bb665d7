#!/bin/sh
# Installs the HERALD that this folder holds, or removes it. `install.sh --help` says where.
set -eu
umask 022

usage() {
    cat <<'EOF'
Installs the HERALD that this folder holds.

    ./install.sh [--prefix FOLDER] [--no-alias]
    ./install.sh --uninstall [--prefix FOLDER]

  --prefix FOLDER   where to install; without root, ~/.local is a good place [default: $PREFIX or /usr/local]
  --no-alias        leave out what is called host, for systems with another program of that name
  --uninstall       remove what the manifest in PREFIX/share/herald lists
  --help            print this
EOF
}

fail() {
    echo "install.sh: $1" >&2
    exit "${2:-1}"
}

from=$(cd "$(dirname "$0")" && pwd)
prefix=${PREFIX:-/usr/local}
action=install alias=yes
while [ $# -gt 0 ]; do
    case $1 in
    --prefix) [ $# -gt 1 ] || fail "$1 needs a folder after it" 2 && prefix=$2 && shift ;;
    --prefix=*) prefix=${1#*=} ;;
    --no-alias) alias= ;;
    --uninstall) action=uninstall ;;
    -h | --help) usage && exit 0 ;;
    *) fail "there is no option \"$1\"; install.sh --help lists those that there are" 2 ;;
    esac
    shift
done
case $prefix in
/*) ;;
*) fail "PREFIX is \"$prefix\", where an absolute path was expected" ;;
esac
prefix=${prefix%/}
manifest=$prefix/share/herald/manifest

if [ "$action" = uninstall ]; then
    [ -f "$manifest" ] || fail "$manifest is missing, so nothing of HERALD is installed in $prefix"
    # The deepest first, so that folders are empty when they come.
    LC_ALL=C sort -r "$manifest" | while IFS= read -r path; do
        case /$path in
        */../* | */./*) fail "$manifest: \"$path\" was not written by install.sh" ;;
        */) rmdir "$prefix/$path" 2>/dev/null || : ;;
        *) rm -f "$prefix/$path" ;;
        esac
    done
    echo "removed HERALD from $prefix"
    exit
fi

[ -f "$from/share/herald/manifest" ] || fail "$from/share/herald/manifest is missing: unpack the tarball as a whole"
mkdir -p "$prefix" || fail "$prefix can't be made by this user: run it as root, or choose another place, such as --prefix ~/.local"
[ -w "$prefix" ] || fail "$prefix can't be written to by this user: run it as root, or choose another place, such as --prefix ~/.local"
list=$(mktemp)
trap 'rm -f "$list"' EXIT
while IFS= read -r path; do
    case $path in
    bin/host | share/man/man1/host.1 | share/man/man1/host-* | */completions/host | */_host | */host.fish)
        [ -n "$alias" ] || continue
        ;;
    esac
    case $path in
    */)
        # A folder that was there stays when HERALD goes.
        if [ -d "$prefix/$path" ] && ! grep -q -x -F -e "$path" "$manifest" 2>/dev/null; then continue; fi
        mkdir -p "$prefix/$path"
        ;;
    *)
        mkdir -p "$(dirname "$prefix/$path")"
        # What is in use stays whole: the new file takes the old one's name.
        rm -f "$prefix/$path.new"
        [ "$path" = share/herald/manifest ] || {
            cp -P -p "$from/$path" "$prefix/$path.new"
            mv -f "$prefix/$path.new" "$prefix/$path"
        }
        ;;
    esac
    printf '%s\n' "$path" >>"$list"
done <"$from/share/herald/manifest"
cp "$list" "$manifest"
chmod 644 "$manifest"
echo "installed HERALD in $prefix; $prefix/bin/herald self-check says whether it works"
