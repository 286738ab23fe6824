//! A breaker's name as the errors of rejected calls carry it.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use arcstr::ArcStr;

/// One word. Cloning the name of a function's attribute writes to no memory: where an open circuit rejects
/// calls on many threads, a shared reference count would be most of the cost of a rejection.
pub(crate) type BreakerName = ArcStr;

/// The names in attributes. They are never dropped, and there are no more of them than the program has
/// literals.
static LITERALS: RwLock<Option<HashMap<&'static str, BreakerName>>> = RwLock::new(None);

/// From now on, [`of`] this name returns a name without a reference count.
pub(crate) fn keep(literal: &'static str) {
    let mut literals = LITERALS.write().unwrap_or_else(PoisonError::into_inner);
    literals.get_or_insert_default().entry(literal).or_insert_with(|| {
        let name = BreakerName::from(literal);
        name.leak();
        name
    });
}

pub(crate) fn of(name: &str) -> BreakerName {
    let literals = LITERALS.read().unwrap_or_else(PoisonError::into_inner);
    literals.as_ref().and_then(|literals| literals.get(name)).cloned().unwrap_or_else(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_names_have_no_reference_count() {
        keep("literal");
        let (one, other) = (of("literal"), of("literal"));
        assert!(BreakerName::ptr_eq(&one, &other));
        assert_eq!(BreakerName::strong_count(&one), None);
        assert_eq!(BreakerName::strong_count(&of("made of arguments")), Some(1));
    }
}
