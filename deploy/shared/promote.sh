#!/bin/sh
# Makes the standby the primary. It has all that was acknowledged; without a standby of its own it waits for none.
set -eu
PGPASSWORD=$(cat /run/secrets/postgres_password)
export PGPASSWORD
psql -v ON_ERROR_STOP=1 -h 127.0.0.1 -U postgres <<-END
	SELECT pg_promote();
	ALTER SYSTEM RESET synchronous_standby_names;
	SELECT pg_reload_conf();
END
