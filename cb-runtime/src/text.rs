//! Texts that come from outside, made fit for a log line or a bounded field.

use std::borrow::Cow;
use std::fmt::Write;

/// At most `bytes` bytes of `text`, cut between two characters.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// `text` with its control characters escaped: in a log, a reason with a line feed in it must not look like
/// two lines.
pub(crate) fn single_line(text: &str) -> Cow<'_, str> {
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    if !text.contains(breaks) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if breaks(c) {
            // Writing to a String cannot fail.
            let _ = write!(line, "{}", c.escape_default());
        } else {
            line.push(c);
        }
    }
    Cow::Owned(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_two_characters() {
        assert_eq!(cut("größe", 100), "größe");
        assert_eq!(cut("größe", 3), "gr", "ö takes the third and the fourth byte");
        assert_eq!(cut("größe", 4), "grö");
    }

    #[test]
    fn control_characters_are_escaped_and_letters_are_not() {
        assert_eq!(single_line("größe \"5\""), "größe \"5\"");
        assert_eq!(single_line("a\nERROR b\r\u{1b}[0m\u{2028}"), "a\\nERROR b\\r\\u{1b}[0m\\u{2028}");
    }
}
