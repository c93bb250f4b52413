#!/bin/bash
# The life of a message, shown with coordctl on a real coordd and a real Redis, both of our own and gone in the end.
# Each command is printed before it runs, and what comes of it is checked: `make demo` fails when it is not as told.
set -eu

bin=$(realpath "$(dirname "${COORDD:-build/coordd}")")
dir=$(mktemp -d "${TMPDIR:-/tmp}/coordd-demo.XXXXXX")
broker=
out=

finish() {
	status=$?
	if [ -n "$broker" ]; then
		kill -TERM "$broker" 2>/dev/null || true
		wait "$broker" 2>/dev/null || true
	fi
	if [ "$status" -ne 0 ]; then
		echo "The demo failed. The end of coordd's log:" >&2
		tail -n 20 "$dir/log" >&2 || true
	fi
	rm -rf "$dir"
	exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

say() {
	printf '\n# %s\n' "$@"
}

# Print a command and run it; what it printed is in $out.
run() {
	local word shown=
	for word; do
		case $word in
		*[!A-Za-z0-9_./:=@%,+-]*) shown+=" '$word'" ;;
		*) shown+=" $word" ;;
		esac
	done
	printf '$%s\n' "$shown"
	if ! out=$("$@" 2>&1); then
		printf '%s\nThis should not have failed.\n' "$out"
		exit 1
	fi
	if [ -n "$out" ]; then
		printf '%s\n' "$out"
	fi
}

# A line of what was printed last must match this.
expect() {
	if ! grep -Eq -e "$1" <<<"$out"; then
		printf 'This should have matched: %s\n' "$1"
		exit 1
	fi
}

# The queue has so many messages ready, delayed, reserved, dead.
expect_counts() {
	expect "^planner:w1 +$1 +$2 +$3 +$4 "
}

start() {
	printf '$ coordd --config coordd.yaml --embedded-redis redis 2>>log &\n'
	coordd --config coordd.yaml --embedded-redis redis 2>>log &
	broker=$!
	for _ in $(seq 200); do
		if coordctl queue ls >/dev/null 2>&1; then # needs Redis, which `ping` does not
			return
		fi
		kill -0 "$broker" || exit 1
		sleep 0.05
	done
	echo "coordd was not ready within 10 seconds."
	exit 1
}

# Receive a message that must hold $1, and keep its token.
receive() {
	run coordctl msg recv planner:w1 --wait 10s "${@:2}"
	expect "^payload .*$1"
	token=$(sed -n 's/^token *//p' <<<"$out")
}

cd "$dir"
PATH=$bin:$PATH
export COORDCTL_SERVER=unix://$dir/coordd.sock NO_COLOR=1
cat >coordd.yaml <<END
admin:
  listen: [unix://$dir/admin.sock]
server:
  listen:
    - $COORDCTL_SERVER
END

say "A broker with a Redis of its own, which syncs every write to the disk before it is acknowledged."
start
run coordctl ping

say "Three messages for one agent. Payloads are JSON here; on the wire they are any MessagePack map."
run coordctl msg send planner:w1 '{"task": "tidy up"}' --priority low
run coordctl msg send planner:w1 '{"task": "write the report"}'
run coordctl msg send planner:w1 '{"task": "put out the fire"}' --priority high
run coordctl queue ls
expect_counts 3 0 0 0

say "The most urgent comes first. A token reserves it: nobody else sees it until it is settled."
receive 'put out the fire'
run coordctl msg ack planner:w1 "$token"
receive 'write the report'
run coordctl msg ack planner:w1 "$token"

say "This worker fails. The message waits a second (then 2, 4, ...) and is handed out again."
receive 'tidy up'
run coordctl msg nack planner:w1 "$token" --error 'the broom is broken'
run coordctl queue ls
expect_counts 0 1 0 0
receive 'tidy up'
expect '^last error +the broom is broken'
run coordctl msg ack planner:w1 "$token"

say "Some failures are for good. Such a message goes to the dead letters, and is not lost there."
run coordctl msg send planner:w1 '{"task": "divide by zero"}' --id m-4
receive 'divide by zero'
run coordctl msg nack planner:w1 "$token" --failure permanent --error 'not defined'
run coordctl dlq ls planner:w1
expect permanent
run coordctl dlq show planner:w1 m-4
expect 'not defined'
run coordctl dlq redrive planner:w1 --yes
receive 'divide by zero'
run coordctl msg ack planner:w1 "$token"

say "The broker is killed while one message is reserved and one waits; with it goes its Redis."
run coordctl msg send planner:w1 '{"task": "outlive the broker"}'
run coordctl msg send planner:w1 '{"task": "outlive it too"}'
receive 'outlive the broker' --visibility 60s
printf '$ kill -9 %s\n' "$broker"
kill -9 "$broker"
{ wait "$broker" || true; } 2>/dev/null
start
say "All is there. The reservation still holds, and its token still settles it."
run coordctl queue ls
expect_counts 1 0 1 0
run coordctl msg ack planner:w1 "$token"
receive 'outlive it too'
run coordctl msg ack planner:w1 "$token"
run coordctl queue ls
expect_counts 0 0 0 0

say "Goodbye: it finishes what it has begun."
printf '$ kill %s\n' "$broker"
kill "$broker"
stopping=$broker broker=
wait "$stopping"
echo
echo "Every step went as told."
