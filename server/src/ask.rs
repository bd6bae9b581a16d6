//! Commands for people: each asks a running server one thing.

mod commands;
mod deployments;
mod devices;
mod settings;
mod table;

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use artifact::text::printable_json;
use lexopt::prelude::*;
use manual::rust_ota_server::{DEPLOYMENT_STATUSES, DEVICE_STATUSES, STATUSES_IN_A_DEPLOYMENT};
use serde_json::{Value, json};
use server_core::client::{ClientError, Management};

use crate::console::{CliError, help_of, print};
use crate::value::{COUNT, OptionValue, one_of};
use commands::{Command, Opt};
use devices::{Decision, Ids};
use settings::Given;
use table::Table;

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> CliError {
        CliError::Failed(error.to_string())
    }
}

/// What is told: to a person, or to a program.
#[derive(Debug)]
struct Asked {
    text: String,
    json: Value,
    /// What is wrong with it all the same: it is told behind it.
    error: Option<CliError>,
}

impl Asked {
    fn new(text: String, json: Value) -> Asked {
        Asked { text, json, error: None }
    }

    /// The id of something new, which is also the whole text.
    fn id(id: &str) -> Asked {
        Asked::new(format!("{id}\n"), json!({ "id": id }))
    }

    fn print(self, as_json: bool) -> Result<(), CliError> {
        match as_json {
            true => print(&document(&self.json)),
            false => print(&self.text),
        }?;
        self.error.map_or(Ok(()), Err)
    }
}

/// JSON in several lines: its strings have no line ends.
fn document(value: &Value) -> String {
    format!("{value:#}").lines().map(|line| printable_json(line).into_owned() + "\n").collect()
}

/// What was typed behind a command.
#[derive(Debug, Default)]
struct Typed {
    given: Given,
    json: bool,
    status: Option<String>,
    group: Option<String>,
    force: bool,
    wait: bool,
    timeout: Option<Duration>,
    description: String,
    words: Vec<OsString>,
}

/// Does the command called `name`; `None` when there is none.
pub(crate) fn run(name: &str, parser: lexopt::Parser) -> Option<Result<(), CliError>> {
    let command = Command::named(name)?;
    Some(match parse(command, parser) {
        Ok(Some(typed)) => ask(command, typed),
        Ok(None) => help_of(command.name),
        Err(error) => Err(error),
    })
}

/// `None` when only help is wanted.
fn parse(command: &Command, mut parser: lexopt::Parser) -> Result<Option<Typed>, CliError> {
    let mut typed = Typed::default();
    while let Some(argument) = parser.next()? {
        let takes = |option: Opt| match argument {
            Long(name) => name == option.name() && command.options.contains(&option),
            Short(_) | Value(_) => false,
        };
        match &argument {
            Short('h') | Long("help") => return Ok(None),
            Long("server") => typed.given.server = Some(OptionValue::of("server", &mut parser)?.url()?),
            Long("token-file") => {
                typed.given.token_file = Some(OptionValue::of("token-file", &mut parser)?.path()?);
            }
            Long("ca") => typed.given.ca = Some(OptionValue::of("ca", &mut parser)?.path()?),
            Long("config") => typed.given.config = Some(OptionValue::of("config", &mut parser)?.path()?),
            Long("json") => typed.json = true,
            _ if takes(Opt::Status) => {
                typed.status = Some(OptionValue::of("status", &mut parser)?.text()?);
            }
            _ if takes(Opt::Group) => typed.group = Some(OptionValue::of("group", &mut parser)?.text()?),
            _ if takes(Opt::Force) => typed.force = true,
            _ if takes(Opt::Wait) => typed.wait = true,
            _ if takes(Opt::Timeout) => {
                let seconds = OptionValue::of("timeout", &mut parser)?.number(COUNT)?;
                typed.timeout = Some(Duration::from_secs(seconds));
            }
            _ if takes(Opt::Description) => {
                typed.description = OptionValue::of("description", &mut parser)?.any_text()?;
            }
            Value(word) => typed.words.push(word.clone()),
            Short(_) | Long(_) => return Err(argument.unexpected().into()),
        }
    }
    typed.status_is_known(command)?;
    Ok(Some(typed))
}

