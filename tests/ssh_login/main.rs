//! Passwords, questions and partial success, on every SSH engine, against a server that only knows how to log in.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod door;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use door::{Door, Lock, Rule};
use haul::transport::ssh::{LoginCache, connect, use_askpass_program};
use haul::transport::{ConnectOptions, HostKeyPolicy, NoPrompt, Prompt, Secret, SshConfig, SshEngine};
use haul::{Error, ErrorKind};

const ENGINES: [SshEngine; 3] = [SshEngine::Russh, SshEngine::Libssh2, SshEngine::Openssh];
/// Those that log in themselves.
const OURS: [SshEngine; 2] = [SshEngine::Russh, SshEngine::Libssh2];
const PASSWORD: &str = "correct horse";
const CODE: &str = "123456";
/// Password, then a code, in rounds of their own: what a second factor looks like.
const ROUNDS: Lock = Lock::Questions(&[&[("Password: ", false, PASSWORD)], &[("Verification code: ", true, CODE)]]);

/// A person who gives the answers in turn and then has no more.
#[derive(Debug, Default)]
struct Person {
    answers: Mutex<Vec<&'static str>>,
    questions: Mutex<Vec<String>>,
    /// Questions whose answer was seen on the screen.
    echoed: Mutex<Vec<String>>,
}

impl Person {
    fn who_answers(answers: &[&'static str]) -> Arc<Self> {
        let answers = Mutex::new(answers.iter().rev().copied().collect());
        Arc::new(Self { answers, ..Self::default() })
    }

    fn asked(&self) -> Vec<String> {
        self.questions.lock().unwrap().clone()
    }

    fn next(&self, question: &str) -> Option<String> {
        self.questions.lock().unwrap().push(question.into());
        self.answers.lock().unwrap().pop().map(str::to_owned)
    }
}

impl Prompt for Person {
    fn secret(&self, question: &str) -> Option<Secret> {
        self.next(question).map(Secret::new)
    }

    fn line(&self, question: &str) -> Option<String> {
        self.echoed.lock().unwrap().push(question.into());
        self.next(question)
    }

    fn confirm(&self, _: &str) -> Option<bool> {
        None
    }

