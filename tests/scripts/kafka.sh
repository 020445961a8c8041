#!/usr/bin/env bash
# A throwaway Apache Kafka for tests: one KRaft node, broker and controller in one, on free loopback ports.
#
#   kafka.sh start DIR [OWNER_PID] [--secure]   prints the bootstrap address, 127.0.0.1:<port>, once clients are served
#   kafka.sh stop DIR                           stops it; the data stays
#   kafka.sh kill DIR                           ends it at once, as a crash would (SIGKILL); the data stays
#   kafka.sh run [--secure]                     one for a developer: runs until Ctrl-C, and its data ends with it
#   kafka.sh console-producer|console-consumer|topics|consumer-groups ARGUMENT…   Kafka's own tools; need --bootstrap-server
#   kafka.sh archive                            writes the class archive that makes later starts faster; tools.sh calls it
#
# DIR belongs to the broker alone; it is made when missing. Started again on the same DIR it has the same data, ports,
# listeners and password, so that a test can take the broker away and give it back. DIR/log is the log of the last start.
#
# Topics are not created by their first use. The plain listener is open to everybody on this machine; --secure adds three
# beside it, and DIR/client.json says where they are and what they want:
#
#   {"sasl_plaintext": "127.0.0.1:<port>", "sasl_ssl": …, "ssl": …, "mechanism": "SCRAM-SHA-512", "user": …, "password": …,
#    "ca": the file of the authority that signed the broker's certificate, "stranger": that of one that did not}
#
# The user may do everything until somebody at the plain listener grants rights to something: then only those.
#
# How a test harness ends it: call `stop` and remove DIR; and pass its own process id as OWNER_PID, for when it does not get
# that far. When that process has gone, by whatever signal, the broker ends within seconds and its data is removed.
# Without OWNER_PID the broker runs until `stop`.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
here=$(dirname "$self")
kafka=$(kafka_home)

port_tries_max=20   # Ports are found free by asking; this many misses in 12,000 are something else.
start_timeout_s=120 # It takes 3 s alone on two cores, and five times that beside a build.
stop_timeout_s=60   # It takes 1 s; writing the class archive, 10 s more.

usage="usage: kafka.sh start DIR [OWNER_PID] [--secure] | stop DIR | kill DIR | run [--secure] |
    console-producer|console-consumer|topics|consumer-groups ARGUMENT... | archive"

[[ -x $kafka/java && -d $kafka/lib ]] || die "no Apache Kafka in $kafka; run tools.sh kafka"

# Small and quick to start rather than quick later. The JVM's own warnings go beside ours, as standard output is the tools'.
java=("$kafka/java" -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData -XX:+ExitOnOutOfMemoryError
    -Xlog:disable -Xlog:all=warning:stderr "-Dlog4j2.configurationFile=$here/kafka/log4j2.properties"
    -cp "$(printf '%s:' "$kafka"/lib/*.jar)")
archive=("-XX:SharedArchiveFile=$kafka/classes.jsa")

tool() { exec "${java[@]}" "${archive[@]}" "$@"; }

pid() { cat "$dir/pid" 2>/dev/null || true; }
running() { runs_in "$(pid)" "$dir"; }

await_end() {
    local deadline=$((SECONDS + $1))
    while running; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}

kill_broker() {
    running || return 0
    kill -KILL "$(pid)" 2>/dev/null || true
    await_end "$stop_timeout_s" || die "could not kill the broker of $dir"
}

stop() {
    running || return 0
    kill "$(pid)" 2>/dev/null || true
    await_end "$stop_timeout_s" || kill_broker
}

# Ports: the plain listener, the controller, and with --secure SASL_PLAINTEXT, SASL_SSL, SSL, one after the other.
choose_port() {
    local port try offset
    for ((try = 1; try <= port_tries_max; try++)); do
        port=$((20000 + RANDOM % 11990)) # Below the ephemeral ports, which any connection may take.
        for offset in 0 1 2 3 4; do
            ! (: <>"/dev/tcp/127.0.0.1/$((port + offset))") 2>/dev/null || continue 2
        done
        printf '%s\n' "$port"
        return
    done
    die "found no five free ports in a row"
}

