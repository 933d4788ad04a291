//! A database with the original tables, owned by a role that is no superuser.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use rollbackd::demo::cluster::Cluster;
use rollbackd_core::baseline::quote_identifier;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::runtime;

/// The tables that stood before.
pub(super) const ORIGINALS: [&str; 3] = ["profiles", "posts", "comments"];

const SCHEMA: &str = "
    create table profiles (id bigint generated always as identity primary key, email text not null unique);
    create table posts (
        id bigint generated always as identity primary key,
        author bigint not null references profiles (id),
        title text not null default 'untitled',
        body text
    );
    create table comments (
        id bigint generated always as identity primary key,
        post bigint not null references posts (id) on delete cascade,
        body text not null check (body <> '')
    );
    create index comments_of_post on comments (post);
    create view popular as select p.id, count(*) from posts p join comments c on c.post = p.id group by p.id;
    insert into profiles (email) select 'user' || n || '@shop.example' from generate_series(1, 5) n;
    insert into posts (author, title) select 1 + n % 5, 'post ' || n from generate_series(1, 20) n;
    insert into comments (post, body) select 1 + n % 20, 'comment ' || n from generate_series(1, 60) n;
";

/// Everything that must not change about an original: `columns`, `constraints`, `indexes`, `rows`, by table.
pub(crate) type Facts = BTreeMap<String, String>;

/// A database, and a session in it as its owner.
pub(crate) struct Database {
    name: String,
    url: String,
    port: u16,
    owner: String,
    password: &'static str,
    /// Where the superuser connects.
    admin: String,
    sitting: Sitting,
}

/// A session of a test's own.
pub(crate) struct Sitting(Client);

impl Sitting {
    fn open(url: &str) -> Self {
        let (client, connection) = runtime().block_on(tokio_postgres::connect(url, NoTls)).expect("connects");
        // It ends with its client, or when the server ends it.
        runtime().spawn(connection);
        Self(client)
    }

    /// Runs statements; the last column of each row, as text.
    #[track_caller]
    pub(crate) fn sql(&self, statements: &str) -> Vec<String> {
        self.ask(statements).unwrap_or_else(|error| panic!("{error}: {statements}"))
    }

    /// The same, when it may fail.
    pub(crate) fn ask(&self, statements: &str) -> Result<Vec<String>, String> {
        let work = async { tokio::time::timeout(super::PATIENCE, self.0.simple_query(statements)).await };
        let answer = runtime().block_on(work).map_err(|_elapsed| "no answer in time".to_owned())?;
        let messages = answer.map_err(|error| error.as_db_error().map_or(error.to_string(), ToString::to_string))?;
        let row = |message| {
            let SimpleQueryMessage::Row(row) = message else { return None };
            Some(row.get(row.len() - 1).unwrap_or_default().to_owned())
        };
        Ok(messages.into_iter().filter_map(row).collect())
    }

    /// The backend's process id, as `pg_stat_activity` and blockers name it.
    pub(crate) fn pid(&self) -> String {
        self.sql("select pg_backend_pid()").remove(0)
    }
}

impl Database {
    pub(super) fn create(cluster: &Cluster, stage: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{stage} {}", COUNT.fetch_add(1, Ordering::Relaxed));
        let (owner, password) = (format!("{name} owner"), "o'wner? s&cret");
        let (quoted, role) = (quote_identifier(&name), quote_identifier(&owner));
        let admin = cluster.url("postgres");
        let superuser = Sitting::open(&admin);
        superuser.sql(&format!("create role {role} login password '{}'", password.replace('\'', "''")));
        superuser.sql(&format!("create database {quoted} owner {role}"));
        let url = cluster.url_as(&owner, password, &name);
        let sitting = Sitting::open(&url);
        sitting.sql(SCHEMA);
        Self { name, url, port: cluster.port(), owner, password, admin, sitting }
    }

    /// Where rollbackd and the application connect, as the owner.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Runs statements as the owner; the last column of each row, as text.
    #[track_caller]
    pub(crate) fn sql(&self, statements: &str) -> Vec<String> {
        self.sitting.sql(statements)
    }

