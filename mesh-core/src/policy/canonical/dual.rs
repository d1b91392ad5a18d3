//! Mode `dual`: a path as it was sent, and as the most eager of its readers resolves it.

use std::borrow::Cow;

/// The path as it was sent and as it is resolved, both without parameters (`;`, which Tomcat drops before it maps).
///
/// Refuses what no two readers could agree on: control characters, broken escapes, bytes that are no UTF-8.
pub(super) fn views(raw: &str) -> Result<(Cow<'_, str>, Cow<'_, str>), &'static str> {
    if !raw.starts_with('/') {
        return Err("path_form");
    }
    if raw.chars().any(|c| c.is_control() || matches!(c, ' ' | '#' | '?')) {
        return Err("path_character");
    }
    let sent = if raw.contains(';') { without_parameters(raw).into() } else { Cow::Borrowed(raw) };
    let decoded = decode(raw)?;
    let resolved = if is_resolved(&decoded) { decoded } else { resolve(&decoded).into() };
    Ok((sent, resolved))
}

/// Whether `path` is what [`views`] could make of some path.
pub(super) fn is_resolved(path: &str) -> bool {
    path.starts_with('/') && !path.chars().any(|c| matches!(c, ';' | '\\') || c.is_control()) && {
        let mut segments = path.split('/').skip(1).peekable();
        std::iter::from_fn(|| segments.next().map(|segment| (segment, segments.peek().is_none())))
            .all(|(segment, last)| !matches!(segment, "." | "..") && (last || !segment.is_empty()))
    }
}

/// Every escape decoded, once.
pub(super) fn decode(raw: &str) -> Result<Cow<'_, str>, &'static str> {
    if !raw.contains('%') {
        return Ok(raw.into());
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digits = (bytes.next().and_then(digit), bytes.next().and_then(digit));
                let (Some(high), Some(low)) = digits else { return Err("path_escape") };
                match high << 4 | low {
                    control if control.is_ascii_control() => return Err("path_control"),
                    byte => byte,
                }
            }
            byte => byte,
        });
    }
    let decoded = String::from_utf8(decoded).map_err(|_| "path_not_utf8")?;
    if decoded.chars().any(char::is_control) { Err("path_control") } else { Ok(decoded.into()) }
}

/// Backslashes turned, parameters dropped, dot segments resolved (RFC 3986 5.2.4), slashes merged.
pub(super) fn resolve(decoded: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    let mut open = true;
    for segment in decoded.split(['/', '\\']) {
        let name = segment.split(';').next().unwrap_or_default();
        open = matches!(name, "" | "." | "..");
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    let end = if open && !names.is_empty() { "/" } else { "" };
    format!("/{}{end}", names.join("/"))
}

fn without_parameters(raw: &str) -> String {
    let names: Vec<&str> = raw.split('/').map(|segment| segment.split(';').next().unwrap_or_default()).collect();
    names.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_seen_as_sent_and_as_resolved() {
        for (raw, expected) in [
            ("/a/b", Ok(("/a/b", "/a/b"))),
            ("/a/", Ok(("/a/", "/a/"))),
            ("/", Ok(("/", "/"))),
            ("/public/../admin", Ok(("/public/../admin", "/admin"))),
            ("/a/%2e%2E/admin", Ok(("/a/%2e%2E/admin", "/admin"))),
            ("/a/..", Ok(("/a/..", "/"))),
            ("/a/.", Ok(("/a/.", "/a/"))),
            ("/../../a", Ok(("/../../a", "/a"))),
            ("//admin", Ok(("//admin", "/admin"))),
            ("/a//", Ok(("/a//", "/a/"))),
            ("///", Ok(("///", "/"))),
            ("/a%2fadmin", Ok(("/a%2fadmin", "/a/admin"))),
            ("/a%2f..%5cadmin", Ok(("/a%2f..%5cadmin", "/admin"))),
            ("/a\\admin", Ok(("/a\\admin", "/a/admin"))),
            ("/admin;x=y/z;w", Ok(("/admin/z", "/admin/z"))),
            ("/admin%3bx", Ok(("/admin%3bx", "/admin"))),
            ("/a/..;/admin", Ok(("/a/../admin", "/admin"))),
            ("/a;x%2f../admin", Ok(("/a/admin", "/admin"))),
            ("/.;", Ok(("/.", "/"))),
            ("/%252e%252e/a", Ok(("/%252e%252e/a", "/%2e%2e/a"))),
            ("/%61dmin", Ok(("/%61dmin", "/admin"))),
            ("/caf%c3%a9", Ok(("/caf%c3%a9", "/caf\u{e9}"))),
            ("/caf\u{e9}", Ok(("/caf\u{e9}", "/caf\u{e9}"))),
            ("/a%20b%3f%23", Ok(("/a%20b%3f%23", "/a b?#"))),
            ("/{id}", Ok(("/{id}", "/{id}"))),
            ("/Admin", Ok(("/Admin", "/Admin"))),
            ("a", Err("path_form")),
            ("*", Err("path_form")),
            ("", Err("path_form")),
            ("/a%00", Err("path_control")),
            ("/a%0d%0a", Err("path_control")),
            ("/a%7f", Err("path_control")),
            ("/a%c2%85", Err("path_control")),
            ("/a%", Err("path_escape")),
            ("/a%2", Err("path_escape")),
            ("/a%zz", Err("path_escape")),
            ("/%C0%AE%C0%AE/", Err("path_not_utf8")),
            ("/%FF", Err("path_not_utf8")),
            ("/a\u{0}", Err("path_character")),
            ("/a b", Err("path_character")),
            ("/a#b", Err("path_character")),
        ] {
            let views = views(raw);
            let views = views.as_ref().map(|(sent, resolved)| (sent.as_ref(), resolved.as_ref()));
            assert_eq!(views, expected.as_ref().copied(), "{raw}");
        }
    }
}
