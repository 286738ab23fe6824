//! A breaker around a [`tower`](https://docs.rs/tower) service (feature `tower`).
//!
//! ```
//! use cb_runtime::tower::{CircuitBreakerLayer, Verdict};
//! use cb_runtime::{BreakerConfig, CallError, Registry, State};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), cb_runtime::Error> {
//! let registry = Registry::builder().build()?;
//! let breaker = registry.get_or_create("users", BreakerConfig::default().failure_threshold(1));
//! let guard = CircuitBreakerLayer::new(breaker.clone())
//!     .classify(|result: &Result<u16, std::io::Error>| match result {
//!         Ok(status) if *status < 500 => Verdict::Success,
//!         _ => Verdict::Failure,
//!     })
//!     .fallback(async |reason: CallError<std::io::Error>| if reason.is_rejected() { 503 } else { 502 });
//! let mut users = ServiceBuilder::new().layer(guard).service(service_fn(async |status: u16| Ok(status)));
//!
//! assert_eq!(users.ready().await.unwrap().call(404).await.unwrap(), 404);
//! assert_eq!(users.ready().await.unwrap().call(500).await.unwrap(), 502);
//! assert_eq!(breaker.state(), State::Open);
//! assert_eq!(users.ready().await.unwrap().call(200).await.unwrap(), 503);
//! # Ok(())
//! # }
//! ```

use std::future::{Future, ready};
use std::mem::{self, ManuallyDrop};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_layer::Layer;
use tower_service::Service;

use crate::breaker::Breaker;
pub use crate::call::verdict::Verdict;
use crate::call::{CallError, Judge, admitted, end, run};

/// The future of a guarded call.
pub type CallFuture<T, E> = Pin<Box<dyn Future<Output = Result<T, CallError<E>>> + Send>>;

/// Puts a breaker around a service. All services that it is applied to share the breaker, as do all requests.
///
/// `Ok` counts as a success and `Err` as a failure, unless [`classify`](Self::classify) says otherwise. An
/// error of the service's `poll_ready` is passed on and not counted, as there is no call. A
/// service whose circuit is open is not called; its readiness is asked for all the same. A request that is
/// dropped counts as cancelled.
#[derive(Clone)]
pub struct CircuitBreakerLayer<C = ByResult, F = NoFallback> {
    breaker: Breaker,
    classify: Arc<C>,
    fallback: Arc<F>,
}

impl CircuitBreakerLayer {
    /// Around every service, this breaker.
    pub fn new(breaker: Breaker) -> Self {
        CircuitBreakerLayer { breaker, classify: Arc::new(ByResult), fallback: Arc::new(NoFallback) }
    }
}

impl<C, F> CircuitBreakerLayer<C, F> {
    /// What a response, or an error, says of the service: `Fn(&Result<Response, Error>) -> Verdict`. A
    /// [`Verdict::Opening`] opens the circuit of the whole fleet for that time, as a `Retry-After` asks for.
    /// A panic counts as a failure.
    pub fn classify<New>(self, classify: New) -> CircuitBreakerLayer<New, F> {
        CircuitBreakerLayer { breaker: self.breaker, classify: Arc::new(classify), fallback: self.fallback }
    }

    /// What answers in place of a rejected or failed call: `Fn(CallError<Error>) -> impl Future<Output =
    /// Response>`. Without one, the caller gets the error, or the response that counted as a failure.
    pub fn fallback<New>(self, fallback: New) -> CircuitBreakerLayer<C, New> {
        CircuitBreakerLayer { breaker: self.breaker, classify: self.classify, fallback: Arc::new(fallback) }
    }
}

impl<S, C, F> Layer<S> for CircuitBreakerLayer<C, F> {
    type Service = CircuitBreaker<S, C, F>;

    fn layer(&self, inner: S) -> Self::Service {
        CircuitBreaker {
            inner,
            breaker: self.breaker.clone(),
            classify: self.classify.clone(),
            fallback: self.fallback.clone(),
        }
    }
}

/// A service behind a breaker; made by [`CircuitBreakerLayer`].
pub struct CircuitBreaker<S, C = ByResult, F = NoFallback> {
    inner: S,
    breaker: Breaker,
    classify: Arc<C>,
    fallback: Arc<F>,
}

