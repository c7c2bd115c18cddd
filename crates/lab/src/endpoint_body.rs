//! Bodies as they go over real sockets: whole, cut, dripping, huge.

use super::endpoint_inproc::GARBAGE;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use medic_core::clock::Clock;
use medic_core::model::Span;
use std::io;
use std::sync::Arc;

/// A body on its way out.
pub(super) type Reply = UnsyncBoxBody<Bytes, io::Error>;

/// The answer as it is.
pub(super) fn whole(response: http::Response<Bytes>) -> hyper::Response<Reply> {
    response.map(|body| Full::new(body).map_err(|never| match never {}).boxed_unsync())
}

/// The head with the true length, and less of the body.
pub(super) fn truncated(response: http::Response<Bytes>, bytes: usize) -> hyper::Response<Reply> {
    if bytes >= response.body().len() {
        return whole(response);
    }
    with_length(response).map(|body| {
        let start = stream::iter([Ok(Frame::data(body.slice(..bytes)))]);
        // hyper writes its buffer when a body is pending, not when it fails.
        let pause = stream::once(async {
            tokio::task::yield_now().await;
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, "truncated on purpose"))
        });
        StreamBody::new(start.chain(pause)).boxed_unsync()
    })
}

/// The head with the true length, then one byte per span.
pub(super) fn dripping(response: http::Response<Bytes>, clock: Arc<dyn Clock>, span: Span) -> hyper::Response<Reply> {
    with_length(response).map(|body| {
        let drops = stream::unfold((body, clock), move |(mut body, clock)| async move {
            if body.is_empty() {
                return None;
            }
            clock.sleep(span).await;
            let drop = body.split_to(1);
            Some((Ok(Frame::data(drop)), (body, clock)))
        });
        StreamBody::new(drops).boxed_unsync()
    })
}

/// This many bytes of garbage, of a length that is not in the head.
pub(super) fn huge(response: http::Response<Bytes>, bytes: u64) -> hyper::Response<Reply> {
    response.map(|_| {
        let pieces = stream::unfold(bytes, |left| async move {
            let size = usize::try_from(left).unwrap_or(usize::MAX).min(GARBAGE.len());
            let piece = GARBAGE.get(..size).filter(|piece| !piece.is_empty())?;
            Some((Ok(Frame::data(Bytes::from_static(piece))), left.saturating_sub(size as u64)))
        });
        StreamBody::new(pieces).boxed_unsync()
    })
}

fn with_length(mut response: http::Response<Bytes>) -> http::Response<Bytes> {
    let length = response.body().len();
    response.headers_mut().insert(http::header::CONTENT_LENGTH, http::HeaderValue::from(length));
    response
}
