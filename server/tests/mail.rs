//! Mails about alerts, by a real SMTP server: who gets what, encrypted how, and what happens when nobody takes them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::smtp::SmtpServer;
use crate::common::{Answer, Process, accepted, artifact, manage, request, server, server_in, soon};
use crate::monitor::{alert, send};
use crate::operations::{metric, on_any_port};
use crate::tls::fixture;
use serde_json::{Value, json};
use server_core::{Running, SmtpOptions};

const MAILS: &str = "/api/management/v1/devicemonitor/settings/global/channel/alerts/email";

fn by(url: &str) -> SmtpOptions {
    SmtpOptions::new(url, "fleet@b.example").unwrap()
}

fn plain(port: u16) -> SmtpOptions {
    by(&format!("smtp://127.0.0.1:{port}?starttls=never"))
}

fn tell(running: &Running, receivers: Value) {
    let set = manage(running, "PUT", MAILS, json!({ "enabled": true, "receivers": receivers }));
    assert_eq!(set.status, 204, "{}", set.text());
}

fn shown(running: &Running) -> Value {
    let shown = manage(running, "GET", MAILS, Value::Null);
    assert_eq!(shown.status, 200, "{}", shown.text());
    shown.json()
}

/// Waits until what is shown of the first receiver is as it has to be.
fn until(running: &Running, is_right: impl Fn(&Value) -> bool) -> Value {
    soon(|| Some(shown(running)["states"][0].clone()).filter(&is_right))
}

fn test_mail(running: &Running, address: &str) -> Answer {
    manage(running, "POST", &format!("{MAILS}/test"), json!({ "address": address }))
}

#[test]
fn an_alert_and_its_end_are_a_mail_each_and_a_repetition_is_none() {
    let Some(smtp) = SmtpServer::start(&[]) else { return };
    let (running, _management, _folder) =
        server(|options| options.smtp(plain(smtp.port)).public_url("https://fleet.example"));
    let (device, id) = accepted(&running, "00:11");
    // What was before is not told.
    assert_eq!(send(&running, &device, &json!([alert("before", "CRITICAL")])).status, 204);
    tell(&running, json!(["ops@b.example"]));
    let mut hostile = alert("app", "CRITICAL");
    hostile["name"] = json!("watch\r\nBcc: everybody@b.example");
    for _ in 0..3 {
        assert_eq!(send(&running, &device, &json!([hostile])).status, 204);
    }
    let (to, mail) = smtp.mail();
    assert_eq!(to, "ops@b.example");
    for line in ["From: rust-ota <fleet@b.example>", "To: ops@b.example", "Auto-Submitted: auto-generated"] {
        assert!(mail.lines().any(|one| one == line), "{line}: {mail}");
    }
    assert!(
        mail.contains("Subject: [rust-ota] CRITICAL: watch\\r\\nBcc: everybody@b.example (app) on"),
        "{mail}"
    );
    assert!(!mail.lines().any(|line| line.starts_with("Bcc")), "{mail}");
    assert!(mail.contains(&format!("https://fleet.example/#/devices/{id}")), "{mail}");
    assert!(mail.contains("\r\nDevice: mac=00:11\r\n") && mail.contains("\r\nDate: "), "{mail}");
    hostile["level"] = json!("OK");
    assert_eq!(send(&running, &device, &json!([hostile])).status, 204);
    let (_, mail) = smtp.mail();
    assert!(mail.contains("Subject: [rust-ota] OK: watch"), "{mail}");
    let state = until(&running, |state| state["waiting"] == 0);
    assert!(state["sent"].is_string() && state["error"].is_null(), "{state}");

    // The switch of the reference server.
    let switch = |on: bool| {
        let set = manage(&running, "PUT", &format!("{MAILS}/status"), json!({ "enabled": on }));
        assert_eq!(set.status, 204, "{}", set.text());
    };
    switch(false);
    assert_eq!(shown(&running)["enabled"], false);
    assert_eq!(send(&running, &device, &json!([alert("off", "CRITICAL")])).status, 204);
    switch(true);
    assert_eq!(send(&running, &device, &json!([alert("on", "CRITICAL")])).status, 204);
    assert!(smtp.mail().1.contains("(on)"));
    assert!(smtp.is_silent());
}

