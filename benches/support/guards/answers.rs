//! The types that the measured function returns. A guard's cost depends on them: the value goes through
//! memory, and the widths of the writes and reads decide whether the processor has to wait.

use std::error::Error;
use std::io;

use cb_runtime::BreakerError;

/// A type that the function returns.
pub trait Returned: Sized + 'static {
    /// The name of the bare function that returns it.
    const BARE: &'static str;

    fn good(id: u64) -> Self;
    fn bad() -> Self;
    /// The call was rejected by this project's breaker.
    fn is_rejected(&self) -> bool;
}

/// A typical error of a service: one of several, with its cause.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("the dependency cannot be reached")]
    Down(#[from] io::Error),
    #[error("the call was not made")]
    Open(#[from] BreakerError),
    #[error("the call was not made")]
    Rejected,
}

/// The type of most rows.
pub type Answer = Result<u64, Failure>;

impl Returned for Answer {
    const BARE: &'static str = "the bare function";

    #[inline]
    fn good(id: u64) -> Self {
        Ok(id.wrapping_mul(3))
    }

    #[inline]
    fn bad() -> Self {
        Err(io::Error::from(io::ErrorKind::ConnectionRefused).into())
    }

    fn is_rejected(&self) -> bool {
        matches!(self, Err(Failure::Open(error)) if error.is_open())
    }
}

/// An error of one byte.
#[derive(Debug)]
pub struct Code(u8);

impl From<BreakerError> for Code {
    fn from(_: BreakerError) -> Self {
        Code(1)
    }
}

pub type Coded = Result<u64, Code>;

impl Returned for Coded {
    const BARE: &'static str = "the bare function, u8 error";

    #[inline]
    fn good(id: u64) -> Self {
        Ok(id.wrapping_mul(3))
    }

    #[inline]
    fn bad() -> Self {
        Err(Code(2))
    }

    fn is_rejected(&self) -> bool {
        matches!(self, Err(Code(1)))
    }
}

pub type Boxed = Box<dyn Error + Send + Sync>;
pub type Dynamic = Result<u64, Boxed>;

fn is_ours(error: &Boxed) -> bool {
    error.downcast_ref().is_some_and(BreakerError::is_open)
}

impl Returned for Dynamic {
    const BARE: &'static str = "the bare function, Box<dyn Error>";

    #[inline]
    fn good(id: u64) -> Self {
        Ok(id.wrapping_mul(3))
    }

    #[inline]
    fn bad() -> Self {
        Err("down".into())
    }

    fn is_rejected(&self) -> bool {
        self.as_ref().is_err_and(is_ours)
    }
}

pub type Text = Result<String, Boxed>;

impl Returned for Text {
    const BARE: &'static str = "the bare function, String";

    #[inline]
    fn good(id: u64) -> Self {
        // The compiler does not know that this allocates nothing.
        Ok(if id == 0 { "zero".to_owned() } else { String::new() })
    }

    #[inline]
    fn bad() -> Self {
        Err("down".into())
    }

    fn is_rejected(&self) -> bool {
        self.as_ref().is_err_and(is_ours)
    }
}

/// An error of 48 bytes, one of several.
#[derive(Debug)]
pub enum Wide {
    Text(String, [u64; 2], u8),
    Io(io::Error),
    Open(BreakerError),
}

const _: () = assert!(size_of::<Wide>() == 48);

impl From<BreakerError> for Wide {
    fn from(error: BreakerError) -> Self {
        Wide::Open(error)
    }
}

impl Wide {
    fn is_ours(&self) -> bool {
        matches!(self, Wide::Open(error) if error.is_open())
    }
}

pub type WideError = Result<u64, Wide>;

impl Returned for WideError {
    const BARE: &'static str = "the bare function, 48-byte error";

    #[inline]
    fn good(id: u64) -> Self {
        Ok(id.wrapping_mul(3))
    }

    #[inline]
    fn bad() -> Self {
        Err(Wide::Text(String::new(), [1, 2], 3))
    }

    fn is_rejected(&self) -> bool {
        self.as_ref().is_err_and(Wide::is_ours)
    }
}

pub type WideValue = Result<[u64; 12], Wide>;

impl Returned for WideValue {
    const BARE: &'static str = "the bare function, 96-byte value";

    #[inline]
    fn good(id: u64) -> Self {
        Ok([id; 12])
    }

    #[inline]
    fn bad() -> Self {
        Err(Wide::Io(io::ErrorKind::ConnectionRefused.into()))
    }

    fn is_rejected(&self) -> bool {
        self.as_ref().is_err_and(Wide::is_ours)
    }
}
