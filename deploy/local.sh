#!/usr/bin/env bash
# All of the shared form as processes on loopback, to look at, to break, and for tests:
#
#   deploy/local.sh up       a PostgreSQL with its synchronous standby, replicas of the service behind haproxy, workers, the
#                            dashboards; whatever ends is started again, and where the primary ends the standby takes its place
#   deploy/local.sh demo     `up`, then the viewers of `topbill demo` (whose options follow) on it: ends with the reports, and with
#                            exit status 1 where a decision that was answered is not in log and lake
#   deploy/local.sh down     ends exactly what it started; the folder stays
#
# Each may be said again at any time. What it makes lies in one folder, which may be removed after `down`.
#
#   TOPBILL_LOCAL            that folder; /tmp/topbill-local-USER unless said
#   TOPBILL_EXPERIMENTS      the experiments' folder; the examples unless said
#   TOPBILL_REPLICAS         how many replicas, 2 unless said; TOPBILL_WORKERS likewise
#   TOPBILL_LOCAL_LAKE       s3: the lake lies in an S3 server (moto's, which keeps it in memory: with `down` it is gone), and each
#                            process has a data folder of its own, as on machines that share no disk
#   TOPBILL_LOCAL_LOG        URL of a PostgreSQL that is there already; then none is started
#
# Needs PostgreSQL 15 or newer, and takes haproxy where that is: apt-get install postgresql haproxy
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
here=${TOPBILL_LOCAL:-/tmp/topbill-local-$(id -un)}
replicas=${TOPBILL_REPLICAS:-2}
workers=${TOPBILL_WORKERS:-2}
experiments=${TOPBILL_EXPERIMENTS:-$root/experiments}
python=$root/.venv/bin/python
[ -x "$python" ] || python=python3
own_log=${TOPBILL_LOCAL_LOG:-}
lake=${TOPBILL_LOCAL_LAKE:-folder}
longest=120 # seconds that anything may take to start

fail() {
	echo "deploy/local.sh: $*" >&2
	exit 1
}

# ---------------------------------------------------------------- processes, by name

# A pid is given again some day; with the moment of its start, which `born` leaves in `moment`, it is of one process.
born() {
	local stat
	{ read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
	read -ra stat <<<"${stat##*) }"
	moment=${stat[19]}
	[ "${stat[0]}" != Z ]
}

alive() {
	local pid noted moment
	{ read -r pid noted <"$here/run/$1"; } 2>/dev/null && born "$pid" && [ "$moment" = "$noted" ]
}

# launch NAME COMMAND…: in a session of its own, so that a terminal's Ctrl-C does not reach it.
launch() {
	local name=$1
	shift
	alive "$name" && return
	setsid "$@" </dev/null >>"$here/said/$name.txt" 2>&1 9>&- &
	local pid=$! moment=gone
	born $pid || true
	echo "$pid $moment" >"$here/starting" # whole, or not there
	mv "$here/starting" "$here/run/$name"
}

# end SIGNAL NAME…: asks all of them, then waits for each; who has not ended after 20 s is killed.
end() {
	local signal=$1 name pid moment
	shift
	for name; do
		alive "$name" && read -r pid moment <"$here/run/$name" && kill "-$signal" "$pid" 2>/dev/null || true
	done
	for name; do
		local turns=0
		while alive "$name"; do
			if [ $((turns += 1)) -gt 200 ]; then
				read -r pid moment <"$here/run/$name" && kill -KILL "$pid" 2>/dev/null || true
			fi
			sleep 0.1
		done
		rm -f "$here/run/$name"
	done
}

# wait_for NAME WHAT COMMAND…: until the command succeeds; fails with what the process said where it ends before.
wait_for() {
	local name=$1 what=$2 deadline=$((SECONDS + longest))
	shift 2
	until "$@" >/dev/null 2>&1; do
		if ! alive "$name" || [ $SECONDS -gt $deadline ]; then
			tail -n 20 "$here/said/$name.txt" >&2
			fail "$name: $what: not after ${longest} s, or it ended; see $here/said/$name.txt"
		fi
		sleep 0.1
	done
}

# ---------------------------------------------------------------- what is made once

make_folder() {
	mkdir -p -m 0711 "$here"
	[ -O "$here" ] || fail "$here belongs to somebody else; say a folder of your own in TOPBILL_LOCAL"
	mkdir -p "$here/run" "$here/said"
	# One at a time: `up`, `down` and what starts again what has ended.
	exec 9>"$here/lock"
	flock 9
	if [ ! -e "$here/ports" ]; then
		# Below those that the system gives to clients: one that asks while nobody listens could be given the very port.
		"$python" - >"$here/ports.new" <<-'END'
			import random, socket
			found = []
			for port in random.SystemRandom().sample(range(20_000, 32_000), 400):
			    try:
			        probe = socket.socket()
			        probe.bind(("127.0.0.1", port))
			        found.append((probe, port))
			    except OSError:
			        pass
			    if len(found) == 40:
			        break
			print(*(port for _, port in found))
		END
		mv "$here/ports.new" "$here/ports"
	fi
	read -ra ports <"$here/ports"
	front=${ports[0]} board=${ports[1]}
	if [ ! -e "$here/pgpass" ]; then
		(
			umask 077
			for role in postgres standby topbill; do
				echo "127.0.0.1:*:*:$role:$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')"
			done >"$here/pgpass.new"
		)
		mv "$here/pgpass.new" "$here/pgpass"
	fi
	if [ -n "$own_log" ]; then
		export TOPBILL_LOG=$own_log
	else
		export PGPASSFILE=$here/pgpass
		export TOPBILL_LOG="postgresql://topbill@127.0.0.1:$(port_of 1),127.0.0.1:$(port_of 2)/topbill?target_session_attrs=read-write&connect_timeout=3"
	fi
	use_lake
}

# ---------------------------------------------------------------- an S3 server

use_lake() {
	case $lake in
	folder) return ;;
	s3) ;;
	*) fail "TOPBILL_LOCAL_LAKE is '$lake'; expected folder or s3" ;;
	esac
	export TOPBILL_LAKE=s3://topbill/lake AWS_ENDPOINT_URL=http://127.0.0.1:${ports[4]} AWS_ALLOW_HTTP=true
	export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local AWS_REGION=us-east-1
}

