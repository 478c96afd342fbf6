#!/usr/bin/env bash
# The thread sanitizer over what threads of one process share: the log's group commit, the claims.
#
# The standard library is built with it, as its locks are what orders the threads: that takes minutes, and the component
# rust-src.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

source=$(rustc --print sysroot)/lib/rustlib/src/rust/library
if [ ! -d "$source" ] && ! rustup component add rust-src; then
  echo "SKIPPED $0: the component rust-src is not there, and cannot be had" >&2
  exit
fi
host=$(rustc -vV | sed -n 's/^host: //p')
case $host in
  x86_64-unknown-linux-gnu | aarch64-unknown-linux-gnu) ;;
  *)
    echo "SKIPPED $0: the thread sanitizer does not know $host" >&2
    exit
    ;;
esac

sanitized() {
  RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=thread cargo test -Zbuild-std --target "$host" --target-dir target/tsan \
    -p steadfast "$@"
}
sanitized --test claim
sanitized --test journal threads
