//! What stands for something else in values: `%h`, `${HOME}`, `~`.

use std::fmt::Write as _;
use std::path::PathBuf;

use sha1::{Digest, Sha1};

use crate::error::{Error, ErrorKind, Result};

/// What the tokens stand for.
#[derive(Debug, Clone)]
pub(super) struct Tokens {
    /// `%n`: the host as it was typed.
    pub(super) original: String,
    /// `%h`: the host to connect to.
    pub(super) host: String,
    /// `%k`: the name that its key is filed under.
    pub(super) alias: String,
    /// `%p`
    pub(super) port: u16,
    /// `%r`: the user there.
    pub(super) user: String,
    /// `%u`: the user here.
    pub(super) local_user: String,
    /// `%j`: what `ProxyJump` says.
    pub(super) jump: String,
    /// `%d`: the home directory here.
    pub(super) home: Option<PathBuf>,
}

impl Tokens {
    /// Replaces tokens; of variables and `~` nothing is known here.
    ///
    /// # Errors
    /// `Usage` for a token that has no meaning here.
    pub(super) fn expand(&self, text: &str) -> Result<String> {
        let mut expanded = String::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            if c != '%' {
                expanded.push(c);
                continue;
            }
            match rest.next() {
                Some('%') => expanded.push('%'),
                Some('h') => expanded.push_str(&self.host),
                Some('n') => expanded.push_str(&self.original),
                Some('k') => expanded.push_str(&self.alias),
                Some('p') => expanded.push_str(&self.port.to_string()),
                Some('r') => expanded.push_str(&self.user),
                Some('u') => expanded.push_str(&self.local_user),
                Some('i') => expanded.push_str(&rustix::process::getuid().as_raw().to_string()),
                Some('j') => expanded.push_str(&self.jump),
                Some('l') => expanded.push_str(&local_name()),
                Some('L') => expanded.push_str(local_name().split('.').next().unwrap_or_default()),
                Some('C') => expanded.push_str(&self.connection()),
                Some('d') => expanded.push_str(&self.home_directory()?),
                other => {
                    let token: String = ['%'].into_iter().chain(other).collect();
                    return Err(Error::new(
                        ErrorKind::Usage,
                        format!("the token {token} in {text:?} has no meaning here"),
                    )
                    .with_hint("--ssh-engine openssh knows all of them"));
                }
            }
        }
        Ok(expanded)
    }

    /// Refuses hosts and users that would be more than a word to a shell: they come from URLs, which come from anywhere.
    ///
    /// # Errors
    /// `Usage`.
    pub(super) fn are_safe_in_a_shell(&self) -> Result<()> {
        let is_plain = |text: &str, others: &str| {
            !text.starts_with('-') && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
        };
        let hosts = [&self.original, &self.host, &self.alias].into_iter().all(|host| is_plain(host, "-._:%"));
        if hosts && is_plain(&self.user, "-._@+") && is_plain(&self.local_user, "-._@+") {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Usage, "a host or user name that is not safe in a command"))
    }

    /// Replaces tokens, variables (`${NAME}`) and a leading `~`.
    ///
    /// # Errors
    /// `Usage` for a token without a meaning and a variable that is not set.
    pub(super) fn path(&self, text: &str) -> Result<PathBuf> {
        let mut text = variables(&self.expand(text)?)?;
        if text == "~" || text.starts_with("~/") {
            text.replace_range(..1, &self.home_directory()?);
        }
        Ok(text.into())
    }

    /// `%C`: a name for this connection, the SHA-1 of `%l%h%p%r%j`.
    fn connection(&self) -> String {
        let Self { host, port, user, jump, .. } = self;
        let digest = Sha1::digest(format!("{}{host}{port}{user}{jump}", local_name()));
        digest.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    fn home_directory(&self) -> Result<String> {
        let home = self.home.as_ref().and_then(|home| home.to_str());
        home.map(str::to_owned).ok_or_else(|| Error::new(ErrorKind::Usage, "there is no home directory for ~ and %d"))
    }
}

/// `%l`: this machine's name.
fn local_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Replaces `${NAME}`.
fn variables(text: &str) -> Result<String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("${") {
        let Some((name, after)) = behind.split_once('}') else { break };
        let value = std::env::var(name)
            .map_err(|_| Error::new(ErrorKind::Usage, format!("the variable {name} in {text:?} is not set")))?;
        expanded.push_str(before);
        expanded.push_str(&value);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        Tokens {
            original: "web".into(),
            host: "web.example.org".into(),
            alias: "web-key".into(),
            port: 2222,
            user: "deploy".into(),
            local_user: "me".into(),
            jump: String::new(),
            home: Some("/home/me".into()),
        }
    }

    #[test]
    fn expands() {
        let tokens = tokens();
        assert_eq!(
            tokens.expand("%n %h %k %p %r %u %d 100%%").unwrap(),
            "web web.example.org web-key 2222 deploy me /home/me 100%"
        );
        assert_eq!(tokens.path("~/.ssh/%r@%h").unwrap(), PathBuf::from("/home/me/.ssh/deploy@web.example.org"));
        assert_eq!(tokens.path("/x/~").unwrap(), PathBuf::from("/x/~"));
        let path = std::env::var("PATH").unwrap();
        assert_eq!(tokens.path("/a${PATH}/b").unwrap(), PathBuf::from(format!("/a{path}/b")));
        for wrong in ["%Z", "a%", "${HAUL_NO_SUCH_VARIABLE}"] {
            assert_eq!(tokens.path(wrong).unwrap_err().kind(), ErrorKind::Usage, "{wrong}");
        }
    }
}
