//! What job files and scripts come to, and what is told of those that are wrong.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::{Takes, Value};

/// Commands with a few options each.
struct Around;

struct Options(&'static [(&'static str, Takes)]);

const COPIES: Options = Options(&[
    ("recursive", Takes::Switch),
    ("no-resume", Takes::Switch),
    ("limit-rate", Takes::Word),
    ("identity", Takes::Words),
    ("password-file", Takes::Word),
]);
const OTHERS: Options = Options(&[("identity", Takes::Words), ("parents", Takes::Switch)]);

impl Vocabulary for Options {
    fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| *name).collect()
    }

    fn takes(&self, name: &str) -> Option<Takes> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, takes)| *takes)
    }

    fn check(&self, name: &str, word: &str) -> Result<(), String> {
        match (name, word.parse::<u32>()) {
            ("limit-rate", Err(_)) => Err(format!("\"{word}\" is no rate")),
            _ => Ok(()),
        }
    }
}

impl Surroundings for Around {
    fn options(&self, verb: &str) -> &dyn Vocabulary {
        if ["get", "put", "sync"].contains(&verb) { &COPIES } else { &OTHERS }
    }

    fn variable(&self, name: &str) -> Result<String, String> {
        match name {
            "HOST" => Ok("example.org".into()),
            _ => Err("the variable isn't set".into()),
        }
    }

    fn is_of_run(&self, name: &str) -> bool {
        name == "report"
    }

    fn date(&self, format: &str) -> Result<String, String> {
        if format == "%F" { Ok("2026-11-22".into()) } else { Err("no format".into()) }
    }

    fn duration(&self, word: &str) -> Result<Duration, String> {
        word.strip_suffix('s').and_then(|digits| digits.parse().ok()).map(Duration::from_secs).ok_or("no time".into())
    }
}

fn read(text: &str) -> JobFile {
    let (file, problems) = JobFile::read(text, &Around);
    assert_eq!(problems, []);
    file
}

/// What is wrong, a line each.
fn wrong(text: &str) -> Vec<String> {
    let (_, problems) = JobFile::read(text, &Around);
    let told = problems.into_iter().map(|Problem { place, message, hint }| match hint {
        Some(hint) => format!("{place}: {message} ({hint})"),
        None => format!("{place}: {message}"),
    });
    told.collect()
}

