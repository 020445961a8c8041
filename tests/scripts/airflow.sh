#!/usr/bin/env bash
# A throwaway Airflow for tests, on a free loopback port: one scheduler with its own executor, no examples, and a
# triggerer only where TRIGGERER is set.
#
#   airflow.sh start DIR VERSION DATABASE [OWNER_PID]   prints {"url": …, "password": …} once its scheduler and DAG processor are alive
#   airflow.sh stop DIR                                 stops it; the data stays
#
# DATABASE is the URL of an empty database of PostgreSQL (SQLite locks, and answers 500 when a disk is slow).
# DIR belongs to the Airflow alone; it is made when missing. DIR/dags is its DAG folder, in which new files are seen within
# seconds; DIR/*.log are the logs of its processes. The users `admin` (role Admin) and `viewer` (role Viewer) have the same
# password. Tokens of Airflow 3 last 20 s, so that a test sees one end. There is one connection, `here`, to the root folder; connections
# may be tried out.
# Started again on the same DIR it has the same data, port and password.
#
# How a test harness ends it: call `stop` and remove DIR; and pass its own process id as OWNER_PID, for when it does not get
# that far. When that process has gone, by whatever signal, Airflow ends within seconds and its data is removed.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
here=$(dirname "$self")

start_timeout_s=240 # It takes 20 s to 30 s alone on two cores, and several times that beside a build.
stop_timeout_s=15
port_tries_max=20 # Ports are found free by asking; this many misses in 12,000 are something else.

usage="usage: airflow.sh start DIR VERSION DATABASE [OWNER_PID] | stop DIR"
command=${1:-} dir=${2:-} version='' database='' owner=''
case $command in
    start) version=${3:-} database=${4:-} owner=${5:-} ;;
    watch) owner=${3:-} ;;
    stop) ;;
    *) die "$usage" ;;
esac
[[ $dir == ?* && $owner != *[!0-9]* && $version != *[!0-9.]* ]] || die "$usage"

# The processes of Airflow, its tasks among them: each that was launched leads a session of its own, and has DIR as its working
# folder, as have those that it starts.
processes() {
    local leader pid
    while read -r leader; do
        for pid in $(pgrep -s "$leader"); do
            runs_in "$pid" "$dir" && alive "$pid" && printf '%s\n' "$pid"
        done
    done < <(cat "$dir/pids" 2>/dev/null)
    true
}

