#!/bin/sh
# The migration, as a deployment would run it. psql finds the database in the PG* variables
# (PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE) that `rollbackd demo` sets.
set -eu
exec "${DEMO_PSQL:-psql}" --no-psqlrc --quiet --set ON_ERROR_STOP=1 \
    --file "${DEMO_MIGRATION:?the SQL file of the migration}"
