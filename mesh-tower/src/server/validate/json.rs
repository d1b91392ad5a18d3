//! How deep JSON is nested, without a tree.

/// Counts open arrays and objects as the bytes come. What is no JSON is left to whoever parses it.
#[derive(Debug)]
pub(super) struct JsonDepth {
    depth: u32,
    max: u32,
    /// Within a string, where brackets are text.
    string: bool,
    /// Behind a backslash.
    escaped: bool,
}

impl JsonDepth {
    pub(super) fn new(max: u32) -> Self {
        Self { depth: 0, max, string: false, escaped: false }
    }

    /// Whether it is still within its depth after `bytes`, which may begin and end anywhere.
    pub(super) fn takes(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.string => self.escaped = true,
                b'"' => self.string = !self.string,
                b'{' | b'[' if !self.string => {
                    self.depth += 1;
                    if self.depth > self.max {
                        return false;
                    }
                }
                b'}' | b']' if !self.string => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_counted_across_pieces_and_not_in_strings() {
        for (text, depth) in [
            ("7", 0),
            ("[]", 1),
            ("{\"a\": [1, {\"b\": []}], \"c\": {}}", 4),
            ("[[], [], []]", 2),
            ("[\"[[[[\"]", 1),
            ("[\"\\\"[[[\", \"\\\\\", []]", 2),
            ("{\"\\\\\\\"{\": 1}", 1),
            ("]]]][", 1),
        ] {
            for pieces in 1..=text.len() {
                let takes = |max| {
                    let mut json = JsonDepth::new(max);
                    text.as_bytes().chunks(pieces).all(|piece| json.takes(piece))
                };
                assert!(takes(depth), "{text} has {depth}");
                assert!(depth == 0 || !takes(depth - 1), "{text} has no less than {depth}");
            }
        }
    }
}