impl<S: Clone, C, F> Clone for CircuitBreaker<S, C, F> {
    fn clone(&self) -> Self {
        CircuitBreaker {
            inner: self.inner.clone(),
            breaker: self.breaker.clone(),
            classify: self.classify.clone(),
            fallback: self.fallback.clone(),
        }
    }
}

impl<S, C, F, Request> Service<Request> for CircuitBreaker<S, C, F>
where
    S: Service<Request> + Clone + Send + 'static,
    S::Response: Send,
    S::Error: Send,
    S::Future: Send,
    Request: Send + 'static,
    C: Classify<S::Response, S::Error> + Send + Sync + 'static,
    F: Recover<S::Response, S::Error> + Send + Sync + 'static,
{
    type Response = S::Response;
    type Error = CallError<S::Error>;
    type Future = CallFuture<S::Response, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(CallError::Failed)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // The one that is ready, and not its clone.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let (breaker, classify, fallback) =
            (self.breaker.clone(), self.classify.clone(), self.fallback.clone());
        Box::pin(async move {
            let error = match admitted(breaker.core()).await {
                Err(error) => {
                    drop((inner, request));
                    CallError::Rejected(error)
                }
                Ok(mut permit) => {
                    let body = async move { inner.call(request).await };
                    match run(&mut permit, breaker.given_call_timeout(), body).await {
                        Err(deadline) => CallError::TimedOut(deadline.timed_out(permit)),
                        Ok(result) => {
                            // The classifier may panic: the result is dropped then.
                            let result = ManuallyDrop::into_inner(result);
                            let verdict = end(permit, ClassifyJudge(&*classify), &result);
                            match result {
                                _ if matches!(verdict, Verdict::Success | Verdict::Ignored) => {
                                    return result.map_err(CallError::Failed);
                                }
                                Ok(response) if !F::ANSWERS => return Ok(response),
                                Ok(_) => CallError::Unacceptable,
                                Err(error) => CallError::Failed(error),
                            }
                        }
                    }
                }
            };
            fallback.recover(error).await
        })
    }
}

/// What a result says of the service; implemented by [`ByResult`] and by closures.
pub trait Classify<T, E> {
    /// Success, failure, or neither.
    fn classify(&self, result: &Result<T, E>) -> Verdict;
}

/// `Ok` is a success, `Err` a failure.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByResult;

impl<T, E> Classify<T, E> for ByResult {
    fn classify(&self, result: &Result<T, E>) -> Verdict {
        if result.is_ok() { Verdict::Success } else { Verdict::Failure }
    }
}

impl<T, E, F: Fn(&Result<T, E>) -> Verdict> Classify<T, E> for F {
    fn classify(&self, result: &Result<T, E>) -> Verdict {
        self(result)
    }
}

struct ClassifyJudge<'a, C>(&'a C);

impl<T, E, C: Classify<T, E>> Judge<Result<T, E>> for ClassifyJudge<'_, C> {
    fn judge(self, result: &Result<T, E>) -> Verdict {
        self.0.classify(result)
    }
}

/// What becomes of a rejected or failed call; implemented by [`NoFallback`] and by closures.
pub trait Recover<T, E> {
    /// There is an answer in place of a response that counts as a failure.
    #[doc(hidden)]
    const ANSWERS: bool;

    /// The answer, or the error.
    fn recover(&self, error: CallError<E>) -> impl Future<Output = Result<T, CallError<E>>> + Send;
}

/// The caller gets the error.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFallback;

impl<T: Send, E: Send> Recover<T, E> for NoFallback {
    const ANSWERS: bool = false;

    fn recover(&self, error: CallError<E>) -> impl Future<Output = Result<T, CallError<E>>> + Send {
        ready(Err(error))
    }
}

impl<T, E, F, Answer> Recover<T, E> for F
where
    F: Fn(CallError<E>) -> Answer,
    Answer: Future<Output = T> + Send,
{
    const ANSWERS: bool = true;

    fn recover(&self, error: CallError<E>) -> impl Future<Output = Result<T, CallError<E>>> + Send {
        let answer = self(error);
        async move { Ok(answer.await) }
    }
}
