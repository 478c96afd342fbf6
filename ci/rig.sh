#!/usr/bin/env bash
# Power cuts block by block, on ext4 (two ways to mount it), xfs and btrfs: docs/crash-testing.md tells how.
#
#   ci/rig.sh [run OPTION...]                               everything, or what the options leave of it
#   ci/rig.sh again IMAGE FS SUBJECT ACKNOWLEDGED BEGUN     one disk again that was kept of a failure
#
# STEADFAST_LONG=1: more file systems, rounds and states; STEADFAST_RIG_SECONDS=N: no more of them than fit into
# so many seconds. STEADFAST_RIG_LIMIT=N: after so many seconds it is taken to hang, and ended.
# STEADFAST_RIG_BUILT: the program, if it need not be built. What fails is kept under target/rig-failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PATH:/usr/sbin:/sbin

if [ "$(id -u)" != 0 ] || [ ! -e /dev/fuse ] || ! losetup --find >/dev/null 2>&1; then
  echo "SKIPPED $0: it needs root, FUSE and loop devices" >&2
  [ "${CI:-}" != true ]
  exit
fi

built=${STEADFAST_RIG_BUILT:-}
if [ -z "$built" ]; then
  CARGO_INCREMENTAL=0 cargo build -q --release --locked --manifest-path ci/rig/Cargo.toml --target-dir target/rig
  built=target/rig/release/steadfast-rig
fi
options=("starter=$$")
# Far beyond what it takes, for when something hangs.
limit=600
if [ -n "${STEADFAST_LONG:-}" ]; then
  options+=(fs=all rounds=8 states=400)
  limit=7200
fi
if [ -n "${STEADFAST_RIG_SECONDS:-}" ]; then options+=("seconds=$STEADFAST_RIG_SECONDS"); fi
limit=${STEADFAST_RIG_LIMIT:-$limit}

base=/dev/shm
[ -w "$base" ] || base=${TMPDIR:-/tmp}
dir=$(mktemp -d "$base/steadfast-rig.XXXXXX")
child=

clean() {
  local answer=$?
  trap - EXIT
  # Its workers, their servers and mounts end with it.
  if [ -n "$child" ]; then kill "$child" 2>/dev/null || true; fi
  if [ -n "$child" ]; then wait "$child" 2>/dev/null || true; fi
  # The guardian holds a lock for as long as anything is left.
  if [ -e "$dir/guarded" ] && ! flock -w 200 "$dir/guarded" true; then
    echo "the guardian of the rig has not come to an end" >&2
    answer=1
  fi
  if [ -d "$dir/failed" ]; then
    mkdir -p target/rig-failed
    cp --sparse=always "$dir"/failed/* target/rig-failed/
    echo "the disks are in target/rig-failed: ci/rig.sh again target/rig-failed/..."
  fi
  rm -rf --one-file-system "$dir"
  exit "$answer"
}
trap clean EXIT
trap 'echo "$0: interrupted" >&2; exit 130' INT
trap 'echo "$0: it is to end, before it was done" >&2; exit 143' TERM HUP

case ${1:-run} in
  run)
    [ $# = 0 ] || shift
    command=(run "$dir" "${options[@]}" "$@")
    ;;
  again)
    shift
    image=$(realpath "$1")
    shift
    command=(again "$dir" "$image" "$@")
    ;;
  *)
    sed -n '2,9s/^# \?//p' "$0" >&2
    exit 2
    ;;
esac
# In a mount namespace where nobody else sees the served files, and whose mounts end with it; in the background,
# so that a signal to this script is heeded at once.
timeout -k 30 "$limit" unshare --mount --propagation slave "$built" "${command[@]}" &
child=$!
answer=0
wait "$child" || answer=$?
if [ "$answer" = 124 ] || [ "$answer" = 137 ]; then
  echo "$0: it has not ended within $limit s, and was ended" >&2
fi
exit "$answer"