impl Typed {
    /// One that there is not would find nothing, which looks as if all were well.
    fn status_is_known(&self, command: &Command) -> Result<(), CliError> {
        let known = match (command.name, self.words.is_empty()) {
            ("devices", _) => DEVICE_STATUSES,
            (_, true) => DEPLOYMENT_STATUSES,
            (_, false) => STATUSES_IN_A_DEPLOYMENT,
        };
        match &self.status {
            Some(status) if !known.contains(&status.as_str()) => {
                let wanted = one_of(known);
                Err(CliError::usage(format!("--status is {wanted}, not {status:?}")))
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn ask(command: &Command, mut typed: Typed) -> Result<(), CliError> {
    let words = std::mem::take(&mut typed.words);
    let texts: Option<Vec<&str>> = words.iter().map(|word| word.to_str()).collect();
    // Names of files may be anything; everything else is text.
    let texts = match (command.name, texts) {
        (_, Some(texts)) => texts,
        ("upload", None) if words.len() == 1 => vec![""],
        (_, None) => return Err(CliError::Failed("what was typed is no text".to_owned())),
    };
    let management = &std::mem::take(&mut typed.given).management()?;
    match (command.name, texts.as_slice()) {
        ("upload", [_]) => {
            let path = Path::new(&words[0]);
            Asked::id(&management.upload_described(path, &typed.description)?).print(typed.json)
        }
        ("deploy", [name, artifact, ids @ ..]) => {
            let id = deploy(management, &typed, name, artifact, ids)?;
            deployed(management, &id, &typed)
        }
        ("configure", [id, settings @ ..]) => {
            let id = configure(management, id, settings)?;
            deployed(management, &id, &typed)
        }
        ("status", [id]) if typed.wait => {
            let id = deployment_id(management, id)?;
            deployments::wait(management, &id, typed.timeout)?.print(typed.json)
        }
        (_, texts) => answer(management, command, &typed, texts)?.print(typed.json),
    }
}

/// What a command tells that makes no deployment and waits for none.
fn answer(
    management: &Management,
    command: &Command,
    typed: &Typed,
    texts: &[&str],
) -> Result<Asked, CliError> {
    let status = typed.status.as_deref();
    let device = |word: &str| Ids::new(management).device(word);
    match (command.name, texts) {
        ("devices", []) => devices::list(management, status, typed.group.as_deref()),
        ("devices", [_, ..]) => match (status, &typed.group) {
            (None, None) => devices::show(management, texts),
            (Some(_), _) | (None, Some(_)) => {
                Err(CliError::Failed("either devices, or --status and --group".to_owned()))
            }
        },
        ("accept", [_, ..]) => devices::decide(management, texts, Decision::Accept),
        ("reject", [_, ..]) => devices::decide(management, texts, Decision::Reject),
        ("decommission", [_, ..]) => {
            each(management, texts, "decommissioned", |id| management.decommission(id))
        }
        ("groups", []) => groups(management),
        ("group", [group, _, ..]) => {
            each(management, &texts[1..], group, |id| management.set_group(id, group))
        }
        ("ungroup", [_, ..]) => each(management, texts, "in no group", |id| management.clear_group(id)),
        ("artifacts", []) => artifacts(management),
        ("delete", [_, ..]) => delete(management, texts),
        ("abort", [id]) => {
            let id = deployment_id(management, id)?;
            management.abort(&id)?;
            Ok(Asked::new(format!("{id} aborted\n"), json!({ "id": id, "result": "aborted" })))
        }
        ("status", []) if !typed.wait => Ok(deployments::list(management, status)?),
        ("status", [id]) => Ok(deployments::show(management, &deployment_id(management, id)?, status)?),
        ("show-configuration", [id]) => {
            let shown = management.configuration(&device(id)?)?;
            Ok(Asked::new(document(&shown), shown))
        }
        ("connection", [id]) => {
            let id = device(id)?;
            let state = management.connection(&id)?;
            Ok(Asked::new(format!("{state}\n"), json!({ "id": id, "status": state })))
        }
        ("check-update" | "send-inventory", [_, ..]) => {
            each(management, texts, "told", |id| management.command(id, command.name))
        }
        ("mail-test", [address]) => mail_test(management, address),
        ("log", [id, word]) => {
            let text = management.log(&deployment_id(management, id)?, &device(word)?)?;
            let json = json!({ "log": text });
            Ok(Asked::new(text, json))
        }
        _ => {
            let described = manual::rust_ota_server::PROGRAM.command(command.name);
            let words = described.map(|command| command.words).filter(|words| !words.is_empty());
            Err(CliError::Failed(format!(
                "{} takes {} (try rust-ota-server {0} --help)",
                command.name,
                words.unwrap_or("nothing more")
            )))
        }
    }
}

/// Makes a deployment for these devices, for a group, or for all.
fn deploy(
    management: &Management,
    typed: &Typed,
    name: &str,
    artifact: &str,
    ids: &[&str],
) -> Result<String, CliError> {
    let mut wanted = json!({ "name": name, "artifact_name": artifact, "force_installation": typed.force });
    let known = Ids::new(management);
    let ids = ids.iter().map(|id| known.device(id)).collect::<Result<Vec<_>, _>>()?;
    match (&typed.group, ids.is_empty()) {
        (Some(group), true) => wanted["group"] = json!(group),
        (None, true) => wanted["all_devices"] = json!(true),
        (None, false) => wanted["devices"] = json!(ids),
        (Some(_), false) => {
            return Err(CliError::Failed("either devices or --group".to_owned()));
        }
    }
    Ok(management.create_deployment(&wanted)?)
}

/// Has the server send a mail, and tells what became of it.
fn mail_test(management: &Management, address: &str) -> Result<Asked, CliError> {
    let path = "/api/management/v1/devicemonitor/settings/global/channel/alerts/email/test";
    let (_, answer) = management.ask("POST", path, Some(json!({ "address": address })))?;
    let answer: Value = serde_json::from_str(&answer)
        .map_err(|error| CliError::Failed(format!("what the server answers is no JSON: {error}")))?;
    let said = answer["said"].as_str().unwrap_or_default();
    let mut asked = Asked::new(format!("{said}\n"), answer.clone());
    if answer["sent"] != true {
        asked.error = Some(CliError::Failed(format!("the mail to {address} was not taken")));
    }
    Ok(asked)
}

/// Sets what a device is to be configured with, and makes a deployment of it.
fn configure(management: &Management, id: &str, settings: &[&str]) -> Result<String, CliError> {
    let pair = |word: &&str| Some(word.split_once('=')?).map(|(k, v)| (k.to_owned(), v.to_owned()));
    let wrong = || CliError::Failed("a setting is NAME=VALUE".to_owned());
    let settings: Option<_> = settings.iter().map(pair).collect();
    let settings = settings.ok_or_else(wrong)?;
    let device = Ids::new(management).device(id)?;
    management.configure(&device, &settings)?;
    Ok(management.deploy_configuration(&device)?)
}

/// Tells of a deployment that was made, and waits for its end when that is wanted.
fn deployed(management: &Management, id: &str, typed: &Typed) -> Result<(), CliError> {
    if !typed.wait {
        return Asked::id(id).print(typed.json);
    }
    // At once: who stops waiting may want to ask for it later. Programs get one document, at the end.
    if !typed.json {
        Asked::id(id).print(false)?;
    }
    deployments::wait(management, id, typed.timeout)?.print(typed.json)
}

/// Does one thing with each device, and tells what it is now. All names are looked up before anything is done.
fn each(
    management: &Management,
    words: &[&str],
    now: &str,
    act: impl FnMut(&str) -> Result<(), ClientError>,
) -> Result<Asked, CliError> {
    let known = Ids::new(management);
    let ids = words.iter().map(|word| known.device(word)).collect::<Result<Vec<_>, _>>()?;
    Ok(done(&ids, now, act))
}

/// Does one thing with each of these, up to the first with which it does not work.
fn done(ids: &[String], now: &str, mut act: impl FnMut(&str) -> Result<(), ClientError>) -> Asked {
    let (mut text, mut rows) = (String::new(), Vec::new());
    for id in ids {
        if let Err(error) = act(id) {
            let error = Some(CliError::Failed(format!("{id}: {error}")));
            return Asked { text, json: Value::Array(rows), error };
        }
        text += &format!("{id} {now}\n");
        rows.push(json!({ "id": id, "result": now }));
    }
    Asked::new(text, Value::Array(rows))
}

fn deployment_id(management: &Management, word: &str) -> Result<String, CliError> {
    if is_whole(word) {
        return Ok(word.to_owned());
    }
    let all = management.deployments()?;
    unique("deployment", word, all.iter().filter_map(|deployment| deployment["id"].as_str()))
}

fn is_whole(word: &str) -> bool {
    word.len() == 36 && word.matches('-').count() == 4
}

/// The one id that begins with `word`.
fn unique<'a>(what: &str, word: &str, ids: impl Iterator<Item = &'a str>) -> Result<String, CliError> {
    let word = word.to_ascii_lowercase();
    let found: Vec<&str> = ids.filter(|id| !word.is_empty() && id.starts_with(&word)).collect();
    match found.as_slice() {
        [] => Err(CliError::Failed(format!("there is no {what} whose id begins with {word:?}"))),
        [one] => Ok((*one).to_owned()),
        many => Err(CliError::Failed(format!("{} {what}s have ids that begin with {word:?}", many.len()))),
    }
}

/// `mac=02:00:00:00:00:01,sn=7`.
fn identity(data: &Value) -> String {
    let one = |(name, value): (&String, &Value)| match value {
        Value::String(text) => format!("{name}={text}"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            format!("{name}={value}")
        }
    };
    data.as_object().into_iter().flatten().map(one).collect::<Vec<_>>().join(",")
}

/// A time of the API without its fraction.
fn short_time(time: &str) -> String {
    match time.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => time.to_owned(),
    }
}

fn groups(management: &Management) -> Result<Asked, CliError> {
    let mut table = Table::new(&["GROUP", "DEVICES"]);
    let mut rows = Vec::new();
    for group in management.groups()? {
        let count = management.group(&group)?.len();
        table.row(&[&group, &count.to_string()]);
        rows.push(json!({ "group": group, "devices": count }));
    }
    let text = if rows.is_empty() { "no groups\n".to_owned() } else { table.render() };
    Ok(Asked::new(text, Value::Array(rows)))
}

fn artifacts(management: &Management) -> Result<Asked, CliError> {
    let all = management.artifacts()?;
    if all.is_empty() {
        return Ok(Asked::new("no artifacts\n".to_owned(), json!([])));
    }
    let mut table = Table::new(&["ARTIFACT", "NAME", "PAYLOAD", "FOR", "BYTES", "SIGNED", "DESCRIPTION"]);
    for artifact in &all {
        let word = |name: &str| artifact[name].as_str().unwrap_or_default();
        let kinds = artifact["device_types_compatible"].as_array().into_iter().flatten();
        let kinds: Vec<&str> = kinds.filter_map(Value::as_str).collect();
        table.row(&[
            word("id"),
            word("name"),
            artifact["updates"][0]["type_info"]["type"].as_str().unwrap_or("none"),
            &kinds.join(","),
            &artifact["size"].to_string(),
            if artifact["signed"] == true { "yes" } else { "no" },
            word("description"),
        ]);
    }
    let many = if all.len() == 1 { "" } else { "s" };
    let text = format!("{}{} artifact{many}\n", table.render(), all.len());
    Ok(Asked::new(text, Value::Array(all)))
}

/// By the beginning of the id, or by the whole name when one artifact alone has it.
fn delete(management: &Management, words: &[&str]) -> Result<Asked, CliError> {
    let all = management.artifacts()?;
    let text = |artifact: &Value, field: &str| artifact[field].as_str().unwrap_or_default().to_owned();
    let find = |word: &&str| {
        let named: Vec<&Value> = all.iter().filter(|artifact| artifact["name"] == **word).collect();
        match named.as_slice() {
            [one] => Ok(text(one, "id")),
            [] => unique("artifact", word, all.iter().filter_map(|artifact| artifact["id"].as_str())),
            many => Err(CliError::Failed(format!(
                "{} artifacts are called {word}: name one by its id",
                many.len()
            ))),
        }
    };
    let ids = words.iter().map(find).collect::<Result<Vec<_>, _>>()?;
    Ok(done(&ids, "deleted", |id| management.delete_artifact(id)))
}

#[cfg(test)]
mod tests {
    use super::{short_time, unique};

    #[test]
    fn the_beginning_of_an_id_is_enough_when_it_is_the_only_one() {
        let ids = ["ba31aa", "ba32aa", "c0"];
        let find = |word: &str| unique("device", word, ids.into_iter());
        assert_eq!(find("c").unwrap(), "c0");
        assert_eq!(find("BA31").unwrap(), "ba31aa");
        assert!(find("ba3").unwrap_err().to_string().contains("2 devices"));
        assert!(find("d").unwrap_err().to_string().contains("no device"));
        assert!(find("").is_err());
    }

    #[test]
    fn times_are_short() {
        assert_eq!(short_time("2026-11-27T07:30:00.123Z"), "2026-11-27T07:30:00Z");
        assert_eq!(short_time("2026-11-27T07:30:00Z"), "2026-11-27T07:30:00Z");
    }
}
