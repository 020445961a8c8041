//! What can be wrong with bytes from outside.

use dagwright_model::code::Code;

/// Says why a message could not be read. Names fields, never their content: that is untrusted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are no protobuf message of the wanted type.
    #[error("not a protobuf message of type {message}")]
    Malformed {
        /// The wanted type.
        message: &'static str,
        /// What the decoder says.
        source: prost::DecodeError,
    },
    /// A field that must be there is not.
    #[error("field {field} is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// An enum field holds a value that this version does not know.
    #[error("field {field} holds the unknown value {value}")]
    UnknownValue {
        /// The field.
        field: &'static str,
        /// The number it holds.
        value: i32,
    },
    /// A field holds something that is not allowed there.
    #[error("field {field} is not {wanted}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// A field that holds JSON does not hold the JSON of the wanted type; where in it is said, but not what is there.
    #[error("field {field} does not hold the JSON wanted there (line {line}, column {column})")]
    Json {
        /// The field.
        field: &'static str,
        /// The line in the JSON, from 1.
        line: usize,
        /// The column in that line.
        column: usize,
    },
    /// The message is longer than accepted.
    #[error("the message has {bytes} bytes; at most {bytes_max} are accepted")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
}

// === impl Error ===

impl Error {
    /// Returns the stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        Code::MessageInvalid
    }
}
