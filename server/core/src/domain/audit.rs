//! What people did: who, what, to what, and when. An entry is written in the transaction of the change that it is about.

use serde_json::{Value, json};

use crate::work::{Event, Stream, Work, Write};

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Actor {
    /// The id.
    pub(crate) id: String,
    /// The address or the name.
    pub(crate) email: String,
}

/// To what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    /// `user`, `role`, `deployment`, `artifact`, `device` and so on.
    pub(crate) kind: &'static str,
    /// Its id or its name.
    pub(crate) id: String,
}

/// One entry.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    /// Who.
    pub(crate) actor: Actor,
    /// What, in the words of the API: `create`, `update`, `delete` and so on.
    pub(crate) action: &'static str,
    /// To what.
    pub(crate) object: Object,
    /// What it is now, if that can be said in a few words; never a secret.
    pub(crate) change: Option<String>,
    /// The session that was opened or seen again, by which what it showed is found.
    pub(crate) session: Option<String>,
}

/// Characters of what is said about a change.
const CHANGE_CHARS: usize = 4096;

/// Writes that somebody did something.
pub(crate) fn audit(work: &mut Work, entry: &Entry) {
    let time = work.now();
    let (kind, id) = (entry.object.kind, &entry.object.id);
    let mut object = json!({ "id": id, "type": kind });
    if let (Some(object), true) =
        (object.as_object_mut(), ["user", "deployment", "artifact", "device"].contains(&kind))
    {
        object.insert(kind.to_owned(), json!({ "id": id }));
    }
    let mut data = json!({
        "actor": { "id": entry.actor.id, "type": "user", "email": entry.actor.email },
        "time": time, "action": entry.action, "object": object,
    });
    if let (Some(data), Some(change)) = (data.as_object_mut(), &entry.change) {
        let change: String = change.chars().take(CHANGE_CHARS).collect();
        data.insert("change".to_owned(), Value::String(change));
    }
    if let (Some(data), Some(session)) = (data.as_object_mut(), &entry.session) {
        data.insert("meta".to_owned(), json!({ "session_id": [session] }));
    }
    work.write(Write::Event(Event { stream: Stream::Audit, key: id.clone(), time, data }));
}

/// What a request of a person does, as the log says it: the action, the type of its object and its id, which is empty for
/// what has none before. `None` for what changes nothing, and for what a person does with nothing but oneself.
pub(crate) fn action(
    method: &str,
    rest: &[&str],
    body: &[u8],
) -> Option<(&'static str, &'static str, String)> {
    // What a status becomes is the action where that has a name.
    let becomes = |status: &str, action| {
        let wanted: Value = serde_json::from_slice(body).unwrap_or_default();
        if wanted.get("status").and_then(Value::as_str) == Some(status) { action } else { "update" }
    };
    let entry = |action, kind, id: &str| Some((action, kind, id.to_owned()));
    let plain = || match method {
        "POST" => "create",
        "DELETE" => "delete",
        _ => "update",
    };
    match (method, rest) {
        ("GET", ["deviceconnect", "devices", id, "download"]) => entry("download_file", "device", id),
        ("PUT", ["deviceconnect", "devices", id, "upload"]) => entry("upload_file", "device", id),
        ("GET", ["deviceconnect", "devices", id, "connect"]) => entry("open_terminal", "device", id),
        ("GET", ["deviceconnect", "sessions", _, "playback"]) => entry("play_terminal", "device", ""),
        ("GET" | "HEAD" | "OPTIONS", _) => None,
        (_, [.., "search"]) | (_, ["deployments", "deployments", "statistics" | "dry_run", ..]) => None,
        (
            _,
            ["useradm", "auth", ..] | ["useradm", "settings", "me"] | ["useradm", "settings", "sessions", _],
        ) => None,
        (_, ["useradm", "users"]) => entry("create", "user", ""),
        (_, ["useradm", "users", id]) => entry(plain(), "user", id),
        (_, ["useradm", "users", id, "2fa"]) => entry("update", "user", id),
        // Whose it is is not in the path.
        (_, ["useradm", "settings", "me", "2fa"]) => entry("update", "user", ""),
        (_, ["useradm", "roles"]) => entry("create", "role", ""),
        (_, ["useradm", "roles", name]) => entry(plain(), "role", name),
        (_, ["useradm", "settings", "tokens"]) => entry("create", "token", ""),
        (_, ["useradm", "settings", "tokens", id]) => entry("delete", "token", id),
        (_, ["useradm", "settings"]) => entry("update", "settings", "global"),
        (_, ["deployments", "config", what]) => entry("update", "settings", what),
        ("DELETE", ["devauth", "devices", id]) => entry("decommission", "device", id),
        ("DELETE", ["devauth", "devices", id, ..]) => entry("reject", "device", id),
        ("DELETE", ["devauth", "tokens", id]) => entry("update", "device", id),
        (_, ["devauth", "devices"]) => entry("create", "device", ""),
        ("PUT", ["devauth", "devices", id, "auth", _, "status"]) => {
            entry(becomes("rejected", "reject"), "device", id)
        }
        (_, ["devauth" | "inventory", "devices", id, ..]) => entry(plain(), "device", id),
        (_, ["inventory", "groups", name, ..]) => entry("update", "group", name),
        (_, ["inventory", "filters"]) => entry("create", "filter", ""),
        (_, ["inventory", "filters", id]) => entry(plain(), "filter", id),
        ("POST", ["deviceconfig", "configurations", "device", id, "deploy"]) => {
            entry("deploy_configuration", "device", id)
        }
        (_, ["deviceconfig", "configurations", "device", id]) => entry("set_configuration", "device", id),
        (_, ["deviceconnect", "devices", id, ..]) => entry("update", "device", id),
        ("POST", ["deployments", "artifacts"] | ["deployments", "artifacts", "generate"]) => {
            entry("upload", "artifact", "")
        }
        ("POST", ["deployments", "artifacts", "directupload"]) => None,
        ("POST", ["deployments", "artifacts", "directupload", id, ..]) => entry("upload", "artifact", id),
        (_, ["deployments", "artifacts", id, ..]) => entry(plain(), "artifact", id),
        (_, ["deployments", "deployments", "releases"]) => entry(plain(), "release", ""),
        (_, ["deployments", "deployments", "releases", name, ..]) => entry("update", "release", name),
        ("POST", ["deployments", "deployments"] | ["deployments", "deployments", "group", _]) => {
            entry("create", "deployment", "")
        }
        (_, ["deployments", "deployments", "devices", id, ..]) => entry("update", "device", id),
        ("PUT", ["deployments", "deployments", id, "status"]) => {
            entry(becomes("aborted", "abort"), "deployment", id)
        }
        (_, ["deployments", "deployments", id, ..]) => entry("update", "deployment", id),
        (_, ["devicemonitor", "settings", "global", rest @ ..]) => {
            entry("update", "settings", &rest.join("/"))
        }
        (_, ["iot-manager", "integrations"]) => entry("create", "integration", ""),
        (_, ["iot-manager", "integrations", id, ..]) => entry(plain(), "integration", id),
        // What nobody has thought of is better named roughly than not at all.
        (_, [service, rest @ ..]) => entry(plain(), "tenant", &format!("{service}/{}", rest.join("/"))),
        (_, []) => None,
    }
}

