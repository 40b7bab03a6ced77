# What the scripts that run a broker for tests have in common; sourced by them once they have set
#   name      how people call it
#   word      how files and settings call it: $word.pid and $word.log in its folder, FN_<WORD>_DIR, FN_<WORD>_PORT
#   usual     the port that it listens on unless FN_<WORD>_PORT names another
#   config    its configuration file, in its folder; its process is known by it
#   patience  seconds that it may take until it answers, or has stopped
# They define `start`, and end with `broker "$@"`.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=$(dirname "$here")/.cache
upper=${word^^}
folder=FN_${upper}_DIR
listens=FN_${upper}_PORT
mkdir -p "${!folder:-$cache/$word}"
dir=$(cd "${!folder:-$cache/$word}" && pwd)
port=${!listens:-$usual}
address=127.0.0.1:$port
pidfile=$dir/$word.pid
log=$dir/$word.log

fail() { # MESSAGE [HINT]
	printf 'Error: %s\n' "$1" >&2
	[ -z "${2:-}" ] || printf 'Hint: %s\n' "$2" >&2
	exit 1
}

running() { # its pid, if the process it names is this broker
	local pid
	pid=$(cat "$pidfile" 2>/dev/null) || return 1
	tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF "$dir/$config" || return 1
	echo "$pid"
}

answers() { (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }

obtain() { # OPTION PACKAGE...: where it may, with --install or in CI; otherwise say what is missing
	local option=$1
	shift
	[ $# -eq 0 ] && return
	if [ "$(id -u)" = 0 ] && { [ "${CI:-}" = true ] || [ "$option" = --install ]; }; then
		echo "Installing $* ..." >&2
		# RUNLEVEL: no package is to start a service of its own
		apt-get update -qq >&2 && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >&2
	else
		fail "$name needs $*, which this machine lacks." "as root: apt-get install $* (or: scripts/$word.sh start --install)"
	fi
}

free() { # fails where it runs already (1) or where another program has its port (exits)
	local pid
	if pid=$(running); then
		echo "$name runs already at $address (pid $pid)." >&2
		return 1
	fi
	! answers || fail "port $port is taken by another program." "name another one by $listens"
}

launch() { # COMMAND...: in the background, in a session of its own; exec: the pid written is the broker's own
	setsid bash -c 'echo $$ >"$0" && exec "$@"' "$pidfile" "$@" >"$log" 2>&1 </dev/null &
	echo "$name starts at $address (log: $log)." >&2
}

await() {
	local tries=$((patience * 10))
	local begun=$((tries - 200)) # by then its process is there
	while ! { running >/dev/null && answers; }; do
		tries=$((tries - 1))
		if [ $tries -le 0 ] || { [ $tries -lt $begun ] && ! running >/dev/null; }; then
			tail -n 5 "$log" >&2 || true
			fail "$name at $address does not answer." "see $log${listens:+; is the port taken? $listens names another}"
		fi
		sleep 0.1
	done
}

stop() {
	local pid tries=$((patience * 10))
	pid=$(running) || { rm -f "$pidfile"; return; }
	kill "$pid"
	while running >/dev/null; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || { kill -KILL "$pid"; break; }
		sleep 0.1
	done
	rm -f "$pidfile"
}

broker() {
	case ${1:-} in
	start) start "${2:-}" ;;
	wait) await ;;
	address) echo "$address" ;;
	status) running || { echo "$name does not run in $dir." >&2; exit 1; } ;;
	stop) stop ;;
	*) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$here/$word.sh" >&2; exit 2 ;;
	esac
}
