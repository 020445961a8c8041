# The daemon and its worker. Both need nothing but a C library and certificates.
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --release --bins -p dagwright-daemon -p dagwright-dataplane \
    && install -D -t /out target/release/dagwright target/release/dagwright-task

FROM debian:12-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 50001 --gid 0 --home-dir /var/lib/dagwright --create-home dagwright
COPY --from=build /out/ /usr/local/bin/
USER dagwright
VOLUME /var/lib/dagwright
EXPOSE 8642
ENTRYPOINT ["/usr/local/bin/dagwright"]
CMD ["serve"]
