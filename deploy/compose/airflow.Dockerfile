# Airflow with Dagwright's operators, listener and bundle, and the worker that its tasks start.
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --release --bins -p dagwright-dataplane \
    && install -D -t /out target/release/dagwright-task

FROM apache/airflow:3.3.2-python3.11
COPY --from=build /out/dagwright-task /usr/local/bin/
COPY --chown=airflow:0 deploy/airflow /tmp/dagwright-airflow
RUN pip install --no-cache-dir "apache-airflow==${AIRFLOW_VERSION}" /tmp/dagwright-airflow \
    && mkdir -p /opt/airflow/bundles /opt/airflow/feedback
