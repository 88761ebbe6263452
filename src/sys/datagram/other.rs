//! Systems other than Linux cut up and join nothing, and tell of ICMP errors on connected sockets
//! alone, as errors of their calls.

use std::io;
use std::os::fd::BorrowedFd;

use libc::msghdr;

use super::Control;
use crate::addr::Addr;
use crate::datagram::DatagramOptions;

pub(super) fn segment_of(_header: &msghdr) -> usize {
    0
}

/// Both options say that they are for Linux.
pub(super) fn set_options(
    _fd: BorrowedFd<'_>,
    _v6: bool,
    _options: &DatagramOptions,
) -> io::Result<()> {
    Ok(())
}

/// Not called, since nothing is joined to be cut up ([`super::CUTS_UP`]).
pub(super) fn write_segment(_control: &mut Control, _segment: u16) -> usize {
    0
}

pub(crate) fn take_errors(_fd: BorrowedFd<'_>, _tell: impl FnMut(io::Error, Addr)) {}
