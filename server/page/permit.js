// What the person may do, so that nothing is offered that the server would refuse. The server alone decides; who calls it
// past this page meets the same rules.

/** What the server says that one's roles allow: `[{name, scope: {type, value}}]`. Without it everything is offered. */
let grants;

/** Takes note of who is here, as `users/me` describes it. */
export function know(me) {
  grants = me?.rust_ota?.permission_sets_with_scope;
}

// Sets of permissions that let people do something; one of them is enough.
export const SEE_DEVICES = ["ReadDevices", "ManageDevices", "ConfigureDevices", "ConnectToDevices", "DeployToDevices"];
export const SEE_ROLLOUTS = ["ReadDevices", "DeployToDevices"];
export const SEE_RELEASES = ["ReadReleases", "ManageReleases", "UploadArtifacts", "DeployToDevices"];
export const HAVE_FILES = ["ReadReleases", "ManageReleases", "UploadArtifacts"];
export const UPLOAD = ["UploadArtifacts", "ManageReleases"];
export const MANAGE_RELEASES = ["ManageReleases"];
export const MANAGE_DEVICES = ["ManageDevices"];
export const CONFIGURE = ["ConfigureDevices"];
export const CONNECT = ["ConnectToDevices"];
export const WAKE = ["ConnectToDevices", "ManageDevices", "DeployToDevices"];
export const DEPLOY = ["DeployToDevices"];
export const SEE_PEOPLE = ["ReadUsers", "ManageUsers"];
export const MANAGE_PEOPLE = ["ManageUsers"];
export const SEE_AUDIT = ["ReadAuditLogs"];
/** What only those may do who may do everything. */
export const EVERYTHING = [];

const isEverything = (grant) => grant.name === "SuperUser" && !grant.scope;

/** Whether one may do it: to everything, or to a device of `group`, or to a release with one of `tags`. */
export function may(sets, { group, tags = [] } = {}) {
  if (!grants || grants.some(isEverything)) return true;
  return grants.some((grant) => {
    if (!sets.includes(grant.name)) return false;
    if (!grant.scope) return true;
    const names = grant.scope.type === "DeviceGroups" ? [group] : tags;
    return names.some((name) => name && grant.scope.value.includes(name));
  });
}

/** Whether one may do it to anything at all. */
export const maySomewhere = (sets) => may(sets) || grants.some((grant) => sets.includes(grant.name));

/** Whose devices one may do it to, and no others: names of groups. Nothing, for who is not limited so. */
export function groupsFor(sets) {
  if (may(sets)) return undefined;
  const limited = grants.filter((grant) => sets.includes(grant.name) && grant.scope?.type === "DeviceGroups");
  return limited.length ? [...new Set(limited.flatMap((grant) => grant.scope.value))].sort() : undefined;
}
