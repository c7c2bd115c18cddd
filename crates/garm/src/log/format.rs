//! One line of Go's `slog`, in its JSON or its text form (`docs/reference/garm-api.md` §12).
//!
//! The message is found near the start of a line without parsing; only a line whose message matters is parsed in full.
//! Edge cases: keys occur twice (the last counts: it is the context's); a source location may stand before the message;
//! a line may begin with NULs or with the torn end of another line (a process died while it wrote), so parsing is tried
//! again from the last possible beginning.

use memchr::{memchr, memmem};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// How far into a line its message may begin: time, level, and a source location with long names.
const HEAD: usize = 1024;
pub const LINE_MAX: usize = 64 * 1024;

/// The start of a line, without parsing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head<'a> {
    pub time: &'a str,
    /// The level as written (`DEBUG`, `INFO`, `WARN`, `ERROR`, possibly with an offset).
    pub level: &'a str,
    /// The message as written: escapes are left as they are.
    pub message: &'a [u8],
}

/// The attributes that matter, of one line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attributes<'a> {
    pub error: Cow<'a, str>,
    pub worker: Cow<'a, str>,
    /// The worker's name as the call gave it.
    pub consumer_id: Cow<'a, str>,
    /// `owner/name` or a plain name.
    pub entity: Cow<'a, str>,
    pub session_id: Cow<'a, str>,
    /// In the controller's lines the manager's id of a set, elsewhere GitHub's.
    pub scale_set_id: Option<u64>,
    pub last_message_id: Option<u64>,
}

/// The start of a line, or `None` if this is no log line.
pub fn head(line: &[u8]) -> Option<Head<'_>> {
    let start = line.get(..HEAD).unwrap_or(line);
    if line.first() == Some(&b'{') { json_head(start) } else { text_head(start) }
}

/// All attributes that matter, or `None` if the line is torn or no log line.
pub fn attributes(line: &[u8]) -> Option<Attributes<'_>> {
    let text = std::str::from_utf8(line).ok()?;
    if text.starts_with('{') {
        let mut attributes = Attributes::default();
        let mut parser = serde_json::Deserializer::from_str(text);
        Collect(&mut attributes).deserialize(&mut parser).ok()?;
        parser.end().ok()?;
        Some(attributes)
    } else {
        text_attributes(text)
    }
}

/// Where a whole line may begin inside a torn one; the last such place. A line that was cut because of its length is
/// not torn: text quoted in it must not be read as a line.
pub fn second_beginning(line: &[u8]) -> Option<&[u8]> {
    let rest = line.get(1..).filter(|_| line.len() < LINE_MAX)?;
    // Searched from the front first, at the speed of memory: nearly every line has none.
    let last = |mark: &[u8]| memmem::find(rest, mark).and_then(|_| memmem::rfind(rest, mark));
    let json = last(b"{\"time\":\"");
    // Inside JSON the text form's mark may be part of any value.
    let text = || if line.first() == Some(&b'{') { None } else { last(b"time=2") };
    rest.get(json.or_else(text)?..)
}

fn json_head(start: &[u8]) -> Option<Head<'_>> {
    let (time, rest) = between(start, b"{\"time\":\"", b'"')?;
    let (level, rest) = between(rest, b",\"level\":\"", b'"')?;
    let at = memmem::find(rest, b"\"msg\":\"")?;
    let (message, _) = between(rest.get(at..)?, b"\"msg\":\"", b'"')?;
    Some(Head { time: str::from_utf8(time).ok()?, level: str::from_utf8(level).ok()?, message })
}

fn text_head(start: &[u8]) -> Option<Head<'_>> {
    let (time, rest) = between(start, b"time=", b' ')?;
    let (level, rest) = between(rest, b"level=", b' ')?;
    let at = memmem::find(rest, b"msg=")?;
    let (message, _) = match between(rest.get(at..)?, b"msg=\"", b'"') {
        Some(quoted) => quoted,
        None => between(rest.get(at..)?, b"msg=", b' ')?,
    };
    Some(Head { time: str::from_utf8(time).ok()?, level: str::from_utf8(level).ok()?, message })
}

/// What stands between `open` at the very start and the next `close`; and what follows `close`.
fn between<'a>(text: &'a [u8], open: &[u8], close: u8) -> Option<(&'a [u8], &'a [u8])> {
    let inner = text.strip_prefix(open)?;
    let end = memchr(close, inner)?;
    Some((inner.get(..end)?, inner.get(end.saturating_add(1)..)?))
}

/// The next value, if it is of the wanted type.
fn value<'de, T: Deserialize<'de>, A: MapAccess<'de>>(map: &mut A) -> Result<Option<T>, A::Error> {
    Ok(serde_json::from_str(map.next_value::<&RawValue>()?.get()).ok())
}

/// Collects the attributes of a JSON object; keys may repeat.
struct Collect<'b, 'a>(&'b mut Attributes<'a>);

