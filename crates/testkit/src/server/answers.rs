//! What the server answers, and what it remembers of that.

use super::request::{decoded, endpoint, query, unbase64};
use super::{Deployment, Endpoint, FINALS, Failure, Matcher, STORAGE, Snapshot, V1, Verify};
use crate::json::{Json, quoted};
use crate::transport::{Reply, Sent};

/// The address of the artifact that is good now.
pub(super) fn link(deployment: &Deployment) -> String {
    format!("{STORAGE}/{}.mender?signature={}", deployment.id, deployment.link)
}

fn said(status: u16, message: &str) -> Reply {
    Reply::new(status, format!("{{\"error\":{},\"request_id\":\"0\"}}", quoted(message)))
        .header("content-type", "application/json")
}

impl Deployment {
    /// A report of `status` came: perhaps it is the one that a test chose for an abort.
    fn count_towards_abort(&mut self, status: &str) {
        let Some((wanted, left)) = &mut self.aborts_at else { return };
        if *wanted == status {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.aborted = true;
                self.aborts_at = None;
            }
        }
    }
}

impl Snapshot {
    pub(super) fn deployment(&self, id: &str) -> Option<&Deployment> {
        self.deployments.iter().find(|deployment| deployment.id == id)
    }

    /// Answers a request, or lets happen to it what a test wanted.
    pub(super) fn receive(&mut self, sent: Sent, verify: &Verify) -> Reply {
        if self.recording {
            self.sent.push(sent.clone());
        }
        let host = sent.url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        let reachable = self.hosts.get(&host).copied().unwrap_or(false);
        let Some(endpoint) = endpoint(&sent).filter(|_| reachable) else {
            return if reachable { said(404, "no such page") } else { Reply::no_answer("no route to host") };
        };
        if endpoint != Endpoint::Artifact {
            assert!(!sent.is_download, "an API call with the deadlines of a download");
            assert!(host != STORAGE, "an API call to the storage");
        }
        let lost = || Reply::no_answer("connection reset");
        match self.failure(endpoint, &sent) {
            None => self.perform(endpoint, &sent, verify),
            Some(Failure::NotReached) => Reply::no_answer("connection refused"),
            Some(Failure::LostRequest) => lost(),
            Some(Failure::LostAnswer) => {
                self.perform(endpoint, &sent, verify);
                lost()
            }
            Some(Failure::Status(status)) => said(status, "as the test wanted"),
            Some(Failure::Plain(status)) => Reply::new(status, "no such page"),
            Some(Failure::RetryAfter(status, text)) => said(status, "later").header("retry-after", text),
            Some(Failure::CaptivePortal) => {
                Reply::new(200, "<!DOCTYPE html><title>Pay</title>").header("content-type", "text/html")
            }
            Some(Failure::CutAfter(count)) => self.perform(endpoint, &sent, verify).breaking_after(count),
        }
    }

    fn failure(&mut self, endpoint: Endpoint, sent: &Sent) -> Option<Failure> {
        let matches = |matcher: &Matcher| match matcher {
            Matcher::Any => true,
            Matcher::Of(wanted) => *wanted == endpoint,
            Matcher::Report(status) => {
                endpoint == Endpoint::Status && sent.text().contains(&format!("\"{status}\""))
            }
        };
        let waiting = self.failures.iter().position(|(matcher, _)| matches(matcher));
        if let Some((_, failure)) = waiting.and_then(|at| self.failures.remove(at)) {
            return Some(failure);
        }
        self.lasting.as_ref().filter(|(matcher, _)| matches(matcher)).map(|(_, failure)| failure.clone())
    }

    fn perform(&mut self, endpoint: Endpoint, sent: &Sent, verify: &Verify) -> Reply {
        match endpoint {
            Endpoint::Auth => return self.auth(sent, verify),
            Endpoint::Artifact => return self.artifact(sent),
            Endpoint::Next | Endpoint::Status | Endpoint::Log | Endpoint::Inventory => {}
        }
        let token = sent.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        if !token.is_some_and(|token| self.tokens.iter().any(|valid| valid == token)) {
            return said(401, "Unauthorized");
        }
        if sent.body.is_some() {
            assert_eq!(sent.header("content-type"), Some("application/json"));
        }
        match endpoint {
            Endpoint::Next => self.next(sent),
            Endpoint::Status => self.status(sent),
            Endpoint::Log => self.log(sent),
            Endpoint::Inventory => self.take_inventory(sent),
            Endpoint::Auth | Endpoint::Artifact => unreachable!("answered above"),
        }
    }

