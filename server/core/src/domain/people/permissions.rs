//! What may be asked of the management API, as sets of permissions, and which of them a request needs. What is not in the
//! table needs everything: a new endpoint is closed to people with roles until somebody has thought of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::roles::{Grant, ScopeKind};

/// A set of permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum PermissionSet {
    /// What everybody may: see and change oneself.
    Basic,
    /// Everything.
    SuperUser,
    /// One's own access tokens.
    ManageTokens,
    /// People and roles.
    ManageUsers,
    /// To see people and roles.
    ReadUsers,
    /// To see what people have done.
    ReadAuditLogs,
    /// To see releases.
    ReadReleases,
    /// To upload artifacts.
    UploadArtifacts,
    /// To change and remove releases, and everything above.
    ManageReleases,
    /// To see devices and deployments.
    ReadDevices,
    /// To accept, reject, remove, group and tag devices.
    ManageDevices,
    /// To configure devices.
    ConfigureDevices,
    /// Terminal, ports and files.
    ConnectToDevices,
    /// To make and abort deployments.
    DeployToDevices,
}

/// One entry of the list of sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Described {
    /// The set.
    #[serde(rename = "name")]
    pub(crate) set: PermissionSet,
    /// For people.
    pub(crate) description: &'static str,
    /// What it can be limited to.
    #[serde(rename = "supported_scope_types")]
    pub(crate) scopes: &'static [ScopeKind],
}

const GROUPS: &[ScopeKind] = &[ScopeKind::DeviceGroups];
const TAGS: &[ScopeKind] = &[ScopeKind::ReleaseTags];

const fn described(set: PermissionSet, description: &'static str, scopes: &'static [ScopeKind]) -> Described {
    Described { set, description, scopes }
}

/// Every set.
pub(crate) const SETS: [Described; 14] = [
    described(PermissionSet::Basic, "See and change oneself.", &[]),
    described(PermissionSet::SuperUser, "Everything.", &[]),
    described(PermissionSet::ManageTokens, "Make and end one's own access tokens, as everybody may.", &[]),
    described(PermissionSet::ManageUsers, "Manage people and roles.", &[]),
    described(PermissionSet::ReadUsers, "See people and roles.", &[]),
    described(PermissionSet::ReadAuditLogs, "See what people have done.", &[]),
    described(PermissionSet::ReadReleases, "See releases.", TAGS),
    described(PermissionSet::UploadArtifacts, "Upload artifacts.", &[]),
    described(PermissionSet::ManageReleases, "Upload, change and remove releases.", TAGS),
    described(PermissionSet::ReadDevices, "See devices and deployments.", GROUPS),
    described(PermissionSet::ManageDevices, "Accept, reject, remove, group and tag devices.", GROUPS),
    described(PermissionSet::ConfigureDevices, "Configure devices.", GROUPS),
    described(PermissionSet::ConnectToDevices, "Terminal, ports and files of devices.", GROUPS),
    described(PermissionSet::DeployToDevices, "Make and abort deployments.", GROUPS),
];

/// What a request is about, as far as its path and its body say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Object {
    /// Everything, or nothing that can be told.
    All,
    /// Nothing but whoever asks.
    Own,
    /// A device.
    Device(String),
    /// A device, and the group into which the body puts it.
    IntoGroup(String),
    /// A device, and the group that it is taken out of.
    OutOfGroup {
        /// The device.
        device: String,
        /// As the path has it.
        group: String,
    },
    /// These devices, which the body names.
    BodyDevices,
    /// A group of devices.
    Group(String),
    /// The group that the query asks for.
    QueryGroup,
    /// The group that a filter in the body asks for.
    FilterGroup,
    /// A release.
    Release(String),
    /// An artifact.
    Artifact(String),
}

/// What a request needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Need {
    /// One of these.
    pub(crate) sets: &'static [PermissionSet],
    /// For this.
    pub(crate) object: Object,
}

