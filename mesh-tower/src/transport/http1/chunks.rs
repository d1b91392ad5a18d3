//! A chunked body. (RFC 9112 7.1)

use super::refusal::Refusal;

/// Digits of a chunk's size: those of a `u64`.
const MAX_DIGITS: u8 = 16;
/// Bytes of the extensions of one chunk. Nobody reads them.
const MAX_EXTENSION: u16 = 256;

/// Where in a chunked body the next byte belongs.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    part: Part,
    size: u64,
    /// Of the size, or bytes of the extensions.
    count: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Part {
    #[default]
    Size,
    /// White space that only an extension may follow.
    Space,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    End,
}

impl Chunks {
    /// Reads on in `bytes`. How many of them belong here, and whether the last chunk was among them; the rest is trailers.
    pub(super) fn read(&mut self, bytes: &[u8]) -> (usize, Result<bool, Refusal>) {
        let mut rest = bytes;
        while let [byte, behind @ ..] = rest {
            if self.part == Part::Data {
                let here = usize::try_from(self.size).unwrap_or(usize::MAX).min(rest.len());
                self.size -= here as u64; // at most `size`
                rest = rest.get(here..).unwrap_or_default();
                if self.size == 0 {
                    self.part = Part::DataCr;
                }
                continue;
            }
            if let Err(refusal) = self.byte(*byte) {
                return (bytes.len() - rest.len(), Err(refusal));
            }
            rest = behind;
            if self.part == Part::End {
                return (bytes.len() - rest.len(), Ok(true));
            }
        }
        (bytes.len(), Ok(false))
    }

    fn byte(&mut self, byte: u8) -> Result<(), Refusal> {
        self.part = match (self.part, byte) {
            (Part::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if self.count < u16::from(MAX_DIGITS) => {
                self.count += 1;
                self.size = self.size << 4 | u64::from(char::from(byte).to_digit(16).unwrap_or_default());
                Part::Size
            }
            (Part::Size, b'\r') if self.count > 0 => Part::SizeLf,
            (Part::Size, b' ' | b'\t') if self.count > 0 => Part::Space,
            (Part::Size, b';') if self.count > 0 => self.extension(),
            (Part::Space, b' ' | b'\t') => Part::Space,
            (Part::Space, b';') => self.extension(),
            (Part::Extension, b'\r') => Part::SizeLf,
            (Part::Extension, b'\t' | b' '..=b'~' | 0x80..) if self.count < MAX_EXTENSION => {
                self.count += 1;
                Part::Extension
            }
            (Part::SizeLf, b'\n') => {
                self.count = 0;
                if self.size == 0 { Part::End } else { Part::Data }
            }
            (Part::DataCr, b'\r') => Part::DataLf,
            (Part::DataLf, b'\n') => Part::Size,
            _ => return Err(Refusal::Chunk),
        };
        Ok(())
    }

    fn extension(&mut self) -> Part {
        self.count = 0;
        Part::Extension
    }
}
