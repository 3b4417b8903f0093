//! Transfers: the question for a port, the command and the data connection, as few trips as the server takes.
//!
//! The port is asked for ahead, when the transfer before is at its end, and the connection begun as soon as it is
//! known; the command goes out without waiting for either. Where that turns out to be stale, once more without it.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::connection::{Connection, Health, check, line};
use super::data::Data;
use super::look::{parse_mdtm, parse_size};
use super::port::Way;
use super::reply::Reply;
use super::tls::LoginTls;
use super::wire::{Stream, Wire};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Mtime, RemotePath};

/// How often a data connection that the server can't open just now (425) is asked for again, and the first pause.
const BUSY_RETRIES: u32 = 5;
const BUSY_PAUSE: Duration = Duration::from_millis(10);
/// How long the server may take to say what it thinks of a data connection that broke.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(3);

/// What a data connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transfer {
    /// `RETR` from an offset.
    Read(u64),
    /// `STOR` from an offset.
    Write(u64),
    /// `STOR` of so little that it can be on its way before the server agrees: see [`Connection::agreed`].
    WriteAtOnce,
    /// `APPE`.
    Append,
    /// `MLSD`, with the path.
    MachineList,
    /// `LIST -a` from inside, since LIST takes options and patterns where a path is meant.
    ListAll,
    /// `LIST` from inside.
    List,
}

impl Transfer {
    /// Returns the name of its command.
    fn verb(self) -> &'static str {
        match self {
            Self::Read(_) => "RETR",
            Self::Write(_) | Self::WriteAtOnce => "STOR",
            Self::Append => "APPE",
            Self::MachineList => "MLSD",
            Self::ListAll | Self::List => "LIST",
        }
    }
}

/// A transfer under way.
pub(super) struct Started {
    /// Where the bytes go.
    pub(super) data: Data,
    /// The size of the file, where a read began behind its start and the server tells.
    pub(super) size: Option<u64>,
    /// The time of the file, where it was asked for and the server tells.
    pub(super) mtime: Option<Mtime>,
    /// Whether the server has agreed to it.
    pub(super) agreed: bool,
}