start_lake() {
	[ "$lake" = s3 ] && ! alive s3 || return 0
	[ ! -e "$here/data" ] || fail "the S3 server of last time kept nothing: remove $here, and begin anew"
	"$python" -c 'import fsspec, moto.server, obstore' 2>/dev/null || fail "no S3 server here: pip install -r requirements-dev.lock"
	launch s3 "$python" -m moto.server -H 127.0.0.1 -p "${ports[4]}"
	wait_for s3 "it has a bucket" answers "${ports[4]}" /topbill PUT
}

data_of() { if [ "$lake" = s3 ]; then echo "$here/data/$1"; else echo "$here/data"; fi; }

# ---------------------------------------------------------------- PostgreSQL

port_of() { echo "${ports[$(($1 + 1))]}"; }                     # of the server 1 or 2
password_of() { sed -n "s/.*:$1://p" "$here/pgpass"; }          # of a role
is_primary() { [ -e "$here/postgres-$1/data/PG_VERSION" ] && [ ! -e "$here/postgres-$1/data/standby.signal" ]; }
primary() { if is_primary 2; then echo 2; else echo 1; fi; }
ask() { # ask NUMBER DATABASE, SQL on standard input
	PGCONNECT_TIMEOUT=5 "$programs/psql" -XAtq -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$(port_of "$1")" -U postgres "$2"
}

find_postgres() {
	programs=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
	[ -n "$programs" ] || programs=$(dirname "$(command -v initdb || echo /none/initdb)")
	[ -x "$programs/initdb" ] || fail "no PostgreSQL here: apt-get install postgresql, or say in TOPBILL_LOCAL_LOG where one is"
	as_server=()
	if [ "$(id -u)" = 0 ]; then # it refuses to run as root
		id postgres >/dev/null 2>&1 || fail "PostgreSQL does not run as root, and there is no user postgres"
		as_server=(setpriv --reuid=postgres --regid=postgres --clear-groups)
		"${as_server[@]}" test -x "$here" ||
			fail "the user postgres cannot reach $here; say another folder in TOPBILL_LOCAL"
	fi
}

