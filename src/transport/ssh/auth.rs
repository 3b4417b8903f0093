//! Who we are and how we prove it: one policy for the engines that log in themselves.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use russh::keys::PrivateKey;
use tokio::sync::OwnedMutexGuard;
use tokio::task::spawn_blocking;

use super::authenticator::{Authenticator, Outcome};
use super::cache::LoginCache;
use super::identity::{Identity, LockedKey, Origin, Public, Why};
use super::kept_password::KeptPassword;
use super::keys::identities;
use super::questions::Answers;
use super::target::{Method, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{ConnectOptions, Prompt, Secret, escape};

/// How many keys are offered to one server while there is another way in: OpenSSH's `MaxAuthTries` is 6, and a password
/// should still have its try.
const KEY_OFFERS: usize = 5;
/// The method that keys log in by.
const PUBLIC_KEY: &str = "publickey";

/// Logs in: by keys, password and the server's questions, in the order that the target wants, going on after a partial
/// success.
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
        methods: target.methods.clone(),
        identities: identities(target, options.timeout, cache).await?.into(),
        keys_offered: 0,
        known: target.password.clone().or_else(|| options.password.clone()),
        password_prompts: target.password_prompts,
        kept: KeptPassword::of(&target.account, &options.passwords),
        asked: 0,
        question_rounds: 0,
        // Not asked for: a key is worth a try wherever there is one, and its refusal tells what the server offers.
        offered: vec![PUBLIC_KEY.into()],
        tried: Vec::new(),
        tries: 0,
        current: None,
        hint: None,
    };
    if !login.can_ask_nobody() {
        login.wait_for_turn().await?;
        // By now, what was asked for is known.
        login.identities = identities(target, options.timeout, cache).await?.into();
        login.start_with_what_worked();
    }
    let result = login.run(engine).await.map_err(|error| login.explained(error));
    cache.settle(result.as_ref().map(drop).map_err(Error::kind));
    result
}

struct Login {
    who: String,
    prompt: Arc<dyn Prompt>,
    cache: LoginCache,
    turn: Turn,
    methods: Vec<Method>,
    identities: VecDeque<Identity>,
    keys_offered: usize,
    /// The password that needs no question, until it was used.
    known: Option<Secret>,
    password_prompts: usize,
    kept: KeptPassword,
    asked: usize,
    question_rounds: usize,
    offered: Vec<String>,
    tried: Vec<String>,
    /// How many attempts the server may have counted.
    tries: usize,
    /// What the server is looking at.
    current: Option<String>,
    hint: Option<&'static str>,
}

/// Whether it is this login's turn to ask a person.
enum Turn {
    NotTaken,
    Taken { _guard: Option<OwnedMutexGuard<()>> },
}

/// What to try next.
enum Step {
    Key(Box<Identity>),
    Password(Secret),
    Questions,
}

impl Login {
    async fn run(&mut self, engine: &mut dyn Authenticator) -> Result<()> {
        let keys_first = self.methods.first() == Some(&Method::PublicKey) && !engine.asks_first();
        let first = if keys_first { self.next_identity(engine) } else { None };
        let mut outcome = match first {
            Some(identity) => self.try_identity(engine, identity).await?,
            None => engine.none().await?,
        };
        loop {
            match outcome {
                Outcome::Success => return Ok(()),
                Outcome::Refused { offered, .. } => self.offered = offered,
            }
            self.current = None;
            outcome = match self.next_step(engine).await? {
                Some(Step::Key(identity)) => self.try_identity(engine, *identity).await?,
                Some(Step::Password(password)) => self.try_password(engine, &password).await?,
                Some(Step::Questions) => match self.try_questions(engine).await? {
                    Some(outcome) => outcome,
                    None => return Err(self.failure()),
                },
                None => return Err(self.failure()),
            };
        }
    }

    async fn next_step(&mut self, engine: &dyn Authenticator) -> Result<Option<Step>> {
        for method in self.methods.clone() {
            if !self.offers(method.name()) {
                continue;
            }
            if method != Method::PublicKey {
                self.wait_for_turn().await?;
            }
            let step = match method {
                Method::PublicKey if self.keys_offered >= KEY_OFFERS => None,
                Method::PublicKey => self.next_identity(engine).map(Box::new).map(Step::Key),
                Method::Password => self.next_password().await.map(Step::Password),
                Method::KeyboardInteractive => self.may_be_asked().await.then_some(Step::Questions),
            };
            if step.is_some() {
                return Ok(step);
            }
        }
        // Nothing else is left that the server's last tries could be saved for.
        Ok(self.next_identity(engine).map(Box::new).map(Step::Key))
    }

