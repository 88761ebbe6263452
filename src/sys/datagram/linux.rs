//! What Linux alone does with datagrams: cut up and join messages, and tell of ICMP errors.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{msghdr, sockaddr_storage, socklen_t};

use super::super::net::{addr_from, retry, set_option};
use super::Control;
use crate::addr::Addr;
use crate::config::DATAGRAM_BATCH_MAX;
use crate::datagram::DatagramOptions;

/// The length of the datagrams that were joined in a message, or 0 (UDP_GRO, udp(7)).
pub(super) fn segment_of(header: &msghdr) -> usize {
    let mut segment = 0;
    each_control(header, |level, kind, data| {
        if level == libc::SOL_UDP && kind == libc::UDP_GRO && data.len() >= 4 {
            segment = i32::from_ne_bytes([data[0], data[1], data[2], data[3]]) as usize;
        }
    });
    segment
}

/// Asks for ICMP errors and for joined datagrams.
pub(super) fn set_options(
    fd: BorrowedFd<'_>,
    v6: bool,
    options: &DatagramOptions,
) -> io::Result<()> {
    if options.icmp_errors {
        set_option(fd, libc::IPPROTO_IP, libc::IP_RECVERR, 1)?;
        if v6 {
            set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)?;
        }
    }
    if options.gro {
        set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 1)?;
    }
    Ok(())
}

/// Calls `found` with each piece of control data that the kernel wrote for `header`.
fn each_control(header: &msghdr, mut found: impl FnMut(i32, i32, &[u8])) {
    // SAFETY: the header's control data is a live buffer that the kernel has filled as far as
    // its length says, and the macros stay within it; what they point at is read and not kept.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while let Some(head) = control.as_ref() {
            #[allow(clippy::unnecessary_cast, reason = "it is not a size_t everywhere")]
            let len = (head.cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
            let data = std::slice::from_raw_parts(libc::CMSG_DATA(control), len);
            found(head.cmsg_level, head.cmsg_type, data);
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
}

/// Control data that has the kernel cut a message into segments; its length.
pub(super) fn write_segment(control: &mut Control, segment: u16) -> usize {
    let size = size_of::<u16>() as libc::c_uint;
    let header = (&raw mut *control).cast::<libc::cmsghdr>();
    // SAFETY: the buffer is aligned for a header, and large enough for one with a u16 behind it.
    unsafe {
        (*header).cmsg_level = libc::SOL_UDP;
        (*header).cmsg_type = libc::UDP_SEGMENT;
        (*header).cmsg_len = libc::CMSG_LEN(size) as _;
        libc::CMSG_DATA(header).cast::<u16>().write_unaligned(segment);
        libc::CMSG_SPACE(size) as usize
    }
}

/// Takes the errors that have come for datagrams sent before (IP_RECVERR, ip(7)), at most
/// `DATAGRAM_BATCH_MAX`: each error, and the address that the datagram was for.
pub(crate) fn take_errors(fd: BorrowedFd<'_>, mut tell: impl FnMut(io::Error, Addr)) {
    for _ in 0..DATAGRAM_BATCH_MAX {
        // SAFETY: all-zero values of these are valid: nothing is pointed at.
        let (mut header, mut name): (msghdr, sockaddr_storage) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        let mut control = Control([0; 128]);
        header.msg_name = (&raw mut name).cast();
        header.msg_namelen = size_of::<sockaddr_storage>() as socklen_t;
        header.msg_control = (&raw mut control).cast();
        header.msg_controllen = size_of::<Control>() as _;
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        // SAFETY: the name and the control data are as large as the header says and live through
        // the call.
        if retry(|| unsafe { libc::recvmsg(fd.as_raw_fd(), &mut header, flags) }).is_err() {
            return;
        }
        let to = addr_from(&name, header.msg_namelen as usize);
        each_control(&header, |level, kind, data| {
            let of_ip = (level, kind) == (libc::IPPROTO_IP, libc::IP_RECVERR);
            let of_ipv6 = (level, kind) == (libc::IPPROTO_IPV6, libc::IPV6_RECVERR);
            // `sock_extended_err` begins with the error's number.
            if let (true, Some(&errno)) = (of_ip || of_ipv6, data.first_chunk::<4>()) {
                tell(io::Error::from_raw_os_error(i32::from_ne_bytes(errno)), to.clone());
            }
        });
    }
}