/// A field of a CSV (RFC 4180). What a spreadsheet would take for a formula gets an apostrophe.
pub(crate) fn csv_field(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    let text = text.replace('"', "\"\"");
    format!("\"{}{text}\"", if is_formula { "'" } else { "" })
}

/// One line of the export.
pub(crate) fn csv_line(data: &Value) -> String {
    let text = |pointer: &str| data.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let pointers = [
        "/time",
        "/actor/id",
        "/actor/type",
        "/actor/email",
        "/action",
        "/object/type",
        "/object/id",
        "/change",
    ];
    let fields: Vec<String> = pointers.iter().map(|pointer| csv_field(text(pointer))).collect();
    fields.join(",") + "\r\n"
}

/// The first line of the export.
pub(crate) const CSV_HEAD: &str =
    "time,actor_id,actor_type,actor_email,action,object_type,object_id,change\r\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Timestamp;

    #[test]
    fn a_field_of_the_export_is_never_a_formula_nor_two_fields() {
        for (text, field) in [
            ("a", "\"a\""),
            ("=1+1", "\"'=1+1\""),
            ("@x", "\"'@x\""),
            ("a,\"b\"\r\nc", "\"a,\"\"b\"\"\r\nc\""),
            ("\t=1", "\"'\t=1\""),
        ] {
            assert_eq!(csv_field(text), field);
        }
    }

    #[test]
    fn an_entry_names_who_did_what_to_what() {
        let mut work = Work::new(Timestamp(1000));
        let entry = Entry {
            actor: Actor { id: "u".to_owned(), email: "a@x".to_owned() },
            action: "decommission",
            object: Object { kind: "device", id: "d".to_owned() },
            change: Some("=x".repeat(5000)),
            session: Some("s".to_owned()),
        };
        audit(&mut work, &entry);
        let [Write::Event(event)] = work.writes() else { panic!("{:?}", work.writes()) };
        assert_eq!((event.stream, event.key.as_str()), (Stream::Audit, "d"));
        assert_eq!(event.data["object"]["device"]["id"], "d");
        assert_eq!(event.data["change"].as_str().unwrap().len(), CHANGE_CHARS);
        assert_eq!(event.data["meta"], json!({ "session_id": ["s"] }));
        assert!(
            csv_line(&event.data)
                .starts_with("\"1970-01-01T00:00:01.000Z\",\"u\",\"user\",\"a@x\",\"decommission\",")
        );
    }

    #[test]
    fn what_changes_nothing_is_no_entry() {
        for (method, path) in [
            ("GET", "devauth/devices"),
            ("POST", "inventory/filters/search"),
            ("POST", "useradm/auth/logout"),
            ("POST", "useradm/settings/me"),
            ("POST", "deployments/deployments/statistics/list"),
            ("POST", "deployments/deployments/dry_run"),
        ] {
            assert_eq!(action(method, &path.split('/').collect::<Vec<_>>(), b""), None, "{path}");
        }
        let (deployment, key) = ("deployments/deployments/x/status", "devauth/devices/d/auth/k/status");
        for (method, path, status, expected) in [
            ("DELETE", "devauth/devices/d", "", ("decommission", "device", "d")),
            ("POST", "deployments/deployments", "", ("create", "deployment", "")),
            ("PUT", deployment, "aborted", ("abort", "deployment", "x")),
            ("PUT", deployment, "held", ("update", "deployment", "x")),
            ("PUT", deployment, "inprogress", ("update", "deployment", "x")),
            ("PUT", key, "accepted", ("update", "device", "d")),
            ("PUT", key, "rejected", ("reject", "device", "d")),
            ("PUT", "deployments/config/binary_delta", "", ("update", "settings", "binary_delta")),
            ("PUT", "new/thing", "", ("update", "tenant", "new/thing")),
        ] {
            let body = json!({ "status": status }).to_string();
            let found = action(method, &path.split('/').collect::<Vec<_>>(), body.as_bytes()).unwrap();
            assert_eq!((found.0, found.1, found.2.as_str()), expected);
        }
    }
}
