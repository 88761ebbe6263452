//! A server in a process of its own, where both ends of all its connections would be more files than a process may open.
//! Each line it is sent is answered with what its threads have used.

use crate::host::Host;
use crate::servers::Server;
use crate::site::Usage;
use crate::sys;
use crate::workload::Workload;
use std::env;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

pub struct Apart {
    pub addr: SocketAddr,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// The child's side: serves until its standard input ends.
pub fn serve(
    server: &'static Server,
    workload: &Workload,
    core: Option<usize>,
    open_files: u64,
) -> io::Result<()> {
    sys::raise_open_files(open_files)?;
    let asked = server.asked(workload).ok_or(ErrorKind::Unsupported)?;
    let host = Host::start(server, &asked, core)?;
    println!("{}", host.addr);
    for line in io::stdin().lines() {
        line?;
        let Usage { cpu, sleeps, preemptions } = host.usage()?;
        println!("{} {sleeps} {preemptions}", cpu.as_nanos());
    }
    host.stop()
}

impl Apart {
    pub fn start(server: &Server, workload: &Workload, core: Option<usize>) -> io::Result<Apart> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["--serve", server.name, "--only", workload.name]);
        command.args(["--reactors", &workload.reactors.to_string()]);
        if let Some(core) = core {
            command.args(["--core", &core.to_string()]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take();
        let output =
            child.stdout.take().ok_or_else(|| io::Error::other("no pipe from the child"))?;
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut apart = Apart { addr, child, input, output: BufReader::new(output) };
        apart.addr = apart.line()?.parse().map_err(io::Error::other)?;
        Ok(apart)
    }

    pub fn usage(&mut self) -> io::Result<Usage> {
        let input = self.input.as_mut().ok_or(ErrorKind::BrokenPipe)?;
        input.write_all(b"\n")?;
        let line = self.line()?;
        let fields: Vec<u64> = line.split(' ').filter_map(|field| field.parse().ok()).collect();
        let [cpu, sleeps, preemptions] = fields[..] else {
            return Err(io::Error::other(format!("the child said {line:?}")));
        };
        Ok(Usage { cpu: Duration::from_nanos(cpu), sleeps, preemptions })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.output.read_line(&mut line)? {
            0 => Err(io::Error::other("the server's process has ended")),
            _ => Ok(line.trim().to_owned()),
        }
    }

    pub fn stop(mut self) -> io::Result<()> {
        self.input = None;
        let status = self.child.wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!("the server's process ended with {status}")))
        }
    }
}

/// After an error: nobody waits for what it still does.
impl Drop for Apart {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
