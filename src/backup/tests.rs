use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::postgres::testing::Fixture;

const ORIGINALS: &str = "create table profiles (id int primary key); create table posts (id int primary key, body text);
    create table comments (at date) partition by range (at);
    create table comments_1 partition of comments for values from ('2026-01-01') to ('2027-01-01');
    insert into profiles select generate_series(1, 1000);
    insert into posts select i, repeat('x', i) from generate_series(1, 300) i; insert into comments values ('2026-05-05')";

const MINUTE: Duration = Duration::from_secs(60);

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("utf-8"))
        .collect();
    names.sort();
    names
}

fn backup_of(outcome: &Outcome) -> (PathBuf, Arc<Baseline>) {
    let Finding::Backup { directory, baseline, .. } = &outcome.finding else { panic!("{}", outcome.detail) };
    (PathBuf::from(directory), Arc::clone(baseline))
}

async fn fails(config: &Config, why: &str) {
    let outcome = take(config, at("2026-11-22T02:00:00Z"), MINUTE, &CancellationToken::new()).await;
    assert!(!outcome.is_success());
    assert!(outcome.detail.contains(why), "{why}: {}", outcome.detail);
    assert_eq!(names(&config.backup.directory), Vec::<String>::new(), "nothing stays behind");
}

#[tokio::test]
async fn a_backup_is_whole_described_and_private() {
    let fixture = Fixture::new().await;
    fixture.sql(ORIGINALS).await;
    fixture
        .sql("create schema \"a.b\"; create table \"a.b\".t (); create schema \"a*\"; create table \"a*\".u ()")
        .await;
    let mut config = fixture.config();
    config.backup.schemas = vec!["public".to_owned(), "a.b".to_owned(), "a*".to_owned()];
    let outcome = take(&config, at("2026-11-22T02:00:00Z"), MINUTE, &CancellationToken::new()).await;
    let (directory, baseline) = backup_of(&outcome);
    assert_eq!(directory, config.backup.directory.join("pre-migration-20261122T020000Z"));
    assert_eq!(names(&directory), ["baseline.json", "dump", "keys.json", "manifest.json", "schema.sql"]);
    assert_eq!(std::fs::metadata(&directory).expect("there").permissions().mode() & 0o777, 0o700);
    let rows: Vec<u64> = baseline.counts.iter().map(|count| count.rows).collect();
    assert_eq!(rows, [1000, 300, 1]);
    assert!(baseline.identities.len() >= 6);
    let manifest = manifest::read(&directory).expect("a manifest");
    assert_eq!(
        manifest.files,
        manifest::seal(&directory).expect("files").into_iter().filter(|f| f.path != manifest::NAME).collect::<Vec<_>>()
    );
    assert_eq!(manifest.tables, baseline.counts);
    let written: Baseline =
        serde_json::from_slice(&std::fs::read(directory.join("baseline.json")).expect("there")).expect("a baseline");
    assert_eq!(written, *baseline);
    let schema = std::fs::read_to_string(directory.join("schema.sql")).expect("there");
    assert!(schema.contains("CREATE TABLE \"a.b\".t") && schema.contains("CREATE TABLE \"a*\".u"), "{schema}");

    // Again under the same name, as after a crash, and with what such a crash leaves.
    std::fs::create_dir(config.backup.directory.join("pre-migration-20261122T020000Z.partial")).expect("made");
    let (second, _) = backup_of(&take(&config, at("2026-11-22T02:00:00Z"), MINUTE, &CancellationToken::new()).await);
    assert!(second.ends_with("pre-migration-20261122T020000Z-2"), "{}", second.display());
    // The third pushes out the first, and nobody else's.
    std::fs::create_dir(config.backup.directory.join("pre-migration-20200101T000000Z")).expect("made");
    backup_of(&take(&config, at("2026-11-29T02:00:00Z"), MINUTE, &CancellationToken::new()).await);
    let left = ["pre-migration-20200101T000000Z", "pre-migration-20261122T020000Z-2", "pre-migration-20261129T020000Z"];
    assert_eq!(names(&config.backup.directory), left);
}

#[tokio::test]
async fn a_damaged_archive_is_found() {
    let fixture = Fixture::new().await;
    fixture.sql(ORIGINALS).await;
    let config = fixture.config();
    let (directory, baseline) =
        backup_of(&take(&config, at("2026-11-22T02:00:00Z"), MINUTE, &CancellationToken::new()).await);
    let programs = programs::find(15).await.expect("programs");
    let dump = directory.join("dump");
    let stored = [RowCount { table: TableName::new("public", "posts"), rows: 300 }];
    readback::check(&programs.restore, &dump, &stored, MINUTE).await.expect("whole");
    let more = [RowCount { table: TableName::new("public", "posts"), rows: 301 }];
    let reason = readback::check(&programs.restore, &dump, &more, MINUTE).await.expect_err("one row short");
    assert_eq!(reason, "the archive holds 300 of the 301 rows of public.posts");
    assert_eq!(baseline.counts.len(), 3);
    let largest = std::fs::read_dir(&dump)
        .expect("files")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "gz"))
        .max_by_key(|path| std::fs::metadata(path).expect("there").len())
        .expect("a file");
    let mut bytes = std::fs::read(&largest).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    std::fs::write(&largest, &bytes).expect("written");
    readback::check(&programs.restore, &dump, &stored, MINUTE).await.expect_err("a flipped byte");
    bytes.truncate(middle);
    std::fs::write(&largest, &bytes).expect("written");
    readback::check(&programs.restore, &dump, &stored, MINUTE).await.expect_err("a half file");
}