stop() {
    local signal pids deadline
    for signal in TERM KILL; do
        deadline=$((SECONDS + stop_timeout_s))
        mapfile -t pids < <(processes)
        while ((${#pids[@]} && SECONDS < deadline)); do
            kill "-$signal" "${pids[@]}" 2>/dev/null || true
            sleep 0.5
            mapfile -t pids < <(processes)
        done
    done
    ((${#pids[@]} == 0)) || die "could not stop the Airflow of $dir"
}

choose_port() {
    local port try
    for ((try = 1; try <= port_tries_max; try++)); do
        port=$((20000 + RANDOM % 12000)) # Below the ephemeral ports, which any connection may take.
        (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { printf '%s\n' "$port" && return; }
    done
    die "found no free port"
}

# What both versions are told; each key in the section of the version that has it.
settings() {
    local secret
    secret=$(<"$dir/secret")
    export PATH="${python%/*}:$PATH" # The executor of Airflow 2 looks for `airflow` in it.
    export AIRFLOW_HOME="$dir" PYTHONDONTWRITEBYTECODE=1 PYTHONWARNINGS=ignore
    export AIRFLOW__CORE__DAGS_FOLDER="$dir/dags"
    export AIRFLOW__CORE__LOAD_EXAMPLES=False
    export AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION=False
    export AIRFLOW__CORE__TEST_CONNECTION=Enabled
    export AIRFLOW__CORE__EXECUTOR=LocalExecutor
    export AIRFLOW__CORE__PARALLELISM=2
    export AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS=False
    export AIRFLOW__DATABASE__SQL_ALCHEMY_CONN="postgresql+psycopg2://${database#*://}"
    export AIRFLOW__LOGGING__LOGGING_LEVEL=INFO
    export AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME=0.2
    export AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC=2
    export AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False
    if [[ $version == 2.* ]]; then
        export AIRFLOW__API__AUTH_BACKENDS=airflow.providers.fab.auth_manager.api.auth.backend.basic_auth
        export AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL=2
        export AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL=1
        export AIRFLOW__WEBSERVER__SECRET_KEY="$secret"
        export AIRFLOW__WEBSERVER__WORKERS=1
    else
        export AIRFLOW__CORE__EXECUTION_API_SERVER_URL="http://127.0.0.1:$port/execution/"
        export AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS=admin:admin,viewer:viewer
        export AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE="$dir/passwords.json"
        export AIRFLOW__API__SECRET_KEY="$secret"
        export AIRFLOW__API__BASE_URL="http://127.0.0.1:$port"
        export AIRFLOW__API__WORKERS=1
        export AIRFLOW__API_AUTH__JWT_SECRET="$secret$secret"
        export AIRFLOW__API_AUTH__JWT_EXPIRATION_TIME=20
        # A benchmark wants what users have.
        export AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL=${AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL:-2}
        export AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL=${AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL:-1}
    fi
}

run() { "$python" -m airflow "$@" </dev/null >>"$dir/$1.log" 2>&1 9>&-; }

# Starts a process of Airflow, and remembers it.
launch() {
    setsid "$python" -m airflow "$@" </dev/null >>"$dir/$1.log" 2>&1 9>&- &
    launched+=("$!")
    printf '%s\n' "$!" >>"$dir/pids"
}

healthy() {
    local health parts
    health=$(curl -fsS --noproxy '*' -m 10 "http://127.0.0.1:$port$1" 2>/dev/null) || return 1
    shift
    for parts; do
        "$python" -c 'import json, sys; sys.exit(json.loads(sys.argv[1])[sys.argv[2]]["status"] != "healthy")' "$health" "$parts" || return 1
    done
}

await_health() {
    local deadline=$((SECONDS + start_timeout_s)) pid
    until healthy "$@"; do
        for pid in "${launched[@]}"; do
            alive "$pid" || failed "a process of it ended"
        done
        ((SECONDS < deadline)) || failed "it was not healthy within $start_timeout_s s"
        sleep 0.5
    done
}

failed() {
    local tails
    tails=$(tail -n 5 "$dir"/*.log 2>&1)
    stop
    die "Airflow $version did not start: $1: $tails"
}

start() {
    [[ -n $version && $database == postgresql://* ]] || die "$usage"
    umask 077
    python=$tools/airflow-$version/bin/python
    [[ -x $python ]] || die "no Airflow $version in $tools; run tools.sh airflow $version"
    command -v curl >/dev/null || die "curl is missing; install it"
    command -v pgrep >/dev/null || die "pgrep is missing; install procps"
    mkdir -p "$dir/dags"
    dir=$(cd "$dir" && pwd -P)
    [[ -z $(processes) ]] || die "an Airflow runs on $dir already"
    rm -f "$dir/owner"
    [[ -z $owner ]] || watch_owner "$dir" "$owner"
    launched=()
    : >"$dir/pids"
    [[ -f $dir/secret ]] || od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$dir/secret"
    [[ -f $dir/port ]] || choose_port >"$dir/port"
    port=$(<"$dir/port")
    settings
    cd "$dir"
    if [[ ! -f $dir/ready ]]; then
        printf '{"admin": "%s", "viewer": "%s"}\n' "$(<"$dir/secret")" "$(<"$dir/secret")" >"$dir/passwords.json"
        run db migrate || failed "its database could not be made"
        "$python" "$here/airflow_setup.py" "$dir/passwords.json" </dev/null >>"$dir/setup.log" 2>&1 ||
            failed "its users and its connection could not be made"
        : >"$dir/ready"
    fi
    rm -f "$dir"/*.pid
    launch scheduler --skip-serve-logs
    if [[ $version == 2.* ]]; then
        launch webserver --hostname 127.0.0.1 --port "$port"
        await_health /api/v1/health metadatabase scheduler
    else
        launch dag-processor
        launch api-server --host 127.0.0.1 --port "$port"
        [[ -z ${TRIGGERER:-} ]] || launch triggerer --skip-serve-logs
        await_health /api/v2/monitor/health metadatabase scheduler dag_processor
    fi
    printf '{"url": "http://127.0.0.1:%s", "password": "%s"}\n' "$port" "$(<"$dir/secret")"
}

case $command in
    start) start ;;
    stop)
        [[ -d $dir ]] || exit 0
        dir=$(cd "$dir" && pwd -P)
        rm -f "$dir/owner"
        stop
        ;;
    watch)
        owner_gone "$dir" "$owner" || exit 0
        stop
        rm -rf "$dir"
        ;;
esac
