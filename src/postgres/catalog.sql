-- Every object of every schema that is neither the system's, nor an extension's, nor one of ours: kind, schema, what it
-- is a part of, name, definition, the statements that make it (null: the definition is one; none: it cannot be made),
-- the statement that takes it away, its number and, for a column, its place. All definitions are the server's own
-- words. The relations $1 are left out, with all that belongs to them.
with schemas as (
    select oid, nspname::text as schema, nspowner, nspacl
    from pg_namespace
    where nspname !~ '^pg_' and nspname <> 'information_schema'
      and nspname !~ '^rollbackd_([0-9]{8}t[0-9]{6}z|gate|restore)$'
),
of_extension as (
    select classid, objid from pg_depend where deptype = 'e' and objsubid = 0
),
relation as (
    select c.*, s.schema, format('%I.%I', s.schema, c.relname) as sql,
        case c.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'S' then 'sequence'
                       when 'f' then 'foreign table' else 'table' end as keyword
    from pg_class c
    join schemas s on s.oid = c.relnamespace
    where not (c.oid = any($1::oid[]))
      -- An identity column's sequence belongs to the column.
      and not (c.relkind = 'S' and exists (
          select from pg_depend i
          where i.classid = 'pg_class'::regclass and i.objid = c.oid and i.deptype = 'i' and i.refobjsubid > 0))
      and not exists (select from of_extension e where e.classid = 'pg_class'::regclass and e.objid = c.oid)
),
attribute as (
    select r.sql, r.keyword, r.schema, r.relname::text as part_of, r.relkind, a.*, format_type(a.atttypid, a.atttypmod) as type,
        case when a.attcollation <> 0 and a.attcollation <> t.typcollation then a.attcollation::regcollation::text end as collation_name,
        pg_get_expr(d.adbin, d.adrelid) as expression
    from relation r
    join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
    join pg_type t on t.oid = a.atttypid
    left join pg_attrdef d on d.adrelid = r.oid and d.adnum = a.attnum
    where r.relkind in ('r', 'p', 'f', 'v')
),
sequences as (
    select r.*, q.*, d.refobjid::regclass::text as owner_table, quote_ident(a.attname) as owner_column
    from relation r
    join pg_sequence q on q.seqrelid = r.oid
    left join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = r.oid and d.refclassid = 'pg_class'::regclass
        and d.deptype = 'a' and d.refobjsubid > 0
    left join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
    where r.relkind = 'S'
),
routine as (
    select p.*, s.schema, format('%s(%s)', p.proname, oidvectortypes(p.proargtypes)) as name, p.oid::regprocedure::text as sql
    from pg_proc p
    join schemas s on s.oid = p.pronamespace
    where not exists (select from of_extension e where e.classid = 'pg_proc'::regclass and e.objid = p.oid)
      -- The constructors of a range type belong to the type.
      and not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'i')
),
type as (
    select t.*, s.schema, format('%I.%I', s.schema, t.typname) as sql
    from pg_type t
    join schemas s on s.oid = t.typnamespace
    left join pg_class c on c.oid = t.typrelid
    where (t.typtype in ('e', 'd', 'r') or (t.typtype = 'c' and c.relkind = 'c'))
      and not exists (select from of_extension e where e.classid = 'pg_type'::regclass and e.objid = t.oid)
),
-- What can be granted, with what it is granted when nobody said anything.
grantable as (
    select schema, relname::text as part_of, case when relkind = 'S' then 'sequence' else 'table' end as keyword, sql, '' as suffix,
        '' as columns, coalesce(relacl, acldefault(case when relkind = 'S' then 's' else 'r' end::"char", relowner)) as acl
    from relation where relkind in ('r', 'p', 'f', 'v', 'm', 'S')
    union all
    select schema, part_of, 'table', sql, ' on column ' || attname, format(' (%I)', attname), attacl from attribute where attacl is not null
    union all
    select schema, name, 'routine', sql, ' on function', '', coalesce(proacl, acldefault('f', proowner)) from routine
    union all
    select schema, typname::text, 'type', sql, ' on type', '', coalesce(typacl, acldefault('T', typowner)) from type
    union all
    select schema, schema, 'schema', format('%I', schema), ' on schema', '', coalesce(nspacl, acldefault('n', nspowner)) from schemas
),
granted as (
    select g.schema, g.part_of, g.keyword, g.sql, g.suffix, g.columns, a.grantee, a.is_grantable,
        string_agg(lower(a.privilege_type) || g.columns, ', ' order by a.privilege_type) as privileges
    from grantable g
    cross join lateral aclexplode(g.acl) a
    group by 1, 2, 3, 4, 5, 6, 7, 8
),
owned as (
    select schema, relname::text as part_of, '' as suffix, keyword, sql, relowner as owner from relation r
    where relkind in ('r', 'p', 'f', 'v', 'm')
       or relkind = 'S' and exists (select from sequences q where q.oid = r.oid and q.owner_table is null)
    union all
    select schema, name, ' on function', case prokind when 'a' then 'aggregate' else 'routine' end, sql, proowner from routine
    union all
    select schema, typname::text, ' on type', case typtype when 'd' then 'domain' else 'type' end, sql, typowner from type
    union all
    select schema, schema, ' on schema', 'schema', format('%I', schema), nspowner from schemas
),
described as (
    select schema, relname::text as part_of, keyword as subject, keyword || ' ' || sql as target, 'pg_class'::regclass::oid as classid, oid as objid, 0 as objsubid
    from relation where relkind in ('r', 'p', 'f', 'v', 'm', 'S')
    union all
    select schema, part_of, 'column ' || attname, format('column %s.%I', sql, attname), 'pg_class'::regclass, attrelid, attnum from attribute
    union all
    select schema, name, 'function', 'routine ' || sql, 'pg_proc'::regclass, oid, 0 from routine
    union all
    select schema, typname::text, 'type', case typtype when 'd' then 'domain ' else 'type ' end || sql, 'pg_type'::regclass, oid, 0 from type
    union all
    select schema, schema, 'schema', format('schema %I', schema), 'pg_namespace'::regclass, oid, 0 from schemas
    union all
    select r.schema, r.relname, 'constraint ' || c.conname, format('constraint %I on %s', c.conname, r.sql), 'pg_constraint'::regclass, c.oid, 0
    from relation r join pg_constraint c on c.conrelid = r.oid
    union all
    select r.schema, r.relname, 'trigger ' || t.tgname, format('trigger %I on %s', t.tgname, r.sql), 'pg_trigger'::regclass, t.oid, 0
    from relation r join pg_trigger t on t.tgrelid = r.oid and not t.tgisinternal
    union all
    select r.schema, r.relname, 'policy ' || p.polname, format('policy %I on %s', p.polname, r.sql), 'pg_policy'::regclass, p.oid, 0
    from relation r join pg_policy p on p.polrelid = r.oid
    union all
    select r.schema, r.relname, 'index ' || x.relname, format('index %I.%I', r.schema, x.relname), 'pg_class'::regclass, x.oid, 0
    from relation r join pg_index i on i.indrelid = r.oid join pg_class x on x.oid = i.indexrelid
)

