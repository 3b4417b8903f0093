//! Every file is in the report, with what became of it, and the numbers are the same everywhere.

use std::collections::BTreeMap;

use haul::serve::{FtpTls, Protocol};
use serde_json::Value;

use crate::scene::{Scene, part_bytes, send, until, write, write_tree};
use crate::support::data::{MIB, bytes};
use crate::support::fault::{Fault, Link, On, Towards};

/// What a report has to hold: `?` may be null, `*` is given to some only.
const REPORT: &str = "haul:s host:s name:s command:s operands:a options:a dry_run:b started:t files:a jobs:a totals:o ended:t seconds:n \
                      exit_status:n";
const FILE: &str = "job:s source:s destination:s status:s reason:s* bytes:n? transferred:n rate:n? started:t ended:t \
                    seconds:n retries:n attempt:n resumed_from:n? verified:s? digest:s? error:o?";
const ERROR: &str = "kind:s message:s hint:s?";
const JOB: &str = "name:s status:s reason:s? attempts:n started:t ended:t seconds:n exit_status:n totals:o error:o?";
const TOTALS: &str = "files:n statuses:o bytes:n transferred:n rate:n? retries:n resumed:n equal:n verified:o";

/// Asserts that an object holds this and nothing else.
#[track_caller]
fn assert_holds(object: &Value, schema: &str) {
    let object = object.as_object().unwrap();
    let mut known = Vec::new();
    for field in schema.split_whitespace() {
        let (name, kind) = field.split_once(':').unwrap();
        known.push(name);
        let Some(value) = object.get(name) else {
            assert!(kind.contains('*'), "no {name} in {object:?}");
            continue;
        };
        let fits = match kind.as_bytes()[0] {
            b's' => value.is_string(),
            b'n' => value.is_number(),
            b'a' => value.is_array(),
            b'b' => value.is_boolean(),
            b'o' => value.is_object(),
            b't' => value.as_str().is_some_and(|text| text.parse::<jiff::Timestamp>().is_ok()),
            other => panic!("{other}"),
        };
        assert!(fits || (kind.contains('?') && value.is_null()), "{name} is {value}");
    }
    let more: Vec<_> = object.keys().filter(|key| !known.contains(&key.as_str())).collect();
    assert!(more.is_empty(), "unknown: {more:?}");
}

/// Asserts that a report is one and that its sums are right.
#[track_caller]
pub(crate) fn assert_is_report(report: &Value) {
    assert_holds(report, REPORT);
    assert_holds(&report["totals"], TOTALS);
    let files = report["files"].as_array().unwrap();
    for file in files {
        assert_holds(file, FILE);
        assert_eq!(file["error"].is_object(), file["status"] == "failed", "{file}");
        if file["error"].is_object() {
            assert_holds(&file["error"], ERROR);
        }
        assert!(file["started"].as_str() <= file["ended"].as_str(), "{file}");
    }
    for job in report["jobs"].as_array().unwrap() {
        assert_holds(job, JOB);
        assert_holds(&job["totals"], TOTALS);
    }
    let sum = |name: &str| files.iter().map(|file| file[name].as_u64().unwrap_or(0)).sum::<u64>();
    assert_eq!(report["totals"]["files"], files.len());
    assert_eq!(report["totals"]["transferred"], sum("transferred"));
    assert_eq!(report["totals"]["retries"], sum("retries"));
    let mut statuses = BTreeMap::new();
    for file in files {
        *statuses.entry(file["status"].as_str().unwrap()).or_insert(0) += 1;
    }
    assert_eq!(report["totals"]["statuses"], serde_json::json!(statuses));
}

/// Reads metrics as strictly as Prometheus: families in one piece, each with its help and type before it, each series
/// once.
#[track_caller]
fn metrics(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with('\n'));
    let (mut series, mut families, mut current) = (BTreeMap::new(), Vec::new(), String::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.is_empty() && !families.contains(&name.to_owned()), "{line}");
            assert_eq!(lines.next(), Some(format!("# TYPE {name} gauge").as_str()));
            families.push(name.to_owned());
            name.clone_into(&mut current);
            continue;
        }
        let (name, rest) = line.split_once('{').unwrap();
        assert_eq!(name, current, "{line}");
        let (labels, value) = rest.rsplit_once("} ").unwrap();
        let value: f64 = value.parse().unwrap();
        assert!(series.insert(format!("{name}{{{labels}}}"), value).is_none(), "twice: {line}");
        let mut left = labels;
        while !left.is_empty() {
            let (label, rest) = left.split_once("=\"").unwrap();
            assert!(label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
            let mut end = 0;
            while rest.as_bytes()[end] != b'"' {
                end += if rest.as_bytes()[end] == b'\\' { 2 } else { 1 };
            }
            left = rest[end + 1..].trim_start_matches(',');
        }
    }
    series
}

