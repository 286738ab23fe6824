//! Operators' actions, checked before they reach the store.

use std::time::Duration;

use cb_runtime::State;

/// The store cuts a longer reason or actor.
const MAX_TEXT: usize = 200;
/// The longest time of an override with an expiry.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// A change that an operator can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Open,
    Disable,
    MetricsOnly,
    Release,
    Reset,
}

impl Action {
    pub(crate) const ALL: [Action; 5] =
        [Action::Open, Action::Disable, Action::MetricsOnly, Action::Release, Action::Reset];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Action::Open => "open",
            Action::Disable => "disable",
            Action::MetricsOnly => "metrics-only",
            Action::Release => "release",
            Action::Reset => "reset",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Action> {
        Action::ALL.into_iter().find(|action| action.as_str() == text)
    }

    /// The state that it results in.
    pub(crate) fn leads_to(self) -> State {
        match self {
            Action::Open => State::ForcedOpen,
            Action::Disable => State::Disabled,
            Action::MetricsOnly => State::MetricsOnly,
            Action::Release | Action::Reset => State::Closed,
        }
    }

    /// Only a manual override has an expiry.
    pub(crate) fn takes_an_expiry(self) -> bool {
        self.leads_to().is_manual()
    }
}

/// An action with its reason, actor and expiry.
#[derive(Clone, Debug)]
pub(crate) struct ActionRequest {
    pub(crate) action: Action,
    pub(crate) reason: String,
    pub(crate) actor: String,
    pub(crate) expires_in: Option<Duration>,
}

/// Why an action was not carried out.
#[derive(Clone, Debug)]
pub(crate) enum Refusal {
    /// The request is invalid.
    Invalid(String),
    /// The store does not answer; nothing was changed.
    StoreAway(String),
    /// The store has not confirmed the action, which may have been carried out.
    InDoubt(String),
}

impl Refusal {
    pub(crate) fn message(&self) -> &str {
        let (Refusal::Invalid(message) | Refusal::StoreAway(message) | Refusal::InDoubt(message)) = self;
        message
    }
}

impl ActionRequest {
    /// Creates a request. Everything that needs no store is checked here.
    ///
    /// # Errors
    /// If a part is invalid. The message names it, and a valid value.
    pub(crate) fn new(
        action: Action,
        reason: &str,
        actor: &str,
        expires_in: Option<&str>,
    ) -> Result<ActionRequest, Refusal> {
        let reason = text("reason", reason)?;
        let actor = text("actor", actor)?;
        if reason.is_empty() {
            return Err(Refusal::Invalid("\"reason\" is missing; a few words tell others why".into()));
        }
        let expires_in = expires_in.map(span).transpose()?;
        if expires_in.is_some() && !action.takes_an_expiry() {
            return Err(Refusal::Invalid(format!(
                "\"for\" is invalid with {}: only open, disable and metrics-only have an expiry",
                action.as_str()
            )));
        }
        Ok(ActionRequest { action, reason, actor, expires_in })
    }
}

fn text(field: &str, text: &str) -> Result<String, Refusal> {
    let text = text.trim();
    if text.len() > MAX_TEXT {
        let error = format!("\"{field}\" has {} bytes; at most {MAX_TEXT} are kept", text.len());
        return Err(Refusal::Invalid(error));
    }
    if text.chars().any(char::is_control) {
        return Err(Refusal::Invalid(format!("\"{field}\" has control characters; write it in one line")));
    }
    Ok(text.into())
}

fn span(text: &str) -> Result<Duration, Refusal> {
    match humantime::parse_duration(text.trim()) {
        Ok(span) if span > LONGEST => Err(Refusal::Invalid(
            "\"for\" must be at most 10 years; without it, an override stays until it is released".into(),
        )),
        Ok(span) if span >= Duration::from_secs(1) => Ok(span),
        Ok(_) => Err(Refusal::Invalid("\"for\" must be at least 1s, as in \"30m\" or \"2h\"".into())),
        Err(error) => {
            Err(Refusal::Invalid(format!("\"for\" must be a span such as \"30m\" or \"2h\": {error}")))
        }
    }
}