select case r.relkind when 'f' then 'foreign_table' else 'table' end as kind, r.schema, null::text as part_of,
    r.relname::text as name,
    concat_ws('; ',
        case r.relpersistence when 'u' then 'unlogged' else 'logged' end,
        'partitioned by ' || case when r.relkind = 'p' then pg_get_partkeydef(r.oid) end,
        (select string_agg(case when r.relispartition then 'partition of ' else 'inherits ' end || i.inhparent::regclass::text,
                           ', ' order by i.inhseqno) from pg_inherits i where i.inhrelid = r.oid),
        case when r.relispartition then pg_get_expr(r.relpartbound, r.oid) end,
        'of type ' || case when r.reloftype <> 0 then r.reloftype::regtype::text end,
        case r.relreplident when 'f' then 'replica identity full' when 'n' then 'replica identity nothing'
             when 'i' then 'replica identity index' end,
        'with ' || array_to_string(r.reloptions, ', '),
        (select 'server ' || quote_ident(fs.srvname) || coalesce(' options ' || array_to_string(ft.ftoptions, ', '), '')
         from pg_foreign_table ft join pg_foreign_server fs on fs.oid = ft.ftserver where ft.ftrelid = r.oid)
    ) as definition,
    array[]::text[] as make, null::text as unmake, r.oid as number, 0::int4 as place
from relation r
where r.relkind in ('r', 'p', 'f')

