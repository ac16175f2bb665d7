#!/usr/bin/env bash
# Makes target/wheels/herald_engine-*.whl from what cargo built.
#
#     python/build.sh [FOLDER]     FOLDER: cargo's output folder [default: target/release]
#
# It needs Python 3.9 or later with pip, and binutils. PYTHON names another Python than python3.
set -euo pipefail
cd "$(dirname "$0")"
repository=$(cd .. && pwd)
build=$(cd "${1:-$repository/target/release}" && pwd)

mkdir -p build
# The notice of the crates within the binaries.
"$repository/packaging/third-party.sh" >build/THIRD-PARTY
rm -f "$repository"/target/wheels/herald_engine-*.whl
HERALD_BUILD=$build "${PYTHON:-python3}" -m pip wheel --quiet --disable-pip-version-check --no-deps \
    --wheel-dir "$repository/target/wheels" .
ls "$repository"/target/wheels/herald_engine-*.whl
