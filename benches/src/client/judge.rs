//! Which answers count as right: a stack that answers wrongly is not fast.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;

use crate::Error;
use crate::app::PAYLOAD;
use crate::perf::Payload;

/// Reads the whole answer of `GET /hello`.
pub(crate) async fn hello<B>(response: Response<B>) -> Result<(), Error>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Error>,
{
    let status = response.status();
    let body = response.into_body().collect().await.map_err(Into::into)?.to_bytes();
    if status == StatusCode::OK && body.len() == PAYLOAD {
        return Ok(());
    }
    Err(format!("status {status} with {} bytes, expected 200 with {PAYLOAD}", body.len()).into())
}

pub(super) fn echoed(reply: &tonic::Response<Payload>) -> Result<(), Error> {
    match reply.get_ref().data.len() {
        PAYLOAD => Ok(()),
        other => Err(format!("{other} bytes echoed, expected {PAYLOAD}").into()),
    }
}
