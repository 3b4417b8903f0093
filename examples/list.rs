//! Lists what was changed within the last week, directories included, as it comes.
//!
//! ```sh
//! cargo run --example list                               # of a server that it starts itself
//! cargo run --example list -- ftp://ftp.example.org/pub  # anonymously
//! ```

#![allow(clippy::print_stdout)]

use std::time::{Duration, SystemTime};

use haul::Filter;
use haul::serve::{self, FtpTls, Protocol};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    std::fs::create_dir(dir.path().join("pub"))?;
    std::fs::write(dir.path().join("pub/new.txt"), "hello\n")?;
    let mut options = serve::Options::new(Protocol::Ftp(FtpTls::Off), dir.path().join("pub"), dir.path().join("state"));
    options.password = Some(haul::Secret::new("open sesame"));
    let server = serve::start(options).await?;

    let url = std::env::args().nth(1);
    let week = Duration::from_secs(7 * 24 * 3600);
    let filter = Filter::builder().newer_than(SystemTime::now() - week).build()?;
    let list = match &url {
        Some(url) => haul::list(url),
        None => haul::list(server.url()).password("open sesame"),
    };
    let print = |listed: haul::Listed| {
        let size = listed.entry().size.map_or_else(|| "?".to_owned(), |size| size.to_string());
        println!("{size:>12} {}", listed.url());
    };
    list.recursive(true).filter(filter).for_each(print).await?;
    server.stop().await;
    Ok(())
}
