use reqwest::Client as Http;

use super::*;
use crate::demo::cluster::{Cluster, Stop};
use crate::demo::database::{Judge, NEW_TABLES};
use crate::demo::proof::Shopfront;

const MIGRATION: &str = include_str!("../../../config/demo/migration.sql");
const HEALTHY: &str = include_str!("../../../config/demo/healthy.sql");

/// A shop on a database of its own.
struct Open {
    directory: tempfile::TempDir,
    cluster: Cluster,
    tracker: TaskTracker,
    cancel: CancellationToken,
    owner: Client,
    judge: Judge,
    front: Shopfront,
}

async fn open() -> Open {
    drop(rustls::crypto::ring::default_provider().install_default());
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let cluster = Cluster::start(&directory.path().join("cluster")).await.unwrap();
    let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
    let administrator = Judge::connect(&cluster.url("postgres"), &tracker).await.unwrap();
    administrator.create("owner", "app").await.unwrap();
    let owner_url = cluster.url_as("shop_owner", "owner", "shop");
    let judge = Judge::connect(&owner_url, &tracker).await.unwrap();
    judge.fill().await.unwrap();
    let (owner, connection) = tokio_postgres::connect(&owner_url, NoTls).await.unwrap();
    tracker.spawn(async move { drop(connection.await) });
    let app = cluster.url_as("shop_app", "app", "shop");
    let address = start(&app, directory.path().join("maintenance"), "key", &tracker, &cancel).await.unwrap();
    let front = Shopfront {
        address,
        apikey: "key".to_owned(),
        email: "watchdog@shop.example".to_owned(),
        password: "correct horse 1".to_owned(),
    };
    Open { directory, cluster, tracker, cancel, owner, judge, front }
}

impl Open {
    async fn status(&self, path: &str, apikey: &str) -> u16 {
        let request = Http::new().get(format!("http://{}{path}", self.front.address)).header("apikey", apikey);
        timeout(Duration::from_secs(10), request.send()).await.unwrap().unwrap().status().as_u16()
    }

    async fn close(mut self) {
        self.cancel.cancel();
        self.tracker.close();
        drop((self.judge, self.owner));
        self.cluster.stop(Stop::Immediate).await.unwrap();
        timeout(Duration::from_secs(10), self.tracker.wait()).await.expect("everything ends");
        drop(self.directory);
    }
}

#[tokio::test]
async fn the_migration_breaks_the_posts_and_only_the_posts_until_its_tables_are_away() {
    let shop = open().await;
    let before = shop.judge.originals().await.unwrap();
    assert_eq!(
        before.iter().map(|one| (one.table, one.rows)).collect::<Vec<_>>(),
        [("profiles", 40), ("posts", 400), ("comments", 3000)]
    );
    assert!(shop.front.posts().await.good && shop.front.sign_in().await.good);

    shop.owner.batch_execute(MIGRATION).await.unwrap();
    assert_eq!(shop.judge.whereabouts().await.unwrap().live.len(), NEW_TABLES.len());
    assert_eq!(shop.status("/api/posts", "key").await, 500);
    assert_eq!(shop.status("/health", "").await, 200, "the health endpoint sees nothing");
    assert!(shop.front.sign_in().await.good);

    let away: Vec<String> =
        NEW_TABLES.iter().map(|table| format!("alter table {table} set schema rollbackd_x;")).collect();
    shop.owner.batch_execute(&format!("create schema rollbackd_x; {}", away.concat())).await.unwrap();
    assert!(shop.front.posts().await.good);
    let found = shop.judge.whereabouts().await.unwrap();
    assert_eq!((found.live.len(), found.quarantined.len()), (0, 14));
    for original in &before {
        assert_eq!(shop.judge.is_whole(original).await, Ok(0));
    }
    shop.close().await;
}

#[tokio::test]
async fn the_healthy_migration_breaks_nothing() {
    let shop = open().await;
    shop.owner.batch_execute(HEALTHY).await.unwrap();
    assert!(shop.front.posts().await.good && shop.front.sign_in().await.good);
    shop.close().await;
}

#[tokio::test]
async fn damage_to_the_originals_is_seen_and_new_rows_are_not_damage() {
    let shop = open().await;
    let before = shop.judge.originals().await.unwrap();
    let [profiles, posts, comments] = before.as_slice() else { panic!("{before:?}") };
    let comment = json!({ "post_id": 1, "email": "customer2@shop.example", "body": "new" });
    let written = Http::new()
        .post(format!("http://{}/api/comments", shop.front.address))
        .header("apikey", "key")
        .json(&comment)
        .send()
        .await
        .unwrap();
    assert_eq!(written.status().as_u16(), 201);
    assert_eq!(shop.judge.is_whole(comments).await, Ok(1));
    for (damage, original) in [
        ("delete from comments where id = 7", comments),
        ("update posts set title = 'x' where id = 7", posts),
        ("alter table profiles add column spoilt int", profiles),
    ] {
        shop.owner.batch_execute(damage).await.unwrap();
        assert!(shop.judge.is_whole(original).await.is_err(), "{damage}");
    }
    shop.owner.batch_execute("drop table comments cascade").await.unwrap();
    assert!(shop.judge.is_whole(comments).await.unwrap_err().contains("does not exist"));
    shop.close().await;
}

#[tokio::test]
async fn strangers_wrong_passwords_and_maintenance_are_turned_away() {
    let mut shop = open().await;
    assert_eq!(shop.status("/api/posts", "wrong").await, 401);
    assert_eq!(shop.status("/nowhere", "key").await, 404);
    shop.front.password = "correct horse 2".to_owned();
    assert!(shop.front.sign_in().await.text.contains("400"));
    let flag = shop.directory.path().join("maintenance");
    std::fs::write(&flag, "").unwrap();
    assert_eq!((shop.status("/api/posts", "key").await, shop.status("/health", "").await), (503, 503));
    std::fs::remove_file(&flag).unwrap();
    assert_eq!(shop.status("/api/posts", "key").await, 200);
    shop.close().await;
}

#[tokio::test]
async fn the_shop_comes_back_when_its_connections_are_cut() {
    let shop = open().await;
    assert!(shop.front.posts().await.good);
    let administrator = tokio_postgres::connect(&shop.cluster.url("postgres"), NoTls).await.unwrap();
    let (client, connection) = administrator;
    shop.tracker.spawn(async move { drop(connection.await) });
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'shop'";
    let cut: i64 = client.query_one(cut, &[]).await.unwrap().get(0);
    assert!(cut > 0);
    let mut served = 0;
    // A request may meet a connection that is just ending; after one round of the pool none is left.
    for _ in 0..3 * CONNECTIONS {
        served = if shop.front.posts().await.good { served + 1 } else { 0 };
    }
    assert!(served >= CONNECTIONS, "{served}");
    drop(client);
    shop.close().await;
}