    fn auth(&mut self, sent: &Sent, verify: &Verify) -> Reply {
        let body = sent.body.as_deref().unwrap_or_default();
        let Ok(request) = Json::parse(body) else { return said(400, "malformed body") };
        let (id, key) = (request.get("id_data"), request.get("pubkey"));
        let (Some(id), Some(key)) = (id.and_then(Json::text), key.and_then(Json::text)) else {
            return said(400, "id_data or pubkey is missing");
        };
        let identity = Json::parse(id.as_bytes()).expect("the identity is JSON");
        let keys = identity.keys();
        assert!(!keys.is_empty() && keys.is_sorted(), "the identity has sorted keys: {id}");
        assert!(key.starts_with("-----BEGIN PUBLIC KEY-----\n") && key.ends_with("-----\n"), "{key}");
        let signature = sent.header("x-men-signature").and_then(unbase64);
        let Some(signature) = signature else { return said(400, "missing request signature header") };
        if !verify(body, &signature, key) {
            return said(401, "signature verification failed");
        }
        let tenant = request.get("tenant_token").map(|token| token.text().unwrap_or_default());
        assert!(tenant != Some(""), "an empty tenant token is left out");
        if !self.accepting || self.tenant.as_deref().is_some_and(|wanted| tenant != Some(wanted)) {
            return said(401, "dev auth: unauthorized");
        }
        self.tokens_given += u32::from(self.recording);
        let token = format!("tok{}.e30.c2lnbmF0dXJl", self.tokens_given);
        if !self.tokens.contains(&token) {
            self.tokens.push(token.clone());
        }
        Reply::new(200, token).header("content-type", "application/jwt")
    }

    fn next(&mut self, sent: &Sent) -> Reply {
        let v2 = sent.path().starts_with("/api/devices/v2/");
        let answered = match (v2, sent.method) {
            (true, "POST") => self.v2,
            (false, "POST") => self.v1_post,
            (false, "GET") => true,
            _ => return said(405, "method not allowed"),
        };
        if !answered {
            return said(404, "no such page");
        }
        let named = |name: &str| match sent.method {
            "GET" => query(&sent.url, name),
            _ => {
                let body = Json::parse(sent.body.as_deref().unwrap_or_default()).expect("a body of JSON");
                let provides = if v2 { body.get("device_provides").cloned()? } else { body };
                assert!(provides.keys().is_sorted(), "provides are sorted");
                Some(provides.get(name)?.text()?.to_owned())
            }
        };
        let question = [named("artifact_name"), named("device_type")];
        let [Some(artifact_name), Some(device_type)] = &question else {
            return said(400, "artifact_name or device_type is missing");
        };
        let waiting = |deployment: &&mut Deployment| {
            let finished = deployment.statuses.iter().any(|status| FINALS.contains(&status.as_str()));
            !finished && !deployment.aborted && deployment.device_types.contains(device_type)
        };
        let Some(deployment) = self.deployments.iter_mut().find(waiting) else {
            self.vain_questions += 1;
            return Reply::new(204, "");
        };
        match &deployment.first_question {
            None if deployment.artifact_name == *artifact_name => {
                deployment.statuses.push("already-installed".to_owned());
                return Reply::new(204, "");
            }
            None => deployment.first_question = Some(question.clone()),
            Some(first) if *first != question => {
                deployment.statuses.push("failure".to_owned());
                return said(409, "the device is not what it was when the deployment began");
            }
            Some(_) => {}
        }
        let types: Vec<String> = deployment.labelled.iter().map(|name| quoted(name)).collect();
        let body = format!(
            "{{\"id\":{},\"artifact\":{{\"id\":\"a0\",\"artifact_name\":{},\"source\":{{\"uri\":{},\
             \"expire\":\"2026-11-23T19:02:37Z\"}},\"device_types_compatible\":[{}]}}}}\n",
            quoted(&deployment.id),
            quoted(&deployment.artifact_name),
            quoted(&link(deployment)),
            types.join(",")
        );
        Reply::new(200, body).header("content-type", "application/json")
    }

    fn reported(&mut self, sent: &Sent) -> Option<&mut Deployment> {
        let id = sent.path().strip_prefix(V1)?.split('/').next().and_then(decoded)?;
        self.deployments.iter_mut().find(|deployment| deployment.id == id)
    }

