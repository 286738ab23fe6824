//! A serde serializer whose bytes distinguish every value of a type.
//!
//! No common format serves. JSON, MessagePack and CBOR write `None` and `Some(None)` alike. Postcard and
//! bincode write neither types nor field names: two values of a struct that omits one of two fields, or of
//! an untagged enum, can have the same bytes, and so can two variants after one was moved. A call would
//! then get another call's result. Here, two values of one type have the same bytes only if serde's data
//! model does not distinguish them. Every value starts with a [`Tag`] that determines its end, so values
//! need no separators.
//!
//! Frozen: a change here makes every cached result unreachable for the other half of a rolling deploy.
//! Integers are encoded by value, not by width, and enum variants by name, not by position, so that a program
//! may widen a type or move a variant.

use std::fmt;

use serde::Serialize;
use serde::ser;

/// Takes the bytes of encoded values.
pub(super) trait Sink {
    /// Takes the next bytes. The division of a value's bytes into pieces depends only on the value.
    fn put(&mut self, piece: &[u8]);
}

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
    /// 8 bytes; only for negative numbers.
    Negative = 7,
    /// 16 bytes; only for numbers that do not fit into 8.
    Wide = 8,
    /// 16 bytes; only for negative numbers that do not fit into 8.
    WideNegative = 9,
    /// 8 bytes.
    Float = 10,
    /// 4 bytes.
    Char = 11,
    /// Length, bytes.
    Text = 12,
    /// A text of unknown length, `0xff` (which no text contains).
    Display = 13,
    /// Length, bytes.
    Bytes = 14,
    /// Values, `End`.
    Sequence = 15,
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

/// Whether the piece is `Some`; what it contains follows.
pub(super) fn is_some(piece: &[u8]) -> bool {
    piece == [Tag::Some as u8]
}

/// Whether the piece is what JSON writes as `null`.
pub(super) fn is_null(piece: &[u8]) -> bool {
    piece == [Tag::None as u8] || piece == [Tag::Unit as u8]
}

/// Whether the piece is a float that JSON does not know.
pub(super) fn is_not_finite(piece: &[u8]) -> bool {
    match piece {
        [tag, bits @ ..] if *tag == Tag::Float as u8 => {
            bits.try_into().is_ok_and(|bits| !f64::from_bits(u64::from_le_bytes(bits)).is_finite())
        }
        _ => false,
    }
}

/// Why a value has no encoding: the error of its own `Serialize`.
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

/// Encodes one value after the other.
pub(super) struct Encoder<'a, S>(pub(super) &'a mut S);

type Done = Result<(), Unserializable>;

impl<S: Sink> Encoder<'_, S> {
    fn tag(&mut self, tag: Tag) {
        self.0.put(&[tag as u8]);
    }

    /// One piece instead of two.
    fn word(&mut self, tag: Tag, value: u64) {
        let mut piece = [tag as u8; 9];
        piece[1..].copy_from_slice(&value.to_le_bytes());
        self.0.put(&piece);
    }

    fn wide(&mut self, tag: Tag, value: u128) {
        self.tag(tag);
        self.0.put(&value.to_le_bytes());
    }

    /// Tag, length, bytes. A length is one byte, or 255 and eight: the digest works in blocks of 64 bytes,
    /// and the arguments of most calls fit into one.
    fn bytes(&mut self, tag: Tag, bytes: &[u8]) {
        match u8::try_from(bytes.len()) {
            Ok(len) if len < u8::MAX => self.0.put(&[tag as u8, len]),
            _ => {
                self.0.put(&[tag as u8, u8::MAX]);
                self.0.put(&(bytes.len() as u64).to_le_bytes());
            }
        }
        self.0.put(bytes);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.bytes(Tag::Text, text.as_bytes());
    }

    fn again(&mut self) -> Encoder<'_, S> {
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

impl<'a, S: Sink> ser::Serializer for Encoder<'a, S> {
    type Ok = ();
    type Error = Unserializable;
    type SerializeSeq = Compound<'a, S>;
    type SerializeTuple = Compound<'a, S>;
    type SerializeTupleStruct = Compound<'a, S>;
    type SerializeTupleVariant = Compound<'a, S>;
    type SerializeMap = Compound<'a, S>;
    type SerializeStruct = Compound<'a, S>;
    type SerializeStructVariant = Compound<'a, S>;

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
        self.0.put(&u32::from(value).to_le_bytes());
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

    fn serialize_seq(mut self, _len: Option<usize>) -> Result<Compound<'a, S>, Unserializable> {
        self.tag(Tag::Sequence);
        Ok(Compound(self))
    }

    fn serialize_tuple(self, len: usize) -> Result<Compound<'a, S>, Unserializable> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_struct(
        self,
        _name: &'static str,
        len: usize,
    ) -> Result<Compound<'a, S>, Unserializable> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_variant(
        mut self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Compound<'a, S>, Unserializable> {
        self.tag(Tag::TupleVariant);
        self.text(variant);
        Ok(Compound(self))
    }

    /// Keeps the map's order of iteration. Sorting would serve `HashMap`, but hand the result for one
    /// ordered map to another of other order, and a miss is better than a wrong answer.
    fn serialize_map(mut self, _len: Option<usize>) -> Result<Compound<'a, S>, Unserializable> {
        self.tag(Tag::Map);
        Ok(Compound(self))
    }

    fn serialize_struct(self, _name: &'static str, len: usize) -> Result<Compound<'a, S>, Unserializable> {
        self.serialize_map(Some(len))
    }

    fn serialize_struct_variant(
        mut self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Compound<'a, S>, Unserializable> {
        self.tag(Tag::StructVariant);
        self.text(variant);
        Ok(Compound(self))
    }

    /// The pieces that `Display` writes are not part of the value, so they are not encoded.
    fn collect_str<T: fmt::Display + ?Sized>(mut self, value: &T) -> Done {
        struct Chunks<'a, S>(&'a mut S);
        impl<S: Sink> fmt::Write for Chunks<'_, S> {
            fn write_str(&mut self, piece: &str) -> fmt::Result {
                self.0.put(piece.as_bytes());
                Ok(())
            }
        }
        self.tag(Tag::Display);
        fmt::Write::write_fmt(&mut Chunks(&mut *self.0), format_args!("{value}"))
            .map_err(|_| ser::Error::custom("its Display implementation returned an error"))?;
        self.0.put(&[u8::MAX]);
        Ok(())
    }
}

/// A value that consists of values, until its end tag.
pub(super) struct Compound<'a, S>(Encoder<'a, S>);

impl<S: Sink> Compound<'_, S> {
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
        $(impl<S: Sink> ser::$name for Compound<'_, S> {
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

impl<S: Sink> ser::SerializeMap for Compound<'_, S> {
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
