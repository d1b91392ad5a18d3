//! The path of a request target, which a stranger chose.

use mesh_core::policy::canonical::{CanonicalPath, Canonicalization};

/// The verdict in mode `reject`: `accepted`, or the reason of the refusal.
pub(crate) fn run(data: &[u8]) -> &'static str {
    let Ok(raw) = std::str::from_utf8(data) else { return "not_utf8" };
    for (_, mode) in Canonicalization::ALL {
        let read = mode.path(raw);
        assert_eq!(read, mode.path(raw), "same path, same answer");
        match &read {
            Err(reason) => assert!(reason.starts_with("path_"), "{reason}"),
            Ok(read) => accepted(mode, raw, read),
        }
    }
    let plain = |path| CanonicalPath { path, views: None };
    match Canonicalization::Reject.path(raw) {
        Ok(read) => {
            assert_eq!(read.path, raw, "what is accepted is unchanged");
            for (_, mode) in Canonicalization::ALL {
                // That it has is what is checked here.
                let read = mode.path(raw).expect("what has one reading has it in every mode");
                let escaped = raw.contains('%');
                let both = matches!(mode, Canonicalization::Dual | Canonicalization::Reject);
                assert!(read == plain(raw.into()) || both && escaped, "{read:?} in {mode}");
            }
            "accepted"
        }
        Err(reason) => {
            // Views that agree on a path are of one that `reject` would take, but for what no reader minds: parameters,
            // which both dropped, and characters that a URI may not have.
            let harmless = ["path_parameter", "path_character"].contains(&reason);
            let dual = Canonicalization::Dual.path(raw);
            assert!(harmless || dual.as_ref().map_or(true, |read| !one_view(read)), "{reason}: {dual:?}");
            reason
        }
    }
}

fn accepted(mode: Canonicalization, raw: &str, read: &CanonicalPath<'_>) {
    let views: Vec<&str> = read.views().collect();
    assert!(views.iter().all(|view| view.starts_with('/') && !view.contains(char::is_control)), "{read:?}");
    match mode {
        Canonicalization::None => assert_eq!((&*read.path, &views[..]), (raw, &[raw][..])),
        Canonicalization::Reject => {
            assert_eq!((&*read.path, views[0]), (raw, raw));
            if let Some(decoded) = views.get(1) {
                assert!(*decoded != raw && !decoded.contains("//") && !dots(decoded), "{decoded}");
                let spellings =
                    ["%21", "%24", "%26", "%27", "%28", "%29", "%2A", "%2B", "%2C", "%3D", "%3A", "%40", "%3B"];
                assert!(!spellings.iter().any(|spelling| decoded.contains(spelling)), "{decoded}");
            }
        }
        Canonicalization::Dual => {
            assert_eq!(read.path, raw);
            assert!(views.iter().all(|view| mode.yields(view)), "{views:?}");
            // `views` yields the path itself where it has no others.
            let resolved = views.last().expect("one view at least");
            assert!(!resolved.contains(['\\', ';']) && !resolved.contains("//") && !dots(resolved), "{resolved}");
        }
        _ => {
            let path = &*read.path;
            let written = |byte: u8| byte.is_ascii_graphic() && !b"\"#<>?\\^`{|}".contains(&byte);
            assert!(path.bytes().all(written) && !escaped_dots(path), "{path}");
            if mode != Canonicalization::Base {
                assert!(path == "//" || !path.contains("//"), "{path}");
            }
            // Envoy itself is not done with `/%2e;x/`: see the module.
            if !dots_with_parameters(path) {
                // That it can is what is checked here.
                let again = mode.path(path).expect("what was written can be read");
                assert_eq!(again.path, path, "{mode} is done with it");
                assert!(mode.yields(path));
            }
        }
    }
}

/// Whether a segment is one or two dots.
fn dots(path: &str) -> bool {
    path.split('/').any(|segment| matches!(segment, "." | ".."))
}

/// The same of segments that are so once they are decoded.
fn escaped_dots(path: &str) -> bool {
    dots(&path.replace("%2e", ".").replace("%2E", "."))
}

/// The same of segments with parameters.
fn dots_with_parameters(path: &str) -> bool {
    path.split('/').any(|segment| segment.split_once(';').is_some_and(|(name, _)| matches!(name, "." | "..")))
}

fn one_view(read: &CanonicalPath<'_>) -> bool {
    read.views.as_ref().is_none_or(|(sent, resolved)| sent == resolved)
}