    fn status(&mut self, sent: &Sent) -> Reply {
        let body = Json::parse(sent.body.as_deref().unwrap_or_default()).expect("a body of JSON");
        let status = body.get("status").and_then(Json::text).unwrap_or_default().to_owned();
        let substate = body.get("substate").and_then(Json::text).map(str::to_owned);
        let known = [
            "downloading",
            "installing",
            "rebooting",
            "pause_before_installing",
            "pause_before_rebooting",
            "pause_before_committing",
            "success",
            "failure",
            "already-installed",
        ];
        if !known.contains(&status.as_str()) {
            return said(400, "unknown status");
        }
        let recording = self.recording;
        let Some(deployment) = self.reported(sent) else { return said(404, "no such deployment") };
        if recording || FINALS.contains(&status.as_str()) {
            deployment.reports.push(status.clone());
        }
        if recording {
            deployment.substates.push(substate);
        }
        deployment.count_towards_abort(&status);
        if deployment.aborted {
            return said(409, "deployment aborted");
        }
        if deployment.statuses.last() != Some(&status) {
            let over = deployment.statuses.iter().find(|status| FINALS.contains(&status.as_str()));
            assert!(over.is_none(), "{status} was reported after {over:?}");
            deployment.statuses.push(status);
        }
        Reply::new(204, "")
    }

    fn log(&mut self, sent: &Sent) -> Reply {
        let bytes = sent.body.as_deref().unwrap_or_default();
        if bytes.len() > 1024 * 1024 {
            return said(413, "too large");
        }
        let body = Json::parse(bytes).expect("a body of JSON");
        let messages = body.get("messages").and_then(Json::list).unwrap_or_default();
        let text = |message: &Json, name: &str| message.get(name)?.text().map(str::to_owned);
        let complete = |message: &Json| {
            ["timestamp", "level", "message"]
                .iter()
                .all(|name| text(message, name).is_some_and(|text| !text.is_empty()))
        };
        if messages.is_empty() || !messages.iter().all(complete) {
            return said(400, "a log needs messages, and they need timestamp, level and message");
        }
        let log = sent.text();
        let recording = self.recording;
        let Some(deployment) = self.reported(sent) else { return said(404, "no such deployment") };
        if recording {
            deployment.logs.push(log);
        }
        Reply::new(204, "")
    }

    fn take_inventory(&mut self, sent: &Sent) -> Reply {
        let allowed = match sent.method {
            "PUT" => self.inventory_put,
            "PATCH" => true,
            _ => false,
        };
        if !allowed {
            return said(405, "method not allowed");
        }
        let body = Json::parse(sent.body.as_deref().unwrap_or_default()).expect("a body of JSON");
        let attributes = body.list().expect("a list of attributes");
        let names: Vec<&str> = attributes
            .iter()
            .map(|attribute| attribute.get("name").and_then(Json::text).expect("a name"))
            .collect();
        assert!(names.is_sorted(), "attributes are sorted");
        if self.recording {
            self.inventory.clone_from(&sent.body);
            self.inventories += 1;
        }
        Reply::new(200, "")
    }

    fn artifact(&mut self, sent: &Sent) -> Reply {
        assert!(sent.header("authorization").is_none(), "a token was sent to the storage");
        assert!(sent.is_download, "a download with the deadlines of an API call");
        assert_eq!(sent.header("accept-encoding"), Some("identity"));
        let id = sent.path().trim_start_matches('/').trim_end_matches(".mender");
        let Some(deployment) = self.deployment(id) else { return said(404, "no such artifact") };
        if sent.url != link(deployment) {
            return Reply::new(403, "<Error><Code>AccessDenied</Code></Error>");
        }
        let content = &deployment.content;
        let tagged = |reply: Reply| match &deployment.etag {
            Some(etag) => reply.header("etag", etag.clone()).header("accept-ranges", "bytes"),
            None => reply.header("accept-ranges", "bytes"),
        };
        let range = sent.header("range").filter(|_| self.ranges);
        let current = sent.header("if-range").is_none_or(|tag| Some(tag) == deployment.etag.as_deref());
        let Some(range) = range.filter(|_| current) else { return tagged(Reply::new(200, content).sized()) };
        let (start, end) =
            range.strip_prefix("bytes=").and_then(|range| range.split_once('-')).expect("a range of bytes");
        let start: usize = start.parse().expect("the beginning of a range");
        let last = content.len().saturating_sub(1);
        let end = if end.is_empty() { last } else { end.parse::<usize>().expect("its end").min(last) };
        if start >= content.len() {
            return Reply::new(416, "").header("content-range", format!("bytes */{}", content.len()));
        }
        let part = Reply::new(206, &content[start..=end]).sized();
        tagged(part.header("content-range", format!("bytes {start}-{end}/{}", content.len())))
    }
}
