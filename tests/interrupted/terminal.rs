//! On a terminal: it is given back as it was, whatever signal came.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

use crate::scene::{SFTP, Scene, Way, until};
use crate::stage::holds;

/// Writes the modes of the terminal to a file.
const MODES: &str = "stty -a | tr -s ' ;' '\\n' | grep -E '^-?(echo|echoctl|icanon)$' | sort > modes";
/// How a terminal is that nobody has touched.
const UNTOUCHED: &str = "echo\nechoctl\nicanon\n";

/// Runs a script on a terminal; its standard input is the keyboard.
fn at_terminal(scene: &Scene, script: &str) -> Child {
    scene.stage.file("work/script", script, 0o600);
    let mut command = Command::new("script");
    scene.stage.set_up(&mut command);
    command.env("TERM", "xterm").env("SHELL", "/bin/sh").args(["-qec", "sh script", "/dev/null"]);
    command.stdin(Stdio::piped()).spawn().unwrap()
}

fn haul(scene: &Scene, args: &[&str]) -> String {
    let words = args.iter().map(|arg| (*arg).to_owned()).chain(scene.trust());
    let words: Vec<_> = words.map(|word| format!("'{word}'")).collect();
    format!("{} {}", env!("CARGO_BIN_EXE_haul"), words.join(" "))
}

fn modes(scene: &Scene) -> Option<String> {
    std::fs::read_to_string(scene.stage.at("work/modes")).ok().filter(|modes| modes.ends_with("icanon\n"))
}

fn read_all(child: &mut Child) -> Vec<u8> {
    let mut said = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut said).unwrap();
    said
}

#[test]
fn ctrl_z_gives_it_back_and_fg_goes_on() {
    let scene = Scene::new(SFTP, Way::Get);
    let get = haul(&scene, &["get", "--timeout", "1s", "--limit-rate", "4M", &scene.url("big"), "big"]);
    let mut child = at_terminal(&scene, &format!("set -m\n{get}\n{MODES}\nsleep 2\nfg >/dev/null\necho status $?"));
    let mut keyboard = child.stdin.take().unwrap();
    scene.wait_for(&mut child, crate::scene::SOME);
    keyboard.write_all(b"\x1a").unwrap();
    until("it is stopped", || modes(&scene).is_some());
    assert_eq!(modes(&scene).unwrap(), UNTOUCHED);
    assert!(!scene.destination().exists());
    let said = read_all(&mut child);
    assert!(child.wait().unwrap().success());
    assert!(holds(&said, b"status 0"), "{}", String::from_utf8_lossy(&said));
    scene.assert_arrived();
}

#[test]
fn ctrl_c_gives_it_back() {
    let scene = Scene::new(SFTP, Way::Get);
    let get = haul(&scene, &["get", "--limit-rate", "4M", &scene.url("big"), "big"]);
    let mut child = at_terminal(&scene, &format!("trap : INT\n{get}\necho status $?\n{MODES}"));
    let mut keyboard = child.stdin.take().unwrap();
    scene.wait_for(&mut child, crate::scene::SOME);
    keyboard.write_all(b"\x03").unwrap();
    let said = read_all(&mut child);
    child.wait().unwrap();
    let text = String::from_utf8_lossy(&said);
    assert!(text.contains("status 130") && text.contains("haul resume"), "{text}");
    assert!(text.contains("\u{1b}[2K") || text.contains("\u{1b}["), "there were no bars: {text}");
    let (hidden, shown) = (text.rfind("\u{1b}[?25l"), text.rfind("\u{1b}[?25h"));
    assert!(hidden <= shown, "the cursor stays hidden");
    assert_eq!(modes(&scene).unwrap(), UNTOUCHED);
    scene.stage.haul(&["resume", "--all"]).ends(0);
    scene.assert_arrived();
}

#[test]
fn a_question_for_a_password_can_be_left() {
    let mut scene = Scene::new(SFTP, Way::Get);
    scene.stage.env.clear();
    let get = haul(&scene, &["get", &scene.url("big"), "big"]);
    for (key, wanted) in [(b"\x03", "status 130"), (b"\x1a", "status 148")] {
        let after = if key == b"\x1a" { "kill %1" } else { "" };
        let mut child = at_terminal(&scene, &format!("set -m\n{get}\necho status $?\n{MODES}\n{after}"));
        let (mut keyboard, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
        while !holds(&said, b"assword") {
            let length = stdout.read(&mut buffer).unwrap();
            assert!(length > 0, "nobody was asked: {}", String::from_utf8_lossy(&said));
            said.extend_from_slice(&buffer[..length]);
        }
        keyboard.write_all(key).unwrap();
        stdout.read_to_end(&mut said).unwrap();
        child.wait().unwrap();
        let text = String::from_utf8_lossy(&said);
        assert!(text.contains(wanted), "{wanted}: {text}");
        assert_eq!(modes(&scene).unwrap(), UNTOUCHED);
        std::fs::remove_file(scene.stage.at("work/modes")).unwrap();
    }
}
