//! All texts for people, made from typed facts.

pub mod exit;
pub mod guards;
pub mod incident;
pub mod request;
pub mod rules;
pub mod sources;
#[cfg(test)]
pub(crate) mod testing;
pub mod words;

/// Lines of at most `room` characters, broken between words; a longer word stays whole.
pub fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        let longer = line.chars().count() + 1 + word.chars().count();
        if !line.is_empty() && longer > room {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_text_keeps_words_whole() {
        assert_eq!(wrapped("toggle blocked by canary (0 of 1)", 12), ["toggle", "blocked by", "canary (0 of", "1)"]);
        assert_eq!(wrapped("unbreakable", 4), ["unbreakable"]);
        assert_eq!(wrapped("", 4), [""]);
    }
}
