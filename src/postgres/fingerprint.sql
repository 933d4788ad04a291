-- The columns of a table ($1, a quoted name): name, type, and whether the type's own hash tells different values apart.
-- A type that is made of others does so when all of them do.
with recursive part(attnum, type, blurred) as (
    select a.attnum, a.atttypid, coalesce(not c.collisdeterministic, false)
    from pg_attribute a
    left join pg_collation c on c.oid = a.attcollation
    where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped
      -- Computed when it is read, and so nothing that is stored.
      and a.attgenerated <> 'v'
    union
    select p.attnum, x.type, coalesce(not c.collisdeterministic, false)
    from part p
    join pg_type t on t.oid = p.type
    cross join lateral (
        select t.typbasetype, t.typcollation where t.typtype = 'd'
        union all
        select e.oid, e.typcollation from pg_type e where t.typtype = 'b' and e.oid = t.typelem and e.typarray = t.oid
        union all
        select a.atttypid, a.attcollation
        from pg_attribute a
        where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
        union all
        select r.rngsubtype, r.rngcollation from pg_range r where r.rngtypid = t.oid
    ) x(type, coll)
    left join pg_collation c on c.oid = x.coll
),
judged as (
    select p.attnum,
        not p.blurred and case t.typtype
            when 'd' then true
            when 'c' then true
            when 'r' then true
            when 'b' then
                exists (select from pg_type e where e.oid = t.typelem and e.typarray = t.oid)
                -- The server's own, with a hash that a record's hash can use.
                or t.oid < 16384 and t.oid <> 'interval'::regtype and exists (
                    select
                    from pg_opclass o
                    join pg_am m on m.oid = o.opcmethod and m.amname = 'hash'
                    join pg_amproc f on f.amprocfamily = o.opcfamily and f.amproclefttype = o.opcintype
                                    and f.amprocrighttype = o.opcintype and f.amprocnum = 2
                    where o.opcdefault
                      and (o.opcintype = t.oid
                           or exists (select from pg_cast c where c.castsource = t.oid and c.casttarget = o.opcintype
                                        and c.castmethod = 'b' and c.castcontext = 'i'))
                )
            else false
        end as by_value
    from part p
    join pg_type t on t.oid = p.type
)
select a.attname::text, format_type(a.atttypid, a.atttypmod), bool_and(j.by_value)
from judged j
join pg_attribute a on a.attrelid = to_regclass($1) and a.attnum = j.attnum
group by a.attnum, a.attname, a.atttypid, a.atttypmod
order by a.attnum
