#!/usr/bin/env bash
# Shows that an ordinary build of the command has no test seam in it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

marks='STEADFAST_HOOK|sys4hook|sys::hook|sys/hook[./]'

built() { # KIND CARGO-ARG...: the executable named steadfast of that kind of target
  local kind=$1
  shift
  cargo "$@" -q --message-format=json-render-diagnostics |
    sed -n 's/.*"kind":\["'"$kind"'"\][^}]*"name":"steadfast".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}

# First that the marks are found where the seam is: in the library's own test binary.
with=$(built lib test --workspace --no-run)
[ -x "$with" ]
if [ "$(grep -acE "$marks" "$with")" = 0 ]; then
  echo 'the marks of the test seam have changed: this check would see nothing'
  exit 1
fi

without=$(built bin build --release -p steadfast-cli)
[ -x "$without" ]
if grep -aqE "$marks" "$without"; then
  echo "the test seam is in $without:"
  grep -aoE "$marks" "$without" | sort | uniq -c
  exit 1
fi

# And the variable does nothing, not even when it makes no sense.
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
for plan in 'deny:renameat2(RENAME_EXCHANGE)=EINVAL' 'deny:openat2=EIO;deny:fsync=EIO' 'nonsense'; do
  echo one >"$dir/a"
  echo two >"$dir/b"
  STEADFAST_HOOK=$plan "$without" swap "$dir/a" "$dir/b"
  [ "$(cat "$dir/a" "$dir/b")" = $'two\none' ] || { echo "the plan $plan was obeyed"; exit 1; }
done
echo "no seam in $without"
