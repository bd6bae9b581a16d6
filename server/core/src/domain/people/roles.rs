//! Roles: sets of permissions with a name, each for everything, for some groups of devices, or for releases with some tags.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::permissions::{PermissionSet, SETS};
use super::users::User;
use crate::work::{Kind, NotLoaded, Work};

/// Sets of permissions in one role, and values in one scope.
const PARTS: usize = 100;

/// What a set of permissions is limited to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum ScopeKind {
    /// Devices in one of the groups.
    DeviceGroups,
    /// Releases with one of the tags.
    ReleaseTags,
}

/// A limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ScopeLimit")]
pub(crate) struct Limit {
    /// Of what.
    #[serde(rename = "type")]
    pub(crate) kind: ScopeKind,
    /// Groups or tags.
    pub(crate) value: Vec<String>,
}

/// A set of permissions, maybe limited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Grant {
    /// The set.
    pub(crate) name: PermissionSet,
    /// For everything without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scope: Option<Limit>,
}

/// A role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Role {
    /// Unique.
    pub(crate) name: String,
    /// For people.
    #[serde(default)]
    pub(crate) description: String,
    /// What it allows.
    #[serde(default, rename = "permission_sets_with_scope")]
    pub(crate) grants: Vec<Grant>,
}

/// The roles that are always there, with the sets that they have in the reference server. It has no source of them that is
/// open; the answers of one that its pages are tested with have (mender-server, tag v4.1.0-saas.5). The words are ours.
pub(crate) fn built_in() -> Vec<Role> {
    let role = |name: &str, description: &str, sets: &[PermissionSet]| Role {
        name: name.to_owned(),
        description: description.to_owned(),
        grants: sets.iter().map(|name| Grant { name: *name, scope: None }).collect(),
    };
    use PermissionSet as Set;
    vec![
        role("RBAC_ROLE_PERMIT_ALL", "Administrator: everything.", &[Set::SuperUser]),
        role(
            "RBAC_ROLE_OBSERVER",
            "Read access: devices, releases and deployments.",
            &[Set::ReadReleases, Set::ReadDevices],
        ),
        role(
            "RBAC_ROLE_CI",
            "Releases manager: artifacts and releases, for people and for build machines.",
            &[Set::ReadReleases, Set::ManageReleases, Set::UploadArtifacts],
        ),
        role(
            "RBAC_ROLE_DEPLOYMENTS_MANAGER",
            "Deployments manager: makes and aborts deployments.",
            &[Set::DeployToDevices],
        ),
        role(
            "RBAC_ROLE_REMOTE_TERMINAL",
            "Troubleshooting: terminals, ports and files of devices.",
            &[Set::ConnectToDevices],
        ),
    ]
}

/// Whether a role is always there.
pub(crate) fn is_built_in(name: &str) -> bool {
    built_in().iter().any(|role| role.name == name)
}

/// Why nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RoleError {
    /// To be run again.
    NotLoaded,
    /// There is none with this name.
    NotFound,
    /// There is one with this name.
    Exists,
    /// It is always there.
    BuiltIn,
    /// Somebody has just got it.
    Given,
    /// What is wrong with it.
    Invalid(&'static str),
}

impl From<NotLoaded> for RoleError {
    fn from(_: NotLoaded) -> RoleError {
        RoleError::NotLoaded
    }
}

fn check(role: &Role) -> Result<(), RoleError> {
    let fits = |kind: ScopeKind, set: PermissionSet| {
        SETS.iter().any(|one| one.set == set && one.scopes.contains(&kind))
    };
    let is_too_much = |grant: &Grant| grant.scope.as_ref().is_some_and(|scope| scope.value.len() > PARTS);
    if role.name.is_empty() || role.name.chars().count() > 256 || role.description.chars().count() > 1024 {
        return Err(RoleError::Invalid("the name or the description is empty or too long"));
    }
    if role.grants.len() > PARTS || role.grants.iter().any(is_too_much) {
        return Err(RoleError::Invalid("the role has too many parts"));
    }
    let is_wrong = |grant: &Grant| grant.scope.as_ref().is_some_and(|scope| !fits(scope.kind, grant.name));
    match role.grants.iter().any(is_wrong) {
        true => Err(RoleError::Invalid("a set of permissions cannot have that scope")),
        false => Ok(()),
    }
}

/// Makes a role.
pub(crate) fn create(work: &mut Work, role: &Role) -> Result<(), RoleError> {
    check(role)?;
    if is_built_in(&role.name) || work.document::<Role>(Kind::Role, &role.name)?.is_some() {
        return Err(RoleError::Exists);
    }
    work.put_document(Kind::Role, &role.name, Some(role))?;
    Ok(())
}

/// Puts a role in place of the one with its name.
pub(crate) fn replace(work: &mut Work, role: &Role) -> Result<(), RoleError> {
    check(role)?;
    if is_built_in(&role.name) {
        return Err(RoleError::BuiltIn);
    }
    work.document::<Role>(Kind::Role, &role.name)?.ok_or(RoleError::NotFound)?;
    work.put_document(Kind::Role, &role.name, Some(role))?;
    Ok(())
}

/// Where it says who got a role last. Who takes it away reads it, and so the two cannot happen in one moment.
fn given_key(role: &str) -> String {
    format!("given/{role}")
}

/// Lets it be known that somebody gets a role, which is none of those that are always there.
pub(super) fn give(work: &mut Work, role: &str, user: &str) -> Result<(), NotLoaded> {
    let key = given_key(role);
    work.document::<String>(Kind::Order, &key)?;
    work.put_document(Kind::Order, &key, Some(&user))
}