start_server() { # start_server NUMBER: makes it where it is not: the first as a new one, any other as the primary's standby
	local number=$1 name=postgres-$1 folder=$here/postgres-$1
	alive "$name" && return
	if [ ! -e "$folder/data/PG_VERSION" ]; then
		rm -rf "$folder"
		mkdir -m 0700 "$folder"
		local other=$((3 - number))
		if is_primary $other; then
			grep ':standby:' "$here/pgpass" | (umask 077 && cat >"$folder/pgpass")
		else
			password_of postgres | (umask 077 && cat >"$folder/password")
		fi
		[ ${#as_server[@]} = 0 ] || chown -R postgres "$folder"
		if is_primary $other; then
			"${as_server[@]}" "$programs/pg_basebackup" -D "$folder/new" -R -c fast \
				-d "host=127.0.0.1 port=$(port_of $other) user=standby passfile=$folder/pgpass application_name=$name" \
				>>"$here/said/$name.txt" 2>&1 || fail "no copy of postgres-$other could be made; see $here/said/$name.txt"
		else
			"${as_server[@]}" "$programs/initdb" -D "$folder/new" -U postgres -A scram-sha-256 --pwfile="$folder/password" \
				-E UTF8 --locale=C >>"$here/said/$name.txt" 2>&1 || fail "initdb failed; see $here/said/$name.txt"
		fi
		mv "$folder/new" "$folder/data"
		rm -f "$folder/password"
	fi
	launch "$name" "${as_server[@]}" "$programs/postgres" -D "$folder/data" -p "$(port_of "$number")" \
		-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c wal_sender_timeout=5s
	wait_for "$name" "it takes connections" "$programs/pg_isready" -q -h 127.0.0.1 -p "$(port_of "$number")"
}

synchronous() { # synchronous on|off: whether the primary acknowledges what its standby has, and nothing less
	local names=''
	if [ "$1" = on ]; then names='*'; else rm -f "$here/synchronous"; fi
	ask "$(primary)" postgres >/dev/null <<-END
		ALTER SYSTEM SET synchronous_standby_names = '$names';
		SELECT pg_reload_conf();
	END
	[ "$1" = off ] || : >"$here/synchronous"
}

streams() { [ "$(ask "$(primary)" postgres <<<"SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")" = 1 ]; }

start_postgres() {
	fail_over
	local one other
	one=$(primary)
	other=$((3 - one))
	start_server "$one"
	ask "$one" postgres <<-END
		DO \$\$ BEGIN
			IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'topbill') THEN
				CREATE ROLE standby REPLICATION LOGIN PASSWORD '$(password_of standby)';
				CREATE ROLE topbill LOGIN PASSWORD '$(password_of topbill)';
			END IF;
		END \$\$;
		SELECT 'CREATE DATABASE topbill OWNER topbill' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'topbill') \gexec
	END
	start_server "$other"
	wait_for "postgres-$other" "it has all that the primary has" streams
	synchronous on
}

# What Patroni does, and may be this simple where a process that has ended is known to have ended. While the standby is a
# synchronous one, all that was acknowledged is in it.
fail_over() {
	local one other
	one=$(primary)
	other=$((3 - one))
	[ -e "$here/synchronous" ] || return 0
	if ! alive "postgres-$one" && alive "postgres-$other"; then
		echo "postgres-$one has ended: postgres-$other takes its place"
		"${as_server[@]}" "$programs/pg_ctl" promote -s -D "$here/postgres-$other/data"
		# Nobody may take the former primary for it again: it comes back as the standby of this one.
		rm -rf "$here/postgres-$one"
		synchronous off
	elif alive "postgres-$one" && ! alive "postgres-$other"; then
		echo "postgres-$other has ended: postgres-$one goes on alone"
		synchronous off
	fi
}

# ---------------------------------------------------------------- all of it

write_haproxy() {
	cat <<-END
		defaults
		    mode http
		    timeout connect 1s
		    timeout client 30s
		    timeout server 30s
		    timeout check 2s
		    # Who did not take the connection has not seen the request: another one gets it.
		    retries 3
		    option redispatch 1
		    http-error status 503 content-type application/json string '{"title": "no replica is ready", "status": 503}' hdr Retry-After 1
		frontend service
		    bind 127.0.0.1:$front
		    default_backend replicas
		backend replicas
		    option httpchk GET /readyz
		    default-server check inter 500ms fall 2 rise 1
	END
	local number
	for ((number = 1; number <= replicas; number++)); do
		echo "    server serve-$number 127.0.0.1:${ports[9 + number]}"
	done
}

