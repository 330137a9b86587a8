#!/usr/bin/env bash
# The same loads on two brokers, by turns, and a Markdown table of medians and ratios.
#
#   run.sh YARDSTICK A=HOST:PORT B=HOST:PORT [--rounds N] [--seconds S] [--warmup S] [--client-cpu N] [--pids A,B] [SCENARIO]...
#
#   e.g.  kafka.sh start 9192 --cpu 0 --flush-each            # prints ready …
#         taskset -c 0 ringlog serve --listen 127.0.0.1:9292 --data-dir /data/bench &
#         run.sh ./rawload kafka=127.0.0.1:9192 ringlog=127.0.0.1:9292 --rounds 5
#
# YARDSTICK is a client with the commands
#   create HOST:PORT TOPIC --partitions N
#   produce HOST:PORT TOPIC --partitions P --conns C --inflight K --record BYTES --batch RECORDS --seconds S --warmup S
#   fetch   HOST:PORT TOPIC --partitions P --conns C --max-bytes B --seconds S
#   e2e     HOST:PORT TOPIC --partitions P --rate R --record BYTES --seconds S --warmup S
# each of which ends with one line of JSON holding numbers, and fails when the broker refuses anything. Both brokers must be pinned alike, to a core the client
# does not use. Each round runs every scenario on A and then on B (on B and then on A in every second round), so that
# drift of the machine meets both. Figures of one run compare only with each other.
#
# Loopback under bbr measures bbr's pacing: as root the script sets net.ipv4.tcp_congestion_control to cubic and puts
# the old value back; otherwise it says which one was in force.
set -euo pipefail

usage() { sed -n '4p' "$0" | sed 's/^# *//' >&2; exit 2; }
die() { echo "run.sh: $*" >&2; exit 1; }

rounds=3 seconds=10 warmup=3 client_cpu='' pids=() wanted=()
[[ $# -ge 3 && $2 == *=*:* && $3 == *=*:* ]] || usage
yardstick=$(realpath "$1")
names=("${2%%=*}" "${3%%=*}")
addresses=("${2#*=}" "${3#*=}")
shift 3
while [[ $# -gt 0 ]]; do
    case $1 in
        --rounds) rounds=$2; shift 2 ;;
        --seconds) seconds=$2; shift 2 ;;
        --warmup) warmup=$2; shift 2 ;;
        --client-cpu) client_cpu=$2; shift 2 ;;
        --pids) IFS=, read -r -a pids <<<"$2"; shift 2 ;;
        -*) usage ;;
        *) wanted+=("$1"); shift ;;
    esac
done
[[ -x $yardstick ]] || die "$yardstick is not executable"
command -v python3 >/dev/null || die "python3 is needed for the table"

# name | partitions | command and its flags, without topic and times
scenarios='
batches-64k   | 4    | produce --conns 4 --inflight 5 --record 1024 --batch 64
batches-900k  | 4    | produce --conns 4 --inflight 5 --record 1024 --batch 900
single-64k    | 1    | produce --conns 1 --inflight 1 --record 1024 --batch 64
many-small    | 100  | produce --conns 1000 --inflight 1 --record 100 --batch 5
partitions-1k | 1000 | produce --conns 100 --inflight 4 --record 256 --batch 4
fetch-1m      | 4    | fetch --conns 4 --max-bytes 1048576
end-to-end    | 1    | e2e --rate 1000 --record 1024
'

sysctl=/proc/sys/net/ipv4/tcp_congestion_control
congestion=$(<"$sysctl")
results=$(mktemp)
restore() {
    [[ $(<"$sysctl") == "$congestion" ]] || echo "$congestion" >"$sysctl"
    rm -f "$results"
}
trap restore EXIT
trap 'exit 130' INT TERM
if [[ $congestion != cubic && -w $sysctl ]] && grep -qw cubic /proc/sys/net/ipv4/tcp_available_congestion_control; then
    echo cubic >"$sysctl"
    echo "congestion control: cubic for this run, $congestion again afterwards" >&2
else
    echo "congestion control: $congestion" >&2
fi
in_force=$(<"$sysctl")

client() {
    if [[ -n $client_cpu ]]; then taskset -c "$client_cpu" "$yardstick" "$@"; else "$yardstick" "$@"; fi
}

