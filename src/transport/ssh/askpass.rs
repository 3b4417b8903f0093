//! How the system's `ssh` asks us: it runs this program as its `SSH_ASKPASS`, which asks back over a socket. Connections
//! through a proxy are asked for in the same way: see `openssh_dial`.
//!
//! Secrets pass through the socket and a pipe only. The environment names the socket; it lies in a folder that only this
//! user can enter, and lives until the login is done.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;
use tokio::task::{JoinHandle, spawn_blocking};
use zeroize::Zeroizing;

use super::auth::lock;
use super::cache::LoginCache;
use super::openssh_dial::{self, DIAL};
use super::openssh_target::Questioned;
use super::questions::asks_for_password;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::dial::Dialler;
use crate::transport::{Account, Passwords, Prompt, Secret, escape};

/// Names the socket in the environment of `ssh` and thereby of the askpass program.
const SOCKET: &str = "HAUL_ASKPASS_SOCKET";
/// The longest question that is read.
const LONGEST_QUESTION: u64 = 16 * 1024;
/// How long the askpass program may take to state its question.
const STATING: Duration = Duration::from_secs(5);
/// How often a wrong password is asked for again.
const TRIES: usize = 3;

/// The program that calls [`askpass_main`].
static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Answers `ssh` if this process was started as its askpass program: then the program must end with the code returned.
///
/// Call it first thing in `main`. It also makes this very program the one that `ssh` is told to run: without it the
/// `openssh` engine can't ask for passwords and only tries keys that need none.
pub fn askpass_main() -> Option<ExitCode> {
    let Some(socket) = std::env::var_os(SOCKET) else {
        if let Ok(program) = std::env::current_exe() {
            use_askpass_program(program);
        }
        return None;
    };
    let mut arguments = std::env::args_os().skip(1);
    let question = arguments.next().unwrap_or_default();
    let answered = match (arguments.next(), arguments.next()) {
        (Some(host), Some(port)) if question == DIAL => {
            fetch(Path::new(&socket), &openssh_dial::question(&host, &port))
        }
        _ => relay(Path::new(&socket), question.as_encoded_bytes()),
    };
    Some(if matches!(answered, Ok(true)) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Names another program that calls [`askpass_main`] first thing; for programs that embed this library. The first one
/// named stays.
pub fn use_askpass_program(program: PathBuf) {
    let _ = PROGRAM.set(program);
}

/// Returns the program by which `ssh` can ask us.
pub(super) fn program() -> Option<&'static Path> {
    PROGRAM.get().map(PathBuf::as_path)
}

/// Runs in the askpass program: passes the question on and the answer back. Returns whether there was one.
fn relay(socket: &Path, question: &[u8]) -> io::Result<bool> {
    let mut stream = BlockingStream::connect(socket)?;
    // ssh sets it for questions that want a yes or no.
    let kind = std::env::var_os("SSH_ASKPASS_PROMPT").unwrap_or_default();
    stream.write_all(kind.as_encoded_bytes())?;
    stream.write_all(b"\0")?;
    stream.write_all(question)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Zeroizing::new(Vec::new());
    stream.read_to_end(&mut answer)?;
    let Some((b'y', text)) = answer.split_first() else { return Ok(false) };
    let mut stdout = io::stdout().lock();
    stdout.write_all(text)?;
    stdout.write_all(b"\n")?;
    stdout.flush()?;
    Ok(true)
}

/// Runs as a `ProxyCommand`: fetches a connection and hands it to `ssh`. Returns whether there was one.
fn fetch(socket: &Path, question: &[u8]) -> io::Result<bool> {
    let mut stream = BlockingStream::connect(socket)?;
    stream.write_all(&[DIAL.as_bytes(), b"\0", question].concat())?;
    stream.shutdown(Shutdown::Write)?;
    let Some(connection) = openssh_dial::receive_socket(&stream)? else { return Ok(false) };
    openssh_dial::send_socket(io::stdout(), connection)?;
    Ok(true)
}

/// What answers are made of.
pub(super) struct Knowledge {
    pub(super) prompt: Arc<dyn Prompt>,
    pub(super) cache: LoginCache,
    /// The password that needs no question.
    pub(super) password: Option<Secret>,
    /// What connections are made by.
    pub(super) dialler: Option<Arc<Dialler>>,
    /// Where another may be kept.
    pub(super) passwords: Arc<dyn Passwords>,
    /// Tells whose password is asked for.
    pub(super) questioned: Questioned,
}

/// The listening end, for one login.
pub(super) struct Askpass {
    folder: PathBuf,
    answering: JoinHandle<()>,
    state: Arc<State>,
}

struct State {
    knowledge: Knowledge,
    /// Questions that wait for a person.
    asking: AtomicUsize,
    /// The last answer was a password that is kept.
    gave_kept: AtomicBool,
    /// What was answered in this login: kept if it succeeds, and not given again if `ssh` asks a second time.
    given: Mutex<Vec<(String, Secret)>>,
    /// The question that nobody could answer.
    unanswered: Mutex<Option<String>>,
    gave_up: tokio::sync::Notify,
    /// Why there is no connection.
    undialled: Mutex<Option<Error>>,
}

impl Drop for Askpass {
    fn drop(&mut self) {
        self.answering.abort();
        let _ = std::fs::remove_file(self.folder.join("ask"));
        let _ = std::fs::remove_dir(&self.folder);
    }
}

impl Askpass {
    /// Starts to listen and tells `ssh` where; `None` when no program was named that could ask.
    pub(super) fn start(command: &mut Command, knowledge: Knowledge) -> Result<Option<Self>> {
        let Some(program) = PROGRAM.get() else { return Ok(None) };
        let setup = |e: io::Error| Error::io("prepare to be asked by ssh", e);
        let mut random = [0; 12];
        getrandom::fill(&mut random).map_err(|e| setup(e.into()))?;
        let name: String = random.iter().map(|byte| char::from(b'a' + byte % 26)).collect();
        let folder = std::env::temp_dir().join(format!("haul-{name}"));
        std::fs::DirBuilder::new().mode(0o700).create(&folder).map_err(setup)?;
        let listener = UnixListener::bind(folder.join("ask")).map_err(|e| {
            let _ = std::fs::remove_dir(&folder);
            setup(e)
        })?;
        command.env("SSH_ASKPASS", program).env("SSH_ASKPASS_REQUIRE", "force").env(SOCKET, folder.join("ask"));
        if std::env::var_os("DISPLAY").is_none() {
            // Before OpenSSH 8.4 this was what decided.
            command.env("DISPLAY", ":");
        }
        let state = Arc::new(State {
            knowledge,
            asking: AtomicUsize::new(0),
            gave_kept: AtomicBool::new(false),
            given: Mutex::default(),
            unanswered: Mutex::default(),
            gave_up: tokio::sync::Notify::new(),
            undialled: Mutex::default(),
        });
        let answering = tokio::spawn(answer_all(listener, Arc::clone(&state)));
        Ok(Some(Self { folder, answering, state }))
    }

    /// Returns whether a person, or a proxy, is being asked right now.
    pub(super) fn is_asking(&self) -> bool {
        self.state.asking.load(Ordering::Acquire) > 0
    }

    /// Waits for a question that nobody can answer and returns it.
    pub(super) async fn unanswered(&self) -> String {
        loop {
            let woken = self.state.gave_up.notified();
            if let Some(question) = lock(&self.state.unanswered).clone() {
                return question;
            }
            woken.await;
        }
    }

    /// Takes the error of a connection that couldn't be made.
    pub(super) fn take_undialled(&self) -> Option<Error> {
        lock(&self.state.undialled).take()
    }

    /// The login succeeded: what was answered is right.
    pub(super) fn keep_answers(&self) {
        for (question, answer) in lock(&self.state.given).drain(..) {
            if let Some(account) = self.state.knowledge.questioned.account(&question) {
                self.state.knowledge.passwords.accepted(&account, &answer);
            }
            self.state.knowledge.cache.keep_answer(question, answer);
        }
    }
}

async fn answer_all(listener: UnixListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            if let Err(e) = answer_one(stream, &state).await {
                tracing::debug!("askpass: {e}");
            }
        });
    }
}

