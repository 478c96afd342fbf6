#!/usr/bin/env bash
# Takes the syncs, flags, checks and orders of ci/mutants.txt away, one at a time, and says which test sees it.
#
#   ci/mutants.sh --check        that each still fits the source, and that docs/mutations.md has all of them
#   ci/mutants.sh [NAME...]      tries these, or all, and writes docs/mutations.md
#   ci/mutants.sh --table        writes docs/mutations.md from what was found before
#
# All mutations are built at once, into a copy of the tree, and switched on one by one by an environment
# variable. First the tests run that the list names for it, then, if none of them fails, all of its layer.
# What was found is kept in target/mutants/results, or in the directory that MUTANTS_DIR names.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
list=ci/mutants.txt
table=docs/mutations.md
work=${MUTANTS_DIR:-$PWD/target/mutants}
results=$work/results
scratch=$work/run-$$

names() { sed -n 's/^= //p' "$list"; }

check() {
  awk -f ci/mutants.awk "$list"
  local odd
  odd=$(diff <(names | sort) <(sed -n 's/^| `\([a-z0-9-]*\)` |.*/\1/p' "$table" | sort) || true)
  if [ -n "$odd" ]; then
    printf '%s has other mutations than %s:\n%s\n' "$table" "$list" "$odd"
    return 1
  fi
  echo "$(names | wc -l) mutations fit"
}

# A field of a mutation.
field() { # NAME FIELD
  awk -v name="$1" -v field="$2" '
    /^= / { mine = substr($0, 3) == name }
    mine && $1 == field { sub(/^[a-z]+ +/, ""); print }' "$list"
}

# All tests of the layer that a file is of, as words for `by`.
layer() { # FILE
  case $1 in
    src/journal/*) echo lib:journal:: journal power workspace lease ;;
    src/publish/*) echo lib:publish:: publish faults power peers ;;
    src/claim/*) echo lib:claim:: claim workspace ;;
    src/lease/*) echo lib:lease:: lease ;;
    src/workspace/*) echo lib:workspace:: workspace section operator ;;
    *) echo lib sys root publish faults tree claim journal ;;
  esac
}

build() {
  rm -rf "$work/tree"
  mkdir -p "$work/tree"
  git ls-files -z -c -o --exclude-standard | xargs -0 cp --parents -t "$work/tree" 2>/dev/null || true
  awk -v into="$work/tree" -f ci/mutants.awk "$list"
  cat >>"$work/tree/src/lib.rs" <<'RUST'

mod mutant {
    pub(crate) fn is(name: &str) -> bool {
        static ON: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
        let on = ON.get_or_init(|| std::env::var("STEADFAST_MUTANT").ok());
        on.as_deref() == Some(name)
    }
}
RUST
  (
    cd "$work/tree"
    CARGO_TARGET_DIR=$work/build cargo test -p steadfast --lib --tests --no-run 2>&1
  ) | tee "$work/build.log" | grep -E '^(error|  *-->|  *Executable)' || true
  grep -q 'Executable' "$work/build.log"
}

# Runs one test binary, perhaps only the tests of a name; true if they pass. What failed is in $scratch/failed.
run() { # BINARY[:FILTER] [VARIABLE=VALUE]
  local binary=${1%%:*} filter=() path pid answer=0
  [ "$binary" = "$1" ] || filter=("${1#*:}")
  if [ "$binary" = lib ]; then
    path=$(sed -n 's/.*Executable unittests src.lib.rs (\(.*\))/\1/p' "$work/build.log")
  else
    path=$(sed -n "s|.*Executable tests/$binary[./][a-z./]* (\(.*\))|\1|p" "$work/build.log")
  fi
  shift
  if [ ! -x "$path" ]; then
    echo "no test binary $binary" >&2
    exit 1
  fi
  rm -rf "$scratch"
  mkdir -p "$scratch/tmp"
  # timeout makes a process group of its own. The first test that fails is enough.
  (
    cd "$work/tree"
    exec env TMPDIR="$scratch/tmp" "$@" timeout -k 10 "${LIMIT:-600}" "$path" "${filter[@]}"
  ) >"$scratch/log" 2>&1 </dev/null &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.1
    if grep -aq '^test .* FAILED$' "$scratch/log"; then kill -KILL -- "-$pid" 2>/dev/null || true; fi
  done
  wait "$pid" || answer=$?
  if [ "$answer" = 0 ]; then
    grep -aq '^test result: ok. [1-9]' "$scratch/log" || {
      echo "no test of the name ${filter[*]} in $binary" >&2
    }
    return 0
  fi
  sed -n 's/^test \([a-z0-9_:]*\)\( - should panic\)\{0,1\} \.\.\. FAILED.*/\1/p' "$scratch/log" | sort -u |
    awk -v binary="$binary" 'NR == 1 { first = $0 } END {
      if (NR == 0) print binary ": killed, or without end"
      else print binary "::" first }' >"$scratch/failed"
  return 1
}

