//! The person at the terminal, asked while the bars are out of the way.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::sync::{Arc, Mutex, PoisonError};

use haul::transport::{Prompt, Secret, escape};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::screen::{Screen, escape_lines};
use super::secret_line::read_secret;

/// Asks on the controlling terminal, whatever standard input and output are, as ssh does.
#[derive(Debug)]
pub(crate) struct TerminalPrompt {
    screen: Arc<Screen>,
    quiet: bool,
}

/// The terminal and how it was before a secret was asked for; for an exit in between.
static BEFORE: Mutex<Option<(File, Termios)>> = Mutex::new(None);

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
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some((terminal.try_clone().ok()?, before.clone()));
        let answer = self.screen.suspend(|| {
            // What was typed ahead was seen, and wasn't meant for this question.
            tcsetattr(&terminal, OptionalActions::Flush, &silent).ok()?;
            write!(terminal, "{}", escape_lines(question)).ok()?;
            read_secret(&terminal).ok().flatten()
        });
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = None;
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
    if let Some((terminal, before)) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = tcsetattr(&terminal, OptionalActions::Now, &before);
        let _ = writeln!(&terminal);
    }
}

fn open_terminal() -> Option<File> {
    OpenOptions::new().read(true).write(true).open("/dev/tty").ok()
}
