//! One line of `mesh policy eval`: read strictly, so that what is misspelt is not taken for unknown.

use std::fmt;
use std::net::IpAddr;

use mesh_core::identity::SpiffeId;
use mesh_core::token::{StrictJson, VerifiedToken};
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::Value;

use crate::claims;

/// An object of which each member may be there once, `null` is as good as absent, and no other member is known. An error
/// begins with a dot and the member's path.
macro_rules! object {
    ($(#[$doc:meta])* $name:ident { $($key:literal => $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub(super) struct $name {
            $(pub(super) $field: Option<$type>,)*
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Members;
                impl<'de> Visitor<'de> for Members {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<$name, A::Error> {
                        $(let mut $field: Option<Option<$type>> = None;)*
                        while let Some(key) = members.next_key::<String>()? {
                            match key.as_str() {
                                $($key => member($key, &mut $field, &mut members)?,)*
                                _ => return Err(A::Error::custom(format!(".{key:.64}: unknown field"))),
                            }
                        }
                        Ok($name { $($field: $field.flatten(),)* })
                    }
                }
                deserializer.deserialize_map(Members)
            }
        }
    };
}

object! {
    /// A request. What is absent is unknown.
    Line {
        "id" => id: StrictJson,
        "protocol" => protocol: Protocol,
        "source" => source: Source,
        "remote_ip" => remote_ip: IpAddr,
        "destination" => destination: Destination,
        "sni" => sni: String,
        "method" => method: String,
        "authority" => authority: String,
        "path" => path: String,
        "route" => route: String,
        "headers" => headers: Vec<(String, String)>,
        "claims" => claims: Claims,
    }
}

object! {
    /// Who connects.
    Source {
        "principal" => principal: Principal,
        "ip" => ip: IpAddr,
    }
}

object! {
    /// Where to.
    Destination {
        "ip" => ip: IpAddr,
        "port" => port: u16,
    }
}

fn member<'de, A: MapAccess<'de>, T: Deserialize<'de>>(
    key: &str,
    slot: &mut Option<Option<T>>,
    members: &mut A,
) -> Result<(), A::Error> {
    if slot.is_some() {
        return Err(A::Error::custom(format!(".{key}: written twice")));
    }
    let value = members.next_value().map_err(|error| {
        let text = error.to_string();
        A::Error::custom(if text.starts_with('.') { format!(".{key}{text}") } else { format!(".{key}: {text}") })
    })?;
    *slot = Some(value);
    Ok(())
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Protocol {
    Http,
    Grpc,
    Tcp,
}

/// A SPIFFE ID that a workload can have.
#[derive(Debug)]
pub(super) struct Principal(pub(super) SpiffeId);

impl<'de> Deserialize<'de> for Principal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match SpiffeId::parse(&text) {
            Ok(id) if id.path().is_empty() => Err(de::Error::custom("names a trust domain, not a workload")),
            Ok(id) => Ok(Self(id)),
            Err(error) => Err(de::Error::custom(error)),
        }
    }
}

/// Claims as a verified token has them.
#[derive(Debug)]
pub(super) struct Claims(pub(super) VerifiedToken);

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        claims::token(StrictJson::deserialize(deserializer)?).map(Self).map_err(de::Error::custom)
    }
}

/// Reads a line; the error names the field.
pub(super) fn read(line: &[u8]) -> Result<Line, String> {
    let mut deserializer = serde_json::Deserializer::from_slice(line);
    let read = Line::deserialize(&mut deserializer).and_then(|line| deserializer.end().map(|()| line));
    read.map_err(|error| {
        let text = error.to_string();
        let (message, column) = match text.rsplit_once(" at line 1 column ") {
            Some((message, column)) => (message, format!(" (column {column})")),
            None => (text.as_str(), String::new()),
        };
        match message.strip_prefix('.') {
            Some(field) => field.to_owned(),
            None => format!("not a JSON object: {message}{column}"),
        }
    })
}

/// The `id` of a line that is wrong elsewhere; null where that cannot be read either.
pub(super) fn id(line: &[u8]) -> Value {
    #[derive(Deserialize)]
    struct Id {
        id: StrictJson,
    }
    serde_json::from_slice(line).map_or(Value::Null, |Id { id: StrictJson(id) }| id)
}
