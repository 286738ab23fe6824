//! Recipe: a database through sqlx. A missing row is an answer; a pool without a connection is a failure.
//!
//! ```text
//! cargo run --example sqlite
//! ```

use cb_runtime::{BreakerError, circuit_breaker};
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};

#[derive(Debug, thiserror::Error)]
enum DbError {
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    #[error(transparent)]
    Rejected(#[from] BreakerError),
}

/// An error about the statement (a constraint, a missing row) is not a failure of the database.
fn is_failure<T>(result: &Result<T, DbError>) -> bool {
    let answered = |error: &sqlx::Error| matches!(error, sqlx::Error::RowNotFound | sqlx::Error::Database(_));
    match result {
        Err(DbError::Sql(error)) => !answered(error),
        Err(DbError::Rejected(_)) => true,
        Ok(_) => false,
    }
}

#[circuit_breaker(name = "database", failure_threshold = 3, is_failure = is_failure)]
async fn balance(pool: &SqlitePool, account: i64) -> Result<i64, DbError> {
    let query = sqlx::query_scalar("SELECT balance FROM accounts WHERE id = ?");
    Ok(query.bind(account).fetch_one(pool).await?)
}

/// Reads and writes share a breaker, because they use one database.
#[circuit_breaker(name = "database", failure_threshold = 3, is_failure = is_failure)]
async fn open_account(pool: &SqlitePool, account: i64) -> Result<(), DbError> {
    sqlx::query("INSERT INTO accounts VALUES (?, 100)").bind(account).execute(pool).await?;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    // A database in memory belongs to one connection.
    let pool = SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await?;
    sqlx::query("CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER)").execute(&pool).await?;
    open_account(&pool, 7).await?;
    println!("balance: {}", balance(&pool, 7).await?);

    for _ in 0..5 {
        let twice = open_account(&pool, 7).await.unwrap_err();
        let missing = balance(&pool, 8).await.unwrap_err();
        assert!(matches!((twice, missing), (DbError::Sql(_), DbError::Sql(sqlx::Error::RowNotFound))));
    }
    // A closed pool gives no connection, like one whose database is gone.
    pool.close().await;
    for _ in 0..3 {
        let error = balance(&pool, 7).await.unwrap_err();
        assert!(matches!(error, DbError::Sql(sqlx::Error::PoolClosed)), "{error}");
    }
    let error = open_account(&pool, 9).await.unwrap_err();
    println!("three times no connection: {error}");
    assert!(matches!(error, DbError::Rejected(error) if error.is_open()));
    Ok(())
}

#[test]
fn it_runs() {
    main().unwrap();
}