/// Takes a role away that nobody had before: another one of that name would be theirs at once. Who got it in this moment has it.
/// A name that somebody has all the same allows nothing: whose only role is gone may do nothing, and not everything.
pub(crate) fn remove(work: &mut Work, name: &str) -> Result<(), RoleError> {
    if is_built_in(name) {
        return Err(RoleError::BuiltIn);
    }
    work.document::<Role>(Kind::Role, name)?.ok_or(RoleError::NotFound)?;
    let key = given_key(name);
    if let Some(user) = work.document::<String>(Kind::Order, &key)? {
        let user = work.document::<User>(Kind::User, &user)?;
        if user.is_some_and(|user| user.roles.iter().any(|role| role == name)) {
            return Err(RoleError::Given);
        }
        work.put_document::<String>(Kind::Order, &key, None)?;
    }
    work.put_document::<Role>(Kind::Role, name, None)?;
    Ok(())
}

/// Everything that the roles of a user allow together; `None` for who has none and may do everything.
pub(crate) fn grants_of(roles: &[String], find: impl Fn(&str) -> Option<Role>) -> Option<Vec<Grant>> {
    if roles.is_empty() {
        return None;
    }
    let built_in = built_in();
    let role = |name: &String| match built_in.iter().find(|role| role.name == *name) {
        Some(role) => Some(role.clone()),
        None => find(name),
    };
    Some(roles.iter().filter_map(role).flat_map(|role| role.grants).collect())
}

/// Whether who has the `own` grants has all that others allow: the same sets, for no more than the same groups or tags. `None`
/// is everything. What a set allows that another one allows as well does not count: that list would be a second one.
pub(crate) fn covers(own: Option<&[Grant]>, others: Option<&[Grant]>) -> bool {
    let Some(own) = own else { return true };
    if own.iter().any(|grant| grant.name == PermissionSet::SuperUser && grant.scope.is_none()) {
        return true;
    }
    let Some(others) = others else { return false };
    others.iter().all(|wanted| {
        // What everybody may.
        if matches!(wanted.name, PermissionSet::Basic | PermissionSet::ManageTokens) {
            return true;
        }
        let mut same = own.iter().filter(|grant| grant.name == wanted.name);
        let Some(limit) = &wanted.scope else { return same.any(|grant| grant.scope.is_none()) };
        let is_within = |value: &String| {
            same.clone().any(|grant| match &grant.scope {
                None => true,
                Some(scope) => scope.kind == limit.kind && scope.value.contains(value),
            })
        };
        limit.value.iter().all(is_within)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_more_to_give_than_their_own() {
        use PermissionSet as Set;
        let all = |name| Grant { name, scope: None };
        let of = |name, kind, values: &[&str]| {
            let value = values.iter().map(|value| (*value).to_owned()).collect();
            Grant { name, scope: Some(Limit { kind, value }) }
        };
        let groups = |values: &[&str]| of(Set::ReadDevices, ScopeKind::DeviceGroups, values);
        let own = [
            all(Set::ManageUsers),
            all(Set::ReadReleases),
            groups(&["a"]),
            groups(&["b"]),
            of(Set::ManageReleases, ScopeKind::ReleaseTags, &["x"]),
        ];
        for (wanted, expected) in [
            (all(Set::ManageUsers), true),
            (all(Set::Basic), true),
            (all(Set::ManageTokens), true),
            (all(Set::ReadReleases), true),
            (of(Set::ReadReleases, ScopeKind::ReleaseTags, &["y"]), true),
            (groups(&["a", "b"]), true),
            (groups(&["a", "c"]), false),
            (all(Set::ReadDevices), false),
            (of(Set::ManageReleases, ScopeKind::ReleaseTags, &["x"]), true),
            (of(Set::ManageReleases, ScopeKind::DeviceGroups, &["x"]), false),
            (all(Set::ManageReleases), false),
            (all(Set::DeployToDevices), false),
            (all(Set::SuperUser), false),
        ] {
            assert_eq!(covers(Some(&own), Some(std::slice::from_ref(&wanted))), expected, "{wanted:?}");
        }
        assert!(!covers(Some(&own), None) && covers(Some(&own), Some(&[])));
        for everything in [None, Some(&[all(Set::SuperUser)][..])] {
            assert!(covers(everything, None) && covers(everything, Some(&[all(Set::SuperUser)])));
        }
    }

    #[test]
    fn the_roles_that_are_always_there_have_the_sets_of_the_reference_server() {
        let sets = |role: Role| {
            assert!(role.grants.iter().all(|grant| grant.scope.is_none()), "{}", role.name);
            (role.name, role.grants.into_iter().map(|grant| grant.name).collect::<Vec<_>>())
        };
        let known: Vec<_> = built_in().into_iter().map(sets).collect();
        let role = |name: &str, sets: &[PermissionSet]| (format!("RBAC_ROLE_{name}"), sets.to_vec());
        use PermissionSet as Set;
        // Read at the tag v4.1.0-saas.5 of mender-server.
        let expected = [
            role("PERMIT_ALL", &[Set::SuperUser]),
            role("OBSERVER", &[Set::ReadReleases, Set::ReadDevices]),
            role("CI", &[Set::ReadReleases, Set::ManageReleases, Set::UploadArtifacts]),
            role("DEPLOYMENTS_MANAGER", &[Set::DeployToDevices]),
            role("REMOTE_TERMINAL", &[Set::ConnectToDevices]),
        ];
        assert_eq!(known, expected);
    }
}
