//! Values as bytes for the digest: a serde serializer that keeps nothing.
//!
//! Not JSON, because JSON merges what must stay apart: `None`, `Some(None)`, `()` and NaN are all `null`
//! there, and a function may well answer each differently. Here two values of one type have the same bytes only if serde's
//! data model cannot tell them apart. Every value starts with a [`Tag`] that says where it ends, so
//! values can follow each other without separators.
//!
//! Frozen: a change here makes every cached result unreachable for the other half of a rolling
//! deploy. Integers are encoded by value, not by width, and enum variants by name, not by position, so
//! that a program may widen a type or move a variant.

use std::fmt;

use serde::Serialize;
use serde::ser;

use super::digest::Digest;

/// The first byte of every encoded value.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Tag {
    End = 0,
    None = 1,
    Some = 2,
    Unit = 3,
    False = 4,
    True = 5,
    /// 8 bytes.
    Unsigned = 6,
    /// 8 bytes; only for what is below zero.
    Negative = 7,
    /// 16 bytes; only for what 8 do not hold.
    Wide = 8,
    /// 16 bytes; likewise, below zero.
    WideNegative = 9,
    /// 8 bytes.
    Float = 10,
    /// 4 bytes.
    Char = 11,
    /// Length, bytes.
    Text = 12,
    /// The digest of a text that comes in pieces.
    TextDigest = 13,
    /// Length, bytes.
    Bytes = 14,
    /// Values, `End`.
    CountWindow = 15,
    /// Pairs of values, `End`.
    Map = 16,
    /// Name.
    UnitVariant = 17,
    /// Name, value.
    NewtypeVariant = 18,
    /// Name, values, `End`.
    TupleVariant = 19,
    /// Name, pairs, `End`.
    StructVariant = 20,
}

/// Why a value has no encoding: its own `Serialize` says so.
#[derive(Debug)]
pub(super) struct Unserializable(String);

impl fmt::Display for Unserializable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unserializable {}

impl ser::Error for Unserializable {
    fn custom<T: fmt::Display>(problem: T) -> Self {
        Unserializable(problem.to_string())
    }
}

/// Encodes one value after the other into a digest.
pub(super) struct Encoder<'a>(pub(super) &'a mut Digest);

type Done = Result<(), Unserializable>;

impl Encoder<'_> {
    fn tag(&mut self, tag: Tag) {
        self.0.update(&[tag as u8]);
    }

    /// One update instead of two: the digest pays per piece.
    fn word(&mut self, tag: Tag, value: u64) {
        let mut piece = [tag as u8; 9];
        piece[1..].copy_from_slice(&value.to_le_bytes());
        self.0.update(&piece);
    }

    fn wide(&mut self, tag: Tag, value: u128) {
        self.tag(tag);
        self.0.update(&value.to_le_bytes());
    }

    /// Tag, length, bytes. A length is one byte, or 255 and eight: the digest works in blocks of 64 bytes, and
    /// most calls' function and arguments shall fit into one.
    fn bytes(&mut self, tag: Tag, bytes: &[u8]) {
        match u8::try_from(bytes.len()) {
            Ok(len) if len < u8::MAX => self.0.update(&[tag as u8, len]),
            _ => {
                self.0.update(&[tag as u8, u8::MAX]);
                self.0.update(&(bytes.len() as u64).to_le_bytes());
            }
        }
        self.0.update(bytes);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.bytes(Tag::Text, text.as_bytes());
    }

    fn again(&mut self) -> Encoder<'_> {
        Encoder(self.0)
    }

    fn unsigned(&mut self, value: u128) {
        match u64::try_from(value) {
            Ok(value) => self.word(Tag::Unsigned, value),
            Err(_) => self.wide(Tag::Wide, value),
        }
    }

    fn signed(&mut self, value: i128) {
        match u128::try_from(value) {
            Ok(value) => self.unsigned(value),
            Err(_) => match i64::try_from(value) {
                Ok(value) => self.word(Tag::Negative, value.cast_unsigned()),
                Err(_) => self.wide(Tag::WideNegative, value.cast_unsigned()),
            },
        }
    }
}

macro_rules! by_value {
    ($($method:ident($type:ty) => $way:ident),* $(,)?) => {
        $(fn $method(mut self, value: $type) -> Done {
            self.$way(value.into());
            Ok(())
        })*
    };
}

impl<'a> ser::Serializer for Encoder<'a> {
    type Ok = ();
    type Error = Unserializable;
    type SerializeSeq = Compound<'a>;
    type SerializeTuple = Compound<'a>;
    type SerializeTupleStruct = Compound<'a>;
    type SerializeTupleVariant = Compound<'a>;
    type SerializeMap = Compound<'a>;
    type SerializeStruct = Compound<'a>;
    type SerializeStructVariant = Compound<'a>;

    by_value! {
        serialize_i8(i8) => signed, serialize_i16(i16) => signed, serialize_i32(i32) => signed,
        serialize_i64(i64) => signed, serialize_i128(i128) => signed,
        serialize_u8(u8) => unsigned, serialize_u16(u16) => unsigned, serialize_u32(u32) => unsigned,
        serialize_u64(u64) => unsigned, serialize_u128(u128) => unsigned,
    }

