//! What the first login of an endpoint found out, for its further connections.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use russh::keys::PrivateKey;
use tokio::sync::{OnceCell, OwnedMutexGuard};

use super::auth::lock;
use super::filed_key::describe;
use super::target::Target;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{HostKeyPolicy, Secret};

/// How many different banners of a server are shown.
const MOST_BANNERS: usize = 8;

/// What the person told at the first login and further connections of the same endpoint use again.
#[derive(Clone, Default)]
pub struct LoginCache {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    turn: Arc<tokio::sync::Mutex<()>>,
    target: OnceCell<Target>,
    /// Of the servers on the way.
    hops: Mutex<HashMap<String, LoginCache>>,
    settled: AtomicBool,
    host_key: Mutex<HostKey>,
    kept: Mutex<Kept>,
}

/// What came of looks at the host key.
#[derive(Default)]
struct HostKey {
    admitted: Option<Vec<u8>>,
    refused: Option<(Vec<u8>, String)>,
}

#[derive(Default)]
struct Kept {
    password: Option<Secret>,
    keys: HashMap<PathBuf, Arc<PrivateKey>>,
    /// By question, what the system's `ssh` was answered.
    answers: HashMap<String, Secret>,
    /// Name of the identity that the server took.
    identity: Option<String>,
    banners: Vec<String>,
    /// The first login was refused.
    refused: bool,
}

impl fmt::Debug for LoginCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoginCache(…)")
    }
}

impl LoginCache {
    /// Returns whom to reach, found out once: the configuration is read, and what it lacks is told, for all connections.
    ///
    /// # Errors
    /// Those of `find`.
    pub(super) async fn target(&self, find: impl Future<Output = Result<Target>>) -> Result<&Target> {
        self.inner.target.get_or_try_init(|| find).await
    }

    /// Returns who is where and by which way, as the configuration has it; `None` where the system's `ssh` knows that.
    pub fn place(&self) -> Option<String> {
        let target = self.inner.target.get()?;
        let host = target.host.to_ascii_lowercase();
        Some(format!("sftp {}@{host}:{} by {:?} ", target.user, target.port, target.way))
    }

    /// Returns the cache of a server on the way.
    pub(super) fn of_hop(&self, hop: &str) -> Self {
        lock(&self.inner.hops).entry(hop.to_owned()).or_default().clone()
    }

    /// Lets one login at a time through until the first succeeded, so that several connections don't ask everything
    /// several times; afterwards all of them at once, without a guard.
    ///
    /// # Errors
    /// `AuthFailed` when the first was refused: the others would ask the same again.
    pub(super) async fn turn(&self) -> Result<Option<OwnedMutexGuard<()>>> {
        if self.is_settled() {
            return Ok(None);
        }
        let turn = Arc::clone(&self.inner.turn).lock_owned().await;
        if self.kept().refused {
            return Err(Error::new(ErrorKind::AuthFailed, "the login was refused on another connection"));
        }
        Ok((!self.is_settled()).then_some(turn))
    }

    /// Notes how a login ended.
    pub(super) fn settle(&self, login: Result<(), ErrorKind>) {
        match login {
            Ok(()) => self.inner.settled.store(true, Ordering::Release),
            Err(ErrorKind::AuthFailed) if !self.is_settled() => self.kept().refused = true,
            Err(_) => {}
        }
    }

    /// Checks a host key that another connection may have seen already: a person is asked about it once, while others
    /// wait. Blocks.
    ///
    /// `check` is told what to do about a key that is not on file. Where another key was admitted before that is: refuse
    /// it. It is no new host any more, even if nothing could be written down.
    ///
    /// # Errors
    /// Those of `check`; `HostKey` for a key that was refused before.
    pub(super) fn admit(
        &self,
        key: &[u8],
        policy: HostKeyPolicy,
        check: impl FnOnce(HostKeyPolicy) -> Result<()>,
    ) -> Result<()> {
        let mut seen = lock(&self.inner.host_key);
        let checked = match (&seen.admitted, &seen.refused) {
            (Some(admitted), _) if admitted == key => return Ok(()),
            (_, Some((refused, why))) if refused == key => {
                let text = format!("the host key was refused on another connection: {why}");
                return Err(Error::new(ErrorKind::HostKey, text));
            }
            (Some(admitted), _) => check(HostKeyPolicy::Strict)
                .map_err(|e| e.context(format!("an earlier connection was shown {}", describe(admitted)))),
            (None, _) => check(policy),
        };
        match &checked {
            Ok(()) => seen.admitted = Some(key.into()),
            Err(e) => seen.refused = Some((key.into(), e.message().into())),
        }
        checked
    }

    /// Returns whether nobody was shown this banner yet and there were not too many, and notes that somebody is now.
    pub(super) fn is_new_banner(&self, text: &str) -> bool {
        let banners = &mut self.kept().banners;
        let is_new = banners.len() < MOST_BANNERS && !banners.iter().any(|shown| shown == text);
        if is_new {
            banners.push(text.to_owned());
        }
        is_new
    }

    pub(super) fn key(&self, path: &Path) -> Option<Arc<PrivateKey>> {
        self.kept().keys.get(path).cloned()
    }

    pub(super) fn keep_key(&self, path: &Path, key: &Arc<PrivateKey>) {
        self.kept().keys.insert(path.into(), Arc::clone(key));
    }

    /// Returns the password that worked before, if a person was asked for it.
    pub(super) fn password(&self) -> Option<Secret> {
        self.kept().password.clone()
    }

    pub(super) fn keep_password(&self, password: &Secret) {
        self.kept().password = Some(password.clone());
    }

    /// Returns the name of the identity that the server took before.
    pub(super) fn identity(&self) -> Option<String> {
        self.kept().identity.clone()
    }

    pub(super) fn keep_identity(&self, name: String) {
        self.kept().identity = Some(name);
    }

    /// Returns the answer to a question of `ssh` that was right before.
    pub(super) fn answer(&self, question: &str) -> Option<Secret> {
        self.kept().answers.get(question).cloned()
    }

    pub(super) fn keep_answer(&self, question: String, answer: Secret) {
        self.kept().answers.insert(question, answer);
    }

    /// Returns whether a login succeeded.
    pub(super) fn is_settled(&self) -> bool {
        self.inner.settled.load(Ordering::Acquire)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        lock(&self.inner.kept)
    }
}
