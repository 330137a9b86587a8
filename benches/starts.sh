#!/usr/bin/env bash
# How long until a broker answers, and what it takes at rest: on an empty directory, and after SIGKILL under load with many partitions.
#
#   starts.sh YARDSTICK [--gb N] [--partitions N] [--rounds N] [--cpu N] [--client-cpu N] [--dir DIR]
#
#   e.g.  cargo build --release && benches/starts.sh ./rawload --gb 5 --partitions 1000
#
# YARDSTICK: a client with `create` and `produce`, as for turns.sh. DIR is on the disk to be measured; what is made there is removed. With --gb 0 only empty
# directories are measured. A start ends with its `ready` line, here and for whoever waits for it.
set -euo pipefail

usage() { sed -n '4p' "$0" | sed 's/^# *//' >&2; exit 2; }

[[ $# -ge 1 && -x $1 ]] || usage
yardstick=$(realpath "$1")
shift
gb=5 partitions=1000 rounds=6 cpu=0 client_cpu=1 dir=.
while [[ $# -ge 2 ]]; do
    case $1 in
        --gb) gb=$2 ;;
        --partitions) partitions=$2 ;;
        --rounds) rounds=$2 ;;
        --cpu) cpu=$2 ;;
        --client-cpu) client_cpu=$2 ;;
        --dir) dir=$2 ;;
        *) usage ;;
    esac
    shift 2
done
[[ $# -eq 0 ]] || usage
broker=$(realpath "$(dirname "$0")/../target/release/ringlog")
work=$(mktemp -d "$dir/starts-XXXXXX")
pid=''
stop() { if [[ -n $pid ]]; then kill "-${1:-TERM}" "$pid" && wait "$pid" 2>/dev/null || true; pid=''; fi; }
trap 'stop; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

now_ms() { local now=${EPOCHREALTIME/./}; echo $((now / 1000)); }

# Starts a broker on $work/data; sets began_ms, address, and ready_ms, which is how long that took.
start() {
    rm -f "$work/out" && mkfifo "$work/out"
    began_ms=$(now_ms)
    taskset -c "$cpu" "$broker" serve --listen 127.0.0.1:0 --admin 127.0.0.1:0 --data-dir "$work/data" >"$work/out" 2>"$work/log" &
    pid=$!
    local line
    while read -r line; do
        if [[ $line == ready\ * ]]; then break; fi
    done <"$work/out"
    ready_ms=$(($(now_ms) - began_ms))
    address=$(sed -n 's/^ready listen=\([^ ]*\).*/\1/p' <<<"$line")
    [[ -n $address ]] || { cat "$work/log" >&2; exit 1; }
}
client() { taskset -c "$client_cpu" "$yardstick" "$@"; }
cpu_ticks() { awk '{ print $14 + $15 }' "/proc/$pid/stat"; }

for ((round = 1; round <= rounds; round++)); do
    rm -rf "$work/data"
    start
    client create "$address" first --partitions 1 >"$work/created"
    client produce "$address" first --partitions 1 --conns 1 --inflight 1 --record 100 --batch 1 --seconds 0 --warmup 0 >"$work/produced"
    echo "empty directory: ready after $ready_ms ms, first record acknowledged after $(($(now_ms) - began_ms)) ms"
    if ((round < rounds)); then stop; fi
done
sleep 2
before=$(cpu_ticks)
sleep 20
echo "at rest: $(awk '/^VmRSS/ { printf "%.1f MiB", $2 / 1024 }' "/proc/$pid/status"), $((($(cpu_ticks) - before) * 1000 / $(getconf CLK_TCK))) ms of CPU in 20 s"
stop
if ((gb == 0)); then exit; fi

rm -rf "$work/data"
start
client create "$address" filled --partitions "$partitions" >"$work/created"
bytes=$((gb * 1000000000))
load() { client produce "$address" filled --partitions "$partitions" --conns 10 --inflight 5 --record 1024 --batch 16 --seconds "$1" --warmup 0 --parts-per-request 4 >"$work/produced" 2>&1; }
while (($(du -s --apparent-size -B1 "$work/data" | cut -f1) < bytes)); do load 2; done
for ((round = 1; round <= 3; round++)); do
    load 8 &
    loading=$!
    sleep 3
    stop KILL
    wait "$loading" || true
    sync
    start
    took=$ready_ms
    echo "after SIGKILL, $partitions partitions, $(du -s --apparent-size -B1 "$work/data" | awk '{ printf "%.1f", $1 / 1e9 }') GB: ready after $took ms;" \
        "$(awk '/^read_bytes/ { r = $2 } /^write_bytes/ { w = $2 } END { printf "%.2f GB read, %.2f GB written", r / 1e9, w / 1e9 }' "/proc/$pid/io")"
done