/// Why a transfer didn't start or didn't end well.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The server said no, and the connection can still be used.
    Said(Reply),
    /// Something broke.
    Failed(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// How a transfer began.
#[derive(Default)]
struct Begun {
    /// See [`Started::size`].
    size: Option<u64>,
    /// See [`Started::mtime`].
    mtime: Option<Mtime>,
    /// Why it is another directory that is being listed.
    elsewhere: Option<Reply>,
}

/// Why one attempt to start a transfer failed.
enum Miss {
    /// Asking for another port can help: at once where this one was asked for ahead, else soon.
    Busy {
        reply: Reply,
        ahead: bool,
    },
    /// EPSV was given up.
    Passive,
    Final(Refusal),
}

impl<E: Into<Refusal>> From<E> for Miss {
    fn from(error: E) -> Self {
        Self::Final(error.into())
    }
}

impl Connection {
    /// Opens a data connection and starts a transfer on it.
    ///
    /// # Errors
    /// `Said` with the reply when the server says no, so that the caller can ask why.
    pub(super) async fn transfer(&mut self, what: Transfer, path: &RemotePath) -> Result<Started, Refusal> {
        check(path)?;
        let mut busy = 0;
        loop {
            match self.attempt(what, path).await {
                Ok(started) => return Ok(started),
                Err(Miss::Passive) => {}
                Err(Miss::Busy { reply, ahead }) if busy < BUSY_RETRIES => {
                    tracing::debug!("asking for another port: {}", reply.words());
                    if !ahead || busy > 0 {
                        sleep(BUSY_PAUSE * 2u32.pow(busy)).await;
                    }
                    busy += 1;
                }
                Err(Miss::Busy { reply, .. }) => {
                    return Err(match self.refused(reply) {
                        Refusal::Said(reply) if self.login().is_active() => {
                            self.hinted(reply.error("open a data connection")).into()
                        }
                        refusal => refusal,
                    });
                }
                Err(Miss::Final(Refusal::Said(reply))) if reply.code() == 532 => self.account_for(reply).await?,
                Err(Miss::Final(refusal)) => return Err(refusal),
            }
        }
    }

    /// Gives the account that a refusal asks for, once.
    async fn account_for(&mut self, reply: Reply) -> Result<(), Refusal> {
        match self.give_account().await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::Said(reply)),
            Err(e) => {
                let error = reply.error("an account is asked for");
                let error = if let Some(hint) = e.hint() { error.with_hint(hint) } else { error };
                Err(error.with_source(e).into())
            }
        }
    }

    async fn attempt(&mut self, what: Transfer, path: &RemotePath) -> Result<Started, Miss> {
        let mut way = match self.take_way().await? {
            Some(way) => way,
            None => self.ask_way().await?,
        };
        // Until one way has led somewhere, no command waits for a data connection that may never come.
        // Where the server connects to us, it does so only after the command.
        let doubtful = !self.login().data_works() && !self.login().is_active();
        if doubtful {
            way = match way.arrived().await {
                Ok(way) => way,
                Err(_) if self.login().give_up_extended() => {
                    tracing::debug!("the port of EPSV can't be reached, going on with PASV");
                    return Err(Miss::Passive);
                }
                Err(e) => return Err(e.context("open a data connection").into()),
            };
        }
        if let Transfer::Write(offset @ 1..) = what {
            // Not together with STOR: where REST is refused, that would empty the file.
            let reply = self.ask_raw(format!("REST {offset}").as_bytes()).await?;
            if reply.code() != 350 {
                return Err(self.refused(reply).into());
            }
        }
        let mut lines = lines(what, path)?;
        if what == Transfer::Read(0) && self.login().tells_times() {
            lines.insert(0, line("MDTM", path)?);
        }
        // Behind an upload there are other questions first, whose answers shall not depend on there being a free port.
        let upload = matches!(what, Transfer::Write(_) | Transfer::WriteAtOnce | Transfer::Append);
        self.behind = self.login().is_in_order() && !upload;
        if self.behind {
            lines.push(self.port_line()?);
        }
        self.tell(&lines).await?;
        self.meet(what, way).await
    }

    /// Waits for the data connection and for the server to agree.
    async fn meet(&mut self, what: Transfer, way: Way) -> Result<Started, Miss> {
        let (ahead, limit, tls) = (way.ahead, self.login().timeout(), self.tls.clone());
        let opening = open(way, tls.as_deref(), limit);
        tokio::pin!(opening);
        let mut opened = None;
        let begun = if what == Transfer::WriteAtOnce {
            opened = Some(opening.as_mut().await);
            Ok(Begun::default())
        } else if self.is_short_of_sessions() {
            self.begun(what).await
        } else {
            let begun = self.begun(what);
            tokio::pin!(begun);
            tokio::select! {
                begun = &mut begun => begun,
                ended = &mut opening => {
                    let failed = ended.is_err();
                    opened = Some(ended);
                    match failed {
                        false => begun.await,
                        true => timeout(LAST_WORDS, begun).await.unwrap_or(Ok(Begun::default())),
                    }
                }
            }
        };
        let begun = match begun {
            Ok(begun) => begun,
            Err(Refusal::Said(reply)) if reply.code() == 425 => return Err(Miss::Busy { reply, ahead }),
            Err(Refusal::Said(reply)) => return Err(self.refused(reply).into()),
            Err(failed) => return Err(failed.into()),
        };
        let opened = match opened {
            Some(opened) => opened,
            None => opening.await,
        };
        match opened {
            Ok(wire) => {
                self.login().note_data_works();
                let data = Data::new(wire);
                match begun.elsewhere {
                    Some(refused) => {
                        self.let_pass(data).await?;
                        Err(Miss::Final(Refusal::Said(refused)))
                    }
                    None => Ok(Started {
                        data,
                        size: begun.size,
                        mtime: begun.mtime,
                        agreed: what != Transfer::WriteAtOnce,
                    }),
                }
            }
            Err(Closed::Unreachable(e)) => {
                self.health = if ahead { Health::Stale } else { Health::Broken };
                Err(self.hinted(e.context("open a data connection")).into())
            }
            Err(Closed::Silent(e)) => {
                self.health = Health::Broken;
                Err(e.into())
            }
            Err(Closed::Tls(e)) => Err(self.without_tls13(e).into()),
        }
    }

    /// Reads the replies up to that which lets the transfer begin.
    async fn begun(&mut self, what: Transfer) -> Result<Begun, Refusal> {
        let mut begun = Begun::default();
        match what {
            Transfer::Read(0) if self.login().tells_times() => {
                begun.mtime = parse_mdtm(&self.next_reply("MDTM").await?);
            }
            Transfer::Read(1..) => {
                begun.size = parse_size(&self.next_reply("SIZE").await?);
                let restart = self.next_reply("REST").await?;
                if restart.code() != 350 {
                    self.health = Health::Broken;
                    let error = restart.error("start in the middle of the file");
                    return Err(error.with_kind(ErrorKind::Unsupported).into());
                }
            }
            Transfer::ListAll | Transfer::List => {
                begun.elsewhere = Some(self.next_reply("CWD").await?).filter(|inside| !inside.is_ok());
            }
            _ => {}
        }
        let reply = self.next_reply(what.verb()).await?;
        if reply.code() / 100 == 1 {
            return Ok(begun);
        }
        self.over();
        Err(Refusal::Said(begun.elsewhere.unwrap_or(reply)))
    }

    /// Tells what may be in the way of a data connection.
    fn hinted(&self, error: Error) -> Error {
        match self.login().is_active() {
            true => error.with_hint(
                "in active mode the server connects to this machine, which firewalls and NAT seldom allow; passive mode, \
                 without --active, may work",
            ),
            false => error,
        }
    }

    async fn ask_way(&mut self) -> Result<Way, Miss> {
        loop {
            let line = self.port_line()?;
            let reply = self.ask_raw(&line).await?;
            let way = self.control.lock().way_of(&reply, false);
            if let Some(way) = way {
                return Ok(way);
            }
            match reply.code() {
                425 => return Err(Miss::Busy { reply, ahead: false }),
                500.. if self.login().give_up_extended() => {
                    tracing::debug!("{}: going on with PASV, or PORT", reply.words());
                }
                200..=399 => {
                    let error = reply.error("open a data connection: no port that is meant for data");
                    return Err(error.with_kind(ErrorKind::Protocol).into());
                }
                _ => return Err(self.refused(reply).into()),
            }
        }
    }
}

