use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::conditional::{Validators, if_range, not_modified, precondition_failed};
use super::content_type::content_type;
use super::field::Fields;
use super::range::{ByteRange, ContentRange, byte_range};
use super::request::Request;
use super::respond::Response;
use super::status::Status;
use crate::sys::folder::open_beneath;

const PLAIN: Fields<'static> = Fields::new("Content-Type: text/plain; charset=utf-8\r\n");
const INDEX: &str = "index.html";

/// A folder of files to serve.
///
/// Nothing outside of it is served, whatever a path says: `..` is refused, encoded or not, and a
/// symbolic link is followed only if it stays inside, which the kernel checks (openat2(2); where
/// there is none, no link is followed). So are hidden files (a name with a dot in front, but for `.well-known`), and everything that is
/// no regular file. A folder is answered with its `index.html`; there are no listings.
///
/// Opening and reading wait for the disk, and the reactor with them: for files that fit in the
/// system's cache, or on reactors of their own.
///
/// ```no_run
/// use reev::http1::{Folder, Http1, Options, Request, Response, Service};
/// use std::rc::Rc;
///
/// struct Site(Rc<Folder>);
///
/// impl Service for Site {
///     fn on_request(&mut self, req: &Request<'_>, res: &mut Response<'_>) {
///         self.0.serve(req, res);
///     }
/// }
///
/// let mut server = reev::Server::new(reev::Config::default())?;
/// let listener = server.listen("127.0.0.1:8080")?;
/// server.run(move |reactor| {
///     let (http, folder) = (Http1::new(Options::default()), Rc::new(Folder::open("/srv/www")?));
///     reactor.accept(listener, move |_peer| http.connection(Site(folder.clone())))
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Folder {
    root: File,
}

impl Folder {
    /// Opens a folder. Renaming it later does not matter.
    ///
    /// # Errors
    /// What opening says; `NotADirectory`.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Folder> {
        let root = File::open(path)?;
        if !root.metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Folder { root })
    }

    /// Answers GET and HEAD by the request's path, and 405 to other methods.
    pub fn serve(&self, req: &Request<'_>, res: &mut Response<'_>) {
        self.serve_path(req.path(), req, res);
    }

    /// Answers with the file that `path` names: absolute, percent-encoded.
    pub fn serve_path(&self, path: &str, req: &Request<'_>, res: &mut Response<'_>) {
        if !matches!(req.method(), "GET" | "HEAD") {
            const ALLOW: Fields<'static> =
                Fields::new("Allow: GET, HEAD\r\nContent-Type: text/plain\r\n");
            return res.send(Status::METHOD_NOT_ALLOWED, ALLOW, b"only GET and HEAD\n");
        }
        let Some(mut name) = decode(path) else {
            return res.send(Status::NOT_FOUND, PLAIN, b"not found\n");
        };
        if name.is_empty() || name.ends_with('/') {
            name += INDEX;
        }
        let opened = open_beneath(self.root.as_fd(), &name);
        let found = opened.and_then(|file| file.metadata().map(|metadata| (file, metadata)));
        match found {
            Ok((_, metadata)) if metadata.is_dir() => redirect(req, res),
            Ok((file, metadata)) if metadata.is_file() => send_file(req, res, file, &name),
            Err(error) if is_shortage(&error) => {
                log::error!("opening {name:?}: {error}");
                res.send(Status::SERVICE_UNAVAILABLE, PLAIN, b"try again later\n");
            }
            _ => res.send(Status::NOT_FOUND, PLAIN, b"not found\n"),
        }
    }
}

