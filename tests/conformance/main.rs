//! Every case × every backend × every real server: `conformance::TARGET::CASE`.
//!
//! What a server can't do is declared in `support/target.rs` and asserted, never skipped. Only a server that this
//! machine can't run at all is skipped, with a line saying so, and in CI that fails.

// Outside of the functions marked as tests clippy's exception for tests doesn't hold.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod listing;
mod metadata;
mod names;
mod reading;
mod renaming;
mod session;
#[path = "../support/mod.rs"]
mod support;
mod writing;

use support::target::{Target, run};

macro_rules! every_case {
    ($target:ident) => {
        every_case! { $target:
            reading {
                every_size
                sixty_four_mebibytes
                from_offsets
                ranges
                one_after_another
                many_at_once
                dropped_half_way
                missing_file
                directory
                forbidden_is_not_missing
            }
            writing {
                every_size
                sixty_four_mebibytes
                over_an_existing_file
                at_the_end
                in_the_middle
                behind_the_end
                at_an_offset_of_nothing
                from_several_streams
                one_after_another
                many_at_once
                dropped_half_way
                into_a_missing_directory
                into_a_forbidden_directory
                with_a_mode
                synced
                closed_with_time_and_mode
            }
            names {
                every_name_goes_round
                longest_name
                line_feed
                not_utf8
                leading_dot_is_listed
            }
            listing {
                empty_directory
                nested_directories
                ten_thousand_entries
                agrees_with_stat
                missing_directory
                file_instead_of_directory
                forbidden_is_not_missing
                dropped_half_way
                stat_of_nothing
                stat_of_the_root
            }
            renaming {
                file
                directory
                over_a_file
                not_over_a_file
                missing_file
                remove_file
                remove_directory
                remove_full_directory
                remove_nothing
                make_directory
                make_directory_twice
                make_directory_in_nothing
            }
            metadata {
                capabilities_are_told
                time_reads_back
                mode_reads_back
                links
                digests
            }
            session {
                starts_at_home
                twenty_of_each
                everything_at_once
                errors_leave_it_usable
                as_many_connections_as_asked_for
            }
        }
    };
    ($target:ident: $($group:ident { $($case:ident)* })*) => {
        $(mod $group {
            $(#[test]
            fn $case() {
                crate::run(crate::Target::$target, crate::$group::$case);
            })*
        })*
    };
}

macro_rules! suite {
    ($($module:ident $target:ident)*) => {
        $(mod $module {
            every_case!($target);
        })*
    };
}

suite! {
    local LOCAL
    embedded_sftp EMBEDDED_SFTP
    embedded_ftp EMBEDDED_FTP
    embedded_ftpes EMBEDDED_FTPES
    embedded_ftps EMBEDDED_FTPS
    openssh_russh OPENSSH_RUSSH
    openssh_libssh2 OPENSSH_LIBSSH2
    openssh_openssh OPENSSH_OPENSSH
    proftpd_sftp PROFTPD_SFTP
    vsftpd VSFTPD
    vsftpd_tls12 VSFTPD_TLS12
    vsftpd_tls13 VSFTPD_TLS13
    proftpd PROFTPD
    proftpd_tls PROFTPD_TLS
    pureftpd PUREFTPD
    pureftpd_tls PUREFTPD_TLS
    pyftpdlib PYFTPDLIB
    pyftpdlib_tls PYFTPDLIB_TLS
}
