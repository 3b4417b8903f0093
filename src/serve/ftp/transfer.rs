//! The commands that need a data connection.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use tokio::io::AsyncReadExt;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::command::Command;
use super::data::{Channel, FromNetwork, Plan, ToNetwork};
use super::files::reply_of;
use super::listing::{Form, entry_line, write_directory};
use super::session::{Flow, Session};
use crate::serve::cut::CutOnDrop;
use crate::serve::limit::Limit;
use crate::serve::root::{Item, Root, WriteFlags, kind_of};
use crate::transport::{FileKind, RemotePath};

/// What moves the bytes, on a blocking thread; it returns how many, and the connection if it needs time to end.
type Job = Box<dyn FnOnce(Channel) -> io::Result<(u64, Option<TcpStream>)> + Send>;

impl Session {
    /// Obeys a command that moves data; the user is logged in.
    pub(super) async fn transfers(&mut self, command: Command) -> io::Result<Flow> {
        let (restart, range) = (std::mem::take(&mut self.restart), self.range.take());
        if self.site.mode.is_required() && !self.private {
            return self.answer(521, "Data connections must be private: PROT P.").await;
        }
        let unit = match command {
            Command::Retrieve(_) | Command::Store(_) | Command::Append(_) => "bytes",
            _ => "entries",
        };
        let job = match command {
            Command::List(path) => self.list(&path, Form::Long).await,
            Command::Names(path) => self.list(&path, Form::Names).await,
            Command::MachineList(path) => self.list(&path, Form::Facts(self.facts, self.site.access)).await,
            Command::Retrieve(_) | Command::Store(_) if self.ascii && (restart > 0 || range.is_some()) => {
                self.plan = Plan::None;
                return self.answer(504, "Offsets have no meaning in TYPE A, use TYPE I.").await;
            }
            Command::Retrieve(path) => {
                let (start, end) = range.map_or((restart, u64::MAX), |(first, last)| (first, last.saturating_add(1)));
                self.retrieve(&path, start, end).await
            }
            Command::Store(path) => self.store(&path, Some(restart)).await,
            Command::Append(path) => self.store(&path, None).await,
            _ => return self.answer(502, "Not supported.").await,
        };
        match job {
            Ok(job) => self.transfer(job, unit).await,
            Err(error) => {
                self.plan = Plan::None;
                let (code, text) = reply_of(&error);
                self.answer(if code == 426 { 550 } else { code }, text).await
            }
        }
    }

    async fn list(&mut self, argument: &[u8], form: Form) -> io::Result<Job> {
        let plain = self.resolve(argument);
        let without_options = (form == Form::Long || form == Form::Names).then(|| strip_options(argument).to_vec());
        let fallback = without_options.map(|path| (self.resolve(&path), path));
        let argument = argument.to_vec();
        self.block(move |root| {
            // "-la" may be a name, but is more often what somebody typed behind "ls".
            let (path, shown) = match fallback {
                Some(fallback) if argument.starts_with(b"-") && root.link_metadata(&plain).is_err() => fallback,
                _ => (plain, argument),
            };
            list_job(root, &path, shown, form)
        })
        .await
    }

    async fn retrieve(&mut self, path: &[u8], start: u64, end: u64) -> io::Result<Job> {
        let (path, ascii) = (self.resolve(path), self.ascii);
        self.block(move |root| {
            let mut file = root.open_read(&path)?;
            if start > file.metadata()?.len() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "The offset is behind the end of the file"));
            }
            file.seek(SeekFrom::Start(start))?;
            Ok(Box::new(move |mut channel: Channel| {
                let sent = if ascii {
                    channel.send(&mut ToNetwork::new(file))?
                } else {
                    channel.send_file(&mut file, end.saturating_sub(start))?
                };
                Ok((sent, channel.finish()?))
            }) as Job)
        })
        .await
    }

    /// Stores from an offset (0: anew), or with `None` at the end.
    async fn store(&mut self, path: &[u8], offset: Option<u64>) -> io::Result<Job> {
        let (path, ascii) = (self.resolve(path), self.ascii);
        self.block(move |root| {
            let flags = WriteFlags {
                create: offset.is_none_or(|offset| offset == 0),
                truncate: offset == Some(0),
                append: offset.is_none(),
                ..WriteFlags::default()
            };
            let file = root.open_write(&path, flags)?;
            if offset.is_some_and(|offset| file.metadata().is_ok_and(|m| offset > m.len())) {
                let why = "The offset is behind the end of the file";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
            let mut file = Stored { file, limit: root.limit().clone(), offset };
            Ok(Box::new(move |mut channel: Channel| {
                let received = if ascii {
                    let mut text = FromNetwork::new(&mut file);
                    let received = channel.receive(&mut text)?;
                    text.end()?;
                    received
                } else {
                    channel.receive(&mut file)?
                };
                // All is here; a client that doesn't wait for our goodbye has lost nothing.
                Ok((received, channel.finish().unwrap_or_default()))
            }) as Job)
        })
        .await
    }

    /// Makes the data connection, runs the job over it, and answers how it went. ABOR ends it early.
    async fn transfer(&mut self, job: Job, unit: &str) -> io::Result<Flow> {
        let plan = std::mem::replace(&mut self.plan, Plan::None);
        if matches!(plan, Plan::None) {
            return self.answer(425, "Use EPSV or PASV first.").await;
        }
        let tls = self.site.data_tls.clone().filter(|_| self.private);
        self.answer(150, "Here it comes.").await?;
        let stop = CancellationToken::new();
        let moved = run(plan.open(self.here, self.peer), tls, job, stop.clone());
        tokio::pin!(moved);
        let mut aborted = false;
        let result = loop {
            tokio::select! {
                result = &mut moved => break result,
                line = self.control.next_line(), if self.waiting.is_none() && !aborted => match line {
                    Ok(Some(line)) if line.eq_ignore_ascii_case(b"ABOR") => {
                        aborted = true;
                        stop.cancel();
                    }
                    Ok(Some(line)) => self.waiting = Some(line),
                    Ok(None) | Err(_) => {
                        stop.cancel();
                        let _ = (&mut moved).await;
                        return Ok(Flow::Quit);
                    }
                },
            }
        };
        match result {
            Ok(_) if aborted => self.answer(226, "It was done already.").await,
            Ok(count) => self.answer(226, format!("Done: {count} {unit}.")).await,
            Err(_) if aborted => {
                self.answer(426, "Aborted.").await?;
                self.answer(226, "The abort is done.").await
            }
            Err(Failed::Open(error)) => self.answer(425, format!("No data connection: {error}.")).await,
            Err(Failed::Move(error)) => {
                let (code, text) = reply_of(&error);
                self.answer(if code == 550 { 451 } else { code }, text).await
            }
        }
    }
}

