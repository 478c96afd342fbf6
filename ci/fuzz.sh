#!/usr/bin/env bash
# Builds the fuzz targets, replays their corpora, and tries each on inputs that are made of these and are the same in
# each run (fuzz/src/fixed.rs), two targets at a time. With STEADFAST_LONG=1, or FUZZ_SECONDS set: at random, for ten
# minutes, or for so many seconds each (0: only the corpora). With arguments: only these targets. docs/fuzzing.md says
# what they assert.
#
# Needs the stable toolchain and a C++ compiler, for libFuzzer. The flags are those of `cargo fuzz --sanitizer none`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

targets=("$@")
# In an order in which two at a time have about as much to do.
if [ $# = 0 ]; then targets=(recovery operations log resolve manifest); fi

# At random, for so long; empty: the same as always.
at_random=${FUZZ_SECONDS:-}
if [ -n "${STEADFAST_LONG:-}" ]; then at_random=${at_random:-600}; fi
# What is the same in each run takes two minutes each, or more. If a machine needs longer than this, that is told.
most=900

# How many inputs.
count() { # TARGET
  case $1 in
    resolve) echo 400000 ;;
    manifest) echo 600000 ;;
    log) echo 40000 ;;
    recovery) echo 10000 ;;
    operations) echo 10000 ;;
  esac
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

limit=()

# Runs one target; its output goes to $scratch/TARGET.out.
run() { # TARGET ARGUMENTS...
  local target=$1
  shift
  mkdir -p "$scratch/$target/trees"
  # Limits for hangs and leaks, far above what a slow machine needs.
  STEADFAST_FUZZ_DIR="$scratch/$target/trees" ${limit[@]+"${limit[@]}"} \
    "target/fuzz/$host/release/$target" -timeout=300 -rss_limit_mb=4096 \
    -artifact_prefix="$scratch/$target/" -print_final_stats=1 -dict="fuzz/dictionaries/$target.dict" \
    "$@" >>"$scratch/$target.out" 2>&1
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

# So many inputs are made, and there as files, at a time.
some=10000

# The same inputs each time, whatever the code is.
fixed() { # TARGET
  local target=$1 made=$scratch/inputs-$1 count first answer until
  count=$(count "$target")
  until=$((SECONDS + most))
  for ((first = 0; first < count; first += some)); do
    rm -rf "$made"
    mkdir "$made" || return 1
    STEADFAST_FUZZ_TO=$made STEADFAST_FUZZ_FROM=fuzz/corpus/$target STEADFAST_FUZZ_COUNT=$some \
      STEADFAST_FUZZ_FIRST=$first "target/fuzz/$host/release/$target" >>"$scratch/$target.out" 2>&1 || return 1
    [ "$(find "$made" -type f | wc -l)" = "$some" ] || return 1
    answer=0
    limit=(timeout --foreground $((until > SECONDS ? until - SECONDS : 1)))
    run "$target" -runs=0 "$made" || answer=$?
    # Of timeout(1).
    if [ "$answer" = 124 ]; then
      printf '\n*** %s: NOT FINISHED in %s s, %s of %s inputs. It fails nothing.\n\n' "$target" "$most" "$first" "$count"
      break
    fi
    [ "$answer" = 0 ] || return "$answer"
  done
  rm -rf "$made"
  limit=()
}

one() { # TARGET
  local target=$1
  mkdir -p "$scratch/$target/corpus"
  if ! run "$target" -runs=0 "fuzz/corpus/$target"; then
    tell "$target"
    return 1
  fi
  if [ -z "$at_random" ]; then
    fixed "$target" || { tell "$target" && return 1; }
  elif [ "$at_random" != 0 ] &&
    ! run "$target" -max_total_time="$at_random" "$scratch/$target/corpus" "fuzz/corpus/$target"; then
    tell "$target"
    return 1
  fi
  # What the corpus came to, and the last inputs.
  grep -aE 'DONE|^stat::(number_of|average)' "$scratch/$target.out" | sed -n '1,3p' | sed "s/^/$target: /"
  grep -aE 'DONE' "$scratch/$target.out" | sed -n '2,$p' | tail -n 1 | sed "s/^/$target, the last of $(grep -ac DONE "$scratch/$target.out"): /"
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
