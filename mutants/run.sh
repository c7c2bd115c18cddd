#!/usr/bin/env bash
# run.sh ROOM [cargo-mutants options]: mutates one pure room (decide, diagnose or treat) and runs that room's tests.
#
# The whole crate takes most of a minute to build and link for each mutant; a pure room and what it needs, a second
# or two. So the room is copied into a crate of its own, below target/mutants/ROOM, with the same paths and lines, and
# mutated there in place. What the copy leaves out: the adapters, their tests, and the driver of treatments.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
room=${1:?decide, diagnose or treat}
shift
here=${CARGO_TARGET_DIR:-$root/target}/mutants/$room
rm -rf "$here/src" "$here/tests"
mkdir -p "$here/src" "$here/tests/fixtures"
cp "$root/mutants/Cargo.toml" "$root/Cargo.lock" "$root/clippy.toml" "$root/rust-toolchain.toml" "$here"
ln -s "$root/tests/fixtures/recordings" "$here/tests/fixtures/recordings"
cp -r "$root/src/model" "$root/src/decide" "$here/src"
echo "//! One pure room, to be mutated." >"$here/src/lib.rs"
echo "pub mod model; pub mod decide;" >>"$here/src/lib.rs"
case $room in
  decide) ;;
  treat)
    cp -r "$root/src/treat" "$here/src"
    sed -i '/^pub mod driver;$/d' "$here/src/treat/mod.rs"
    echo "pub mod treat;" >>"$here/src/lib.rs"
    ;;
  diagnose)
    # The parsers read the recordings; their own tests are left out.
    mkdir -p "$here/src/garm/log"
    cp -r "$root/src/diagnose" "$here/src"
    cp "$root"/src/garm/{goroutines,metrics_text}.rs "$here/src/garm"
    cp "$root"/src/garm/log/{format,parse}.rs "$here/src/garm/log"
    sed -i 's/^#\[cfg(test)\]$/#[cfg(any())]/' "$here"/src/garm/*.rs "$here"/src/garm/log/*.rs
    cat >>"$here/src/lib.rs" <<'RUST'
pub mod diagnose;
pub mod garm {
    pub mod goroutines;
    pub mod metrics_text;
    pub mod log { pub mod format; pub mod parse; }
}
pub mod http {
    pub trait BodySink: Send { fn begin(&mut self); fn piece(&mut self, piece: &[u8]); }
    pub mod list;
}
RUST
    mkdir -p "$here/src/http"
    grep -h '^pub const ENTRIES_MAX' "$root/src/http/list.rs" >"$here/src/http/list.rs"
    ;;
  *) echo "unknown room: $room" >&2 && exit 2 ;;
esac
cd "$here"
CARGO_TARGET_DIR=$here/target CARGO_INCREMENTAL=1 exec cargo mutants --no-config --in-place --baseline=skip --file "src/$room/**/*.rs" "$@"
