/// The bounds of one connection's input. Each has a status with which its violation is answered.
///
/// A caller's buffer must hold `head_bytes_max + 2` bytes, and `chunk_extension_bytes_max + 18` and
/// `trailer_bytes_max` when it takes chunked bodies: an incomplete head or line is not consumed.
///
/// ```
/// use reev::http1::{Http1, Options};
///
/// let mut options = Options::default();
/// options.limits.body_bytes_max = 64 << 10;
/// let http = Http1::new(options);
/// # let _ = http;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Request line and header fields with their line ends, in bytes; 431 above it. Default 16 KiB.
    pub head_bytes_max: usize,
    /// Request target, in bytes; 414 above it. RFC 9110 section 4.1 asks for at least 8000.
    /// Default 8 KiB.
    pub target_bytes_max: usize,
    /// Header field lines of one request; 431 above it. Default 100.
    pub headers_max: usize,
    /// Content of one request, in bytes, however it is framed; 413 above it. Default 1 MiB.
    pub body_bytes_max: u64,
    /// Chunk extensions of one body, all its chunks together, in bytes; 400 above it. Default
    /// 4 KiB.
    pub chunk_extension_bytes_max: u32,
    /// Trailer section of one body, in bytes; 431 above it. Default 4 KiB.
    pub trailer_bytes_max: u32,
    /// Trailer field lines of one body; 431 above it. Default 32.
    pub trailers_max: u16,
    /// Answer 411 to a chunked body: for users that must know the length first. Default false.
    pub length_required: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 16 * 1024,
            target_bytes_max: 8 * 1024,
            headers_max: 100,
            body_bytes_max: 1024 * 1024,
            chunk_extension_bytes_max: 4 * 1024,
            trailer_bytes_max: 4 * 1024,
            trailers_max: 32,
            length_required: false,
        }
    }
}
