//! Files that a crash may not leave half, and that nobody else may read.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Writes beside the target and renames; both the bytes and the name are on the disk when this returns.
/// # Errors
/// A disk that does not take it.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a path without a folder"))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = folder.join(format!(".{name}.{:016x}", rand::random::<u64>()));
    let written = write(&draft, bytes, mode).and_then(|()| std::fs::rename(&draft, path));
    if written.is_err() {
        // What failed is said; that the draft could not be removed either adds nothing.
        let _ = std::fs::remove_file(&draft);
    }
    written?;
    File::open(folder)?.sync_all()
}

/// Checks that nobody but its owner can read a file: whoever has a key may have used it.
///
/// # Errors
/// Others can read it, or nobody can say.
pub fn check_private(path: &Path) -> io::Result<()> {
    let mode = std::fs::metadata(path)?.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let reason = format!("its mode is {mode:04o}: others could read this key; 0600 is expected (chmod 600)");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, reason))
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
