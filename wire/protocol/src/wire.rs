//! Macros that give messages and enumerations their wire form.
//!
//! serde's own derive rejects an array that is longer or shorter than the struct. The protocol
//! grows by fields at the end, so a reader ignores those it does not know and fills in those that
//! an older writer did not send.

/// A struct that travels as a MessagePack array of its fields in order. A field with `= default`
/// may be missing at the end of the array; elements after the last field are ignored.
macro_rules! wire_message {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$field_meta:meta])* pub $field:ident : $type:ty $(= $default:expr)? ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
        pub struct $name {
            $( $(#[$field_meta])* pub $field: $type, )*
        }

        impl $name {
            /// The names of its fields in the order they travel in.
            pub const FIELDS: &'static [&'static str] = &[$( stringify!($field) ),*];
            /// How many of them must be there; the others have a default.
            pub const FIELDS_REQUIRED: usize =
                0 $( + $crate::wire::is_required!($( $default )?) )*;
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                struct Fields;
                impl<'de> serde::de::Visitor<'de> for Fields {
                    type Value = $name;
                    fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        out.write_str(concat!("the array of ", stringify!($name)))
                    }
                    #[allow(unused_mut, reason = "a message without fields")]
                    fn visit_seq<A: serde::de::SeqAccess<'de>>(
                        self,
                        mut elements: A,
                    ) -> Result<$name, A::Error> {
                        $(
                            let $field: $type = match elements.next_element()? {
                                Some(value) => value,
                                None => $crate::wire::missing_field!(
                                    $name.$field, A $(, $default)?
                                ),
                            };
                        )*
                        while elements.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                        Ok($name { $( $field ),* })
                    }
                }
                input.deserialize_seq(Fields)
            }
        }
    };
}

/// What [`wire_message!`] does about a field the sender left out.
macro_rules! missing_field {
    ($name:ident . $field:ident, $access:ident, $default:expr) => {
        $default
    };
    ($name:ident . $field:ident, $access:ident) => {
        return Err(<$access::Error as serde::de::Error>::custom(concat!(
            stringify!($name),
            " lacks ",
            stringify!($field)
        )))
    };
}

/// 1 for a field without a default.
macro_rules! is_required {
    () => {
        1
    };
    ($default:expr) => {
        0
    };
}

/// An enumeration that travels as one unsigned number.
macro_rules! wire_enum {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $(#[$variant_meta:meta])* $variant:ident = $number:literal ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant = $number, )*
        }

        impl $name {
            /// The number that stands for it on the wire.
            pub const fn number(self) -> u8 {
                self as u8
            }

            /// The value a number stands for, if this version knows it.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $( $number => Some(Self::$variant), )*
                    _ => None,
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
                output.serialize_u8(self.number())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                let number = <u8 as serde::Deserialize>::deserialize(input)?;
                Self::from_number(number).ok_or_else(|| {
                    <D::Error as serde::de::Error>::custom(format_args!(
                        concat!("unknown ", stringify!($name), " {}"),
                        number
                    ))
                })
            }
        }
    };
}

pub(crate) use {is_required, missing_field, wire_enum, wire_message};
