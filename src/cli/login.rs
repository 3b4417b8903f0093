//! `haul login` and `haul logout`: passwords in the system's keyring.

use std::ffi::OsString;
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use haul::endpoint::{Endpoint, Scheme};
use haul::transport::{self, Account, ConnectOptions, Passwords, Secret};
use haul::{Error, ErrorKind};
use tokio::task::spawn_blocking;

use super::context::{Connections, Context, usage, without_password};
use super::keyring;
use super::options::{ConfigArgs, ConnectArgs};
use super::report::{Failure, Result};
use super::settings::Settings;

/// Keep a password in the system's keyring
///
/// Asks for the password, logs in with it, and keeps it if the server took it: whoever is logged in at this machine as you
/// then gets in without being asked. It is kept for this user at this host, protocol and port, and for no other.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  haul login sftp://me@host
  haul login ftpes://me@ftp.example.org:2121
  haul login --password-file secret work:     for the profile work

The keyring is the Secret Service of the desktop (GNOME Keyring, KWallet, KeePassXC; by the program secret-tool) or the
keychain of macOS.")]
pub(crate) struct Login {
    /// Where to log in; the path doesn't matter
    #[arg(value_name = "URL")]
    url: OsString,

    #[command(flatten)]
    connect: ConnectArgs,
}

/// Remove a password from the system's keyring
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  haul logout sftp://me@host
  haul logout work:           for the profile work")]
pub(crate) struct Logout {
    /// The URL that was logged in with
    #[arg(value_name = "URL")]
    url: OsString,

    #[command(flatten)]
    config: ConfigArgs,
}

impl Login {
    /// Logs in, and keeps the password that the server took.
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let mut connections = Connections::new(&self.connect, context)?;
        let endpoint = connections.parse_one(&self.url)?;
        if endpoint.password.is_some() {
            return Err(usage("leave the password out of the URL")
                .at(&endpoint)
                .with_hint("haul asks for it, or reads it with --password-file")
                .into());
        }
        has_account(&endpoint)?;
        keyring::check()?;
        let taken = Arc::<Taken>::default();
        let passwords = Arc::clone(&taken) as Arc<dyn Passwords>;
        let options = ConnectOptions { passwords, ..connections.options(&endpoint)? };
        let transport = transport::connect(&endpoint, &options).await;
        let transport = transport.map_err(|e| Failure::connecting(e.at(endpoint.origin())))?;
        let _ = transport.close().await;
        let taken = taken.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((account, password)) = taken else {
            return Err(Error::new(ErrorKind::Other, "the server let us in without a password: there is none to keep")
                .at(endpoint.origin())
                .into());
        };
        let url = keyring::url_of(&account);
        let stored = spawn_blocking(move || keyring::store(&account, &password)).await;
        stored
            .map_err(|e| Error::new(ErrorKind::Other, "keep the password").with_source(e))?
            .map_err(|e| e.at(&url))?;
        context.note(&format!("the password for {url} is in the {} now", keyring::NAME));
        Ok(())
    }
}

impl Logout {
    /// Removes the password.
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let settings = Settings::load(&context.known, &context.given, self.config.file.as_deref())?;
        let (endpoint, _) = settings.endpoint(&self.url).map_err(|e| e.at(without_password(&self.url)))?;
        has_account(&endpoint)?;
        let Some(user) = endpoint.user.clone() else {
            return Err(usage("names no user").at(&endpoint).with_hint("write it like sftp://user@host").into());
        };
        let account = Account { scheme: endpoint.scheme, user, host: endpoint.host.clone(), port: endpoint.port };
        let url = keyring::url_of(&account);
        let name = url.clone();
        let removed = spawn_blocking(move || keyring::remove(&name)).await;
        let removed = removed.map_err(|e| Error::new(ErrorKind::Other, "remove the password").with_source(e))?;
        if !removed.map_err(|e| e.at(&url))? {
            let text = format!("no password in the {}", keyring::NAME);
            return Err(Error::new(ErrorKind::NotFound, text)
                .at(&url)
                .with_hint("user, host, protocol and port must be those of haul login")
                .into());
        }
        context.note(&format!("the password for {url} is no longer in the {}", keyring::NAME));
        Ok(())
    }
}

/// Checks that there is somebody to log in as.
fn has_account(endpoint: &Endpoint) -> Result<()> {
    match (endpoint.scheme, &endpoint.user) {
        (Scheme::File, _) => {
            Err(usage("names no server").at(endpoint).with_hint("give a URL like sftp://me@host").into())
        }
        // SSH has a user in any case; who comes to an FTP server without a name is anonymous.
        (Scheme::Ftp | Scheme::Ftpes | Scheme::Ftps, None) => {
            Err(usage("names no user").at(endpoint).with_hint("write it like ftp://user@host").into())
        }
        _ => Ok(()),
    }
}

/// The password that the server took, whoever gave it.
#[derive(Debug, Default)]
struct Taken(Mutex<Option<(Account, Secret)>>);

impl Passwords for Taken {
    fn password(&self, _: &Account) -> Option<Secret> {
        None
    }

    fn accepted(&self, account: &Account, password: &Secret) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((account.clone(), password.clone()));
    }
}
