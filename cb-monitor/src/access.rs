//! Authentication and rate limits.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, StatusCode, header};

use crate::problem::Problem;
use crate::sync::lock;

/// Shorter tokens can be guessed.
pub(crate) const MIN_TOKEN: usize = 16;

/// Tokens, of which only digests are kept. Digests are compared in constant time.
#[derive(Default)]
pub(crate) struct Access {
    act: Option<blake3::Hash>,
    read: Option<blake3::Hash>,
    pub(crate) limits: RateLimits,
}

/// Rate limits across all clients: behind a proxy, addresses do not identify them.
pub(crate) struct RateLimits {
    wrong_tokens: Bucket,
    actions: Bucket,
    reads: Bucket,
}

impl Default for RateLimits {
    fn default() -> Self {
        RateLimits {
            wrong_tokens: Bucket::new(10.0, 1.0),
            actions: Bucket::new(20.0, 2.0),
            reads: Bucket::new(400.0, 200.0),
        }
    }
}

impl Access {
    pub(crate) fn set_act(&mut self, token: Option<&str>) {
        self.act = token.map(digest);
    }

    pub(crate) fn set_read(&mut self, token: &str) {
        self.read = Some(digest(token));
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.act.is_none()
    }

    /// Whether the request may read.
    pub(crate) fn may_read(&self, headers: &HeaderMap) -> Result<(), Problem> {
        if self.read.is_some() {
            self.check(headers, &[self.read, self.act])?;
        }
        // After the check: clients without the token must not use up what readers may take.
        self.limits.reads.take("requests")
    }

    /// Whether the request may act.
    pub(crate) fn may_act(&self, headers: &HeaderMap) -> Result<(), Problem> {
        same_origin(headers)?;
        if self.is_read_only() {
            return Err(Problem::forbidden(
                "this monitor is read-only; start it with a token (Monitor::token, or cbctl serve --token-file)",
            ));
        }
        self.check(headers, &[self.act])?;
        self.limits.actions.take("actions")
    }

    fn check(&self, headers: &HeaderMap, accepted: &[Option<blake3::Hash>]) -> Result<(), Problem> {
        let unauthorized = |error: &str| Problem::new(StatusCode::UNAUTHORIZED, error);
        let Some(given) = headers.get(header::AUTHORIZATION) else {
            return Err(unauthorized("a token is needed: send the header \"Authorization: Bearer <token>\""));
        };
        let Some(token) = given.to_str().ok().and_then(bearer) else {
            return Err(unauthorized("the header Authorization must be \"Bearer <token>\""));
        };
        let token = blake3::hash(token.as_bytes());
        // Both are compared, so that the duration does not reveal which one matched.
        let matches: u8 = accepted.iter().flatten().map(|hash| u8::from(*hash == token)).sum();
        if matches > 0 {
            return Ok(());
        }
        // Limits log noise. The token's length prevents guessing: rejecting the right token, too, would let
        // an attacker lock the operators out.
        self.limits.wrong_tokens.take("attempts with a wrong token")?;
        if self.act == Some(token) || self.read == Some(token) {
            return Err(Problem::forbidden("this token may read, but not act; use the one that may"));
        }
        Err(unauthorized("the token is wrong; ask the operators of this service for the current one"))
    }
}

/// Warns of a token that can be guessed, and accepts it: a panic would stop the whole service because of a
/// secret in its environment. White space at its ends is left out, as in the header: a file ends with a line
/// feed.
fn digest(token: &str) -> blake3::Hash {
    let token = token.trim();
    if token.is_empty() {
        tracing::error!(
            "a monitor's token is empty, so no request is accepted with it; `openssl rand -hex 16` makes one"
        );
    } else if token.len() < MIN_TOKEN {
        tracing::warn!(
            "a monitor's token has fewer than {MIN_TOKEN} characters and could be guessed; `openssl rand -hex 16` makes one"
        );
    }
    blake3::hash(token.as_bytes())
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Rejects actions from pages of other origins. A second protection against forged requests: browsers do not
/// add the token by themselves, as they would a cookie.
fn same_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let foreign = || {
        Problem::forbidden(
            "the request comes from a page of another origin; act from the monitor's own page or from cbctl",
        )
    };
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if !matches!(text("sec-fetch-site"), None | Some("same-origin" | "none")) {
        return Err(foreign());
    }
    let Some(origin) = text("origin") else { return Ok(()) };
    let host = origin.split_once("://").map(|(_, host)| host);
    let ours = text("x-forwarded-host").or(text("host"));
    if host.is_some() && host == ours { Ok(()) } else { Err(foreign()) }
}

/// A token bucket: `size` requests at once, and `per_second` in the long run.
struct Bucket {
    size: f64,
    per_second: f64,
    level: Mutex<(f64, Instant)>,
}

impl Bucket {
    fn new(size: f64, per_second: f64) -> Bucket {
        Bucket { size, per_second, level: Mutex::new((size, Instant::now())) }
    }

    fn take(&self, what: &str) -> Result<(), Problem> {
        let mut level = lock(&self.level);
        let now = Instant::now();
        let refilled = level.0 + now.duration_since(level.1).as_secs_f64() * self.per_second;
        *level = (refilled.min(self.size), now);
        if level.0 >= 1.0 {
            level.0 -= 1.0;
            return Ok(());
        }
        let wait = Duration::from_secs_f64((1.0 - level.0) / self.per_second);
        let error = format!("too many {what}: at most {} a second; try again later", self.per_second);
        Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, error).retry_after(wait.as_secs() + 1))
    }
}