    /// Whether there is one key, and nothing stands between it and the server: then there is no need to wait for
    /// another connection's login, which would try the same.
    fn can_ask_nobody(&self) -> bool {
        let one = self.identities.front().is_some_and(|first| self.identities.iter().all(|other| other.is_of(first)));
        one && self.identities.iter().all(|identity| matches!(identity.origin, Origin::Ready(_)))
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

    /// Returns the next identity that can be tried; what can't is noted on the way.
    fn next_identity(&mut self, engine: &dyn Authenticator) -> Option<Identity> {
        if !self.offers(PUBLIC_KEY) || !self.methods.contains(&Method::PublicKey) {
            return None;
        }
        while let Some(identity) = self.identities.pop_front() {
            if let Origin::Useless(why) = &identity.origin {
                self.note_useless(&identity.name, why);
            } else if let Some(lack) = engine.lacks(&identity) {
                self.tried.push(format!("{} ({lack})", identity.name));
            } else {
                return Some(identity);
            }
        }
        None
    }

    fn note_useless(&mut self, name: &str, why: &Why) {
        self.tried.push(format!("{name} ({})", why.text()));
        self.hint = self.hint.or(why.hint());
    }

    async fn try_identity(&mut self, engine: &mut dyn Authenticator, identity: Identity) -> Result<Outcome> {
        self.current = Some(identity.name.clone());
        let outcome = match (&identity.origin, &identity.public) {
            (Origin::Agent(held), Some(public)) => engine.agent_key(public, held).await?,
            (Origin::Ready(key), Some(public)) => engine.key(key, public).await?,
            (Origin::Locked(locked), public) => {
                // No passphrase is asked for a key that the server doesn't want.
                let refusal = match public {
                    Some(public) => engine.refuses(public).await?,
                    None => None,
                };
                match (refusal, public) {
                    (Some(refusal), _) => refusal,
                    (None, public) => match self.unlocked(locked).await {
                        Some(key) => {
                            let plain = || Public::Key(key.public_key().clone());
                            engine.key(&key, &public.clone().unwrap_or_else(plain)).await?
                        }
                        None => {
                            self.tried.push(format!("{} (no passphrase)", identity.name));
                            return Ok(Outcome::Refused { offered: self.offered.clone(), partial: false });
                        }
                    },
                }
            }
            (Origin::Agent(_) | Origin::Ready(_) | Origin::Useless(_), _) => {
                return Ok(Outcome::Refused { offered: self.offered.clone(), partial: false });
            }
        };
        self.judge_key(identity, &outcome);
        Ok(outcome)
    }

    fn judge_key(&mut self, identity: Identity, outcome: &Outcome) {
        match outcome {
            // The server took no key just now, whichever: this one may have its turn after another method.
            Outcome::Refused { partial: false, offered } if !offered.iter().any(|method| method == PUBLIC_KEY) => {
                self.tries += 1;
                self.note(identity.name.clone());
                self.identities.push_front(identity);
            }
            Outcome::Refused { partial: false, .. } => {
                self.tries += 1;
                self.keys_offered += 1;
                self.note(identity.name);
            }
            _ => {
                self.tried.push(format!("{} (accepted)", identity.name));
                self.cache.keep_identity(identity.name);
            }
        }
    }

    /// Notes what was tried; the last time counts.
    fn note(&mut self, name: String) {
        self.tried.retain(|before| *before != name);
        self.tried.push(name);
    }

    /// Asks for a passphrase; who doesn't know it isn't asked again for the same file.
    async fn unlocked(&mut self, locked: &LockedKey) -> Option<Arc<PrivateKey>> {
        let (key, prompt, cache) = (locked.clone(), Arc::clone(&self.prompt), self.cache.clone());
        let key = spawn_blocking(move || key.unlock(&*prompt, &cache)).await.ok().flatten();
        if key.is_none() {
            let is_same = |other: &Origin| matches!(other, Origin::Locked(other) if other.path == locked.path);
            self.identities.retain(|identity| !is_same(&identity.origin));
        }
        key
    }

    async fn next_password(&mut self) -> Option<Secret> {
        self.kept.look_unless(&mut self.known).await;
        if let Some(known) = self.known.take() {
            return Some(known);
        }
        if self.asked >= self.password_prompts {
            return None;
        }
        self.asked += 1;
        let (prompt, question) = (Arc::clone(&self.prompt), format!("Password for {}: ", self.who));
        let answer = spawn_blocking(move || prompt.secret(&question)).await.ok().flatten();
        if answer.is_none() {
            self.asked = self.password_prompts;
        }
        answer
    }

    async fn try_password(&mut self, engine: &mut dyn Authenticator, password: &Secret) -> Result<Outcome> {
        self.current = Some("password".into());
        let outcome = engine.password(password).await?;
        self.kept.judge(password, &outcome);
        self.tries += 1;
        self.tried.push("password".into());
        if !matches!(outcome, Outcome::Refused { partial: false, .. }) {
            self.cache.keep_password(password);
        }
        Ok(outcome)
    }

    /// Whether the server's questions may find an answer.
    async fn may_be_asked(&mut self) -> bool {
        if self.question_rounds >= self.password_prompts {
            return false;
        }
        self.kept.look_unless(&mut self.known).await;
        let answerable = self.known.is_some() || self.prompt.is_anybody_there();
        if !answerable {
            self.question_rounds = self.password_prompts;
            self.tried.push("keyboard-interactive (nobody is there to answer)".into());
            self.hint = self.hint.or(Some(
                "name the right key with -i, give a password (HAUL_PASSWORD, --password-file), or answer at a terminal",
            ));
        }
        answerable
    }

    /// Returns `None` when nobody could answer: the server still waits, and nothing else can be tried.
    async fn try_questions(&mut self, engine: &mut dyn Authenticator) -> Result<Option<Outcome>> {
        self.question_rounds += 1;
        self.current = Some("keyboard-interactive".into());
        let answers = Arc::new(Answers::new(&self.who, &self.prompt, self.known.take()));
        let outcome = engine.questions(&answers).await;
        if let Some(question) = answers.unanswered() {
            self.tried.push(format!("keyboard-interactive (nobody answered {question:?})"));
            self.hint =
                Some("run at a terminal to answer the server's questions; a password answers only a question for it");
            return Ok(None);
        }
        let outcome = outcome?;
        self.tries += 1;
        self.tried.push("keyboard-interactive".into());
        if !answers.person_asked() {
            // The same again would end the same.
            self.question_rounds = self.password_prompts;
        }
        // It may be of use yet, for another method or another round.
        self.known = answers.unused_password();
        if let Some(password) = answers.used_password() {
            self.kept.judge(&password, &outcome);
            if !matches!(outcome, Outcome::Refused { partial: false, .. }) {
                self.cache.keep_password(&password);
            }
        }
        Ok(Some(outcome))
    }

    /// Says what was tried when the server ended the conversation instead of answering. Not to be tried again by itself:
    /// servers lock out who does.
    fn explained(&mut self, error: Error) -> Error {
        let Some(current) = self.current.take().filter(|_| error.kind() == ErrorKind::ConnectionLost) else {
            return error;
        };
        if self.cache.is_settled() && self.tries == 0 {
            // What opened the door before would have opened it again.
            return error;
        }
        self.note(current);
        let text = format!("the server ended the login at try {}: tried {}", self.tries + 1, self.tried.join(", "));
        let hint =
            "servers count tries: name the right key with -i, or by IdentityFile and IdentitiesOnly in ~/.ssh/config";
        Error::new(ErrorKind::AuthFailed, text).at(&self.who).with_source(error).with_hint(hint)
    }

    fn failure(&mut self) -> Error {
        // Those that were never fit to be tried are told all the same.
        while let Some(identity) = self.identities.pop_front() {
            if let Origin::Useless(why) = &identity.origin {
                self.note_useless(&identity.name, &why.clone());
            }
        }
        self.tried.dedup();
        let tried = if self.tried.is_empty() { "nothing".into() } else { self.tried.join(", ") };
        let offered = if self.offered.is_empty() { "nothing more".into() } else { self.offered.join(", ") };
        let text = format!("login refused: tried {tried}; the server offers {}", escape(offered.as_bytes()));
        Error::new(ErrorKind::AuthFailed, text).at(&self.who).with_hint(self.advice())
    }

    fn advice(&self) -> &'static str {
        if let Some(hint) = self.hint {
            hint
        } else if self.tried.iter().any(|tried| tried.contains("no passphrase")) {
            "add the key to the ssh-agent, or run at a terminal to be asked for its passphrase"
        } else if self.offers("password") || self.offers("keyboard-interactive") {
            "check user and password (--password-file, HAUL_PASSWORD, or at a terminal), or name a key with --identity"
        } else if self.offers("gssapi-with-mic") && !self.offers(PUBLIC_KEY) {
            "the server wants Kerberos, which --ssh-engine openssh can do"
        } else {
            "the server wants a key: name one with --identity, and check that the server has its public half"
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