# Every test that may be asked must pass with nothing taken away.
sane() {
  local word
  for word in "$@"; do
    if ! run "$word"; then
      cat "$scratch/log"
      echo "fails with nothing taken away: $word"
      return 1
    fi
  done
}

attempt() { # NAME
  local word found='' start=$SECONDS
  for word in $(field "$1" by) ${QUICK:-$(layer "$(field "$1" file)")}; do
    if ! run "$word" "STEADFAST_MUTANT=$1"; then
      found=$(cat "$scratch/failed")
      break
    fi
  done
  printf '%s\t%s\n' "$1" "${found:-SURVIVED}" >>"$results"
  printf '%-40s %s (%d s)\n' "$1" "${found:-SURVIVED}" $((SECONDS - start))
}

write_table() {
  awk -v results="$results" '
    BEGIN {
      while ((getline line < results) > 0) {
        split(line, part, "\t")
        found[part[1]] = part[2]
      }
      print "# Mutations"
      print ""
      print "What the library must not lose, taken away piece by piece, and which test sees it. `ci/mutants.sh` makes this"
      print "page from `ci/mutants.txt` and from what it finds. A mutation is built into a copy of the source, switched on by"
      print "itself, and put to the tests that the list names for it, then to all tests of its layer; the first test that"
      print "fails is named here. `ci/mutants.sh --check`, a part of the gate, holds list, source and page together."
    }
    function row() {
      if (name == "") return
      if (file != last) {
        printf "\n## `%s`\n\n| mutation | what | seen by |\n| --- | --- | --- |\n", file
        last = file
      }
      by = name in found ? found[name] : "not tried yet"
      if (by == "SURVIVED") { by = why == "" ? "**nothing**" : "nothing: " why }
      else if (by ~ /^[a-z_0-9:]+$/) by = "`" by "`"
      printf "| `%s` | %s | %s |\n", name, what, by
    }
    /^= / { row(); name = substr($0, 3); what = why = ""; next }
    $1 == "file" { file = $2 }
    $1 == "what" { sub(/^what +/, ""); what = $0 }
    $1 == "why" { sub(/^why +/, ""); why = $0 }
    END { row() }' "$list" >"$table"
}

case ${1:-} in
  --check) check ;;
  --table) write_table ;;
  *)
    awk -f ci/mutants.awk "$list"
    mkdir -p "$work"
    build
    tries=("$@")
    [ $# -gt 0 ] || mapfile -t tries < <(names)
    if [ $# = 0 ]; then
      sane lib sys root publish faults power journal claim
    fi
    for name in "${tries[@]}"; do
      [ -n "$(field "$name" by)" ] || { echo "no such mutation: $name"; exit 1; }
      attempt "$name"
    done
    write_table
    if grep -P '\tSURVIVED$' "$results"; then exit 1; fi
    ;;
esac
