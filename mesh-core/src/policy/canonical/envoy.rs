//! Istio's modes: what Envoy 1.40 makes of a path, learnt from its answers.
//!
//! In this order: `%2f` and `%5c` are decoded (`path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD`), parameters
//! of dot segments are dropped, dots, escapes and `\` are normalised (`normalize_path`), slashes are merged
//! (`merge_slashes`).

use std::borrow::Cow;

/// A path that Envoy lets pass at all: visible ASCII that begins with `/`.
pub(super) fn path(path: &str) -> Result<Cow<'_, str>, &'static str> {
    if !path.starts_with('/') {
        return Err("path_form");
    }
    let passes = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'?');
    if path.as_bytes().iter().all(passes) { Ok(path.into()) } else { Err("path_character") }
}

/// The path that Envoy forwards.
pub(super) fn normalized(raw: &str, merge: bool, decode: bool) -> Result<Cow<'_, str>, &'static str> {
    let mut path = path(raw)?;
    if is_normal(raw) {
        return Ok(path);
    }
    if decode && raw.contains('%') {
        path = decode_slashes(&path).into();
    }
    if path.contains(";") {
        path = drop_dot_parameters(&path).into();
    }
    path = normalize(&path)?.into();
    if merge && path.contains("//") {
        path = merge_slashes(&path).into();
    }
    Ok(path)
}

/// Whether nothing of what is normalised could occur: of most paths.
fn is_normal(path: &str) -> bool {
    let mut before = b' ';
    path.bytes().all(|byte| {
        let after_slash = std::mem::replace(&mut before, byte) == b'/';
        !(must_escape(byte) || matches!(byte, b'%' | b'\\') || after_slash && matches!(byte, b'/' | b'.'))
    })
}

fn decode_slashes(path: &str) -> String {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        decoded.push_str(before);
        let slash = match after.as_bytes() {
            [b'2', b'f' | b'F', ..] => Some('/'),
            [b'5', b'c' | b'C', ..] => Some('\\'),
            _ => None,
        };
        decoded.push(slash.unwrap_or('%'));
        rest = after.get(2..).filter(|_| slash.is_some()).unwrap_or(after);
    }
    decoded + rest
}

/// `/..;x/` is `/../`. Only where the dots are written as such, and up to the next `/`.
fn drop_dot_parameters(path: &str) -> String {
    let dots = |segment: &str| match segment.split_once(';') {
        Some((dots @ ("." | ".."), _)) => dots.len(),
        _ => segment.len(),
    };
    let segments: Vec<&str> = path.split('/').map(|segment| segment.split_at(dots(segment)).0).collect();
    segments.join("/")
}

/// Chromium's canonical path. (WHATWG URL of before 2023, when escaped letters were still decoded)
fn normalize(path: &str) -> Result<String, &'static str> {
    let bytes = path.as_bytes();
    let mut output = String::with_capacity(path.len());
    // A `%` of the output that began no escape; what is unescaped behind it must not make it one.
    let mut broken: Option<usize> = None;
    let mut at = 0;
    while let Some(byte) = bytes.get(at).copied() {
        let rest = bytes.get(at..).unwrap_or_default();
        let dot = dot(rest);
        if dot > 0 {
            let skipped = if output.ends_with('/') { relative(rest, dot, &mut output) } else { 0 };
            if skipped == 0 {
                output.push('.');
            }
            at += skipped.max(dot);
            broken = broken.filter(|broken| *broken < output.len());
            continue;
        }
        at += 1;
        match (byte, escaped(rest)) {
            (b'%', Some(0)) => return Err("path_control"),
            (b'%', Some(value)) if is_unreserved(value) => {
                output.push(char::from(value));
                at += 2;
                if let Some(percent) = broken.filter(|percent| percent + 3 >= output.len()) {
                    escape_percent(&mut output, percent, bytes.get(at).copied());
                }
            }
            (b'%', Some(_)) => {
                output.extend(rest.iter().take(3).copied().map(char::from));
                at += 2;
            }
            (b'%', None) => {
                broken = Some(output.len());
                output.push('%');
            }
            (b'\\', _) => output.push('/'),
            (byte, _) if must_escape(byte) => {
                const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
                let digit = |half: u8| DIGITS.get(usize::from(half)).copied().map_or('0', char::from);
                output.extend(['%', digit(byte >> 4), digit(byte & 15)]);
            }
            (byte, _) => output.push(char::from(byte)),
        }
    }
    Ok(output)
}

/// How many bytes a dot at the beginning has, escaped or not; 0: there is none.
fn dot(bytes: &[u8]) -> usize {
    match bytes {
        [b'.', ..] => 1,
        [b'%', b'2', b'e' | b'E', ..] => 3,
        _ => 0,
    }
}

/// Resolves the dot segment that `rest` begins with; how much of it was that. 0: it is a name.
fn relative(rest: &[u8], first: usize, output: &mut String) -> usize {
    let ends = |at: usize| match rest.get(at) {
        None => Some(at),
        Some(b'/' | b'\\') => Some(at + 1),
        Some(_) => None,
    };
    if let Some(end) = ends(first) {
        return end;
    }
    let second = dot(rest.get(first..).unwrap_or_default());
    let Some(end) = ends(first + second).filter(|_| second > 0) else { return 0 };
    let parent = output.strip_suffix('/').and_then(|path| path.rfind('/')).unwrap_or(0);
    output.truncate(parent + 1);
    end
}

/// The value of an escape at the beginning.
fn escaped(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

/// Escapes the `%` itself where an escape has come into being behind it: `/%%300` is not `/%00`.
fn escape_percent(output: &mut String, percent: usize, next: Option<u8>) {
    let bytes = output.as_bytes();
    let behind = |offset: usize| bytes.get(percent + offset).copied();
    let hex = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_hexdigit());
    if hex(behind(1)) && hex(behind(2).or(next)) {
        output.insert_str(percent + 1, "25");
    }
}

