#!/usr/bin/env bash
# A real one-machine Ray cluster, for trying jobs exactly as a cluster would run them:
#
#   cluster/local.sh start
#   ray job submit --working-dir . -- python jobs/run.py jobs/demo.yaml
#   cluster/local.sh stop
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

# Something listens at the dashboard's port, ours or not.
taken() {
    curl --silent --max-time 5 --noproxy '*' --output /dev/null "$URL"
}

# The jobs API answers before the node that would run a job has joined, so both are asked.
ready() {
    curl --silent --fail --max-time 5 --noproxy '*' --output /dev/null "$URL/api/jobs/" &&
        curl --silent --max-time 5 --noproxy '*' "$URL/api/v0/nodes" | grep -q '"state": "ALIVE"'
}

# The process id of our head, if it lives. The command line is compared because ids are used again.
head_pid() {
    local pid
    [ -r "$PID_FILE" ] || return 1
    pid="$(cat "$PID_FILE")"
    ps -p "$pid" -o args= 2>/dev/null | grep -q -- "--temp-dir=$FOLDER" || return 1
    echo "$pid"
}

start() {
    local bin pid
    if head_pid >/dev/null; then
        echo "Already running: $URL"
        return
    fi
    taken && fail "Port ${URL##*:} is taken by another program. If it is a Ray head, use or stop that one."
    bin="$(find_bin)"
    [ -x "$bin/ray" ] || fail "Found no ray in '$bin'. Set PYTHON to a Python that has it."
    [ -d "$FOLDER" ] || mkdir -m 700 "$FOLDER"
    [ -O "$FOLDER" ] || fail "$FOLDER belongs to someone else. Remove it first."

    # PATH: `python` and `ninja` (DeepSpeed compiles with it) in a job are those of the environment that Ray is from.
    # RAY_AUTH_MODE: off, so that a plain `ray job submit` works with or without a token in ~/.ray. Nobody outside this
    # machine can reach the head, for it listens on loopback only; but every user of the machine can run code as you.
    # RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER: 0 is what puts every listener on loopback. --node-ip-address=127.0.0.1 does
    # not: Ray replaces it by the machine's outer address and listens on all of them.
    # --port, --dashboard-agent-listen-port: any free one. Nothing has to find them, and another Ray on this machine
    # holds the usual ones.
    # RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S: 0, for `stop` means now; the default drains for up to 30 s.
    PATH="$bin:$PATH" RAY_AUTH_MODE=disabled RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 \
        RAY_ENABLE_UV_RUN_RUNTIME_ENV=0 RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 \
        nohup "$bin/ray" start --head --block --disable-usage-stats --temp-dir="$FOLDER" \
        --dashboard-host=127.0.0.1 --dashboard-port="${URL##*:}" --port=0 --dashboard-agent-listen-port=0 \
        >"$LOG_FILE" 2>&1 </dev/null &
    pid=$!
    echo "$pid" >"$PID_FILE"
    for _ in $(seq 120); do
        kill -0 "$pid" 2>/dev/null || fail "Ray did not start: $(tail -n 20 "$LOG_FILE")"
        if ready; then
            echo "Running: $URL (logs in $FOLDER/session_latest/logs)"
            return
        fi
        sleep 1
    done
    stop
    fail "Ray was not ready for jobs at $URL within 120 s. See $LOG_FILE and $FOLDER/session_latest/logs."
}

# Ends the one process that owns this head's others; `ray stop` would end every Ray on the machine.
stop() {
    local pid
    if ! pid="$(head_pid)"; then
        echo "Not running."
        return
    fi
    kill -TERM "$pid"
    for _ in $(seq 30); do
        if ! kill -0 "$pid" 2>/dev/null; then
            rm -f "$PID_FILE"
            echo "Stopped."
            return
        fi
        sleep 1
    done
    fail "The head, process $pid, did not end within 30 s of SIGTERM. See $LOG_FILE."
}

status() {
    if head_pid >/dev/null && ready; then
        echo "Running: $URL"
    else
        echo "Not running."
        return 3 # as of systemctl: no such program runs
    fi
}

case "${1:-}" in
    start | stop | status) "$1" ;;
    *) fail "usage: $0 start|stop|status" ;;
esac