#[test]
fn a_roll_out_that_a_rule_holds_is_a_mail() {
    let Some(smtp) = SmtpServer::start(&[]) else { return };
    let (running, management, _folder) = server(|options| options.smtp(plain(smtp.port)));
    let (device, id) = accepted(&running, "a");
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let order = json!({
        "name": "first try", "artifact_name": "release-2", "devices": [id],
        "rust_ota": { "stop": [{ "failed_devices": 0, "action": "hold" }] },
    });
    tell(&running, json!(["ops@b.example"]));
    let deployment = management.create_deployment(&order).unwrap();
    assert_eq!(device.next(&running).status, 200);
    assert_eq!(device.report(&running, &deployment, "failure").status, 204);
    // The only device has ended it: there is nothing left to hold. So another deployment with two.
    let (other, second) = accepted(&running, "b");
    let order = json!({
        "name": "second try", "artifact_name": "release-2", "devices": [id, second],
        "rust_ota": { "stop": [{ "failed_devices": 0, "action": "hold" }] },
    });
    let deployment = management.create_deployment(&order).unwrap();
    assert_eq!(other.next(&running).status, 200);
    assert_eq!(other.report(&running, &deployment, "failure").status, 204);
    let (_, mail) = smtp.mail();
    assert!(mail.contains("Subject: [rust-ota] STOPPED: roll-out second try was held"), "{mail}");
    assert!(mail.contains("1 device has failed, more than 0"), "{mail}");
    // Without --public-url nobody knows where a link would lead.
    assert!(mail.contains(&deployment) && !mail.contains("/#/"), "{mail}");
}

#[test]
fn mails_are_sent_encrypted_and_with_a_login_or_not_at_all() {
    let Some(smtp) = SmtpServer::start(&["--tls", "starttls", "--login"]) else { return };
    let wrapped = SmtpServer::start(&["--tls", "wrapped"]).unwrap();
    let bare = SmtpServer::start(&[]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "secret word\n").unwrap();
    let with_login = |port: u16| {
        let url = format!("smtp://fleet@example.com@localhost:{port}");
        by(&url).password_file(&password).unwrap()
    };
    let trusted = |smtp: SmtpOptions| smtp.authorities(&fixture("tls-ca.pem")).unwrap();
    let try_one = |smtp: SmtpOptions| {
        let (running, _management, _folder) = server(|options| options.smtp(smtp));
        let answer = test_mail(&running, "a@b.example");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = answer.json();
        (answer["sent"] == true, answer["said"].as_str().unwrap().to_owned())
    };
    assert_eq!(try_one(trusted(with_login(smtp.port))), (true, "250 taken it is".to_owned()));
    assert_eq!(smtp.next("login"), true);
    let mail = smtp.next("mail");
    assert_eq!(mail["encrypted"], true, "{mail}");
    assert!(mail["data"].as_str().unwrap().contains("Subject: [rust-ota] this is a test"), "{mail}");

    std::fs::write(&password, "another word\n").unwrap();
    let (sent, said) = try_one(trusted(with_login(smtp.port)));
    assert!(!sent && said.contains("the login of fleet@example.com") && said.contains("535"), "{said}");
    assert_eq!(smtp.next("login"), false);

    // Who is not trusted gets no password.
    let (sent, said) = try_one(with_login(smtp.port));
    assert!(!sent && said.contains("--smtp-ca"), "{said}");
    assert!(smtp.is_silent());

    let url = format!("smtps://localhost:{}", wrapped.port);
    assert!(try_one(trusted(by(&url))).0);
    assert_eq!(wrapped.next("mail")["to"], json!(["a@b.example"]));

    // Whoever takes STARTTLS out of what a server offers gets nothing.
    let (sent, said) = try_one(trusted(by(&format!("smtp://localhost:{}", bare.port))));
    assert!(!sent && said.contains("does not offer STARTTLS"), "{said}");
    assert!(bare.is_silent());
}

