//! Which listening socket of an SO_REUSEPORT group gets a new connection (socket(7), Linux).
//!
//! The kernel asks a classic BPF program for an index into the group, in the order in which its
//! sockets began to listen; an index out of range means: choose by hash. Closing a socket moves
//! the last one to its index.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use socket2::{SockFilter, SockRef};

/// The rule for a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Steering {
    /// Indexes for connections whose packets a given CPU handles, one of them at random.
    pub(crate) by_cpu: Vec<(u32, Vec<u32>)>,
    /// Indexes that share all other connections, at random.
    pub(crate) others: Vec<u32>,
}

const SO_ATTACH_REUSEPORT_CBPF: libc::c_int = 51;
const SO_DETACH_REUSEPORT_BPF: libc::c_int = 68;

/// The program jumps over what it does for a CPU, and a jump is at most 255 statements.
const INDEXES_PER_CPU_MAX: usize = 64;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
const MODULO: u16 = (libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

fn statement(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

/// If the accumulator is `value`, the next `body` statements run, else they are skipped.
fn if_equal(value: u32, body: usize) -> libc::sock_filter {
    debug_assert!(body <= usize::from(u8::MAX), "a jump of more than 255 statements");
    libc::sock_filter { code: JUMP_EQUAL, jt: 0, jf: body as u8, k: value }
}

fn ancillary(offset: i32) -> libc::sock_filter {
    statement(LOAD, (libc::SKF_AD_OFF + offset) as u32)
}

/// Answers one of `indexes`, at random.
fn any_of(indexes: &[u32]) -> Vec<libc::sock_filter> {
    let Some((&last, rest)) = indexes.split_last() else {
        return vec![statement(RETURN, u32::MAX)];
    };
    let mut program = Vec::new();
    if !rest.is_empty() {
        program.push(ancillary(libc::SKF_AD_RANDOM));
        program.push(statement(MODULO, indexes.len() as u32));
    }
    for (i, &index) in rest.iter().enumerate() {
        program.extend([if_equal(i as u32, 1), statement(RETURN, index)]);
    }
    program.push(statement(RETURN, last));
    program
}

fn program(steering: &Steering) -> Vec<libc::sock_filter> {
    let mut program = Vec::new();
    if !steering.by_cpu.is_empty() {
        program.push(ancillary(libc::SKF_AD_CPU));
        for (cpu, indexes) in &steering.by_cpu {
            let body = any_of(&indexes[..indexes.len().min(INDEXES_PER_CPU_MAX)]);
            program.push(if_equal(*cpu, body.len()));
            program.extend(body);
        }
    }
    program.extend(any_of(&steering.others));
    program
}

/// Goes back to the kernel's hash.
pub(crate) fn forget(fd: BorrowedFd<'_>) -> io::Result<()> {
    let zero = 0i32;
    // SAFETY: the option value is an int that lives through the call.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_DETACH_REUSEPORT_BPF,
            (&raw const zero).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Applies the rule to the group that `fd` is in.
pub(crate) fn steer(fd: BorrowedFd<'_>, steering: &Steering) -> io::Result<()> {
    let mut program = program(steering);
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the option value is a sock_fprog whose program is as long as it says; both live
    // through the call, which copies them.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_ATTACH_REUSEPORT_CBPF,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has the kernel drop requests for new connections to a listening TCP socket, so that clients
/// ask again a second later, while those under way complete: SYN without ACK is dropped.
pub(crate) fn ignore_new(fd: BorrowedFd<'_>) -> io::Result<()> {
    const FLAGS_OFFSET: u32 = 13; // of the TCP header, RFC 9293 section 3.1
    const SYN: u32 = 0x02;
    const SYN_AND_ACK: u32 = 0x12;
    let filter = [
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_OFFSET),
        SockFilter::new(AND, 0, 0, SYN_AND_ACK),
        SockFilter::new(JUMP_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    SockRef::from(&fd).attach_filter(&filter)
}

/// Ends [`ignore_new`].
pub(crate) fn heed_new(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).detach_filter()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program answers on `cpu` with the random number `random`.
    fn run(program: &[libc::sock_filter], cpu: u32, random: u32) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            match step.code {
                LOAD if step.k == (libc::SKF_AD_OFF + libc::SKF_AD_CPU) as u32 => accumulator = cpu,
                LOAD => accumulator = random,
                MODULO => accumulator %= step.k,
                JUMP_EQUAL if accumulator == step.k => at += usize::from(step.jt),
                JUMP_EQUAL => at += usize::from(step.jf),
                RETURN => return step.k,
                other => panic!("unexpected code {other}"),
            }
        }
    }

    #[test]
    fn the_program_is_the_rule() {
        let rule = Steering { by_cpu: vec![(3, vec![1]), (5, vec![0, 7])], others: vec![0, 1, 4] };
        let program = program(&rule);
        assert_eq!(run(&program, 3, 0), 1);
        assert_eq!([0, 1, 2].map(|random| run(&program, 5, random)), [0, 7, 0]);
        assert_eq!([0, 1, 2, 3].map(|random| run(&program, 9, random)), [0, 1, 4, 0]);
        let nobody = Steering { by_cpu: Vec::new(), others: Vec::new() };
        assert_eq!(run(&super::program(&nobody), 0, 0), u32::MAX);
    }
}