    /// Runs a query that gives one value.
    #[track_caller]
    pub(crate) fn value(&self, query: &str) -> String {
        let mut rows = self.sql(query);
        assert_eq!(rows.len(), 1, "{query}: {rows:?}");
        rows.remove(0)
    }

    /// The owner connects again, after the server was away.
    pub(super) fn come_back(&mut self) {
        self.sitting = Sitting::open(&self.url);
    }

    /// Another session as the owner, for holding locks.
    pub(crate) fn sit_down(&self) -> Sitting {
        Sitting::open(&self.url)
    }

    /// A session as the superuser.
    pub(crate) fn superuser(&self) -> Sitting {
        let (server, _) = self.admin.rsplit_once("/postgres?").unwrap();
        let name: String = url::form_urlencoded::byte_serialize(self.name.as_bytes()).collect();
        Sitting::open(&format!("{server}/{}?sslmode=disable", name.replace('+', "%20")))
    }

    /// The variables in which `psql` and `pg_dump` look.
    pub(super) fn environment(&self) -> BTreeMap<String, String> {
        [
            ("PGHOST", "127.0.0.1"),
            ("PGPORT", &self.port.to_string()),
            ("PGDATABASE", &self.name),
            ("PGUSER", &self.owner),
            ("PGPASSWORD", self.password),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// All tables of people's, as `schema.table`, in order.
    #[track_caller]
    pub(crate) fn tables(&self) -> Vec<String> {
        self.try_tables().unwrap()
    }

    /// The same, when the server may be gone.
    pub(super) fn try_tables(&self) -> Result<Vec<String>, String> {
        self.sitting.ask(
            "select schemaname || '.' || tablename from pg_tables
             where schemaname not in ('pg_catalog', 'information_schema') order by 1",
        )
    }

    /// The facts about the originals. One that is missing has none.
    pub(crate) fn facts(&self) -> Facts {
        let mut facts = Facts::new();
        for table in ORIGINALS {
            let oid = format!("to_regclass('public.{table}')");
            for (what, query) in [
                (
                    "columns",
                    format!(
                        "select string_agg(concat_ws(' ', attname, format_type(atttypid, atttypmod), attnotnull,
                            attidentity, pg_get_expr(adbin, adrelid)), ', ' order by attnum)
                         from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum
                         where attrelid = {oid} and attnum > 0 and not attisdropped"
                    ),
                ),
                (
                    "constraints",
                    format!(
                        "select string_agg(conname || ' ' || pg_get_constraintdef(oid), ', ' order by conname)
                         from pg_constraint where conrelid = {oid}"
                    ),
                ),
                (
                    "indexes",
                    format!(
                        "select string_agg(pg_get_indexdef(indexrelid), ', ' order by indexrelid)
                         from pg_index where indrelid = {oid}"
                    ),
                ),
            ] {
                facts.insert(format!("{table} {what}"), self.value(&query));
            }
            let rows = format!("select count(*) || ' ' || sum(hashtextextended(t::text, 0)::numeric) from {table} t");
            facts.insert(format!("{table} rows"), self.sitting.ask(&rows).map_or_else(|e| e, |rows| rows.concat()));
        }
        facts.insert("popular".to_owned(), self.value("select pg_get_viewdef('popular'::regclass)"));
        facts
    }

    /// Ends every session and removes the database and its role, if the server still answers.
    pub(super) fn remove(&self) {
        let (name, owner) = (quote_identifier(&self.name), quote_identifier(&self.owner));
        // A server that the test has stopped takes its databases with it.
        runtime().block_on(async {
            let Ok((client, connection)) = tokio_postgres::connect(&self.admin, NoTls).await else { return };
            let work = async {
                drop(client.batch_execute(&format!("drop database if exists {name} with (force)")).await);
                drop(client.batch_execute(&format!("drop role if exists {owner}")).await);
            };
            tokio::select! { () = work => {}, _ = connection => {} }
        });
    }
}