async fn answer_one(mut stream: UnixStream, state: &Arc<State>) -> io::Result<()> {
    let mut request = Vec::new();
    tokio::time::timeout(STATING, (&mut stream).take(LONGEST_QUESTION).read_to_end(&mut request)).await??;
    let text = String::from_utf8_lossy(&request).into_owned();
    let (kind, question) = text.split_once('\0').unwrap_or(("", &text));
    let (kind, question) = (kind.to_owned(), question.to_owned());
    state.asking.fetch_add(1, Ordering::AcqRel);
    if let (DIAL, Some(dialler)) = (&*kind, &state.knowledge.dialler) {
        let dialled = dial(dialler, &question).await;
        state.asking.fetch_sub(1, Ordering::AcqRel);
        return match dialled {
            Ok(tcp) => openssh_dial::send_socket(&stream, tcp),
            Err(e) => {
                *lock(&state.undialled) = Some(e);
                Ok(())
            }
        };
    }
    let thinking = Arc::clone(state);
    let answer = spawn_blocking(move || thinking.answer(&kind, &question)).await.unwrap_or_default();
    state.asking.fetch_sub(1, Ordering::AcqRel);
    if let Some(answer) = answer {
        let reply = Zeroizing::new([b"y", answer.expose().as_bytes()].concat());
        stream.write_all(&reply).await?;
    }
    stream.shutdown().await
}

