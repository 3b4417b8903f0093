//! Who we are and how we prove it: one policy for the engines that log in themselves.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use russh::keys::{PrivateKey, PublicKey};
use tokio::sync::OwnedMutexGuard;
use tokio::task::spawn_blocking;

use super::cache::LoginCache;
use super::keys::{Identity, Origin, identities};
use super::target::Target;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Account, ConnectOptions, Passwords, Prompt, Secret, escape};

/// How many keys are offered to one server: OpenSSH's `MaxAuthTries` is 6, and a password should still have its try.
const KEY_OFFERS: usize = 5;
/// How often a password is asked for, as OpenSSH does.
const PASSWORD_TRIES: usize = 3;
/// The method that keys log in by.
const PUBLIC_KEY: &str = "publickey";

/// The server's answer to one attempt.
#[derive(Debug)]
pub(super) enum Outcome {
    /// We are in.
    Success,
    /// Not yet: what the server offers now.
    Refused {
        /// Methods that can continue.
        offered: Vec<String>,
        /// The attempt was right but isn't enough.
        partial: bool,
    },
}

/// What an engine can do to log in. Each call ends within the timeout.
#[async_trait]
pub(super) trait Authenticator: Send {
    /// Whether to ask what the server offers before a key is tried: a trip that some engines need.
    fn asks_first(&self) -> bool {
        false
    }

    /// Asks what the server offers.
    async fn none(&mut self) -> Result<Outcome>;

    /// Returns the refusal if the server doesn't want this key, `None` if it does or if that can't be asked.
    async fn refuses(&mut self, key: &PublicKey) -> Result<Option<Outcome>>;

    /// Logs in with a private key.
    async fn key(&mut self, key: &Arc<PrivateKey>) -> Result<Outcome>;

    /// Logs in with a key that the agent holds.
    async fn agent_key(&mut self, key: &PublicKey) -> Result<Outcome>;

    /// Logs in with a password.
    async fn password(&mut self, password: &Secret) -> Result<Outcome>;

    /// Logs in by answering the server's questions.
    async fn questions(&mut self, answers: &Arc<Answers>) -> Result<Outcome>;
}

/// Returns the name of the user here.
pub(super) fn local_user() -> Option<String> {
    let mut from_environment = ["USER", "LOGNAME"].iter().filter_map(|name| std::env::var(name).ok());
    from_environment.find(|user| !user.is_empty()).or_else(account_name)
}

/// Looks the effective user up in the password file.
fn account_name() -> Option<String> {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    })
}

/// Logs in: keys first, then password, then the server's questions, going on after a partial success.
///
/// # Errors
/// `AuthFailed` with what was tried and what the server offers.
pub(super) async fn log_in(
    engine: &mut dyn Authenticator,
    target: &Target,
    options: &ConnectOptions,
    cache: &LoginCache,
) -> Result<()> {
    let mut login = Login {
        who: format!("{}@{}", escape(target.user.as_bytes()), target.name),
        prompt: Arc::clone(&options.prompt),
        cache: cache.clone(),
        turn: Turn::NotTaken,
        identities: identities(target, options.timeout, cache).await?.into(),
        key_offers: KEY_OFFERS,
        known: target.password.clone().or_else(|| options.password.clone()),
        kept: Kept { passwords: Arc::clone(&options.passwords), account: target.account.clone(), is: KeptIs::Unknown },
        asked: 0,
        question_rounds: 0,
        // Not asked for: a key is worth a try wherever there is one, and its refusal tells what the server offers.
        offered: vec![PUBLIC_KEY.into()],
        tried: Vec::new(),
    };
    if !login.can_ask_nobody() {
        login.wait_for_turn().await?;
        // By now, what was asked for is known.
        login.identities = identities(target, options.timeout, cache).await?.into();
        login.start_with_what_worked();
    }
    let result = login.run(engine).await;
    cache.settle(result.as_ref().map(drop).map_err(Error::kind));
    result
}

struct Login {
    who: String,
    prompt: Arc<dyn Prompt>,
    cache: LoginCache,
    turn: Turn,
    identities: VecDeque<Identity>,
    key_offers: usize,
    /// The password that needs no question, until it was used.
    known: Option<Secret>,
    kept: Kept,
    asked: usize,
    question_rounds: usize,
    offered: Vec<String>,
    tried: Vec<String>,
}

/// Where a password may be kept.
struct Kept {
    passwords: Arc<dyn Passwords>,
    account: Account,
    is: KeptIs,
}

/// What became of the password that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeptIs {
    /// It was not looked up yet.
    Unknown,
    /// It is the one that is tried.
    Tried,
    /// There is none, or another was tried, or it was of no use.
    Done,
}

/// Whether it is this login's turn to ask a person.
enum Turn {
    NotTaken,
    Taken { _guard: Option<OwnedMutexGuard<()>> },
}

