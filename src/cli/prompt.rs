//! The person at the terminal, asked while the bars are out of the way.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::sync::{Arc, Mutex, PoisonError};

use haul::transport::{Prompt, Secret, escape};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::screen::{Screen, escape_lines};
use super::secret_line::read_secret;
use super::terminal;

/// Asks on the controlling terminal, whatever standard input and output are, as ssh does.
#[derive(Debug)]
pub(crate) struct TerminalPrompt {
    screen: Arc<Screen>,
    quiet: bool,
}

/// The terminal while a secret is asked for; for an exit or a stop in between.
static ASKING: Mutex<Option<Asking>> = Mutex::new(None);

struct Asking {
    terminal: File,
    before: Termios,
    silent: Termios,
    question: String,
}

impl TerminalPrompt {
    /// Makes the prompt; nobody is asked yet. `quiet` leaves out notices.
    pub(crate) fn new(screen: Arc<Screen>, quiet: bool) -> Self {
        Self { screen, quiet }
    }

    fn ask(&self, question: &str) -> Option<String> {
        let mut terminal = open_terminal()?;
        self.screen.suspend(|| {
            write!(terminal, "{}", escape_lines(question)).ok()?;
            let mut line = String::new();
            let length = BufReader::new(terminal).read_line(&mut line).ok()?;
            (length > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
        })
    }
}

impl Prompt for TerminalPrompt {
    fn secret(&self, question: &str) -> Option<Secret> {
        let mut terminal = open_terminal()?;
        let before = tcgetattr(&terminal).ok()?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        silent.local_modes.insert(LocalModes::ECHONL);
        let question = escape_lines(question);
        let asking = Asking {
            terminal: terminal.try_clone().ok()?,
            before: before.clone(),
            silent: silent.clone(),
            question: question.clone(),
        };
        *ASKING.lock().unwrap_or_else(PoisonError::into_inner) = Some(asking);
        let answer = self.screen.suspend(|| {
            // What was typed ahead was seen, and wasn't meant for this question.
            tcsetattr(&terminal, OptionalActions::Flush, &silent).ok()?;
            write!(terminal, "{question}").ok()?;
            read_secret(&terminal).ok().flatten()
        });
        *ASKING.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let _ = tcsetattr(&terminal, OptionalActions::Now, &before);
        answer
    }

    fn line(&self, question: &str) -> Option<String> {
        self.ask(question)
    }

    fn confirm(&self, question: &str) -> Option<bool> {
        let mut question = question.to_owned();
        loop {
            match self.ask(&format!("{} [yes/no] ", question.trim_end()))?.trim().to_ascii_lowercase().as_str() {
                "yes" | "y" => return Some(true),
                "no" | "n" => return Some(false),
                _ => "Please type yes or no:".clone_into(&mut question),
            }
        }
    }

    fn is_anybody_there(&self) -> bool {
        open_terminal().is_some()
    }

    fn notice(&self, text: &str) {
        if !self.quiet {
            for line in text.lines() {
                self.screen.line(&format!("haul: {}", escape(line.as_bytes())));
            }
        }
    }
}

/// Switches the echo on again if somebody was being asked for a secret.
pub(crate) fn restore_terminal() {
    if let Some(asking) = ASKING.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = tcsetattr(&asking.terminal, OptionalActions::Now, &asking.before);
        let _ = writeln!(&asking.terminal);
    }
}

/// Switches the echo on while the program is stopped.
pub(crate) fn let_go() {
    if let Some(asking) = &*ASKING.lock().unwrap_or_else(PoisonError::into_inner) {
        terminal::set(&asking.terminal, &asking.before);
    }
}

/// Goes on asking for a secret: where the echo is on, switches it off again and repeats the question.
pub(crate) fn take_back() {
    if let Some(asking) = &*ASKING.lock().unwrap_or_else(PoisonError::into_inner)
        && tcgetattr(&asking.terminal).is_ok_and(|now| now.local_modes.contains(LocalModes::ECHO))
        && terminal::set(&asking.terminal, &asking.silent)
    {
        let _ = write!(&asking.terminal, "{}", asking.question);
    }
}

fn open_terminal() -> Option<File> {
    OpenOptions::new().read(true).write(true).open("/dev/tty").ok()
}
