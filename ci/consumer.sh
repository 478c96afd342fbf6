#!/usr/bin/env bash
# Uses the packaged library as others do: a program of its own, which depends on it without any feature; programs
# that use cap-std, tempfile and anyhow beside it; and a build with all features on the oldest versions that it says
# it takes of its dependencies.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target"
target=$(realpath "$target")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
tar -xzf "$target/package/steadfast-$version.crate" -C "$dir"
mv "$dir/steadfast-$version" "$dir/steadfast"
cp -r tests/consumer tests/interop "$dir/"
# The same versions as here, so that nothing has to be fetched.
cp Cargo.lock "$dir/consumer/"

consumer=$dir/consumer/Cargo.toml
cargo fmt --manifest-path "$consumer" --check
cargo run -q --manifest-path "$consumer" --target-dir "$target/consumer"
echo "crates that come with steadfast, without features: $(cargo tree --manifest-path "$consumer" \
  -p steadfast -e normal --no-dedupe --prefix none | sort -u | tail -n +2 | wc -l)"
size=$(stat -c %s "$target/package/steadfast-$version.crate")
echo "the package: $((size / 1024)) KiB"

interop=$dir/interop/Cargo.toml
cargo fmt --manifest-path "$interop" --check
for program in directories temporaries; do
  cargo run -q --manifest-path "$interop" --target-dir "$target/consumer" --bin "$program"
done

# A dependency's oldest version that fits; of what these depend on, the newest, as anybody gets it.
rm "$dir/steadfast/Cargo.lock"
RUSTC_BOOTSTRAP=1 cargo update -q -Z direct-minimal-versions --manifest-path "$dir/steadfast/Cargo.toml"
cargo check -q --manifest-path "$dir/steadfast/Cargo.toml" --all-features --target-dir "$target/minimal"
