//! `haul serve`: a folder, offered over SFTP or FTP.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use haul::serve::{Access, FtpTls, Identity, Options, Protocol, Server, random_password, start};
use haul::transport::{Secret, escape};

use super::context::Context;
use super::options::{read_password, state_dir};
use super::report::Result;
use super::values::{choice, size};

/// Serve a folder over SFTP or FTP
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  haul serve sftp ~/inbox
  haul serve sftp . --read-only --listen 0.0.0.0:2222 --authorized-keys ~/.ssh/authorized_keys
  haul serve ftp . --tls require --password-file ~/.haul-password

Nothing outside of the folder can be reached: links that lead out are not followed. Ctrl-C stops the server.
Wrong passwords are answered late, and six of them lock an address out for a minute. What an upload that breaks off has
brought stays under its name, so that the client can go on from there.
The host key or certificate is made once and kept in $XDG_STATE_HOME/haul/serve.")]
pub(crate) struct Serve {
    #[command(subcommand)]
    protocol: ServeProtocol,
}

#[derive(Debug, Subcommand)]
enum ServeProtocol {
    /// Serve a folder over SFTP
    Sftp(ServeSftp),
    /// Serve a folder over FTP, with TLS for clients that ask for it
    Ftp(ServeFtp),
}

#[derive(Debug, Args)]
struct ServeSftp {
    #[command(flatten)]
    common: ServeArgs,

    /// Let in who has a key of this file; passwords then only with --password-file
    #[arg(long, value_name = "FILE")]
    authorized_keys: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ServeFtp {
    #[command(flatten)]
    common: ServeArgs,

    /// Whether connections are encrypted
    #[arg(long, value_name = "MODE", default_value = "allow", value_parser = choice(&[
        ("off", "Never", FtpTls::Off),
        ("allow", "When the client asks for it (AUTH TLS)", FtpTls::Allow),
        ("require", "Always: nobody logs in or moves a file without it", FtpTls::Require),
        ("implicit", "Always, from the first byte (ftps://)", FtpTls::Implicit),
    ]))]
    tls: FtpTls,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// The folder
    #[arg(value_name = "DIR")]
    root: PathBuf,

    /// Listen there; port 0 takes a free one [default: 127.0.0.1:2222 for sftp, 127.0.0.1:2121 for ftp]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,

    /// The name to log in with
    #[arg(long, value_name = "NAME", default_value = "haul")]
    user: String,

    /// Read the password from the first line of a file (- for standard input) [default: a random one, shown]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,

    /// Let nobody change anything
    #[arg(long)]
    read_only: bool,

    /// Let no file grow beyond SIZE: 500k, 5M, 1.5G (1k is 1024). Each file by itself: their number isn't limited
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with = "read_only")]
    max_size: Option<u64>,
}

impl Serve {
    /// Serves until a signal comes: `context.cancel` tells.
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let (options, shown) = match self.protocol {
            ServeProtocol::Sftp(sftp) => {
                let (mut options, shown) =
                    sftp.common.options(Protocol::Sftp, 2222, sftp.authorized_keys.is_some(), context)?;
                options.authorized_keys = sftp.authorized_keys;
                (options, shown)
            }
            ServeProtocol::Ftp(ftp) => ftp.common.options(Protocol::Ftp(ftp.tls), 2121, false, context)?,
        };
        let server = start(options.clone()).await?;
        context.stdout.write(describe(&server, &options).as_bytes())?;
        if let Some(password) = shown {
            // Not on standard output, which may go to a file; and also with -q, as nobody else knows it.
            context.screen.line(&format!("password     {}", password.expose()));
        }
        context.note("Ctrl-C stops it.");
        context.cancel.cancelled().await;
        server.stop().await;
        context.note("stopped");
        Ok(())
    }
}

impl ServeArgs {
    /// Makes the library's options, and the password that has to be shown.
    fn options(
        self,
        protocol: Protocol,
        port: u16,
        by_key: bool,
        context: &Context,
    ) -> Result<(Options, Option<Secret>)> {
        let mut options = Options::new(protocol, self.root, state_dir()?);
        options.listen = self.listen.unwrap_or(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
        options.user = self.user;
        options.max_size = self.max_size;
        options.access = if self.read_only { Access::ReadOnly } else { Access::ReadWrite };
        let mut shown = None;
        options.password = match &self.password_file {
            Some(file) => Some(read_password(file, &context.report)?),
            None if by_key => None,
            None => {
                shown = Some(random_password()?);
                shown.clone()
            }
        };
        let in_the_open = matches!(protocol, Protocol::Ftp(FtpTls::Off | FtpTls::Allow));
        if in_the_open && !is_here_only(options.listen.ip()) {
            context.report.warn("passwords and files can be read on the way; --tls require prevents it");
        }
        Ok((options, shown))
    }
}

/// Says what a person or script needs to connect.
fn describe(server: &Server, options: &Options) -> String {
    let access = if options.access == Access::ReadOnly { "read-only" } else { "read and write" };
    let folder = escape(options.root.as_os_str().as_encoded_bytes());
    let mut text = format!("url          {}\nfolder       {folder} ({access})\n", server.url());
    let _ = match server.identity() {
        Identity::HostKey { fingerprint, .. } => writeln!(text, "host key     {fingerprint} (ED25519)"),
        Identity::Certificate { fingerprint, path } => {
            writeln!(text, "certificate  {fingerprint} (SHA-256)\n--tls-ca     {}", path.display())
        }
        Identity::None => Ok(()),
    };
    text
}

fn is_here_only(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
