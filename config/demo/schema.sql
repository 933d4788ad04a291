-- The shop before the migration: the three original tables of the runbook, with rows.
-- Run once by `rollbackd demo`, as the owner of the database. The role `shop_app` exists already.
begin;

create table public.profiles (
    id uuid primary key default gen_random_uuid(),
    email text not null unique,
    username text not null unique,
    -- The demo's sign-in hashes with SHA-256 and a salt. A real one uses a slow hash, such as argon2.
    password_salt text not null,
    password_hash text not null,
    created_at timestamptz not null default now()
);

create table public.posts (
    id bigint generated always as identity primary key,
    author_id uuid not null references public.profiles (id),
    title text not null,
    body text not null,
    published boolean not null default true,
    created_at timestamptz not null default now()
);
create index posts_newest on public.posts (created_at desc) where published;

create table public.comments (
    id bigint generated always as identity primary key,
    post_id bigint not null references public.posts (id),
    author_id uuid not null references public.profiles (id),
    body text not null,
    created_at timestamptz not null default now()
);
create index comments_of_post on public.comments (post_id);

create view public.popular_posts as
select p.id, p.title, count(c.id) as comments
from public.posts p
join public.comments c on c.post_id = p.id
where p.published
group by p.id, p.title;

-- Drafts are nobody's business: the application sees published posts only.
alter table public.posts enable row level security;
create policy "published posts are for everybody" on public.posts for select using (published);

-- 40 customers. Customer 1 is the test account that proves that sign-in works.
insert into public.profiles (id, email, username, password_salt, password_hash, created_at)
select
    md5('profile ' || n)::uuid,
    case n when 1 then 'watchdog@shop.example' else 'customer' || n || '@shop.example' end,
    case n when 1 then 'watchdog' else 'customer' || n end,
    md5('salt ' || n),
    encode(sha256(convert_to(md5('salt ' || n) || 'correct horse ' || n, 'UTF8')), 'hex'),
    timestamptz '2026-01-01 08:00:00+00' + n * interval '31 hours'
from generate_series(1, 40) as n;

-- 400 posts, every tenth a draft.
insert into public.posts (author_id, title, body, published, created_at)
select
    md5('profile ' || (1 + n % 40))::uuid,
    (array['Unboxing', 'Three weeks with', 'A closer look at', 'Do not buy', 'Repairing'])[1 + n % 5]
        || ' ' || (array['the kettle', 'the lamp', 'the bicycle', 'the radio', 'the chair'])[1 + n % 7 % 5],
    repeat('What nobody tells you about it. ', 1 + n % 6),
    n % 10 <> 0,
    timestamptz '2026-02-01 09:00:00+00' + n * interval '7 hours'
from generate_series(1, 400) as n;

-- 3000 comments.
insert into public.comments (post_id, author_id, body, created_at)
select
    1 + (n * 7) % 400,
    md5('profile ' || (1 + n % 40))::uuid,
    (array['Thank you!', 'Mine broke after a week.', 'Where did you buy it?', 'Seconded.'])[1 + n % 4],
    timestamptz '2026-02-01 10:00:00+00' + n * interval '53 minutes'
from generate_series(1, 3000) as n;

-- What the application may do, and no more.
grant usage on schema public to shop_app;
grant select on public.profiles, public.posts, public.comments, public.popular_posts to shop_app;
grant insert on public.comments to shop_app;
-- What a later migration adds can be read by the application too.
alter default privileges in schema public grant select on tables to shop_app;

commit;
