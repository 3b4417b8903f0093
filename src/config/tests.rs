use proptest::prelude::*;

use super::*;

/// A few settings as the command line would tell them.
struct Few;

impl Vocabulary for Few {
    fn names(&self) -> Vec<&str> {
        vec!["jobs", "tls", "durable", "no-resume", "identity", "limit-rate", "password-file"]
    }

    fn takes(&self, name: &str) -> Option<Takes> {
        match name {
            "durable" | "no-resume" => Some(Takes::Switch),
            "identity" => Some(Takes::Words),
            name => self.names().contains(&name).then_some(Takes::Word),
        }
    }

    fn check(&self, name: &str, word: &str) -> Result<(), String> {
        match (name, word) {
            ("tls", word) if !["off", "allow", "require"].contains(&word) => Err(format!("\"{word}\" is none of them")),
            ("jobs", word) if word.parse::<u32>().is_err() => Err("give a number".into()),
            _ => Ok(()),
        }
    }
}

fn read(text: &str) -> Config {
    Config::read(text, &Few).unwrap()
}

/// Everything that is wrong, one line each.
fn problems(text: &str) -> Vec<String> {
    let problems = Config::read(text, &Few).unwrap_err();
    let line = |p: Problem| format!("{} {} | {}", p.place, p.message, p.hint.unwrap_or_default());
    problems.into_iter().map(line).collect()
}

fn words(words: &[&str]) -> Value {
    Value::Words(words.iter().map(|&word| word.to_owned()).collect())
}

#[test]
fn the_nearest_section_comes_first() {
    let config = read(
        "[defaults]\njobs = 8\n[host.\"*\"]\n[host.\"*.org\"]\n[host.\"*.example.org\"]\n[host.\"FTP.example.org\"]\n\
         [host.\"ftp.*\"]\n[profile.work]\nurl = \"sftp://me@ftp.example.org/~/data\"\njobs = 2\n",
    );
    let titles = |host, profile| config.sections(host, profile).iter().map(|s| s.title.clone()).collect::<Vec<_>>();
    let hosts =
        ["host \"ftp.example.org\"", "host \"*.example.org\"", "host \"*.org\"", "host \"ftp.*\"", "host \"*\""];
    assert_eq!(titles("ftp.Example.org", None), [&hosts[..], &["defaults"]].concat());
    assert_eq!(titles("ftp.example.org", Some("work")), [&["profile work"], &hosts[..], &["defaults"]].concat());
    assert_eq!(titles("host", None), ["host \"*\"", "defaults"]);
    assert_eq!(config.profile("work").unwrap().endpoint.to_string(), "sftp://me@ftp.example.org/~/data");
}

#[test]
fn settings_are_words_numbers_and_switches() {
    let config = read(
        "[defaults]\njobs = 8\nlimit_rate = \"5M\"\ndurable = true\nresume = false\nidentity = [\"a\", 'b']\n\
         [host.x]\nidentity = \"c\"\nno-resume = false\nlimit-rate = 1.5\n",
    );
    let section = config.sections("elsewhere", None)[0];
    let value = |name| section.get(name).unwrap().value.clone();
    assert_eq!(value("jobs"), words(&["8"]));
    assert_eq!(value("limit-rate"), words(&["5M"]));
    assert_eq!((value("durable"), value("no-resume")), (Value::Switch(true), Value::Switch(true)));
    assert_eq!(value("identity"), words(&["a", "b"]));
    assert_eq!(section.get("durable").unwrap().place, Place { line: 4, column: 1 });
    let host = config.sections("x", None)[0];
    assert_eq!(host.get("no-resume").unwrap().value, Value::Switch(false));
    assert_eq!(host.get("limit-rate").unwrap().value, words(&["1.5"]));
}

