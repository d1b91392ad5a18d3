//! The settings of `telemetry.exporter.otlp`.

use http::Uri;
use mesh_core::config::{Errors, Fields, Node, Percent};

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    pub(super) endpoint: String,
    pub(super) sample: f64,
    pub(super) queue: usize,
}

impl Settings {
    pub(super) fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let endpoint: Option<String> = fields.required("endpoint");
        let Percent(sample) = fields.within("sample", Percent(1.0), Percent(0.0)..=Percent(1.0));
        let queue = fields.within("queue", 2048, 16..=1_000_000);
        if let Some(endpoint) = &endpoint {
            let uri = endpoint.parse::<Uri>().ok();
            if uri.as_ref().and_then(Uri::scheme_str) != Some("http") || uri.as_ref().and_then(Uri::host).is_none() {
                fields.error(format!(
                    "endpoint `{endpoint}` is no plain-http URL such as `http://127.0.0.1:4318`; spans are meant for a \
                     collector on this host or pod"
                ));
            }
        }
        fields.finish();
        Some(Self { endpoint: endpoint?, sample, queue })
    }

    /// Where spans are posted to. (OTLP 1.x, "OTLP/HTTP request")
    pub(super) fn traces_url(&self) -> String {
        format!("{}/v1/traces", self.endpoint.trim_end_matches('/'))
    }
}
