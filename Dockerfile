# Build with: docker build --build-arg VERSION=0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" -t scaleset-medic:0.1.0 .
# `python3 .ci/image.py` assembles the tree of the last stage without a container engine and runs it.

# The tag is for readers; the digest decides, so one commit is built on the same bytes everywhere. Both images are indexes for
# amd64 and arm64. To renew one (for each release, and for a new toolchain): take the line "Digest" of
# `docker buildx imagetools inspect IMAGE:TAG`, write it here and in .github/workflows, run `python3 .ci/image.py`. To use a
# mirror, pass its name with --build-arg, with the same digest.
ARG BUILD_IMAGE=docker.io/library/rust:1.95.0-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082
ARG RUN_IMAGE=gcr.io/distroless/cc-debian12:nonroot@sha256:9dac0a79194e45a7da0158a9c6da57b217585af0786db3845d1f0ec1a0dd182f

# The manifests of all crates, and empty sources: what the dependencies are built from. It changes only with them.
FROM ${BUILD_IMAGE} AS manifests
WORKDIR /src
COPY . .
RUN find . -type f ! -name 'Cargo.*' ! -name '*.rs' -delete \
 && find . -name '*.rs' -exec truncate --size=0 {} + \
 && echo 'fn main() {}' > src/main.rs

# Build with the toolchain of the image, which is the one of rust-toolchain.toml (without clippy and rustfmt). The
# dependencies have a layer of their own.
FROM ${BUILD_IMAGE} AS build
# No path of the build machine and no date is in the binary: two builds of one commit give the same bytes.
ENV CARGO_INCREMENTAL=0 \
    CARGO_TERM_COLOR=never \
    SOURCE_DATE_EPOCH=0 \
    RUSTUP_TOOLCHAIN=1.95.0 \
    RUSTFLAGS="--remap-path-prefix=/src=. --remap-path-prefix=/usr/local/cargo=cargo"
WORKDIR /src
COPY --from=manifests /src ./
RUN cargo build --profile dist --locked --package scaleset-medic --no-default-features
COPY . .
# Cargo compares dates: the sources must be newer than the empty ones.
RUN find . -name '*.rs' -exec touch {} + \
 && cargo build --profile dist --locked --package scaleset-medic --no-default-features \
 && mkdir /state

# Run: no shell, no package manager, not root. The base image has glibc, libgcc, the CA certificates, time zones and user
# 65532. The root file system may be read-only; only the volume is written to.
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
COPY --from=build --chown=0:0 --chmod=0755 /src/target/dist/scaleset-medic /usr/local/bin/scaleset-medic
# A new volume takes its owner from this folder.
COPY --from=build --chown=65532:65532 --chmod=0700 /state/ /var/lib/scaleset-medic/
USER 65532:65532
ENV SCALESET_MEDIC_CONFIG=/etc/scaleset-medic/config.toml
EXPOSE 9810
VOLUME ["/var/lib/scaleset-medic"]
# Asks only the medic, never GARM or GitHub. In a one-shot container (`once`) nothing listens: use --no-healthcheck.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 \
  CMD ["/usr/local/bin/scaleset-medic", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/scaleset-medic"]
CMD ["run"]