fn merge_slashes(path: &str) -> String {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    // Of slashes alone, two are left.
    let end = if path.ends_with('/') { "/" } else { "" };
    format!("/{}{end}", segments.join("/"))
}

/// What is decoded wherever it is met; the dot too, but that may be a segment.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~')
}

fn must_escape(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (sent, `base`, `merge-slashes`, `decode-and-merge-slashes`), as Envoy 1.40 forwarded or refused them.
    #[test]
    fn paths_become_what_envoy_makes_of_them() {
        const NUL: Result<&str, &str> = Err("path_control");
        for (sent, base, merged, decoded) in [
            ("/a/b-1~_.c", Ok("/a/b-1~_.c"), Ok("/a/b-1~_.c"), Ok("/a/b-1~_.c")),
            ("/a/../admin", Ok("/admin"), Ok("/admin"), Ok("/admin")),
            ("/a/..", Ok("/"), Ok("/"), Ok("/")),
            ("/a/.", Ok("/a/"), Ok("/a/"), Ok("/a/")),
            ("/../a", Ok("/a"), Ok("/a"), Ok("/a")),
            ("/a/.%2E/b", Ok("/b"), Ok("/b"), Ok("/b")),
            ("/a/.../.b", Ok("/a/.../.b"), Ok("/a/.../.b"), Ok("/a/.../.b")),
            ("/..%2fadmin", Ok("/..%2fadmin"), Ok("/..%2fadmin"), Ok("/admin")),
            ("/a%2f%2e%2e/b", Ok("/a%2f../b"), Ok("/a%2f../b"), Ok("/b")),
            ("/a%5c..%5Cb", Ok("/a%5c..%5Cb"), Ok("/a%5c..%5Cb"), Ok("/b")),
            ("/a\\..\\b", Ok("/b"), Ok("/b"), Ok("/b")),
            ("/\\a", Ok("//a"), Ok("/a"), Ok("/a")),
            ("/a///b//", Ok("/a///b//"), Ok("/a/b/"), Ok("/a/b/")),
            ("///", Ok("///"), Ok("//"), Ok("//")),
            ("/%2f", Ok("/%2f"), Ok("/%2f"), Ok("//")),
            ("/a/..//b", Ok("//b"), Ok("/b"), Ok("/b")),
            ("//../a", Ok("/a"), Ok("/a"), Ok("/a")),
            ("/a;x/b", Ok("/a;x/b"), Ok("/a;x/b"), Ok("/a;x/b")),
            ("/a/..;x;y/b", Ok("/b"), Ok("/b"), Ok("/b")),
            ("/a/.;", Ok("/a/"), Ok("/a/"), Ok("/a/")),
            ("/a/..;x\\b", Ok("/"), Ok("/"), Ok("/")),
            ("/a/..;x%2fy/b", Ok("/b"), Ok("/b"), Ok("/y/b")),
            ("/a/..;%00/b", Ok("/b"), Ok("/b"), Ok("/b")),
            // Not the end of it: another reader may go on from here.
            ("/a/%2e%2e;/b", Ok("/a/..;/b"), Ok("/a/..;/b"), Ok("/a/..;/b")),
            ("/%252e%252e/a", Ok("/%252e%252e/a"), Ok("/%252e%252e/a"), Ok("/%252e%252e/a")),
            ("/%61%2D%5f%7e%2a", Ok("/a-_~%2a"), Ok("/a-_~%2a"), Ok("/a-_~%2a")),
            ("/a%00", NUL, NUL, NUL),
            ("/a%0a%7f%FF%zz%", Ok("/a%0a%7f%FF%zz%"), Ok("/a%0a%7f%FF%zz%"), Ok("/a%0a%7f%FF%zz%")),
            ("/%%300", Ok("/%2500"), Ok("/%2500"), Ok("/%2500")),
            ("/%%30%30", Ok("/%2500"), Ok("/%2500"), Ok("/%2500")),
            ("/%2%66%2f", Ok("/%252f%2f"), Ok("/%252f%2f"), Ok("/%252f/")),
            ("/%%61b", Ok("/%25ab"), Ok("/%25ab"), Ok("/%25ab")),
            ("/%%2e", Ok("/%."), Ok("/%."), Ok("/%.")),
            ("/%/../%41b", Ok("/Ab"), Ok("/Ab"), Ok("/Ab")),
            (
                "/a\"<>^`{|}[]",
                Ok("/a%22%3C%3E%5E%60%7B%7C%7D[]"),
                Ok("/a%22%3C%3E%5E%60%7B%7C%7D[]"),
                Ok("/a%22%3C%3E%5E%60%7B%7C%7D[]"),
            ),
            ("a", Err("path_form"), Err("path_form"), Err("path_form")),
            ("/a\u{e9}", Err("path_character"), Err("path_character"), Err("path_character")),
        ] {
            let answers =
                [(false, false), (true, false), (true, true)].map(|(merge, decode)| normalized(sent, merge, decode));
            let expected = [base, merged, decoded].map(|path| path.map(Cow::Borrowed));
            assert_eq!(answers, expected, "{sent}");
        }
        // What a dot segment took away escapes nothing behind it.
        assert_eq!(normalized("/%/../%41%41b", false, false).as_deref(), Ok("/AAb"));
        // Most paths are copied by nobody.
        for plain in ["/", "/a/b-1~_.c", "/a.b/c;x", "/a/"] {
            assert!(matches!(normalized(plain, true, true), Ok(Cow::Borrowed(path)) if path == plain), "{plain}");
        }
    }
}