#[test]
fn who_is_refused_keeps_nobody_waiting_and_who_is_to_come_later_is_sent_it_later() {
    let Some(smtp) = SmtpServer::start(&[]) else { return };
    let (running, _management, _folder) =
        server(|options| options.smtp(plain(smtp.port)).metrics(on_any_port()));
    let (device, _) = accepted(&running, "a");
    tell(&running, json!(["refused@b.example"]));
    assert_eq!(send(&running, &device, &json!([alert("one", "CRITICAL")])).status, 204);
    assert_eq!(smtp.next("refused"), "refused@b.example");
    let state = until(&running, |state| state["waiting"] == 0);
    assert!(state["error"].as_str().unwrap().contains("there is no such person"), "{state}");
    // It is not tried again with the same.
    tell(&running, json!(["later@b.example"]));
    assert_eq!(send(&running, &device, &json!([alert("two", "CRITICAL")])).status, 204);
    assert_eq!(smtp.next("later"), "later@b.example");
    let state = until(&running, |state| state["tries"] != 0);
    assert!(state["error"].as_str().unwrap().contains("come again later"), "{state}");
    assert_eq!(smtp.next("later"), "later@b.example");
    assert!(smtp.mail().1.contains("(two)"));
    let state = until(&running, |state| state["waiting"] == 0);
    assert!(state["error"].is_null() && state["tries"] == 0, "{state}");
    for (result, count) in [("sent", 1.0), ("refused", 1.0), ("failed", 2.0)] {
        let series = format!("rust_ota_server_mails_total{{result=\"{result}\"}}");
        assert_eq!(metric(&running, &series), Some(count), "{result}");
    }
}

#[test]
fn a_server_that_is_down_is_told_later_in_the_same_order_also_after_a_restart() {
    let Some(mut smtp) = SmtpServer::start(&[]) else { return };
    let port = smtp.port;
    smtp.stop();
    let folder = tempfile::tempdir().unwrap();
    let (running, _) = server_in(folder.path(), |options| options.smtp(plain(port)));
    let (device, _) = accepted(&running, "a");
    tell(&running, json!(["ops@b.example", "other@b.example"]));
    assert_eq!(send(&running, &device, &json!([alert("one", "CRITICAL")])).status, 204);
    let state = until(&running, |state| state["tries"] != 0);
    assert!(state["error"].is_string(), "{state}");
    assert_eq!(send(&running, &device, &json!([alert("two", "CRITICAL")])).status, 204);
    running.stop();
    let (running, _) = server_in(folder.path(), |options| options.smtp(plain(port)));
    assert_eq!(shown(&running)["states"][0]["waiting"], 2);
    let smtp = SmtpServer::start_on(port, &[]).unwrap();
    let mut told: Vec<(String, bool)> = Vec::new();
    for _ in 0..4 {
        let (to, mail) = smtp.mail();
        told.push((to, mail.contains("(one)")));
    }
    for receiver in ["ops@b.example", "other@b.example"] {
        let own: Vec<bool> = told.iter().filter(|(to, _)| to == receiver).map(|(_, first)| *first).collect();
        assert_eq!(own, [true, false], "{receiver}");
    }
    until(&running, |state| state["waiting"] == 0);
    assert!(smtp.is_silent());
}

#[test]
fn a_flood_of_alerts_is_one_mail_that_counts_them() {
    let Some(mut smtp) = SmtpServer::start(&[]) else { return };
    let port = smtp.port;
    // While it is away they gather.
    smtp.stop();
    let (running, _management, _folder) = server(|options| options.smtp(plain(port)));
    let (device, _) = accepted(&running, "a");
    tell(&running, json!(["ops@b.example"]));
    let alerts = |level: &str| (0..40).map(|n| alert(&format!("s{n}"), level)).collect::<Value>();
    assert_eq!(send(&running, &device, &alerts("CRITICAL")).status, 204);
    assert_eq!(send(&running, &device, &alerts("OK")).status, 204);
    assert_eq!(send(&running, &device, &json!([alert("s7", "CRITICAL")])).status, 204);
    until(&running, |state| state["waiting"] == 81);
    let smtp = SmtpServer::start_on(port, &[]).unwrap();
    let (_, mail) = smtp.mail();
    let subject = "Subject: [rust-ota] 81 events: 41 critical, 0 roll-outs stopped, 40 well again";
    assert!(mail.contains(subject), "{mail}");
    assert!(mail.contains("CRITICAL: watch (s7) on mac=a"), "{mail}");
    until(&running, |state| state["waiting"] == 0);
    // What comes then is told by itself again.
    assert_eq!(send(&running, &device, &json!([alert("s7", "OK")])).status, 204);
    assert!(smtp.mail().1.contains("OK: watch (s7)"));
    assert!(smtp.is_silent());
}

#[test]
fn a_stop_does_not_wait_for_a_mail_server_that_says_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let (running, _management, _folder) = server(|options| options.smtp(plain(port)));
    let (device, _) = accepted(&running, "a");
    tell(&running, json!(["ops@b.example"]));
    assert_eq!(send(&running, &device, &json!([alert("one", "CRITICAL")])).status, 204);
    // It is asked, and will not answer.
    let (_asking, _) = silent.accept().unwrap();
    let began = Instant::now();
    running.stop();
    // Threads that the runtime waits for have two seconds.
    assert!(began.elapsed() < Duration::from_millis(1900), "{:?}", began.elapsed());
}

