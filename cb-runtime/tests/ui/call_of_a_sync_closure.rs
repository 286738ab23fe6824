use cb_runtime::{Breaker, CallError};

type Outcome = Result<u64, std::num::ParseIntError>;

fn work() -> Outcome {
    "7".parse()
}

async fn work_later() -> Outcome {
    work()
}

async fn count() -> u64 {
    7
}

pub async fn closure_is_not_async(breaker: &Breaker) {
    let _ = breaker.call(|| work()).await;
}

pub async fn function_is_not_async(breaker: &Breaker) -> Result<u64, CallError<std::num::ParseIntError>> {
    Ok(breaker.call(work).await? + 1)
}

pub async fn future_instead_of_a_closure(breaker: &Breaker) {
    match breaker.call(work_later()).await {
        Ok(number) => println!("{number}"),
        Err(error) => println!("{error}"),
    }
}

pub async fn value_is_no_result(breaker: &Breaker) {
    let _ = breaker.call(async || count().await).await;
}

pub async fn future_is_not_awaited(breaker: &Breaker) {
    let _ = breaker.call(async || work_later()).await;
}

fn main() {}
