# Build with: docker build --build-arg VERSION=0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" -t scaleset-medic:0.1.0 .
# `python3 .ci/image.py` puts the tree of the last stage together without a container engine, and runs it.

# By tag for people, by digest for engines: the digest decides, so one commit is built on the same bytes everywhere. Both
# name an index for amd64 and arm64. To renew one (a release does; a new toolchain must): take the line "Digest" of
# `docker buildx imagetools inspect IMAGE:TAG`, write it here, run `python3 .ci/image.py`. A mirror of yours is given by
# --build-arg, with the same digest.
ARG BUILD_IMAGE=docker.io/library/rust:1.95.0-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082
ARG RUN_IMAGE=gcr.io/distroless/cc-debian12:nonroot@sha256:9dac0a79194e45a7da0158a9c6da57b217585af0786db3845d1f0ec1a0dd182f

# Build: with the image's own toolchain, the one of rust-toolchain.toml (whose clippy and rustfmt nobody needs here). The
# dependencies have a layer of their own, which changes with Cargo.toml and Cargo.lock only.
FROM ${BUILD_IMAGE} AS build
# No machine's path and no date is in the binary: two builds of one commit give the same bytes.
ENV CARGO_INCREMENTAL=0 \
    CARGO_TERM_COLOR=never \
    SOURCE_DATE_EPOCH=0 \
    RUSTUP_TOOLCHAIN=1.95.0 \
    RUSTFLAGS="--remap-path-prefix=/src=. --remap-path-prefix=/usr/local/cargo=cargo"
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
RUN mkdir src benches \
 && echo 'fn main() {}' > src/main.rs \
 && touch src/lib.rs \
 && sed -n '/^\[\[bench\]\]/,/^$/s/^name = "\(.*\)".*/benches\/\1.rs/p' Cargo.toml > benches/names \
 && xargs -r touch < benches/names \
 && cargo build --release --locked --no-default-features \
 && rm -rf src
COPY src ./src
# Cargo judges by dates: the sources must be younger than the empty ones above.
RUN touch src/main.rs src/lib.rs \
 && cargo build --release --locked --no-default-features \
 && mkdir /state

# Run: no shell, no package manager, not root. It holds glibc, libgcc, the CA certificates, time zones, and user 65532.
# The root file system may be read-only; only the volume is written to.
FROM ${RUN_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="scaleset-medic" \
      org.opencontainers.image.description="Finds and heals GitHub Actions runner scale sets that are stuck after a session conflict" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/scaleset-medic/scaleset-medic" \
      org.opencontainers.image.documentation="https://github.com/scaleset-medic/scaleset-medic/blob/main/docs/install.md" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build --chown=0:0 --chmod=0755 /src/target/release/scaleset-medic /usr/local/bin/scaleset-medic
# A new volume takes its owner from here.
COPY --from=build --chown=65532:65532 --chmod=0700 /state/ /var/lib/scaleset-medic/
USER 65532:65532
ENV SCALESET_MEDIC_CONFIG=/etc/scaleset-medic/config.toml
EXPOSE 9810
VOLUME ["/var/lib/scaleset-medic"]
# Asks the medic only, never a manager or GitHub. In a one-shot container (`once`) nothing listens: use --no-healthcheck.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 \
  CMD ["/usr/local/bin/scaleset-medic", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/scaleset-medic"]
CMD ["run"]
