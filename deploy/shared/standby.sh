#!/bin/sh
# The standby: at its first start a copy of the primary, which from then on acknowledges what both have.
set -eu
PGPASSWORD=$(cat /run/secrets/postgres_password)
export PGPASSWORD
if [ ! -e "$PGDATA" ]; then
	copy=$(dirname "$PGDATA")/copy # one that was interrupted is no data
	rm -rf "$copy"
	pg_basebackup -D "$copy" -R -c fast -d "host=postgres-1 user=standby application_name=postgres-2"
	chown -R postgres "$copy"
	mv "$copy" "$PGDATA"
	psql -v ON_ERROR_STOP=1 -h postgres-1 -U postgres <<-END
		ALTER SYSTEM SET synchronous_standby_names = '*';
		SELECT pg_reload_conf();
	END
fi
exec docker-entrypoint.sh postgres
