//! One run of the system's `ssh`: from its start to the login, and what its words mean when it ends.

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::askpass::{Askpass, Knowledge};
use super::auth::lock;
use super::cache::LoginCache;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Prompt, escape};

/// How much of what `ssh` says is kept for the error message.
const WORDS: usize = 4096;
/// The longest line that is read as one.
const LINE: u64 = 8192;
/// How long `ssh` may take to end once its work is over.
const FAREWELL: Duration = Duration::from_secs(2);

/// A run of `ssh` that is logged in.
pub(super) struct Run {
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: ChildStdout,
    child: Child,
    words: Arc<Words>,
    listening: JoinHandle<()>,
}

/// What `ssh` says on standard error.
#[derive(Default)]
struct Words {
    /// What was said during the login: banner, warnings.
    greeting: Mutex<String>,
    text: Mutex<String>,
    logged_in: Mutex<bool>,
    news: Notify,
}

impl Run {
    /// Starts `ssh` and waits until it is logged in.
    ///
    /// # Errors
    /// The kind that its words stand for; `Timeout` when it says nothing for `limit` and no person is being asked.
    pub(super) async fn start(mut command: Command, knowledge: Knowledge, limit: Duration) -> Result<Self> {
        let (prompt, cache) = (Arc::clone(&knowledge.prompt), knowledge.cache.clone());
        let askpass = Askpass::start(&mut command, knowledge)?;
        let mut run = Self::spawn(command)?;
        loop {
            let news = run.words.news.notified();
            if *lock(&run.words.logged_in) {
                break;
            }
            let unanswered = async {
                match &askpass {
                    Some(askpass) => askpass.unanswered().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = run.child.wait() => {
                    let undialled = askpass.as_ref().and_then(Askpass::take_undialled);
                    return Err(match undialled {
                        Some(error) => error,
                        None => run.failure().await,
                    });
                }
                question = unanswered => return Err(nobody_answers(&question)),
                () = news => {}
                () = tokio::time::sleep(limit) => {
                    if !askpass.as_ref().is_some_and(Askpass::is_asking) {
                        return Err(Error::new(ErrorKind::Timeout, "ssh: the server doesn't answer"));
                    }
                }
            }
        }
        if let Some(askpass) = &askpass {
            askpass.keep_answers();
        }
        run.show_words(&cache, &prompt).await;
        Ok(run)
    }

    fn spawn(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for us to handle: it must not cut the connection under a transfer that is being wound up.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| {
                Error::io("start the system's ssh", e)
                    .with_kind(ErrorKind::Unsupported)
                    .with_hint("install OpenSSH's client, or use --ssh-engine russh")
            })?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Error::new(ErrorKind::Other, "start the system's ssh"));
        };
        let words = Arc::new(Words::default());
        let listening = tokio::spawn(listen(stderr, Arc::clone(&words)));
        Ok(Self { stdin: Some(stdin), stdout, child, words, listening })
    }

    /// Shows what `ssh` said during the login: the server's banner, warnings.
    async fn show_words(&self, cache: &LoginCache, prompt: &Arc<dyn Prompt>) {
        let text = std::mem::take(&mut *lock(&self.words.greeting));
        super::show_banner(cache, prompt, &text).await;
    }

    /// Waits for the end; `ssh` is killed if it doesn't come.
    async fn end(&mut self) -> Option<ExitStatus> {
        self.stdin = None;
        let status = tokio::time::timeout(FAREWELL, self.child.wait()).await.ok().and_then(std::result::Result::ok);
        if status.is_none() {
            let _ = self.child.kill().await;
        }
        // A process that `ssh` left behind may hold the pipe.
        let _ = tokio::time::timeout(FAREWELL, &mut self.listening).await;
        status
    }

    /// Waits for the end and says why it came.
    pub(super) async fn failure(&mut self) -> Error {
        let _ = self.end().await;
        failure(&lock(&self.words.text), *lock(&self.words.logged_in))
    }

    /// Waits for the end of a command; returns its status and standard error, or the failure of `ssh` itself.
    pub(super) async fn command_status(&mut self) -> Result<(Option<u32>, String)> {
        let status = self.end().await.and_then(|status| status.code()).and_then(|code| u32::try_from(code).ok());
        match status {
            // ssh's own failures; a command that ends like this can't be told apart.
            Some(255) => Err(failure(&lock(&self.words.text), true)),
            status => Ok((status, std::mem::take(&mut *lock(&self.words.text)))),
        }
    }

    /// Ends it at once.
    pub(super) async fn kill(&mut self) {
        let _ = self.child.kill().await;
    }
}

async fn listen(stderr: ChildStderr, words: Arc<Words>) {
    let mut stderr = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut stderr).take(LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => words.hear(&String::from_utf8_lossy(&line)),
        }
    }
}