    fn notice(&self, _: &str) {}
}

fn options(door: &Door, engine: SshEngine, person: &Arc<Person>, password: Option<&str>) -> ConnectOptions {
    use_askpass_program(env!("CARGO_BIN_EXE_haul").into());
    ConnectOptions {
        timeout: Duration::from_secs(10),
        password: password.map(Secret::new),
        prompt: Arc::clone(person) as Arc<dyn Prompt>,
        identities: vec![door.path("key")],
        agent: None,
        known_hosts: Some(door.path("known_hosts")),
        ssh_config: SshConfig::None,
        host_key: Some(HostKeyPolicy::Strict),
        ssh_engine: engine,
        ..ConnectOptions::default()
    }
}

async fn enter(door: &Door, options: &ConnectOptions) -> Result<(), Error> {
    connect(&door.endpoint(), options, &LoginCache::default()).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_known_needs_no_question() {
    let door = Door::open(&[Lock::Password]).await;
    for engine in ENGINES {
        let person = Person::who_answers(&[]);
        enter(&door, &options(&door, engine, &person, Some(PASSWORD))).await.unwrap();
        assert!(person.asked().is_empty(), "{engine:?}: {:?}", person.asked());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_refused_and_never_shown() {
    let door = Door::open(&[Lock::Password]).await;
    for engine in ENGINES {
        let person = Person::who_answers(&[]);
        let error = enter(&door, &options(&door, engine, &person, Some("hunter2"))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AuthFailed, "{engine:?}: {}", error.chain());
        assert!(error.hint().is_some(), "{engine:?}");
        assert!(!format!("{error:?} {}", error.chain()).contains("hunter2"), "{engine:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_asked_once_for_all_connections() {
    let door = Door::open(&[Lock::Password]).await;
    for engine in ENGINES {
        let person = Person::who_answers(&["wrong at first", PASSWORD]);
        let (options, cache) = (options(&door, engine, &person, None), LoginCache::default());
        // The second and third start while the first is still asking, as those of a pool would.
        let endpoint = door.endpoint();
        let all = futures_util::future::join_all((0..3).map(|_| connect(&endpoint, &options, &cache))).await;
        assert!(all.iter().all(Result::is_ok), "{engine:?}: {all:?}");
        assert_eq!(person.asked().len(), 2, "{engine:?}: {:?}", person.asked());
        assert!(person.asked()[0].contains("me@127.0.0.1"), "{engine:?}: {:?}", person.asked());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_does_not_know_is_asked_three_times() {
    let door = Door::open(&[Lock::Password]).await;
    for engine in ENGINES {
        let person = Person::who_answers(&["a", "b", "c", "d", "e"]);
        let error = enter(&door, &options(&door, engine, &person, None)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AuthFailed, "{engine:?}: {}", error.chain());
        assert_eq!(person.asked().len(), 3, "{engine:?}: {:?}", person.asked());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_question_for_the_password_is_answered_with_it() {
    let door = Door::open(&[Lock::Questions(&[&[("Password: ", false, PASSWORD)]])]).await;
    for engine in ENGINES {
        let person = Person::who_answers(&[]);
        enter(&door, &options(&door, engine, &person, Some(PASSWORD))).await.unwrap();
        assert!(person.asked().is_empty(), "{engine:?}: {:?}", person.asked());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_questions_are_asked() {
    let door =
        Door::open(&[Lock::Questions(&[&[("Password: ", false, PASSWORD), ("Verification code: ", true, CODE)]])])
            .await;
    for engine in ENGINES {
        let person = Person::who_answers(&[PASSWORD, CODE]);
        enter(&door, &options(&door, engine, &person, None)).await.unwrap();
        assert_eq!(person.asked().len(), 2, "{engine:?}: {:?}", person.asked());
        assert!(person.asked()[1].contains("Verification code"), "{engine:?}: {:?}", person.asked());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_nobody_answers_ends_the_login() {
    let door = Door::open(&[Lock::Questions(&[&[("Verification code: ", false, CODE)]])]).await;
    for engine in ENGINES {
        let person = Person::who_answers(&[]);
        let error = enter(&door, &options(&door, engine, &person, Some(PASSWORD))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AuthFailed, "{engine:?}: {}", error.chain());
        assert!(door.count(PASSWORD) == 0, "{engine:?}: the password was sent in place of a code");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_answer_that_no_person_gave_is_not_repeated() {
    for engine in ENGINES {
        let door = Door::open(&[Lock::Questions(&[&[("Password: ", false, PASSWORD)]])]).await;
        let person = Person::who_answers(&[]);
        let error = enter(&door, &options(&door, engine, &person, Some("hunter2"))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AuthFailed, "{engine:?}: {}", error.chain());
        assert_eq!(door.count("hunter2"), 1, "{engine:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_and_then_a_password() {
    let door = Door::open(&[Lock::Key, Lock::Password]).await;
    for engine in ENGINES {
        let person = Person::who_answers(&[]);
        enter(&door, &options(&door, engine, &person, Some(PASSWORD))).await.unwrap();
        let error = enter(&door, &options(&door, engine, &person, None)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AuthFailed, "{engine:?}: {}", error.chain());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_and_then_a_code() {
    let rules: [Rule; 4] = [&[ROUNDS], &[Lock::Key, ROUNDS], &[Lock::Password, ROUNDS], &[ROUNDS, Lock::Key]];
    for rule in rules {
        let door = Door::open(rule).await;
        for engine in ENGINES {
            let person = Person::who_answers(&match rule[0] {
                Lock::Password => vec![PASSWORD, PASSWORD, CODE],
                _ => vec![PASSWORD, CODE],
            });
            let entered = enter(&door, &options(&door, engine, &person, None)).await;
            entered.unwrap_or_else(|e| panic!("{engine:?} {rule:?}: {} {:?}", e.chain(), person.asked()));
            let asked = person.asked();
            assert!(asked.last().unwrap().contains("Verification code"), "{engine:?} {rule:?}: {asked:?}");
            if engine != SshEngine::Openssh {
                assert_eq!(*person.echoed.lock().unwrap(), asked[asked.len() - 1..], "{engine:?} {rule:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_password_answers_its_question_and_the_person_the_others() {
    let door = Door::open(&[ROUNDS]).await;
    for engine in ENGINES {
        let person = Person::who_answers(&[CODE]);
        enter(&door, &options(&door, engine, &person, Some(PASSWORD))).await.unwrap();
        assert_eq!(person.asked().len(), 1, "{engine:?}: {:?}", person.asked());
        // The same when the questions come at once.
        let at_once =
            Door::open(&[Lock::Questions(&[&[("Code: ", true, CODE), ("Password: ", false, PASSWORD)]])]).await;
        let person = Person::who_answers(&[CODE]);
        enter(&at_once, &options(&at_once, engine, &person, Some(PASSWORD))).await.unwrap();
        assert_eq!(person.asked().len(), 1, "{engine:?}: {:?}", person.asked());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_factor_that_nobody_gives_is_told() {
    let door = Door::open(&[Lock::Key, ROUNDS]).await;
    let other = Door::open(&[Lock::Questions(&[&[("YubiKey for `me': ", false, CODE)]])]).await;
    for engine in OURS {
        let person = Person::who_answers(&[]);
        let error = enter(&door, &options(&door, engine, &person, Some(PASSWORD))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AuthFailed, "{engine:?}: {}", error.chain());
        assert!(error.chain().contains("nobody answered \"Verification code:\""), "{engine:?}: {}", error.chain());
        assert!(error.hint().unwrap().contains("terminal"), "{engine:?}: {error}");

        let error = enter(&other, &options(&other, engine, &person, Some(PASSWORD))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AuthFailed, "{engine:?}: {}", error.chain());
        assert_eq!(other.count(PASSWORD), 0, "{engine:?}: the password was sent for something else");

        // Where it is known that nobody is there, nothing is begun.
        let nobody = ConnectOptions { prompt: Arc::new(NoPrompt), ..options(&door, engine, &person, None) };
        let error = enter(&door, &nobody).await.unwrap_err();
        assert!(error.chain().contains("nobody is there to answer"), "{engine:?}: {}", error.chain());
        assert!(error.hint().unwrap().contains("terminal"), "{engine:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_and_then_a_key() {
    let door = Door::open(&[Lock::Password, Lock::Key]).await;
    for engine in ENGINES {
        let person = Person::who_answers(&[]);
        let entered = enter(&door, &options(&door, engine, &person, Some(PASSWORD))).await;
        entered.unwrap_or_else(|e| panic!("{engine:?}: {}", e.chain()));
        let person = Person::who_answers(&[]);
        let error = enter(&door, &options(&door, engine, &person, Some("hunter2"))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AuthFailed, "{engine:?}: {}", error.chain());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_are_tried_in_the_order_of_the_configuration() {
    for engine in OURS {
        for (preferred, first) in [("password,publickey", PASSWORD), ("publickey,password", "a key")] {
            // Whatever is tried, this door stays closed, and names password and key in turn.
            let door = Door::open(&[Lock::Password, Lock::Key, Lock::Password, Lock::Key]).await;
            let config = door.path("config");
            std::fs::write(&config, format!("PreferredAuthentications {preferred}\n")).unwrap();
            let person = Person::who_answers(&[]);
            let options = ConnectOptions {
                ssh_config: SshConfig::File(config),
                ..options(&door, engine, &person, Some(PASSWORD))
            };
            assert!(enter(&door, &options).await.is_err(), "{engine:?}");
            // libssh2 asks first what the server takes, so that a key is never shown in vain.
            let first = if engine == SshEngine::Libssh2 { PASSWORD } else { first };
            assert_eq!(door.seen()[0], first, "{engine:?} {preferred}: {:?}", door.seen());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_asked_as_often_as_the_configuration_says() {
    let door = Door::open(&[Lock::Password]).await;
    let config = door.path("config");
    std::fs::write(&config, "NumberOfPasswordPrompts 2\n").unwrap();
    for engine in OURS {
        let person = Person::who_answers(&["a", "b", "c", "d"]);
        let options =
            ConnectOptions { ssh_config: SshConfig::File(config.clone()), ..options(&door, engine, &person, None) };
        assert_eq!(enter(&door, &options).await.unwrap_err().kind(), ErrorKind::AuthFailed, "{engine:?}");
        assert_eq!(person.asked().len(), 2, "{engine:?}: {:?}", person.asked());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_name_is_no_option_of_ssh() {
    let door = Door::open(&[Lock::Password]).await;
    let person = Person::who_answers(&[]);
    let mark = door.path("owned");
    let mut endpoint = door.endpoint();
    endpoint.user = Some(format!("-oProxyCommand=touch {}", mark.display()));
    let options = options(&door, SshEngine::Openssh, &person, Some(PASSWORD));
    let error = connect(&endpoint, &options, &LoginCache::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage, "{}", error.chain());
    assert!(!mark.exists());
}

/// `ssh` asks for the jump host's password in the same way as for the target's.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_on_the_way_is_not_told_the_password_by_the_systems_ssh() {
    let (gate, door) = (Door::open(&[Lock::Password]).await, Door::open(&[Lock::Password]).await);
    let (there, via) = (door.endpoint(), gate.endpoint());
    let config = format!(
        "Host 127.0.0.1\nProxyJump me@localhost:{}\nHost localhost\nStrictHostKeyChecking no\nUserKnownHostsFile {}\n\
         PubkeyAuthentication no\n",
        via.port.unwrap(),
        gate.path("new").display(),
    );
    std::fs::write(door.path("config"), config).unwrap();
    let person = Person::who_answers(&[]);
    let ssh_config = SshConfig::File(door.path("config"));
    let options = ConnectOptions { ssh_config, ..options(&door, SshEngine::Openssh, &person, Some(PASSWORD)) };
    let error = connect(&there, &options, &LoginCache::default()).await.unwrap_err();
    assert_eq!(gate.count(PASSWORD), 0, "{}", error.chain());
    assert!(person.asked().iter().any(|question| question.contains("me@localhost")), "{:?}", person.asked());
}
