//! `haul check`: whether files are what they should be, by a list of digests or by another tree; nothing is changed.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use clap::Args;
use haul::plan::compare::Links;
use haul::transport::Algorithm;

use super::context::{Context, usage};
use super::options::ConnectArgs;
use super::reading::{ReadingArgs, algorithm};
use super::report::Result;
use super::values::choice;
use super::{check_sums, check_trees};

/// Compare trees, or check files against a list of checksums
///
/// Changes nothing. Standard output has a line for each file that is not as it should be, standard error a summary.
///
/// Two trees, or two files, are compared by sizes and times. With --checksum they are compared by sizes and digests: by the strongest that
/// both servers compute, else by one that is computed here of all that is read. Times don't count then.
///
/// With --sums, the files that the list names are digested below the URL, by the server where it can, and those that the
/// list doesn't have are told as well. A list that lies at the URL under its own name is not one of those.
///
/// Ends with 0 where all is equal, 1 where something differs or could not be looked at, 3 without a connection.
#[derive(Debug, Args)]
#[command(
    override_usage = "haul check [OPTIONS] SRC DST\n       haul check [OPTIONS] --sums FILE URL",
    after_long_help = "\
Examples:
  haul check photos sftp://me@host/srv/photos               by sizes and times
  haul check --checksum --one-way ftp://a/pub sftp://me@b/~/pub
  haul check --sums SHA256SUMS sftp://me@host/srv/photos    what sha256sum or haul digest wrote
  ssh me@host 'cd /srv && sha256sum *' | haul check --sums - ftp://other/srv/
  haul check --one-way --json --sums list.txt sftp://me@host/srv | jq .

What the lines begin with:
  missing     SRC or the list has it, DST or the URL hasn't
  extra       DST or the URL has it, SRC or the list hasn't (left out with --one-way)
  different   both have it, and it is not the same; why is told
  unreadable  could not be looked at
  equal       only with -v and --json"
)]
#[allow(clippy::struct_excessive_bools)] // each is a flag of its own
pub(crate) struct Check {
    /// Two directories or two files to compare, or with --sums the directory to check
    #[arg(value_names = ["SRC", "DST"], num_args = 1..=2, required = true)]
    operands: Vec<OsString>,

    /// Check against this list, as sha256sum and its like write it (- is standard input)
    #[arg(long, value_name = "FILE")]
    pub(crate) sums: Option<OsString>,

    /// Compare what is in the files, whatever their times
    #[arg(long, conflicts_with_all = ["size_only", "sums"])]
    pub(crate) checksum: bool,

    /// Compare sizes only
    #[arg(long, conflicts_with = "sums")]
    pub(crate) size_only: bool,

    /// What becomes of symbolic links
    #[arg(long, value_name = "HOW", default_value = "keep", conflicts_with = "sums", value_parser = choice(&[
        ("keep", "Compare them as links, by where they point", Links::Keep),
        ("follow", "Compare what the source's lead to, if that is a file", Links::Follow),
        ("skip", "Leave them alone", Links::Skip),
    ]))]
    pub(crate) links: Links,

    /// By which digest: sha256, sha512, blake3, sha1, md5 or crc32 [default: as the list's lines tell, or as fits both trees]
    #[arg(short, long, value_name = "NAME", value_parser = algorithm)]
    pub(crate) algorithm: Option<Algorithm>,

    /// Say nothing of what is there and should not be
    #[arg(long)]
    pub(crate) one_way: bool,

    /// Write one JSON object for each file, and a summary, to standard output
    #[arg(long, help_heading = "Output options")]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) reading: ReadingArgs,

    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

impl Check {
    /// Checks.
    pub(crate) async fn run(self, context: &Arc<Context>) -> Result<()> {
        if self.algorithm.is_some() && self.sums.is_none() && !self.checksum {
            return Err(usage("--algorithm goes with --sums or --checksum").into());
        }
        let operands: Vec<&OsStr> = self.operands.iter().map(OsString::as_os_str).collect();
        match (&self.sums, operands.as_slice()) {
            (Some(list), [url]) => check_sums::run(&self, list, url, context).await,
            (None, [left, right]) => check_trees::run(&self, left, right, context).await,
            (Some(_), _) => Err(usage("--sums takes one URL").into()),
            (None, _) => Err(usage("name what to compare it with, or a list of checksums with --sums").into()),
        }
    }
}
