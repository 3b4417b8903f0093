//! Who asks when the system's `ssh` asks for a password: the server that is meant, or one on the way to it.

use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::endpoint::{Endpoint, Scheme};
use crate::transport::Account;

/// Tells questions of the target from those of servers on the way.
pub(super) struct Questioned {
    endpoint: Endpoint,
    /// As `ssh` is run.
    arguments: Vec<OsString>,
    way: OnceLock<Way>,
}

/// What `ssh`'s configuration makes of the target.
#[derive(Debug, PartialEq, Eq)]
struct Way {
    /// Servers on the way may ask as well.
    leads_through_others: bool,
    /// What `ssh` calls the target in its questions.
    names: Vec<String>,
}

impl Questioned {
    /// Takes the arguments that `ssh` is run with, up to the host.
    pub(super) fn new(endpoint: &Endpoint, arguments: Vec<OsString>) -> Self {
        Self { endpoint: endpoint.clone(), arguments, way: OnceLock::new() }
    }

    /// Returns whose password is asked for, where the question tells: `me@host's password: ` or `(me@host) Password: `.
    pub(super) fn account(&self, question: &str) -> Option<Account> {
        let question = question.trim();
        let who = match question.strip_prefix('(') {
            Some(rest) => rest.split_once(") ")?.0,
            None => question.rsplit_once("'s password")?.0,
        };
        let (user, host) = who.rsplit_once('@')?;
        // ssh writes the host in lower case, or the name that its configuration has for it.
        let port = if self.endpoint.host.eq_ignore_ascii_case(host) { self.endpoint.port } else { None };
        Some(Account { scheme: Scheme::Sftp, user: user.to_owned(), host: host.to_owned(), port })
    }

    /// Returns whether the target asks. When others may ask and a question doesn't tell who does, it is not the target.
    /// Runs `ssh -G` the first time.
    pub(super) fn is_by_target(&self, account: Option<&Account>) -> bool {
        !self.way().leads_through_others || account.is_some_and(|account| self.names_target(account))
    }

    /// Returns whether the account is one at the target. A name in a question may come from the server that asks.
    /// Runs `ssh -G` the first time.
    pub(super) fn names_target(&self, account: &Account) -> bool {
        let way = self.way();
        let typed = (!way.leads_through_others).then_some(&self.endpoint.host);
        way.names.iter().chain(typed).any(|name| name.eq_ignore_ascii_case(&account.host))
    }

    fn way(&self) -> &Way {
        self.way.get_or_init(|| self.find_way())
    }

    fn find_way(&self) -> Way {
        let mut command = Command::new("ssh");
        command.env_remove("HAUL_PASSWORD").arg("-G").args(&self.arguments).arg("--").arg(&self.endpoint.host);
        let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
        match output.ok().filter(|output| output.status.success()) {
            Some(output) => read_way(&String::from_utf8_lossy(&output.stdout)),
            // An ssh without -G is older than ProxyJump; whoever can't be told apart is told nothing.
            None => Way { leads_through_others: true, names: Vec::new() },
        }
    }
}

/// Reads what `ssh -G` says.
fn read_way(text: &str) -> Way {
    let value = |keyword: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(name, value)| *name == keyword && *value != "none").map(|(_, value)| value.to_owned())
    };
    Way {
        leads_through_others: value("proxyjump").or_else(|| value("proxycommand")).is_some(),
        names: value("hostkeyalias").or_else(|| value("hostname")).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_tells_whose_password_is_asked_for() {
        let questioned = Questioned::new(&Endpoint::parse("sftp://me@Host:2222/").unwrap(), Vec::new());
        let asked = |question| questioned.account(question).map(|a| (a.user, a.host, a.port));
        let account = |user: &str, host: &str, port| Some((user.to_owned(), host.to_owned(), port));
        assert_eq!(asked("me@host's password: "), account("me", "host", Some(2222)));
        assert_eq!(asked("(me@host) Password for me@there: "), account("me", "host", Some(2222)));
        assert_eq!(asked("me@gate's password:"), account("me", "gate", None));
        assert_eq!(asked("Password: "), None);
    }

    #[test]
    fn the_configuration_tells_who_else_can_ask() {
        let way = |leads_through_others, name: &str| Way { leads_through_others, names: vec![name.into()] };
        assert_eq!(read_way("host h\nhostname h\nproxycommand none\n"), way(false, "h"));
        assert_eq!(read_way("hostname 10.0.0.1\nproxyjump gate\n"), way(true, "10.0.0.1"));
        assert_eq!(read_way("hostname h\nhostkeyalias alias\nproxycommand nc gate\n"), way(true, "alias"));
    }

    #[test]
    fn only_the_target_is_told_when_others_can_ask() {
        let questioned = |way| Questioned {
            way: OnceLock::from(way),
            ..Questioned::new(&Endpoint::parse("sftp://h/").unwrap(), Vec::new())
        };
        let account = |host: &str| Account { scheme: Scheme::Sftp, user: "me".into(), host: host.into(), port: None };
        let way = |leads_through_others| Way { leads_through_others, names: vec!["H".into()] };
        let straight = questioned(way(false));
        assert!(straight.is_by_target(None) && straight.is_by_target(Some(&account("any"))));
        // Whoever asks may put another name into its question: that one's password is not for it.
        assert!(straight.names_target(&account("h")) && !straight.names_target(&account("bank")));
        let through = questioned(way(true));
        assert!(through.is_by_target(Some(&account("h"))));
        assert!(!through.is_by_target(Some(&account("gate"))) && !through.is_by_target(None));
    }
}
