#!/usr/bin/env bash
# Does a cold reader hold up a core? Fills segments, drops them from the page cache, reads them beside a small produce load, and
# prints what the broker's counters say about its turns.
#
#   turns.sh YARDSTICK [--gb N] [--cold-read splice|direct] [--cpu N] [--client-cpu N] [--rate RECORDS/S] [--conns N] [--dir DIR]
#
#   e.g.  cargo build --release && benches/turns.sh ./rawload --gb 4 --cold-read splice
#
# YARDSTICK: as in compare/run.sh; here `create`, `produce` (with --rate too) and `fetch` (with --once). DIR is on the disk to be measured; what is made there
# is removed. The broker starts anew between filling and reading, so that nothing is in its tails and its counters begin at 0.
#
# Ends with exit code 1 where turns over 2 ms were the broker's own: it computed that long, or a call slept.
set -euo pipefail

usage() { sed -n '5p' "$0" | sed 's/^# *//' >&2; exit 2; }

[[ $# -ge 1 && -x $1 ]] || usage
yardstick=$(realpath "$1")
shift
gb=4 cold_read=splice cpu=0 client_cpu=1 rate=2000 conns=4 dir=.
while [[ $# -ge 2 ]]; do
    case $1 in
        --gb) gb=$2 ;;
        --cold-read) cold_read=$2 ;;
        --cpu) cpu=$2 ;;
        --client-cpu) client_cpu=$2 ;;
        --rate) rate=$2 ;;
        --conns) conns=$2 ;;
        --dir) dir=$2 ;;
        *) usage ;;
    esac
    shift 2
done
[[ $# -eq 0 ]] || usage
broker=$(realpath "$(dirname "$0")/../target/release/ringlog")
work=$(mktemp -d "$dir/turns-XXXXXX")
pid=''
# Ends the broker and waits: only it writes below $work.
stop() { if [[ -n $pid ]]; then kill -TERM "$pid" && wait "$pid" || true; pid=''; fi; }
trap 'stop; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

start() {
    : >"$work/out"
    taskset -c "$cpu" "$broker" serve --listen 127.0.0.1:0 --data-dir "$work/data" --set core.cold.read="$cold_read" \
        >"$work/out" 2>"$work/log" &
    pid=$!
    until grep -q '^ready ' "$work/out"; do
        kill -0 "$pid" || { cat "$work/log" >&2; exit 1; }
        sleep 0.1
    done
    address=$(sed -n 's/^ready listen=\([^ ]*\).*/\1/p' "$work/out")
}
client() { taskset -c "$client_cpu" "$yardstick" "$@"; }
shown() { grep -c '^counters shown' "$work/log" || true; }
# The last report of the broker goes to the file $1.
counters() {
    local before
    before=$(shown)
    kill -USR1 "$pid"
    until [[ $(shown) -gt $before ]]; do sleep 0.05; done
    tac "$work/log" | awk '!done { print } /^counters core=0 turns/ { done = 1 }' | tac >"$1"
}
value() { sed -n "s/^counters core=0 $2: \(.* \)\?$3=\([0-9]*\).*/\2/p" "$1"; }
switches() { awk '/ctxt_switches/ { print $2 }' "/proc/$pid/task/$core/status" | paste -sd' '; }

start
client create "$address" cold --partitions "$conns" >/dev/null
client create "$address" live --partitions 1 >/dev/null
segment_mib() { find "$work/data" -name '*.log' -printf '%s\n' | awk '{ sum += $1 } END { printf "%d", sum / 1048576 }'; }
until [[ $(segment_mib) -ge $((gb * 1024)) ]]; do
    client produce "$address" cold --partitions "$conns" --conns "$conns" --inflight 5 --record 1024 --batch 64 --seconds 2 >/dev/null
done
stop
find "$work/data" -name '*.log' -exec sh -c 'sync "$1"; dd if="$1" iflag=nocache count=0 status=none' _ {} \;

start
core=$(grep -l '^core-0' /proc/"$pid"/task/*/comm | cut -d/ -f5 | sort -n | head -1)
client produce "$address" live --conns 1 --inflight 1 --record 1024 --batch 1 --rate "$rate" --warmup 0 --seconds 3 >/dev/null
counters "$work/before"
read -r slept_before preempted_before <<<"$(switches)"
# Not by `client`, so that $! is the yardstick itself. It never sleeps while it keeps a rate: the reader comes before it, or that gets a tick's worth of
# the CPU at a time, 1 MiB every 4 ms.
taskset -c "$client_cpu" nice -n 19 "$yardstick" produce "$address" live --conns 1 --inflight 4 --record 1024 --batch 1 --rate "$rate" --warmup 0 \
    --seconds 3600 >/dev/null 2>&1 &
load=$!
client fetch "$address" cold --partitions "$conns" --conns "$conns" --max-bytes 1048576 --seconds 3000 --once
counters "$work/after"
read -r slept preempted <<<"$(switches)"
kill "$load"
wait "$load" 2>/dev/null || true

echo "before the cold reader: $(sed -n 's/^counters core=0 turns: //p' "$work/before")"
echo "after the cold reader:  $(sed -n 's/^counters core=0 turns: //p' "$work/after")"
sed -n 's/^counters core=0 \(sent\|journal\|ring\): /\1: /p' "$work/after"
echo "context switches of the core meanwhile: $((slept - slept_before)) voluntary, $((preempted - preempted_before)) not"
own=0
for name in over_2ms_busy over_2ms_blocked background_over_2ms_own; do
    own=$((own + $(value "$work/after" turns "$name") - $(value "$work/before" turns "$name")))
done
echo "turns and background stretches over 2 ms that are the broker's own: $own"
[[ $own -eq 0 ]]
