//! The paths of Unix listeners: what is unlinked, by whom, and when.

use super::*;

/// Planted: any file is unlinked.
#[test]
fn hard_case_27_what_is_not_a_socket_is_never_unlinked() {
    let folder = Folder::new("not-a-socket");
    let (path, addr) = folder.socket();
    let mut server = Server::new(reactors(1)).unwrap();
    fs::write(&path, "precious").unwrap();
    refused(server.listen(&addr), io::ErrorKind::AlreadyExists, &["not a socket"]);
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    refused(server.listen(&addr), io::ErrorKind::AlreadyExists, &["not a socket"]);
    assert!(path.is_dir());
    // Nor what a link points to.
    fs::remove_dir(&path).unwrap();
    let target = folder.0.join("target");
    drop(UnixListener::bind(&target).unwrap());
    std::os::unix::fs::symlink(&target, &path).unwrap();
    refused(server.listen(&addr), io::ErrorKind::AlreadyExists, &["not a socket"]);
    assert!(target.exists());
}

/// Planted: an old path is never unlinked; it is, though somebody listens.
#[test]
fn hard_case_27_a_stale_path_is_replaced_and_a_live_one_is_not() {
    let folder = Folder::new("stale");
    let (path, addr) = folder.socket();
    let mut server = Server::new(reactors(1)).unwrap();
    let live = UnixListener::bind(&path).unwrap();
    refused(server.listen(&addr), io::ErrorKind::AddrInUse, &["in use"]);
    let client = UnixStream::connect(&path).unwrap();
    assert!(path.exists());
    drop((live, client));
    let id = server.listen(&addr).unwrap();
    let running = server.start(move |reactor| reactor.accept(id, |_| Echo)).unwrap();
    echo_unix(&SockAddr::unix(&path).unwrap());
    running.handle().stop();
    running.join().unwrap();
    assert!(!path.exists());
}

/// A server that lives, but whose backlog is full, is asked without waiting for it. Planted:
/// a connect that blocks.
#[test]
fn hard_case_27_a_live_server_that_does_not_accept() {
    let folder = Folder::new("busy");
    let (path, addr) = folder.socket();
    let live = Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    live.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    live.listen(1).unwrap();
    let mut waiting = Vec::new();
    loop {
        let client = Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        if client.connect(&SockAddr::unix(&path).unwrap()).is_err() {
            break;
        }
        waiting.push(client);
    }
    let (told, result) = mpsc::channel();
    std::thread::spawn(move || {
        let mut server = Server::new(reactors(1)).unwrap();
        let _ = told.send(server.listen(&addr).map_err(|error| error.kind()));
    });
    let result = result.recv_timeout(Duration::from_secs(20)).expect("it does not wait");
    assert_eq!(result, Err(io::ErrorKind::AddrInUse));
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
}

/// Planted: the path is removed whosever it is.
#[test]
fn hard_case_27_only_our_own_inode_is_removed() {
    let folder = Folder::new("inode");
    let (path, addr) = folder.socket();
    let mut server = Server::new(reactors(1)).unwrap();
    server.listen(&addr).unwrap();
    // Somebody moves the path away and puts another server's there.
    fs::rename(&path, folder.0.join("moved")).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    let inode = fs::symlink_metadata(&path).unwrap().ino();
    drop(server);
    assert_eq!(fs::symlink_metadata(&path).unwrap().ino(), inode);
}

/// Planted: the path goes when `Running` is dropped, though the reactors go on.
#[test]
fn hard_case_27_the_path_lives_as_long_as_the_reactors() {
    let folder = Folder::new("dropped");
    let (path, addr) = folder.socket();
    let mut server = Server::new(reactors(2)).unwrap();
    let id = server.listen(&addr).unwrap();
    let running = server.start(move |reactor| reactor.accept(id, |_| Echo)).unwrap();
    let handle = running.handle();
    drop(running);
    echo_unix(&SockAddr::unix(&path).unwrap());
    handle.stop();
    until("the path is removed", || !path.exists());
}
