#!/usr/bin/env bash
# Writers on a small disk of their own, which are killed and stopped while it fills up and becomes read-only and
# writable again (tests/workspace/soak.rs): for some seconds, and until each has happened, on ext4 and, where a quota
# fills up before the disk does, on btrfs. With STEADFAST_LONG=1 for an hour, on xfs too. SOAK_SECONDS says otherwise.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PATH:/usr/sbin:/sbin

if [ "$(id -u)" != 0 ]; then
  echo "SKIPPED $0: file systems can be mounted by root only" >&2
  [ "${CI:-}" != true ]
  exit
fi

built=$(cargo test -q -p steadfast --test workspace --no-run --message-format=json-render-diagnostics |
  sed -n 's/.*"test":true},"features".*"executable":"\([^"]*\)".*/\1/p')
base=$(mktemp -d -t steadfast-soak.XXXXXX)
log=$base/log
mkdir "$base/disk"
clean() {
  umount "$base/disk" 2>/dev/null || umount -l "$base/disk" 2>/dev/null || true
  rm -rf --one-file-system "$base"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

soak() { # KIND SECONDS SIZE MKFS...
  local kind=$1 seconds=${SOAK_SECONDS:-$2} size=$3
  shift 3
  truncate -s "$size" "$base/image"
  "$@" "$base/image" >"$log" 2>&1 || { cat "$log" && return 1; }
  mount -o loop -t "$kind" "$base/image" "$base/disk"
  if [ "$kind" = btrfs ]; then
    # EDQUOT comes long before ENOSPC. (A quota of ext4 needs CONFIG_QFMT_V2, which few small kernels have.)
    btrfs quota enable "$base/disk"
    btrfs qgroup limit 48M "$base/disk"
  fi
  echo "--- $kind"
  STEADFAST_SOAK=$seconds STEADFAST_SOAK_DISK=$base/disk env --default-signal "$built" --exact soak::soak --nocapture 2>&1 |
    tee "$log"
  if ! grep -aqF 'test result: ok. 1 passed' "$log" || grep -aq SKIPPED "$log"; then
    echo "soak on $kind: it should have run"
    return 1
  fi
  # A process that was killed may need a moment to be gone.
  local try
  for try in {1..600}; do
    if umount "$base/disk" 2>/dev/null; then break; fi
    sleep 0.1
    [ "$try" -lt 600 ] || { echo "$0: something holds the disk" && return 1; }
  done
  rm -f "$base/image"
}

ext4=20 btrfs=10
if [ -n "${STEADFAST_LONG:-}" ]; then ext4=1800 btrfs=900; fi
soak ext4 "$ext4" 64M mkfs.ext4 -q -F -m 0
soak btrfs "$btrfs" 320M mkfs.btrfs -q -f
if [ -n "${STEADFAST_LONG:-}" ]; then soak xfs 900 320M mkfs.xfs -q -f; fi
