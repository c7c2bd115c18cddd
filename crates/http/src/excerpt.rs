//! Foreign text made fit for an error message: one short line without control characters, HTML tags or anything that
//! looks like a credential (some proxies echo request headers in their error pages).

pub const EXCERPT_CHARS: usize = 200;

/// Bytes of a body that are searched: enough for any title.
const SEARCHED: usize = 8 * 1024;

/// The first words of `body`; empty when there are none.
pub fn excerpt(body: &[u8]) -> String {
    let head = body.get(..SEARCHED).unwrap_or(body);
    let text = String::from_utf8_lossy(head);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    if text.starts_with('<') { one_line(&without_markup(text)) } else { one_line(text) }
}

/// `text` on one line, bounded, without control characters and credentials.
pub fn one_line(text: &str) -> String {
    let mut out = String::new();
    let mut length = 0;
    let mut after_scheme = false;
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        let shown = if after_scheme || is_credential(word) { "[redacted]" } else { word };
        after_scheme = is_scheme(word);
        let gap = if length > 0 { " " } else { "" };
        for c in gap.chars().chain(shown.chars()) {
            if length >= EXCERPT_CHARS {
                out.push('…');
                return out;
            }
            out.push(c);
            length += 1;
        }
    }
    out
}

/// Whether the next word is a credential by the rules of the `Authorization` header.
fn is_scheme(word: &str) -> bool {
    let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    ["bearer", "basic", "remoteauth"].iter().any(|scheme| word.eq_ignore_ascii_case(scheme))
}

/// GitHub's token prefixes, and anything with a JWT in it (`{"` in base64 is `eyJ`).
fn is_credential(word: &str) -> bool {
    const PREFIXES: [&str; 6] = ["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"];
    PREFIXES.iter().any(|prefix| word.contains(prefix)) || word.split("eyJ").skip(1).any(|rest| rest.contains('.'))
}

/// The text between tags; scripts and styles go with their tags. Linear in the input.
fn without_markup(html: &str) -> String {
    let mut out = String::new();
    let mut rest = html;
    while let Some((before, tag)) = rest.split_once('<') {
        out.push_str(before);
        out.push(' ');
        let hidden = ["script", "style"]
            .into_iter()
            .find(|name| tag.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)));
        let end = match hidden {
            Some(name) => tag.find(&format!("</{name}")).map_or(tag.len(), |at| at + 1),
            None => 0,
        };
        rest = tag.get(end..).and_then(|tag| tag.split_once('>')).map_or("", |(_, after)| after);
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn excerpt_of_html_has_no_markup() {
        let page =
            b"<html>\r\n<head><title>502 Bad Gateway</title><style>p{color:red}</style></head>\r\n<body>nginx</body>";
        assert_eq!(excerpt(page), "502 Bad Gateway nginx");
    }

    #[test]
    fn excerpt_replaces_line_ends_and_control_characters() {
        assert_eq!(excerpt(b"one\n\ttwo\x1b[31m three\0"), "one two [31m three");
    }

    #[test]
    fn excerpt_redacts_credentials() {
        let echoed = b"you sent Authorization: Bearer abc.def and token ghp_abcdef and eyJhbGciOi.eyJleHAi.sig";
        assert_eq!(excerpt(echoed), "you sent Authorization: Bearer [redacted] and token [redacted] and [redacted]");
    }

    #[test]
    fn excerpt_of_a_long_body_is_cut() {
        let text = excerpt(&vec![b'x'; 1 << 20]);
        assert_eq!(text.chars().count(), EXCERPT_CHARS + 1);
        assert!(text.ends_with('…'));
    }

    proptest! {
        #[test]
        fn excerpt_of_any_bytes_is_a_short_single_line(body in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let text = excerpt(&body);
            prop_assert!(text.chars().count() <= EXCERPT_CHARS + 1);
            prop_assert!(!text.chars().any(char::is_control));
        }
    }
}
