//! The way to a server: through proxies, by families of addresses, and what happens where somebody on it is silent.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use haul::ErrorKind;
use haul::endpoint::Endpoint;
use haul::transport::ssh::use_askpass_program;
use haul::transport::{
    ActivePorts, ConnectOptions, HostKeyPolicy, Proxies, ReadRange, RemotePath, SshConfig, SshEngine, Transport,
    WriteMode, connect,
};
use rustix::process::{Pid, Signal, kill_process};
use support::data::{assert_same, bytes};
use support::lab::Server;
use support::proxy::{ADDRESS, Kind, NAME, Proxy};
use support::target::{assert_kind, read, write};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

mod support;

const LOGIN: (&str, &str) = ("me", "hunter2");
const ENGINES: [SshEngine; 3] = [SshEngine::Russh, SshEngine::Libssh2, SshEngine::Openssh];
/// Where nobody is.
const URLS: [(&str, SshEngine); 4] = [
    ("ftp://server.invalid:2121/", SshEngine::Russh),
    ("sftp://me@server.invalid:2121/", SshEngine::Russh),
    ("sftp://me@server.invalid:2121/", SshEngine::Libssh2),
    ("sftp://me@server.invalid:2121/", SshEngine::Openssh),
];

/// Returns options for a server behind a proxy.
fn through(proxy: &Proxy, server: &Server) -> ConnectOptions {
    use_askpass_program(env!("CARGO_BIN_EXE_haul").into());
    ConnectOptions {
        proxies: Proxies::parse(&proxy.url()).unwrap(),
        timeout: Duration::from_secs(20),
        ..server.options()
    }
}

fn at(server: &Server, host: &str) -> Endpoint {
    Server { host: host.into(), ..server.clone() }.endpoint()
}

/// Writes, lists, reads back and removes some files, several at once; returns how many data connections that takes.
async fn use_it(transport: &Arc<dyn Transport>, server: &Server) -> usize {
    let dir = RemotePath::new(&server.start).unwrap().join(format!("through-{}", uuid())).unwrap();
    transport.create_dir(&dir).await.unwrap();
    let (dir, transport) = (&dir, &**transport);
    join_all((0..6u64).map(|number| async move {
        let path = dir.join(number.to_string()).unwrap();
        let contents = bytes(number, 100_000);
        write(transport, &path, WriteMode::CREATE, &contents).await.unwrap();
        assert_same(&read(transport, &path, ReadRange::ALL).await.unwrap(), &contents, "a file");
        transport.remove_file(&path).await.unwrap();
    }))
    .await;
    transport.remove_dir(dir).await.unwrap();
    12
}

fn uuid() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("{}-{}", std::process::id(), now.as_nanos())
}