start() { # start NAME, unless it runs
	local number=${1##*-} both=(--experiments "$experiments" --data "$(data_of "$1")")
	case $1 in
	serve-*) launch "$1" "$python" -m topbill serve "${both[@]}" --port "${ports[9 + number]}" ;;
	worker-*) launch "$1" "$python" -m topbill worker "${both[@]}" ;;
	dashboard) launch "$1" "$python" -m topbill dashboard "${both[@]}" --port "$board" ;;
	haproxy) launch "$1" haproxy -db -f "$here/haproxy.cfg" ;;
	esac
}

answers() { # answers PORT PATH [VERB]: with status 200
	(
		exec 3<>"/dev/tcp/127.0.0.1/$1"
		printf '%s %s HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n' "${3:-GET}" "$2" >&3
		read -r -t 2 line <&3
		[[ $line == *" 200 "* ]]
	)
}

up() {
	make_folder
	# Each process would compile by itself, all at the same time.
	"$python" -c 'from topbill.policies.linear import library; library.load() or __import__("topbill.policies.linear.ruled")'
	if [ -z "$own_log" ]; then
		find_postgres
		start_postgres
	fi
	start_lake
	"$python" -m topbill migrate --log "$TOPBILL_LOG" >"$here/said/migrate.txt" 2>&1 ||
		fail "the log's tables could not be made: $(tail -n 3 "$here/said/migrate.txt")"
	local number
	for ((number = 1; number <= replicas; number++)); do start "serve-$number"; done
	for ((number = 1; number <= workers; number++)); do start "worker-$number"; done
	start dashboard
	for ((number = 1; number <= replicas; number++)); do
		wait_for "serve-$number" "it is ready" answers "${ports[9 + number]}" /readyz
	done
	if command -v haproxy >/dev/null; then
		write_haproxy >"$here/haproxy.new"
		cmp -s "$here/haproxy.new" "$here/haproxy.cfg" || end TERM haproxy
		mv "$here/haproxy.new" "$here/haproxy.cfg"
		start haproxy
		wait_for haproxy "it is ready" answers "$front" /readyz
		address=http://127.0.0.1:$front
	else
		address=http://127.0.0.1:${ports[10]}
		echo "no haproxy here (apt-get install haproxy): the replicas are at the ports ${ports[*]:10:$replicas}"
	fi
	wait_for dashboard "it is ready" answers "$board" /_stcore/health
	launch tend "$root/deploy/local.sh" tend
	data=$(data_of dashboard)
	local name
	for name in TOPBILL_LOG PGPASSFILE TOPBILL_LAKE ${!AWS_@}; do
		[ -z "${!name:-}" ] || printf 'export %s=%q\n' "$name" "${!name}"
	done >"$here/environment"
	exec 9>&-
	cat <<-END
		service    $address/docs
		dashboard  http://127.0.0.1:$board
		data       $data  (topbill report KEY --data $data, after . $here/environment)
	END
}

# Beside all others: looks five times a second whether all of them run.
tend() {
	while sleep 0.2; do
		local each ended=
		for each in "$here"/run/*; do
			alive "${each##*/}" || ended=${each##*/}
		done
		[ -z "$ended" ] || "$root/deploy/local.sh" mend || true
	done
}

# Starts again what has ended.
mend() {
	make_folder
	local each
	for each in "$here"/run/*; do
		start "${each##*/}"
	done
	if [ -z "$own_log" ]; then
		find_postgres
		start_postgres
	fi
}

down() {
	[ -d "$here/run" ] || return 0
	end TERM tend # before what it would start again
	make_folder   # waits until its last turn is over
	local each names=()
	for each in "$here"/run/*; do
		case ${each##*/} in postgres-* | '*') ;; *) names+=("${each##*/}") ;; esac
	done
	end TERM "${names[@]}"
	end INT postgres-1 postgres-2 # who is connected is sent away, and all is on disk
}

case "${1:-}" in
up) up ;;
demo)
	up
	"$python" -m topbill demo --at "$address" --experiments "$experiments" --data "$data" "${@:2}"
	;;
tend | mend) "$1" ;;
down) down ;;
*) fail "got '${1:-}'; expected up, demo or down" ;;
esac