use PermissionSet as P;

const BASIC: &[P] = &[P::Basic];
const READ_DEVICES: &[P] =
    &[P::ReadDevices, P::ManageDevices, P::ConfigureDevices, P::ConnectToDevices, P::DeployToDevices];
const MANAGE_DEVICES: &[P] = &[P::ManageDevices];
const CONFIGURE: &[P] = &[P::ConfigureDevices];
const CONNECT: &[P] = &[P::ConnectToDevices];
const DEPLOY: &[P] = &[P::DeployToDevices];
const READ_RELEASES: &[P] = &[P::ReadReleases, P::ManageReleases, P::UploadArtifacts];
/// Who deploys sees what there is to deploy; that is not to have the files.
const SEE_RELEASES: &[P] = &[P::ReadReleases, P::ManageReleases, P::UploadArtifacts, P::DeployToDevices];
const READ_DEPLOYMENTS: &[P] = &[P::DeployToDevices, P::ReadDevices];
const UPLOAD: &[P] = &[P::UploadArtifacts, P::ManageReleases];
const MANAGE_RELEASES: &[P] = &[P::ManageReleases];
const READ_USERS: &[P] = &[P::ReadUsers, P::ManageUsers];
const MANAGE_USERS: &[P] = &[P::ManageUsers];
const AUDIT: &[P] = &[P::ReadAuditLogs];
const NOTHING_LESS: &[P] = &[P::SuperUser];

/// What goes on behind the answer to a request, or takes long: the token that it began with, and what that has to allow still.
#[derive(Clone)]
pub(crate) struct Pass {
    /// The token.
    pub(crate) token: String,
    /// What it was needed for.
    pub(crate) need: Need,
}

