#!/usr/bin/env bash
# Builds the fuzz targets, replays their corpora, and runs each for two minutes (the two quick ones for one; with
# STEADFAST_LONG=1 all for ten; FUZZ_SECONDS says otherwise, 0: only the corpora), two at a time. With arguments: only
# these targets. docs/fuzzing.md says what they assert. Of targets that FUZZ_TELL names, an input that is new and fails is
# told and fails nothing.
#
# Needs the stable toolchain and a C++ compiler, for libFuzzer. The flags are those of `cargo fuzz --sanitizer none`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

targets=("$@")
# In an order in which two at a time have about as much to do.
if [ $# = 0 ]; then targets=(recovery operations log resolve manifest); fi

# How long a target runs.
seconds() { # TARGET
  local usual
  case $1 in
    resolve | manifest) usual=60 ;;
    *) usual=120 ;;
  esac
  if [ -n "${STEADFAST_LONG:-}" ]; then usual=600; fi
  echo "${FUZZ_SECONDS:-$usual}"
}

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
  local target=$1 seconds
  seconds=$(seconds "$target")
  mkdir -p "$scratch/$target/corpus"
  if ! run "$target" -runs=0 "fuzz/corpus/$target"; then
    tell "$target"
    return 1
  fi
  if [ "$seconds" != 0 ] &&
    ! run "$target" -max_total_time="$seconds" "$scratch/$target/corpus" "fuzz/corpus/$target"; then
    tell "$target"
    [[ " ${FUZZ_TELL:-} " == *" $target "* ]] || return 1
    printf '\n*** %s: FOUND the above, by chance. It fails nothing here, and is to be mended.\n\n' "$target"
  fi
  # How it began, and what it came to.
  grep -aE '^INFO: Seed|INITED|^stat::(number_of|average)' "$scratch/$target.out" | sed "s/^/$target: /"
}

failed=0 running=0
for target in "${targets[@]}"; do
  if [ "$running" = 2 ]; then
    wait -n || failed=1
    running=1
  fi
  one "$target" &
  running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
  wait -n || failed=1
  running=$((running - 1))
done
exit "$failed"
