-- The migration of the story: the runbook's 14 tables, with rows.
-- It runs through without an error, and that is the point: the new home of the posts lacks the column
-- `published_at`, which the application's new code reads. Nobody notices until customers do.
begin;

create table public.page_templates (
    id bigint generated always as identity primary key,
    name text not null unique,
    layout jsonb not null default '{}'
);

create table public.pages (
    id bigint generated always as identity primary key,
    slug text not null unique,
    template_id bigint references public.page_templates (id),
    created_by uuid not null references public.profiles (id),
    home boolean not null default false
);

create table public.component_library (
    id bigint generated always as identity primary key,
    name text not null unique,
    definition jsonb not null default '{}'
);

create table public.content_blocks (
    id bigint generated always as identity primary key,
    page_id bigint not null references public.pages (id),
    component_id bigint references public.component_library (id),
    position int not null,
    content jsonb not null default '{}'
);

create table public.builder_pages (
    id bigint generated always as identity primary key,
    page_id bigint not null unique references public.pages (id),
    draft jsonb not null default '{}'
);

create table public.component_usage (
    component_id bigint not null references public.component_library (id),
    builder_page_id bigint not null references public.builder_pages (id),
    uses int not null default 1,
    primary key (component_id, builder_page_id)
);

create table public.media_files (
    id bigint generated always as identity primary key,
    owner_id uuid not null references public.profiles (id),
    path text not null unique
);

create table public.file_metadata (
    file_id bigint primary key references public.media_files (id),
    mime_type text not null,
    bytes bigint not null
);

create table public.file_versions (
    file_id bigint not null references public.media_files (id),
    version int not null,
    path text not null,
    primary key (file_id, version)
);

create table public.user_file_stats (
    user_id uuid primary key references public.profiles (id),
    files int not null default 0,
    bytes bigint not null default 0
);

create table public.user_sessions (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null references public.profiles (id),
    started_at timestamptz not null default now()
);

create table public.analytics_events (
    id bigint generated always as identity primary key,
    session_id uuid references public.user_sessions (id),
    post_id bigint references public.posts (id),
    name text not null,
    at timestamptz not null default now()
);

create table public.cache_entries (
    key text primary key,
    value jsonb not null,
    expires_at timestamptz not null default now() + interval '1 hour'
);

-- The new home of the posts. The application takes the new way as soon as it finds this table.
create table public.content_posts (
    id bigint generated always as identity primary key,
    post_id bigint not null unique references public.posts (id),
    page_id bigint references public.pages (id),
    cover_id bigint references public.media_files (id),
    title text not null,
    body text not null
);

insert into public.page_templates (name) values ('article'), ('landing'), ('gallery');
insert into public.pages (slug, template_id, created_by, home)
select 'page-' || n, 1 + n % 3, (select id from public.profiles where username = 'customer' || (n + 1)), n = 1
from generate_series(1, 12) as n;
insert into public.component_library (name) values ('heading'), ('paragraph'), ('image'), ('button');
insert into public.content_blocks (page_id, component_id, position)
select 1 + n % 12, 1 + n % 4, n from generate_series(1, 60) as n;
insert into public.builder_pages (page_id) select id from public.pages;
insert into public.component_usage (component_id, builder_page_id)
select c.id, b.id from public.component_library c cross join public.builder_pages b;
insert into public.media_files (owner_id, path)
select id, 'media/' || username || '.jpg' from public.profiles;
insert into public.file_metadata (file_id, mime_type, bytes)
select id, 'image/jpeg', 20000 + id from public.media_files;
insert into public.file_versions (file_id, version, path) select id, 1, path from public.media_files;
insert into public.user_file_stats (user_id, files, bytes) select owner_id, 1, 20000 + id from public.media_files;
insert into public.user_sessions (user_id) select id from public.profiles;
insert into public.analytics_events (session_id, post_id, name)
select s.id, 1 + (row_number() over (order by s.user_id)) % 400, 'viewed' from public.user_sessions s;
insert into public.cache_entries (key, value) values ('navigation', '["home", "posts"]');
insert into public.content_posts (post_id, title, body)
select id, title, body from public.posts;

commit;
