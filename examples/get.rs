//! Downloads a file or a tree, shows how far it is, and stops in order at Ctrl-C: run again, it goes on where it was.
//!
//! ```sh
//! cargo run --example get                                        # from a server that it starts itself
//! cargo run --example get -- sftp://me@host/pub/photos photos    # the password is that of HAUL_PASSWORD
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr)]

use haul::serve::{self, FtpTls, Protocol};
use haul::{Event, Secret};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let demo = Demo::start().await?;
    let url = arguments.next().unwrap_or_else(|| demo.server.url());
    let destination = arguments.next().unwrap_or_else(|| demo.dir.path().join("copy").display().to_string());
    let password = std::env::var("HAUL_PASSWORD").unwrap_or_else(|_| "open sesame".to_owned());

    let mut transfer = haul::get(&url, &destination).recursive(true).password(password);
    let mut events = transfer.events();
    let canceller = transfer.canceller();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            canceller.cancel();
        }
    });
    let show = async {
        while let Some(event) = events.next().await {
            match event {
                Event::Progress { id, position } => eprintln!("file {id}: {position} bytes"),
                Event::Retrying { error, wait, .. } => eprintln!("{error}; once more in {wait:?}"),
                Event::Finished(outcome) => println!("{:?} {}", outcome.status, outcome.source),
                _ => {}
            }
        }
    };
    let (report, ()) = tokio::join!(transfer.run(), show);
    let summary = report?.into_result()?;
    println!("{} files, {} bytes, to {destination}", summary.done, summary.bytes);
    Ok(())
}

/// An FTP server on this machine with something to download, for as long as this program runs.
struct Demo {
    dir: tempfile::TempDir,
    server: serve::Server,
}

impl Demo {
    async fn start() -> Result<Self, Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let root = dir.path().join("pub");
        std::fs::create_dir_all(root.join("sub"))?;
        std::fs::write(root.join("large.bin"), vec![7; 20 << 20])?;
        std::fs::write(root.join("sub/hello.txt"), "hello\n")?;
        let mut options = serve::Options::new(Protocol::Ftp(FtpTls::Off), root, dir.path().join("state"));
        options.password = Some(Secret::new("open sesame"));
        Ok(Self { server: serve::start(options).await?, dir })
    }
}
