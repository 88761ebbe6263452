//! The proactor: submit reads and writes, wait for completions.
//!
//! Some programs want the inverse of callbacks: they have connections of their own, say what is
//! to be read and written, and take the outcomes in a loop of their own. A [`Watcher`] is one
//! reactor on a thread of its own that does the waiting; what is submitted to it through a
//! [`Conn`] comes back, buffer and context included, from [`Watcher::wait`].
//!
//! ```
//! use std::io::Write;
//! use std::net::{TcpListener, TcpStream};
//!
//! use reev::proactor::Watcher;
//!
//! # fn main() -> std::io::Result<()> {
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let mut client = TcpStream::connect(listener.local_addr()?)?;
//! let mut watcher = Watcher::new()?;
//! let conn = watcher.delegate(listener.accept()?.0)?;
//!
//! conn.read("the greeting", None)?; // into the watcher's own buffer
//! client.write_all(b"hello")?;
//! let mut completions = watcher.wait()?;
//! let read = completions.next().expect("wait gives at least one");
//! assert_eq!(read.context, "the greeting");
//! assert_eq!(read.data(), b"hello");
//! # Ok(())
//! # }
//! ```
//!
//! **Back-pressure is the caller's**: without a read submitted, nothing is read and the peer is
//! stopped by its window. **Order**: reads of a connection complete in the order submitted, and
//! so do its writes; a read and a write are independent. **Deadlines** belong to an operation,
//! not to the connection. Several watchers share load; each can be pinned to a core.

mod completion;
mod conn;
mod endpoint;
mod link;
mod operation;
mod outbox;
mod porter;
mod shared;
mod watcher;

pub use completion::{Completion, Completions, Kind};
pub use conn::{Conn, Refused};
pub use operation::Deadline;
pub use watcher::{Delegator, Watcher, WatcherConfig};
