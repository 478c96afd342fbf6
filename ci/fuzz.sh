#!/usr/bin/env bash
# Builds the fuzz targets, replays their corpora, and runs each for FUZZ_SECONDS (60; with STEADFAST_LONG=1 ten minutes; 0:
# only the corpora), two at a time. With arguments: only these targets. docs/fuzzing.md says what they assert.
#
# Needs the stable toolchain and a C++ compiler, for libFuzzer. The flags are those of `cargo fuzz --sanitizer none`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=60
if [ -n "${STEADFAST_LONG:-}" ]; then seconds=600; fi
seconds=${FUZZ_SECONDS:-$seconds}
targets=("$@")
if [ $# = 0 ]; then targets=(resolve manifest log recovery operations); fi

host=$(rustc -vV | sed -n 's/^host: //p')
llvm=(level=4 inline-8bit-counters pc-table trace-compares)
flags='-Cpasses=sancov-module'
for flag in "${llvm[@]}"; do flags+=" -Cllvm-args=-sanitizer-coverage-$flag"; done
flags+=' --cfg fuzzing -Clink-dead-code'
# With a target named, the flags stay out of build scripts.
RUSTFLAGS=$flags cargo build --release --locked --manifest-path fuzz/Cargo.toml --target "$host" \
  --target-dir target/fuzz

# All trees of all runs, in memory where that is possible.
memory=/dev/shm
[ -d "$memory" ] && [ -w "$memory" ] || memory=${TMPDIR:-/tmp}
scratch=$(mktemp -d "$memory/steadfast-fuzz-XXXXXX")
trap 'rm -rf "$scratch"' EXIT

# Runs one target; its output goes to $scratch/TARGET.out.
run() { # TARGET ARGUMENTS...
  local target=$1
  shift
  mkdir -p "$scratch/$target/trees"
  # Limits for hangs and leaks, far above what a slow machine needs.
  STEADFAST_FUZZ_DIR="$scratch/$target/trees" "target/fuzz/$host/release/$target" -timeout=300 \
    -rss_limit_mb=4096 -artifact_prefix="$scratch/$target/" -print_final_stats=1 \
    -dict="fuzz/dictionaries/$target.dict" "$@" >>"$scratch/$target.out" 2>&1
}

# Shows what was found, and how to run it again.
tell() { # TARGET
  local target=$1 found
  grep -avE '^#[0-9]|NEW_FUNC|^"|^INFO' "$scratch/$target.out" | tail -n 80
  for found in "$scratch/$target"/*-*; do
    [ -f "$found" ] || continue
    printf '\n%s: %s\n' "$target" "$(basename "$found")"
    echo "base64 -d <<<'$(base64 -w0 "$found")' >input && ci/fuzz.sh $target && target/fuzz/$host/release/$target input"
  done
}

one() { # TARGET
  local target=$1
  mkdir -p "$scratch/$target/corpus"
  if run "$target" -runs=0 "fuzz/corpus/$target" &&
    { [ "$seconds" = 0 ] ||
      run "$target" -max_total_time="$seconds" "$scratch/$target/corpus" "fuzz/corpus/$target"; }; then
    # How it began, and what it came to.
    grep -aE '^INFO: Seed|INITED|^stat::(number_of|average)' "$scratch/$target.out" | sed "s/^/$target: /"
  else
    tell "$target"
    return 1
  fi
}

failed=0
running=()
for target in "${targets[@]}"; do
  if [ ${#running[@]} -ge 2 ]; then
    wait "${running[0]}" || failed=1
    running=("${running[@]:1}")
  fi
  one "$target" &
  running+=($!)
done
for job in "${running[@]}"; do
  wait "$job" || failed=1
done
exit "$failed"
