#!/usr/bin/env bash
# Runs once, at length, what the matrix would repeat in each configuration or only samples: writers killed at
# random for a minute, many transactions in a row, and power cuts on images of ext4, xfs and btrfs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ "$(id -u)" != 0 ]; then
  echo "SKIPPED $0: file systems can be mounted by root only" >&2
  [ "${CI:-}" != true ]
  exit
fi

built=$(cargo test -q -p steadfast --test workspace --test section --no-run \
  --message-format=json-render-diagnostics |
  sed -n 's/.*"test":true},"features".*"executable":"\([^"]*\)".*/\1/p')
transactions=20000
if [ -n "${STEADFAST_LONG:-}" ]; then transactions=100000; fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# That all tests of this name pass, run by that command, that there is one, and that none was skipped.
prove() { # BINARY NAME [COMMAND...]
  local binary name=$2 start=$SECONDS
  binary=$(grep "/$1-[0-9a-f]*\$" <<<"$built")
  shift 2
  "$@" env --default-signal "$binary" --nocapture "$name" 2>&1 | tee "$log"
  if ! grep -aqE 'test result: ok\. [1-9][0-9]* passed' "$log" || grep -aq SKIPPED "$log"; then
    echo "$name: it should have run"
    return 1
  fi
  printf '%s: %d s\n' "$name" $((SECONDS - start))
}

prove workspace many::many_writers_killed_at_random env STEADFAST_LONG=1 ci/mounts.sh -f ext4
prove workspace cost::many_transactions env STEADFAST_TRANSACTIONS="$transactions" ci/mounts.sh -f ext4
prove workspace cut:: env -u STEADFAST_TEST_DIR
prove section cut:: env -u STEADFAST_TEST_DIR