union all
select case r.relkind when 'v' then 'view' else 'materialized_view' end, r.schema, null, r.relname::text,
    format('create %s %s%s as%s%s', case r.relkind when 'v' then 'or replace view' else 'materialized view' end, r.sql,
        ' with (' || array_to_string(r.reloptions, ', ') || ')', chr(10), rtrim(pg_get_viewdef(r.oid), ';')),
    null, format('drop %s %s', r.keyword, r.sql), r.oid, 0
from relation r
where r.relkind in ('v', 'm')

union all
select 'sequence', q.schema, null, q.relname::text,
    concat_ws('; ',
        format('%s start %s increment %s minimum %s maximum %s cache %s', q.seqtypid::regtype, q.seqstart, q.seqincrement,
               q.seqmin, q.seqmax, q.seqcache),
        case when q.seqcycle then 'cycle' end,
        'owned by ' || q.owner_table || '.' || q.owner_column),
    array_remove(array[
        format('create sequence if not exists %s', q.sql),
        format('alter sequence %s as %s start %s increment %s minvalue %s maxvalue %s cache %s %s owned by %s', q.sql,
            q.seqtypid::regtype, q.seqstart, q.seqincrement, q.seqmin, q.seqmax, q.seqcache,
            case when q.seqcycle then 'cycle' else 'no cycle' end,
            coalesce(q.owner_table || '.' || q.owner_column, 'none')),
        -- Made anew it goes on behind all that was ever given out.
        case when last.value is not null then
            format('select pg_catalog.setval(%L, %s((select last_value from %s), %s%s))', q.sql,
                case when q.seqincrement < 0 then 'least' else 'greatest' end, q.sql, last.value,
                ', (select ' || case when q.seqincrement < 0 then 'min' else 'max' end || '(' || q.owner_column || ')::bigint from '
                || q.owner_table || ')') end
    ], null),
    format('drop sequence %s', q.sql), q.oid, 0
from sequences q
cross join lateral (select case when has_sequence_privilege(q.oid, 'select') then pg_sequence_last_value(q.oid) end as value) last

union all
-- The type comes first, and ends at the first `; `: that is what `column_type` relies on.
select 'column', a.schema, a.part_of, a.attname::text,
    concat_ws('; ', a.type, 'collate ' || a.collation_name,
        case a.attidentity when 'a' then 'generated always as identity' when 'd' then 'generated by default as identity' end,
        case when a.attgenerated <> '' then 'generated as ' || a.expression end),
    array[concat_ws(' ', quote_ident(a.attname), a.type, 'collate ' || a.collation_name,
        case a.attidentity when 'a' then 'generated always as identity' when 'd' then 'generated by default as identity' end,
        case when a.attgenerated <> '' then 'generated always as (' || a.expression || ') stored' end)],
    case when a.attislocal and a.attinhcount = 0 then format('alter %s %s drop column %I', a.keyword, a.sql, a.attname) end,
    a.attrelid, a.attnum
from attribute a
where a.relkind in ('r', 'p', 'f')

union all
select 'default', a.schema, a.part_of, a.attname::text, a.expression,
    array[format('alter %s %s alter column %I set default %s', a.keyword, a.sql, a.attname, a.expression)],
    format('alter %s %s alter column %I drop default', a.keyword, a.sql, a.attname), 0, 0
from attribute a
where a.expression is not null and a.attgenerated = ''

union all
select 'not_null', a.schema, a.part_of, a.attname::text, 'not null',
    array[format('alter %s %s alter column %I set not null', a.keyword, a.sql, a.attname)],
    format('alter %s %s alter column %I drop not null', a.keyword, a.sql, a.attname), 0, 0
from attribute a
where a.attnotnull and a.attinhcount = 0 and a.attidentity = '' and a.relkind in ('r', 'p', 'f')

union all
select 'constraint', r.schema, r.relname::text, c.conname::text, pg_get_constraintdef(c.oid),
    array[format('alter %s %s add constraint %I %s', r.keyword, r.sql, c.conname, pg_get_constraintdef(c.oid))],
    format('alter %s %s drop constraint %I', r.keyword, r.sql, c.conname), c.oid, 0
from relation r
join pg_constraint c on c.conrelid = r.oid
-- Constraint triggers are triggers, what `n` says (from version 18 on) is in the column, and copies come with what they
-- were copied from.
where r.relkind in ('r', 'p', 'f') and c.contype not in ('t', 'n') and c.conparentid = 0 and c.conislocal

