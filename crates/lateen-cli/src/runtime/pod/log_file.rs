//! What containers write: into a file that is put aside when it is large, the oldest being dropped.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;

/// A file is put aside when it has this many bytes (the kubelet's default).
const MAX_FILE: u64 = 10 << 20;
/// So many files are kept beside the one being written.
const KEPT: u32 = 2;

/// Copies a pipe into `path` until all who write into it are gone. What cannot be written is dropped: a full disk must
/// not stop a container.
pub(crate) async fn collect(output: OwnedFd, path: PathBuf) {
    let Ok(mut output) = pipe::Receiver::from_owned_fd(output) else { return };
    let mut log = None;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = match output.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(length) => length,
        };
        if log.is_none() {
            log = open(&path).await.ok();
        }
        let Some((file, written)) = &mut log else { continue };
        if file.write_all(&buffer[..length]).await.is_err() || file.flush().await.is_err() {
            log = None;
            continue;
        }
        *written += length as u64;
        if *written >= MAX_FILE {
            log = None;
            rotate(&path).await;
        }
    }
}

async fn open(path: &Path) -> io::Result<(tokio::fs::File, u64)> {
    if let Some(folder) = path.parent() {
        tokio::fs::create_dir_all(folder).await?;
    }
    let file = tokio::fs::File::options().create(true).append(true).open(path).await?;
    let length = file.metadata().await?.len();
    Ok((file, length))
}

async fn rotate(path: &Path) {
    let numbered = |number: u32| PathBuf::from(format!("{}.{number}", path.display()));
    for number in (1..KEPT).rev() {
        let _ = tokio::fs::rename(numbered(number), numbered(number + 1)).await;
    }
    let _ = tokio::fs::rename(path, numbered(1)).await;
}

/// The last `count` lines of a file, reading at most its last megabyte.
pub(crate) fn tail(path: &Path, count: usize) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(1 << 20)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut last: VecDeque<&str> = VecDeque::with_capacity(count.min(1024));
    for line in text.lines() {
        if last.len() == count {
            last.pop_front();
        }
        if count > 0 {
            last.push_back(line);
        }
    }
    let mut out = String::new();
    for line in last {
        out.push_str(line);
        out.push('\n');
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_last_lines_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "one\ntwo\nthree\n").unwrap();
        assert_eq!(tail(&path, 2).unwrap(), "two\nthree\n");
        assert_eq!(tail(&path, 9).unwrap(), "one\ntwo\nthree\n");
        assert_eq!(tail(&path, 0).unwrap(), "");
    }

    #[tokio::test]
    async fn a_large_log_is_put_aside_and_old_ones_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ns/pod/app.log");
        let (reader, mut writer) = io::pipe().unwrap();
        let collecting = tokio::spawn(collect(reader.into(), path.clone()));
        let writing = tokio::task::spawn_blocking(move || {
            let block = vec![b'x'; 1 << 20];
            for _ in 0..45 {
                writer.write_all(&block).unwrap();
            }
        });
        writing.await.unwrap();
        collecting.await.unwrap();
        let length = |name: &str| std::fs::metadata(path.with_file_name(name)).map(|file| file.len());
        assert!(length("app.log.1").unwrap() >= MAX_FILE && length("app.log.2").unwrap() >= MAX_FILE);
        assert!(length("app.log.3").is_err(), "the oldest is dropped");
        assert!(length("app.log").unwrap() < MAX_FILE);
    }
}
