#!/usr/bin/env bash
# Shows how the public interface differs from docs/public-api.txt, the one of the last release; with --write the
# present one becomes it. Needs cargo-public-api, and so is part of a release and not of the gate.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

kept=docs/public-api.txt
now=$(mktemp)
trap 'rm -f "$now"' EXIT
# The current toolchain, which is told to do what else only a nightly one does.
RUSTC_BOOTSTRAP=1 cargo rustdoc -q -p steadfast --lib --features serde,sha256,tokio,tracing \
  --target-dir target/public-api -- -Z unstable-options --output-format json
# Without derived, automatic and blanket implementations.
cargo public-api --rustdoc-json target/public-api/doc/steadfast.json -sss --color never >"$now"
if [ "${1:-}" = --write ]; then
  cp "$now" "$kept"
else
  diff -u "$kept" "$now" && echo "nothing has changed since the last release"
fi