#[test]
fn a_job_file_says_it_all() {
    let file = read(
        "lock = true\non_failure = \"mail $USER\"\n[defaults]\nlimit_rate = 5\nidentity = \"k\"\non_error = \"continue\"\n\
         [[job]]\nname = \"a\"\nget = [\"sftp://${HOST}/${date:%F}\", \"x\"]\nto = \"y$${z}\"\nresume = false\n\
         on_error = \"retry\"\nwhen = \"p\"\nunless = [\"q\", \"r\"]\n\
         [[job]]\nmkdir = \"sftp://h/d\"\nneeds = \"a\"\nretry = 7\nretry_wait = \"2s\"\non_success = [\"x\", \"${HOST}\"]\n",
    );
    assert_eq!(file.lock, Some(Lock::Own));
    // The shell's own: nothing in it is replaced.
    assert_eq!(file.hooks.on_failure, Some(Hook::Shell("mail $USER".into())));
    let [a, b] = &file.jobs[..] else { panic!("{file:?}") };
    assert_eq!((a.name.as_str(), a.verb, b.name.as_str(), b.verb), ("a", "get", "job 2", "mkdir"));
    assert_eq!(a.sources[0].value, "sftp://example.org/2026-11-22");
    assert_eq!(a.to.as_ref().unwrap().value, "y${z}");
    assert_eq!((a.options[0].name.as_str(), &a.options[0].value), ("no-resume", &Value::Switch(true)));
    assert_eq!((a.on_error, a.retry, a.retry_wait), (OnError::Stop, 3, Duration::from_secs(30)));
    let wanted: Vec<_> = a.conditions.iter().map(|it| (it.operand.value.as_str(), it.wanted)).collect();
    assert_eq!(wanted, [("p", Wanted::There), ("q", Wanted::Missing), ("r", Wanted::Missing)]);
    // Of the defaults each takes what its command has.
    let names = |job: &Job| job.defaults.iter().map(|setting| setting.name.clone()).collect::<Vec<_>>();
    assert_eq!((names(a), names(b)), (vec!["limit-rate".to_owned(), "identity".into()], vec!["identity".into()]));
    assert_eq!(
        (b.needs.as_slice(), b.on_error, b.retry, b.retry_wait),
        (&[0][..], OnError::Continue, 7, Duration::from_secs(2))
    );
    assert_eq!(b.hooks.on_success, Some(Hook::Words(vec!["x".into(), "example.org".into()])));
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let told = wrong(
        "lok = true\n[defaults]\nlimit_rat = 5\nto = \"x\"\n[[job]]\nname = \"a\"\ngett = \"x\"\n\
         [[job]]\nname = \"b\"\nput = \"${NOPE}\"\nneeds = [\"c\", \"b\", \"e\"]\n\
         [[job]]\nname = \"c\"\nget = \"sftp://u:secret@h/x\"\nto = \"-\"\nlimit_rate = \"x\"\npassword = \"secret\"\n\
         [[job]]\nname = \"c\"\nget = \"x\"\nput = \"y\"\nto = [\"z\"]\non_error = \"retri\"\nretry = -1\nlock = 1\non_success = 5\n\
         [[job]]\nrm = \"gopher://h\"\nto = \"x\"\nwhen = []\n",
    );
    assert_eq!(
        told,
        [
            "1:1: unknown: lok (did you mean lock?)",
            "3:1: unknown option: limit_rat (did you mean limit_rate?)",
            "4:1: unknown option: to (it belongs below a [[job]])",
            "7:1: the job does nothing: it has none of get, put, sync, check, rm, mkdir, mv (did you mean get?)",
            "10:1: put needs to = \"…\", where to",
            "10:7: put: ${NOPE}: the variable isn't set",
            "11:15: a job can't need itself",
            "11:20: no job is called e",
            "14:7: passwords don't belong in this file (haul login URL puts a password into the keyring; password_file names a file of yours; ~/.netrc works, too)",
            "15:6: to: a job has no standard input or output (a file that is called - is written ./-)",
            "16:14: limit_rate: \"x\" is no rate",
            "17:1: passwords don't belong in this file (haul login URL puts a password into the keyring; password_file names a file of yours; ~/.netrc works, too)",
            "18:1: two jobs are called c; the other begins at 12:1",
            "21:1: a job does one thing: get, or put (make two jobs of it)",
            "22:6: to is one path or URL in quotes",
            "23:12: on_error is \"stop\", \"continue\" or \"retry\" (did you mean \"retry\"?)",
            "24:9: retry is a whole number like 3; 0 is never",
            "25:8: lock is true, false, or a file",
            "26:14: on_success is a command: [\"mail\", \"me\"] or \"mail me\" (a list of words is run as it is, a string by sh -c)",
            "28:6: rm: unknown scheme \"gopher\" (haul speaks sftp://, ftp://, ftpes://, ftps:// and file://)",
            "29:6: rm goes nowhere: leave to out",
            "30:8: when is empty (leave the line out)",
        ]
    );
    assert!(!told.join("\n").contains("secret"));
}

#[test]
fn circles_are_named() {
    let job = |name: &str, needs: &str| format!("[[job]]\nname = \"{name}\"\nmkdir = \"x\"\nneeds = [{needs}]\n");
    let text =
        [job("a", "\"b\""), job("b", "\"c\""), job("c", "\"d\""), job("d", "\"b\", \"e\""), job("e", "")].concat();
    assert_eq!(wrong(&text), ["8:10: jobs that need each other: b -> c -> d -> b"]);
}

#[test]
fn an_empty_file_and_a_broken_one_are_told() {
    assert!(wrong("# nothing\n")[0].starts_with("1:1: no job is in the file"));
    assert_eq!(wrong("[[job]]\nget = \"x\nto = \"y\"\n").len(), 1, "{:?}", wrong("[[job]]\nget = \"x\nto = \"y\"\n"));
}

#[test]
fn formats_are_told_apart() {
    for jobs in ["[[job]]\n", "\n# c\n [defaults]", "lock = true\n", "on_failure=\"x\""] {
        assert!(is_job_file(jobs.as_bytes()), "{jobs}");
    }
    for script in ["get a b\n", "# c\n-rm x", "!x = y", "", "@ls", "cd \"=\"", "get = = ="] {
        assert_eq!(is_job_file(script.as_bytes()), script.starts_with("get ="), "{script}");
    }
}

fn actions(text: &str) -> Vec<Action> {
    read_script(text.as_bytes()).unwrap().into_iter().map(|line| line.action).collect()
}

