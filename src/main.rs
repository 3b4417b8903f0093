//! The `haul` program.

#![forbid(unsafe_code)]

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    // The system's ssh runs this program to ask for passwords.
    if let Some(code) = haul::transport::ssh::askpass_main() {
        return code;
    }
    cli::main()
}
