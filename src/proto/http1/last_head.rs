use super::date::{BLOCK, DateCache};
use super::field::Fields;
use super::request::Reply;
use super::response::ResponseHead;
use super::status::Status;

/// The head of the last 200 that a reactor sent, for the next one: most differ in their content
/// alone, and a copy costs less than putting the same head together.
#[derive(Debug, Default)]
pub(super) struct LastHead {
    bytes: Vec<u8>,
    fields_len: usize,
    content_len: usize,
}

impl LastHead {
    /// The date has changed.
    pub(super) fn forget(&mut self) {
        self.bytes.clear();
    }

    /// Writes a usual answer of status 200.
    #[inline]
    pub(super) fn put(
        &mut self,
        out: &mut Vec<u8>,
        fields: Fields<'_>,
        content: &[u8],
        reply: Reply,
        date: &DateCache,
    ) {
        let same = self.content_len == content.len()
            && self.bytes.get(BLOCK..BLOCK + self.fields_len) == Some(fields.as_bytes());
        if !same {
            self.compose(fields, content.len(), reply, date);
        }
        out.extend_from_slice(&self.bytes);
        out.extend_from_slice(content);
    }

    fn compose(&mut self, fields: Fields<'_>, content_len: usize, reply: Reply, date: &DateCache) {
        self.bytes.clear();
        (self.fields_len, self.content_len) = (fields.as_bytes().len(), content_len);
        let mut head = ResponseHead::start(&mut self.bytes, Status::OK, reply, date);
        head.fields(fields);
        let _ = head.length(content_len as u64); // the content is written beside it
    }
}