const ALL: [&str; 8] =
    ["--report", "r.json", "--report", "r.html", "--metrics", "m.prom", "--report-name", "nightly \"a\\b\""];

fn tells_of_every_file(scene: &Scene) {
    let names = write_tree(&scene.near("tree"), 7, 5000);
    let run = |arguments: &[&str]| scene.run(&[arguments, &ALL[..]].concat());
    run(&["put", "-r", "tree", &scene.url("")]).ends(0);
    let put = scene.report("r.json");
    assert_is_report(&put);
    assert_eq!(
        (&put["command"], &put["exit_status"], &put["jobs"][0]["name"]),
        (&"put".into(), &0.into(), &"nightly \"a\\b\"".into())
    );
    let sources: Vec<_> =
        put["files"].as_array().unwrap().iter().map(|file| file["source"].as_str().unwrap()).collect();
    assert!(names.iter().all(|name| sources.iter().any(|source| source.ends_with(name.as_str()))), "{sources:?}");

    let ran = run(&["get", "-r", &scene.url("tree"), &scene.url("nowhere"), "into"]).ends(1);
    let get = scene.report("r.json");
    assert_is_report(&get);
    let statuses = &get["totals"]["statuses"];
    assert_eq!((&statuses["done"], &statuses["failed"], &get["exit_status"]), (&7.into(), &1.into(), &1.into()));
    assert_eq!(get["totals"]["transferred"], 7 * 5000);
    let failed = get["files"].as_array().unwrap().iter().find(|file| file["status"] == "failed").unwrap();
    assert!(failed["source"].as_str().unwrap().ends_with("nowhere"), "{failed}");
    assert_eq!(failed["error"]["kind"], "not_found");
    assert!(failed["error"]["hint"].is_string(), "{failed}");
    assert!(ran.err.contains("nowhere"), "{}", ran.err);

    let again = metrics(&std::fs::read_to_string(scene.near("m.prom")).unwrap());
    let job = "{run=\"nightly \\\"a\\\\b\\\"\",haul_job=\"nightly \\\"a\\\\b\\\"\"";
    assert_eq!(again[&format!("haul_run_exit_status{job}}}")] as u8, 1);
    assert_eq!(again[&format!("haul_run_files{job},status=\"done\"}}")] as u8, 7);
    assert_eq!(again[&format!("haul_run_files{job},status=\"failed\"}}")] as u8, 1);
    assert_eq!(again[&format!("haul_run_transferred_bytes{job}}}")] as u64, 35_000);
    let (success, last) = ("haul_last_success_timestamp_seconds", "haul_last_run_timestamp_seconds");
    assert!(again[&format!("{success}{job}}}")] <= again[&format!("{last}{job}}}")], "the put before was one");
    for name in ["r.json", "r.html", "m.prom"] {
        let text = std::fs::read_to_string(scene.near(name)).unwrap();
        assert!(!text.contains(scene.password()), "the password is in {name}");
    }
}

#[test]
fn with_sftp_of_our_own() {
    tells_of_every_file(&Scene::own(Protocol::Sftp));
}

#[test]
fn with_ftps_of_our_own() {
    tells_of_every_file(&Scene::own(Protocol::Ftp(FtpTls::Require)));
}

#[test]
fn with_openssh() {
    let Some(scene) = Scene::real("openssh", "told") else { return };
    tells_of_every_file(&scene);
}

#[test]
fn with_vsftpd() {
    let Some(scene) = Scene::real("vsftpd", "told") else { return };
    tells_of_every_file(&scene);
}

