#!/usr/bin/env bash
# The persistence model at large (docs/crash-testing.md): states that power cuts may leave are made, recovered and
# checked, the same ones in each run. STEADFAST_LONG=1: millions of them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TERM_COLOR=never

least=200000 times=34
if [ -n "${STEADFAST_LONG:-}" ]; then least=2000000 times=300; fi
export STEADFAST_STATES=${STEADFAST_STATES:-$times} STEADFAST_POWER_THREADS=${STEADFAST_POWER_THREADS:-$(nproc)}

test=(cargo test --release --manifest-path ci/power/Cargo.toml --locked --target-dir target/power --test power)
"${test[@]}" --no-run
built=$SECONDS
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# The threads of one subject share its states, so one at a time.
"${test[@]}" -q -- --test-threads=1 --nocapture | tee "$log"

total=$(sed -n 's/.*; in all \([0-9]*\) states.*/\1/p' "$log" | tail -n 1)
echo "$total states in $((SECONDS - built)) s; built in $built s"
# This way round, because no number at all is an error, which must not pass.
if ! [ "$total" -ge "$least" ]; then
  echo "fewer than $least"
  exit 1
fi
