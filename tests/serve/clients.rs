//! How each client is called.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use haul::serve::FtpTls;

use crate::scene::{PASSWORD, Scene, USER};

/// An lftp session that runs the given commands and stops at the first that fails.
pub(crate) fn lftp(scene: &Scene, tls: FtpTls, commands: &[u8]) -> Command {
    let scheme = if tls == FtpTls::Implicit { "ftps" } else { "ftp" };
    let mut script = format!(
        "set cmd:fail-exit yes; set net:max-retries 1; set net:timeout 20; set ftp:ssl-allow {}; set ftp:ssl-force {}; \
         set ftp:ssl-protect-data yes; set ssl:verify-certificate yes; set file:charset utf-8; ",
        tls != FtpTls::Off,
        tls != FtpTls::Off,
    );
    if tls != FtpTls::Off {
        let _ = write!(script, "set ssl:ca-file {}; ", scene.certificate().display());
    }
    let _ =
        write!(script, "open -u {USER},\"{}\" {scheme}://127.0.0.1:{}; ", PASSWORD.replace('"', "\\\""), scene.port());
    let script = [script.as_bytes(), commands].concat();
    let mut command = Command::new("lftp");
    command.args(["--norc", "-c"]).arg(OsStr::from_bytes(&script)).current_dir(scene.local.path());
    command.env("HOME", scene.state.path()).env("LC_ALL", "C.UTF-8");
    command
}

/// Writes a name for lftp: in quotes.
pub(crate) fn quoted(name: &[u8]) -> Vec<u8> {
    let mut out = vec![b'"'];
    for &byte in name {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
    out
}

/// A curl call on a path.
pub(crate) fn curl(scene: &Scene, tls: FtpTls, path: &[u8]) -> Command {
    let scheme = if tls == FtpTls::Implicit { "ftps" } else { "ftp" };
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "60", "--globoff", "-q", "--user"]).arg(format!("{USER}:{PASSWORD}"));
    if matches!(tls, FtpTls::Allow | FtpTls::Require) {
        command.arg("--ssl-reqd");
    }
    if tls != FtpTls::Off {
        command.arg("--cacert").arg(scene.certificate());
    }
    let path = percent_encoding::percent_encode(path, percent_encoding::NON_ALPHANUMERIC).to_string();
    command.arg(format!("{scheme}://127.0.0.1:{}/{}", scene.port(), path.replace("%2F", "/")));
    command.current_dir(scene.local.path());
    command
}

/// Puts text and paths together into one argument.
pub(crate) fn joined(parts: &[&[u8]]) -> OsString {
    OsStr::from_bytes(&parts.concat()).to_owned()
}
