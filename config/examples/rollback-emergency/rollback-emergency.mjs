#!/usr/bin/env node
// The runbook's emergency rollback: takes out the 14 tables that the migration adds, all of them or none.
//
// Runs as a rung of rollbackd, which sets DATABASE_URL, or by hand:
//   DATABASE_URL=postgres://user@host/database node rollback-emergency.mjs
//
// It never says CASCADE: what it would take along and is not listed here (a view of yours, a column of an original
// table) makes it stop with nothing changed, and the ladder's next rung looks closer. It may be run again at any time:
// tables that are gone already are left out. The rows of these tables go with them.
//
// Exit codes: 0 the tables are gone and the original ones are there; 1 they are not; 64 it was not called rightly.

import process from 'node:process';
import { setTimeout as pause } from 'node:timers/promises';
import pg from 'pg';

const SCHEMA = 'public';

// What the migration adds.
const TABLES = [
  'pages',
  'content_blocks',
  'page_templates',
  'component_library',
  'user_sessions',
  'analytics_events',
  'user_file_stats',
  'file_metadata',
  'file_versions',
  'cache_entries',
  'component_usage',
  'builder_pages',
  'content_posts',
  'media_files',
];

// What stood before, and has to be there afterwards.
const ORIGINALS = ['profiles', 'posts', 'comments'];

// One wait for a lock: meanwhile everybody who wants the table queues up behind us, so it is short and repeated.
const LOCK_TIMEOUT_MS = 2_000;
const STATEMENT_TIMEOUT_MS = 30_000;
// All tries together. Keep the rung's `timeout` longer than this.
const GIVE_UP_AFTER_MS = Number(process.env.ROLLBACK_GIVE_UP_AFTER_MS ?? 60_000);

const LOCK_NOT_AVAILABLE = '55P03';
const DEADLOCK_DETECTED = '40P01';

/** A failure whose words are for people, and need no more. */
class Refused extends Error {}

const quoted = (name) => `"${name.replaceAll('"', '""')}"`;
const sql = (table) => `${quoted(SCHEMA)}.${quoted(table)}`;

/** The tables of a list that exist, in its order. Anything but a table under such a name is a reason to stop. */
async function existing(client, tables) {
  const { rows } = await client.query(
    `select c.relname::text as name, c.relkind::text as kind
     from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where n.nspname = $1 and c.relname = any ($2::text[])`,
    [SCHEMA, tables],
  );
  const strange = rows.filter(({ kind }) => !['r', 'p'].includes(kind)).map(({ name }) => name);
  if (strange.length > 0) {
    throw new Refused(`not a table: ${strange.join(', ')}`);
  }
  const found = new Set(rows.map(({ name }) => name));
  return tables.filter((table) => found.has(table));
}

/** The rows of each table, exactly; the numbers are text, because they may be larger than a JavaScript number. */
async function counts(client, tables) {
  const counted = new Map();
  for (const table of tables) {
    const { rows } = await client.query(`select count(*)::text as rows from ${sql(table)}`);
    counted.set(table, rows[0].rows);
  }
  return counted;
}

async function requireOriginals(client) {
  const there = await existing(client, ORIGINALS);
  const missing = ORIGINALS.filter((table) => !there.includes(table));
  if (missing.length > 0) {
    throw new Refused(`original tables are missing: ${missing.join(', ')}`);
  }
}

/** One try, in one transaction. Gives back what was dropped, with the rows that went along. */
async function attempt(client) {
  await client.query('begin');
  try {
    await client.query(`set local lock_timeout = ${LOCK_TIMEOUT_MS}`);
    await client.query(`set local statement_timeout = ${STATEMENT_TIMEOUT_MS}`);
    await requireOriginals(client);
    const tables = await existing(client, TABLES);
    let dropped = new Map();
    if (tables.length > 0) {
      const list = tables.map(sql).join(', ');
      // Under the locks the counts stay true until the tables are gone.
      await client.query(`lock table ${list} in access exclusive mode`);
      dropped = await counts(client, tables);
      // One statement, so that tables that refer to each other go together in any order.
      await client.query(`drop table ${list} restrict`);
    }
    await requireOriginals(client);
    await client.query('commit');
    return dropped;
  } catch (error) {
    // With the connection gone the server does this by itself.
    await client.query('rollback').catch(() => {});
    throw error;
  }
}

/** Tries until it is done, something stands in the way, or the time is up. */
async function drop(client) {
  const ends = Date.now() + GIVE_UP_AFTER_MS;
  for (let number = 1, wait = 250; ; number += 1, wait = Math.min(wait * 2, 5_000)) {
    try {
      return await attempt(client);
    } catch (error) {
      const blocked = [LOCK_NOT_AVAILABLE, DEADLOCK_DETECTED].includes(error.code);
      if (!blocked || Date.now() + wait >= ends) {
        throw error;
      }
      console.log(`try ${number}: a lock is not to be had (${error.message}); trying again in ${wait} ms`);
      await pause(wait);
    }
  }
}

async function main() {
  const connectionString = process.env.DATABASE_URL;
  if (!connectionString) {
    console.error('DATABASE_URL is not set: postgres://user@host/database');
    return 64;
  }
  const both = TABLES.filter((table) => ORIGINALS.includes(table));
  if (both.length > 0) {
    console.error(`these are listed as new and as original: ${both.join(', ')}`);
    return 64;
  }
  const client = new pg.Client({
    connectionString,
    application_name: 'rollback-emergency',
    connectionTimeoutMillis: 10_000,
    // Longer than the server's own limits: it only ends when the server does not answer any more.
    query_timeout: STATEMENT_TIMEOUT_MS + 10_000,
    keepAlive: true,
  });
  // A connection that breaks fails the query that waits for it; without this it would end the process first.
  client.on('error', () => {});
  try {
    await client.connect();
    await client.query(`set statement_timeout = ${STATEMENT_TIMEOUT_MS}`);
    // Row security would count fewer rows than there are; this makes it an error instead.
    await client.query('set row_security = off');
    const dropped = await drop(client);
    for (const [table, rows] of dropped) {
      console.log(`dropped ${SCHEMA}.${table}: ${rows} rows`);
    }
    // Looked at again, as everybody else sees it now.
    const left = await existing(client, TABLES);
    if (left.length > 0) {
      throw new Refused(`still there: ${left.join(', ')}`);
    }
    await requireOriginals(client);
    for (const [table, rows] of await counts(client, ORIGINALS)) {
      console.log(`original ${SCHEMA}.${table}: ${rows} rows`);
    }
    console.log(dropped.size > 0 ? `done: ${dropped.size} ${dropped.size === 1 ? 'table' : 'tables'} dropped` : 'done: there was nothing to drop');
    return 0;
  } catch (error) {
    // Never the connection string: it holds the password.
    const code = error.code ? ` (${error.code})` : '';
    if (error.detail) {
      console.error(error.detail);
    }
    console.error(`failed${code}: ${error.message || error}`);
    return 1;
  } finally {
    await client.end().catch(() => {});
  }
}

process.exitCode = await main();
