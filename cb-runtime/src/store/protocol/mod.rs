//! The messages between instances and a store. They serialize as the Redis store's scripts read them.

mod answer;
mod batch;
mod count_window;
mod counts;
mod json;
mod limits;
mod record;
mod report;
mod stream;

pub(crate) use answer::*;
pub(crate) use batch::*;
pub(crate) use count_window::*;
pub(crate) use counts::*;
pub(crate) use limits::*;
pub(crate) use record::*;
pub(crate) use report::*;
pub(crate) use stream::*;
