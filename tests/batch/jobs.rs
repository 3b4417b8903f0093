//! Job files: what they do, in which order, and what is told of it.

use std::sync::atomic::Ordering;

use super::*;
use support::client::told;

#[test]
fn jobs_run_in_the_order_of_their_needs() {
    for server in ["openssh", "vsftpd", "proftpd"] {
        let Some(scene) = Scene::lab(server, "order") else { continue };
        everything(&scene);
    }
    for scheme in ["sftp", "ftp"] {
        everything(&Scene::own(scheme, "order"));
    }
}

fn everything(scene: &Scene) {
    scene.file("a.txt", "one");
    scene.file("tree/deep/b", "two");
    scene.file("skip.draft", "");
    let mut command = scene.command(&["jobs.toml"]);
    scene.file(
        "jobs.toml",
        r#"
[defaults]
limit_rate = "50M"

[[job]]
name = "back"
needs = ["moved"]
get = "[URL]/done/*.txt"
to = "back-${date:%Y}.txt"
when = "[URL]/done/a.txt"

[[job]]
name = "made"
mkdir = ["[URL]/done", "[URL]/extra"]

[[job]]
name = "up"
put = ["a.txt", "tree"]
to = "[URL]/"
recursive = true

[[job]]
name = "moved"
needs = ["up", "made"]
mv = "[URL]/a.txt"
to = "[URL]/done/"

[[job]]
name = "gone"
needs = ["moved"]
rm = "[URL]/extra"
recursive = true

[[job]]
name = "never"
put = "a.txt"
to = "[URL]/never"
unless = "${MARK}"
"#,
    );
    let output = command.env("MARK", "skip.draft").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}: {}", scene.server.name, told(&output));
    let names: Vec<_> = ends(&output).into_iter().map(|(name, status)| format!("{name} {status}")).collect();
    assert_eq!(names, ["made done", "up done", "moved done", "back done", "gone done", "never skipped"]);
    assert_eq!((read(scene.far("done/a.txt")), read(scene.far("tree/deep/b"))), ("one".into(), "two".into()));
    assert!(!scene.far("extra").exists() && !scene.far("never").exists());
    let back =
        std::fs::read_dir(scene.near("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(back.filter(|name| name.starts_with("back-20") && name.len() == 13).count(), 1);
    let summary = &events(&output, "batch")[0];
    assert_eq!((&summary["done"], &summary["skipped"], &summary["left"]), (&5.into(), &1.into(), &0.into()));
}

#[test]
fn each_login_is_made_once() {
    for scheme in ["sftp", "ftp"] {
        let mut scene = Scene::own(scheme, "logins");
        let (port, count) = counting(&scene.server);
        scene.server.port = port;
        scene.file("a", "a");
        let output = scene.jobs(
            "[defaults]\nconnections = 1\n[[job]]\nmkdir = \"[URL]/d\"\n[[job]]\nput = \"a\"\nto = \"[URL]/d/\"\n\
             [[job]]\nmv = \"[URL]/d/a\"\nto = \"[URL]/b\"\n[[job]]\nrm = \"[URL]/b\"\nwhen = \"[URL]/b\"\n",
        );
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        // Data connections of FTP go to the server itself.
        assert_eq!(count.load(Ordering::SeqCst), 1, "{scheme}: {}", told(&output));
    }
}

#[test]
fn a_failure_stops_continues_or_is_tried_again() {
    let scene = Scene::own("sftp", "errors");
    scene.file("a", "a");
    let job = |name: &str, rest: &str| format!("[[job]]\nname = \"{name}\"\n{rest}\n");
    let bad = "get = \"[URL]/nothing\"\nto = \"x\"";
    let good = |name: &str| job(name, &format!("put = \"a\"\nto = \"[URL]/{name}\""));
    let stops = [job("bad", bad), good("later")].concat();
    let output = scene.jobs(&stops);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert_eq!(ends(&output), [("bad".into(), "failed".into()), ("later".into(), "left".into())]);
    assert!(stderr(&output).contains("not begun: later"), "{}", told(&output));

    let continues = [
        job("bad", &format!("{bad}\non_error = \"continue\"\nretry = 2\nretry_wait = \"1ms\"")),
        job("after", "put = \"a\"\nto = \"[URL]/after\"\nneeds = [\"bad\"]"),
        job("further", "mkdir = \"[URL]/further\"\nneeds = [\"after\"]"),
        good("other"),
    ];
    let output = scene.jobs(&continues.concat());
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    let statuses: Vec<_> = ends(&output).into_iter().map(|(_, status)| status).collect();
    assert_eq!(statuses, ["failed", "blocked", "blocked", "done"], "{}", told(&output));
    assert_eq!(events(&output, "job")[0]["attempts"], 3);
    assert_eq!(events(&output, "job")[0]["error"]["kind"], "not_found");
    assert!(scene.far("other").exists() && !scene.far("after").exists());

    // The second attempt finds what a hook of the first one's absence can't: somebody else makes it meanwhile.
    let retried =
        job("late", "get = \"[URL]/late\"\nto = \"late\"\non_error = \"retry\"\nretry = 1000\nretry_wait = \"20ms\"");
    scene.file("jobs.toml", &retried);
    let child = scene.command(&["jobs.toml"]).spawn().unwrap();
    std::fs::write(scene.far("late"), "late").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), read(scene.near("late"))), (Some(0), "late".into()), "{}", told(&output));
}

