#!/usr/bin/env bash
# A throwaway PostgreSQL server for tests, on a free loopback port.
#
#   postgres.sh start DIR [OWNER_PID]   prints postgresql://dagwright:<password>@127.0.0.1:<port>/postgres once it accepts connections
#   postgres.sh tls DIR                 makes a running server offer TLS too, and prints a folder with two root certificates:
#                                       ca.crt, which vouches for the server as `localhost`, and stranger.crt, which does not
#   postgres.sh stop DIR                stops it; the data stays
#
# DIR belongs to the server alone; it is made when missing. Started again on the same DIR it has the same data, port and
# password, so that a test can take the server away and give it back. DIR/log is the server's log.
#
# How a test harness ends it: call `stop` and remove DIR; and pass its own process id as OWNER_PID, for when it does not get
# that far. When that process has gone, by whatever signal, the server stops within a second and its data is removed.
# Without OWNER_PID the server runs until `stop`.
#
# The settings trade durability for speed: the data survives `stop` and a killed server, not a power cut.
# PostgreSQL refuses to run as root; as root, the server runs as user `postgres`, or else `nobody`, and DIR becomes that user's.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

port_tries_max=20 # A taken port is found out by trying; this many misses in 12,000 ports are something else.

usage="usage: postgres.sh start DIR [OWNER_PID] | tls DIR | stop DIR"
command=${1:-} dir=${2:-} owner=${3:-}
[[ $command == @(start|tls|stop|watch) && $dir == ?* && $owner != *[!0-9]* ]] || die "$usage"

bin=$(command -v initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' | sort -V | tail -n 1) ||
    die "no initdb in PATH or /usr/lib/postgresql/*/bin; run tools.sh postgres"
bin=$(dirname "$(readlink -f "$bin")")

as_server=()
user=$(id -un)
if ((EUID == 0)); then
    user=postgres
    id "$user" >/dev/null 2>&1 || user=nobody
    command -v runuser >/dev/null || die "runuser is missing, and PostgreSQL does not run as root; install util-linux"
    as_server=(runuser -u "$user" --)
fi
pg() { (cd / && "${as_server[@]}" "$@"); }

make_dir() {
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd -P)
    ((EUID != 0)) || chown "$user:" "$dir"
    pg test -w "$dir" ||
        die "user $user cannot reach $dir: one of the folders above it is closed; choose another, or open them (chmod o+x)"
}

init() {
    local password
    password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    # Written by root or by us, readable by the server alone; initdb wants the password in a file.
    (umask 077 && printf '%s\n' "$password" >"$dir/password")
    ((EUID != 0)) || chown "$user:" "$dir/password"
    rm -rf "$dir/data"
    pg "$bin/initdb" -D "$dir/data" -U dagwright -A scram-sha-256 --pwfile="$dir/password" \
        -E UTF8 --locale=C --no-sync --no-instructions >"$dir/initdb.log" 2>&1 ||
        die "initdb failed: $(tail -n 5 "$dir/initdb.log")"
    cat >>"$dir/data/postgresql.conf" <<'CONF'
listen_addresses = '127.0.0.1'
unix_socket_directories = ''    # Its path would be too long for a socket in many a temporary folder.
fsync = off
full_page_writes = off
synchronous_commit = off
max_connections = 100
shared_buffers = 64MB
dynamic_shared_memory_type = mmap    # Containers often have a small /dev/shm.
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
CONF
}

launch() { pg "$bin/pg_ctl" start -D "$dir/data" -w -t 60 -s -l "$dir/log" -o "-p $1" </dev/null >/dev/null 2>&1; }

server_pid() { head -n 1 "$dir/data/postmaster.pid" 2>/dev/null || true; }

running() { runs_in "$(server_pid)" "$dir/data"; }

stop() {
    local mode
    for mode in fast immediate; do
        running || return 0
        pg "$bin/pg_ctl" stop -D "$dir/data" -s -m "$mode" -t 10 >/dev/null 2>&1 || true
    done
    ! running || die "could not stop the server of $dir"
}

start() {
    local port try
    make_dir
    running && die "a server runs on $dir already"
    rm -f "$dir/owner"
    [[ -z $owner ]] || watch_owner "$dir" "$owner"
    if [[ -f $dir/port ]]; then
        port=$(<"$dir/port")
        rm -f "$dir/data/postmaster.pid" # Left behind by a killed server, and PostgreSQL may take its process for alive.
        launch "$port" || die "the server did not start again on port $port: $(tail -n 3 "$dir/log")"
    else
        init
        for ((try = 1; ; try++)); do
            port=$((20000 + RANDOM % 12000)) # Below the ephemeral ports, which any connection may take.
            rm -f "$dir/log"
            launch "$port" && break
            if ((try == port_tries_max)) || ! grep -qs 'Address already in use' "$dir/log"; then
                die "the server did not start: $(tail -n 5 "$dir/log" 2>&1)"
            fi
        done
        printf '%s\n' "$port" >"$dir/port"
    fi
    printf 'postgresql://dagwright:%s@127.0.0.1:%s/postgres\n' "$(<"$dir/password")" "$port"
}

# Makes key $1.key and certificate $1.crt for the name $1; the rest are options of `openssl req`.
certificate() {
    local name=$1
    shift
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=$name" \
        -keyout "$name.key" -out "$name.crt" "$@"
}

tls() {
    local port authority='basicConstraints=critical,CA:TRUE'
    command -v openssl >/dev/null || die "openssl is missing; install it"
    dir=$(cd "$dir" && pwd -P)
    running || die "no server runs on $dir"
    port=$(<"$dir/port")
    mkdir -p "$dir/tls"
    (
        cd "$dir/tls"
        certificate ca -addext "$authority"
        certificate stranger -addext "$authority"
        certificate localhost -CA ca.crt -CAkey ca.key -addext 'subjectAltName=DNS:localhost' \
            -addext 'basicConstraints=critical,CA:FALSE'
        # The server takes no key that others may read.
        install -m 600 localhost.key localhost.crt "$dir/data"
        ((EUID != 0)) || chown "$user:" "$dir/data/localhost.key" "$dir/data/localhost.crt"
    ) >"$dir/tls.log" 2>&1 || die "openssl failed: $(tail -n 5 "$dir/tls.log")"
    cat >>"$dir/data/postgresql.conf" <<'CONF'
ssl = on
ssl_cert_file = 'localhost.crt'
ssl_key_file = 'localhost.key'
CONF
    stop
    launch "$port" || die "the server did not start again with TLS: $(tail -n 3 "$dir/log")"
    printf '%s/tls\n' "$dir"
}

case $command in
    start) start ;;
    tls) tls ;;
    stop)
        [[ -d $dir ]] || exit 0
        dir=$(cd "$dir" && pwd -P)
        rm -f "$dir/owner"
        stop
        ;;
    watch)
        owner_gone "$dir" "$owner" || exit 0
        stop
        rm -rf "$dir/data" "$dir/tls" "$dir/password" "$dir/port" "$dir/owner"
        ;;
esac