/// What a request needs. `rest` is the path behind `/api/management/VERSION/`.
pub(crate) fn need(method: &str, rest: &[&str]) -> Need {
    let is_read = matches!(method, "GET" | "HEAD");
    let need = |sets, object| Need { sets, object };
    let device = |id: &str| Object::Device(id.to_owned());
    match rest {
        ["useradm", "auth", "logout"]
        | ["useradm", "users", "me"]
        | ["useradm", "settings", "me"]
        | ["useradm", "settings", "me", "2fa"]
        | ["useradm", "settings", "tokens" | "sessions", ..]
        | ["useradm", "plans" | "plan_binding"]
        | ["tenantadm", ..] => need(BASIC, Object::Own),
        ["useradm", "settings"] if is_read => need(BASIC, Object::Own),
        ["useradm", "permission_sets"] if is_read => need(BASIC, Object::Own),
        ["useradm", "users" | "roles", ..] if is_read => need(READ_USERS, Object::All),
        ["useradm", "users" | "roles", ..] => need(MANAGE_USERS, Object::All),
        ["auditlogs", ..] if is_read => need(AUDIT, Object::All),
        ["devauth", "devices", "search"] => need(READ_DEVICES, Object::All),
        ["devauth", "devices", id, ..] if *id != "count" => match is_read {
            true => need(READ_DEVICES, device(id)),
            false => need(MANAGE_DEVICES, device(id)),
        },
        ["devauth", "devices" | "limits", ..] if is_read => need(READ_DEVICES, Object::All),
        ["devauth", ..] => need(MANAGE_DEVICES, Object::All),
        ["inventory", "devices"] if is_read => need(READ_DEVICES, Object::QueryGroup),
        ["inventory", "devices", id, "group"] if !is_read => {
            need(MANAGE_DEVICES, Object::IntoGroup((*id).to_owned()))
        }
        ["inventory", "devices", id, "group", group] if !is_read => {
            let (device, group) = ((*id).to_owned(), (*group).to_owned());
            need(MANAGE_DEVICES, Object::OutOfGroup { device, group })
        }
        ["inventory", "devices", id, ..] => match is_read {
            true => need(READ_DEVICES, device(id)),
            false => need(MANAGE_DEVICES, device(id)),
        },
        ["inventory", "groups", group, ..] => match is_read {
            true => need(READ_DEVICES, Object::Group((*group).to_owned())),
            // Devices come into a group from anywhere.
            false => need(MANAGE_DEVICES, Object::All),
        },
        ["inventory", "filters", "search"] => need(READ_DEVICES, Object::FilterGroup),
        ["inventory", "filters", "attributes"] => need(BASIC, Object::Own),
        ["inventory", "identities", "search"] => need(READ_DEVICES, Object::All),
        ["inventory", ..] if is_read => need(READ_DEVICES, Object::All),
        ["inventory", "filters", ..] => need(MANAGE_DEVICES, Object::All),
        ["deviceconfig", "configurations", "device", id, ..] => match is_read {
            true => need(READ_DEVICES, device(id)),
            false => need(CONFIGURE, device(id)),
        },
        ["deviceconnect", "devices", id] if is_read => need(READ_DEVICES, device(id)),
        ["deviceconnect", "devices", id, "check-update" | "send-inventory"] => {
            need(&[P::ConnectToDevices, P::ManageDevices, P::DeployToDevices], device(id))
        }
        ["deviceconnect", "devices", id, ..] => need(CONNECT, device(id)),
        // Whose terminal it was is not known from the path.
        ["deviceconnect", "sessions", _, "playback"] if is_read => need(CONNECT, Object::All),
        ["devicemonitor", "devices", id, ..] if is_read => need(READ_DEVICES, device(id)),
        ["deployments", "artifacts", "directupload" | "generate", ..] => need(UPLOAD, Object::All),
        ["deployments", "artifacts"] if !is_read => need(UPLOAD, Object::All),
        ["deployments", "artifacts", "list"] | ["deployments", "artifacts"] => {
            need(SEE_RELEASES, Object::All)
        }
        ["deployments", "artifacts", id, "download"] if is_read => {
            need(READ_RELEASES, Object::Artifact((*id).to_owned()))
        }
        ["deployments", "artifacts", id, ..] => match is_read {
            true => need(SEE_RELEASES, Object::Artifact((*id).to_owned())),
            false => need(MANAGE_RELEASES, Object::Artifact((*id).to_owned())),
        },
        ["deployments", "deployments", "releases"] if !is_read => need(MANAGE_RELEASES, Object::All),
        ["deployments", "deployments", "releases"]
        | ["deployments", "deployments", "releases", "list"]
        | ["deployments", "releases", "all", ..]
        | ["deployments", "software", ..] => need(SEE_RELEASES, Object::All),
        ["deployments", "deployments", "releases", "delta", "jobs", ..] if is_read => {
            need(SEE_RELEASES, Object::All)
        }
        ["deployments", "deployments", "releases", name, ..] => match is_read {
            true => need(SEE_RELEASES, Object::Release((*name).to_owned())),
            false => need(MANAGE_RELEASES, Object::Release((*name).to_owned())),
        },
        ["deployments", "deployments", "group", group] if method == "POST" => {
            need(DEPLOY, Object::Group((*group).to_owned()))
        }
        ["deployments", "deployments", "devices", id, ..] => match is_read {
            true => need(READ_DEVICES, device(id)),
            false => need(DEPLOY, device(id)),
        },
        ["deployments", "deployments"] | ["deployments", "deployments", "dry_run"] if method == "POST" => {
            need(DEPLOY, Object::BodyDevices)
        }
        ["deployments", "deployments", ..] if is_read => need(READ_DEPLOYMENTS, Object::All),
        ["deployments", "deployments", "statistics", ..] => need(READ_DEPLOYMENTS, Object::All),
        ["deployments", "deployments", ..] => need(DEPLOY, Object::All),
        ["deployments", "config", ..] if !is_read => need(NOTHING_LESS, Object::All),
        ["deployments", "limits" | "config", ..] if is_read => need(READ_DEPLOYMENTS, Object::All),
        _ => need(NOTHING_LESS, Object::All),
    }
}

