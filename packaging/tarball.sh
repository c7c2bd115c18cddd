#!/usr/bin/env bash
# Makes target/scaleset-medic-VERSION-TARGET.tar.gz: the binary without the lab, its manual page and completions, the
# systemd units, an example configuration, the rules for a Prometheus without the operator, the licence. The same commit and
# toolchain give the same bytes.
#
#   packaging/tarball.sh [BINARY]            needs only glibc and libgcc; the name of the archive has the oldest glibc
#   packaging/tarball.sh --static [BINARY]   needs no library (musl): runs on any Linux, and in an empty root. To build it:
#                                            `rustup target add $(uname -m)-unknown-linux-musl`, musl-gcc (musl-tools)
#
# Builds with the Cargo profile `dist`, or takes BINARY, which must be stripped and without the lab.
# Refuses a binary of more than 12,000,000 bytes, the limit of docs/performance.md. With `--trial` as the first argument it
# packs a larger one, which must not be released. The gate does so, because its quick build is larger.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C CARGO_INCREMENTAL=0 SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}"

limit=12000000
if [ "${1:-}" = --trial ]; then
  limit=''
  shift
fi
triple=''
if [ "${1:-}" = --static ]; then
  triple=$(uname -m)-unknown-linux-musl
  shift
fi
binary=${1:-}
if [ -z "$binary" ]; then
  [ -z "$triple" ] || export "CC_${triple//-/_}=musl-gcc"
  export RUSTFLAGS="--remap-path-prefix=$PWD=. --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"
  cargo build --profile dist --locked --package scaleset-medic --no-default-features ${triple:+--target "$triple"}
  binary=${CARGO_TARGET_DIR:-target}/${triple:+$triple/}dist/scaleset-medic
fi

version=$("$binary" --version | cut -d ' ' -f 2)
grep -q "^version = \"$version\"$" Cargo.toml || { echo "$binary is of version $version" >&2; exit 1; }
if "$binary" lab --help > /dev/null 2>&1; then
  echo "$binary has the lab in it; build it with --no-default-features" >&2
  exit 1
fi
size=$(stat -L -c %s "$binary")
if [ -n "$limit" ] && [ "$size" -gt "$limit" ]; then
  echo "$binary has $size bytes, $((size - limit)) more than the $limit it may have; is it stripped? which dependency is new?" >&2
  exit 1
fi
needed=$(objdump -p "$binary" | sed -n 's/^ *NEEDED *//p')
if [ -n "$triple" ]; then
  # A static-pie has a dynamic section, but needs no library and no loader.
  loader=$(readelf --program-headers "$binary" | grep -w INTERP || true)
  [ -z "$needed$loader" ] || { echo "the binary is not static, it needs ${needed//$'\n'/ } ${loader:+and a loader}" >&2; exit 1; }
  needs=static
else
  # Anything but these would have to be installed first.
  others=$(grep -Ev '^(libc|libm|libgcc_s|ld-linux-[a-z0-9_-]+)\.so\.[0-9]+$' <<< "$needed" || true)
  [ -z "$others" ] || { echo "the binary needs $others" >&2; exit 1; }
  needs=glibc$(objdump -T "$binary" | sed -n 's/.*GLIBC_\([0-9][0-9.]*\).*/\1/p' | sort -uV | tail -n 1)
  [ "$needs" != glibc ] || { echo "the binary needs no glibc; make its archive with --static" >&2; exit 1; }
fi
name=scaleset-medic-$version-$(uname -m)-linux-$needs

stage=$(mktemp -d)
trap 'rm -r "$stage"' EXIT
root=$stage/$name
install -D -m 0755 "$binary" "$root/bin/scaleset-medic"
install -d "$root/share/man/man1" "$root/share/completions"
"$binary" man > "$root/share/man/man1/scaleset-medic.1"
for shell in bash zsh fish; do
  "$binary" completions "$shell" > "$root/share/completions/scaleset-medic.$shell"
done
install -D -m 0644 -t "$root/systemd" packaging/systemd/*.service packaging/systemd/*.timer packaging/systemd/sysusers.conf
install -D -m 0644 -t "$root/prometheus" manifests/prometheus/scrape.yml
sed '1,/^spec:/d' manifests/prometheus/prometheusrule.yaml > "$root/prometheus/rules.yml"
install -D -m 0644 -t "$root" packaging/systemd/config.toml docs/install.md LICENSE CHANGELOG.md

mkdir -p target
archive=target/$name.tar.gz
tar --create --directory "$stage" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
  --mode='u+rw,go-w' "$name" | gzip -9n > "$archive"
(cd target && sha256sum "$name.tar.gz" > "$name.tar.gz.sha256")
cat "$archive.sha256"
echo "$archive: $(stat -c %s "$archive") bytes; needs $needs"