union all
select 'index', r.schema, r.relname::text, x.relname::text,
    pg_get_indexdef(i.indexrelid) || case when i.indisvalid then '' else '; not valid' end,
    -- Of a partitioned table the server describes the index without its parts.
    array[replace(pg_get_indexdef(i.indexrelid), ' ON ONLY ' || r.sql || ' ', ' ON ' || r.sql || ' ')],
    format('drop index %I.%I', r.schema, x.relname), x.oid, 0
from relation r
join pg_index i on i.indrelid = r.oid
join pg_class x on x.oid = i.indexrelid
where r.relkind in ('r', 'p', 'm') and not x.relispartition
  and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = i.indexrelid
                    and d.refclassid = 'pg_constraint'::regclass and d.deptype = 'i')

union all
select 'trigger', r.schema, r.relname::text, t.tgname::text,
    pg_get_triggerdef(t.oid) || case t.tgenabled when 'O' then '' when 'D' then '; disabled' when 'R' then '; on replicas'
                                                 else '; always' end,
    array_remove(array[pg_get_triggerdef(t.oid),
        case when t.tgenabled <> 'O' then format('alter table %s %s trigger %I', r.sql,
            case t.tgenabled when 'D' then 'disable' when 'R' then 'enable replica' else 'enable always' end, t.tgname) end], null),
    format('drop trigger %I on %s', t.tgname, r.sql), t.oid, 0
from relation r
join pg_trigger t on t.tgrelid = r.oid and not t.tgisinternal and t.tgparentid = 0

union all
select 'policy', r.schema, r.relname::text, p.polname::text,
    concat_ws(' ', p.permissive, p.command, 'to ' || p.roles, p.qual, p.with_check),
    array[concat_ws(' ', format('create policy %I on %s as %s for %s', p.polname, r.sql, p.permissive, p.command),
        'to ' || p.roles, p.qual, p.with_check)],
    format('drop policy %I on %s', p.polname, r.sql), p.oid, 0
from relation r
join (select oid, polrelid, polname, case when polpermissive then 'permissive' else 'restrictive' end as permissive,
          case polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update' when 'd' then 'delete' else 'all' end as command,
          (select string_agg(case when o = 0 then 'public' else o::regrole::text end, ', ' order by o) from unnest(polroles) o) as roles,
          'using (' || pg_get_expr(polqual, polrelid) || ')' as qual,
          'with check (' || pg_get_expr(polwithcheck, polrelid) || ')' as with_check
      from pg_policy) p on p.polrelid = r.oid

union all
select 'row_security', r.schema, r.relname::text, 'row security',
    concat_ws(', ', case when r.relrowsecurity then 'on' else 'off' end, case when r.relforcerowsecurity then 'forced' end),
    array[format('alter table %s %s row level security', r.sql, case when r.relrowsecurity then 'enable' else 'disable' end),
          format('alter table %s %s row level security', r.sql, case when r.relforcerowsecurity then 'force' else 'no force' end)],
    null, 0, 0
from relation r
where r.relkind in ('r', 'p')

union all
select 'rule', r.schema, r.relname::text, w.rulename::text,
    pg_get_ruledef(w.oid), null, format('drop rule %I on %s', w.rulename, r.sql), 0, 0
from relation r
join pg_rewrite w on w.ev_class = r.oid and w.rulename <> '_RETURN'

union all
select 'statistics', r.schema, r.relname::text, format('%I.%I', n.nspname, s.stxname), pg_get_statisticsobjdef(s.oid),
    null, format('drop statistics %I.%I', n.nspname, s.stxname), s.oid, 0
from relation r
join pg_statistic_ext s on s.stxrelid = r.oid
join pg_namespace n on n.oid = s.stxnamespace

union all
select 'function', p.schema, null, p.name,
    case p.prokind
        when 'a' then (select format('aggregate returns %s kind %s step %s final %s state %s initial %L', p.prorettype::regtype,
                              g.aggkind, g.aggtransfn, g.aggfinalfn, g.aggtranstype::regtype, g.agginitval)
                       from pg_aggregate g where g.aggfnoid = p.oid)
        else pg_get_functiondef(p.oid)
    end,
    case p.prokind when 'a' then array[]::text[] end, 'drop routine ' || p.sql, p.oid, 0