impl Login {
    async fn run(&mut self, engine: &mut dyn Authenticator) -> Result<()> {
        let first = if engine.asks_first() { None } else { self.next_identity() };
        let mut outcome = match first {
            Some(identity) => self.try_identity(engine, identity).await?,
            None => engine.none().await?,
        };
        loop {
            match outcome {
                Outcome::Success => return Ok(()),
                Outcome::Refused { offered, .. } => self.offered = offered,
            }
            if let Some(identity) = self.next_identity() {
                outcome = self.try_identity(engine, identity).await?;
                continue;
            }
            self.wait_for_turn().await?;
            outcome = if let Some(password) = self.next_password().await {
                self.tried.push("password".into());
                let outcome = engine.password(&password).await?;
                self.tell_keeper(&password, &outcome);
                if !matches!(outcome, Outcome::Refused { partial: false, .. }) {
                    self.cache.keep_password(&password);
                }
                outcome
            } else if self.offers("keyboard-interactive") && self.question_rounds < PASSWORD_TRIES {
                match self.try_questions(engine).await? {
                    Some(outcome) => outcome,
                    None => return Err(self.failure()),
                }
            } else {
                return Err(self.failure());
            };
        }
    }

    /// Whether there is one key, and nothing stands between it and the server: then there is no need to wait for
    /// another connection's login, which would try the same.
    fn can_ask_nobody(&self) -> bool {
        self.identities.len() == 1 && matches!(self.identities[0].origin, Origin::Ready(_))
    }

    /// Waits until no other login of this endpoint may be asking somebody.
    async fn wait_for_turn(&mut self) -> Result<()> {
        if matches!(self.turn, Turn::NotTaken) {
            self.turn = Turn::Taken { _guard: self.cache.turn().await? };
            self.known = self.known.take().or_else(|| self.cache.password());
        }
        Ok(())
    }

    fn start_with_what_worked(&mut self) {
        if let Some(worked) = self.cache.identity()
            && let Some(at) = self.identities.iter().position(|identity| identity.name == worked)
            && let Some(identity) = self.identities.remove(at)
        {
            self.identities.push_front(identity);
        }
    }

    fn offers(&self, method: &str) -> bool {
        self.offered.iter().any(|offered| offered == method)
    }

    fn next_identity(&mut self) -> Option<Identity> {
        if !self.offers(PUBLIC_KEY) || self.key_offers == 0 {
            return None;
        }
        self.identities.pop_front()
    }

    async fn try_identity(&mut self, engine: &mut dyn Authenticator, identity: Identity) -> Result<Outcome> {
        self.key_offers -= 1;
        let refused = Outcome::Refused { offered: self.offered.clone(), partial: false };
        let outcome = match (identity.origin, &identity.public) {
            (Origin::Agent, Some(public)) => engine.agent_key(public).await?,
            (Origin::Agent, None) => refused,
            (Origin::Ready(key), _) => engine.key(&key).await?,
            (Origin::Locked(locked), public) => {
                // No passphrase is asked for a key that the server doesn't want.
                if let Some(public) = public
                    && let Some(refusal) = engine.refuses(public).await?
                {
                    self.tried.push(identity.name);
                    return Ok(refusal);
                }
                let (prompt, cache) = (Arc::clone(&self.prompt), self.cache.clone());
                let key = spawn_blocking(move || locked.unlock(&*prompt, &cache)).await.ok().flatten();
                let Some(key) = key else {
                    self.tried.push(format!("{} (no passphrase)", identity.name));
                    return Ok(refused);
                };
                engine.key(&key).await?
            }
        };
        if matches!(outcome, Outcome::Refused { partial: false, .. }) {
            self.tried.push(identity.name);
        } else {
            self.tried.push(format!("{} (accepted)", identity.name));
            self.cache.keep_identity(identity.name);
        }
        Ok(outcome)
    }

    async fn next_password(&mut self) -> Option<Secret> {
        if !self.offers("password") {
            return None;
        }
        if let Some(known) = self.known_password().await {
            return Some(known);
        }
        if self.asked == PASSWORD_TRIES {
            return None;
        }
        self.asked += 1;
        let (prompt, question) = (Arc::clone(&self.prompt), format!("Password for {}: ", self.who));
        let answer = spawn_blocking(move || prompt.secret(&question)).await.ok().flatten();
        if answer.is_none() {
            self.asked = PASSWORD_TRIES;
        }
        answer
    }

    /// Returns the password that needs no person, the first time. What was given goes before what is kept: one of them is
    /// tried, no more.
    async fn known_password(&mut self) -> Option<Secret> {
        let was = std::mem::replace(&mut self.kept.is, KeptIs::Done);
        if let Some(known) = self.known.take() {
            return Some(known);
        }
        if was != KeptIs::Unknown {
            return None;
        }
        let (passwords, account) = (Arc::clone(&self.kept.passwords), self.kept.account.clone());
        let found = spawn_blocking(move || passwords.password(&account)).await.ok().flatten()?;
        self.kept.is = KeptIs::Tried;
        Some(found)
    }