#[test]
fn every_error_is_named_with_its_place() {
    let text = "jobs = 8\n[default]\n[defaults]\ntls = \"maybe\"\n  jbos = 8\ndurable = 1\nresume = \"no\"\n\
                jobs = \"many\"\nidentity = []\ntls = true\n\
                [host]\nx = 1\n[profile.\"a b\"]\nurl = \"sftp://h/\"\n[profile.sftp]\nurl = \"sftp://h/\"\n\
                [profile.none]\n[profile.odd]\nurl = \"h/x\"\n[profile.port]\nurl = \"sftp://h:0/\"\n";
    let name = "a name is made of letters, digits, _, - and ., and is none of sftp, ftp, ftpes, ftps, file";
    assert_eq!(
        problems(text),
        [
            "1:1 a setting without a heading above it: jobs | write it below [defaults], [host.\"PATTERN\"] or [profile.NAME]",
            "2:2 unknown heading: default | did you mean [defaults]?",
            "4:7 tls: \"maybe\" is none of them | ",
            "5:3 unknown setting: jbos | did you mean jobs?",
            "6:11 durable is true or false | ",
            "7:10 resume is true or false | ",
            "8:8 jobs: give a number | ",
            "9:12 identity is empty | leave the line out",
            "10:1 duplicate key | ",
            "12:1 host.\"PATTERN\" is a heading: write [host.\"PATTERN\"] | ",
            &format!("13:10 \"a b\" is no name for a profile | {name}"),
            &format!("15:10 \"sftp\" is no name for a profile | {name}"),
            "17:10 the profile none has no url | write url = \"sftp://user@host/~/\" below it",
            "19:7 url wants a URL in quotes | like \"sftp://user@host/~/data\"",
            "21:7 url: \"0\" is no port | a port is a number from 1 to 65535; write IPv6 addresses in brackets",
        ]
    );
}

#[test]
fn text_that_is_no_toml_is_told_with_its_place_and_without_its_words() {
    assert_eq!(problems("[defaults]\njobs = 5M\n").len(), 1);
    for text in ["[defaults]\npassword = hunter2\n", "[defaults\npassword = \"hunter2\"\n", "password \"hunter2"] {
        let told = problems(text).join("\n");
        assert!(told.starts_with(|c: char| c.is_ascii_digit()) && !told.contains("hunter2"), "{told}");
    }
}

#[test]
fn passwords_are_refused_and_never_shown() {
    for text in [
        "[defaults]\npassword = \"hunter2\"\n",
        "[defaults]\nPassPhrase = \"hunter2\"\n",
        "[host.x]\nftp_password = \"hunter2\"\n",
        "[profile.x]\nurl = \"sftp://me:hunter2@h/\"\n",
    ] {
        let told = problems(text).join("\n");
        assert!(told.contains("passwords don't belong in this file") && told.contains("haul login"), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}

#[test]
fn a_profile_stands_in_front_of_a_colon() {
    let split = |operand: &'static str| split_profile(operand.as_bytes());
    assert_eq!(split("work:reports/"), Some(("work", &b"reports/"[..])));
    assert_eq!(split("work:"), Some(("work", &b""[..])));
    assert_eq!(split("c:/x"), Some(("c", &b"/x"[..])));
    for file in ["./work:x", "a/b:c", "work", "sftp://h/", ":x", "a b:c", "-x:y", ".x:y", "/work:x"] {
        assert_eq!(split(file), None, "{file}");
    }
}

#[test]
fn a_similar_word_is_found() {
    assert_eq!(similar("limit-rte", Few.names()), Some("limit-rate"));
    assert_eq!(similar("ssl", Few.names()), None);
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "(\\[defaults\\]|\\[host\\.|\\[profile\\.a\\]|\\]|url|jobs|tls|=|\"|\\n|'|[0-9]|\\PC){0,40}") {
        let _ = Config::read(&text, &Few);
    }

    #[test]
    fn any_bytes_are_split(operand: Vec<u8>) {
        let _ = split_profile(&operand);
    }
}
