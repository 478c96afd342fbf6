#!/usr/bin/env bash
# Runs the test binaries, built once, on every file system, without one kernel feature after the other, and
# without privileges: MATRIX_JOBS of these at a time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# What is switched off, one row after the other, by the test seam: the names of src/sys and the errno that
# a kernel or file system without the feature gives. A row may have several, with `;` between them.
rows=(
  'openat2=ENOSYS'
  'openat2=EPERM'
  'openat(O_TMPFILE)=EOPNOTSUPP'
  'renameat2(RENAME_NOREPLACE)=EINVAL'
  'renameat2(RENAME_EXCHANGE)=EINVAL'
  'linkat(AT_EMPTY_PATH)=ENOENT'
  'linkat(/proc/self/fd)=EOPNOTSUPP'
  # Unnamed files, and no way to name one. (EOPNOTSUPP is the answer of sys where there is no procfs.)
  'linkat(AT_EMPTY_PATH)=ENOENT;linkat(/proc/self/fd)=EOPNOTSUPP'
  'copy_file_range=EOPNOTSUPP'
  'ioctl(FICLONE)=EOPNOTSUPP'
)

# Runs every binary listed in $MATRIX_BINARIES ("DIRECTORY BINARY" lines) but those of the names in $MATRIX_SKIP,
# through the command in $@ if any.
run_all() {
  local dir binary name log start failed=0
  log=$(mktemp)
  while read -r dir binary; do
    name=${binary##*/}
    case " ${MATRIX_SKIP:-} " in *" ${name%-*} "*) continue ;; esac
    start=$SECONDS
    # A shell in the background ignores SIGINT, and so would everything below it.
    # The tests' own patience is ten minutes; what takes longer hangs, and this says what.
    if (cd "$dir" && env --default-signal timeout -k 10 1800 "$@" "$binary" --nocapture) \
      </dev/null >"$log" 2>&1; then
      printf '  ok %3d s  %s\n' $((SECONDS - start)) "${binary##*/}"
      grep -a 'SKIPPED' "$log" | sed 's/^/    /' || true
    else
      printf '  FAILED     %s\n' "${binary##*/}"
      cat "$log"
      failed=1
    fi
  done <"$MATRIX_BINARIES"
  rm -f "$log"
  return "$failed"
}

# As nobody, in a mount namespace where nobody can reach the binaries.
unprivileged() {
  local closed='' part at=''
  local nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all)
  # The first directory above the build that nobody may not enter is hidden by an open, empty one.
  local IFS=/
  for part in ${PWD#/}; do
    at=$at/$part
    if [ -z "$closed" ] && ! "${nobody[@]}" test -x "$at"; then closed=$at; fi
  done
  unset IFS
  if [ -n "$closed" ]; then
    local keep here=$PWD
    keep=$(mktemp -d)
    mount --bind "$here" "$keep"
    mount -t tmpfs -o mode=755 tmpfs "$closed"
    mkdir -p "$here"
    mount --bind "$keep" "$here"
    cd "$here"
  fi
  export HOME=$STEADFAST_TEST_DIR TMPDIR=$STEADFAST_TEST_DIR
  run_all "${nobody[@]}"
}

# The configurations: a name, where, and what is switched off.
names=() places=() plans=() skips=() ways=()
configuration() { # NAME PLACE [PLAN] [SKIP] [WAY]
  names+=("$1") places+=("$2") plans+=("${3:-}") skips+=("${4:-}") ways+=("${5:---run}")
}