/// Makes a connection for `ssh`, which wants a socket that blocks.
async fn dial(dialler: &Arc<Dialler>, question: &str) -> Result<std::net::TcpStream> {
    let (host, port) = openssh_dial::asked(question)
        .ok_or_else(|| Error::new(ErrorKind::Protocol, "ssh asks for a connection to nowhere"))?;
    let tcp = dialler.dial(host, port).await?.tcp.into_std();
    tcp.and_then(|tcp| tcp.set_nonblocking(false).map(|()| tcp)).map_err(|e| Error::io("set up the connection", e))
}

impl State {
    fn answer(&self, kind: &str, question: &str) -> Option<Secret> {
        let answer = match kind {
            // A message while something is waited for, as a touch on a security key.
            "none" => {
                self.knowledge.prompt.notice(&shown(question));
                return None;
            }
            "confirm" => self.confirm(question),
            _ => match question.rfind("(yes/no") {
                Some(end) => self.confirm(question[..end].trim_end()),
                None => self.secret(question),
            },
        };
        if answer.is_none() {
            let again = lock(&self.given).iter().any(|(asked, _)| asked == question);
            *lock(&self.unanswered) = Some(format!("{}{}", if again { "again: " } else { "" }, question.trim()));
            self.gave_up.notify_waiters();
        }
        answer
    }

    fn confirm(&self, question: &str) -> Option<Secret> {
        let yes = self.knowledge.prompt.confirm(&shown(question))?;
        Some(Secret::new(if yes { "yes" } else { "no" }))
    }

    fn secret(&self, question: &str) -> Option<Secret> {
        let is_passphrase = question.contains("passphrase");
        let is_password = !is_passphrase && asks_for_password(question);
        let before = lock(&self.given).iter().filter(|(asked, _)| asked == question).count();
        if before == TRIES {
            return None;
        }
        let account = self.knowledge.questioned.account(question);
        if before > 0
            && self.gave_kept.swap(false, Ordering::AcqRel)
            && let Some(account) = &account
        {
            self.knowledge.passwords.refused(account);
        }
        let known = match before {
            0 if is_password => self.password(question, account.as_ref()),
            0 if is_passphrase => self.knowledge.cache.answer(question),
            _ => None,
        };
        let answer = match known {
            Some(known) => known,
            None => self.knowledge.prompt.secret(&format!("{} ", shown(question)))?,
        };
        if is_password || is_passphrase {
            lock(&self.given).push((question.to_owned(), answer.clone()));
        }
        Some(answer)
    }

    /// Returns the password that needs no person: the one that was given, that worked before, or that is kept.
    fn password(&self, question: &str, account: Option<&Account>) -> Option<Secret> {
        let given = self.knowledge.password.clone();
        // A server on the way is not told the password of the one behind it.
        let given = given.filter(|_| self.knowledge.questioned.is_by_target(account));
        given.or_else(|| self.knowledge.cache.answer(question)).or_else(|| {
            // Only to the server that is meant: the text of a question, and the name in it, may be another server's.
            let account = account.filter(|account| self.knowledge.questioned.names_target(account))?;
            let kept = self.knowledge.passwords.password(account)?;
            self.gave_kept.store(true, Ordering::Release);
            Some(kept)
        })
    }
}

/// The text comes from a program that repeats what servers say.
fn shown(question: &str) -> String {
    question.trim().lines().map(|line| escape(line.as_bytes())).collect::<Vec<_>>().join("\n")
}
