//! The line is cut anywhere, then the same command runs again: the file is there, whole, and nothing else is.
//!
//! `HAUL_CHAOS_CUTS` sets how many random cuts each test makes (the long form takes 200), `HAUL_CHAOS_SEED` which ones.
//! A failure names the seed and the number of its case; `HAUL_CHAOS_CASE` runs that one alone.
//! `HAUL_CHAOS_PROGRAM` names another build of haul to be tried.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![allow(clippy::case_sensitive_file_extension_comparisons)]

#[path = "../support/mod.rs"]
mod support;

mod case;
mod plan;
mod scene;
mod watcher;

use haul::serve::{FtpTls, Protocol};
use plan::{Mode, embedded, real};
use scene::{Scene, Way, event, told};
use support::data::{MIB, bytes};
use support::fault::{Fault, Link, On, Towards};
use support::served::Served;

const SFTP: Protocol = Protocol::Sftp;
const FTP: Protocol = Protocol::Ftp(FtpTls::Off);
const FTPS: Protocol = Protocol::Ftp(FtpTls::Require);

macro_rules! cuts {
    ($($name:ident: $protocol:expr, $way:ident, $segments:expr;)*) => {
        $(mod $name {
            use super::*;

            #[test]
            fn cut_anywhere_then_again() {
                embedded($protocol, Way::$way, $segments, &[], Mode::Anywhere);
            }

            #[test]
            fn cut_at_every_border_then_again() {
                embedded($protocol, Way::$way, $segments, &[], Mode::Borders);
            }

            #[test]
            fn cut_several_times_in_one_run() {
                embedded($protocol, Way::$way, $segments, &[], Mode::InOneRun);
            }
        })*
    };
}

cuts! {
    sftp_get: SFTP, Get, 1;
    sftp_get_segmented: SFTP, Get, 4;
    sftp_put: SFTP, Put, 1;
    sftp_put_segmented: SFTP, Put, 4;
    ftp_get: FTP, Get, 1;
    ftp_get_segmented: FTP, Get, 4;
    ftp_put: FTP, Put, 1;
    ftps_get: FTPS, Get, 1;
    ftps_get_segmented: FTPS, Get, 4;
    ftps_put: FTPS, Put, 1;
}

#[test]
fn a_server_that_goes_is_not_a_source_that_changed() {
    let there = Served::start(FTP);
    let (server, contents) = (&there.server, bytes(1, 3 * MIB));
    let (scene, link) = (Scene::new(server, Way::Get, "case".into(), &contents, None), Link::to(server));
    link.set(Fault::Close { after: 2 * MIB as u64, towards: Towards::Client, on: On::Data });
    let output = scene.haul(&link.far_end(server), &["--retries", "0"]);
    let event = event(&output).unwrap_or_else(|| panic!("{}", told(&output)));
    assert_eq!(event["error"]["kind"], "connection_lost", "{event}");
}

macro_rules! with_options {
    ($($name:ident: $protocol:expr, $way:ident, $segments:expr, $options:expr;)*) => {
        $(#[test]
        fn $name() {
            embedded($protocol, Way::$way, $segments, &$options, Mode::AFew);
        })*
    };
}

with_options! {
    a_forced_get_is_cut: SFTP, Get, 1, ["--force"];
    a_forced_put_is_cut: FTP, Put, 1, ["--force"];
    a_put_that_must_not_replace_is_cut: SFTP, Put, 1, ["--no-clobber"];
    a_put_by_ftp_that_must_not_replace_is_cut: FTP, Put, 1, ["--no-clobber"];
    a_durable_put_is_cut: SFTP, Put, 4, ["--durable", "--verify", "digest"];
    a_get_by_libssh2_is_cut: SFTP, Get, 4, ["--ssh-engine", "libssh2"];
    a_put_by_libssh2_is_cut: SFTP, Put, 4, ["--ssh-engine", "libssh2"];
}

macro_rules! real_servers {
    ($($name:ident: $server:expr, $way:ident, $segments:expr, $options:expr;)*) => {
        mod real_servers {
            use super::*;

            $(#[test]
            fn $name() {
                real($server, Way::$way, $segments, &$options);
            })*
        }
    };
}

real_servers! {
    openssh_get: "openssh", Get, 4, [];
    openssh_put: "openssh", Put, 4, [];
    openssh_get_by_libssh2: "openssh", Get, 1, ["--ssh-engine", "libssh2"];
    openssh_put_by_libssh2: "openssh", Put, 1, ["--ssh-engine", "libssh2"];
    vsftpd_get: "vsftpd", Get, 4, [];
    vsftpd_put: "vsftpd", Put, 1, [];
    vsftpd_tls_get: "vsftpd_tls13", Get, 4, [];
    vsftpd_tls_put: "vsftpd_tls13", Put, 1, [];
    proftpd_get: "proftpd", Get, 4, [];
    proftpd_put: "proftpd", Put, 1, [];
    proftpd_tls_put: "proftpd_tls", Put, 1, [];
}
