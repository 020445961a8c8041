#!/usr/bin/env bash
# A throwaway S3 server (moto) for tests, on a free loopback port, with the bucket `dagwright-test`.
#
#   s3.sh start DIR [OWNER_PID]   prints http://127.0.0.1:<port> once it answers
#   s3.sh stop DIR                stops it
#
# The objects live in its memory and end with it. Any access key and secret are accepted, and requests without a signature
# too; the region is us-east-1, addressing is by path. DIR is made when missing; DIR/log is the server's log.
#
# How a test harness ends it: call `stop`; and pass its own process id as OWNER_PID, for when it does not get that far. When
# that process has gone, by whatever signal, the server stops within a second. Without OWNER_PID it runs until `stop`.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

bucket=dagwright-test
start_timeout_s=60 # It takes 2 s; a busy machine's first start reads 100 MiB of Python.

usage="usage: s3.sh start DIR [OWNER_PID] | stop DIR"
command=${1:-} dir=${2:-} owner=${3:-}
[[ $command == @(start|stop|watch) && $dir == ?* && $owner != *[!0-9]* ]] || die "$usage"

running() { runs_in "$(cat "$dir/pid" 2>/dev/null)" "$dir"; }

stop() {
    local pid
    running || return 0
    pid=$(<"$dir/pid")
    kill "$pid" 2>/dev/null || return 0
    for _ in {1..50}; do
        running || return 0
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
}

start() {
    local url='' deadline=$((SECONDS + start_timeout_s))
    [[ -x $tools/tools/bin/moto_server ]] || die "no moto_server in $tools/tools; run tools.sh python"
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd -P)
    running && die "a server runs on $dir already"
    : >"$dir/log"
    rm -f "$dir/owner"
    [[ -z $owner ]] || watch_owner "$dir" "$owner"
    # Port 0: the kernel picks a free one, and the log tells which.
    cd "$dir"
    PYTHONUNBUFFERED=1 setsid "$tools/tools/bin/moto_server" -H 127.0.0.1 -p 0 </dev/null >"$dir/log" 2>&1 &
    printf '%s\n' "$!" >"$dir/pid"
    while ! url=$(grep -m 1 -o 'http://127\.0\.0\.1:[0-9]*' "$dir/log"); do
        alive "$!" || die "moto_server ended: $(tail -n 5 "$dir/log")"
        ((SECONDS < deadline)) || {
            stop
            die "moto_server did not start within $start_timeout_s s: $(tail -n 5 "$dir/log")"
        }
        sleep 0.1
    done
    "$tools/tools/bin/python" -c 'import sys, urllib.request as r; r.urlopen(r.Request(sys.argv[1], method="PUT"), timeout=30)' \
        "$url/$bucket" 2>>"$dir/log" || {
        stop
        die "could not create bucket $bucket: $(tail -n 3 "$dir/log")"
    }
    printf '%s\n' "$url"
}

case $command in
    start) start ;;
    stop)
        [[ -d $dir ]] || exit 0
        dir=$(cd "$dir" && pwd -P)
        rm -f "$dir/owner"
        stop
        ;;
    watch) ! owner_gone "$dir" "$owner" || stop ;;
esac
