#!/usr/bin/env bash
# Runs every test. Needs what tools.sh installs, and both programs built; starts and stops the services itself.
#
#   run.sh BIN_DIR    the folder with dagwright and dagwright-task
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bin=$(cd "${1:?the folder with the programs}" && pwd)
tools=${DAGWRIGHT_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/dagwright}
export DAGWRIGHT_TOOLS="$tools" DAGWRIGHT_BIN_DIR="$bin"
failed=()

step() { printf '\n== %s\n' "$*"; }

for version in 2.11.2 3.3.2; do
    step "dagwright-airflow on Airflow $version"
    home=$(mktemp -d)
    AIRFLOW_HOME="$home" AIRFLOW__CORE__LOAD_EXAMPLES=False PYTHONPATH=deploy/airflow/src \
        "$tools/airflow-$version/bin/python" -m pytest -q -p no:cacheprovider deploy/airflow/tests || failed+=("pytest $version")
    rm -rf "$home"
done

step "Rust"
cargo test --locked --workspace --no-fail-fast || failed+=("cargo test")

if ((${#failed[@]})); then
    printf '\nfailed: %s\n' "${failed[*]}" >&2
    exit 1
fi
