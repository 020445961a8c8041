#!/usr/bin/env bash
# The demo: a daemon is asked for a month of real flights, which are profiled, negotiated over and loaded; then the DAG that
# would do the same every night.
#
#   demo.sh BIN_DIR    the folder with dagwright and dagwright-task
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=$(cd "${1:?the folder with the programs}" && pwd)
work=$(mktemp -d)
daemon=
finish() {
    if [[ -n $daemon ]]; then
        kill "$daemon" 2>/dev/null || true
        wait "$daemon" || true
    fi
    rm -rf "$work"
}
trap finish EXIT
export DAGWRIGHT__STORE__PATH="$work/store"

bold='' dim='' plain=''
[[ ! -t 1 ]] || bold=$'\033[1m' dim=$'\033[2m' plain=$'\033[0m'
say() { printf '\n%s── %s%s\n' "$bold" "$*" "$plain"; }
show() {
    printf '%s$ dagwright %s%s\n\n' "$dim" "$*" "$plain"
    "$bin/dagwright" "$@"
}

# Waits until the daemon says where it listens: it prints that once it does.
listening() {
    local line
    read -r line <"$work/said" || return 1
    printf '%s\n' "$line"
    DAGWRIGHT_URL=${line##* }
    export DAGWRIGHT_URL
}

say "1. The daemon: in-process bus, embedded engine, HTTP on a port of its own"
printf '%s$ dagwright serve &%s\n\n' "$dim" "$plain"
mkfifo "$work/said"
DAGWRIGHT__HTTP__LISTEN=127.0.0.1:0 DAGWRIGHT__URIS__ALLOW="$PWD/**" "$bin/dagwright" serve >"$work/said" &
daemon=$!
listening

say "2. A request: the agents look, negotiate and load, and each step is an event"
show submit examples/flights.yaml --wait --id demo

say "3. What happened, by whom and why"
id=$("$bin/dagwright" status --json --limit 1 | sed -E 's/.*"request_id":"([^"]+)".*/\1/')
show explain "$id"

say "4. Sent again, it is the same request: nothing runs twice"
show submit examples/flights.yaml --id demo
show status

say "5. The daemon is told to stop, and stops"
kill "$daemon"
wait "$daemon"
daemon=

say "6. The Airflow DAG that does the same every night"
show compile examples/flights.yaml --target airflow3 --out "$work/dags"
sed -n '1,60p' "$work"/dags/*.py

say "7. A conflict, and how the agents settle it"
show run examples/flights_conflict.yaml

say "8. A goal that nobody can meet: the agents say so, and what to change"
code=0
show plan examples/flights_deadlock.yaml || code=$?
if [[ $code -ne 4 ]]; then
    printf 'expected exit code 4, got %s\n' "$code" >&2
    exit 1
fi
