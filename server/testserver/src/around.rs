//! Faults and the record of requests, around each connection of a server.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hyper::{Method, StatusCode};
use serde_json::json;
use server_core::surround::{self, ApiError, Around, Call, Reply, Stream, Surround};

use crate::answer;
use crate::recorder::Recorder;
use crate::rules::{Action, FaultsHandle};
use crate::wire::{CurrentFault, FaultyStream, WireFault};

/// Faults that can be set from outside, around a server.
#[derive(Debug, Clone)]
pub struct Faults {
    rules: FaultsHandle,
    recorder: Option<Recorder>,
}

impl Faults {
    /// These, and those that `PUT /api/internal/v1/faults` sets.
    pub fn new(rules: FaultsHandle) -> Faults {
        Faults { rules, recorder: None }
    }

    /// The memory for what is recorded is never given back.
    pub(crate) fn recorded_by(self, recorder: Recorder) -> Faults {
        Faults { recorder: Some(recorder), ..self }
    }
}

impl Surround for Faults {
    fn connection(&self) -> Box<dyn Around> {
        let faults = self.clone();
        Box::new(Connection { faults, action: Mutex::default(), current: CurrentFault::default() })
    }
}

/// Around one connection.
struct Connection {
    faults: Faults,
    /// What happens to the request that is being answered.
    action: Mutex<Option<Action>>,
    current: CurrentFault,
}

impl Connection {
    fn action(&self) -> MutexGuard<'_, Option<Action>> {
        self.action.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer in place of the server's, if there is one. What is left to the server may be changed for it.
    fn instead(&self, action: Option<&Action>, call: &mut Call) -> Option<Reply> {
        match action {
            Some(Action::Status { code, headers, body }) => {
                return Some(answer::status(*code, headers, body));
            }
            Some(Action::Redirect { to }) => {
                return Some(answer::redirect(to.as_deref().unwrap_or(&call.path_and_query())));
            }
            Some(action) => answer::before(action, call),
            None => {}
        }
        self.is_asked(call).then(|| self.asked(call).unwrap_or_else(ApiError::into_reply))
    }

    /// The faults are set, cleared, or asked for.
    fn asked(&self, call: &Call) -> Result<Reply, ApiError> {
        let rules = &self.faults.rules;
        match call.method {
            Method::PUT => rules.set(call.json()?),
            Method::DELETE => rules.clear(),
            Method::GET => {
                let answer = json!({ "rules": rules.rules(), "hits": rules.hits() });
                return Ok(surround::json(StatusCode::OK, &answer));
            }
            _ => return Err(ApiError::not_found()),
        }
        Ok(surround::empty(StatusCode::NO_CONTENT))
    }
}

impl Around for Connection {
    fn stream(&self, stream: Box<dyn Stream>) -> Box<dyn Stream> {
        Box::new(FaultyStream::new(stream, self.current.clone()))
    }

    fn begins(&self) {
        self.current.set(WireFault::Nothing);
    }

    fn is_asked(&self, call: &Call) -> bool {
        call.segments() == ["api", "internal", "v1", "faults"]
    }

    fn before(&self, call: &mut Call) -> Option<Reply> {
        let action = self.faults.rules.take(call.method.as_str(), &call.path_and_query(), &call.body);
        if let Some(action) = &action {
            log::info!("fault for {}: {action:?}", call.shown());
        }
        let reply = self.instead(action.as_ref(), call);
        *self.action() = action;
        reply
    }

    fn after(&self, call: &Call, reply: Reply) -> Reply {
        let Some(action) = self.action().take() else { return reply };
        let fault = answer::on_the_wire(&action, &self.faults.rules);
        if let WireFault::Replace { .. } | WireFault::Close = fault {
            log::info!("{} is not answered", call.shown());
        }
        self.current.set(fault);
        answer::after(&action, reply)
    }

    fn answered(&self, call: &Call, reply: Reply) -> Reply {
        match &self.faults.recorder {
            Some(recorder) => recorder.record(call, reply),
            None => reply,
        }
    }

    fn is_abandoned(&self) -> bool {
        self.current.is_set()
    }
}
