#!/usr/bin/env bash
# The runbook's emergency rollback: removes the 14 tables that the migration adds, all of them or none.
#
# rollbackd runs it as the first rung of the ladder and gives it DATABASE_URL; by hand:
#   DATABASE_URL=postgres://… scripts/rollback-emergency.sh
# It may be run again after an interruption. The rows of these tables go with them: take this rung out of the
# ladder to have rollbackd's own rung move the tables to quarantine instead.
set -euo pipefail

: "${DATABASE_URL:?is not set: postgres://user@host/database}"

# One statement drops tables that refer to each other, in any order. Without CASCADE it refuses to take along
# anything that is not listed, such as a view of yours; then the next rung of the ladder looks closer.
exec psql "$DATABASE_URL" --no-psqlrc --no-password --quiet --set=ON_ERROR_STOP=1 --single-transaction <<'SQL'
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
DROP TABLE IF EXISTS
  "public"."pages",
  "public"."content_blocks",
  "public"."page_templates",
  "public"."component_library",
  "public"."user_sessions",
  "public"."analytics_events",
  "public"."user_file_stats",
  "public"."file_metadata",
  "public"."file_versions",
  "public"."cache_entries",
  "public"."component_usage",
  "public"."builder_pages",
  "public"."content_posts",
  "public"."media_files";
SQL
