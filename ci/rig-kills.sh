#!/usr/bin/env bash
# Kills parts of a run of the rig in the middle of their work, and looks whether anything of it is left.
#
#   ci/rig-kills.sh [TIMES]         each of worker, server, rig, guardian, script, group, all, stop: TIMES times
#
# A hung disk would hang every sync(2) of the machine. So after each kill a file system of its own is made and
# synced, and neither a process, a loop device, a mount nor a FUSE connection of the run may be left. Nothing
# else on the machine may use FUSE or end loop devices meanwhile.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin
[ "$(id -u)" = 0 ] || { echo "SKIPPED $0: it needs root" >&2; exit; }

if [ -z "${STEADFAST_RIG_BUILT:-}" ]; then
  CARGO_INCREMENTAL=0 cargo build -q --release --locked --manifest-path ci/rig/Cargo.toml --target-dir target/rig
  export STEADFAST_RIG_BUILT=target/rig/release/steadfast-rig
fi
times=${1:-20}
control=/sys/fs/fuse/connections
own=
mountpoint -q "$control" || { mount -t fusectl none "$control"; own=1; }
dir=$(mktemp -d)
run=

clean() {
  local answer=$?
  trap - EXIT
  [ -z "$run" ] || kill -- "-$run" 2>/dev/null || true
  ! mountpoint -q "$dir/at" || umount "$dir/at"
  [ -z "$own" ] || umount "$control"
  rm -rf --one-file-system "$dir"
  exit "$answer"
}
trap clean EXIT
trap 'exit 143' INT TERM HUP

mkdir "$dir/at"
truncate -s 64M "$dir/disk"
mkfs.ext4 -q "$dir/disk"

things() {
  ls -d "$control"/* /dev/shm/steadfast-rig.* 2>/dev/null | sort || true
}

# What is there of a run.
left() {
  pgrep -af 'steadfast-rig (run|guard|serve|in-namespace)|unshare .*steadfast-rig' || true
  grep -l steadfast-rig /sys/block/loop*/loop/backing_file 2>/dev/null || true
  grep -h steadfast-rig /proc/self/mountinfo || true
  comm -13 <(printf '%s\n' "$before") <(things)
}

# A process of the session of the run that has this in its command line; nothing if there is none now.
part() {
  pgrep -s "$run" -f "$1" | shuf -n 1 || true
}

before=$(things)
bad=0
for ((n = 0; n < times; n++)); do
  for what in worker server rig guardian script group all stop; do
    setsid ci/rig.sh run "fs=$(shuf -e -n 1 ext4 xfs btrfs)" subject=s states=500 >"$dir/out" 2>&1 &
    run=$!
    # At any moment: while devices are made, work is recorded, states are checked.
    sleep "0.$((RANDOM % 10))"
    for ((wait = 0; wait < 300; wait++)); do
      [ -z "$(part ' in-namespace ')" ] || break
      sleep 0.1
    done
    sleep "$((RANDOM % 3)).$((RANDOM % 10))"
    case $what in
      worker) victims=("$(part '^[^ ]*steadfast-rig in-namespace ')") ;;
      server) victims=("$(part '^[^ ]*steadfast-rig serve ')") ;;
      rig) victims=("$(part '^[^ ]*steadfast-rig run ')") ;;
      guardian) victims=("$(pgrep -f '^[^ ]*steadfast-rig guard ')") ;;
      script) victims=("$run") ;;
      group) victims=("-$(part '^timeout ')") ;;
      # Everything but the guardian at once.
      all) mapfile -t victims < <(pgrep -s "$run") ;;
      stop) victims=("$(part '^[^ ]*steadfast-rig serve ')") ;;
    esac
    if [ "$what" = stop ]; then
      # It does not answer; then the script is killed.
      kill -STOP -- "${victims[@]}" || true
      sleep 0.5
      kill -KILL "$run" || true
    else
      kill -KILL -- "${victims[@]}" || echo "$what: not all of them were there"
    fi
    # What goes on after that: other workers, and what they started.
    case $what in worker | server) kill -TERM "$run" || true ;; esac
    start=$SECONDS
    # A file system of its own, on a loop device as well.
    if ! timeout -k 5 30 mount -o loop "$dir/disk" "$dir/at"; then
      echo "$what: no other loop device can be mounted"
      bad=1
    else
      date >"$dir/at/file"
      timeout -k 5 20 sync -f "$dir/at/file" || { echo "$what: a sync hangs"; bad=1; }
      umount "$dir/at"
    fi
    for ((wait = 0; wait < 300; wait++)); do
      [ -n "$(left)" ] || break
      sleep 0.1
    done
    if [ -n "$(left)" ]; then
      echo "$what: left are"
      left
      bad=1
    fi
    echo "$n $what: ended in $((SECONDS - start)) s"
    wait "$run" || true
    run=
  done
done
[ "$bad" = 0 ]
