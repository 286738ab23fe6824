//! One health check: its ticket, and the effect of its result.

use crate::clock::Moment;

/// The scope of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckAuthority {
    /// Only this instance.
    Own,
    /// The fleet, by the leader with this token.
    Fleet(u64),
}

impl CheckAuthority {
    pub(super) fn token(self) -> Option<u64> {
        match self {
            CheckAuthority::Own => None,
            CheckAuthority::Fleet(token) => Some(token),
        }
    }
}

/// A check in progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckTicket {
    pub(super) number: u64,
    pub(super) authority: CheckAuthority,
    pub(super) begun_at: Moment,
    /// Whether too many earlier checks are unfinished; this one then fails without being run.
    pub(crate) blocked: bool,
}

#[cfg(test)]
impl CheckTicket {
    pub(crate) fn token(&self) -> Option<u64> {
        self.authority.token()
    }
}

/// The effect of a check's result.
#[derive(Debug, PartialEq)]
pub(crate) enum CheckVerdict {
    /// None: it is late, or comes from an instance that is no longer the leader.
    Late,
    /// The state stays.
    Stay,
    Close {
        reason: String,
        token: Option<u64>,
    },
    Open {
        reason: String,
        token: Option<u64>,
        /// Whether the fleet opens only if another instance has seen failures, too.
        unconfirmed: bool,
    },
}