    /// Tells whoever keeps passwords what the server thinks of this one.
    fn tell_keeper(&mut self, password: &Secret, outcome: &Outcome) {
        let Kept { passwords, account, is } = &mut self.kept;
        let was = std::mem::replace(is, KeptIs::Done);
        match (outcome, was) {
            (Outcome::Refused { partial: false, .. }, KeptIs::Tried) => passwords.refused(account),
            (Outcome::Refused { partial: false, .. }, _) => {}
            _ => passwords.accepted(account, password),
        }
    }

    /// Returns `None` when nobody could answer.
    async fn try_questions(&mut self, engine: &mut dyn Authenticator) -> Result<Option<Outcome>> {
        self.question_rounds += 1;
        let password = self.known_password().await;
        let answers = Arc::new(Answers {
            who: self.who.clone(),
            prompt: Arc::clone(&self.prompt),
            password: Mutex::new(password),
            used_password: Mutex::new(None),
            person_asked: AtomicBool::new(false),
            gave_up: AtomicBool::new(false),
        });
        self.tried.push("keyboard-interactive".into());
        let outcome = engine.questions(&answers).await?;
        if answers.gave_up() {
            return Ok(None);
        }
        if !answers.person_asked.load(Ordering::Acquire) {
            // The same again would end the same.
            self.question_rounds = PASSWORD_TRIES;
        }
        let password = lock(&answers.used_password).take();
        if let Some(password) = password {
            self.tell_keeper(&password, &outcome);
            if !matches!(outcome, Outcome::Refused { partial: false, .. }) {
                self.cache.keep_password(&password);
            }
        }
        Ok(Some(outcome))
    }

    fn failure(&mut self) -> Error {
        self.tried.dedup();
        let tried = if self.tried.is_empty() { "nothing".into() } else { self.tried.join(", ") };
        let offered = if self.offered.is_empty() { "nothing more".into() } else { self.offered.join(", ") };
        let left = self.identities.len();
        let untried =
            if left > 0 && self.key_offers == 0 { format!("; {left} more keys were not tried") } else { String::new() };
        let offered = escape(offered.as_bytes());
        let text = format!("login refused: tried {tried}; the server offers {offered}{untried}");
        let hint = if left > 0 && self.key_offers == 0 {
            "name the right key with --identity"
        } else if self.tried.iter().any(|tried| tried.contains("no passphrase")) {
            "add the key to the ssh-agent, or run at a terminal to be asked for its passphrase"
        } else if self.offered.iter().any(|method| method == "password" || method == "keyboard-interactive") {
            "check user and password (--password-file, HAUL_PASSWORD, or at a terminal), or name a key with --identity"
        } else {
            "the server wants a key: name one with --identity, and check that the server has its public half"
        };
        Error::new(ErrorKind::AuthFailed, text).at(&self.who).with_hint(hint)
    }
}

/// Answers the questions of keyboard-interactive (RFC 4256). Blocks while a person is asked.
pub(super) struct Answers {
    who: String,
    prompt: Arc<dyn Prompt>,
    password: Mutex<Option<Secret>>,
    used_password: Mutex<Option<Secret>>,
    person_asked: AtomicBool,
    gave_up: AtomicBool,
}

impl Answers {
    /// Returns one answer for each `(question, echo)`; `None` when nobody can answer.
    pub(super) fn answer(&self, name: &str, instructions: &str, questions: &[(String, bool)]) -> Option<Vec<Secret>> {
        for text in [name, instructions].into_iter().filter(|text| !text.trim().is_empty()) {
            self.prompt.notice(&escape(text.trim().as_bytes()));
        }
        let alone = questions.len() == 1;
        let answers: Option<_> = questions.iter().map(|(text, echo)| self.answer_one(text, *echo, alone)).collect();
        if answers.is_none() {
            self.gave_up.store(true, Ordering::Release);
        }
        answers
    }

    /// Returns whether a question stayed without an answer.
    pub(super) fn gave_up(&self) -> bool {
        self.gave_up.load(Ordering::Acquire)
    }

    fn answer_one(&self, text: &str, echo: bool, alone: bool) -> Option<Secret> {
        let is_password = !echo && asks_for_password(text, alone);
        if is_password && let Some(password) = lock(&self.password).take() {
            *lock(&self.used_password) = Some(password.clone());
            return Some(password);
        }
        self.person_asked.store(true, Ordering::Release);
        let question = format!("({}) {} ", self.who, escape(text.trim().as_bytes()));
        if echo {
            return self.prompt.line(&question).map(Secret::new);
        }
        let answer = self.prompt.secret(&question)?;
        if is_password {
            *lock(&self.used_password) = Some(answer.clone());
        }
        Some(answer)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A single hidden question is the password, in whatever language, unless it names something that is used once.
pub(super) fn asks_for_password(text: &str, alone: bool) -> bool {
    let text = text.to_lowercase();
    let once = ["code", "otp", "token", "verif", "one-time", "factor", "pin"].iter().any(|word| text.contains(word));
    (alone || text.contains("password")) && !once
}
