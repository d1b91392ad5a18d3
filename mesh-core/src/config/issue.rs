//! What is wrong in a configuration, and where.

use std::fmt;
use std::sync::Arc;

/// Where something stands in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file as the user named it; `<code>` for values that did not come from a file.
    pub file: Arc<str>,
    /// 1-based; 0 when unknown.
    pub line: u32,
    /// 1-based; 0 when unknown.
    pub column: u32,
    /// For example `clusters.payments.outlier.base_ejection` or `spec.rules[0].from[1]`.
    pub path: String,
}

impl Place {
    /// The place of settings that were given in code.
    pub fn code() -> Self {
        Self { file: "<code>".into(), line: 0, column: 0, path: String::new() }
    }

    /// A whole file.
    pub fn file(name: &str) -> Self {
        Self { file: name.into(), line: 0, column: 0, path: String::new() }
    }

    /// The same position, for the field `name` below it.
    pub fn field(&self, name: &str) -> Self {
        Self { path: join(&self.path, name), ..self.clone() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if self.path.is_empty() { Ok(()) } else { write!(f, ": {}", self.path) }
    }
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigIssue {
    /// Where.
    pub place: Place,
    /// What was found, what was expected, what to do.
    pub message: String,
}

impl fmt::Display for ConfigIssue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Collects problems, so that the user sees all of them at once.
#[derive(Debug, Default)]
pub struct Errors {
    issues: Vec<ConfigIssue>,
}

impl Errors {
    /// Notes a problem.
    pub fn push(&mut self, place: &Place, message: impl Into<String>) {
        self.issues.push(ConfigIssue { place: place.clone(), message: message.into() });
    }

    /// Whether nothing was noted.
    pub fn is_empty(&self) -> bool {
        self.issues.is_empty()
    }

    /// What was noted, in order.
    pub fn issues(&self) -> &[ConfigIssue] {
        &self.issues
    }

    /// Takes over what an error says.
    pub fn extend(&mut self, error: &super::ConfigError) {
        self.issues.extend_from_slice(error.issues());
    }

    /// Everything that was noted, as an error; `None` if nothing was.
    pub fn into_error(self) -> Option<super::ConfigError> {
        (!self.issues.is_empty()).then(|| super::ConfigError::new(self.issues))
    }

    /// `Ok(value)` if nothing was noted and there is a value.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, super::ConfigError> {
        match value {
            Some(value) if self.issues.is_empty() => Ok(value),
            _ => Err(super::ConfigError::new(self.issues)),
        }
    }
}

pub(super) fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") }
}
