# Shared by the `run` scripts: where clients are installed, and how a check is reported. Sourced, never run.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
repo=$(cd "$here/../../.." && pwd)
cache=${RINGLOG_CLIENTS_CACHE:-$repo/target/clients}
[[ $# -eq 1 && $1 == *:* ]] || { echo "usage: $0 HOST:PORT" >&2; exit 2; }
address=$1
# Clients would look for a broker that is not there until every check is out of time.
(exec 3<>"/dev/tcp/${address%:*}/${address##*:}") 2>/dev/null || { echo "FAIL connect: nobody listens on $address"; exit 1; }
mkdir -p "$cache"

# The keys of the APIs that are served, for checks that cannot pass without one of them.
served_apis=$(PYTHONDONTWRITEBYTECODE=1 python3 "$here/../lib/served.py" "$address") ||
    { echo "FAIL connect: $address does not say what it serves"; exit 1; }
export SERVED_APIS=$served_apis
add_partitions_to_txn=24

# Seconds one client may take for everything, and one check.
run_seconds_max=300
check_seconds_max=45

# Runs a build step into cache/NAME once; half a build is never taken for a whole one.
install_once() { # name command...
    local name=$1
    shift
    [[ -e $cache/$name.done ]] && return
    rm -rf "${cache:?}/$name"
    mkdir -p "$cache/$name"
    "$@" >"$cache/$name.log" 2>&1 || { echo "FAIL install: $cache/$name.log"; tail -5 "$cache/$name.log" >&2; exit 1; }
    touch "$cache/$name.done"
}

# A virtual environment in cache/NAME with exactly these requirements.
venv() { # name requirement...
    install_once "$1" install_venv "$@"
}
install_venv() {
    python3 -m venv "$cache/$1"
    "$cache/$1/bin/pip" install --quiet --disable-pip-version-check "${@:2}"
}

# Sets `scratch`, a directory that goes with the script.
make_scratch() {
    scratch=$(mktemp -d)
    # A subshell that is killed right after its fork still runs this trap: only the script itself may remove the directory.
    trap '[[ $BASHPID != $$ ]] || rm -rf "$scratch"' EXIT
}

failed=0

# Leaves the check out, and says so, when the broker does not serve this API.
needs_api() { # key
    [[ " $SERVED_APIS " == *" $1 "* ]] || exit "$skipped"
}
skipped=77

# Runs a shell function as a check: it fails on the first command that fails. `why` is its last line of output.
check() { # name function [argument...]
    local name=$1 output status=0
    shift
    # A function inside `||` would run without -e; a plain subshell behind `&` keeps it.
    output=$(mktemp)
    (set -e; "$@") >"$output" 2>&1 &
    local pid=$!
    (sleep "$check_seconds_max"; kill "$pid" 2>/dev/null) >/dev/null 2>&1 &
    local watchdog=$!
    wait "$pid" || status=$?
    kill "$watchdog" 2>/dev/null || true
    wait "$watchdog" 2>/dev/null || true
    if [[ $status -eq 0 ]]; then
        echo "ok $name"
    elif [[ $status -eq $skipped ]]; then
        echo "skip $name: not served"
    else
        echo "FAIL $name: $(grep -v '^ *$' "$output" | tail -1 | cut -c1-300)"
        [[ -z ${VERBOSE:-} ]] || sed 's/^/    /' "$output"
        failed=1
    fi
    rm -f "$output"
}

expect() { # what actual expected
    [[ $2 == "$3" ]] || { echo "$1 is '$2', expected '$3'"; return 1; }
}

unique() { # prefix
    echo "$1-$$-$RANDOM$RANDOM"
}
