#!/usr/bin/env bash
# Runs the test binaries, built once, on every file system, without one kernel feature after the other, and
# without privileges.
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

# Runs every binary listed in $MATRIX_BINARIES ("DIRECTORY BINARY" lines) but $MATRIX_SKIP, through the command
# in $@ if any.
run_all() {
  local dir binary log start failed=0
  log=$(mktemp)
  while read -r dir binary; do
    case ${binary##*/} in "${MATRIX_SKIP:-none}"-*) continue ;; esac
    start=$SECONDS
    # A shell in the background ignores SIGINT, and so would everything below it.
    if (cd "$dir" && env --default-signal "$@" "$binary" --nocapture) </dev/null >"$log" 2>&1; then
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
    # tests/tidy.rs looks at the source alone.
    cargo test -q --workspace --no-run --message-format=json-render-diagnostics |
      sed -n 's/.*"manifest_path":"\([^"]*\)\/Cargo.toml".*"test":true},"features".*"executable":"\([^"]*\)".*/\1 \2/p' |
      grep -v '/tidy-' >"$MATRIX_BINARIES"
    [ -s "$MATRIX_BINARIES" ]

    failed=()
    ci/mounts.sh ci/matrix.sh --run || failed+=('file systems')

    together=''
    for row in "${rows[@]}"; do
      echo "=== without $row"
      names=$(tr ';' '\n' <<<"$row" | sed 's/=[A-Z]*$//')
      while read -r name; do
        grep -rqF "\"$name\"" src/sys || { echo "no system call $name in src/sys"; exit 1; }
      done <<<"$names"
      plan="deny:${row//;/;deny:}"
      # On a file system that has it: tmpfs lacks reflinks of its own.
      where=tmpfs
      if [ "$row" = 'ioctl(FICLONE)=EOPNOTSUPP' ]; then where=xfs; fi
      # The tests of the resolvers choose between kernel and walk themselves, and use nothing else.
      skip=resolver
      case $row in openat2*) skip='' ;; esac
      MATRIX_SKIP=$skip STEADFAST_HOOK=$plan ci/mounts.sh -f "$where" ci/matrix.sh --run || failed+=("without $row")
      case $row in
        *EPERM | *';'*) ;;
        *) together="$together;$plan" ;;
      esac
    done
    echo '=== without all of them'
    STEADFAST_HOOK=$together ci/mounts.sh -f tmpfs ci/matrix.sh --run || failed+=('without all of them')

    echo '=== without privileges'
    ci/mounts.sh -f ext4 ci/matrix.sh --unprivileged || failed+=('without privileges')

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
