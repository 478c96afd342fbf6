#!/usr/bin/env bash
# Runs a command once on each file system: ci/mounts.sh [-f "ext4 xfs btrfs tmpfs overlay"] COMMAND [ARG...]
#
# Each is made fresh, for ext4, xfs and btrfs in a sparse image on a loop device, and gone afterwards. The
# command finds it as the directory STEADFAST_TEST_DIR, which anybody may write to, and its name in
# STEADFAST_TEST_FS. The overlay has ext4 above and below; the directory itself comes from the lower layer.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

kinds='ext4 xfs btrfs tmpfs overlay'
if [ "${1:-}" = -f ]; then
  kinds=$2
  shift 2
fi
[ $# -gt 0 ] || { echo "usage: $0 [-f KINDS] COMMAND [ARG...]" >&2; exit 2; }

if [ "$(id -u)" != 0 ]; then
  echo "SKIPPED $0 $*: file systems can be mounted by root only" >&2
  [ "${CI:-}" != true ]
  exit
fi

# In memory, where there is room for a good deal more than two images: what a file system does is the same, and
# the disk below is not what is tested.
parent=${TMPDIR:-/tmp}
room=$(df --output=avail -B 1M /dev/shm 2>/dev/null | tail -n 1)
if [ -w /dev/shm ] && [ "${room:-0}" -gt 6000 ]; then parent=/dev/shm; fi
base=$(mktemp -d "$parent/steadfast-mounts.XXXXXX")
chmod 755 "$base"
mounted=()

clean() {
  local answer=$? at
  trap - EXIT
  # Last first. Lazily where something is still open, so that a failed test leaves no mount behind.
  for ((at = ${#mounted[@]} - 1; at >= 0; at--)); do
    umount "${mounted[$at]}" 2>/dev/null || umount -l "${mounted[$at]}" || answer=1
  done
  mounted=()
  # Never into a file system that is still there.
  rm -rf --one-file-system "$base" || answer=1
  exit "$answer"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

attach() { # MOUNT-ARG... DIRECTORY
  mkdir -p "${*: -1}"
  mount "$@"
  mounted+=("${*: -1}")
}

image() { # KIND
  truncate -s 600M "$base/$1.img"
  case $1 in
    ext4) mkfs.ext4 -q -F "$base/$1.img" ;;
    xfs) mkfs.xfs -q -f "$base/$1.img" ;;
    # It greets even so.
    btrfs) mkfs.btrfs -q -f "$base/$1.img" >"$base/log" 2>&1 || { cat "$base/log" >&2 && return 1; } ;;
  esac
  # The mount owns the loop device, so that unmounting detaches it.
  attach -o loop -t "$1" "$base/$1.img" "$base/$1"
}

make() { # KIND; answers in $dir
  case $1 in
    ext4 | xfs | btrfs)
      image "$1"
      dir=$base/$1/test
      ;;
    tmpfs)
      attach -t tmpfs -o size=600M tmpfs "$base/tmpfs"
      dir=$base/tmpfs/test
      ;;
    overlay)
      image ext4
      mkdir -p "$base"/ext4/{upper,work,lower/test/old}
      echo below >"$base/ext4/lower/test/old/file"
      attach -t overlay -o "lowerdir=$base/ext4/lower,upperdir=$base/ext4/upper,workdir=$base/ext4/work" \
        overlay "$base/overlay"
      dir=$base/overlay/test
      ;;
    *)
      echo "$0: no file system $1" >&2
      return 2
      ;;
  esac
  mkdir -p "$dir"
  chmod 1777 "$dir"
}

failed=()
for kind in $kinds; do
  make "$kind"
  echo "--- $kind"
  start=$SECONDS
  STEADFAST_TEST_DIR=$dir STEADFAST_TEST_FS=$kind "$@" </dev/null || failed+=("$kind")
  echo "--- $kind: $((SECONDS - start)) s"
  while [ "${#mounted[@]}" -gt 0 ]; do
    at=${mounted[-1]}
    # A process that was killed may need a moment to be gone.
    for try in {1..100}; do
      if umount "$at" 2>/dev/null; then break; fi
      if [ "$try" = 100 ]; then
        echo "$0: what ran on $kind has left something that holds it"
        failed+=("$kind: in use")
        umount -l "$at"
      fi
      sleep 0.1
    done
    unset 'mounted[-1]'
  done
  rm -f "$base"/*.img
done

if [ "${#failed[@]}" -gt 0 ]; then
  echo "FAILED on: ${failed[*]}"
  exit 1
fi