impl<'de> DeserializeSeed<'de> for Collect<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Collect<'_, 'de> {
    type Value = ();
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a log line")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(key)) = map.next_key()? {
            let number = match key.as_ref() {
                "scale_set_id" => &mut self.0.scale_set_id,
                "last_message_id" => &mut self.0.last_message_id,
                other => {
                    match self.0.text(other) {
                        Some(slot) => *slot = value::<Text<'de>, _>(&mut map)?.unwrap_or_default().0,
                        None => drop(map.next_value::<IgnoredAny>()?),
                    }
                    continue;
                }
            };
            *number = value(&mut map)?;
        }
        Ok(())
    }
}

/// A string, borrowed where it holds no escapes.
#[derive(Default, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Attributes<'a> {
    fn text(&mut self, key: &str) -> Option<&mut Cow<'a, str>> {
        match key {
            "error" => Some(&mut self.error),
            "worker" => Some(&mut self.worker),
            "consumer_id" => Some(&mut self.consumer_id),
            "entity" => Some(&mut self.entity),
            "session_id" => Some(&mut self.session_id),
            _ => None,
        }
    }
}

/// `key=value key="quoted value" …`, as Go's text handler writes it.
fn text_attributes(line: &str) -> Option<Attributes<'_>> {
    let mut attributes = Attributes::default();
    let mut rest = line.trim_end_matches(['\r', ' ']);
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        let (value, after) = if let Some(quoted) = after.strip_prefix('"') {
            unquote(quoted)?
        } else {
            let end = after.find(' ').unwrap_or(after.len());
            let (value, after) = after.split_at(end);
            (Cow::Borrowed(value), after)
        };
        match key {
            "scale_set_id" => attributes.scale_set_id = value.parse().ok(),
            "last_message_id" => attributes.last_message_id = value.parse().ok(),
            other => {
                if let Some(slot) = attributes.text(other) {
                    *slot = value;
                }
            }
        }
        rest = match after.strip_prefix(' ') {
            Some(next) => next,
            None if after.is_empty() => after,
            None => return None,
        };
    }
    Some(attributes)
}

/// The value of a Go string literal whose opening quote is gone, and what follows its closing quote.
fn unquote(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let plain = text.find(['"', '\\'])?;
    let (head, tail) = text.split_at(plain);
    if let Some(after) = tail.strip_prefix('"') {
        return Some((Cow::Borrowed(head), after));
    }
    let mut value = head.to_owned();
    let mut chars = tail.chars();
    loop {
        match chars.next()? {
            '"' => return Some((Cow::Owned(value), chars.as_str())),
            '\\' => match chars.next()? {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                'r' => value.push('\r'),
                'x' => value.push(code(&mut chars, 2)?),
                'u' => value.push(code(&mut chars, 4)?),
                'U' => value.push(code(&mut chars, 8)?),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
}

fn code(chars: &mut std::str::Chars<'_>, digits: usize) -> Option<char> {
    let mut value: u32 = 0;
    for _ in 0..digits {
        value = value.checked_mul(16)?.checked_add(chars.next()?.to_digit(16)?)?;
    }
    Some(char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_give_the_same_attributes() {
        let json = br#"{"time":"2026-11-23T18:46:19.180Z","level":"ERROR","msg":"error starting listener","error":"a \"b\"\n=c","consumer_id":"w","worker":"first","n":{"worker":"no"},"list":[1,{"a":2}],"worker":"scaleset-worker-a-b-7","entity":"acme/app","scale_set_id":7,"last_message_id":12,"null":null,"f":1.5}"#;
        let text = br#"time=2026-11-23T18:46:19.180Z level=ERROR msg="error starting listener" error="a \"b\"\n=c" consumer_id=w worker=first worker=scaleset-worker-a-b-7 entity=acme/app scale_set_id=7 last_message_id=12 null=<nil> f=1.5"#;
        for line in [json.as_slice(), text] {
            let head = head(line).unwrap();
            assert_eq!(head.time, "2026-11-23T18:46:19.180Z");
            assert_eq!(head.level, "ERROR");
            assert_eq!(head.message, b"error starting listener");
            let found = attributes(line).unwrap();
            assert_eq!(found.error, "a \"b\"\n=c");
            assert_eq!(found.worker, "scaleset-worker-a-b-7");
            assert_eq!(found.consumer_id, "w");
            assert_eq!(found.entity, "acme/app");
            assert_eq!((found.scale_set_id, found.last_message_id), (Some(7), Some(12)));
        }
    }

    #[test]
    fn source_location_may_stand_before_the_message() {
        let json = br#"{"time":"t","level":"DEBUG","source":{"function":"f","file":"/a/b.go","line":3},"msg":"m"}"#;
        let text = b"time=t level=DEBUG source=/a/b.go:3 msg=m worker=w";
        assert_eq!(head(json).unwrap().message, b"m");
        assert_eq!(head(text).unwrap().message, b"m");
    }

    #[test]
    fn odd_values_are_absent_or_unescaped() {
        assert_eq!(attributes(br#"{"worker":5,"scale_set_id":"x","last_message_id":-1}"#), Some(Attributes::default()));
        assert_eq!(attributes(br#"worker="\u00e9\xe9\U0001F600\q""#).unwrap().worker, "éé😀q");
        assert_eq!(attributes(br#"worker="\uD800""#).unwrap().worker, "\u{fffd}");
    }
}
