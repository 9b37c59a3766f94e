# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash source=tests/agent/lib.sh
#
# For tests that kill -9 the server, the agent, or both at once, at random moments.
#
#   KILLS=100 SEED=4711 ...      how often (a dozen if nothing is said), and with which dice

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

RANDOM=${SEED:=$RANDOM}
step "seed $SEED"
killed_servers=0
killed_agents=0
killed_both=0
kills() { echo $((killed_servers + killed_agents + killed_both)); }
kills_told() {
    echo "$(kills) kills: $killed_servers of the server, $killed_agents of the agent," \
        "$killed_both of both"
}

kill_server() { kill -9 "$(server_pid)" 2> /dev/null; }
# A server that is just being started anew cannot be killed, and does not count.
kill_something() {
    case $((RANDOM % 3)) in
        0) ! kill_server || killed_servers=$((killed_servers + 1)) ;;
        1)
            kill_agent
            start_agent
            killed_agents=$((killed_agents + 1))
            ;;
        2)
            if kill_server; then
                killed_both=$((killed_both + 1))
            else
                killed_agents=$((killed_agents + 1))
            fi
            kill_agent
            start_agent
            ;;
    esac
}

# background COMMAND...: a program that must live through all kills; it ends well at SIGTERM.
programs=()
background() {
    local log=$work/program${#programs[@]}
    "$@" > "$log" 2>&1 &
    programs+=($!)
    # shellcheck disable=SC2064
    at_end "kill $! 2> /dev/null"
}
all_live() {
    local i
    for i in "${!programs[@]}"; do
        kill -0 "${programs[i]}" 2> /dev/null || fail "a program ended: $(cat "$work/program$i")"
    done
}
end_programs() {
    local i
    for i in "${!programs[@]}"; do
        kill "${programs[i]}"
        wait "${programs[i]}" || fail "a program ended with $?: $(cat "$work/program$i")"
        step "$(cat "$work/program$i")"
    done
    programs=()
}

# What a test looks at between two kills, if it defines this.
between_kills() { :; }
# drill COMMAND...: kills, while COMMAND runs again and again in the background: each kill may be
# anywhere in it, or between two of them. It may fail.
drill() {
    local running=
    until [ "$(kills)" -ge "${KILLS:=12}" ]; do
        all_live
        if ! kill -0 "$running" 2> /dev/null; then
            "$@" &
            running=$!
        fi
        sleep "0.$((RANDOM % 5))$((RANDOM % 10))"
        kill_something
        between_kills
    done
    wait "$running" || true
    all_live
}
