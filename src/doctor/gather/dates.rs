//! A transport that notes two dates of each answer: the server's clock, and the end of the token.

use crate::doctor::skew::Skew;
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, header};
use medic_core::clock::Clock;
use medic_core::model::Wall;
use medic_http::{BodySink, Bounds, Response, Transport, TransportError};
use std::sync::{Arc, Mutex, PoisonError};

/// GitHub names the end of a personal access token in this header.
const TOKEN_ENDS: &str = "github-authentication-token-expiration";

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Dates {
    pub(super) skew: Option<Skew>,
    pub(super) token_ends: Option<Wall>,
}

/// Shared with the transports that fill them.
pub(super) type Notes = Arc<Mutex<Dates>>;

pub(super) fn noted(notes: &Notes) -> Dates {
    *notes.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct DatedTransport {
    pub(super) inner: Arc<dyn Transport>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) notes: Notes,
}

impl DatedTransport {
    fn note(&self, sent: Wall, answer: &Result<Response, TransportError>) {
        let Ok(response) = answer else { return };
        let received = self.clock.now().wall;
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(date) = date(&response.headers) {
            let skew = Skew::of(sent, received, date);
            notes.skew = Some(notes.skew.map_or(skew, |known| known.narrowed(skew)));
        }
        notes.token_ends = token_ends(&response.headers).or(notes.token_ends);
    }
}

#[async_trait]
impl Transport for DatedTransport {
    async fn send(&self, request: http::Request<Bytes>, bounds: Bounds) -> Result<Response, TransportError> {
        let sent = self.clock.now().wall;
        let answer = self.inner.send(request, bounds).await;
        self.note(sent, &answer);
        answer
    }

    async fn stream(
        &self,
        request: http::Request<Bytes>,
        bounds: Bounds,
        sink: &mut dyn BodySink,
    ) -> Result<Response, TransportError> {
        // Such a body is long: the date before it says little about the time after it.
        self.inner.stream(request, bounds, sink).await
    }
}

fn date(headers: &HeaderMap) -> Option<Wall> {
    let text = headers.get(header::DATE)?.to_str().ok()?;
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    u64::try_from(date.as_millisecond()).ok().map(Wall)
}

/// `2026-12-24 10:00:00 UTC`, or with an offset in place of the zone.
fn token_ends(headers: &HeaderMap) -> Option<Wall> {
    let text = headers.get(TOKEN_ENDS)?.to_str().ok()?.trim().replace("UTC", "+0000");
    let date = jiff::fmt::strtime::parse("%Y-%m-%d %H:%M:%S %z", text).ok()?.to_timestamp().ok()?;
    u64::try_from(date.as_millisecond()).ok().map(Wall)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_end_is_read_with_zone_or_offset() {
        for (text, seconds) in [
            ("2026-12-24 10:00:00 UTC", Some(1_798_106_400)),
            ("2026-12-24 11:00:00 +0100", Some(1_798_106_400)),
            ("soon", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(TOKEN_ENDS, text.parse().unwrap());
            assert_eq!(token_ends(&headers), seconds.map(|at: u64| Wall(at * 1000)), "{text}");
        }
    }

    #[test]
    fn malformed_date_header_is_ignored() {
        let mut headers = HeaderMap::new();
        assert_eq!(date(&headers), None);
        headers.insert(header::DATE, "yesterday".parse().unwrap());
        assert_eq!(date(&headers), None);
        headers.insert(header::DATE, "Thu, 01 Jan 1970 00:00:05 GMT".parse().unwrap());
        assert_eq!(date(&headers), Some(Wall(5_000)));
    }
}
