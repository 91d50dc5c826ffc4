#!/usr/bin/env bash
# Builds the image without a base image, from a static binary that is built here, and puts it to the test.
#
#   tests/deploy/image.sh [PROFILE]      dev, which is quick to build, or release, as the Dockerfile has it
#
# Needs root (files are given to the container's user), cargo-auditable, buildah, podman, runc, and what is in requirements.txt here
# and in tests/interop/python.
set -euo pipefail
cd "$(dirname "$0")/../.."
die() { printf '%s\n' "$1" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die "root is needed: files are given to the container's user"
for tool in cargo-auditable buildah podman kubectl syft; do
  command -v "$tool" >/dev/null || die "$tool is missing"
done
roots=/etc/ssl/certs/ca-certificates.crt
[ -e "$roots" ] || die "$roots is missing (Debian: apt-get install ca-certificates)"
profile=${1:-dev}
target=$(uname -m)-unknown-linux-gnu
image=rapport:checked

export RUSTFLAGS="-C target-feature=+crt-static"
cargo auditable build --locked --profile "$profile" --target "$target"
binary=${CARGO_TARGET_DIR:-target}/$target/${profile/#dev/debug}/rapport

folder=$(mktemp -d)
trap 'buildah rmi --storage-driver vfs "$image" >/dev/null 2>&1 || :; rm -rf "$folder"' EXIT
mkdir "$folder/image"
strip --strip-debug -o "$folder/image/rapport" "$binary"
install -D -m 0444 -t "$folder/image/etc/ssl/certs" "$roots"
buildah build --quiet --storage-driver vfs --isolation chroot --file deploy/Dockerfile --tag "$image" \
  --build-context build="$folder" --build-arg VERSION="$("$binary" --version | cut -d' ' -f2)" \
  --build-arg REVISION="$(git rev-parse HEAD)" --build-arg CREATED="$(git log -1 --format=%cI)" . >/dev/null

# Scanners find in the binary what it is made of.
crates=$(syft --quiet scan "file:$folder/image/rapport" -o json | jq '[.artifacts[] | select(.type == "rust-crate")] | length')
[ "$crates" -gt 100 ] || die "the binary names $crates crates"

python3 tests/deploy/image.py "$image"
