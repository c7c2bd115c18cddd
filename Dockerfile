# syntax=docker/dockerfile:1
# Build: the toolchain of rust-toolchain.toml; dependencies in a layer of their own.
FROM docker.io/library/rust:1.95.0-slim-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock rust-toolchain.toml ./
RUN mkdir src && echo 'fn main() {}' > src/main.rs && echo '' > src/lib.rs \
 && cargo build --release --locked --no-default-features \
 && rm -rf src
COPY src ./src
RUN touch src/main.rs src/lib.rs \
 && cargo build --release --locked --no-default-features

# Run: no shell, no package manager, not root; root file system may be read-only.
FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="scaleset-medic" \
      org.opencontainers.image.description="Finds and heals GitHub Actions runner scale sets that are stuck after a session conflict" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /src/target/release/scaleset-medic /usr/local/bin/scaleset-medic
USER 65532:65532
EXPOSE 9810
VOLUME ["/var/lib/scaleset-medic"]
ENTRYPOINT ["/usr/local/bin/scaleset-medic"]
CMD ["run", "--config", "/etc/scaleset-medic/config.toml"]