from routine p

union all
select 'type', t.schema, null, t.typname::text,
    case t.typtype
        when 'e' then 'enum ' || parts.list
        when 'd' then concat_ws('; ', 'domain ' || format_type(t.typbasetype, t.typtypmod),
                                case when t.typnotnull then 'not null' end, 'default ' || t.typdefault, parts.list)
        when 'r' then (select format('range of %s', g.rngsubtype::regtype) from pg_range g where g.rngtypid = t.oid)
        else 'composite ' || parts.list
    end,
    case t.typtype
        when 'e' then array[format('create type %s as enum (%s)', t.sql, parts.list)]
        when 'd' then array[concat_ws(' ', format('create domain %s as %s', t.sql, format_type(t.typbasetype, t.typtypmod)),
                                'default ' || t.typdefault, case when t.typnotnull then 'not null' end, parts.making)]
        when 'c' then array[format('create type %s as (%s)', t.sql, parts.list)]
        else array[]::text[]
    end,
    format('drop %s %s', case t.typtype when 'd' then 'domain' else 'type' end, t.sql), t.oid, 0
from type t
cross join lateral (
    select case t.typtype
        when 'e' then coalesce((select string_agg(quote_literal(e.enumlabel), ', ' order by e.enumsortorder)
                                from pg_enum e where e.enumtypid = t.oid), '')
        when 'd' then (select string_agg(format('%I %s', c.conname, pg_get_constraintdef(c.oid)), '; ' order by c.conname)
                       from pg_constraint c where c.contypid = t.oid and c.contype <> 'n')
        else coalesce((select string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' order by a.attnum)
                       from pg_attribute a where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped), '')
        end as list,
        (select string_agg(format('constraint %I %s', c.conname, pg_get_constraintdef(c.oid)), ' ' order by c.conname)
         from pg_constraint c where c.contypid = t.oid and c.contype <> 'n') as making
) parts

union all
select 'schema', s.schema, null, s.schema, 'schema', array[format('create schema %I', s.schema)], format('drop schema %I', s.schema), s.oid, 0
from schemas s
where not exists (select from of_extension e where e.classid = 'pg_namespace'::regclass and e.objid = s.oid)

union all
select 'extension', n.nspname::text, null, x.extname::text, 'version ' || x.extversion,
    array[format('create extension %I with schema %I version %L', x.extname, n.nspname, x.extversion)],
    -- One that stores rows of its own stays.
    case when not exists (select from pg_depend d join pg_class c on c.oid = d.objid and c.relkind in ('r', 'p')
                          where d.classid = 'pg_class'::regclass and d.deptype = 'e' and d.refclassid = 'pg_extension'::regclass
                            and d.refobjid = x.oid)
         then format('drop extension %I', x.extname) end, x.oid, 0
from pg_extension x
join pg_namespace n on n.oid = x.extnamespace

union all
select 'grant', g.schema, g.part_of, 'to ' || g.grantee_name || g.suffix || case when g.is_grantable then ', to pass on' else '' end, g.privileges,
    array[format('grant %s on %s %s to %s%s', g.privileges, g.keyword, g.sql, g.grantee_sql, case when g.is_grantable then ' with grant option' end)],
    case when g.is_grantable then format('revoke grant option for %s on %s %s from %s', g.privileges, g.keyword, g.sql, g.grantee_sql)
         else format('revoke %s on %s %s from %s', g.privileges, g.keyword, g.sql, g.grantee_sql) end, 0, 0
from (select *, case when grantee = 0 then 'public' else pg_get_userbyid(grantee)::text end as grantee_name,
          case when grantee = 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end as grantee_sql from granted) g

union all
select 'default_grant', coalesce(d.schema, ''), null,
    format('to %s for %s on %s%s', case when d.grantee = 0 then 'public' else pg_get_userbyid(d.grantee)::text end,
           pg_get_userbyid(d.role), d.what, case when d.is_grantable then ', to pass on' else '' end), d.privileges,
    array[concat_ws(' ', d.sql, format('grant %s on %s to %s', d.privileges, d.what, d.grantee_sql), case when d.is_grantable then 'with grant option' end)],
    concat_ws(' ', d.sql, format('revoke %s on %s from %s', d.privileges, d.what, d.grantee_sql)), 0, 0