#[test]
fn hooks_are_told_how_it_ended() {
    let scene = Scene::own("sftp", "hooks");
    scene.file("a", "a");
    let output = scene.jobs(
        r#"
on_failure = ["sh", "-c", "cat > run.json"]
[defaults]
on_error = "continue"
[[job]]
name = "good"
put = "a"
to = "[URL]/a"
on_success = "cat > good.json; echo said ${HAUL_JOB} $HAUL_EXIT pw=$HAUL_PASSWORD."
on_failure = "touch wrong"
[[job]]
name = "bad"
get = "[URL]/nothing"
to = "x"
on_failure = "cat > bad.json; exit 3"
[[job]]
name = "slow"
put = "a"
to = "[URL]/b"
on_success = "sleep 100 & sleep 100"
hook_timeout = "200ms"
[[job]]
name = "missing"
put = "a"
to = "[URL]/c"
on_success = ["/no/such/program"]
"#,
    );
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    let json = |name: &str| serde_json::from_str::<Value>(&read(scene.near(name))).unwrap();
    assert_eq!((&json("good.json")["status"], &json("good.json")["exit"]), (&"done".into(), &0.into()));
    assert_eq!(
        (&json("bad.json")["status"], &json("bad.json")["error"]["kind"]),
        (&"failed".into(), &"not_found".into())
    );
    let run = json("run.json");
    assert_eq!((&run["failed"], run["jobs"].as_array().unwrap().len()), (&1.into(), 4));
    assert!(!scene.near("wrong").exists());
    let said = stderr(&output);
    // No password for them, and nothing of theirs among the data.
    assert!(said.contains("said good 0 pw=.") && !stdout(&output).contains("said"), "{said}");
    for line in [
        "bad: on_failure ended with exit status: 3",
        "slow: on_success took longer",
        "missing: on_success can't be started",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(scene.far("b").exists() && scene.far("c").exists());
}

#[test]
fn a_dry_run_tells_and_changes_nothing() {
    let scene = Scene::own("ftp", "dry");
    scene.file("a", "a");
    scene.file(
        "jobs.toml",
        "lock = \"lock\"\non_success = \"touch hooked\"\n[[job]]\nput = \"a\"\nto = \"[URL]/b\"\n[[job]]\nmkdir = \"[URL]/d\"\n",
    );
    let output = scene.command(&["--dry-run", "jobs.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(events(&output, "file")[0]["status"], "planned");
    assert!(stdout(&output).contains(&format!("-- {}", scene.url("d"))), "{}", told(&output));
    assert_eq!(std::fs::read_dir(scene.far("")).unwrap().count(), 0);
    assert!(!scene.near("lock").exists() && !scene.near("hooked").exists());
}

#[test]
fn several_jobs_run_at_once_if_asked() {
    let scene = Scene::own("sftp", "parallel");
    scene.file("a", "a");
    // Each waits for what the other makes.
    let job = |mine: &str, other: &str| {
        format!(
            "[[job]]\nname = \"{mine}\"\nput = \"a\"\nto = \"[URL]/{mine}\"\n[[job]]\nget = \"[URL]/{other}\"\n\
             to = \"got-{other}\"\nneeds = [\"{mine}\"]\non_error = \"retry\"\nretry = 900\nretry_wait = \"20ms\"\n"
        )
    };
    scene.file("jobs.toml", &[job("x", "y"), job("y", "x")].concat());
    let output = scene.batch(&["--parallel", "4", "jobs.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert!(scene.near("got-x").exists() && scene.near("got-y").exists());
}

#[test]
fn every_mistake_is_told_before_anything_moves() {
    let scene = Scene::own("sftp", "mistakes");
    scene.file("a", "a");
    let output = scene.jobs(
        r#"[[job]]
name = "fine"
put = "a"
to = "[URL]/a"
[[job]]
put = "${NOPE_NOT_SET}"
too = "[URL]/b"
[[job]]
get = "wrk:x"
to = "y"
verify = "digset"
[[job]]
get = "[URL]/a"
to = "[URL]/b"
needs = ["fin"]
[[job]]
rm = "a"
limit_rate = "5M"
[[job]]
put = "a"
to = "[URL]/c"
force = true
update = true
[[job]]
put = "a"
to = "sftp://me:hunter2@host/"
"#,
    );
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert_eq!(std::fs::read_dir(scene.far("")).unwrap().count(), 0, "something moved");
    assert!(!told(&output).contains("hunter2"), "{}", told(&output));
    insta::assert_snapshot!(stderr(&output), @r#"
    haul: jobs.toml:6:1: put needs to = "…", where to
    haul: jobs.toml:6:7: put: ${NOPE_NOT_SET}: the variable isn't set
    haul: jobs.toml:7:1: unknown option: too
      did you mean to?
    haul: jobs.toml:9:7: no profile is called wrk
      a server is written sftp://wrk/, a file of this name ./wrk:x
    haul: jobs.toml:11:10: verify: "digset" is none of auto, size, digest; did you mean digest?
    haul: jobs.toml:14:6: to is at a server, and get fetches to this machine
      put copies between servers
    haul: jobs.toml:15:10: no job is called fin
      did you mean fine?
    haul: jobs.toml:17:6: rm: is a local path
      a local file is removed as file:///PATH
    haul: jobs.toml:18:1: unknown option: limit_rate
      haul rm --help shows the options
    haul: jobs.toml:22:1: the argument '--force' cannot be used with '--update'
      the job is as if you typed haul put …; haul put --help explains it
    haul: jobs.toml:26:6: passwords don't belong in this file
      haul login URL puts a password into the keyring; password_file names a file of yours; ~/.netrc works, too
    haul: jobs.toml: 11 mistakes; nothing was done
    "#);
}

/// What counts: the command line, the job, the defaults, the file of settings.
#[test]
fn the_nearest_option_counts() {
    let scene = Scene::own("sftp", "options");
    scene.file("a", "a");
    let settings = scene.home.path().join(".config/haul/config.toml");
    std::fs::create_dir_all(settings.parent().unwrap()).unwrap();
    std::fs::write(settings, "[defaults]\nverify = \"digest\"\n").unwrap();
    let verified = |defaults: &str, job: &str, typed: &[&str]| {
        let to = format!("{}/{}", scene.url(""), std::fs::read_dir(scene.far("")).unwrap().count());
        scene.file("jobs.toml", &format!("[defaults]\n{defaults}\n[[job]]\nput = \"a\"\nto = \"{to}\"\n{job}\n"));
        let output = scene.batch(&[&["jobs.toml"], typed].concat());
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        events(&output, "file")[0]["verified"].as_str().unwrap().to_owned()
    };
    let (size, digest) = ("verify = \"size\"", "verify = \"digest\"");
    assert_eq!(verified("", "", &[]), "digest");
    assert_eq!(verified(size, "", &[]), "size");
    assert_eq!(verified(size, digest, &[]), "digest");
    assert_eq!(verified(digest, digest, &["--verify", "size"]), "size");
}

/// Each job is one of the report, those that were not run as well, and its status is the same wherever it is told.
#[test]
fn a_report_tells_of_every_job() {
    let scene = Scene::own("ftp", "report");
    scene.file("a", "a");
    scene.file(
        "jobs.toml",
        "on_failure = \"cat > run.json\"\n[[job]]\nname = \"up\"\nput = \"a\"\nto = \"[URL]/a\"\n\
         [[job]]\nname = \"bad\"\nget = \"[URL]/none\"\nto = \"x\"\non_error = \"continue\"\nretry = 2\n\
         retry_wait = \"1ms\"\n\
         [[job]]\nname = \"held\"\nrm = \"[URL]/a\"\nneeds = [\"bad\"]\n\
         [[job]]\nname = \"unmet\"\nrm = \"[URL]/a\"\nwhen = \"nothing\"\n\
         [[job]]\nname = \"stops\"\nrm = \"[URL]/none\"\n\
         [[job]]\nname = \"late\"\nput = \"a\"\nto = \"[URL]/b\"\n",
    );
    let numbers = |job: &str, family: &str| format!("haul_{family}{{run=\"night\",haul_job=\"{job}\"");
    let (held, late) = (numbers("held", "last_run_timestamp_seconds"), numbers("late", "run_exit_status"));
    scene
        .file("m.prom", &format!("{held}}} 7\n{late}}} 3\n{}}} 5\n", numbers("bad", "last_success_timestamp_seconds")));
    let words =
        ["jobs.toml", "--report", "r.json", "--report", "r.html", "--metrics", "m.prom", "--report-name", "night"];
    let output = scene.batch(&words);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    let report: Value = serde_json::from_str(&read(scene.near("r.json"))).unwrap();
    let run: Value = serde_json::from_str(&read(scene.near("run.json"))).unwrap();
    let find = |jobs: &[Value], name: &str| jobs.iter().find(|job| job["name"] == name).cloned().unwrap();
    let (reported, hooked, told) =
        (report["jobs"].as_array().unwrap(), run["jobs"].as_array().unwrap(), events(&output, "job"));
    for (name, status, exit) in [
        ("up", "done", Value::from(0)),
        ("bad", "failed", 1.into()),
        ("held", "blocked", Value::Null),
        ("unmet", "skipped", Value::Null),
        ("stops", "failed", 1.into()),
        ("late", "left", Value::Null),
    ] {
        let job = find(reported, name);
        assert_eq!((&job["status"], &job["exit_status"]), (&status.into(), &exit), "{report:#}");
        for jobs in [hooked, &told] {
            let job = find(jobs, name);
            assert_eq!((&job["status"], &job["exit"]), (&status.into(), &exit), "{name}");
        }
    }
    assert_eq!(reported.len(), 6, "{report:#}");
    // Of three attempts with one missing file, one file failed.
    let bad = find(reported, "bad");
    assert_eq!(
        (&bad["attempts"], &bad["totals"]["files"], &bad["totals"]["retries"]),
        (&3.into(), &1.into(), &2.into())
    );
    let page = read(scene.near("r.html"));
    assert!(page.contains("<td>late</td><td><span class=\"mark \">left</span>"), "{page}");
    assert!(
        !page.contains("late: it was not begun") && page.contains("What needs a look <span class=\"faint\">(1 file)"),
        "{page}"
    );
    let metrics = read(scene.near("m.prom"));
    let has = |start: &str| metrics.lines().filter(|line| line.starts_with(start)).collect::<Vec<_>>();
    assert_eq!((has(&held), has(&late)), (vec![&*format!("{held}}} 7")], vec![&*format!("{late}}} 3")]));
    assert!(has(&numbers("late", "last_run")).is_empty() && has(&numbers("unmet", "last_run")).is_empty(), "{metrics}");
    assert!(metrics.contains(&format!("{},status=\"failed\"}} 1\n", numbers("bad", "run_files"))), "{metrics}");
    assert!(metrics.contains(&format!("{}}} 5\n", numbers("bad", "last_success_timestamp_seconds"))), "{metrics}");
    assert!(metrics.lines().all(|line| !line.contains("{job=")), "{metrics}");
}

/// What an earlier job makes is not there yet, and nothing is worth a second try.
#[test]
fn a_dry_run_knows_what_it_cannot_know() {
    let scene = Scene::own("sftp", "foresee");
    scene.file("a", "a");
    scene.file(
        "jobs.toml",
        "[defaults]\non_error = \"retry\"\nretry_wait = \"1h\"\n\
         [[job]]\nname = \"dir\"\nmkdir = \"[URL]/new\"\n\
         [[job]]\nname = \"up\"\nput = \"a\"\nto = \"[URL]/new/\"\n\
         [[job]]\nname = \"moved\"\nmv = \"[URL]/new/a\"\nto = \"[URL]/new/b\"\n\
         [[job]]\nname = \"back\"\nget = \"[URL]/new/*\"\nto = \"got\"\nwhen = \"[URL]/new/b\"\n\
         [[job]]\nname = \"wrong\"\nget = \"[URL]/else\"\nto = \"got\"\n",
    );
    let output = scene.batch(&["--dry-run", "jobs.toml", "--report", "r.json", "--metrics", "m.prom"]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    let ends: Vec<_> = ends(&output).into_iter().map(|(name, status)| format!("{name} {status}")).collect();
    assert_eq!(ends, ["dir done", "up done", "moved done", "back done", "wrong failed"], "{}", told(&output));
    assert!(stderr(&output).contains("back: what it needs is not there yet"), "{}", told(&output));
    assert_eq!(events(&output, "job")[4]["attempts"], 1);
    let report: Value = serde_json::from_str(&read(scene.near("r.json"))).unwrap();
    assert_eq!((&report["dry_run"], &report["jobs"][3]["status"]), (&true.into(), &"done".into()), "{report:#}");
    assert!(!scene.near("m.prom").exists() && std::fs::read_dir(scene.far("")).unwrap().next().is_none());
}

#[test]
fn mistakes_are_told_where_they_were_made() {
    let scene = Scene::own("sftp", "told");
    scene.file("a", "a");
    let output = scene.jobs(
        r#"metrics = "m.prom"
[defaults]
limit_rate = "5 M"
[[job]]
sync = "a"
to = "[URL]/a"
detect_moves = true
[[job]]
sync = ["a", "b"]
to = "[URL]/a"
[[job]]
name = "innocent"
put = "a"
to = "[URL]/a"
[[job]]
put = "a"
to = "[URL]/${date:%Q}"
when = 5
lock = "yes"
stop_after = "1h"
report = "x"
"#,
    );
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    insta::assert_snapshot!(stderr(&output), @r#"
    haul: jobs.toml:1:1: metrics counts for the whole run
      it is an option of haul batch: haul batch --metrics …
    haul: jobs.toml:3:14: limit_rate: "5 M": write a rate without blanks, like 5M, or a timetable like 08:00 2M, 18:00 off
    haul: jobs.toml:7:1: detect_moves needs delete = true
      haul sync --help explains it
    haul: jobs.toml:9:14: sync takes one thing, and to = "…" is the other
      make two jobs of it
    haul: jobs.toml:17:6: to: ${date:%Q}: %Q is none of strftime(3); give a format like %Y-%m-%d
    haul: jobs.toml:18:8: when: it takes a path or URL in quotes
    haul: jobs.toml:19:8: lock is true, false, or a file
      without quotes; a file of this name is written ./…
    haul: jobs.toml:20:1: stop_after counts for the whole run
      it is an option of haul batch: haul batch --stop-after …
    haul: jobs.toml:21:1: report counts for the whole run
      it is an option of haul batch: haul batch --report …
    haul: jobs.toml: 9 mistakes; nothing was done
    "#);
}

#[test]
fn a_directory_of_the_night_before_comes_with_advice() {
    for scheme in ["sftp", "ftp"] {
        let scene = Scene::own(scheme, "before");
        let jobs = "[[job]]\nmkdir = \"[URL]/d\"\n";
        assert_eq!(scene.jobs(jobs).status.code(), Some(0));
        let output = scene.jobs(jobs);
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        assert!(stderr(&output).contains("parents = true"), "{}", told(&output));
        assert_eq!(scene.jobs(&format!("{jobs}parents = true\n")).status.code(), Some(0));
    }
}

/// No shell stands between a job file and haul.
#[test]
fn wildcards_of_this_machine_count() {
    let scene = Scene::own("sftp", "wildcards");
    for name in ["out/a.csv", "out/b.csv", "out/c.txt", "out/[x].csv"] {
        scene.file(name, name);
    }
    let output = scene.jobs(
        "[[job]]\nput = \"out/*.csv\"\nto = \"[URL]/\"\nwhen = \"out/?.txt\"\n\
         [[job]]\nput = \"out/c.txt\"\nto = \"[URL]/\"\nunless = \"out/[ab].csv\"\n",
    );
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let mut there: Vec<_> = support::client::names_below(&scene.far(""));
    there.sort();
    assert_eq!(there, ["[x].csv", "a.csv", "b.csv"], "{}", told(&output));
}

#[test]
fn a_night_job_syncs_checks_and_says_what_differs() {
    let scene = Scene::own("sftp", "night");
    for name in ["site/index.html", "site/css/a.css", "site/old.tmp"] {
        scene.file(name, name);
    }
    scene.far_file("site/gone.html", "gone");
    let jobs = "[defaults]\nexclude = [\"*.tmp\"]\n\
                [[job]]\nname = \"mirror\"\nsync = \"site\"\nto = \"[URL]/site\"\ndelete = true\n\
                [[job]]\nname = \"proof\"\ncheck = \"site\"\nto = \"[URL]/site\"\nchecksum = true\nneeds = [\"mirror\"]\n\
                [[job]]\nname = \"apart\"\ncheck = \"site\"\nto = \"[URL]/other\"\n";
    std::fs::create_dir(scene.far("other")).unwrap();
    std::fs::set_permissions(scene.far("other"), std::fs::Permissions::from_mode(0o777)).unwrap();
    let output = scene.jobs(jobs);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    let ends: Vec<_> = ends(&output).into_iter().map(|(name, status)| format!("{name} {status}")).collect();
    assert_eq!(ends, ["mirror done", "proof done", "apart failed"], "{}", told(&output));
    let mut there = support::client::names_below(&scene.far("site"));
    there.sort();
    assert_eq!(there, ["css/a.css", "index.html"], "{}", told(&output));
}
