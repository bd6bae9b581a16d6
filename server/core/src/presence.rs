//! The connections that wait for nothing but their client. When there is no place for a new one, the one that has waited
//! longest makes room: whoever opens connections and says nothing must not keep devices out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use hyper::body::{Frame, SizeHint};
use tokio::sync::Notify;

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// In the order in which they began to wait.
    since: Mutex<BTreeMap<u64, Arc<Notify>>>,
    last: AtomicU64,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Notify>>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the one that waits longest end. Whether there was one.
    pub(crate) fn shed(&self) -> bool {
        match self.lock().pop_first() {
            Some((_, ended)) => {
                ended.notify_one();
                true
            }
            None => false,
        }
    }

    /// A new connection. It waits.
    pub(crate) fn enter(self: &Arc<Self>, from: SocketAddr) -> Arc<Presence> {
        let presence =
            Presence { waiting: self.clone(), from, number: Mutex::new(None), ended: Arc::default() };
        presence.idle();
        Arc::new(presence)
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Presence {
    waiting: Arc<Waiting>,
    from: SocketAddr,
    /// Its place among those that wait.
    number: Mutex<Option<u64>>,
    ended: Arc<Notify>,
}

impl Presence {
    /// Where it comes from.
    pub(crate) fn from(&self) -> SocketAddr {
        self.from
    }

    /// From now on it waits for its client.
    fn idle(&self) {
        let mut number = self.number.lock().unwrap_or_else(PoisonError::into_inner);
        if number.is_none() {
            let own = self.waiting.last.fetch_add(1, Ordering::Relaxed);
            self.waiting.lock().insert(own, self.ended.clone());
            *number = Some(own);
        }
    }

    /// From now on it works for somebody who is known.
    pub(crate) fn busy(&self) {
        let number = self.number.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(number) = number {
            self.waiting.lock().remove(&number);
        }
    }

    /// Until it has to make room.
    pub(crate) async fn ended(&self) {
        self.ended.notified().await;
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.busy();
    }
}

/// The body of an answer. When it has gone out, or cannot, its connection waits again.
///
/// What breaks it is said one turn later: a connection that hears of it at once ends with what it has not sent yet, and its
/// client would have no answer at all, not even the beginning of a broken one.
pub(crate) struct Answering<B: hyper::body::Body> {
    body: B,
    broken: Option<B::Error>,
    presence: Arc<Presence>,
}

impl<B: hyper::body::Body> Answering<B> {
    pub(crate) fn new(body: B, presence: Arc<Presence>) -> Answering<B> {
        Answering { body, broken: None, presence }
    }
}

impl<B> hyper::body::Body for Answering<B>
where
    B: hyper::body::Body + Unpin,
    B::Error: Unpin,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Err(error))) => {
                self.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(frame) => Poll::Ready(frame),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: hyper::body::Body> Drop for Answering<B> {
    fn drop(&mut self) {
        self.presence.idle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_waits_longest_makes_room() {
        let waiting = Arc::new(Waiting::default());
        let from = SocketAddr::from(([127, 0, 0, 1], 1));
        let all: Vec<_> = (0..4).map(|_| waiting.enter(from)).collect();
        // The first works, has worked, and waits again.
        all[0].busy();
        all[1].busy();
        all[0].idle();
        drop(all[2].clone());
        let numbers = |waiting: &Waiting| waiting.lock().values().map(Arc::as_ptr).collect::<Vec<_>>();
        let own = |at: usize| Arc::as_ptr(&all[at].ended);
        assert_eq!(numbers(&waiting), [own(2), own(3), own(0)]);
        assert!(waiting.shed() && waiting.shed());
        assert_eq!(numbers(&waiting), [own(0)]);
        assert!(waiting.shed());
        assert!(!waiting.shed(), "the one that works stays");
        drop(all);
        assert!(waiting.lock().is_empty());
    }
}
