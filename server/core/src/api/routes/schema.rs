//! What bodies look like. What is read has a type, which says it. Answers are put together where they are made; their shapes
//! are here in a short notation, and a test holds every answer of a real fleet against them.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

/// Makes the schema of a type.
pub(in super::super) type Maker = fn(&mut SchemaGenerator) -> Schema;

/// The schema of a type.
pub(in super::super) fn made<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// Names of objects and their members: `name: kind`, or `name?: kind` for what may be missing. A kind is `text`, `time`,
/// `count`, `number`, `flag`, `any`, `map`; `[kind]` for a list, `{kind}` for a map of them, `kind|null`, or the name of
/// another object.
const SHAPES: &[(&str, &[&str])] = &[
    (
        "Error",
        &["error: text", "request_id: text", "second_factor?: flag", "field?: text", "deployment_id?: text"],
    ),
    ("Ready", &["ready: flag", "reasons: [Trouble]"]),
    ("Trouble", &["part: text", "reason: text"]),
    (
        "Device",
        &[
            "id: text",
            "identity_data: map",
            "status: text",
            "created_ts: time",
            "updated_ts: time",
            "check_in_time?: time",
            "decommissioning: flag",
            "auth_sets: [AuthSet]",
        ],
    ),
    (
        "AuthSet",
        &[
            "id: text",
            "device_id: text",
            "identity_data: map",
            "pubkey: text",
            "status: text",
            "ts: time",
            "rust_ota: AuthSetMore",
        ],
    ),
    ("AuthSetMore", &["sha256?: text"]),
    ("Status", &["status: text"]),
    ("AlertMails", &["enabled: flag", "receivers: [text]", "configured: flag", "states: [MailState]"]),
    ("MailState", &["receiver: text", "waiting: count", "tries: count", "sent?: time", "error?: text"]),
    ("TestedMail", &["sent: flag", "said: text"]),
    ("Count", &["count: count"]),
    ("Limit", &["limit: number"]),
    ("Storage", &["limit: count", "usage: count"]),
    (
        "DeviceInventory",
        &["id: text", "updated_ts: time", "identities: [text]", "attributes: [DeviceAttribute]"],
    ),
    (
        "DeviceAttribute",
        &["scope: text", "name: text", "value: any", "timestamp?: time", "description?: text"],
    ),
    ("Group", &["group: text|null"]),
    ("Moved", &["updated_count: count", "matched_count: count"]),
    ("DeviceStatistics", &["devices_by_status: {TierCounts}"]),
    ("TierCounts", &["standard: count", "micro: count", "system: count"]),
    ("AttributeName", &["scope: text", "name: text", "count: count"]),
    (
        "Artifact",
        &[
            "id: text",
            "name: text",
            "description: text",
            "device_types_compatible: [text]",
            "info: ArtifactFormat",
            "signed: flag",
            "updates: [ArtifactUpdate]",
            "artifact_provides: {text}",
            "artifact_depends: map",
            "clears_artifact_provides: [text]",
            "size: count",
            "sha256: text",
            "modified: time",
        ],
    ),
    ("ArtifactFormat", &["format: text", "version: count"]),
    (
        "ArtifactUpdate",
        &["type_info: TypeInfo", "files: [ArtifactFile]|null", "metadata: any", "meta_data?: any"],
    ),
    ("TypeInfo", &["type: text|null"]),
    ("ArtifactFile", &["name: text", "checksum: text", "size: count", "date: time"]),
    (
        "Image",
        &["id: text", "meta: ImageMeta", "meta_artifact: ImageArtifact", "size: count", "modified: time"],
    ),
    ("ImageMeta", &["description: text"]),
    (
        "ImageArtifact",
        &[
            "name: text",
            "device_types_compatible: [text]",
            "info: ArtifactFormat",
            "signed: flag",
            "updates: [ArtifactUpdate]",
            "artifact_provides: {text}",
            "artifact_depends: map",
            "clears_artifact_provides: [text]",
        ],
    ),
    ("Link", &["uri: text", "expire: time"]),
    ("UploadLink", &["id: text", "uri: text", "expire: time"]),
    (
        "Release",
        &[
            "name: text",
            "modified: time",
            "artifacts: [Artifact]",
            "artifacts_count: count",
            "tags: [text]",
            "notes: text",
        ],
    ),
    (
        "ReleaseV1",
        &[
            "Name: text",
            "modified: time",
            "Artifacts: [Artifact]",
            "ArtifactsCount: count",
            "tags: [text]",
            "notes: text",
        ],
    ),
    (
        "Software",
        &[
            "name: text",
            "kind: text",
            "modified: time",
            "compatible_types: [text]",
            "tags: [text]",
            "notes: text",
        ],
    ),
    (
        "Deployment",
        &[
            "id: text",
            "name: text",
            "artifact_name: text",
            "created: time",
            "finished?: time",
            "status: text",
            "device_count: count",
            "max_devices: count",
            "initial_device_count: count",
            "artifacts: [text]",
            "groups: [text]",
            "type: text",
            "force_installation: flag",
            "statistics: DeploymentStatistics",
            "configuration?: text",
            "filter?: map",
            "held?: text",
            "update_control_map?: map",
            "phases?: [Phase]",
            "rust_ota?: map",
            "retries?: count",
            "dynamic?: flag",
            "autogenerate_delta?: flag",
        ],
    ),
    (
        "DryRun",
        &[
            "device_count: count",
            "devices: count",
            "bytes: count",
            "saved_bytes: count",
            "artifacts: [DryRunArtifact]",
            "without: [DryRunWithout]",
            "other_deployments: [DryRunOther]",
            "phases: [DryRunPhase]",
            "equal_deployment?: text",
            "canaries?: [text]",
        ],
    ),
    (
        "DryRunArtifact",
        &[
            "id: text",
            "kind: text",
            "device_types_compatible: [text]",
            "size: count",
            "bytes: count",
            "devices: count",
            "examples: [text]",
        ],
    ),
    ("DryRunWithout", &["code: text", "devices: count", "examples: [text]"]),
    ("DryRunOther", &["id: text", "name: text", "finished: count", "devices: count", "examples: [text]"]),
    ("DryRunPhase", &["device_count: count", "start_ts?: time"]),
    (
        "FleetBudget",
        &["bytes_per_hour?: count", "in_flight?: count", "spent_bytes?: count", "loading?: count"],
    ),
    (
        "DeltaJob",
        &[
            "id: text",
            "deployment_id: text",
            "from_version: text",
            "to_version: text",
            "devices_types_compatible: [text]",
            "status: text",
            "started?: time",
            "finished?: time",
            "rust_ota: DeltaJobMore",
        ],
    ),
    (
        "DeltaJobMore",
        &[
            "created: time",
            "devices: count",
            "reason: text|null",
            "source_artifact_id: text",
            "target_artifact_id: text",
            "artifact_id: text|null",
            "bytes: count|null",
            "full_bytes: count",
        ],
    ),
    ("DeltaConfig", &["delta: DeltaConfigOf"]),
    ("DeltaConfigOf", &["enabled: flag", "binary_delta: map", "rust_ota: DeltaFormat"]),
    ("DeltaFormat", &["format: text", "at_once: count"]),
    (
        "Integration",
        &[
            "id: text",
            "provider: text",
            "credentials: IntegrationCredentials",
            "description: text",
            "scopes: [text]",
        ],
    ),
    ("IntegrationCredentials", &["type: text", "http: IntegrationHttp"]),
    ("IntegrationHttp", &["url: text", "secret?: text"]),
    (
        "WebhookEvent",
        &["id: text", "type: text", "time: time", "data: map", "delivery_statuses: [WebhookDelivery]"],
    ),
    (
        "WebhookDelivery",
        &["integration_id: text", "success: flag", "status_code?: count", "error?: text", "tries: count"],
    ),
    ("DeploymentStatistics", &["status: {count}", "total_size: count", "saved_size: count"]),
    (
        "Phase",
        &[
            "id: text",
            "device_count: count",
            "batch_size?: number",
            "batch_size_devices?: count",
            "start_ts?: time",
        ],
    ),
    ("StatisticsOfOne", &["id: text", "stats: {count}"]),
    (
        "DeviceDeployment",
        &[
            "id: text",
            "status: text",
            "created: time",
            "started?: time",
            "finished?: time",
            "log: flag",
            "substate?: text",
            "device_type?: text",
            "phase_id?: text",
            "attempts?: count",
            "retries?: count",
            "image?: Image",
        ],
    ),
    ("HistoryEntry", &["id: text", "deployment: Deployment", "device: DeviceDeployment"]),
    ("Why", &["id: text", "status: text", "last_heard: time|null", "deployments: [WhyOfOne]"]),
    (
        "WhyOfOne",
        &[
            "deployment_id: text",
            "name: text",
            "artifact_name: text",
            "code: text",
            "reason: text",
            "canary?: flag",
        ],
    ),
    (
        "DeviceConfiguration",
        &[
            "id: text",
            "configured: {text}",
            "reported: {text}",
            "updated_ts: time",
            "reported_ts?: time",
            "deployment_id?: text",
        ],
    ),
    ("DeploymentId", &["deployment_id: text"]),
    ("Connection", &["device_id: text", "status: text", "created_ts: time", "updated_ts: time"]),
    (
        "User",
        &[
            "id: text",
            "email: text",
            "created_ts?: time",
            "updated_ts?: time",
            "login_ts?: time",
            "roles: [text]",
            "second_factor?: flag",
            "rust_ota?: Allowed",
        ],
    ),
    ("Allowed", &["permission_sets_with_scope: [Grant]"]),
    ("SecondFactorState", &["enabled: flag"]),
    ("SecondFactor", &["secret: text", "uri: text"]),
    ("LoginState", &["first_user: flag"]),
    (
        "Session",
        &["id: text", "created_ts: time", "last_used_ts: time", "from: text", "agent: text", "current: flag"],
    ),
    ("Plan", &["name: text", "display_name: text", "features: {flag}"]),
    ("PlanBinding", &["plan: Plan", "limits: {count}"]),
    ("PermissionSetInfo", &["name: text", "description: text", "supported_scope_types: [text]"]),
    (
        "AuditEntry",
        &[
            "actor: AuditActor",
            "time: time",
            "action: text",
            "object: AuditObject",
            "change?: text",
            "meta?: AuditMeta",
        ],
    ),
    ("AuditMeta", &["session_id: [text]"]),
    ("AuditActor", &["id: text", "type: text", "email: text"]),
    (
        "AuditObject",
        &[
            "id: text",
            "type: text",
            "user?: Named",
            "deployment?: Named",
            "artifact?: Named",
            "device?: Named",
        ],
    ),
    ("Named", &["id: text"]),
    ("Next", &["id: text", "artifact: NextArtifact", "update_control_map?: map"]),
    ("NextArtifact", &["id: text", "artifact_name: text", "source: Link", "device_types_compatible: [text]"]),
    ("ControlMap", &["update_control_map: map"]),
];

