//! Rows of discovery: what is known when the one who knows cannot be asked, or says what cannot be.

mod churn;
mod feed;
mod words;

use super::Row;

pub(super) fn rows() -> Vec<Row> {
    feed::ROWS.iter().chain(&words::ROWS).chain(&churn::ROWS).copied().collect()
}