settings() {
    local port=$1 listeners="PLAINTEXT://127.0.0.1:$1,CONTROLLER://127.0.0.1:$(($1 + 1))"
    [[ -z $secure ]] ||
        listeners+=",SASL_PLAINTEXT://127.0.0.1:$((port + 2)),SASL_SSL://127.0.0.1:$((port + 3)),SSL://127.0.0.1:$((port + 4))"
    cat <<CONF
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:$((port + 1))
controller.listener.names=CONTROLLER
listeners=$listeners
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL
inter.broker.listener.name=PLAINTEXT
log.dirs=$dir/data
auto.create.topics.enable=false

# One node, and few partitions, as each is a file to make at the first commit or transaction.
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=2
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=2
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=2

# What a test would otherwise wait for.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
# A killed broker may come back only when its session has ended: after 9 s by default. Much less, and a busy machine ends it.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500

# For a small machine: the cleaner alone would take 128 MiB.
log.cleaner.dedupe.buffer.size=4194304
num.network.threads=2
num.io.threads=4
CONF
    [[ -z $secure ]] || cat <<CONF

ssl.keystore.type=PEM
ssl.keystore.location=$dir/tls/broker.pem
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;

# Whoever need not say who they are may do everything; the user may until somebody grants a right to something.
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=true
CONF
}

# Two authorities, and a certificate for the broker by the first.
certify() {
    mkdir -p "$dir/tls"
    (
        cd "$dir/tls"
        umask 077
        cat >openssl.cnf <<'CONF'
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[broker]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = IP:127.0.0.1, DNS:localhost
authorityKeyIdentifier = keyid
CONF
        new=(openssl req -config openssl.cnf -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30)
        "${new[@]}" -extensions authority -subj "/CN=Dagwright test CA" -keyout ca.key -out ca.pem
        "${new[@]}" -extensions authority -subj "/CN=Another test CA" -keyout stranger.key -out stranger.pem
        "${new[@]}" -extensions broker -subj "/CN=127.0.0.1" -CA ca.pem -CAkey ca.key -keyout broker.key -out broker.crt
        cat broker.key broker.crt >broker.pem
    ) 2>"$dir/openssl.log" || die "could not make certificates: $(tail -n 5 "$dir/openssl.log")"
}

# Lays down an empty log and, with --secure, the user.
format() {
    local user=()
    rm -rf "$dir/data"
    settings "$1" >"$dir/server.properties"
    [[ -z $secure ]] || user=(--add-scram "SCRAM-SHA-512=[name=dagwright,password=$(<"$dir/password")]")
    "${java[@]}" "${archive[@]}" kafka.tools.StorageTool format --standalone --config "$dir/server.properties" \
        --cluster-id "D$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=' | cut -c2-)" "${user[@]}" >"$dir/format.log" 2>&1 ||
        die "could not format $dir/data: $(tail -n 5 "$dir/format.log")"
}

# Starts the broker and waits until it serves clients; false if it ended before.
launch() {
    local deadline=$((SECONDS + start_timeout_s))
    cd "$dir"
    : >"$dir/log"
    setsid "${java[@]}" "${archive[@]}" kafka.Kafka "$dir/server.properties" </dev/null >"$dir/log" 2>&1 &
    printf '%s\n' "$!" >"$dir/pid"
    # Logged after the controller has let the broker in and its listeners answer.
    while ! grep -q 'Kafka Server started' "$dir/log"; do
        alive "$!" || return 1
        ((SECONDS < deadline)) || {
            kill_broker
            die "the broker did not start within $start_timeout_s s: $(tail -n 5 "$dir/log")"
        }
        sleep 0.1
    done
}

start() {
    local port try
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd -P)
    running && die "a broker runs on $dir already"
    rm -f "$dir/owner"
    [[ -z $owner ]] || watch_owner "$dir" "$owner"
    if [[ -f $dir/port ]]; then
        port=$(<"$dir/port")
        launch || die "the broker did not start again on port $port: $(tail -n 5 "$dir/log")"
    else
        if [[ -n $secure ]]; then
            (umask 077 && od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$dir/password")
            certify
        fi
        for ((try = 1; ; try++)); do
            port=$(choose_port)
            format "$port"
            launch && break
            # Between our question and its start another may have taken one of the ports.
            if ((try == port_tries_max)) || ! grep -q 'Address already in use' "$dir/log"; then
                die "the broker did not start: $(tail -n 5 "$dir/log")"
            fi
        done
        [[ -z $secure ]] || (umask 077 && describe "$port" >"$dir/client.json")
        printf '%s\n' "$port" >"$dir/port"
    fi
    printf '127.0.0.1:%s\n' "$port"
}