/// The schemas of all objects.
pub(super) fn shapes() -> Map<String, Value> {
    SHAPES.iter().map(|(name, members)| ((*name).to_owned(), object(members))).collect()
}

fn object(members: &[&str]) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, kind) in members.iter().filter_map(|member| member.split_once(": ")) {
        match name.strip_suffix('?') {
            Some(name) => properties.insert(name.to_owned(), kind_of(kind)),
            None => {
                required.push(name);
                properties.insert(name.to_owned(), kind_of(kind))
            }
        };
    }
    json!({ "type": "object", "properties": properties, "required": required })
}

/// The schema of a kind.
pub(super) fn kind_of(kind: &str) -> Value {
    if let Some(kind) = kind.strip_suffix("|null") {
        return json!({ "anyOf": [kind_of(kind), { "type": "null" }] });
    }
    let within = |open: char, close: char| kind.strip_prefix(open)?.strip_suffix(close);
    if let Some(kind) = within('[', ']') {
        return json!({ "type": "array", "items": kind_of(kind) });
    }
    if let Some(kind) = within('{', '}') {
        return json!({ "type": "object", "additionalProperties": kind_of(kind) });
    }
    match kind {
        "text" => json!({ "type": "string" }),
        "time" => json!({ "type": "string", "format": "date-time" }),
        "count" => json!({ "type": "integer", "minimum": 0 }),
        "number" => json!({ "type": "number" }),
        "flag" => json!({ "type": "boolean" }),
        "map" => json!({ "type": "object", "additionalProperties": true }),
        "any" => json!({}),
        name => json!({ "$ref": format!("#/components/schemas/{name}") }),
    }
}