#[test]
fn a_script_is_what_sftp_takes() {
    let lines = read_script(b"# c\n\n  - @GET -rP a* b # c\n@ - lls  -l 'x y'\n!echo # not a comment \nbye\n").unwrap();
    assert_eq!(lines.len(), 4);
    let flags = CopyFlags { preserve: true, recursive: true, ..CopyFlags::default() };
    assert!(matches!(&lines[0].action, Action::Get(_, Some(to), found) if to == b"b" && *found == flags));
    assert_eq!((lines[0].ignores_failure, lines[0].silent, lines[0].place.column), (true, true, 6));
    assert_eq!(lines[1].action, Action::LocalList(b"-l 'x y'".to_vec()));
    assert_eq!(lines[2].action, Action::Shell(b"echo # not a comment".to_vec()));
    assert!(!lines[2].ignores_failure && lines[3].action == Action::Quit);
    assert_eq!(
        actions("cd\nlcd ''\nln -s a b\nln a b\nrename -l a b\nlumask 022\ndf -hi\nls -1lSra x"),
        [
            Action::Cd(None),
            Action::LocalCd(Some(Vec::new())),
            Action::Symlink(b"a".to_vec(), b"b".to_vec()),
            Action::HardLink(b"a".to_vec(), b"b".to_vec()),
            Action::Rename { from: b"a".to_vec(), to: b"b".to_vec(), replaces: false },
            Action::LocalUmask(0o22),
            Action::Df { human: true, inodes: true, path: None },
            Action::List(
                words::split(b"ls -1lSra x", 10).unwrap().pop(),
                ListFlags { long: true, all: true, reverse: true, sort: SortBy::Size, ..ListFlags::default() },
            ),
        ]
    );
}

#[test]
fn every_mistake_of_a_script_is_told() {
    let text = "gte a\nget\nput -x a\nchmod 9 a\nchmod -h 6 a\nmkdir 'a\nrm a b\nrename a\ncd -x\nchown me f\nls\n";
    let problems = read_script(text.as_bytes()).unwrap_err();
    let told: Vec<_> = problems.iter().map(|problem| format!("{}: {}", problem.place, problem.message)).collect();
    assert_eq!(
        told,
        [
            "1:1: unknown command: gte",
            "2:4: get wants what to copy",
            "3:5: put has no flag -x",
            "4:7: chmod wants a mode like 644: \"9\" is none",
            "5:7: chmod has no flag -h",
            "6:7: a quote that isn't closed",
            "7:6: rm takes no more words than those before: b",
            "8:9: rename wants the new name",
            "9:4: cd has no flag -x",
            "10:7: chown wants a user's number: \"me\" is none",
        ]
    );
    assert_eq!(problems[0].hint.as_deref(), Some("did you mean get?"));
}

proptest! {
    #[test]
    fn any_script_is_read_or_refused(text: Vec<u8>) {
        let lines = text.split(|&byte| byte == b'\n').count();
        match read_script(&text) {
            Ok(read) => prop_assert!(read.iter().all(|line| line.place.line <= lines)),
            Err(problems) => prop_assert!(!problems.is_empty() && problems.iter().all(|it| it.place.line <= lines)),
        }
    }

    #[test]
    fn any_line_of_a_command_is_read_or_refused(name in "(get|put|ls|rm|chmod|ln|df|lls|rename)", rest in "[ -~]{0,30}") {
        let _ = read_script(format!("{name} {rest}").as_bytes());
    }

    #[test]
    fn any_job_file_is_read_or_refused(text in "(\\[\\[job\\]\\]\n|get = \"|\\$\\{HOST\\}|\"\n|needs = \\[|\\]|a|lock = |true\n|\\$|\\{|\n){0,30}") {
        let (_, problems) = JobFile::read(&text, &Around);
        let lines = text.split('\n').count();
        prop_assert!(problems.iter().all(|problem| (1..=lines).contains(&problem.place.line)));
    }

    #[test]
    fn what_holds_no_dollar_stays_itself(text in "[^$]{0,30}", tail in "[a-z$ ]{0,10}") {
        prop_assert_eq!(expand(&text, &Around), Ok(text.clone()));
        prop_assert_eq!(expand(&format!("{text}$${{{tail}"), &Around).unwrap(), format!("{text}${{{tail}"));
        let both = format!("{text}${{HOST}}{text}");
        prop_assert_eq!(expand(&both, &Around), Ok(format!("{text}example.org{text}")));
    }

    #[test]
    fn any_text_is_expanded_or_refused(text in "[${}A-Z:a-z%]{0,20}") {
        let _ = expand(&text, &Around);
    }
}
