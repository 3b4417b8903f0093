//! What the lines of a script do at the server, and which do something here.

use std::sync::Arc;

use haul::batch::{Action, Braces, Word};
use haul::endpoint::Scheme;
use haul::plan;
use haul::transport::{DiskSpace, Durability, Owner, RemotePath, Replace, SetMetadata};
use haul::{Error, ErrorKind};

use super::session::{Next, Session};
use super::{listing, local};
use crate::cli::context::{Context, name_of};
use crate::cli::report::Result;

const HELP: &str = "\
bye, exit, quit                    end
cd [PATH], lcd [PATH]              go to a directory of the server, of this machine
chgrp GROUP PATH                   change the group, a number
chmod MODE PATH                    change the mode, octal
chown USER PATH                    change the owner, a number
copy, cp OLD NEW                   copy a file of the server
df [-hi] [PATH]                    show how full a file system is
get, reget [-afpR] REMOTE [LOCAL]  download
help, ?                            show this
lls [WHAT], lmkdir PATH, lpwd      list, make, show directories of this machine
ln [-s] OLD NEW, symlink OLD NEW   make a link
ls [-1afhlnrSt] [PATH]             list a directory
lumask MASK                        set this machine's umask
mkdir PATH, rmdir PATH             make or remove a directory
progress                           show progress or not
put, reput [-afpR] LOCAL [REMOTE]  upload
pwd                                show the directory of the server
rename [-l] OLD NEW                rename
rm PATH                            remove files
version                            show the protocol
!COMMAND                           run it in a shell of this machine
";

