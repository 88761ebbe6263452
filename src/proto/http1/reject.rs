use std::fmt;

use super::status::Status;

/// Why a message is refused. One variant for each fact of the protocol; the connection is answered
/// with [`Reject::status`] and closed, and nothing behind the refused bytes is parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reject {
    /// More than one empty line before a request line (RFC 9112 section 2.2).
    EmptyLines,
    /// A CR that no LF follows (RFC 9112 section 2.2).
    BareCr,
    /// A line that ends in LF without CR (RFC 9112 section 2.2; a server may accept it, reev does
    /// not).
    BareLf,
    /// A request line that is not method, target and version with one space between (RFC 9112
    /// section 3).
    RequestLine,
    /// A method that is no token (RFC 9112 section 3.1).
    Method,
    /// A method longer than any that exists (RFC 9112 section 3).
    MethodTooLong,
    /// A byte in the target that no URI may have there: a control, `#`, or one above 0x7e (RFC 9112
    /// section 3.2).
    Target,
    /// A target whose form does not fit its method (RFC 9112 sections 3.2.1 to 3.2.4).
    TargetForm,
    /// A target above `target_bytes_max` (RFC 9110 section 15.5.15).
    TargetTooLong,
    /// A version that is not `HTTP/` digit `.` digit (RFC 9112 section 2.3).
    Version,
    /// A well-formed version other than 1.0 and 1.1 (RFC 9110 section 15.6.6).
    VersionUnsupported,
    /// A field name that is no token, or a line without a colon (RFC 9110 section 5.1).
    FieldName,
    /// White space between field name and colon (RFC 9112 section 5.1).
    SpaceBeforeColon,
    /// A field line that starts with white space: obsolete folding (RFC 9112 section 5.2).
    ObsFold,
    /// NUL or another control in a field value (RFC 9110 section 5.5).
    FieldValue,
    /// More field lines than `headers_max` (RFC 6585 section 5).
    TooManyHeaders,
    /// A head above `head_bytes_max` (RFC 6585 section 5).
    HeadTooLarge,
    /// HTTP/1.1 without Host (RFC 9112 section 3.2).
    HostMissing,
    /// More than one Host line (RFC 9112 section 3.2).
    HostRepeated,
    /// A Host that is not host and optional port (RFC 9112 section 3.2).
    HostInvalid,
    /// A Content-Length that is not digits, or does not fit in 64 bits (RFC 9110 section 8.6).
    LengthInvalid,
    /// More than one Content-Length line, equal or not (RFC 9112 section 6.3).
    LengthRepeated,
    /// Content-Length with Transfer-Encoding (RFC 9112 section 6.1).
    LengthWithEncoding,
    /// A chunked body where `length_required` is set (RFC 9110 section 15.5.12).
    LengthRequired,
    /// A transfer coding other than chunked (RFC 9112 section 6.1).
    EncodingUnsupported,
    /// Transfer-Encoding in an HTTP/1.0 request (RFC 9112 section 6.1).
    EncodingOnHttp10,
    /// chunked more than once (RFC 9112 section 6.1).
    EncodingRepeated,
    /// chunked that is not the last coding (RFC 9112 section 6.3).
    EncodingNotLast,
    /// A Transfer-Encoding that is no list of tokens, or chunked with parameters (RFC 9112 section
    /// 7).
    EncodingInvalid,
    /// An expectation other than `100-continue` (RFC 9110 section 10.1.1).
    Expectation,
    /// Content above `body_bytes_max` (RFC 9110 section 15.5.14).
    BodyTooLarge,
    /// A chunk size that is not 1 to 16 hexadecimal digits (RFC 9112 section 7.1).
    ChunkSize,
    /// A chunk extension that does not match the grammar (RFC 9112 section 7.1.1).
    ChunkExtension,
    /// Chunk extensions above `chunk_extension_bytes_max` (RFC 9112 section 7.1.1).
    ChunkExtensionTooLarge,
    /// Chunk data that no CRLF follows (RFC 9112 section 7.1).
    ChunkEnd,
    /// A trailer field that frames or routes the message (RFC 9110 section 6.5.1).
    TrailerForbidden,
    /// Trailers above `trailer_bytes_max` or `trailers_max` (RFC 6585 section 5).
    TrailersTooLarge,
}

impl Reject {
    /// The status to answer with.
    pub fn status(self) -> Status {
        match self {
            Self::MethodTooLong | Self::EncodingUnsupported => Status::NOT_IMPLEMENTED,
            Self::TargetTooLong => Status::URI_TOO_LONG,
            Self::VersionUnsupported => Status::HTTP_VERSION_NOT_SUPPORTED,
            Self::TooManyHeaders | Self::HeadTooLarge | Self::TrailersTooLarge => {
                Status::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::LengthRequired => Status::LENGTH_REQUIRED,
            Self::Expectation => Status::EXPECTATION_FAILED,
            Self::BodyTooLarge => Status::CONTENT_TOO_LARGE,
            _ => Status::BAD_REQUEST,
        }
    }

    /// What was wrong, in a few words: for a log, and for the body of the answer.
    pub fn reason(self) -> &'static str {
        match self {
            Self::EmptyLines => "more than one empty line before the request line",
            Self::BareCr => "CR without LF",
            Self::BareLf => "LF without CR",
            Self::RequestLine => "the request line is not method, target and version",
            Self::Method => "the method is not a token",
            Self::MethodTooLong => "the method is too long",
            Self::Target => "the request target has an invalid byte",
            Self::TargetForm => "the form of the request target does not fit the method",
            Self::TargetTooLong => "the request target is too long",
            Self::Version => "the version is malformed",
            Self::VersionUnsupported => "only HTTP/1.0 and HTTP/1.1 are supported",
            Self::FieldName => "a field name is not a token",
            Self::SpaceBeforeColon => "white space between field name and colon",
            Self::ObsFold => "a folded field line",
            Self::FieldValue => "a field value has a control character",
            Self::TooManyHeaders => "too many header fields",
            Self::HeadTooLarge => "the header section is too large",
            Self::HostMissing => "Host is missing",
            Self::HostRepeated => "more than one Host",
            Self::HostInvalid => "Host is invalid",
            Self::LengthInvalid => "Content-Length is not a number",
            Self::LengthRepeated => "more than one Content-Length",
            Self::LengthWithEncoding => "Content-Length with Transfer-Encoding",
            Self::LengthRequired => "a Content-Length is required",
            Self::EncodingUnsupported => "the transfer coding is not supported",
            Self::EncodingOnHttp10 => "Transfer-Encoding in an HTTP/1.0 request",
            Self::EncodingRepeated => "chunked more than once",
            Self::EncodingNotLast => "chunked is not the last transfer coding",
            Self::EncodingInvalid => "Transfer-Encoding is invalid",
            Self::Expectation => "the expectation is not supported",
            Self::BodyTooLarge => "the content is too large",
            Self::ChunkSize => "a chunk size is invalid",
            Self::ChunkExtension => "a chunk extension is invalid",
            Self::ChunkExtensionTooLarge => "the chunk extensions are too large",
            Self::ChunkEnd => "chunk data without its CRLF",
            Self::TrailerForbidden => "a trailer field that must be a header field",
            Self::TrailersTooLarge => "the trailer section is too large",
        }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason(), self.status().code())
    }
}

impl std::error::Error for Reject {}
