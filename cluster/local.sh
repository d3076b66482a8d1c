#!/usr/bin/env bash
# A real one-machine Ray cluster, for trying jobs exactly as a cluster would run them:
#
#   cluster/local.sh start
#   ray job submit --working-dir . -- python jobs/run.py jobs/demo.yaml
#   cluster/local.sh stop
#
# With `start 2` the head runs no work, and two worker nodes of this machine do. With RAY_AUTH_MODE=token the head wants
# a token, and `start` says how to give it.
#
# `ray job submit` finds the head when it is the only Ray on the machine; else add `--address http://127.0.0.1:8265`.
# Ray is taken from beside $PYTHON when that is set, else from .venv, else from PATH.
set -euo pipefail

URL=http://127.0.0.1:8265
# Ray's files. A folder of our own, so that other Ray programs on this machine do not take this head for theirs. Short,
# for Ray puts sockets below it, and their paths may not exceed 103 characters.
FOLDER="/tmp/gotd-ray-$UID"
PID_FILE="$FOLDER/head.pid"
LOG_FILE="$FOLDER/head.log"
TOKEN_FILE="$FOLDER/token"
ADDRESS_FILE="$FOLDER/ray_current_cluster" # where Ray says what workers connect to

fail() {
    echo "$*" >&2
    exit 1
}

find_bin() {
    local venv program
    venv="$(dirname "${BASH_SOURCE[0]}")/../.venv"
    if [ -n "${PYTHON:-}" ]; then
        program="$(command -v "$PYTHON")" || fail "PYTHON is '$PYTHON', which is no program. Give the path of a Python."
    elif [ -x "$venv/bin/ray" ]; then
        program="$venv/bin/ray"
    else
        program="$(command -v ray)" || fail "Found no ray. Run 'make .venv/.demo' first, or set PYTHON."
    fi
    cd "$(dirname "$program")" && pwd
}

# Ask the head for a path. The token goes by standard input: others on the machine can read a command line.
ask() {
    local token="${RAY_AUTH_TOKEN:-}"
    [ -n "$token" ] || token="$(cat "${RAY_AUTH_TOKEN_PATH:-$TOKEN_FILE}" 2>/dev/null || true)"
    echo "Authorization: Bearer $token" |
        curl --silent --max-time 5 --noproxy '*' --header @- "${@:2}" "$URL$1"
}

# Something listens at the dashboard's port, ours or not.
taken() {
    ask "" --output /dev/null
}

# The jobs API answers before the nodes that would run a job have joined, and before Ray has said where: all are asked.
ready() {
    [ -s "$ADDRESS_FILE" ] && ask /api/jobs/ --fail --output /dev/null &&
        [ "$(ask /api/v0/nodes | grep -o '"state": "ALIVE"' | wc -l)" -gt "${1:-0}" ]
}

# The process ids of our head and its workers, as far as they live. The command line is compared because ids are used
# again.
pids() {
    local pid found=1
    [ -r "$PID_FILE" ] || return 1
    while read -r pid; do
        if ps -p "$pid" -o args= 2>/dev/null | grep -q -- "--temp-dir=$FOLDER"; then
            echo "$pid"
            found=0
        fi
    done <"$PID_FILE"
    return "$found"
}

