#!/usr/bin/env bash
# Apache Kafka beside Ringlog: fetched from Maven Central, one combined broker and controller on loopback.
# Not a deployment of Kafka: one node, plain text, data thrown away on stop.
#
#   kafka.sh start PORT [--cpu N] [--flush-each] [--heap 2g] [--set key=value]...
#   kafka.sh stop PORT        ends the process `start` left behind on PORT and removes its data
#   kafka.sh serve --listen 127.0.0.1:PORT --data-dir DIR [...]   speaks as `ringlog serve` does: stays in the
#                             foreground, PORT 0 picks one, keeps DIR, prints `ready listen=HOST:PORT`
#   kafka.sh classpath        prints the class path of broker and tools (fetches the jars if need be)
#
# As shipped Kafka never syncs by itself; --flush-each sets log.flush.interval.messages=1, which is what
# Ringlog does by default. The controller listens on PORT + 1. Jars and data live in
# ${RINGLOG_KAFKA_DIR:-target/kafka}. Needs java (17 or later) and mvn; curl is not used.
set -euo pipefail

KAFKA_VERSION=4.3.1
SCALA_VERSION=2.13
repo=$(cd "$(dirname "$0")/.." && pwd)
dir=${RINGLOG_KAFKA_DIR:-$repo/target/kafka}
libs=$dir/libs-$KAFKA_VERSION

die() { echo "kafka.sh: $*" >&2; exit 1; }

usage() { sed -n '5,9s/^# *//p' "$0" >&2; exit 2; }

# Fetches the jars once. A directory counts as complete only when it has been moved into place.
prepare() {
    [[ -d $libs ]] && return
    command -v mvn >/dev/null || die "mvn is needed to fetch Kafka"
    mkdir -p "$dir"
    local work
    work=$(mktemp -d "$dir/fetch.XXXXXX")
    cat >"$work/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>ringlog</groupId><artifactId>kafka-peer</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_$SCALA_VERSION</artifactId><version>$KAFKA_VERSION</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$KAFKA_VERSION</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
POM
    (cd "$work" && mvn -q -B dependency:copy-dependencies -DoutputDirectory="$work/libs") >&2
    mv "$work/libs" "$libs"
    rm -rf "$work"
}

write_properties() { # run_dir port flush_each [key=value]...
    local run=$1 port=$2 flush_each=$3
    shift 3
    cat <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$((port + 1))
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
advertised.listeners=PLAINTEXT://127.0.0.1:$port
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=$run/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=8
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
PROPERTIES
    [[ $flush_each == yes ]] && echo log.flush.interval.messages=1
    local pair
    for pair in "$@"; do echo "$pair"; done
}

# Formats DIR on first use, so that a later start finds its data again.
format_once() { # run_dir
    [[ -e $1/data/meta.properties ]] && return
    mkdir -p "$1/data"
    local id
    id=$(java -cp "$libs/*" kafka.tools.StorageTool random-uuid 2>/dev/null)
    java -cp "$libs/*" kafka.tools.StorageTool format -t "$id" -c "$1/server.properties" >"$1/format.log" 2>&1 ||
        die "format failed: $1/format.log"
}

# Waits until the broker that logs to run_dir/server.log serves; fails when it ends first or 60 s pass.
await_started() { # run_dir pid
    local tries
    for ((tries = 0; tries < 600; tries++)); do
        grep -qs 'Kafka Server started' "$1/server.log" && return
        kill -0 "$2" 2>/dev/null || return 1
        sleep 0.1
    done
    return 1
}

# Sets `java_command`.
java_for() { # heap properties [cpu]
    java_command=(java "-Xms$1" "-Xmx$1" -XX:+UseG1GC -XX:MaxGCPauseMillis=20
        -XX:InitiatingHeapOccupancyPercent=35 -cp "$libs/*" kafka.Kafka "$2")
    if [[ -n ${3:-} ]]; then java_command=(taskset -c "$3" "${java_command[@]}"); fi
}

start() {
    [[ $# -ge 1 ]] || usage
    local port=$1 cpu='' flush_each=no heap=2g extra=()
    shift
    while [[ $# -gt 0 ]]; do
        case $1 in
            --cpu) cpu=$2; shift 2 ;;
            --flush-each) flush_each=yes; shift ;;
            --heap) heap=$2; shift 2 ;;
            --set) extra+=("$2"); shift 2 ;;
            *) usage ;;
        esac
    done
    prepare
    local run=$dir/run-$port
    [[ -e $run/pid ]] && die "already started on $port: stop it first"
    rm -rf "$run"
    mkdir -p "$run"
    write_properties "$run" "$port" "$flush_each" "${extra[@]}" >"$run/server.properties"
    format_once "$run"
    java_for "$heap" "$run/server.properties" "$cpu"
    # setsid: a Ctrl-C meant for the caller leaves the broker to `stop`.
    setsid "${java_command[@]}" >"$run/server.log" 2>&1 </dev/null &
    local pid=$!
    echo "$pid" >"$run/pid"
    await_started "$run" "$pid" || { stop "$port" || true; die "did not start"; }
    echo "ready listen=127.0.0.1:$port pid=$pid"
}

listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# A port below the ephemeral range, free with its successor at this moment.
free_port() {
    local port
    while :; do
        port=$((12000 + RANDOM % 10000 * 2))
        listening "$port" || listening $((port + 1)) || { echo "$port"; return; }
    done
}

serve() {
    local listen=127.0.0.1:0 run='' extra=()
    while [[ $# -gt 0 ]]; do
        case $1 in
            --listen) listen=$2; shift 2 ;;
            --data-dir) run=$2; shift 2 ;;
            --set) extra+=("$2"); shift 2 ;;
            --config) shift 2 ;; # Ringlog's file: nothing in it concerns Kafka
            *) usage ;;
        esac
    done
    [[ -n $run ]] || usage
    local port=${listen##*:}
    prepare
    [[ $port != 0 ]] || port=$(free_port)
    mkdir -p "$run"
    write_properties "$run" "$port" yes "${extra[@]}" >"$run/server.properties"
    format_once "$run"
    java_for 512m "$run/server.properties"
    rm -f "$run/server.log"
    # exec below keeps this process id, so that a signal to it reaches the broker.
    (await_started "$run" $$ && echo "ready listen=127.0.0.1:$port") &
    exec "${java_command[@]}" >"$run/server.log" 2>&1 </dev/null
}

# Ends only the process whose id `start` wrote down, and only while it still is our Kafka.
stop() {
    [[ $# -eq 1 ]] || usage
    local run=$dir/run-$1 pid tries
    [[ -e $run/pid ]] || die "nothing was started on $1"
    pid=$(<"$run/pid")
    if grep -qs "$run/server.properties" "/proc/$pid/cmdline"; then
        kill "$pid"
        for ((tries = 0; tries < 150; tries++)); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        if kill -0 "$pid" 2>/dev/null; then kill -9 "$pid"; fi
    fi
    rm -rf "$run"
}

case ${1:-} in
    start) shift; start "$@" ;;
    stop) shift; stop "$@" ;;
    serve) shift; serve "$@" ;;
    classpath) prepare; echo "$libs/*" ;;
    *) usage ;;
esac