impl Words {
    /// `-v` makes ssh tell how far it is: each such line counts as progress, and one says that we are in.
    fn hear(&self, line: &str) {
        let line = line.trim_end_matches(['\r', '\n']);
        let told = line.strip_prefix("debug1: ");
        let said = told.unwrap_or(line);
        // Not "Authenticated to": the ssh of a server on the way says that as well, into the same pipe.
        if said.starts_with("Sending subsystem: ")
            || said.starts_with("Sending command: ")
            || said.contains("mux_client_request_session: master session id")
        {
            if !std::mem::replace(&mut *lock(&self.logged_in), true) {
                *lock(&self.greeting) = std::mem::take(&mut *lock(&self.text));
            }
        } else if told.is_none() && !is_chatter(line) {
            let mut text = lock(&self.text);
            if text.len() + line.len() < WORDS {
                text.push_str(line);
                text.push('\n');
            }
        }
        self.news.notify_one();
    }
}

/// What `-v` adds without marking it.
fn is_chatter(line: &str) -> bool {
    ["OpenSSH_", "debug2: ", "debug3: ", "Transferred: sent ", "Bytes per second: sent "]
        .iter()
        .any(|start| line.starts_with(start))
}

fn nobody_answers(question: &str) -> Error {
    if question.contains("authenticity of host") {
        let fingerprint = question.split_whitespace().find(|word| word.starts_with("SHA256:")).unwrap_or_default();
        let fingerprint = escape(fingerprint.trim_end_matches('.').as_bytes());
        return Error::new(ErrorKind::HostKey, format!("the host key is not known: {fingerprint}"))
            .with_hint(UNKNOWN_HOST);
    }
    Error::new(
        ErrorKind::AuthFailed,
        format!("ssh asks \"{}\" and nobody can answer", escape(question.trim().as_bytes())),
    )
    .with_hint(
        "give a password by --password-file or HAUL_PASSWORD, put the key into the ssh-agent, or run at a terminal",
    )
}

const UNKNOWN_HOST: &str =
    "compare the fingerprint, then connect once with --host-key accept-new, or file the key with ssh-keyscan";

/// The map from ssh's words to kinds.
fn failure(words: &str, logged_in: bool) -> Error {
    let has = |any: &[&str]| any.iter().any(|part| words.contains(part));
    let lost = if logged_in { ErrorKind::ConnectionLost } else { ErrorKind::TooManyConnections };
    let kind = if has(&["Host key verification failed", "HOST IDENTIFICATION HAS CHANGED", "REVOKED HOST KEY"]) {
        ErrorKind::HostKey
    } else if has(&["Permission denied", "Too many authentication failures", "No more authentication methods"]) {
        ErrorKind::AuthFailed
    } else if has(&["Connection refused", "No route to host", "is unreachable", "Could not resolve", "not known"]) {
        ErrorKind::ConnectionRefused
    } else if has(&["timed out", "Timeout, server", "not responding"]) {
        ErrorKind::Timeout
    } else if has(&["subsystem request failed", "Unable to negotiate", "command not found"]) {
        ErrorKind::Unsupported
    } else if has(&["Bad configuration option", "Bad owner or permissions", "terminating, ", "command-line line"]) {
        ErrorKind::Usage
    } else if has(&["open failed"]) {
        ErrorKind::TooManyConnections
    } else if has(&["kex_exchange_identification", "Connection closed", "Connection reset", "Broken pipe"]) {
        lost
    } else {
        ErrorKind::ConnectionLost
    };
    let lines: Vec<_> = words
        .lines()
        .map(|line| line.trim().trim_matches('@').trim())
        .filter(|line| !line.is_empty())
        .map(|line| escape(line.as_bytes()))
        .collect();
    let text = if lines.is_empty() { "the connection is closed".to_owned() } else { lines.join(" ") };
    let error = Error::new(kind, format!("ssh: {text}"));
    match kind {
        ErrorKind::HostKey if has(&["HOST IDENTIFICATION HAS CHANGED", "REVOKED HOST KEY"]) => error.with_hint(
            "somebody else may answer in the server's place; ask its operator, and only if the key was changed there \
             remove the old one with ssh-keygen -R",
        ),
        ErrorKind::HostKey => error.with_hint(UNKNOWN_HOST),
        ErrorKind::AuthFailed => error.with_hint(
            "check user, keys and password; ssh -v with the same host shows what was tried and what the server offers",
        ),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_login_of_a_server_on_the_way_is_not_ours() {
        let words = Words::default();
        words.hear("debug1: Authenticated to gate ([10.0.0.1]:22) using \"publickey\".");
        words.hear("Welcome to the gate");
        assert!(!*lock(&words.logged_in));
        words.hear("debug1: Sending subsystem: sftp");
        words.hear("subsystem request failed on channel 0");
        assert!(*lock(&words.logged_in));
        // The banner and the reason are kept apart.
        assert_eq!(*lock(&words.greeting), "Welcome to the gate\n");
        assert_eq!(*lock(&words.text), "subsystem request failed on channel 0\n");
    }
}
