#!/usr/bin/env bash
# Shows that a durable replace makes no system call that the same work written by hand does not make.
#
# Compared is the second replace of a process. Both lists are printed. By hand, "kept" is what it takes to keep
# the old file's mode, owner, attributes and access list, and "plain" the bare minimum.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

program=$(cargo build --release -q -p steadfast-bench --bin trace-replace \
  --message-format=json-render-diagnostics |
  sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')
[ -x "$program" ]
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

calls() { # library|hand kept|plain root|below: the calls of the second replace, one in each line
  strace -o "$dir/log" "$program" "$@" "$dir/work"
  # Between the third mark and the fourth.
  awk '/^getppid/ {mark++; next} mark == 3' "$dir/log"
}

# The call's name alone, with variants of one call made equal.
names() {
  sed -E 's/\(.*//; s/^(newfstatat|fstat|statx)$/stat/; s/^(renameat2|renameat)$/rename/; s/^openat2$/openat/' |
    sort
}

failed=0
for what in kept plain; do
  for place in root below; do
    calls library "$what" "$place" >"$dir/library"
    calls hand "$what" "$place" >"$dir/hand"
    printf '%s, %s: library %d calls, by hand %d\n' "$what" "$place" \
      "$(wc -l <"$dir/library")" "$(wc -l <"$dir/hand")"
    sed 's/^/  library  /' "$dir/library"
    sed 's/^/  by hand  /' "$dir/hand"
    [ "$(grep -c '^fsync' "$dir/hand")" = 2 ]
    {
      cat "$dir/hand"
      # Beyond the bare minimum: whether the target is a symlink or a folder, and, for the receipt, the
      # identity of the new file.
      if [ "$what" = plain ]; then printf 'statx()\nstatx()\n'; fi
    } >"$dir/granted"
    more=$(comm -23 <(names <"$dir/library") <(names <"$dir/granted"))
    if [ -n "$more" ]; then
      printf 'the library also makes:\n%s\n' "$more"
      failed=1
    fi
  done
done
exit "$failed"