/// A file that is being stored.
struct Stored {
    file: File,
    limit: Limit,
    /// Where the next bytes go; `None`: to the end, wherever that is.
    offset: Option<u64>,
}

impl Write for Stored {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.offset {
            Some(offset) => {
                self.limit.write_at(&self.file, *offset, bytes)?;
                *offset += bytes.len() as u64;
            }
            None => self.limit.append(&self.file, bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Failed {
    /// There was no data connection.
    Open(io::Error),
    /// It broke, or the file did.
    Move(io::Error),
}

/// Opens the connection and moves the bytes, both until `stop`.
async fn run(
    open: impl Future<Output = io::Result<TcpStream>>,
    tls: Option<std::sync::Arc<rustls::ServerConfig>>,
    job: Job,
    stop: CancellationToken,
) -> Result<u64, Failed> {
    let stream = tokio::select! {
        stream = open => stream.map_err(Failed::Open)?,
        () = stop.cancelled() => return Err(Failed::Open(io::ErrorKind::Interrupted.into())),
    };
    // Cut, the socket lets the blocked thread go; also when this future is dropped half-way.
    let cut = CutOnDrop::of(&stream).map_err(Failed::Open)?;
    let mut moving = spawn_blocking(move || {
        let channel = Channel::new(stream, tls).map_err(Failed::Open)?;
        job(channel).map_err(Failed::Move)
    });
    let result = tokio::select! {
        result = &mut moving => result,
        () = stop.cancelled() => {
            drop(cut);
            return Ok(moving.await.map_err(|e| Failed::Move(io::Error::other(e)))??.0);
        }
    };
    let (bytes, rest) = result.map_err(|e| Failed::Move(io::Error::other(e)))??;
    if let Some(stream) = rest {
        cut.spare();
        tokio::spawn(linger(stream));
    }
    Ok(bytes)
}

/// Waits a little for the peer's own goodbye: closing before it came would reset the connection under its last bytes.
async fn linger(stream: TcpStream) {
    let Ok(mut stream) = stream.set_nonblocking(true).and_then(|()| tokio::net::TcpStream::from_std(stream)) else {
        return;
    };
    let mut buffer = [0; 1024];
    let _ =
        timeout(Duration::from_secs(5), async { while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {} }).await;
}

fn list_job(root: &Root, path: &RemotePath, shown: Vec<u8>, form: Form) -> io::Result<Job> {
    let metadata = root.metadata(path)?;
    if metadata.is_dir() {
        let mut listing = root.list(path)?;
        let prefix = if shown.is_empty() || shown.ends_with(b"/") { shown } else { [&shown, &b"/"[..]].concat() };
        return Ok(Box::new(move |mut channel| {
            let mut out = BufWriter::with_capacity(64 * 1024, &mut channel);
            let entries = write_directory(&mut listing, form, &prefix, &mut out)?;
            out.flush()?;
            drop(out);
            Ok((entries, channel.finish()?))
        }));
    }
    if matches!(form, Form::Facts(..)) {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    // LIST of a file tells of that file, and of a link itself.
    let metadata = root.link_metadata(path)?;
    let target = if kind_of(&metadata) == FileKind::Symlink { root.read_link(path).ok() } else { None };
    let item = Item { name: shown, metadata };
    let line = entry_line(form, b"", &item, target.as_deref(), SystemTime::now());
    Ok(Box::new(move |mut channel| {
        channel.write_all(&[&line, &b"\r\n"[..]].concat())?;
        Ok((1, channel.finish()?))
    }))
}

/// Takes options like `-la` off the front.
fn strip_options(mut argument: &[u8]) -> &[u8] {
    while argument.starts_with(b"-") {
        let end = argument.iter().position(|&b| b == b' ').unwrap_or(argument.len());
        argument = argument.get(end + 1..).unwrap_or_default();
    }
    argument
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_ls_are_taken_off() {
        assert_eq!(strip_options(b"-la"), b"");
        assert_eq!(strip_options(b"-l -a dir one"), b"dir one");
        assert_eq!(strip_options(b"dir -x"), b"dir -x");
    }
}