/// Why a data connection was not made.
enum Closed {
    Unreachable(Error),
    /// It was made, and then nothing came.
    Silent(Error),
    Tls(Error),
}

async fn open(way: Way, tls: Option<&LoginTls>, limit: Duration) -> Result<Wire, Closed> {
    let tcp = way.connected().await.map_err(Closed::Unreachable)?;
    match tls {
        None => Ok(Wire::new(Stream::Plain(tcp), limit)),
        Some(tls) => tls.connect(tcp).await.map_err(|e| match e.kind() {
            ErrorKind::Timeout => Closed::Silent(e.context("data connection")),
            _ => Closed::Tls(e.context("data connection").with_kind(ErrorKind::Tls)),
        }),
    }
}

fn lines(what: Transfer, path: &RemotePath) -> Result<Vec<Vec<u8>>> {
    Ok(match what {
        Transfer::Read(0) => vec![line("RETR", path)?],
        // The size is known before the first byte, so that a start behind the end is no surprise.
        Transfer::Read(offset) => {
            vec![line("SIZE", path)?, format!("REST {offset}").into_bytes(), line("RETR", path)?]
        }
        Transfer::Write(_) | Transfer::WriteAtOnce => vec![line("STOR", path)?],
        Transfer::Append => vec![line("APPE", path)?],
        Transfer::MachineList => vec![line("MLSD", path)?],
        Transfer::ListAll => vec![line("CWD", path)?, b"LIST -a".to_vec()],
        Transfer::List => vec![line("CWD", path)?, b"LIST".to_vec()],
    })
}