/// FTP, with data connections of its own, TLS or not: where servers want data to come from whom the login came from, and
/// its session resumed, that holds through a proxy as well.
#[tokio::test(flavor = "multi_thread")]
async fn ftp_and_its_data_go_through_the_proxy() {
    for kind in [Kind::Socks, Kind::Http] {
        for name in ["vsftpd", "vsftpd_tls12", "vsftpd_tls13", "proftpd_tls", "pureftpd"] {
            let Some(server) = Server::get(name) else { continue };
            let proxy = Proxy::start(kind, Some(LOGIN));
            // Nobody listens at this address: what reaches the server has gone through the proxy.
            let transport = connect(&at(&server, ADDRESS), &through(&proxy, &server)).await.unwrap();
            assert!(transport.set_connections(3).await > 1, "{name}");
            let files = use_it(&transport, &server).await;
            transport.close().await.unwrap();
            assert!(proxy.count(ADDRESS, |port| port == server.port) >= 2, "{name} {kind:?}: several logins");
            assert!(proxy.count(ADDRESS, |port| port != server.port) >= files, "{name} {kind:?}: {:?}", proxy.asked());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_goes_through_the_proxy_on_every_engine() {
    let Some(server) = Server::get("openssh") else { return };
    for kind in [Kind::Socks, Kind::Http] {
        for engine in ENGINES {
            let proxy = Proxy::start(kind, Some(LOGIN));
            let options = ConnectOptions { ssh_engine: engine, ..through(&proxy, &server) };
            let transport = connect(&at(&server, ADDRESS), &options).await.unwrap();
            assert_eq!(transport.set_connections(3).await, 3, "{engine:?}");
            use_it(&transport, &server).await;
            transport.close().await.unwrap();
            assert!(proxy.count(ADDRESS, |port| port == server.port) >= 3, "{engine:?} {kind:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_the_proxy_alone_knows_will_do() {
    for (name, engine) in [
        ("pyftpdlib", SshEngine::Russh),
        ("openssh", SshEngine::Russh),
        ("openssh", SshEngine::Libssh2),
        ("openssh", SshEngine::Openssh),
    ] {
        let Some(server) = Server::get(name) else { continue };
        let folder = tempfile::tempdir().unwrap();
        for kind in [Kind::Socks, Kind::Http] {
            let proxy = Proxy::start(kind, None);
            let known_hosts = (server.scheme == "sftp").then(|| folder.path().join("known_hosts"));
            let host_key = Some(HostKeyPolicy::AcceptNew);
            let options = ConnectOptions { ssh_engine: engine, known_hosts, host_key, ..through(&proxy, &server) };
            let transport = connect(&at(&server, NAME), &options).await.unwrap();
            use_it(&transport, &server).await;
            transport.close().await.unwrap();
            let straight = ConnectOptions { proxies: Proxies::default(), ..options };
            assert_kind(
                connect(&at(&server, NAME), &straight).await,
                ErrorKind::ConnectionRefused,
                "without the proxy",
            );
        }
    }
}

/// What stands in for a proxy: it says this, whatever it hears, and then nothing more.
struct Mute(std::net::SocketAddr, JoinHandle<()>);

impl Mute {
    async fn who_says(answer: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut socket, _)) = listener.accept().await {
                socket.write_all(answer).await.unwrap();
                kept.push(socket);
            }
        });
        Self(address, serving)
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        self.1.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_falls_silent_is_left_and_named_with_the_phase() {
    use_askpass_program(env!("CARGO_BIN_EXE_haul").into());
    for (scheme, answer, phase) in [
        ("socks5", &b""[..], "greeting: no answer for 0.3 s"),
        ("socks5", b"\x05\x02", "login: no answer for 0.3 s"),
        ("socks5", b"\x05\x02\x01\x00", "open a connection to server.invalid:2121: no answer for 0.3 s"),
        ("http", b"", "open a connection to server.invalid:2121: no answer for 0.3 s"),
        ("http", b"HTTP/1.1 200 OK\r\nx: ", "open a connection to server.invalid:2121: no answer for 0.3 s"),
    ] {
        let mute = Mute::who_says(answer).await;
        for (url, engine) in URLS {
            let options = ConnectOptions {
                proxies: Proxies::parse(&format!("{scheme}://me:hunter2@{}", mute.0)).unwrap(),
                timeout: Duration::from_millis(300),
                ssh_config: SshConfig::None,
                ssh_engine: engine,
                ..ConnectOptions::default()
            };
            let error = connect(&Endpoint::parse(url).unwrap(), &options).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout, "{url} {engine:?}: {}", error.chain());
            let told = error.chain();
            assert!(told.contains(phase) && told.contains(&mute.0.to_string()), "{url} {engine:?}: {told}");
            assert!(!format!("{error:?} {told}").contains("hunter2"), "{told}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_refuses_is_named_and_its_password_is_not() {
    use_askpass_program(env!("CARGO_BIN_EXE_haul").into());
    let known = Proxy::start(Kind::Socks, Some(LOGIN));
    let web = Proxy::start(Kind::Http, Some(LOGIN));
    for (proxy, url, kind) in [
        (&known, known.url_with(""), ErrorKind::AuthFailed),
        (&known, known.url_with("me:letmein@"), ErrorKind::AuthFailed),
        (&known, known.url_with("me:hunter2@").replace("socks5h", "http"), ErrorKind::ConnectionLost),
        (&web, web.url_with(""), ErrorKind::AuthFailed),
        (&web, web.url_with("me:letmein@"), ErrorKind::AuthFailed),
        // The port is nobody's there.
        (&known, known.url(), ErrorKind::ConnectionRefused),
        (&web, web.url(), ErrorKind::ConnectionRefused),
    ] {
        for (target, engine) in URLS {
            let options = ConnectOptions {
                proxies: Proxies::parse(&url).unwrap(),
                ssh_config: SshConfig::None,
                ssh_engine: engine,
                ..ConnectOptions::default()
            };
            let error = connect(&Endpoint::parse(target).unwrap(), &options).await.unwrap_err();
            let told = error.chain();
            assert_eq!(error.kind(), kind, "{url} {target} {engine:?}: {told}");
            let address = url.rsplit(['@', '/']).next().unwrap();
            assert!(told.contains(address), "{url} {target} {engine:?}: {told}");
            assert!(!["hunter2", "letmein"].iter().any(|secret| format!("{error:?}").contains(secret)), "{told}");
        }
        drop(proxy.asked());
    }
}

/// The proxy carries what we connect ourselves: of several servers on the way, the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_jump_starts_behind_the_proxy_and_a_command_makes_its_own_way() {
    let Some(server) = Server::get("openssh") else { return };
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    let write_config = |how: &str| {
        let Server { port, login, identity, known_hosts, .. } = &server;
        let text = format!(
            "Host gate\n HostName {ADDRESS}\nHost inner\n HostName 127.0.0.1\n {how}\nHost *\n Port {port}\n User {login}\n\
             IdentityFile {}\n IdentitiesOnly yes\n UserKnownHostsFile {}\n GlobalKnownHostsFile /dev/null\n",
            identity.display(),
            known_hosts.display()
        );
        std::fs::write(&config, text).unwrap();
    };
    let inner = Endpoint::parse("sftp://inner/").unwrap();
    for engine in ENGINES {
        let proxy = Proxy::start(Kind::Socks, None);
        let options = ConnectOptions {
            ssh_engine: engine,
            ssh_config: SshConfig::File(config.clone()),
            identities: Vec::new(),
            known_hosts: None,
            password: None,
            ..through(&proxy, &server)
        };
        write_config("ProxyJump gate");
        let connected = connect(&inner, &options).await;
        if engine == SshEngine::Openssh {
            assert!(connected.as_ref().is_err_and(|e| e.hint().is_some()), "ssh would go without the proxy");
            assert_kind(connected, ErrorKind::Unsupported, "a jump of ssh's own");
        } else {
            connected.unwrap().close().await.unwrap();
            assert_eq!(proxy.asked(), [(ADDRESS.to_owned(), server.port)], "{engine:?}");
        }
        // What was named for this run goes before the configuration.
        write_config("ProxyCommand false");
        connect(&inner, &options).await.unwrap().close().await.unwrap();
        assert_eq!(proxy.asked().last(), Some(&("127.0.0.1".to_owned(), server.port)), "{engine:?}");
    }
}

/// Runs the program against a server behind a proxy.
fn haul(server: &Server, home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_haul"));
    command.args(arguments).env("HOME", home).env("XDG_STATE_HOME", home).stdin(Stdio::null());
    for variable in ["ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"] {
        command.env_remove(variable);
    }
    if server.scheme == "sftp" {
        command.arg("-i").arg(&server.identity).arg("--known-hosts").arg(&server.known_hosts);
    } else {
        command.env("HAUL_PASSWORD", server.password.as_deref().unwrap_or_default());
        command.arg("--tls-ca").arg(&server.ca);
    }
    command
}

fn told(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

/// A tree with a large file, in segments and over several connections, by the program and the environment.
#[test]
fn segments_and_many_files_go_through_the_proxy_of_the_environment() {
    // Long enough for all connections to be made before the work is done.
    const LARGE: usize = 64 << 20;
    for (name, kind, engine) in [
        ("vsftpd_tls13", Kind::Socks, "russh"),
        ("vsftpd", Kind::Http, "russh"),
        ("openssh", Kind::Socks, "russh"),
        ("openssh", Kind::Http, "libssh2"),
        ("openssh", Kind::Socks, "openssh"),
    ] {
        let Some(server) = Server::get(name) else { continue };
        let (proxy, home) = (Proxy::start(kind, Some(LOGIN)), tempfile::tempdir().unwrap());
        let tree = format!("tree-{}", uuid());
        let there = server.root.join(&tree);
        std::fs::create_dir(&there).unwrap();
        std::fs::write(there.join("large"), bytes(1, LARGE)).unwrap();
        for number in 0..30 {
            std::fs::write(there.join(number.to_string()), bytes(number, 5000)).unwrap();
        }
        let home_of = if server.scheme == "sftp" { &server.start } else { "" };
        let url = format!("{}://{}@{ADDRESS}:{}/{home_of}/{tree}", server.scheme, server.login, server.port);
        let here = home.path().join("here");
        let arguments =
            ["get", "-r", "-vvv", "-c4", "--segments=3", "--ssh-engine", engine, &url, here.to_str().unwrap()];
        let output = haul(&server, home.path(), &arguments).env("ALL_PROXY", proxy.url()).output().unwrap();
        assert!(output.status.success(), "{name}: {}", told(&output));
        assert_same(&std::fs::read(here.join("large")).unwrap(), &bytes(1, LARGE), "the large file");
        for number in 0..30 {
            assert_same(&std::fs::read(here.join(number.to_string())).unwrap(), &bytes(number, 5000), "a small file");
        }
        assert!(proxy.count(ADDRESS, |port| port == server.port) >= 3, "{name}: {:?}", proxy.asked());
        assert!(!told(&output).contains("hunter2"), "the proxy's password is said");
        std::fs::remove_dir_all(there).unwrap();

        let output = haul(&server, home.path(), &["ls", "--ssh-engine", engine, &url])
            .envs([("all_proxy", proxy.url()), ("NO_PROXY", "example.org, 127.0.0.32/31".into())])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(3), "NO_PROXY leaves the host out, and it can't be reached directly");
        assert!(told(&output).contains("Connection refused"), "{}", told(&output));
    }
}

#[test]
fn the_command_line_goes_before_the_environment_and_keeps_passwords_to_itself() {
    let Some(server) = Server::get("vsftpd") else { return };
    let (proxy, home) = (Proxy::start(Kind::Http, Some(LOGIN)), tempfile::tempdir().unwrap());
    let url = format!("ftp://{}@{ADDRESS}:{}/", server.login, server.port);
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        let output = haul(&server, home.path(), &[&["ls", &url], arguments].concat()).envs(variables.to_vec()).output();
        let output = output.unwrap();
        assert!(!told(&output).contains("hunter2"), "{}", told(&output));
        (output.status.code(), told(&output))
    };
    let named = proxy.url();
    let broken = ("ALL_PROXY", "socks4://me:hunter2@h");
    let (code, text) = run(&["--proxy", &named], &[broken, ("NO_PROXY", "*")]);
    assert!(code == Some(0) && text.contains("everybody who may list processes"), "{text}");
    let (code, text) = run(&[], &[broken]);
    assert!(code == Some(2) && text.contains("ALL_PROXY") && text.contains("--proxy none"), "{text}");
    for variables in [[broken, ("NO_PROXY", "*")], [("ALL_PROXY", &named), ("no_proxy", "127.0.0.33")]] {
        let (code, text) = run(&[], &variables);
        assert!(code == Some(3) && text.contains("Connection refused"), "{text}");
    }
    let (code, text) = run(&["--proxy", "none"], &[("ALL_PROXY", &named)]);
    assert!(code == Some(3) && text.contains("Connection refused"), "{text}");
    let (code, text) = run(&["--proxy", "socks4://me:hunter2@h"], &[]);
    assert!(code == Some(2) && text.contains("socks4"), "{text}");
}

#[test]
fn families_and_the_address_here_hold_for_control_and_data() {
    for name in ["vsftpd", "openssh"] {
        let Some(server) = Server::get(name) else { continue };
        let home = tempfile::tempdir().unwrap();
        // The server lets data only go to where the login came from.
        let url = server.url();
        for engine in ["russh", "libssh2", "openssh"] {
            let run = |options: &[&str]| {
                let arguments = [&["ls", &url, "--ssh-engine", engine], options].concat();
                haul(&server, home.path(), &arguments).output().unwrap()
            };
            for options in [&["-4"][..], &["--bind", "127.0.0.9"], &["-4", "--bind=127.0.0.9"]] {
                let output = run(options);
                assert!(output.status.success(), "{name} {engine} {options:?}: {}", told(&output));
            }
            for options in [&["-6"][..], &["--bind", "::1"]] {
                let output = run(options);
                assert_eq!(output.status.code(), Some(3), "{name} {engine} {options:?}: {}", told(&output));
            }
        }
    }
}

/// A name server that never answers, for programs that are started by it: each look-up takes minutes.
struct SilentNames {
    socket: UdpSocket,
    folder: TempDir,
}

impl SilentNames {
    fn start() -> Option<Self> {
        let socket = UdpSocket::bind("127.0.0.42:53");
        let private = Command::new("unshare").args(["--mount", "true"]).status();
        let (Ok(socket), true) = (socket, private.is_ok_and(|status| status.success())) else {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "no name server in CI");
            eprintln!("SKIPPED: no name server: not root");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let conf = "nameserver 127.0.0.42\noptions timeout:30 attempts:5\n";
        std::fs::write(folder.path().join("resolv.conf"), conf).unwrap();
        std::fs::write(folder.path().join("nsswitch.conf"), "hosts: files dns\n").unwrap();
        Some(Self { socket, folder })
    }

    fn haul(&self, arguments: &[&str]) -> Command {
        let script =
            "mount --bind resolv.conf /etc/resolv.conf; mount --bind nsswitch.conf /etc/nsswitch.conf; exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-ec", script, "sh", env!("CARGO_BIN_EXE_haul")]);
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env("HOME", self.folder.path()).env("XDG_STATE_HOME", self.folder.path());
        command.env_remove("ALL_PROXY").env_remove("all_proxy");
        command
    }
}

/// Should the look-up be waited for, the runner ends the test before the system gives up.
#[test]
fn silent_name_servers_keep_neither_from_the_timeout_nor_from_the_end() {
    let Some(names) = SilentNames::start() else { return };
    let phase = "look up the host: no answer for 0.3 s";
    for (arguments, wanted) in [
        (&["ls", "ftp://host.example/"][..], &["host.example", phase][..]),
        (&["ls", "sftp://me@host.example/"], &["host.example", phase]),
        (&["get", "--ssh-engine=libssh2", "sftp://me@host.example/x"], &["host.example", phase]),
        (&["ls", "--ssh-engine=openssh", "sftp://me@host.example/"], &["host.example", "doesn't answer"]),
        (&["cat", "--proxy=socks5://proxy.example", "ftp://1.2.3.4/x"], &["proxy socks5h://proxy.example:1080", phase]),
    ] {
        let output = names.haul(&[arguments, &["--timeout=300ms"]].concat()).output().unwrap();
        let text = told(&output);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {text}");
        assert!(wanted.iter().all(|words| text.contains(words)), "{arguments:?}: {text}");
    }
    for arguments in [&["get", "sftp://me@host.example/x"][..], &["ls", "ftp://host.example/"]] {
        names.socket.set_nonblocking(true).unwrap();
        while names.socket.recv(&mut [0; 512]).is_ok() {}
        names.socket.set_nonblocking(false).unwrap();
        let mut child = names.haul(&[arguments, &["--timeout=1h"]].concat()).stderr(Stdio::null()).spawn().unwrap();
        // It is looking.
        names.socket.recv(&mut [0; 512]).unwrap();
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{arguments:?}");
    }
}

#[tokio::test]
async fn active_mode_behind_a_proxy_is_refused_before_anybody_is_called() {
    let proxy = Proxy::start(Kind::Socks, None);
    let mut options = ConnectOptions { proxies: Proxies::parse(&proxy.url()).unwrap(), ..ConnectOptions::default() };
    options.ftp.active = Some(ActivePorts::ANY);
    let refused = connect(&Endpoint::parse("ftp://server.invalid/").unwrap(), &options).await;
    assert!(refused.as_ref().is_err_and(|e| e.hint().is_some_and(|hint| hint.contains("--active"))), "{refused:?}");
    assert_kind(refused, ErrorKind::Usage, "active mode");
    assert!(proxy.asked().is_empty());
}
