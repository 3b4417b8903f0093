//! Passwords that are kept for logins: in the keyring, else in the netrc.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use haul::config::netrc::Netrc;
use haul::transport::{Account, Passwords, Secret};
use haul::{Error, ErrorKind};

use super::keyring;
use super::report::Report;
use super::settings::files::{Which, shown};

/// The keyring and the netrc files of one run, each read once.
#[derive(Debug)]
pub(crate) struct Kept {
    report: Arc<Report>,
    netrcs: Mutex<Vec<(Which, Arc<Netrc>)>>,
}

/// What one endpoint's settings let it look into.
#[derive(Debug)]
pub(crate) struct KeptFor {
    kept: Arc<Kept>,
    netrc: Which,
}

impl Kept {
    /// Looks nowhere yet.
    pub(crate) fn new(report: Arc<Report>) -> Self {
        Self { report, netrcs: Mutex::default() }
    }

    /// Makes what an endpoint may look into: the keyring, and this netrc.
    ///
    /// # Errors
    /// `Usage` when the netrc was named and can't be read.
    pub(crate) fn with(self: &Arc<Self>, netrc: Which) -> Result<Arc<KeptFor>, Error> {
        if matches!(netrc, Which::Named(_)) {
            self.netrc(&netrc)?;
        }
        Ok(Arc::new(KeptFor { kept: Arc::clone(self), netrc }))
    }

    /// Returns who logs in at a host by FTP if nobody says so.
    ///
    /// # Errors
    /// `Usage` when the netrc was named and can't be read.
    pub(crate) fn user(&self, netrc: &Which, host: &str) -> Result<Option<String>, Error> {
        Ok(self.netrc(netrc)?.find(host, None).and_then(|entry| entry.login.clone()))
    }

    /// Returns what the netrc gives to an FTP server that asks for an account (ACCT) of this user.
    pub(crate) fn ftp_account(&self, netrc: &Which, host: &str, user: &str) -> Result<Option<Secret>, Error> {
        Ok(self.netrc(netrc)?.find(host, Some(user)).and_then(|entry| entry.account.clone()))
    }

    fn netrc(&self, which: &Which) -> Result<Arc<Netrc>, Error> {
        let mut netrcs = self.netrcs();
        if let Some((_, read)) = netrcs.iter().find(|(known, _)| known == which) {
            return Ok(Arc::clone(read));
        }
        let netrc = match (self.read(which), which) {
            (Ok(netrc), _) => netrc,
            (Err(error), Which::Named(_)) => return Err(error),
            // Nobody asked for it: it is no reason not to go on.
            (Err(error), _) => {
                self.report.warn(&error.chain());
                Netrc::default()
            }
        };
        netrcs.push((which.clone(), Arc::new(netrc)));
        Ok(Arc::clone(&netrcs[netrcs.len() - 1].1))
    }

    fn read(&self, which: &Which) -> Result<Netrc, Error> {
        let Some(text) = which.read()? else { return Ok(Netrc::default()) };
        let path = shown(which.path().unwrap_or(Path::new("")));
        let netrc = Netrc::read(&text.text)
            .map_err(|fault| Error::new(ErrorKind::Usage, fault.to_string()).at(format!("{path}:{}", fault.line)))?;
        if text.is_public() && netrc.holds_secrets() {
            self.report.warn(&format!("{path}: others can read the passwords in this file; chmod 600 it"));
        }
        Ok(netrc)
    }

    fn netrcs(&self) -> MutexGuard<'_, Vec<(Which, Arc<Netrc>)>> {
        self.netrcs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeptFor {
    fn line_of_netrc(&self, account: &Account) -> Option<String> {
        let netrc = self.kept.netrc(&self.netrc).ok()?;
        let entry = netrc.find(&account.host, Some(&account.user))?;
        Some(format!("{}:{}", self.netrc.path().map(shown).unwrap_or_default(), entry.line))
    }
}

impl Passwords for KeptFor {
    fn password(&self, account: &Account) -> Option<Secret> {
        let url = keyring::url_of(account);
        if let Some(password) = keyring::find(account) {
            tracing::info!("{url}: the password comes from the {}", keyring::NAME);
            return Some(password);
        }
        let netrc = self.kept.netrc(&self.netrc).ok()?;
        let entry = netrc.find(&account.host, Some(&account.user))?;
        let path = self.netrc.path().map(shown).unwrap_or_default();
        tracing::info!("{url}: the password comes from {path}, line {}", entry.line);
        entry.password.clone()
    }

    fn refused(&self, account: &Account) {
        let url = keyring::url_of(account);
        let hint = match self.line_of_netrc(account).filter(|_| keyring::find(account).is_none()) {
            Some(place) => format!("the password comes from {place}"),
            None => {
                format!("the password was kept for {url}: haul login {url} puts another into the {}", keyring::NAME)
            }
        };
        self.kept.report.hint(&hint);
    }
}
