//! Where a bench runs: in the folder of the project, whatever package cargo runs it for, so that the paths of flags
//! are taken from there.

use std::path::Path;
use std::{env, io};

pub fn enter() -> io::Result<()> {
    env::set_current_dir(folder())
}

pub fn folder() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}
