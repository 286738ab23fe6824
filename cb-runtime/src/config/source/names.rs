//! Suggestions for unknown names.

/// The known name that `text` is probably a misspelling of.
pub(super) fn nearest<'a>(text: &str, known: &[&'a str]) -> Option<&'a str> {
    let text = text.to_lowercase().replace('-', "_");
    let near = known.iter().map(|known| (strsim::osa_distance(&text, known), *known));
    near.filter(|(distance, known)| *distance <= 1.max(known.len() / 4)).min().map(|(_, known)| known)
}

/// A hint for an unknown name.
pub(super) fn advice(text: &str, known: &[&str]) -> String {
    match nearest(text, known) {
        Some(known) => format!("did you mean `{known}`?"),
        None => format!("there are {}", known.join(", ")),
    }
}
