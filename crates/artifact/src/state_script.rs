//! State scripts: at which points of a deployment they run, which their names say.

use std::fmt;

/// A script that runs at a point of the deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateScript {
    /// Plain file name, checked against the format's grammar.
    pub name: String,
    /// What is in the file.
    pub content: Vec<u8>,
}

/// The state in a script's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScriptState {
    /// Around the daemon's wait between two pieces of work.
    Idle,
    /// Around each conversation with the server.
    Sync,
    /// Before and after the download; these scripts belong to the root file system.
    Download,
    /// Around arming the new software.
    ArtifactInstall,
    /// Around the restart into it.
    ArtifactReboot,
    /// Around making it permanent.
    ArtifactCommit,
    /// Around going back.
    ArtifactRollback,
    /// Around the restart into the old software.
    ArtifactRollbackReboot,
    /// At the end of a failed deployment.
    ArtifactFailure,
}

/// The action in a script's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScriptAction {
    /// Before the state acts.
    Enter,
    /// After it has acted.
    Leave,
    /// When it failed.
    Error,
}

/// A place in a deployment at which scripts run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScriptPoint {
    /// The state.
    pub state: ScriptState,
    /// The action.
    pub action: ScriptAction,
}

impl ScriptState {
    const ALL: [ScriptState; 9] = [
        ScriptState::Idle,
        ScriptState::Sync,
        ScriptState::Download,
        ScriptState::ArtifactInstall,
        ScriptState::ArtifactReboot,
        ScriptState::ArtifactCommit,
        ScriptState::ArtifactRollback,
        ScriptState::ArtifactRollbackReboot,
        ScriptState::ArtifactFailure,
    ];

    /// The state as written in file names.
    pub fn name(self) -> &'static str {
        match self {
            ScriptState::Idle => "Idle",
            ScriptState::Sync => "Sync",
            ScriptState::Download => "Download",
            ScriptState::ArtifactInstall => "ArtifactInstall",
            ScriptState::ArtifactReboot => "ArtifactReboot",
            ScriptState::ArtifactCommit => "ArtifactCommit",
            ScriptState::ArtifactRollback => "ArtifactRollback",
            ScriptState::ArtifactRollbackReboot => "ArtifactRollbackReboot",
            ScriptState::ArtifactFailure => "ArtifactFailure",
        }
    }

    /// Whether the scripts come with the artifact; the others lie in the root file system.
    pub fn from_artifact(self) -> bool {
        match self {
            ScriptState::Idle | ScriptState::Sync | ScriptState::Download => false,
            ScriptState::ArtifactInstall
            | ScriptState::ArtifactReboot
            | ScriptState::ArtifactCommit
            | ScriptState::ArtifactRollback
            | ScriptState::ArtifactRollbackReboot
            | ScriptState::ArtifactFailure => true,
        }
    }
}

impl ScriptAction {
    const ALL: [ScriptAction; 3] = [ScriptAction::Enter, ScriptAction::Leave, ScriptAction::Error];

    /// The action as written in file names.
    fn name(self) -> &'static str {
        match self {
            ScriptAction::Enter => "Enter",
            ScriptAction::Leave => "Leave",
            ScriptAction::Error => "Error",
        }
    }
}

impl fmt::Display for ScriptPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.state.name(), self.action.name())
    }
}

/// Whether an artifact may bring a script of this name: `<State>_<Action>_NN`, optionally followed by `_` and anything
/// but white space and `/`.
pub fn is_script_name(name: &str) -> bool {
    is_name_in(name, ScriptState::ALL.into_iter().filter(|state| state.from_artifact()))
}

/// Whether a script of the root file system may have this name.
pub fn is_root_script_name(name: &str) -> bool {
    is_name_in(name, ScriptState::ALL.into_iter().filter(|state| !state.from_artifact()))
}

fn is_name_in(name: &str, states: impl Iterator<Item = ScriptState>) -> bool {
    let states = states.map(ScriptState::name);
    let actions = ScriptAction::ALL.into_iter().map(ScriptAction::name);
    let after_action = behind_one_of(name, states).and_then(|rest| behind_one_of(rest, actions));
    let Some((order, rest)) = after_action.and_then(|rest| rest.split_at_checked(2)) else { return false };
    let odd = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    let label = rest.strip_prefix('_');
    order.bytes().all(|byte| byte.is_ascii_digit())
        && (rest.is_empty() || label.is_some_and(|label| !label.is_empty() && !label.contains(odd)))
}

/// What follows the first of `words` that `name` begins with, and the `_` behind it.
fn behind_one_of(name: &str, mut words: impl Iterator<Item = &'static str>) -> Option<&str> {
    words.find_map(|word| name.strip_prefix(word)?.strip_prefix('_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_names_follow_the_grammar_of_the_format() {
        for name in [
            "ArtifactInstall_Enter_00",
            "ArtifactRollbackReboot_Error_99_x.sh",
            "ArtifactCommit_Leave_10_a_b",
        ] {
            assert!(is_script_name(name) && !is_root_script_name(name), "{name}");
        }
        assert!(is_root_script_name("Idle_Enter_00_x") && !is_script_name("Idle_Enter_00_x"));
        for name in [
            "",
            "ArtifactInstall",
            "ArtifactInstall_Enter",
            "ArtifactInstall_Enter_",
            "ArtifactInstall_Enter_0",
            "ArtifactInstall_Enter_000",
            "ArtifactInstall_Enter_00.sh",
            "ArtifactInstall_Enter_00_",
            "ArtifactInstall_Enter_00_a b",
            "ArtifactInstall_Enter_00_../../etc/x",
            "ArtifactInstall_Enter_00_a\u{a0}b",
            "ArtifactInstall_Enter_0é",
            "ArtifactInstall_enter_00",
            "Download_Enter_00",
            "Idle_Enter_00",
            "xArtifactInstall_Enter_00",
            "../ArtifactInstall_Enter_00",
        ] {
            assert!(!is_script_name(name), "{name}");
        }
    }
}
