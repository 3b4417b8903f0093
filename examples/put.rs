//! Uploads a directory without what a filter rules out, and tells what failed.
//!
//! ```sh
//! cargo run --example put                                     # to a server that it starts itself
//! cargo run --example put -- site sftp://me@host/~/www        # the password is that of HAUL_PASSWORD
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::PathBuf;
use std::process::ExitCode;

use haul::serve::{self, Protocol};
use haul::{Filter, HostKeyPolicy, Secret};

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = tempfile::tempdir()?;
    let source = arguments.next().map_or_else(|| dir.path().join("site"), PathBuf::from);
    let url = arguments.next();
    let password = std::env::var("HAUL_PASSWORD").unwrap_or_else(|_| "open sesame".to_owned());

    // What .haulignore files in the source rule out stays here as well.
    let filter = Filter::builder().exclude("*.tmp").exclude("/drafts/").heed_haulignore().build()?;
    let upload = |url: &str| haul::put(&source, url).recursive(true).filter(filter).password(password);
    let report = match &url {
        Some(url) => upload(url).run().await?,
        None => {
            let server = demo(dir.path()).await?;
            // Its host key is new every time: it is written down in a file of its own.
            let upload = upload(&format!("{}www", server.url())).host_key(HostKeyPolicy::AcceptNew);
            upload.known_hosts(dir.path().join("known_hosts")).run().await?
        }
    };
    for failure in report.failures() {
        eprintln!("{}: {}", failure.source(), failure.error());
    }
    println!("{} files, {} bytes", report.summary().done, report.summary().bytes);
    Ok(if report.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Makes something to upload, and an SFTP server on this machine that takes it.
async fn demo(dir: &std::path::Path) -> Result<serve::Server, Box<dyn std::error::Error>> {
    std::fs::create_dir_all(dir.join("site/drafts"))?;
    for name in ["index.html", "notes.tmp", "drafts/new.html"] {
        std::fs::write(dir.join("site").join(name), "<p>hello\n")?;
    }
    std::fs::create_dir(dir.join("served"))?;
    let mut options = serve::Options::new(Protocol::Sftp, dir.join("served"), dir.join("state"));
    options.password = Some(Secret::new("open sesame"));
    Ok(serve::start(options).await?)
}
