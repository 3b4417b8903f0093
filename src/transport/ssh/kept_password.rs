//! The password that a keyring or the like has for a login: it is tried once, and its keeper is told what became of it.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::authenticator::Outcome;
use crate::transport::{Account, Passwords, Secret};

/// Where a password may be kept.
pub(super) struct KeptPassword {
    keeper: Arc<dyn Passwords>,
    account: Account,
    state: State,
}

/// What became of the password that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It was not looked up yet.
    Unknown,
    /// It is the one that is tried.
    Tried,
    /// There is none, or another was tried, or it was of no use.
    Done,
}

impl KeptPassword {
    /// Prepares; nobody is asked yet.
    pub(super) fn of(account: &Account, keeper: &Arc<dyn Passwords>) -> Self {
        Self { keeper: Arc::clone(keeper), account: account.clone(), state: State::Unknown }
    }

    /// Looks it up, once, unless a password is known: what was given goes before what is kept, and one of them is tried,
    /// no more.
    pub(super) async fn look_unless(&mut self, known: &mut Option<Secret>) {
        if self.state != State::Unknown {
            return;
        }
        self.state = State::Done;
        if known.is_some() {
            return;
        }
        let (keeper, account) = (Arc::clone(&self.keeper), self.account.clone());
        *known = spawn_blocking(move || keeper.password(&account)).await.ok().flatten();
        if known.is_some() {
            self.state = State::Tried;
        }
    }

    /// Tells the keeper what the server thinks of this password.
    pub(super) fn judge(&mut self, password: &Secret, outcome: &Outcome) {
        let was = std::mem::replace(&mut self.state, State::Done);
        match (outcome, was) {
            (Outcome::Refused { partial: false, .. }, State::Tried) => self.keeper.refused(&self.account),
            (Outcome::Refused { partial: false, .. }, _) => {}
            _ => self.keeper.accepted(&self.account, password),
        }
    }
}
