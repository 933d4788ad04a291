-- Everything that would go along if the tables $1 were dropped with CASCADE: what it is, the relation it is a part
-- of, and how the server names it. What stands on the objects $2 only is left out: they are put back, and stay.
with recursive dependent(classid, objid, objsubid) as (
    select 'pg_class'::regclass::oid, o, 0 from unnest($1::oid[]) o
    union
    select next.classid, next.objid, next.objsubid
    from dependent x
    cross join lateral (
        select d.classid, d.objid, d.objsubid
        from pg_depend d
        where d.refclassid = x.classid and d.refobjid = x.objid
          and (x.objsubid = 0 or d.refobjsubid = x.objsubid)
          and d.deptype in ('n', 'a', 'i', 'P', 'S')
          and not (x.objid = any($2::oid[]))
        union all
        -- A view depends on tables through its rule.
        select 'pg_class'::regclass::oid, w.ev_class, 0
        from pg_rewrite w
        join pg_class v on v.oid = w.ev_class and v.relkind in ('v', 'm')
        where x.classid = 'pg_rewrite'::regclass and w.oid = x.objid
    ) next
)
select
    case
        when rel.relkind = 't' or tg.tgisinternal then 'internal'
        -- Copies of a partitioned table's own go with what they were copied from.
        when con.conparentid <> 0 or tg.tgparentid <> 0 or ic.relispartition then 'internal'
        when ty.typtype = 'm' or el.oid is not null and el.typrelid = 0 then 'internal'
        when x.classid = 'pg_constraint'::regclass and con.contypid <> 0 then 'type'
        when x.classid = 'pg_constraint'::regclass then case con.contype when 'f' then 'foreign_key' else 'constraint' end
        when x.classid = 'pg_attrdef'::regclass then case att.attgenerated when '' then 'default' else 'column' end
        when x.classid = 'pg_trigger'::regclass then 'trigger'
        when x.classid = 'pg_policy'::regclass then 'policy'
        when x.classid = 'pg_rewrite'::regclass then 'rule'
        when x.classid = 'pg_class'::regclass and ix.indexrelid is not null then 'index'
        when x.classid = 'pg_class'::regclass and x.objsubid > 0 then 'column'
        when x.classid = 'pg_class'::regclass then 'relation'
        when x.classid = 'pg_proc'::regclass then 'function'
        when x.classid = 'pg_type'::regclass and rel.oid is not null then 'relation'
        when x.classid = 'pg_type'::regclass then 'type'
        else 'other'
    end as what,
    rel.oid as relation_oid, rel.relkind::text as relation_kind, rn.nspname::text as relation_schema, rel.relname::text as relation_name,
    coalesce(con.conname, tg.tgname, pol.polname, rw.rulename, ic.relname, att.attname)::text as part,
    coalesce(pn.nspname, tn.nspname)::text as own_schema,
    case when p.oid is not null then format('%s(%s)', p.proname, oidvectortypes(p.proargtypes)) else ty.typname::text end as own_name,
    p.oid::regprocedure::text as routine,
    ty.typtype::text as type_kind,
    coalesce(p.oid, case when rel.relkind in ('v', 'm') then rel.oid end) as number,
    -- The column's table, for a sequence that belongs to a column.
    (select o.refobjid from pg_depend o
     where rel.relkind = 'S' and o.classid = 'pg_class'::regclass and o.objid = rel.oid
       and o.refclassid = 'pg_class'::regclass and o.refobjsubid > 0 and o.deptype in ('a', 'i') limit 1) as owner,
    pg_describe_object(x.classid, x.objid, x.objsubid) as words
from dependent x
left join pg_constraint con on x.classid = 'pg_constraint'::regclass and con.oid = x.objid
left join pg_attrdef ad on x.classid = 'pg_attrdef'::regclass and ad.oid = x.objid
left join pg_trigger tg on x.classid = 'pg_trigger'::regclass and tg.oid = x.objid
left join pg_policy pol on x.classid = 'pg_policy'::regclass and pol.oid = x.objid
left join pg_rewrite rw on x.classid = 'pg_rewrite'::regclass and rw.oid = x.objid
left join pg_index ix on x.classid = 'pg_class'::regclass and ix.indexrelid = x.objid
left join pg_class ic on ic.oid = ix.indexrelid
left join pg_statistic_ext st on x.classid = 'pg_statistic_ext'::regclass and st.oid = x.objid
left join pg_publication_rel pub on x.classid = 'pg_publication_rel'::regclass and pub.oid = x.objid
left join pg_proc p on x.classid = 'pg_proc'::regclass and p.oid = x.objid
left join pg_namespace pn on pn.oid = p.pronamespace
-- A domain's constraint stands for the domain.
left join pg_type ty on ty.oid = case when x.classid = 'pg_type'::regclass then x.objid else nullif(con.contypid, 0) end
left join pg_namespace tn on tn.oid = ty.typnamespace
-- By the number that has an index: an array type knows its element.
left join pg_type el on el.oid = ty.typelem and el.typarray = ty.oid
left join pg_class rel on rel.oid = coalesce(
    nullif(con.conrelid, 0), ad.adrelid, tg.tgrelid, pol.polrelid, rw.ev_class, ix.indrelid, st.stxrelid, pub.prrelid,
    nullif(ty.typrelid, 0), nullif(el.typrelid, 0), case when x.classid = 'pg_class'::regclass then x.objid end)
left join pg_namespace rn on rn.oid = rel.relnamespace
left join pg_attribute att on att.attrelid = rel.oid and att.attnum = coalesce(ad.adnum::int, nullif(x.objsubid, 0))
order by 1, 4, 5, 6, 7, 8, words
