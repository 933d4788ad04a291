//! Reads the server's catalog into the core's [`Catalog`], in one statement.
//!
//! The definitions are deparsed by the server, and how it writes names depends on `search_path`: the sessions of
//! [`Session::connect`](super::session::Session::connect) have none of the user's schemas in it, so every name is
//! qualified, always. Objects of extensions are left out, and so are quarantines of earlier windows.

use rollbackd_core::baseline::{Baseline, Catalog, Object, ObjectId, ObjectKind, TableIdentity, TableName};
use tokio_postgres::{GenericClient, Row};

use super::{Failure, during};

const DOING: &str = "reading the catalog";

/// The catalog as the client's transaction sees it, in order of the objects' ids.
pub async fn read(client: &impl GenericClient) -> Result<Catalog, Failure> {
    read_without(client, &[]).await
}

/// The catalog without these relations and what belongs to them: of thousands of new tables nothing need be known to
/// see what becomes of the rest.
pub(crate) async fn read_without(client: &impl GenericClient, relations: &[u32]) -> Result<Catalog, Failure> {
    let rows = client.query(include_str!("catalog.sql"), &[&relations]).await.map_err(during(DOING))?;
    let mut objects = rows.iter().map(object).collect::<Result<Vec<_>, _>>()?;
    objects.sort_by(|a, b| a.id.cmp(&b.id));
    objects.dedup_by(|a, b| a.id == b.id);
    Ok(Catalog { objects })
}

fn object(row: &Row) -> Result<Object, Failure> {
    let failed = |error| Failure::new(DOING, &error);
    let kind: &str = row.try_get(0).map_err(failed)?;
    let id = ObjectId {
        kind: kind_of(kind).ok_or_else(|| Failure::found(DOING, format!("unknown kind `{kind}`")))?,
        schema: row.try_get(1).map_err(failed)?,
        of: row.try_get(2).map_err(failed)?,
        name: row.try_get(3).map_err(failed)?,
    };
    // Absent when the object went away while the server described it.
    let definition: Option<String> = row.try_get(4).map_err(failed)?;
    Ok(Object {
        make: row.try_get(5).map_err(failed)?,
        unmake: row.try_get(6).map_err(failed)?,
        oid: row.try_get(7).map_err(failed)?,
        place: row.try_get::<_, i32>(8).map(|place| i16::try_from(place).unwrap_or(0)).map_err(failed)?,
        ..Object::new(id, definition.unwrap_or_default())
    })
}

fn kind_of(name: &str) -> Option<ObjectKind> {
    Some(match name {
        "table" => ObjectKind::Table,
        "foreign_table" => ObjectKind::ForeignTable,
        "view" => ObjectKind::View,
        "materialized_view" => ObjectKind::MaterializedView,
        "sequence" => ObjectKind::Sequence,
        "column" => ObjectKind::Column,
        "constraint" => ObjectKind::Constraint,
        "index" => ObjectKind::Index,
        "trigger" => ObjectKind::Trigger,
        "policy" => ObjectKind::Policy,
        "function" => ObjectKind::Function,
        "type" => ObjectKind::Type,
        "schema" => ObjectKind::Schema,
        "extension" => ObjectKind::Extension,
        "default" => ObjectKind::Default,
        "not_null" => ObjectKind::NotNull,
        "row_security" => ObjectKind::RowSecurity,
        "rule" => ObjectKind::Rule,
        "statistics" => ObjectKind::Statistics,
        "grant" => ObjectKind::Grant,
        "default_grant" => ObjectKind::DefaultGrant,
        "owner" => ObjectKind::Owner,
        "comment" => ObjectKind::Comment,
        "publication" => ObjectKind::Publication,
        "publication_table" => ObjectKind::PublicationTable,
        "event_trigger" => ObjectKind::EventTrigger,
        _ => return None,
    })
}

/// The numbers by which the server knows the tables, whatever their names become.
pub async fn identities(client: &impl GenericClient) -> Result<Vec<TableIdentity>, Failure> {
    let doing = "reading the tables' numbers";
    let sql = "select c.oid, n.nspname::text, c.relname::text from pg_class c \
               join pg_namespace n on n.oid = c.relnamespace \
               where c.relkind in ('r', 'p', 'f') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' \
               order by c.oid";
    let rows = client.query(sql, &[]).await.map_err(during(doing))?;
    rows.iter()
        .map(|row| {
            let table = TableName { schema: row.try_get(1)?, name: row.try_get(2)? };
            Ok(TableIdentity { oid: row.try_get(0)?, table })
        })
        .collect::<Result<_, _>>()
        .map_err(during(doing))
}

