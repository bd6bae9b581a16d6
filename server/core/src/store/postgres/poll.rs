//! What each request of a device begins with: questions that come while one is under way are one question.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::connect::{Conn, Fault, Target};
use super::read;
use crate::model::Device;

/// Devices in one question.
const AT_ONCE: usize = 256;
/// Who waits at most: more are refused, since a database that is behind does not get quicker by waiting for it.
const WAITING: usize = 16_384;

/// Why there is no answer: said to all that were in one question.
#[derive(Debug, Clone)]
pub(super) struct NoAnswer(Arc<str>);

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

type Asked = (String, oneshot::Sender<Result<Option<Device>, NoAnswer>>);

/// Asks for devices.
pub(super) struct Poll {
    asks: mpsc::Sender<Asked>,
}

impl Poll {
    pub(super) fn start(target: Arc<Target>) -> Poll {
        let (asks, asked) = mpsc::channel(WAITING);
        tokio::spawn(run(target, asked));
        Poll { asks }
    }

    pub(super) async fn device(&self, id: &str) -> Result<Option<Device>, NoAnswer> {
        let (answer, answered) = oneshot::channel();
        match self.asks.try_send((id.to_owned(), answer)) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(NoAnswer("too many wait for it".into())),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(NoAnswer("the server stops".into())),
        }
        answered.await.unwrap_or_else(|_| Err(NoAnswer("the server stops".into())))
    }
}

/// Ends when nobody can ask any more.
async fn run(target: Arc<Target>, mut asked: mpsc::Receiver<Asked>) {
    let mut conn: Option<Conn> = None;
    while let Some(first) = asked.recv().await {
        let mut all = vec![first];
        while all.len() < AT_ONCE {
            match asked.try_recv() {
                Ok(one) => all.push(one),
                Err(_) => break,
            }
        }
        match ask(&target, &mut conn, &all).await {
            Ok(found) => {
                for (id, answer) in all {
                    // Whoever asked may be gone.
                    let _ = answer.send(Ok(found.get(&id).cloned()));
                }
            }
            Err(fault) => {
                conn = None;
                let why = NoAnswer(fault.to_string().into());
                for (_, answer) in all {
                    let _ = answer.send(Err(why.clone()));
                }
            }
        }
    }
}

async fn ask(
    target: &Target,
    conn: &mut Option<Conn>,
    all: &[Asked],
) -> Result<HashMap<String, Device>, Fault> {
    let known = match conn.take() {
        Some(known) if !known.client.is_closed() => known,
        Some(_) | None => target.connect().await?,
    };
    let known = conn.insert(known);
    let ids: Vec<String> = all.iter().map(|(id, _)| id.clone()).collect();
    let found = read::devices(known, &ids).await?;
    Ok(found.into_iter().map(|device| (device.id.clone(), device)).collect())
}
