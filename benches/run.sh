#!/usr/bin/env bash
# Measures the library side by side with the same work by hand and by others, on fresh ext4, xfs and btrfs.
#
#   benches/run.sh [-f "ext4 xfs btrfs"] [-o FOLDER] [FILTER]   only cases whose names contain a part of it
#   benches/run.sh compare OLD.json NEW.json                    what became slower beyond the noise
#   benches/run.sh keep                                         everything, and puts it into docs and README.md
#
# Each file system is in an image of its own on a loop device with direct I/O. Result, tables and plots go to
# target/benchmarks, or to FOLDER; docs/benchmarks.md tells how to read them. BENCH_MINUTES=n (20 for keep) is when
# it ends: on a slow disk there are fewer samples. BENCH_MILLIS=n gives each case so much time in place of 4000;
# STEADFAST_LONG=1 takes hours; STEADFAST_SMOKE=1 does everything once, to see that it works. A filter is parts of
# names, with commas between: swap,transaction/10
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PATH:/usr/sbin:/sbin

# The build sees the namespace of whoever calls, the measurement one of its own.
if [ -z "${BENCH_INSIDE:-}" ]; then
  CARGO_INCREMENTAL=0 cargo build -q --release --locked --manifest-path benches/contest/Cargo.toml \
    --target-dir target/contest
  if [ "${1:-}" = compare ]; then
    exec target/contest/release/steadfast-contest "$@"
  fi
  if [ "$(id -u)" != 0 ] || ! command -v strace >/dev/null; then
    echo "SKIPPED $0: it needs root for its loop devices, and strace" >&2
    exit 1
  fi
  BENCH_INSIDE=1 exec unshare --mount --propagation private "$PWD/benches/run.sh" "$@"
fi

program=$PWD/target/contest/release/steadfast-contest
kinds='ext4 xfs btrfs'
out=target/benchmarks
keep=
if [ "${1:-}" = keep ]; then
  keep=1
  BENCH_MINUTES=${BENCH_MINUTES:-20}
  shift
  if [ $# != 0 ]; then
    echo "$0: only a whole run is kept" >&2
    exit 2
  fi
fi
while getopts f:o: option; do
  case $option in
    f) kinds=$OPTARG ;;
    o) out=$OPTARG ;;
    *) exit 2 ;;
  esac
done
shift $((OPTIND - 1))

# Where the images are; not on tmpfs, which has no disk to wait for.
base=$(mktemp -d -p "${BENCH_DIR:-target}" bench.XXXXXX)
base=$(realpath "$base")
loop=

clean() {
  local answer=$?
  trap - EXIT
  umount "$base/at" 2>/dev/null || true
  if [ -n "$loop" ]; then losetup -d "$loop" || true; fi
  rm -rf --one-file-system "$base"
  exit "$answer"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

size=3
[ -z "${STEADFAST_LONG:-}" ] || size=8
mkdir -p "$out" "$base/at"
rm -f "$out/results.json"
BENCH_DISK="images of $size GiB on loop devices with direct I/O, on $(findmnt -n -o FSTYPE -T "$base")"
export BENCH_DISK
if [ -n "${BENCH_MINUTES:-}" ]; then end=$((EPOCHSECONDS + BENCH_MINUTES * 60)); fi
left=$(wc -w <<<"$kinds")
for kind in $kinds; do
  # What one file system does not need, the next ones have.
  if [ -n "${BENCH_MINUTES:-}" ]; then
    export BENCH_END=$((EPOCHSECONDS + (end - EPOCHSECONDS) / left))
    left=$((left - 1))
  fi
  fallocate -l "${size}G" "$base/image"
  case $kind in
    ext4) mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$base/image" ;;
    xfs) mkfs.xfs -q -f "$base/image" ;;
    btrfs) mkfs.btrfs -q -f "$base/image" >/dev/null ;;
    *) echo "$0: no file system $kind" >&2 && exit 2 ;;
  esac
  # mkfs gives blocks back, or leaves them reserved, and whoever writes to such a one first waits for the file
  # system that the image lies on. A disk has no such blocks: all of them are written once before.
  dd if="$base/image" of="$base/image" bs=1M conv=notrunc,fsync status=none
  loop=$(losetup --find --show --direct-io=on "$base/image")
  # btrfs would give them back again.
  if [ "$kind" = btrfs ]; then mount -o nodiscard "$loop" "$base/at"; else mount "$loop" "$base/at"; fi
  "$program" measure "$kind" "$base/at" "${loop##*/}" "$out/results.json" "${1:-}"
  umount "$base/at"
  losetup -d "$loop"
  loop=
  rm "$base/image"
done
"$program" report "$out/results.json" "$out"
echo "in $out" >&2
if [ -n "$keep" ]; then
  cp "$out"/results.json "$out"/tables.md "$out"/*.svg docs/benchmarks/
  STEADFAST_WRITE=1 cargo test -q --locked --test tidy numbers
  git --no-pager diff --stat -- docs/benchmarks README.md docs/benchmarks.md || true
fi