impl Session<'_> {
    /// Does what a line says that moves no files.
    pub(super) async fn act(&mut self, action: &Action, context: &Arc<Context>) -> Result<Next> {
        match action {
            Action::Cd(to) => {
                let to = to.as_ref().filter(|to| !to.is_empty());
                let to = to.map_or_else(|| Ok(self.home.clone()), |to| self.path(to))?;
                self.enter(to).await?;
            }
            Action::Pwd => self.say(&[b"Remote working directory: ", self.here.as_bytes(), b"\n"].concat())?,
            Action::List(word, flags) => listing::list(self, word.as_ref(), *flags).await?,
            Action::Mkdir(path) => {
                let path = self.path(path)?;
                let made = self.server()?.transport.create_dir(&path).await;
                made.map_err(|e| self.at(e, &path))?;
            }
            Action::Rmdir(path) => {
                let path = self.path(path)?;
                let removed = self.server()?.transport.remove_dir(&path).await;
                removed.map_err(|e| self.at(e, &path))?;
            }
            Action::Rm(word) => self.each(word, context, Change::Remove).await?,
            Action::Chmod(mode, word) => self.each(word, context, Change::Mode(*mode)).await?,
            Action::Chown(owner, word) => self.each(word, context, Change::Owner(*owner)).await?,
            Action::Rename { from, to, replaces } => {
                let (from, to) = (self.path(from)?, self.path(to)?);
                let replace = if *replaces { Replace::Yes } else { Replace::No };
                let renamed = self.server()?.transport.rename(&from, &to, replace, Durability::Cached).await;
                renamed.map_err(|e| self.at(e, &from))?;
            }
            Action::HardLink(from, to) => {
                let (from, to) = (self.path(from)?, self.path(to)?);
                let linked = self.server()?.transport.hard_link(&from, &to).await;
                linked.map_err(|e| self.at(e, &from))?;
            }
            Action::Symlink(target, link) => {
                let link = self.path(link)?;
                let made = self.server()?.transport.symlink(target, &link).await;
                made.map_err(|e| self.at(e, &link))?;
            }
            Action::Df { human, inodes, path } => {
                let path = self.path(path.as_deref().unwrap_or(b"."))?;
                let space = self.server()?.transport.disk_space(&path).await;
                let space = space.map_err(|e| self.at(e, &path))?;
                self.say(disk_space(&space, *human, *inodes).as_bytes())?;
            }
            Action::Version => {
                let text = match self.endpoint.scheme {
                    Scheme::Sftp => "SFTP protocol version 3\n".to_owned(),
                    other => format!("{} protocol\n", other.name().to_ascii_uppercase()),
                };
                self.say(text.as_bytes())?;
            }
            Action::Help => self.say(HELP.as_bytes())?,
            Action::Progress => {
                let word = if self.toggle_progress() { "enabled" } else { "disabled" };
                self.say(format!("Progress meter {word}\n").as_bytes())?;
            }
            Action::Quit => return Ok(Next::End),
            local => local::act(self, local).await?,
        }
        Ok(Next::Line)
    }

    /// Writes data.
    pub(super) fn say(&self, text: &[u8]) -> Result<()> {
        Ok(self.context.stdout.write(text)?)
    }

    fn at(&self, error: Error, path: &RemotePath) -> Error {
        error.at(name_of(&self.endpoint, path))
    }

    /// Changes each file that a word names; what fails doesn't keep the others from being changed.
    async fn each(&self, word: &Word, context: &Arc<Context>, change: Change) -> Result<()> {
        let place = self.far(&word.pattern(Braces::Literal), &word.literal())?;
        for (path, _) in plan::expand(&place).await? {
            let transport = &place.transport;
            let changed = match change {
                Change::Remove => transport.remove_file(&path).await,
                Change::Mode(mode) => {
                    transport.set_metadata(&path, SetMetadata { mode: Some(mode), mtime: None }).await
                }
                Change::Owner(owner) => transport.set_owner(&path, owner).await,
            };
            if let Err(error) = changed {
                let lost = error.kind().is_retryable() || error.kind() == ErrorKind::Cancelled;
                context.report.failed(self.at(error, &path));
                if lost {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// What becomes of a file.
#[derive(Debug, Clone, Copy)]
enum Change {
    Remove,
    Mode(u32),
    Owner(Owner),
}

/// Writes it as sftp does.
fn disk_space(space: &DiskSpace, human: bool, inodes: bool) -> String {
    let share = |whole: u64, free: u64| match whole {
        0 => "ERR".to_owned(),
        whole => {
            let share = u128::from(whole.saturating_sub(free)) * 100 / u128::from(whole);
            format!("{share:3}%")
        }
    };
    if inodes {
        let DiskSpace { files, free_files, available_files, .. } = *space;
        let used = files.saturating_sub(free_files);
        let share = share(files, free_files);
        return format!(
            "     Inodes        Used       Avail      (root)    %Capacity\n\
             {files:>11} {used:>11} {available_files:>11} {free_files:>11}         {share}\n"
        );
    }
    let used = space.bytes.saturating_sub(space.free_bytes);
    let share = share(space.bytes, space.free_bytes);
    let numbers = [space.bytes, used, space.available_bytes, space.free_bytes];
    if human {
        let [size, used, avail, root] = numbers.map(scaled);
        return format!(
            "    Size     Used    Avail   (root)    %Capacity\n{size:>7}B {used:>7}B {avail:>7}B {root:>7}B         {share}\n"
        );
    }
    let [size, used, avail, root] = numbers.map(|bytes| bytes / 1024);
    format!(
        "        Size         Used        Avail       (root)    %Capacity\n\
         {size:>12} {used:>12} {avail:>12} {root:>12}         {share}\n"
    )
}

/// Writes a number as `1.5G`, with a digit behind the point below a hundred, as OpenBSD's `fmt_scaled` does.
fn scaled(number: u64) -> String {
    let mut number = number as f64;
    for unit in ["", "K", "M", "G", "T", "P", "E"] {
        if number < 1024.0 {
            let decimals = usize::from(!unit.is_empty() && number < 99.95);
            return format!("{number:.decimals$}{unit}");
        }
        number /= 1024.0;
    }
    format!("{number:.0}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_space_reads_as_sftp_writes_it() {
        let space = DiskSpace {
            bytes: 100 << 30,
            free_bytes: 25 << 30,
            available_bytes: 20 << 30,
            files: 1000,
            free_files: 900,
            available_files: 900,
        };
        assert_eq!(
            disk_space(&space, false, false).lines().nth(1),
            Some("   104857600     78643200     20971520     26214400          75%")
        );
        assert_eq!(
            disk_space(&space, true, false).lines().nth(1),
            Some("   100GB   75.0GB   20.0GB   25.0GB          75%")
        );
        assert_eq!(
            disk_space(&space, false, true).lines().nth(1),
            Some("       1000         100         900         900          10%")
        );
        assert!(disk_space(&DiskSpace::default(), false, false).contains("ERR"));
    }
}