# Creates the topic and waits until every partition takes records: leaders come a moment after the answer.
new_topic() { # address topic partitions
    local tries
    client create "$1" "$2" --partitions "$3" >/dev/null || die "$1: cannot create $2"
    for ((tries = 0; tries < 40; tries++)); do
        client produce "$1" "$2" --partitions "$3" --conns "$3" --inflight 1 --record 100 --batch 1 --seconds 0.2 \
            >/dev/null 2>&1 && return
        sleep 0.25
    done
    die "$1: $2 takes no records"
}

# One measurement; its JSON goes to results as: scenario, broker's index, JSON.
measure() { # scenario broker-index partitions command flags...
    local scenario=$1 index=$2 partitions=$3 command=$4 address=${addresses[$2]}
    shift 4
    local topic="compare-$$-$scenario" line times=(--seconds "$seconds")
    # One topic for all rounds: a thousand partitions a round would make the later rounds another load.
    ((round > 1)) || new_topic "$address" "$topic" "$partitions"
    # The yardstick reads the broker's CPU time where it is told its process.
    if [[ ${#pids[@]} -eq 2 && $command != e2e ]]; then times+=(--pid "${pids[index]}"); fi
    if [[ $command == fetch ]]; then
        # Something to read first; what it took is nobody's figure.
        client produce "$address" "$topic" --partitions "$partitions" --conns 4 --inflight 5 --record 1024 \
            --batch 256 --seconds "$warmup" >/dev/null || die "$scenario on ${names[index]}: nothing to read"
    else
        times+=(--warmup "$warmup")
    fi
    # What the other broker left in the page cache is written back first: who syncs would else wait for it.
    sync
    sleep 1
    line=$(client "$command" "$address" "$topic" --partitions "$partitions" "$@" "${times[@]}" | tail -1) || die "$scenario on ${names[index]} failed"
    printf '%s\t%s\t%s\n' "$scenario" "$index" "$line" >>"$results"
    echo "round $round $scenario ${names[index]}: $line" >&2
}

is_wanted() { # scenario
    [[ ${#wanted[@]} -eq 0 || " ${wanted[*]} " == *" $1 "* ]]
}

for ((round = 1; round <= rounds; round++)); do
    order=(0 1)
    ((round % 2 == 1)) || order=(1 0)
    while IFS='|' read -r scenario partitions flags; do
        scenario=${scenario// /} partitions=${partitions// /}
        [[ -n $scenario ]] && is_wanted "$scenario" || continue
        for index in "${order[@]}"; do
            # shellcheck disable=SC2086 # flags are words
            measure "$scenario" "$index" "$partitions" $flags </dev/null
        done
    done <<<"$scenarios"
done
[[ -s $results ]] || die "no such scenario: ${wanted[*]}"

python3 - "$results" "${names[@]}" "$scenarios" <<'PYTHON'
import json, statistics, sys

path, a, b, scenarios = sys.argv[1:]
figures = {}  # (scenario, figure) -> [values of a], [values of b]
for line in open(path):
    scenario, index, text = line.rstrip("\n").split("\t")
    for figure, value in json.loads(text).items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            figures.setdefault((scenario, figure), ([], []))[int(index)].append(value)


def show(values):
    middle = statistics.median(values)
    return f"{middle:.4g} ({min(values):.4g}–{max(values):.4g})"


print(f"| scenario | figure | {a} | {b} | {b} / {a} |")
print("|---|---|---|---|---|")
for (scenario, figure), (of_a, of_b) in figures.items():
    if any(of_a) and any(of_b):
        below = statistics.median(of_a)
        ratio = f"{statistics.median(of_b) / below:.2f}" if below else "–"
        print(f"| {scenario} | {figure} | {show(of_a)} | {show(of_b)} | {ratio} |")
print()
print("Median (least–greatest). Scenarios:")
for line in scenarios.strip().splitlines():
    name, partitions, command = (part.strip() for part in line.split("|"))
    if any(name == scenario for scenario, _ in figures):
        print(f"- `{name}`: `{command} --partitions {partitions}`")
PYTHON
cat <<END

$rounds rounds by turns, $seconds s each after $warmup s of warm-up; loopback under $in_force; client on CPU ${client_cpu:-any}.
$(date -u +%F), $(uname -sr), $(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2 | xargs), $(nproc) CPUs.
END
