#!/bin/sh
# Once, as the primary's data is made: who may copy it, and the log's database and role.
set -eu
password=$(cat /run/secrets/postgres_password)
psql -v ON_ERROR_STOP=1 --username postgres <<-END
	CREATE ROLE standby REPLICATION LOGIN PASSWORD '$password';
	CREATE ROLE topbill LOGIN PASSWORD '$password';
	CREATE DATABASE topbill OWNER topbill;
END
echo 'host replication standby all scram-sha-256' >>"$PGDATA/pg_hba.conf"