/// The server's version, as it says.
pub async fn server_version(client: &impl GenericClient) -> Result<String, Failure> {
    let doing = "asking for the server's version";
    let row = client.query_one("select current_setting('server_version')", &[]).await.map_err(during(doing))?;
    row.try_get(0).map_err(during(doing))
}

/// The server's major version.
pub async fn server_major(client: &impl GenericClient) -> Result<u32, Failure> {
    let doing = "asking for the server's version";
    let sql = "select current_setting('server_version_num')::int4 / 10000";
    let row = client.query_one(sql, &[]).await.map_err(during(doing))?;
    let major: i32 = row.try_get(0).map_err(during(doing))?;
    u32::try_from(major).map_err(|error| Failure::found(doing, error.to_string()))
}

/// The type at the start of a column's definition.
pub fn column_type(definition: &str) -> &str {
    let mut quoted = false;
    let end = definition.char_indices().find(|(at, character)| {
        quoted ^= *character == '"';
        !quoted && definition.get(*at..).is_some_and(|rest| rest.starts_with("; "))
    });
    end.and_then(|(at, _)| definition.get(..at)).unwrap_or(definition)
}

/// What our own change did to objects of the baseline, comparing the catalog before and after it: nothing, if all is
/// well. What the migration had already done to them is not counted.
pub(crate) fn harm(baseline: &Baseline, before: &Catalog, after: &Catalog) -> Vec<String> {
    let was = baseline.catalog.difference(before, &[]);
    let is = baseline.catalog.difference(after, &[]);
    let removed = is.removed.iter().filter(|id| !was.removed.contains(id)).map(|id| format!("{id} would be gone"));
    let changed = is
        .changed
        .iter()
        .filter(|change| !was.changed.contains(change))
        .map(|change| format!("{} would be changed", change.id));
    removed.chain(changed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::session::Session;
    use crate::postgres::testing::Fixture;

    #[test]
    fn a_type_ends_at_the_first_separator_outside_quotes() {
        assert_eq!(column_type("integer"), "integer");
        assert_eq!(column_type("timestamp with time zone; not null; default now()"), "timestamp with time zone");
        assert_eq!(column_type("public.\"odd; name\"; not null"), "public.\"odd; name\"");
    }

    #[test]
    fn harm_is_what_we_did_and_not_what_the_migration_did() {
        let object = |name: &str, definition: &str| {
            let id = ObjectId { kind: ObjectKind::View, schema: "public".to_owned(), of: None, name: name.to_owned() };
            Object::new(id, definition)
        };
        let catalog = |objects: &[(&str, &str)]| Catalog {
            objects: objects.iter().map(|(name, definition)| object(name, definition)).collect(),
        };
        let baseline = Baseline {
            format: Baseline::FORMAT,
            at: jiff::Timestamp::UNIX_EPOCH,
            server_version: String::new(),
            catalog: catalog(&[("a", "1"), ("b", "1"), ("c", "1")]),
            counts: Vec::new(),
            identities: Vec::new(),
            prints: Vec::new(),
        };
        // The migration changed b, dropped c and added d.
        let before = catalog(&[("a", "1"), ("b", "2"), ("d", "1")]);
        assert!(harm(&baseline, &before, &catalog(&[("a", "1"), ("b", "2")])).is_empty());
        assert!(harm(&baseline, &before, &catalog(&[("a", "1"), ("b", "1"), ("c", "1")])).is_empty());
        let done = harm(&baseline, &before, &catalog(&[("b", "3")]));
        assert_eq!(done, ["view public.a would be gone", "view public.b would be changed"]);
    }

    async fn definitions(fixture: &Fixture) -> Catalog {
        let session = Session::connect(&fixture.database()).await.expect("connects");
        read(session.client()).await.expect("a catalog")
    }

    #[tokio::test]
    async fn everything_is_read_in_order_with_raw_names() {
        let fixture = Fixture::new().await;
        fixture
            .sql(
                r#"create table "Order" (id bigserial primary key, "a""b" varchar(20) collate "C" not null default 'x', n int generated always as identity,
                     twice int generated always as (3 * 2) stored, check (length("a""b") > 0));
                   create index on "Order" ("a""b");
                   alter table "Order" enable row level security;
                   create policy "nur für alle" on "Order" as restrictive for select to public using (id > 0);
                   create function "f 🚀"(a int, b text) returns int language sql as 'select 1';
                   create aggregate total(int) (sfunc = int4pl, stype = int, initcond = '0');
                   create function touch() returns trigger language plpgsql as 'begin return new; end';
                   create trigger t before insert on "Order" for each row execute function touch();
                   create view v with (security_invoker = on) as select id from "Order";
                   create materialized view m as select id from "Order";
                   create index on m (id);
                   create type mood as enum ('sad', 'it''s ok');
                   create domain positive as int check (value > 0);
                   create type pair as (x int, y text);
                   create type span as range (subtype = int);
                   create sequence free;
                   create table parts (at date not null) partition by range (at);
                   create table parts_1 partition of parts for values from ('2026-01-01') to ('2027-01-01');
                   create schema "user"; create table "user"."table" (); create table "user"."select" (a "user"."table"[]);
                   create schema rollbackd_20261122t020000z; create table rollbackd_20261122t020000z.hidden ();
                   create temporary table hidden_too ();"#,
            )
            .await;
        let catalog = definitions(&fixture).await;
        assert!(catalog.objects.is_sorted_by(|a, b| a.id < b.id));
        let lines: Vec<String> =
            catalog.objects.iter().map(|object| format!("{} := {}", object.id, object.definition.trim())).collect();
        let has = |text: &str| assert!(lines.iter().any(|line| line == text), "{text}\nnot in\n{}", lines.join("\n"));
        has("table public.Order := logged");
        has("row security of public.Order := on");
        has(r#"column a"b of public.Order := character varying(20); collate "C""#);
        has(r#"not-null rule a"b of public.Order := not null"#);
        has(r#"default a"b of public.Order := 'x'::character varying"#);
        has(r#"default id of public.Order := nextval('public."Order_id_seq"'::regclass)"#);
        has("column n of public.Order := integer; generated always as identity");
        has("owner of public.Order := postgres");
        has("grant to postgres of public.Order := delete, insert, references, select, trigger, truncate, update");
        has("grant to public on function of public.touch() := execute");
        has("schema user := schema");
        has("extension plpgsql := version 1.0");
        has("column twice of public.Order := integer; generated as (3 * 2)");
        has("constraint Order_pkey of public.Order := PRIMARY KEY (id)");
        has(
            r#"index Order_a"b_idx of public.Order := CREATE INDEX "Order_a""b_idx" ON public."Order" USING btree ("a""b")"#,
        );
        has("policy nur für alle of public.Order := restrictive select to public using ((id > 0))");
        has(
            "trigger t of public.Order := CREATE TRIGGER t BEFORE INSERT ON public.\"Order\" FOR EACH ROW EXECUTE FUNCTION public.touch()",
        );
        has("type public.mood := enum 'sad', 'it''s ok'");
        has("type public.positive := domain integer; positive_check CHECK ((VALUE > 0))");
        has("type public.pair := composite x integer, y text");
        has("type public.span := range of integer");
        has(
            "table public.parts_1 := logged; partition of public.parts; FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
        );
        has("column a of user.select := \"user\".\"table\"[]");
        has(
            "sequence public.Order_id_seq := bigint start 1 increment 1 minimum 1 maximum 9223372036854775807 cache 1; owned by public.\"Order\".id",
        );
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with("function public.f 🚀(integer, text) := CREATE OR REPLACE FUNCTION"))
        );
        assert!(lines.iter().any(|line| line.starts_with("function public.total(integer) := aggregate")));
        assert!(lines.iter().any(|line| {
            line.starts_with("view public.v := create or replace view public.v with (security_invoker=on) as")
        }));
        assert!(
            !lines.iter().any(|line| line.contains("hidden") || line.contains("Order_n_seq")),
            "{}",
            lines.join("\n")
        );
        for object in &catalog.objects {
            assert!(catalog.contains(&object.id));
        }
    }

    #[tokio::test]
    async fn the_same_schema_reads_the_same_and_a_change_shows() {
        let fixture = Fixture::new().await;
        fixture.sql("create table posts (id int); create view recent as select id from posts").await;
        let before = definitions(&fixture).await;
        assert_eq!(before, definitions(&fixture).await);
        fixture
            .sql("create or replace view recent as select id from posts where id > 1; alter table posts add t text")
            .await;
        let difference = before.difference(&definitions(&fixture).await, &[]);
        assert_eq!(difference.summary(), "1 column added, 1 view changed");
    }
}
