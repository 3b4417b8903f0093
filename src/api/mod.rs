//! haul for programs: what the command line does, by the same engine.
//!
//! [`get`], [`put`], [`sync`] and [`list`] make builders; nothing happens until `run` is awaited, on a tokio runtime. A copy ends with
//! a [`Report`]: files that failed are in it, and `Err` is for what never began. [`Transfer::events`] tells what happens
//! meanwhile, and [`Transfer::canceller`] stops it so that the next run goes on where it was.
//!
//! Every option of the engine is within reach: [`Transfer::connection`] and [`Transfer::options`] hand out what the command
//! line sets. Profiles, the file of settings, the keyring and `.netrc` belong to the command line and are not looked at.

mod copy;
mod events;
mod list;
mod login;
mod moving;
mod sync;

use std::ffi::OsStr;

pub use copy::Transfer;
pub use events::{Canceller, Events, Failure, Report};
pub use list::{List, Listed};
pub use sync::{SyncReport, TreeSync};

/// Prepares to copy what a URL names, wildcards included, to this machine.
///
/// As with `cp`: into a directory that exists, to that name otherwise.
///
/// ```
/// # use haul::serve::{self, FtpTls, Protocol};
/// # #[tokio::main]
/// # async fn main() -> haul::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let pub_dir = dir.path().join("pub");
/// # std::fs::create_dir_all(&pub_dir).unwrap();
/// # std::fs::write(pub_dir.join("image.iso"), [7; 5000]).unwrap();
/// # let mut options = serve::Options::new(Protocol::Ftp(FtpTls::Off), &pub_dir, dir.path().join("state"));
/// # options.password = Some(haul::Secret::new("open sesame"));
/// # let server = serve::start(options).await?;
/// # let (url, downloads) = (format!("{}image.iso", server.url()), dir.path());
/// let report = haul::get(&url, downloads).password("open sesame").run().await?;
/// assert_eq!(report.summary().bytes, 5000);
/// assert!(report.is_complete() && downloads.join("image.iso").exists());
/// # Ok(())
/// # }
/// ```
pub fn get(url: impl AsRef<OsStr>, destination: impl AsRef<OsStr>) -> Transfer {
    Transfer::new(url.as_ref(), destination.as_ref())
}

/// Prepares to copy a file or, with [`Transfer::recursive`], a directory of this machine to what a URL names.
///
/// As with `cp`: into a directory that exists, to that name otherwise. Source and destination may just as well both be
/// URLs, or both paths.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> haul::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let (site, target) = (dir.path().join("site"), dir.path().join("www"));
/// # std::fs::create_dir_all(site.join("drafts")).unwrap();
/// # for name in ["index.html", "style.css", "drafts/new.html"] {
/// #     std::fs::write(site.join(name), name).unwrap();
/// # }
/// let filter = haul::Filter::builder().exclude("drafts/").exclude("*.tmp").build()?;
/// let report = haul::put(&site, &target).recursive(true).filter(filter).run().await?;
/// for failure in report.failures() {
///     eprintln!("{}: {}", failure.source(), failure.error());
/// }
/// assert_eq!((report.summary().done, target.join("drafts").exists()), (2, false));
/// # Ok(())
/// # }
/// ```
pub fn put(path: impl AsRef<OsStr>, url: impl AsRef<OsStr>) -> Transfer {
    Transfer::new(path.as_ref(), url.as_ref())
}

/// Prepares to list a directory, or what matches the wildcards of a URL.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> haul::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # std::fs::create_dir(dir.path().join("sub")).unwrap();
/// # std::fs::write(dir.path().join("sub/a.txt"), "hello").unwrap();
/// # let url = format!("file://{}", dir.path().display());
/// for listed in haul::list(&url).recursive(true).run().await? {
///     println!("{:>10} {}", listed.entry().size.unwrap_or(0), listed.url());
/// }
/// # assert_eq!(haul::list(&url).recursive(true).run().await?.len(), 2);
/// # Ok(())
/// # }
/// ```
pub fn list(url: impl AsRef<OsStr>) -> List {
    List::new(url.as_ref())
}

/// Prepares to make the contents of one directory equal to those of another.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> haul::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let (photos, backup) = (dir.path().join("photos"), dir.path().join("backup"));
/// # for (folder, name) in [(&photos, "new.jpg"), (&backup, "old.jpg")] {
/// #     std::fs::create_dir(folder).unwrap();
/// #     std::fs::write(folder.join(name), name).unwrap();
/// # }
/// # let state = dir.path().join("state");
/// let report = haul::sync(&photos, &backup).delete(true).max_delete(100).state_dir(state).run().await?;
/// assert_eq!((report.copied().summary().done, report.deleted()), (1, 1));
/// assert!(report.is_complete() && !backup.join("old.jpg").exists());
/// # Ok(())
/// # }
/// ```
pub fn sync(source: impl AsRef<OsStr>, destination: impl AsRef<OsStr>) -> TreeSync {
    TreeSync::new(source.as_ref(), destination.as_ref())
}
