#!/bin/sh
# Runs a systemd unit to its end: a rung, gate or check whose command needs rights that the daemon does not have.
#
# usage: run-unit.sh UNIT
#
# Exits with 0 when the unit has succeeded. When rollbackd ends this script (its time is up, or the rung is given up) the
# unit is stopped first, so that nothing goes on that rollbackd takes for ended: the unit's TimeoutStopSec must be shorter
# than `rollback.grace`. A unit that runs already is waited for, and not started twice.
set -eu

unit=${1:?usage: run-unit.sh UNIT}

# shellcheck disable=SC2317 # it is called by the trap
stop() {
    trap '' TERM INT HUP
    # Returns when nothing of it runs any more.
    if systemctl stop "$unit"; then
        echo "$unit was stopped"
    else
        echo "$unit could not be stopped" >&2
    fi
    exit 143
}
trap stop TERM INT HUP

systemctl start "$unit" &
if wait "$!"; then
    echo "$unit has succeeded"
    exit 0
fi
how=$(systemctl show --property=Result --property=ExecMainStatus "$unit" | tr '\n' ' ')
echo "$unit failed: ${how}(journalctl -u $unit)" >&2
exit 1