/// Answers GET or HEAD with a file: 200, 206 to a Range, 304 or 412 to a condition, 416 to a range
/// that it does not have (RFC 9110 sections 13 and 14). The content type is that of `name`.
///
/// Its validators are its length and its time of change, so a file that is replaced has others.
///
/// ```no_run
/// use reev::http1::{Request, Response, Status, Fields, send_file};
/// use std::fs::File;
///
/// fn download(req: &Request<'_>, res: &mut Response<'_>) {
///     match File::open("/srv/report.pdf") {
///         Ok(file) => send_file(req, res, file, "report.pdf"),
///         Err(_) => res.send(Status::NOT_FOUND, Fields::NONE, b"not found\n"),
///     }
/// }
/// ```
pub fn send_file(req: &Request<'_>, res: &mut Response<'_>, file: File, name: &str) {
    let metadata = match file.metadata() {
        Ok(metadata) => metadata,
        Err(error) => {
            log::error!("asking for the length of {name:?}: {error}");
            return res.send(Status::INTERNAL_SERVER_ERROR, PLAIN, b"");
        }
    };
    let len = metadata.len();
    let changed = metadata.modified().ok();
    let since = changed.and_then(|changed| changed.duration_since(UNIX_EPOCH).ok());
    let etag = format!("\"{len:x}-{:x}\"", since.unwrap_or_default().as_nanos());
    let current =
        Validators { etag: Some(&etag), modified_unix_seconds: since.map(|since| since.as_secs()) };
    put(res, "ETag", &etag);
    if let Some(changed) = changed.filter(|_| since.is_some()) {
        put(res, "Last-Modified", httpdate::fmt_http_date(changed));
    }
    if precondition_failed(req.headers(), current) {
        return res.send(Status::PRECONDITION_FAILED, PLAIN, b"it has changed\n");
    }
    if not_modified(req.headers(), current) {
        return res.status(Status::NOT_MODIFIED).body(b"");
    }
    put(res, "Accept-Ranges", "bytes");
    let range = match req.header("range") {
        Some(value) if req.method() == "GET" && if_range(req.headers(), current) => {
            byte_range(value, len)
        }
        _ => ByteRange::Whole,
    };
    let part = match range {
        ByteRange::Whole => 0..len,
        ByteRange::Part { start, end } => {
            put(res, "Content-Range", ContentRange::part(start, end, len).as_bytes());
            res.status(Status::PARTIAL_CONTENT);
            start..end
        }
        ByteRange::Unsatisfiable => {
            put(res, "Content-Range", ContentRange::unsatisfiable(len).as_bytes());
            return res.send(Status::RANGE_NOT_SATISFIABLE, PLAIN, b"no such range\n");
        }
    };
    put(res, "Content-Type", content_type(name));
    res.file(file, part);
}

/// The fields here are made of numbers and constants, which are always accepted.
fn put(res: &mut Response<'_>, name: &str, value: impl AsRef<[u8]>) {
    if let Err(error) = res.header(name, value) {
        log::error!("{name}: {error}");
    }
}

/// A folder's name gets its slash, so that relative links in its index are right.
fn redirect(req: &Request<'_>, res: &mut Response<'_>) {
    let path = req.path();
    if path.starts_with("//") {
        // It would name another host.
        return res.send(Status::NOT_FOUND, PLAIN, b"not found\n");
    }
    let query = req.query().map(|query| format!("?{query}")).unwrap_or_default();
    put(res, "Location", format!("{path}/{query}"));
    res.send(Status::MOVED_PERMANENTLY, PLAIN, b"a folder\n");
}

fn is_shortage(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    matches!(code, Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EIO | libc::EAGAIN))
}

/// The relative path that a target's path names; None for one that is refused.
fn decode(path: &str) -> Option<String> {
    let mut bytes = path.strip_prefix('/')?.bytes();
    let mut name = Vec::with_capacity(path.len() + INDEX.len());
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let byte = (digit()? << 4 | digit()?) as u8;
                // An encoded slash is part of a name, and no file's name has one.
                if byte == b'/' {
                    return None;
                }
                byte
            }
            byte => byte,
        };
        name.push(byte);
    }
    let name = String::from_utf8(name).ok()?;
    let segments: Vec<&str> = name.strip_suffix('/').unwrap_or(&name).split('/').collect();
    let is_root = segments == [""] && !name.ends_with('/');
    let hidden = |segment: &str| segment.starts_with('.') && segment != ".well-known";
    let refused = name.bytes().any(|b| b.is_ascii_control() || b == b'\\')
        || segments.iter().any(|segment| segment.is_empty() || hidden(segment));
    (is_root || !refused).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_the_folder_are_refused_however_they_are_written() {
        for (path, name) in [
            ("/", Some("")),
            ("/a.txt", Some("a.txt")),
            ("/a/b%20c", Some("a/b c")),
            ("/a/", Some("a/")),
            ("/%C3%A9", Some("é")),
            ("/.well-known/x", Some(".well-known/x")),
            ("/a..b", Some("a..b")),
            ("/..", None),
            ("/../a", None),
            ("/a/../b", None),
            ("/a/..", None),
            ("/%2e%2e/a", None),
            ("/.%2E/a", None),
            ("/%2e", None),
            ("/a%2fb", None),
            ("/..%2fa", None),
            ("/%2e%2e%2fa", None),
            ("/..%5ca", None),
            ("/..\\a", None),
            ("/a%00", None),
            ("/a%0d%0ab", None),
            ("//a", None),
            ("//", None),
            ("/a//b", None),
            ("/.git/config", None),
            ("/a/.env", None),
            ("/%", None),
            ("/%2", None),
            ("/%zz", None),
            ("/%ff", None),
            ("/%+1", None),
            ("", None),
            ("*", None),
            ("a", None),
        ] {
            assert_eq!(decode(path).as_deref(), name, "{path}");
        }
    }
}
