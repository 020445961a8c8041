#!/usr/bin/env bash
# The demo: real flights are profiled, negotiated over, loaded; then the DAG that would do the same every night.
#
#   demo.sh BIN_DIR    the folder with dagwright and dagwright-task
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=$(cd "${1:?the folder with the programs}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export DAGWRIGHT__STORE__PATH="$work/store"

bold='' dim='' plain=''
[[ ! -t 1 ]] || bold=$'\033[1m' dim=$'\033[2m' plain=$'\033[0m'
say() { printf '\n%s── %s%s\n' "$bold" "$*" "$plain"; }
show() {
    printf '%s$ dagwright %s%s\n\n' "$dim" "$*" "$plain"
    "$bin/dagwright" "$@"
}

say "1. One command: profile, negotiate, load"
show run examples/flights.yaml

say "2. The Airflow DAG that does the same every night"
show compile examples/flights.yaml --target airflow3 --out "$work/dags"
sed -n '1,60p' "$work"/dags/*.py

say "3. A conflict, and how the agents settle it"
show run examples/flights_conflict.yaml

say "4. A goal that nobody can meet: the agents say so, and what to change"
code=0
show plan examples/flights_deadlock.yaml || code=$?
if [[ $code -ne 4 ]]; then
    printf 'expected exit code 4, got %s\n' "$code" >&2
    exit 1
fi
