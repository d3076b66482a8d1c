#!/usr/bin/env bash
# A real one-machine Ray cluster, for trying jobs exactly as a cluster would run them:
#
#   cluster/local.sh start
#   ray job submit --working-dir . -- python jobs/run.py jobs/demo.yaml
#   cluster/local.sh stop
#
# Ray is taken from beside $PYTHON when that is set, else from .venv, else from PATH.
set -euo pipefail

URL=http://127.0.0.1:8265 # where `ray job submit` looks when it is told nothing
# Ray's own folder. Not one of ours, for `ray job submit` reads there which head is meant when several run. Not the
# system's either (long on a Mac): Ray puts sockets below it, whose paths may not exceed 103 characters.
RAY_FOLDER=/tmp/ray
FOLDER="/tmp/gotd-ray-$UID"
PID_FILE="$FOLDER/head.pid"
LOG_FILE="$FOLDER/head.log"

fail() {
    echo "$*" >&2
    exit 1
}

find_bin() {
    local root python
    root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
    if [ -n "${PYTHON:-}" ]; then
        python="$(command -v "$PYTHON")" || fail "PYTHON is '$PYTHON', which is not a program. Give the path of a Python."
        dirname "$python"
    elif [ -x "$root/.venv/bin/ray" ]; then
        echo "$root/.venv/bin"
    elif command -v ray >/dev/null; then
        dirname "$(command -v ray)"
    fi
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
    ps -p "$pid" -o args= 2>/dev/null | grep -q -- "--temp-dir=$RAY_FOLDER" || return 1
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
    [ -x "$bin/ray" ] || fail "Found no ray in '$bin'. Run 'make .venv/.demo' first, or set PYTHON to a Python that has it."
    mkdir -p -m 700 "$FOLDER"
    [ -O "$FOLDER" ] || fail "$FOLDER belongs to someone else. Remove it first."

    # PATH: `python` and `ninja` (DeepSpeed compiles with it) in a job are those of the environment that Ray is from.
    # RAY_AUTH_MODE: off, so that a plain `ray job submit` works with or without a token in ~/.ray. Nobody outside this
    # machine can reach the head, for it listens on loopback only; but every user of the machine can run code as you.
    # RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER: 0 is what puts every listener on loopback. --node-ip-address=127.0.0.1 does
    # not: Ray replaces it by the machine's outer address and listens on all of them.
    # RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S: 0, for `stop` means now; the default drains for up to 30 s.
    PATH="$bin:$PATH" RAY_AUTH_MODE=disabled RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 \
        RAY_ENABLE_UV_RUN_RUNTIME_ENV=0 RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 \
        nohup "$bin/ray" start --head --block --disable-usage-stats --temp-dir="$RAY_FOLDER" --port=0 \
        --dashboard-host=127.0.0.1 --dashboard-port="${URL##*:}" >"$LOG_FILE" 2>&1 </dev/null &
    pid=$!
    echo "$pid" >"$PID_FILE"
    for _ in $(seq 120); do
        kill -0 "$pid" 2>/dev/null || fail "Ray did not start: $(tail -n 20 "$LOG_FILE")"
        if ready; then
            echo "Running: $URL (logs in $RAY_FOLDER/session_latest/logs)"
            return
        fi
        sleep 1
    done
    stop
    fail "Ray was not ready for jobs at $URL within 120 s. See $LOG_FILE and $RAY_FOLDER/session_latest/logs."
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