# Runs all configurations, as many at a time as there are processors: a good part of the tests waits for disks
# and clocks. What each says is shown when it ends.
run_configurations() {
  local logs next=0 running=0 answer pid n jobs
  local -A number=()
  jobs=${MATRIX_JOBS:-$(nproc)}
  logs=$(mktemp -d)
  # Each in a process group of its own, so that it can be ended with all below it.
  set -m
  trap 'for pid in "${!number[@]}"; do kill -- "-$pid" 2>/dev/null; done; wait; rm -rf "$logs"; exit 130' \
    INT TERM HUP
  while [ "$next" -lt "${#names[@]}" ] || [ "$running" -gt 0 ]; do
    if [ "$next" -lt "${#names[@]}" ] && [ "$running" -lt "$jobs" ]; then
      (
        if [ -n "${plans[$next]}" ]; then export STEADFAST_HOOK=${plans[$next]}; fi
        MATRIX_SKIP=${skips[$next]} exec ci/mounts.sh -f "${places[$next]}" ci/matrix.sh "${ways[$next]}"
      ) >"$logs/$next" 2>&1 </dev/null &
      number[$!]=$next
      next=$((next + 1)) running=$((running + 1))
      continue
    fi
    answer=0
    wait -n -p pid || answer=$?
    n=${number[$pid]}
    unset "number[$pid]"
    running=$((running - 1))
    echo "=== ${names[$n]}"
    cat "$logs/$n"
    if [ "$answer" -ne 0 ]; then failed+=("${names[$n]}"); fi
  done
  trap - INT TERM HUP
  set +m
  rm -rf "$logs"
}

case ${1:-} in
  --run) run_all ;;
  --unprivileged)
    if [ "${2:-}" != inside ]; then exec unshare --mount "$0" --unprivileged inside; fi
    unprivileged
    ;;
  '')
    MATRIX_BINARIES=$(mktemp)
    export MATRIX_BINARIES
    trap 'rm -f "$MATRIX_BINARIES"' EXIT
    chmod 644 "$MATRIX_BINARIES"
    # tests/tidy looks at the source alone.
    cargo test -q --workspace --no-run --message-format=json-render-diagnostics |
      sed -n 's/.*"manifest_path":"\([^"]*\)\/Cargo.toml".*"test":true},"features".*"executable":"\([^"]*\)".*/\1 \2/p' |
      grep -v '/tidy-' >"$MATRIX_BINARIES"
    [ -s "$MATRIX_BINARIES" ]

    # The slowest first, so that none of them is left for the end.
    configuration 'without privileges' ext4 '' '' --unprivileged
    for kind in btrfs overlay tmpfs ext4 xfs; do
      # The power cuts of the model are in memory, wherever the rest is.
      skip=power
      if [ "$kind" = tmpfs ]; then skip=''; fi
      configuration "on $kind" "$kind" '' "$skip"
    done
    together=''
    for row in "${rows[@]}"; do
      calls=$(tr ';' '\n' <<<"$row" | sed 's/=[A-Z]*$//')
      while read -r call; do
        grep -rqF "\"$call\"" src/sys || { echo "no system call $call in src/sys"; exit 1; }
      done <<<"$calls"
      plan="deny:${row//;/;deny:}"
      # On a file system that has it: tmpfs lacks reflinks of its own.
      where=tmpfs
      if [ "$row" = 'ioctl(FICLONE)=EOPNOTSUPP' ]; then where=xfs; fi
      # The tests of the resolvers choose between kernel and walk themselves, and use nothing else.
      skip=resolver
      # The log, claims and leases never come to these calls.
      case $row in
        openat2*) skip='' ;;
        'openat(O_TMPFILE)'* | linkat* | copy_file_range* | ioctl*) skip+=' journal claim lease' ;;
      esac
      configuration "without $row" "$where" "$plan" "$skip"
      case $row in
        *EPERM | *';'*) ;;
        *) together="$together;$plan" ;;
      esac
    done
    configuration 'without all of them' tmpfs "$together"

    failed=()
    run_configurations
    if [ "${#failed[@]}" -gt 0 ]; then
      printf 'FAILED: %s\n' "${failed[@]}"
      exit 1
    fi
    ;;
  *)
    echo "usage: $0" >&2
    exit 2
    ;;
esac