from (
    select s.schema, x.defaclrole as role, a.grantee, a.is_grantable,
        case x.defaclobjtype when 'r' then 'tables' when 'S' then 'sequences' when 'f' then 'functions' when 'T' then 'types' else 'schemas' end as what,
        concat_ws(' ', format('alter default privileges for role %I', pg_get_userbyid(x.defaclrole)), 'in schema ' || quote_ident(s.schema)) as sql,
        case when a.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end as grantee_sql,
        string_agg(lower(a.privilege_type), ', ' order by a.privilege_type) as privileges
    from pg_default_acl x
    left join schemas s on s.oid = x.defaclnamespace
    cross join lateral aclexplode(x.defaclacl) a
    where x.defaclnamespace = 0 or s.oid is not null
    group by 1, 2, 3, 4, 5, 6, 7
) d

union all
select 'owner', o.schema, o.part_of, 'owner' || o.suffix, pg_get_userbyid(o.owner)::text,
    array[format('alter %s %s owner to %I', o.keyword, o.sql, pg_get_userbyid(o.owner))], null, 0, 0
from owned o

union all
select 'comment', d.schema, d.part_of, 'on ' || d.subject, c.description,
    array[format('comment on %s is %L', d.target, c.description)], format('comment on %s is null', d.target), 0, 0
from described d
join pg_description c on c.classoid = d.classid and c.objoid = d.objid and c.objsubid = d.objsubid

union all
select 'publication', '', null, p.pubname::text, concat_ws(' ', case when p.puballtables then 'all tables' end, p.publish, p.via_root),
    array[concat_ws(' ', format('create publication %I', p.pubname), case when p.puballtables then 'for all tables' end,
        format('with (publish = %L, publish_via_partition_root = %s)', p.publish, case when p.pubviaroot then 'true' else 'false' end))],
    format('drop publication %I', p.pubname), p.oid, 0
from (select *, concat_ws(', ', case when pubinsert then 'insert' end, case when pubupdate then 'update' end,
          case when pubdelete then 'delete' end, case when pubtruncate then 'truncate' end) as publish,
          case when pubviaroot then 'via the partition root' end as via_root from pg_publication) p

union all
select 'publication_table', r.schema, r.relname::text, p.pubname::text, concat_ws(' ', 'table', t.columns, t.filter),
    array[concat_ws(' ', format('alter publication %I add table %s', p.pubname, r.sql), t.columns, t.filter)],
    format('alter publication %I drop table %s', p.pubname, r.sql), 0, 0
from relation r
join pg_publication_rel x on x.prrelid = r.oid
join pg_publication p on p.oid = x.prpubid
-- Column lists and row filters came with version 15.
left join lateral (
    select '(' || (select string_agg(quote_ident(c), ', ') from jsonb_array_elements_text(v.j -> 'attnames') c) || ')' as columns,
        'where (' || (v.j ->> 'rowfilter') || ')' as filter
    from (select to_jsonb(t) as j from pg_publication_tables t
          where t.pubname = p.pubname and t.schemaname = r.schema and t.tablename = r.relname) v
    where to_jsonb(x) ->> 'prattrs' is not null or v.j ->> 'rowfilter' is not null
) t on true

union all
select 'event_trigger', '', null, e.evtname::text,
    concat_ws(' ', 'on', e.evtevent, 'when tag in ' || e.tags, 'execute', e.evtfoid::regprocedure, case e.evtenabled when 'O' then '' else e.evtenabled::text end),
    array_remove(array[concat_ws(' ', format('create event trigger %I on %s', e.evtname, e.evtevent), 'when tag in ' || e.tags,
              'execute function ' || e.function),
          format('alter event trigger %I %s', e.evtname, case e.evtenabled when 'D' then 'disable' when 'R' then 'enable replica'
                 when 'A' then 'enable always' else 'enable' end)], null),
    format('drop event trigger %I', e.evtname), e.oid, 0
from (select t.*, (select format('%I.%I()', n.nspname, p.proname) from pg_proc p join pg_namespace n on n.oid = p.pronamespace where p.oid = t.evtfoid) as function,
          '(' || (select string_agg(quote_literal(g), ', ') from unnest(t.evttags) g) || ')' as tags
      from pg_event_trigger t) e
where not exists (select from of_extension x where x.classid = 'pg_event_trigger'::regclass and x.objid = e.oid)
