//! The PostgreSQL server: one for all tests of this process, or one of a test's own.

use std::ops::Deref;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use rollbackd::demo::cluster::Cluster;
use rollbackd::postgres::programs;

use super::{own_directory, runtime};

/// A server that a stage plays on.
pub(super) enum Server {
    Shared(&'static Cluster),
    Own(Box<Own>),
}

/// The directory goes after the server.
pub(super) struct Own {
    cluster: Cluster,
    _volume: Option<Volume>,
    _directory: tempfile::TempDir,
}

/// A small disk on a directory; gone when it is dropped.
struct Volume(std::path::PathBuf);

impl Volume {
    /// `None`: this process may not mount.
    fn mount(directory: &Path, megabytes: u32) -> Option<Self> {
        let size = format!("size={megabytes}m,mode=755");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(directory).status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(directory.to_owned()))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

impl Server {
    pub(super) fn shared() -> Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        Self::Shared(SHARED.get_or_init(|| {
            let directory = own_directory("server").keep();
            let cluster = runtime().block_on(Cluster::start(&directory.join("c"))).expect("a server");
            // Nothing of this process lives long enough to clean up after a server that all tests share. When the
            // process ends, the kernel ends the server and closes this pipe.
            let script = "cat >/dev/null; n=0; \
                while [ -e \"$1/c/data/postmaster.pid\" ] && [ $n -lt 300 ]; do n=$((n+1)); sleep 0.1; done; \
                rm -rf -- \"$1\"";
            let mut janitor = Command::new("sh");
            janitor.args(["-c", script, "janitor"]).arg(&directory).process_group(0);
            janitor.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            std::mem::forget(janitor.spawn().expect("a janitor"));
            cluster
        }))
    }

    pub(super) fn own() -> Self {
        Self::in_directory(own_directory("server"), None)
    }

    /// One whose data is on a disk of so many megabytes. `None`: this process may not mount.
    pub(super) fn on_small_disk(megabytes: u32) -> Option<Self> {
        let directory = own_directory("server");
        let volume = Volume::mount(directory.path(), megabytes)?;
        Some(Self::in_directory(directory, Some(volume)))
    }

    fn in_directory(directory: tempfile::TempDir, volume: Option<Volume>) -> Self {
        let cluster = runtime().block_on(Cluster::start(&directory.path().join("c"))).expect("a server");
        Self::Own(Box::new(Own { cluster, _volume: volume, _directory: directory }))
    }

    pub(super) fn own_mut(&mut self) -> &mut Cluster {
        match self {
            Self::Shared(_) => panic!("this server is not the test's own: see Stage::alone"),
            Self::Own(own) => &mut own.cluster,
        }
    }
}

impl Deref for Server {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        match self {
            Self::Shared(cluster) => cluster,
            Self::Own(own) => &own.cluster,
        }
    }
}

/// `PATH` with the server's own `psql` and `pg_dump` first.
pub(super) fn path() -> String {
    let binaries = programs::server_binaries().expect("PostgreSQL is installed");
    format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap_or_default())
}
