//! What containers write, each line with its time: into a file that is put aside when it is large, the oldest being
//! dropped, and when the container is started again.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;

/// A file is put aside when it has this many bytes (the kubelet's default).
const MAX_FILE: u64 = 10 << 20;
/// So many files are kept beside the one being written.
const KEPT: u32 = 2;

/// Bytes of the time at the beginning of a line, with the space behind it: `2026-11-27T12:00:00.000000Z `.
pub(crate) const STAMP: usize = 28;
/// The longest end of a file that is looked at for its last lines.
const MAX_END: u64 = 1 << 20;

/// What a line looks like in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As it was written.
    Plain,
    /// Behind its time.
    Timed,
}

/// Copies a pipe into `path` until all who write into it are gone. What cannot be written is dropped: a full disk must
/// not stop a container.
pub(crate) async fn collect(output: OwnedFd, path: PathBuf, form: Form) {
    let Ok(mut output) = pipe::Receiver::from_owned_fd(output) else { return };
    let mut log = None;
    let mut buffer = vec![0; 64 << 10];
    let (mut stamped, mut at_start) = (Vec::new(), true);
    loop {
        let length = match output.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(length) => length,
        };
        if log.is_none() {
            log = open(&path).await.ok();
        }
        let Some((file, written)) = &mut log else { continue };
        let bytes = match form {
            Form::Plain => &buffer[..length],
            Form::Timed => {
                stamped.clear();
                stamp(&buffer[..length], &mut at_start, &mut stamped);
                stamped.as_slice()
            }
        };
        if file.write_all(bytes).await.is_err() || file.flush().await.is_err() {
            log = None;
            continue;
        }
        *written += bytes.len() as u64;
        if *written >= MAX_FILE {
            log = None;
            rotate(&path).await;
        }
    }
}

fn stamp(bytes: &[u8], at_start: &mut bool, out: &mut Vec<u8>) {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ ").to_string();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if *at_start {
            out.extend_from_slice(now.as_bytes());
        }
        out.extend_from_slice(line);
        *at_start = line.ends_with(b"\n");
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

/// The file of the run before the last restart.
pub(crate) fn previous(path: &Path) -> PathBuf {
    path.with_extension("previous.log")
}

/// Makes the file of a run that has ended the previous one.
pub(crate) fn put_aside(path: &Path) {
    // What was put aside for its size is older still.
    for number in 1..=KEPT {
        let _ = fs::remove_file(format!("{}.{number}", path.display()));
    }
    let _ = fs::rename(path, previous(path));
}

/// Where the last `count` lines of a file are now, looking at most at its last megabyte: more may come meanwhile.
pub(crate) fn last(file: &mut File, count: usize) -> io::Result<Range<u64>> {
    let length = file.metadata()?.len();
    let from = length.saturating_sub(MAX_END);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(length - from).read_to_end(&mut bytes)?;
    let mut starts = vec![0];
    starts.extend(bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1));
    // No line begins behind the last line's end.
    if starts.last() == Some(&bytes.len()) {
        starts.pop();
    }
    let start = match count.checked_sub(1) {
        Some(before) => starts.iter().rev().nth(before).copied().unwrap_or(0),
        None => bytes.len(),
    };
    Ok(from + start as u64..from + bytes.len() as u64)
}

/// The last `count` lines of a file, without times.
pub(crate) fn tail(path: &Path, count: usize, form: Form) -> io::Result<String> {
    let mut file = File::open(path)?;
    let last = last(&mut file, count)?;
    file.seek(SeekFrom::Start(last.start))?;
    let mut bytes = Vec::new();
    file.take(last.end - last.start).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let line = |line: &str| match form {
        Form::Plain => format!("{line}\n"),
        Form::Timed => format!("{}\n", line.get(STAMP..).unwrap_or_default()),
    };
    Ok(text.lines().map(line).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_last_lines_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "one\ntwo\nthree\n").unwrap();
        assert_eq!(tail(&path, 2, Form::Plain).unwrap(), "two\nthree\n");
        assert_eq!(tail(&path, 9, Form::Plain).unwrap(), "one\ntwo\nthree\n");
        assert_eq!(tail(&path, 0, Form::Plain).unwrap(), "");
        fs::write(&path, "").unwrap();
        assert_eq!(tail(&path, 2, Form::Plain).unwrap(), "");
    }

    #[test]
    fn what_comes_while_lines_are_counted_is_none_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "one\ntwo\n").unwrap();
        let mut file = File::open(&path).unwrap();
        let last = last(&mut file, 1).unwrap();
        File::options().append(true).open(&path).unwrap().write_all(b"three\n").unwrap();
        assert_eq!(last, 4..8);
    }

    #[tokio::test]
    async fn lines_get_their_time_once_and_a_run_that_ended_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.log");
        for run in ["first", "second"] {
            put_aside(&path);
            let (reader, mut writer) = io::pipe().unwrap();
            let collecting = tokio::spawn(collect(reader.into(), path.clone(), Form::Timed));
            for piece in [run, " on", "e\ntwo\n", "half"] {
                writer.write_all(piece.as_bytes()).unwrap();
                tokio::task::yield_now().await;
            }
            drop(writer);
            collecting.await.unwrap();
        }
        assert_eq!(tail(&path, 9, Form::Timed).unwrap(), "second one\ntwo\nhalf\n");
        assert_eq!(tail(&previous(&path), 9, Form::Timed).unwrap(), "first one\ntwo\nhalf\n");
        let text = fs::read_to_string(&path).unwrap();
        for line in text.lines() {
            line[..STAMP - 1].parse::<jiff::Timestamp>().unwrap();
        }
    }

    #[tokio::test]
    async fn a_large_log_is_put_aside_and_old_ones_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ns/pod/app.log");
        let (reader, mut writer) = io::pipe().unwrap();
        let collecting = tokio::spawn(collect(reader.into(), path.clone(), Form::Plain));
        let writing = tokio::task::spawn_blocking(move || {
            let block = vec![b'x'; 1 << 20];
            for _ in 0..45 {
                writer.write_all(&block).unwrap();
            }
        });
        writing.await.unwrap();
        collecting.await.unwrap();
        let length = |name: &str| fs::metadata(path.with_file_name(name)).map(|file| file.len());
        assert!(length("app.log.1").unwrap() >= MAX_FILE && length("app.log.2").unwrap() >= MAX_FILE);
        assert!(length("app.log.3").is_err(), "the oldest is dropped");
        assert!(length("app.log").unwrap() < MAX_FILE);
    }
}
