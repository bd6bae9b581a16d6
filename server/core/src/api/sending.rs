//! The body of an artifact on its way: its bytes are counted, and it has its place until it is gone.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::{Bytes, Frame, SizeHint};

use super::Body;
use crate::metrics::Metrics;
use crate::throttle::Place;

/// A body, its place, and where its bytes are counted.
pub(super) struct Sending {
    body: Body,
    _place: Option<Place>,
    metrics: Arc<Metrics>,
}

impl Sending {
    pub(super) fn new(body: Body, place: Option<Place>, metrics: Arc<Metrics>) -> Sending {
        Sending { body, _place: place, metrics }
    }
}

impl hyper::body::Body for Sending {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            self.metrics.downloaded.add(frame.data_ref().map_or(0, |data| data.len() as u64));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