# Make sure that there is a token, and leave in the environment where it lies.
need_token() {
    if [ -n "${RAY_AUTH_TOKEN:-}${RAY_AUTH_TOKEN_PATH:-}" ]; then
        return
    fi
    (umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$TOKEN_FILE")
    export RAY_AUTH_TOKEN_PATH="$TOKEN_FILE"
    echo "Jobs are taken from who has the token: export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$TOKEN_FILE"
}

# Start a node that outlives us: its log file, and the arguments of `ray start`.
node() {
    PATH="$bin:$PATH" RAY_AUTH_MODE="$mode" RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="$outside" \
        RAY_ENABLE_UV_RUN_RUNTIME_ENV=0 RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 \
        nohup "$bin/ray" start --block --disable-usage-stats --temp-dir="$FOLDER" --dashboard-agent-listen-port=0 \
        "${@:2}" >"$1" 2>&1 </dev/null &
    echo "$!" >>"$PID_FILE"
}

# Wait until the head and so many workers are there.
wait_for() {
    local said
    for _ in $(seq 300); do
        if [ "$(pids | wc -l)" -lt "$(wc -l <"$PID_FILE")" ]; then
            said="$(tail -qn 20 "$FOLDER"/*.log)"
            stop
            fail "Ray did not start: $said"
        fi
        if ready "$1"; then
            return
        fi
        sleep 1
    done
    stop
    fail "Ray was not ready for jobs at $URL within 300 s. See $LOG_FILE and $FOLDER/session_latest/logs."
}

start() {
    local bin mode="${RAY_AUTH_MODE:-disabled}" outside=0 workers="${1:-0}" number share=() memory
    [[ "$workers" =~ ^[0-9]+$ ]] || fail "usage: $0 start [NUMBER OF WORKERS]"
    [ "$workers" -eq 0 ] || outside=1
    [ "$outside" -eq 0 ] || [ "$mode" = token ] ||
        fail "Workers listen on the network, and would run anybody's code. Set RAY_AUTH_MODE=token."
    if pids >/dev/null; then
        echo "Already running: $URL"
        return
    fi
    taken && fail "Port ${URL##*:} is taken by another program. If it is a Ray head, use or stop that one."
    bin="$(find_bin)"
    [ -x "$bin/ray" ] || fail "Found no ray in '$bin'. Set PYTHON to a Python that has it."
    [ -d "$FOLDER" ] || mkdir -m 700 "$FOLDER"
    [ -O "$FOLDER" ] || fail "$FOLDER belongs to someone else. Remove it first."

    # PATH: `python` and `ninja` (DeepSpeed compiles with it) in a job are those of the environment that Ray is from.
    # RAY_AUTH_MODE: off where it is not set, so that a plain `ray job submit` works with or without a token in ~/.ray.
    # Nobody outside this machine can reach the head, for it listens on loopback only; but every user of the machine can
    # run code as you.
    # RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER: 0 is what puts every listener on loopback. --node-ip-address=127.0.0.1 does
    # not: Ray replaces it by the machine's outer address and listens on all of them. A head on loopback takes no workers.
    # --port, --dashboard-agent-listen-port: any free one. Nothing has to find them, and another Ray on this machine
    # holds the usual ones. So with a worker's --min-worker-port.
    # RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S: 0, for `stop` means now; the default drains for up to 30 s.
    # --object-store-memory: a node takes 30% of the machine's memory by default, as if it were alone.
    [ "$mode" != token ] || need_token
    : >"$PID_FILE"
    rm -f "$FOLDER"/*.log "$ADDRESS_FILE" # an earlier head's address would send the workers there
    if [ "$workers" -gt 0 ]; then
        memory=$(($(getconf _PHYS_PAGES) * $(getconf PAGE_SIZE) * 3 / 10 / (workers + 1)))
        share=(--object-store-memory="$memory")
        set -- --num-cpus=0 --num-gpus=0 "${share[@]}"
    else
        set --
    fi
    node "$LOG_FILE" --head --dashboard-host=127.0.0.1 --dashboard-port="${URL##*:}" --port=0 "$@"
    wait_for 0
    for number in $(seq "$workers"); do
        [ "$number" -eq 1 ] || share+=(--num-gpus=0) # the first has the machine's GPUs
        node "$FOLDER/worker-$number.log" --address="$(cat "$ADDRESS_FILE")" "${share[@]}" \
            --num-cpus="$((($(nproc) + workers - 1) / workers))" --min-worker-port=0 --max-worker-port=0
        wait_for "$number" # two that start at once take each other's sockets
    done
    echo "Running: $URL (logs in $FOLDER/session_latest/logs)"
}

# Ends the processes that own this head's others; `ray stop` would end every Ray on the machine.
stop() {
    local found
    if ! found="$(pids)"; then
        echo "Not running."
        return
    fi
    # shellcheck disable=SC2086 # several words
    kill -TERM $found
    for _ in $(seq 30); do
        if ! pids >/dev/null; then
            rm -f "$PID_FILE" "$TOKEN_FILE"
            echo "Stopped."
            return
        fi
        sleep 1
    done
    fail "Processes $(pids | xargs) did not end within 30 s of SIGTERM. See $LOG_FILE."
}

status() {
    if pids >/dev/null && ready; then
        echo "Running: $URL"
    else
        echo "Not running."
        return 3 # as of systemctl: no such program runs
    fi
}

case "${1:-}" in
    start | stop | status) "$@" ;;
    *) fail "usage: $0 start|stop|status" ;;
esac
