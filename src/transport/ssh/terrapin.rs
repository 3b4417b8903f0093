//! Terrapin (CVE-2023-48795): somebody on the way can cut messages out of the beginning of a connection, unless both
//! sides count them anew after the key exchange ("strict", which both engines offer).
//!
//! Without it two kinds of encryption can be attacked; the others fail when a message is missing.

use crate::error::{Error, ErrorKind};
use crate::transport::escape;

/// The cipher that an attack on needs no luck.
pub(super) const CHACHA20: &str = "chacha20-poly1305@openssh.com";

/// Returns whether what was agreed upon can be attacked, if the server is not strict.
pub(super) fn is_at_risk(cipher: &str, macs: &[&str]) -> bool {
    let encrypts_first = macs.iter().any(|mac| mac.contains("-etm@"));
    cipher == CHACHA20 || ((cipher.ends_with("-cbc") || cipher.contains("-cbc@")) && encrypts_first)
}

/// Makes the error for a server that offers nothing else.
pub(super) fn refusal(cipher: &str, why: &str) -> Error {
    let cipher = escape(cipher.as_bytes());
    let text = format!("{cipher} can be tampered with here (Terrapin, CVE-2023-48795): {why}");
    Error::new(ErrorKind::Unsupported, text)
        .with_hint("update the server; to take the risk, use --ssh-engine openssh, which allows it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_kinds_of_encryption_are_at_risk() {
        for (cipher, mac, expected) in [
            (CHACHA20, "hmac-sha2-256", true),
            ("aes128-cbc", "hmac-sha2-256-etm@openssh.com", true),
            ("rijndael-cbc@lysator.liu.se", "hmac-sha2-256-etm@openssh.com", true),
            ("aes128-cbc", "hmac-sha2-256", false),
            ("aes256-ctr", "hmac-sha2-512-etm@openssh.com", false),
            ("aes128-gcm@openssh.com", "hmac-sha2-512-etm@openssh.com", false),
        ] {
            assert_eq!(is_at_risk(cipher, &[mac]), expected, "{cipher} {mac}");
        }
    }
}
