#!/usr/bin/env bash
# The demo: a daemon is asked for a month of real flights, which are profiled, negotiated over and loaded; what it says of
# that in events, prose, metrics and its audit log; then the DAG that would do the same every night.
#
#   demo.sh BIN_DIR    the folder with dagwright and dagwright-task
#
# However it ends, the daemon ends with it, and its folder goes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=$(cd "${1:?the folder with the programs}" && pwd)
work=$(mktemp -d)
daemon=
finish() {
    trap '' INT TERM HUP
    if [[ -n $daemon ]]; then
        kill "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
export DAGWRIGHT__STORE__PATH="$work/store" DAGWRIGHT__SHUTDOWN__GRACE=3s

bold='' dim='' plain=''
[[ ! -t 1 ]] || bold=$'\033[1m' dim=$'\033[2m' plain=$'\033[0m'
say() { printf '\n%s── %s%s\n' "$bold" "$*" "$plain"; }
prompt() { printf '%s$ %s%s\n\n' "$dim" "$*" "$plain"; }
show() {
    prompt "dagwright $*"
    "$bin/dagwright" "$@"
}

# Waits until the daemon says where it listens: it prints that once it does.
listening() {
    local line
    if ! read -r line <"$work/said"; then
        printf 'the daemon did not start:\n' >&2
        cat "$work/log" >&2
        exit 1
    fi
    printf '%s\n' "$line"
    DAGWRIGHT_URL=${line##* }
    export DAGWRIGHT_URL
}

say "1. The daemon: in-process bus, embedded engine, HTTP on a port of its own"
prompt "dagwright serve 2>log &"
mkfifo "$work/said"
DAGWRIGHT__HTTP__LISTEN=127.0.0.1:0 DAGWRIGHT__URIS__ALLOW="$PWD/**" "$bin/dagwright" serve >"$work/said" 2>"$work/log" &
daemon=$!
listening

say "2. A request: the agents look, negotiate and load, and each step is an event"
# A name of its own, as the same request has one effect for ever: another demo would load nothing.
name="demo-$(date +%s)"
show submit examples/flights.yaml --wait --id "$name"

say "3. What happened, by whom and why"
id=$("$bin/dagwright" status --json --limit 1 | sed -E 's/.*"request_id":"([^"]+)".*/\1/')
show explain "$id"

say "4. Sent again, it is the same request: nothing runs twice"
show submit examples/flights.yaml --id "$name"
show status

say "5. What Prometheus is told, and who asked for what"
counted='^dagwright_(requests(_received)?|runs|rows_[a-z]+|negotiation_seconds_count|task_seconds_count)'
prompt "curl $DAGWRIGHT_URL/metrics | grep -E '$counted' | grep -v ' 0\$'"
curl -fsS "$DAGWRIGHT_URL/metrics" >"$work/metrics"
grep -E "$counted" "$work/metrics" | grep -v ' 0$'
printf '\n'
prompt "grep audit log"
grep audit "$work/log"

say "6. The daemon is told to stop, and stops"
prompt "kill %1; wait"
kill "$daemon"
wait "$daemon"
daemon=
grep -o 'drained' "$work/log"

say "7. The Airflow DAG that does the same every night"
show compile examples/flights.yaml --target airflow3 --out "$work/dags"
sed -n '1,60p' "$work"/dags/*.py

say "8. A conflict, and how the agents settle it"
show run examples/flights_conflict.yaml

say "9. A goal that nobody can meet: the agents say so, and what to change"
code=0
show plan examples/flights_deadlock.yaml || code=$?
if [[ $code -ne 4 ]]; then
    printf 'expected exit code 4, got %s\n' "$code" >&2
    exit 1
fi