#[test]
fn what_cannot_be_set_is_refused_and_what_is_not_configured_is_said() {
    let (running, _management, _folder) = server(|options| options);
    let empty = json!({ "enabled": false, "receivers": [], "configured": false, "states": [] });
    assert_eq!(shown(&running), empty);
    for body in [
        json!([]),
        json!({ "enabled": 1 }),
        json!({ "enabled": true, "receivers": ["nobody"] }),
        json!({ "enabled": true, "receivers": ["a@b\r\nRCPT TO:<x@y>"] }),
        json!({ "enabled": true, "receivers": ["a@b", "A@b"] }),
        json!({ "enabled": true, "receivers": vec!["a@b"; 21] }),
        json!({ "enabled": true, "else": 1 }),
    ] {
        let answer = manage(&running, "PUT", MAILS, body.clone());
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
    }
    assert_eq!(manage(&running, "PUT", &format!("{MAILS}/status"), json!({})).status, 400);
    assert_eq!(test_mail(&running, "nobody").status, 400);
    let answer = test_mail(&running, "a@b.example");
    assert_eq!((answer.status, answer.text().contains("--smtp")), (409, true), "{}", answer.text());
    assert_eq!(shown(&running), empty);
    assert_eq!(request(&running, "GET", MAILS, &[], b"").status, 401);
}

fn serve(options: &[&str]) -> (i32, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rust-ota-server"));
    command.args(["serve", "--data", "/nowhere"]).args(options);
    let output = command.output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn options_that_do_not_fit_name_what_would_be_right() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let empty = file.path().to_str().unwrap();
    for (options, named) in [
        (&["--smtp", "mail.example", "--mail-from", "a@b.example"][..], "--smtp is smtps://[USER@]HOST"),
        (&["--smtp", "smtp://mail.example"], "--smtp needs --mail-from"),
        (&["--mail-from", "a@b.example"], "--mail-from needs --smtp"),
        (&["--smtp-password", empty], "--smtp-password needs --smtp"),
        (&["--smtp", "smtp://mail.example", "--mail-from", "x"], "--mail-from is an address such as"),
        (&["--smtp", "smtp://u@mail.example", "--mail-from", "a@b.example"], "needs --smtp-password"),
        (
            &["--smtp", "smtp://mail.example", "--mail-from", "a@b.example", "--smtp-password", empty],
            "--smtp-password needs a user in --smtp",
        ),
        (
            &["--smtp", "smtp://u@mail.example", "--mail-from", "a@b.example", "--smtp-password", empty],
            "there is no password in its first line",
        ),
        (
            &["--smtp", "smtp://mail.example", "--mail-from", "a@b.example", "--smtp-ca", empty],
            "there is no certificate in it",
        ),
    ] {
        let (code, said) = serve(options);
        assert_eq!((code, said.contains(named)), (2, true), "{options:?}: {said}");
    }
    // A password that stands where it should not is not repeated.
    let (code, said) = serve(&["--smtp", "smtp://u:hunter2@mail.example", "--mail-from", "a@b.example"]);
    assert_eq!((code, said.contains("hunter2")), (2, false), "{said}");
}

#[test]
fn the_command_says_what_the_mail_server_said() {
    let Some(smtp) = SmtpServer::start(&[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let running = process(folder.path(), smtp.port);
    let ask = |address: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rust-ota-server"));
        command.args(["mail-test", address, "--server", &running.url, "--token-file"]);
        let output = command.arg(folder.path().join("management-token")).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    assert_eq!(ask("a@b.example"), (0, "250 taken it is\n".to_owned(), String::new()));
    assert_eq!(smtp.mail().0, "a@b.example");
    let (code, said, error) = ask("refused@b.example");
    assert_eq!((code, said.contains("550")), (1, true), "{said}");
    assert!(error.contains("the mail to refused@b.example was not taken"), "{error}");
    running.kill();
}

fn process(folder: &Path, port: u16) -> Process {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rust-ota-server"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--quiet", "--mail-from", "fleet@b.example", "--smtp"]);
    command.arg(format!("smtp://127.0.0.1:{port}?starttls=never")).arg("--data").arg(folder);
    Process::spawn(command, folder)
}
