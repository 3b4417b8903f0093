//! What the lines of a script do on this machine.

use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use haul::batch::Action;
use haul::transport::escape;
use haul::{Error, ErrorKind};
use tokio::process::Command;

use super::session::{Session, os_path};
use crate::cli::report::Result;

/// Does what a line says.
pub(super) async fn act(session: &mut Session<'_>, action: &Action) -> Result<()> {
    match action {
        Action::LocalCd(to) => {
            let to = session.near(to.as_deref().filter(|to| !to.is_empty()).unwrap_or(b"~"));
            let failed = |e| Error::io("go to the directory", e).at(escape(to.as_os_str().as_bytes()));
            // As the system would call it, without links and dots.
            let real = to.canonicalize().map_err(failed)?;
            if !real.is_dir() {
                return Err(failed(std::io::ErrorKind::NotADirectory.into()).into());
            }
            session.near = real;
        }
        Action::LocalPwd => {
            session.say(&[b"Local working directory: ", session.near.as_os_str().as_bytes(), b"\n"].concat())?;
        }
        Action::LocalMkdir(path) => {
            let path = os_path(&session.near, path);
            let failed = |e| Error::io("make the directory", e).at(escape(path.as_os_str().as_bytes()));
            std::fs::create_dir(&path).map_err(failed)?;
        }
        Action::LocalUmask(mask) => {
            // The script's owner wants it for all that it makes from now on.
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(*mask));
            session.say(format!("Local umask: {mask:03o}\n").as_bytes())?;
        }
        Action::LocalList(what) => shell(session, &[b"ls ", what.as_slice()].concat()).await?,
        Action::Shell(line) => shell(session, line).await?,
        _ => return Err(Error::new(ErrorKind::Unsupported, "no such command").into()),
    }
    Ok(())
}

/// Runs a line in the user's shell, or the shell itself. How it ends is told and is no failure, as with sftp.
async fn shell(session: &Session<'_>, line: &[u8]) -> Result<()> {
    let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".into());
    let mut command = Command::new(&shell);
    if !line.is_empty() {
        command.arg("-c").arg(std::ffi::OsStr::from_bytes(line));
    }
    // A password is for haul alone.
    command.env_remove("HAUL_PASSWORD").current_dir(&session.near).stdin(Stdio::inherit()).kill_on_drop(true);
    let failed = |e| Error::io("run the shell", e).at(escape(shell.as_bytes()));
    let status = command.spawn().map_err(failed)?.wait().await.map_err(failed)?;
    if !status.success() {
        session.context.screen.line(&format!("haul: the shell ended with {status}"));
    }
    Ok(())
}
