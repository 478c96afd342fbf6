# Puts the mutations of a list into copies of the files that they are about, or only checks that each fits.
#
#   awk -f ci/mutants.awk [-v into=DIR] LIST
#
# Without `into` nothing is written. With it, DIR/<file> is written anew, with every mutation behind the
# question whether it is the one that is switched on: one build has all of them.

function fail(text) {
  printf "%s: %s\n", FILENAME, text > "/dev/stderr"
  bad = 1
}

# A text as a regular expression: each space stands for any white space, since rustfmt breaks lines.
function pattern(text) {
  gsub(/[][\\.^$*+?(){}|]/, "\\\\&", text)
  gsub(/ +/, "[ \n]+", text)
  return text
}

# Where the pattern occurs at or after `from`: `at` and `len`; `at` is 0 if it does not.
function look(file, what, from) {
  at = match(substr(source[file], from), what) ? RSTART + from - 1 : 0
  len = RLENGTH
}

# That it occurs, and once.
function once(name, file, text, whole, first, size) {
  look(file, pattern(text), 1)
  first = at
  size = len
  if (!first) {
    fail(name ": not in " file ": " text)
    return 0
  }
  look(file, pattern(text), first + 1)
  if (at) {
    fail(name ": more than once in " file ": " text)
    return 0
  }
  at = first
  len = size
  return 1
}

function finish(name, file, line, n) {
  if (name == "") return
  if (name in seen) fail(name ": twice in the list")
  seen[name] = 1
  if (!("file" in field) || !("what" in field) || !("find" in field) || !("put" in field) || !("by" in field)) {
    fail(name ": file, what, find, put and by are needed")
    return
  }
  file = field["file"]
  if (!(file in source)) {
    source[file] = ""
    while ((getline line < file) > 0) source[file] = source[file] line "\n"
    close(file)
  }
  if ("after" in field) {
    # The first behind a place that there is once.
    if (!once(name, file, field["after"])) return
    look(file, pattern(field["find"]), at + len)
    if (!at) fail(name ": not behind its place in " file ": " field["find"])
  } else if (!once(name, file, field["find"])) {
    return
  }
  n = ++count[file]
  start[file, n] = at
  size[file, n] = len
  made[file, n] = name
  put[file, n] = field["put"]
}

/^#/ || /^[ \t]*$/ { next }
/^= / {
  finish(name)
  split("", field)
  name = substr($0, 3)
  next
}
{
  key = $1
  if (key !~ /^(file|what|why|after|find|put|by)$/ || key in field) fail(name ": what is \"" $0 "\"?")
  value = $0
  sub(/^[a-z]+ +/, "", value)
  field[key] = value
}

END {
  finish(name)
  for (file in count) {
    text = source[file]
    # From the end, so that places before stay where they are.
    below = length(text) + 1
    for (n = count[file]; n > 0; n--) {
      last = 0
      for (i = 1; i <= count[file]; i++)
        if (!((file, i) in done) && (!last || start[file, i] > start[file, last])) last = i
      done[file, last] = 1
      from = start[file, last]
      after = from + size[file, last]
      if (after > below) fail(made[file, last] ": overlaps another one")
      below = from
      was = substr(text, from, size[file, last])
      is = "crate::mutant::is(\"" made[file, last] "\")"
      new = put[file, last]
      if (new ~ /MUTANT/) {
        # `&` and backslashes are special in the replacement of gsub.
        out = ""
        while ((i = index(new, "MUTANT")) > 0) {
          out = out substr(new, 1, i - 1) is
          new = substr(new, i + 6)
        }
        new = out new
      } else {
        new = "(if " is " { " new " } else { " was " })"
      }
      text = substr(text, 1, from - 1) new substr(text, after)
    }
    if (into != "" && !bad) printf "%s", text > (into "/" file)
  }
  exit bad
}