    fn serialize_bool(mut self, value: bool) -> Done {
        self.tag(if value { Tag::True } else { Tag::False });
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Done {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(mut self, value: f64) -> Done {
        self.word(Tag::Float, value.to_bits());
        Ok(())
    }

    fn serialize_char(mut self, value: char) -> Done {
        self.tag(Tag::Char);
        self.0.update(&u32::from(value).to_le_bytes());
        Ok(())
    }

    fn serialize_str(mut self, value: &str) -> Done {
        self.text(value);
        Ok(())
    }

    fn serialize_bytes(mut self, value: &[u8]) -> Done {
        self.bytes(Tag::Bytes, value);
        Ok(())
    }

    fn serialize_none(mut self) -> Done {
        self.tag(Tag::None);
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(mut self, value: &T) -> Done {
        self.tag(Tag::Some);
        value.serialize(self)
    }

    fn serialize_unit(mut self) -> Done {
        self.tag(Tag::Unit);
        Ok(())
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Done {
        self.serialize_unit()
    }

    fn serialize_unit_variant(mut self, _name: &'static str, _index: u32, variant: &'static str) -> Done {
        self.tag(Tag::UnitVariant);
        self.text(variant);
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _name: &'static str, value: &T) -> Done {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        mut self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Done {
        self.tag(Tag::NewtypeVariant);
        self.text(variant);
        value.serialize(self)
    }

    fn serialize_seq(mut self, _len: Option<usize>) -> Result<Compound<'a>, Unserializable> {
        self.tag(Tag::CountWindow);
        Ok(Compound(self))
    }

    fn serialize_tuple(self, len: usize) -> Result<Compound<'a>, Unserializable> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_struct(self, _name: &'static str, len: usize) -> Result<Compound<'a>, Unserializable> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_variant(
        mut self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Compound<'a>, Unserializable> {
        self.tag(Tag::TupleVariant);
        self.text(variant);
        Ok(Compound(self))
    }

    /// In the order in which the map iterates. Sorting would serve `HashMap`, but hand the result for one
    /// ordered map to another of other order, and a miss is better than a wrong answer.
    fn serialize_map(mut self, _len: Option<usize>) -> Result<Compound<'a>, Unserializable> {
        self.tag(Tag::Map);
        Ok(Compound(self))
    }

    fn serialize_struct(self, _name: &'static str, len: usize) -> Result<Compound<'a>, Unserializable> {
        self.serialize_map(Some(len))
    }

    fn serialize_struct_variant(
        mut self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Compound<'a>, Unserializable> {
        self.tag(Tag::StructVariant);
        self.text(variant);
        Ok(Compound(self))
    }

    /// The text comes in pieces of unknown number, and the pieces are not part of the value: so it gets
    /// a digest of its own.
    fn collect_str<T: fmt::Display + ?Sized>(mut self, value: &T) -> Done {
        struct Pieces(Digest);
        impl fmt::Write for Pieces {
            fn write_str(&mut self, piece: &str) -> fmt::Result {
                self.0.update(piece.as_bytes());
                Ok(())
            }
        }
        let mut pieces = Pieces(Digest::new());
        fmt::Write::write_fmt(&mut pieces, format_args!("{value}"))
            .map_err(|_| ser::Error::custom("its Display implementation returned an error"))?;
        self.tag(Tag::TextDigest);
        self.0.update(&pieces.0.finish());
        Ok(())
    }
}

/// A value that is made of values, until its end.
pub(super) struct Compound<'a>(Encoder<'a>);

impl Compound<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        value.serialize(self.0.again())
    }

    fn field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Done {
        self.0.text(key);
        self.item(value)
    }

    fn close(mut self) {
        self.0.tag(Tag::End);
    }
}

macro_rules! compound {
    ($($name:ident: $method:ident($($key:ident: $key_type:ty)?) => $way:ident),* $(,)?) => {
        $(impl ser::$name for Compound<'_> {
            type Ok = ();
            type Error = Unserializable;

            fn $method<T: Serialize + ?Sized>(&mut self, $($key: $key_type,)? value: &T) -> Done {
                self.$way($($key,)? value)
            }

            fn end(self) -> Done {
                self.close();
                Ok(())
            }
        })*
    };
}

compound! {
    SerializeSeq: serialize_element() => item,
    SerializeTuple: serialize_element() => item,
    SerializeTupleStruct: serialize_field() => item,
    SerializeTupleVariant: serialize_field() => item,
    SerializeStruct: serialize_field(key: &'static str) => field,
    SerializeStructVariant: serialize_field(key: &'static str) => field,
}

impl ser::SerializeMap for Compound<'_> {
    type Ok = ();
    type Error = Unserializable;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Done {
        self.item(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        self.item(value)
    }

    fn end(self) -> Done {
        self.close();
        Ok(())
    }
}