#[test]
fn retries_are_counted() {
    let scene = Scene::own(Protocol::Sftp);
    write(&scene.far("big"), &bytes(1, 3 * MIB));
    let link = Link::to(&scene.server);
    let far = link.far_end(&scene.server);
    link.set(Fault::Cut { after: 2 * MIB as u64, towards: Towards::Client, on: On::Any });
    let arguments = ["get", &scene.url_by(&far, "big"), "--report", "r.json", "--metrics", "m.prom"];
    let output = scene.command_by(&far, &arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let report = scene.report("r.json");
    assert_is_report(&report);
    assert_eq!((&report["files"][0]["retries"], &report["totals"]["retries"]), (&1.into(), &1.into()));
    assert_eq!(
        metrics(&std::fs::read_to_string(scene.near("m.prom")).unwrap())["haul_run_retries{run=\"get\",haul_job=\"get\"}"]
            as u8,
        1
    );
}

#[test]
fn an_interrupted_run_is_reported_too() {
    let scene = Scene::own(Protocol::Sftp);
    write(&scene.far("big"), &bytes(1, 10 * MIB));
    write(&scene.far("small"), b"1");
    let (small, big) = (scene.url("small"), scene.url("big"));
    let mut arguments = vec!["get", "-j1", &small, &big, ".", "--limit-rate", "4M"];
    arguments.extend(ALL);
    let mut child = scene.command(&arguments).spawn().unwrap();
    until("some of it is there", || {
        assert_eq!(child.try_wait().unwrap(), None);
        part_bytes(&scene.near("")) > 0 && scene.near("small").exists()
    });
    send(&child, "INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let report = scene.report("r.json");
    assert_is_report(&report);
    assert_eq!((&report["exit_status"], &report["totals"]["statuses"]["interrupted"]), (&130.into(), &1.into()));
    assert_eq!(report["totals"]["statuses"]["done"], 1);
    assert!(scene.near("r.html").exists());
    let metrics = metrics(&std::fs::read_to_string(scene.near("m.prom")).unwrap());
    assert!(!metrics.keys().any(|name| name.contains("last_success")), "{metrics:?}");
}

#[test]
fn who_could_not_log_in_reads_why() {
    let scene = Scene::own(Protocol::Sftp);
    let url = scene.url("x");
    let mut arguments = vec!["get", &url];
    arguments.extend(ALL);
    let output = scene.command(&arguments).env("HAUL_PASSWORD", "hunter2-wrong").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let report = scene.report("r.json");
    assert_is_report(&report);
    assert_eq!((&report["exit_status"], &report["jobs"][0]["error"]["kind"]), (&3.into(), &"auth_failed".into()));
    for name in ["r.json", "r.html"] {
        let text = std::fs::read_to_string(scene.near(name)).unwrap();
        assert!(text.contains("refused") && !text.contains("hunter2"), "{text}");
    }
}

/// What watches over backups takes no dry run for one.
#[test]
fn a_dry_run_reports_its_plan_and_no_numbers() {
    let scene = Scene::own(Protocol::Sftp);
    write_tree(&scene.near("tree"), 3, 10);
    write(&scene.near("m.prom"), b"haul_last_success_timestamp_seconds{run=\"put\",haul_job=\"put\"} 7\n");
    let socket = std::os::unix::net::UnixDatagram::bind(scene.near("log")).unwrap();
    socket.set_nonblocking(true).unwrap();
    let url = scene.url("");
    let mut arguments = vec!["put", "-r", "--dry-run", "--start-at", "2222-02-22", "tree", &url, "--syslog=log"];
    arguments.extend(["--report", "r.json", "--report", "r.html", "--metrics", "m.prom"]);
    scene.run(&arguments).ends(0);
    let report = scene.report("r.json");
    assert_is_report(&report);
    assert_eq!(report["totals"]["statuses"], serde_json::json!({ "planned": 3 }));
    assert_eq!(report["dry_run"], true);
    assert!(!scene.far("tree").exists());
    let heading =
        "<h1>put <span class=\"mark done\">all done</span> <span class=\"mark \">dry run: nothing was done</span></h1>";
    assert!(std::fs::read_to_string(scene.near("r.html")).unwrap().contains(heading));
    let before = std::fs::read_to_string(scene.near("m.prom")).unwrap();
    assert!(before.ends_with("} 7\n") && before.lines().count() == 1, "{before}");
    assert!(socket.recv(&mut [0; 100]).is_err(), "the log was told");
    arguments.retain(|word| *word != "--dry-run" && !word.contains("2222") && *word != "--start-at");
    scene.run(&arguments).ends(0);
    assert_eq!(scene.report("r.json")["dry_run"], false);
    let after = std::fs::read_to_string(scene.near("m.prom")).unwrap();
    assert!(metrics(&after)["haul_last_success_timestamp_seconds{run=\"put\",haul_job=\"put\"}"] > 1e9, "{after}");
    assert!(socket.recv(&mut [0; 100]).is_ok());
}

#[test]
fn what_sync_finds_equal_is_counted() {
    let scene = Scene::own(Protocol::Sftp);
    write_tree(&scene.near("tree"), 5, 10);
    let url = scene.url("tree");
    scene.run(&["sync", "tree", &url]).ends(0);
    write(&scene.near("tree/new"), b"1");
    scene.run(&["sync", "tree", &url, "--report", "r.json", "--report", "r.html", "--metrics", "m.prom"]).ends(0);
    let report = scene.report("r.json");
    assert_is_report(&report);
    assert_eq!((&report["totals"]["equal"], &report["jobs"][0]["totals"]["equal"]), (&5.into(), &5.into()));
    assert!(std::fs::read_to_string(scene.near("r.html")).unwrap().contains("1 file, 1 done, 5 equal"));
    let metrics = metrics(&std::fs::read_to_string(scene.near("m.prom")).unwrap());
    assert_eq!(metrics["haul_run_files{run=\"sync\",haul_job=\"sync\",status=\"equal\"}"] as u8, 5);
}