describe() {
    cat <<JSON
{
  "sasl_plaintext": "127.0.0.1:$(($1 + 2))",
  "sasl_ssl": "127.0.0.1:$(($1 + 3))",
  "ssl": "127.0.0.1:$(($1 + 4))",
  "mechanism": "SCRAM-SHA-512",
  "user": "dagwright",
  "password": "$(<"$dir/password")",
  "ca": "$dir/tls/ca.pem",
  "stranger": "$dir/tls/stranger.pem"
}
JSON
}

run() {
    local bootstrap me=tests/scripts/kafka.sh
    dir=$(mktemp -d -t dagwright-kafka-XXXXXX) owner=$$
    trap 'rm -f "$dir/owner"; stop; rm -rf "$dir"' EXIT
    trap 'exit 0' INT TERM HUP
    start >"$dir/bootstrap"
    bootstrap=$(<"$dir/bootstrap")
    cat <<TEXT
Apache Kafka at $bootstrap, until Ctrl-C; its log is $dir/log

  $me topics --bootstrap-server $bootstrap --create --topic demo
  $me topics --bootstrap-server $bootstrap --list
  $me console-producer --bootstrap-server $bootstrap --topic demo
  $me console-consumer --bootstrap-server $bootstrap --topic demo --from-beginning
  export DAGWRIGHT__BUS__KIND=kafka DAGWRIGHT__KAFKA__BROKERS=$bootstrap
TEXT
    [[ -z $secure ]] || printf '\nIts other listeners, as in %s:\n%s\n' "$dir/client.json" "$(<"$dir/client.json")"
    while running; do sleep 0.5; done
    die "the broker ended: $(tail -n 5 "$dir/log")"
}

# Classes loaded and checked beforehand take a third off the processor time of a start.
write_archive() {
    dir=$(mktemp -d -t dagwright-kafka-XXXXXX)
    trap 'kill_broker; rm -rf "$dir"' EXIT
    archive=()
    start >/dev/null
    stop
    archive=("-XX:ArchiveClassesAtExit=$kafka/classes.jsa")
    launch || die "the broker did not start again: $(tail -n 5 "$dir/log")"
    stop
    [[ -s $kafka/classes.jsa ]] || die "the broker ended without an archive of classes: $(tail -n 5 "$dir/log")"
}

command=${1:-}
case $command in
    console-producer) tool org.apache.kafka.tools.ConsoleProducer "${@:2}" ;;
    console-consumer) tool org.apache.kafka.tools.consumer.ConsoleConsumer "${@:2}" ;;
    topics) tool org.apache.kafka.tools.TopicCommand "${@:2}" ;;
    consumer-groups) tool org.apache.kafka.tools.consumer.group.ConsumerGroupCommand "${@:2}" ;;
esac

secure='' dir='' owner=''
for argument in "${@:2}"; do
    case $argument in
        --secure) secure=yes ;;
        *[!0-9]*) dir=$argument ;;
        *) owner=$argument ;;
    esac
done
case $command in
    start | stop | kill | watch) [[ -n $dir ]] || die "$usage" ;;
    run | archive) [[ -z $dir ]] || die "$usage" ;;
    *) die "$usage" ;;
esac
if [[ $command == @(stop|kill|watch) ]]; then
    [[ -d $dir ]] || exit 0
    dir=$(cd "$dir" && pwd -P)
fi

case $command in
    start) start ;;
    stop)
        rm -f "$dir/owner"
        stop
        ;;
    kill) kill_broker ;;
    watch)
        owner_gone "$dir" "$owner" || exit 0
        kill_broker
        rm -rf "$dir/data" "$dir/tls" "$dir/password" "$dir/client.json" "$dir/port" "$dir/owner"
        ;;
    run) run ;;
    archive) write_archive ;;
esac