/// What the object of a request belongs to, as it was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Belongs {
    /// Nothing needs to be known: it is whoever asks.
    Own,
    /// To no group and no release, or to all.
    All,
    /// Each device to its group; `None` for one without.
    Groups(Vec<Option<String>>),
    /// The release has these tags.
    Tags(Vec<String>),
}

/// Whether one of these grants allows it.
pub(crate) fn allows(grants: &[Grant], sets: &[PermissionSet], belongs: &Belongs) -> bool {
    if grants.iter().any(|grant| grant.name == P::SuperUser && grant.scope.is_none()) {
        return true;
    }
    if *belongs == Belongs::Own && sets.contains(&P::Basic) {
        return true;
    }
    let mut fitting = grants.iter().filter(|grant| sets.contains(&grant.name)).collect::<Vec<_>>();
    if fitting.iter().any(|grant| grant.scope.is_none()) {
        return true;
    }
    let values = |kind: ScopeKind, grants: &[&Grant]| -> Vec<String> {
        let scopes = grants.iter().filter_map(|grant| grant.scope.as_ref());
        scopes.filter(|scope| scope.kind == kind).flat_map(|scope| scope.value.clone()).collect()
    };
    fitting.retain(|grant| grant.scope.is_some());
    match belongs {
        Belongs::Own | Belongs::All => false,
        Belongs::Groups(groups) => {
            let allowed = values(ScopeKind::DeviceGroups, &fitting);
            !groups.is_empty()
                && groups.iter().all(|group| group.as_ref().is_some_and(|group| allowed.contains(group)))
        }
        Belongs::Tags(tags) => {
            let allowed = values(ScopeKind::ReleaseTags, &fitting);
            tags.iter().any(|tag| allowed.contains(tag))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::people::roles::{Limit, built_in};

    fn role(name: &str) -> Vec<Grant> {
        built_in().into_iter().find(|role| role.name == name).unwrap().grants
    }

    fn may(grants: &[Grant], method: &str, path: &str) -> bool {
        let rest: Vec<&str> = path.split('/').collect();
        let need = need(method, &rest);
        let belongs = if need.object == Object::Own { Belongs::Own } else { Belongs::All };
        allows(grants, need.sets, &belongs)
    }

    #[test]
    fn each_built_in_role_allows_its_work_and_no_other() {
        let table = [
            ("GET", "devauth/devices", "OBSERVER DEPLOYMENTS_MANAGER REMOTE_TERMINAL"),
            ("POST", "devauth/devices/search", "OBSERVER DEPLOYMENTS_MANAGER REMOTE_TERMINAL"),
            ("DELETE", "devauth/devices/d", ""),
            ("PUT", "inventory/devices/d/group", ""),
            ("DELETE", "inventory/devices/d/group/g", ""),
            ("POST", "inventory/filters/search", "OBSERVER DEPLOYMENTS_MANAGER REMOTE_TERMINAL"),
            ("PUT", "devauth/devices/d/auth/a/status", ""),
            ("DELETE", "devauth/tokens/t", ""),
            ("GET", "deployments/artifacts", "OBSERVER CI DEPLOYMENTS_MANAGER"),
            ("GET", "deployments/artifacts/a", "OBSERVER CI DEPLOYMENTS_MANAGER"),
            // As in the tests of the reference server (mender-server, tag v4.1.3): who deploys has no files, and configures nothing.
            ("GET", "deployments/artifacts/a/download", "OBSERVER CI"),
            ("PUT", "deviceconfig/configurations/device/d", ""),
            ("POST", "deviceconfig/configurations/device/d/deploy", ""),
            ("GET", "iot-manager/events", ""),
            ("POST", "deployments/artifacts", "CI"),
            ("DELETE", "deployments/artifacts/a", "CI"),
            ("PUT", "deployments/deployments/releases/r/tags", "CI"),
            ("GET", "deployments/deployments", "OBSERVER DEPLOYMENTS_MANAGER"),
            ("POST", "deployments/deployments", "DEPLOYMENTS_MANAGER"),
            ("PUT", "deployments/deployments/d/status", "DEPLOYMENTS_MANAGER"),
            ("GET", "deviceconnect/devices/d/connect", "REMOTE_TERMINAL"),
            ("GET", "deviceconnect/devices/d/download", "REMOTE_TERMINAL"),
            ("PUT", "deviceconnect/devices/d/upload", "REMOTE_TERMINAL"),
            ("GET", "deviceconnect/sessions/s/playback", "REMOTE_TERMINAL"),
            ("POST", "useradm/users", ""),
            ("GET", "useradm/roles", ""),
            ("POST", "useradm/settings", ""),
            ("GET", "auditlogs/logs", ""),
            ("POST", "iot-manager/integrations", ""),
            ("GET", "devicemonitor/settings/global/channel/alerts/email", ""),
            ("PUT", "devicemonitor/settings/global/channel/alerts/email/status", ""),
            ("GET", "deployments/deployments/releases/delta/jobs", "OBSERVER CI DEPLOYMENTS_MANAGER"),
            ("GET", "deployments/deployments/releases/delta/jobs/j", "OBSERVER CI DEPLOYMENTS_MANAGER"),
            ("GET", "deployments/config", "OBSERVER DEPLOYMENTS_MANAGER"),
            ("PUT", "deployments/config/binary_delta", ""),
            ("GET", "something/new", ""),
            ("GET", "useradm/users/me", "OBSERVER CI DEPLOYMENTS_MANAGER REMOTE_TERMINAL"),
            ("GET", "useradm/settings", "OBSERVER CI DEPLOYMENTS_MANAGER REMOTE_TERMINAL"),
        ];
        for (method, path, roles) in table {
            for name in ["OBSERVER", "CI", "DEPLOYMENTS_MANAGER", "REMOTE_TERMINAL"] {
                let allowed = roles.split(' ').any(|role| role == name);
                assert_eq!(
                    may(&role(&format!("RBAC_ROLE_{name}")), method, path),
                    allowed,
                    "{name}: {method} {path}"
                );
            }
            assert!(may(&role("RBAC_ROLE_PERMIT_ALL"), method, path), "{path}");
            assert_eq!(
                may(&[], method, path),
                path.contains("/me") || (method, path) == ("GET", "useradm/settings")
            );
        }
    }

    #[test]
    fn a_scope_allows_what_is_all_within_it() {
        let limit = |name, kind, value: &str| Grant {
            name,
            scope: Some(Limit { kind, value: vec![value.to_owned()] }),
        };
        let grants = [
            limit(P::ReadDevices, ScopeKind::DeviceGroups, "a"),
            limit(P::ReadDevices, ScopeKind::DeviceGroups, "b"),
            limit(P::ReadReleases, ScopeKind::ReleaseTags, "x"),
        ];
        let groups = |names: &[&str]| {
            Belongs::Groups(names.iter().map(|name| (!name.is_empty()).then(|| (*name).to_owned())).collect())
        };
        let may = |belongs: &Belongs| allows(&grants, READ_DEVICES, belongs);
        assert!(may(&groups(&["a"])) && may(&groups(&["a", "b"])));
        assert!(!may(&groups(&["a", "c"])) && !may(&groups(&["a", ""])) && !may(&groups(&[])));
        assert!(!may(&Belongs::All) && !may(&Belongs::Tags(vec!["x".to_owned()])));
        assert!(allows(&grants, READ_RELEASES, &Belongs::Tags(vec!["y".to_owned(), "x".to_owned()])));
        assert!(!allows(&grants, READ_RELEASES, &Belongs::Tags(Vec::new())));
        assert!(!allows(&grants, MANAGE_DEVICES, &groups(&["a"])));
    }
}
