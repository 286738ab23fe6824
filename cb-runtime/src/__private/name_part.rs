//! The arguments in a keyed breaker's name. A look-up compares them with those of earlier calls, so it need
//! not write the name.

use std::borrow::Cow;
use std::sync::Arc;

/// A part of a name.
#[derive(Clone, Copy, Debug)]
pub enum NamePart<'a> {
    /// The bits of a number, a `char` or a `bool`.
    Number(u64),
    /// A text.
    Text(&'a str),
    /// A value of another type, or with a format: it can be compared only as text.
    Other,
}

/// An argument in a name. The compiler chooses its [`NamePart`] by its type.
pub struct PartOf<'a, T: ?Sized>(pub &'a T);

/// A type whose values can be compared without their text.
pub trait KnownPart {
    #[doc(hidden)]
    fn part(&self) -> NamePart<'_>;
}

impl<T: KnownPart + ?Sized> KnownPart for &T {
    #[inline]
    fn part(&self) -> NamePart<'_> {
        (**self).part()
    }
}

/// Chooses `KnownPart`. A call on `&PartOf(…)` finds this method first.
pub trait IsKnownPart<'a> {
    #[doc(hidden)]
    fn circuit_breaker_name_part(&self) -> NamePart<'a>;
}

impl<'a, T: KnownPart + ?Sized> IsKnownPart<'a> for PartOf<'a, T> {
    #[inline]
    fn circuit_breaker_name_part(&self) -> NamePart<'a> {
        self.0.part()
    }
}

/// Chooses [`NamePart::Other`], for all other types and for type parameters.
pub trait IsOtherPart<'a> {
    #[doc(hidden)]
    #[inline]
    fn circuit_breaker_name_part(&self) -> NamePart<'a> {
        NamePart::Other
    }
}

impl<'a, T: ?Sized> IsOtherPart<'a> for &PartOf<'a, T> {}

macro_rules! numbers {
    ($($type:ty: |$value:ident| $bits:expr;)*) => {$(
        impl KnownPart for $type {
            #[inline]
            fn part(&self) -> NamePart<'_> {
                let $value = *self;
                NamePart::Number($bits)
            }
        }
    )*};
}

// Arguments at one place of one name have one type, so their bits distinguish their values.
numbers! {
    u8: |value| value.into();
    u16: |value| value.into();
    u32: |value| value.into();
    u64: |value| value;
    usize: |value| value as u64;
    i8: |value| i64::from(value).cast_unsigned();
    i16: |value| i64::from(value).cast_unsigned();
    i32: |value| i64::from(value).cast_unsigned();
    i64: |value| value.cast_unsigned();
    isize: |value| value.cast_unsigned() as u64;
    bool: |value| value.into();
    char: |value| u32::from(value).into();
}

macro_rules! texts {
    ($($type:ty)*) => {$(
        impl KnownPart for $type {
            #[inline]
            fn part(&self) -> NamePart<'_> {
                NamePart::Text(self)
            }
        }
    )*};
}

texts! { str String Box<str> Arc<str> Cow<'_, str> }

/// A part of a name in a thread's table.
pub(super) enum KeptPart {
    Number(u64),
    Text(Box<str>),
}

impl KeptPart {
    /// `None`: the part can be compared only as text.
    pub(super) fn of(part: NamePart<'_>) -> Option<Self> {
        match part {
            NamePart::Number(number) => Some(KeptPart::Number(number)),
            NamePart::Text(text) => Some(KeptPart::Text(text.into())),
            NamePart::Other => None,
        }
    }

    pub(super) fn as_part(&self) -> NamePart<'_> {
        match self {
            KeptPart::Number(number) => NamePart::Number(*number),
            KeptPart::Text(text) => NamePart::Text(text),
        }
    }

    #[inline]
    pub(super) fn is(&self, part: NamePart<'_>) -> bool {
        match (self, part) {
            (KeptPart::Number(kept), NamePart::Number(number)) => *kept == number,
            (KeptPart::Text(kept), NamePart::Text(text)) => **kept == *text,
            _ => false,
        }
    }
}

#[cfg(test)]
#[allow(clippy::needless_borrow, reason = "the expansion borrows, too: that is what chooses the trait")]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn part_is_chosen_by_the_type() {
        fn generic<T: ?Sized>(value: &T) -> NamePart<'_> {
            (&PartOf(value)).circuit_breaker_name_part()
        }
        let (number, text, owned) = (&7_u16, "seven", String::from("seven"));
        assert!(matches!((&PartOf(number)).circuit_breaker_name_part(), NamePart::Number(7)));
        assert!(matches!((&PartOf(&number)).circuit_breaker_name_part(), NamePart::Number(7)));
        assert!(matches!((&PartOf(&-1_i8)).circuit_breaker_name_part(), NamePart::Number(u64::MAX)));
        assert!(matches!((&PartOf(&'a')).circuit_breaker_name_part(), NamePart::Number(97)));
        assert!(matches!((&PartOf(text)).circuit_breaker_name_part(), NamePart::Text("seven")));
        assert!(matches!((&PartOf(&text)).circuit_breaker_name_part(), NamePart::Text("seven")));
        assert!(matches!((&PartOf(&owned)).circuit_breaker_name_part(), NamePart::Text("seven")));
        assert!(matches!((&PartOf(&&owned)).circuit_breaker_name_part(), NamePart::Text("seven")));
        assert!(matches!((&PartOf(&1.5_f64)).circuit_breaker_name_part(), NamePart::Other));
        let address = IpAddr::from([127, 0, 0, 1]);
        assert!(matches!((&PartOf(&address)).circuit_breaker_name_part(), NamePart::Other));
        assert!(matches!(generic(&7_u64), NamePart::Other), "a type parameter may be any type");
    }
}
