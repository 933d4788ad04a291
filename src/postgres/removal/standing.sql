-- What depends on the relations $1 and the functions $2, directly or through others: kind, schema, what it is a part of,
-- name, as the catalog names them. A view depends through its rule.
with recursive standing (classid, objid) as (
    select 'pg_class'::regclass::oid, unnest($1::oid[])
    union
    select 'pg_proc'::regclass::oid, unnest($2::oid[])
    union
    select case when w.oid is null then d.classid else 'pg_class'::regclass::oid end, coalesce(w.ev_class, d.objid)
    from standing s
    join pg_depend d on d.refclassid = s.classid and d.refobjid = s.objid and d.deptype in ('n', 'a')
    left join pg_rewrite w on d.classid = 'pg_rewrite'::regclass and w.oid = d.objid
),
relation as (
    select c.oid, n.nspname::text as schema, c.relname::text as name, c.relkind
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
)
select case r.relkind when 'v' then 'view' else 'materialized view' end, r.schema, null::text, r.name
from standing s join relation r on s.classid = 'pg_class'::regclass and r.oid = s.objid and r.relkind in ('v', 'm')
where not (r.oid = any($1::oid[]))
union all
select 'index', r.schema, r.name, x.name
from standing s join pg_index i on s.classid = 'pg_class'::regclass and i.indexrelid = s.objid
join relation r on r.oid = i.indrelid join relation x on x.oid = i.indexrelid
union all
select 'function', n.nspname::text, null, format('%s(%s)', p.proname, oidvectortypes(p.proargtypes))
from standing s join pg_proc p on s.classid = 'pg_proc'::regclass and p.oid = s.objid
join pg_namespace n on n.oid = p.pronamespace
where not (p.oid = any($2::oid[]))
union all
select 'trigger', r.schema, r.name, t.tgname::text
from standing s join pg_trigger t on s.classid = 'pg_trigger'::regclass and t.oid = s.objid join relation r on r.oid = t.tgrelid
union all
select 'policy', r.schema, r.name, p.polname::text
from standing s join pg_policy p on s.classid = 'pg_policy'::regclass and p.oid = s.objid join relation r on r.oid = p.polrelid
union all
select 'constraint', r.schema, r.name, c.conname::text
from standing s join pg_constraint c on s.classid = 'pg_constraint'::regclass and c.oid = s.objid
join relation r on r.oid = c.conrelid
union all
select 'default', r.schema, r.name, a.attname::text
from standing s join pg_attrdef d on s.classid = 'pg_attrdef'::regclass and d.oid = s.objid
join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum and a.attgenerated = ''
join relation r on r.oid = d.adrelid
