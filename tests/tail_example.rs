//! The example that follows a file, as its users meet it.

#[path = "support/example.rs"]
mod example;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use example::{Example, PATIENCE};

/// A folder where nothing else happens: no event comes but by what is done here.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("reev-tail-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("watched")).unwrap();
        Folder(path)
    }

    fn log(&self) -> PathBuf {
        self.0.join("watched").join("log")
    }

    /// A path that is not watched.
    fn elsewhere(&self) -> PathBuf {
        self.0.join("elsewhere")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn follow(path: &Path, errors: Stdio) -> Example {
    Example::start_with("tail", &["--file", path.to_str().unwrap()], errors)
}

fn to_append(path: &Path) -> File {
    File::options().append(true).open(path).unwrap()
}

/// The lines of a client that is accepted: the file, to which `file` is open, is written to until
/// it gets what is written, for what is appended before is not for it.
fn lines_of(tail: &Example, file: &mut File) -> impl Iterator<Item = String> + use<> {
    let mut client = tail.connect();
    client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut got = [0; 4];
    let began = Instant::now();
    while client.read_exact(&mut got).is_err() {
        assert!(began.elapsed() < PATIENCE, "nothing comes");
        file.write_all(b"new\n").unwrap();
    }
    assert_eq!(&got, b"new\n");
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let lines = BufReader::new(client).lines().map(io::Result::unwrap);
    lines.skip_while(|line| line == "new")
}

#[test]
fn tail_sends_what_is_appended_and_follows_a_new_file() {
    let folder = Folder::new("replaced");
    let (path, next) = (folder.log(), folder.elsewhere());
    fs::write(&path, "old\n").unwrap();
    let tail = follow(&path, Stdio::inherit());
    let mut file = to_append(&path);
    let mut lines = lines_of(&tail, &mut file);
    // The move is all that is told of a new file: its lines are read at once, after those of the
    // old one. Fault planted: the new file is opened and not read before the next event.
    for round in 0..5 {
        writeln!(file, "last {round}").unwrap();
        fs::write(&next, format!("rotated {round}\n")).unwrap();
        fs::rename(&next, &path).unwrap();
        file = to_append(&path);
        assert_eq!(lines.next().unwrap(), format!("last {round}"));
        assert_eq!(lines.next().unwrap(), format!("rotated {round}"));
    }
    // Nor is the move of a file that is replaced later. Fault planted: a new file is not watched.
    writeln!(file, "appended").unwrap();
    assert_eq!(lines.next().unwrap(), "appended");
}

/// Planted: only the folder of the path is watched.
#[test]
fn tail_follows_a_file_that_is_written_to_under_other_names() {
    for link in [std::os::unix::fs::symlink, fs::hard_link] {
        let folder = Folder::new("linked");
        fs::write(folder.elsewhere(), "old\n").unwrap();
        link(folder.elsewhere(), folder.log()).unwrap();
        let tail = follow(&folder.log(), Stdio::inherit());
        let mut file = to_append(&folder.elsewhere());
        let mut lines = lines_of(&tail, &mut file);
        file.write_all(b"a line\n").unwrap();
        assert_eq!(lines.next().unwrap(), "a line");
    }
}

/// Planted: as above; or a new file is not watched.
#[test]
fn tail_follows_a_file_that_is_moved_away_until_there_is_another() {
    let folder = Folder::new("moved");
    let path = folder.log();
    fs::write(&path, "old\n").unwrap();
    let tail = follow(&path, Stdio::inherit());
    let mut file = to_append(&path);
    let mut lines = lines_of(&tail, &mut file);
    fs::rename(&path, folder.elsewhere()).unwrap();
    file.write_all(b"moved\n").unwrap();
    assert_eq!(lines.next().unwrap(), "moved");
    fs::write(&path, "another\n").unwrap();
    assert_eq!(lines.next().unwrap(), "another");
    fs::rename(&path, folder.elsewhere()).unwrap();
    to_append(&folder.elsewhere()).write_all(b"moved too\n").unwrap();
    assert_eq!(lines.next().unwrap(), "moved too");
}

/// Planted: what cannot be read ends the following for good, and nobody is told.
#[test]
fn tail_goes_on_when_the_path_leads_to_a_file_again() {
    let folder = Folder::new("blocked");
    let path = folder.log();
    fs::write(&path, "old\n").unwrap();
    let mut tail = follow(&path, Stdio::piped());
    let errors = BufReader::new(tail.child.stderr.take().unwrap());
    let (sender, logged) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        errors.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    let logged = || logged.recv_timeout(PATIENCE).expect("a line is logged");
    let mut lines = lines_of(&tail, &mut to_append(&path));
    for round in 0..3 {
        fs::rename(&path, folder.elsewhere()).unwrap();
        fs::create_dir(&path).unwrap();
        let line = logged();
        assert!(line.ends_with("log: not a regular file"), "{line}");
        fs::remove_dir(&path).unwrap();
        fs::write(&path, format!("fresh {round}\n")).unwrap();
        assert_eq!(lines.next().unwrap(), format!("fresh {round}"));
    }
    if cfg!(target_os = "linux") {
        fs::rename(&path, folder.elsewhere()).unwrap();
        fs::remove_dir(path.parent().unwrap()).unwrap();
        let line = logged();
        assert!(line.contains("watched") && line.ends_with("gone"), "{line}");
    }
}

/// Planted: a folder is followed; a FIFO is waited for.
#[test]
fn tail_refuses_what_is_no_regular_file() {
    let folder = Folder::new("refused");
    let fifo = folder.elsewhere();
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [&folder.0, &fifo] {
        let mut command = example::command("tail");
        command.arg("--file").arg(path).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let began = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            } else if began.elapsed() > PATIENCE {
                child.kill().unwrap();
                break None;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let mut error = String::new();
        child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        assert_eq!(status.and_then(|status| status.code()), Some(1), "{error}");
        let says = format!("tail: {}: not a regular file\n", path.display());
        assert_eq!(error, says);
    }
}