#[tokio::test]
async fn what_is_missing_or_wrong_is_named_and_nothing_stays_behind() {
    let fixture = Fixture::new().await;
    let mut config = fixture.config();
    fails(&config, "public.profiles, public.posts, public.comments").await;
    fixture.sql(ORIGINALS).await;
    config.backup.schemas = vec!["elsewhere".to_owned()];
    fails(&config, "backup.schemas leaves out public").await;
    config.backup.schemas = vec!["public".to_owned(), "elsewhere".to_owned()];
    fails(&config, "elsewhere").await;
    config.backup.schemas = vec!["public".to_owned()];
    config.backup.directory = PathBuf::from("/proc/backups");
    fails(&config, "/proc/backups").await;
    config.backup.directory = PathBuf::from("/dev/full/backups");
    fails(&config, "/dev/full/backups").await;
}

#[tokio::test]
async fn a_role_that_sees_not_all_rows_makes_no_backup() {
    let fixture = Fixture::new().await;
    fixture.sql(ORIGINALS).await;
    fixture
        .sql(
            "create role half_blind login password 'sesame'; grant select on all tables in schema public to half_blind;
             alter table posts enable row level security; create policy half on posts using (id % 2 = 0)",
        )
        .await;
    let mut config = fixture.config();
    let database = crate::postgres::testing::database(&fixture.cluster.url_as("half_blind", "sesame", &fixture.name));
    config.database = database;
    fails(&config, "row-level security").await;
}

#[tokio::test]
async fn a_lock_that_is_held_ends_the_backup_in_time() {
    let fixture = Fixture::new().await;
    fixture.sql(ORIGINALS).await;
    fixture.sql("create table other ()").await;
    let mut holder = fixture.session().await;
    let transaction = holder.client_mut().transaction().await.expect("a transaction");
    transaction.batch_execute("lock table other in access exclusive mode").await.expect("a lock");
    let config = fixture.config();
    let outcome = take(&config, at("2026-11-22T02:00:00Z"), Duration::from_secs(2), &CancellationToken::new()).await;
    assert!(!outcome.is_success());
    assert_eq!(names(&config.backup.directory), Vec::<String>::new());
    assert!(outcome.detail.starts_with("no backup: "), "{}", outcome.detail);
}

/// A small file system of its own, unmounted at the end.
struct SmallDisk(PathBuf);

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let done = std::process::Command::new("umount").arg(&self.0).status();
        assert!(done.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[tokio::test]
async fn a_full_disk_is_a_clear_failure() {
    let fixture = Fixture::new().await;
    fixture.sql(ORIGINALS).await;
    let filler = "insert into posts select i, (select string_agg(md5((i * j)::text), '') from generate_series(1, 50) j)
                  from generate_series(1000, 2000) i";
    fixture.sql(filler).await;
    let mut config = fixture.config();
    std::fs::create_dir_all(&config.backup.directory).expect("made");
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
        .arg(&config.backup.directory)
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        println!("left out: only root can make a small disk");
        return;
    }
    let disk = SmallDisk(config.backup.directory.clone());
    let reason = room(&config).await.expect_err("too small");
    assert!(reason.contains("not enough room"), "{reason}");
    fails(&config, "No space left on device").await;
    config.backup.directory = disk.0.join("deeper");
    fails(&config, "No space left on device").await;
}

#[tokio::test]
async fn preflight_knows_the_programs_and_the_room() {
    let fixture = Fixture::new().await;
    fixture.sql(ORIGINALS).await;
    let config = fixture.config();
    let tools = tools(&config).await.expect("found");
    assert!(tools.contains("pg_dump") && tools.contains("for server 15"), "{tools}");
    let room = room(&config).await.expect("enough");
    assert!(room.contains("MB free"), "{room}");
}

#[tokio::test]
async fn a_backup_that_is_not_needed_any_more_leaves_nothing_behind() {
    let fixture = Fixture::new().await;
    fixture.sql(ORIGINALS).await;
    let config = fixture.config();
    let stop = CancellationToken::new();
    let lock = "begin; lock table posts in access exclusive mode";
    let holder = fixture.session().await;
    holder.client().batch_execute(lock).await.expect("a lock");
    let stopped = async {
        while names(&config.backup.directory).is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stop.cancel();
    };
    let (outcome, ()) = tokio::join!(take(&config, at("2026-11-22T02:00:00Z"), MINUTE, &stop), stopped);
    assert!(!outcome.is_success() && outcome.detail.contains("not needed any more"), "{}", outcome.detail);
    assert_eq!(names(&config.backup.directory), Vec::<String>::new());
}
