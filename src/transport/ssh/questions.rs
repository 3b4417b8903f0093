//! The server's questions of keyboard-interactive (RFC 4256), and who answers them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::auth::lock;
use crate::transport::{Prompt, Secret, escape};

/// Answers questions, round after round. Blocks while a person is asked.
pub(super) struct Answers {
    who: String,
    prompt: Arc<dyn Prompt>,
    password: Mutex<Option<Secret>>,
    used_password: Mutex<Option<Secret>>,
    person_asked: AtomicBool,
    unanswered: Mutex<Option<String>>,
}

impl Answers {
    /// `password` answers the first question that asks for one.
    pub(super) fn new(who: &str, prompt: &Arc<dyn Prompt>, password: Option<Secret>) -> Self {
        Self {
            who: who.to_owned(),
            prompt: Arc::clone(prompt),
            password: Mutex::new(password),
            used_password: Mutex::default(),
            person_asked: AtomicBool::new(false),
            unanswered: Mutex::default(),
        }
    }

    /// Returns one answer for each `(question, echo)`; `None` when nobody can answer.
    pub(super) fn answer(&self, name: &str, instructions: &str, questions: &[(String, bool)]) -> Option<Vec<Secret>> {
        for text in [name, instructions].into_iter().filter(|text| !text.trim().is_empty()) {
            self.prompt.notice(&shown(text));
        }
        questions.iter().map(|(text, echo)| self.answer_one(text, *echo)).collect()
    }

    /// Returns the question that stayed without an answer.
    pub(super) fn unanswered(&self) -> Option<String> {
        lock(&self.unanswered).clone()
    }

    /// Returns whether a person was asked anything.
    pub(super) fn person_asked(&self) -> bool {
        self.person_asked.load(Ordering::Acquire)
    }

    /// Returns the password that was used as an answer.
    pub(super) fn used_password(&self) -> Option<Secret> {
        lock(&self.used_password).take()
    }

    /// Returns the password that no question asked for.
    pub(super) fn unused_password(&self) -> Option<Secret> {
        lock(&self.password).take()
    }

    fn answer_one(&self, text: &str, echo: bool) -> Option<Secret> {
        let is_password = !echo && asks_for_password(text);
        if is_password && let Some(password) = lock(&self.password).take() {
            *lock(&self.used_password) = Some(password.clone());
            return Some(password);
        }
        self.person_asked.store(true, Ordering::Release);
        let question = format!("({}) {} ", self.who, shown(text));
        let answer = if echo { self.prompt.line(&question).map(Secret::new) } else { self.prompt.secret(&question) };
        let Some(answer) = answer else {
            lock(&self.unanswered).get_or_insert_with(|| shown(text));
            return None;
        };
        if is_password {
            *lock(&self.used_password) = Some(answer.clone());
        }
        Some(answer)
    }
}

fn shown(text: &str) -> String {
    text.trim().lines().map(|line| escape(line.as_bytes())).collect::<Vec<_>>().join("\n")
}

/// How servers call a password.
const PASSWORDS: [&str; 22] = [
    "password",
    "passwort",
    "kennwort",
    "mot de passe",
    "contraseña",
    "contrasenya",
    "senha",
    "wachtwoord",
    "lösenord",
    "adgangskode",
    "passord",
    "salasana",
    "hasło",
    "heslo",
    "jelszó",
    "lozinka",
    "parola",
    "парол",
    "密码",
    "密碼",
    "비밀번호",
    "パスワード",
];
/// Words of questions for what is used once, or for another password than that of today.
const OTHERS: [&str; 13] = [
    "code",
    "otp",
    "token",
    "verif",
    "one-time",
    "one time",
    "factor",
    "pin ",
    "pin:",
    "new password",
    "retype",
    "again",
    "passcode",
];

/// Returns whether a question asks for the password, and for nothing that is used once.
pub(super) fn asks_for_password(text: &str) -> bool {
    let text = text.to_lowercase();
    PASSWORDS.iter().any(|word| text.contains(word)) && !OTHERS.iter().any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_questions_for_the_password_are_for_it() {
        for (text, expected) in [
            ("Password: ", true),
            ("me@host's password: ", true),
            ("(current) UNIX password: ", true),
            ("Passwort:", true),
            ("Mot de passe : ", true),
            ("Verification code: ", false),
            ("Passcode or option (1-3): ", false),
            ("One-time password (OATH) for `me': ", false),
            ("YubiKey for `me': ", false),
            ("Enter PIN: ", false),
            ("New password: ", false),
            ("Retype new password: ", false),
            ("Password + token: ", false),
            ("Your mother's name? ", false),
            ("", false),
        ] {
            assert_eq!(asks_for_password(text), expected, "{text}");
        }
    }
}
