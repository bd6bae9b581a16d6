//! Streaming the payload into an update module: it reads names from `stream-next` and each file from a FIFO of its own.
//!
//! Everything here is done by one thread that never blocks: a FIFO is opened when somebody reads it, and written when
//! there is room. So a module that does not read, ends in the middle, or leaves a child behind with the FIFO open holds up
//! nobody for longer than its time.
//!
//! A module never sees the end of a file whose checksum is wrong: it is killed before its FIFO is closed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use client_core::artifact::{ArtifactError, PayloadFile, PayloadReader};
use client_core::clock::Clock;
use client_core::install::Progress;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::payload_tree::{PROGRESS_BYTES, Tree};
use crate::process_group::ProcessGroup;

const NEXT: &str = "stream-next";
const STREAMS: &str = "streams";
/// Asked for as the size of a FIFO, in bytes; the kernel may give less.
const FIFO_BYTES: i32 = 1 << 20;
/// Time between two looks whether somebody reads a FIFO, at first and at most.
const LOOK: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(20)];
/// Longest wait for room in a FIFO before it is looked whether the module is still there.
const ROOM_MILLISECONDS: u16 = 50;

/// How the module took what was streamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// All of it, and it was told that there is no more.
    All,
    /// It never asked for a name.
    Nothing,
    /// It has ended, or its time is over, in the middle.
    Part,
}

/// Why streaming stopped.
#[derive(Debug)]
pub(crate) enum StreamError {
    /// The artifact is bad. The module has been killed.
    Artifact(ArtifactError),
    /// The module closed a file before its end.
    ClosedEarly {
        /// The file.
        file: String,
    },
    /// A FIFO cannot be used.
    Io(io::Error),
}

impl From<io::Error> for StreamError {
    fn from(error: io::Error) -> StreamError {
        StreamError::Io(error)
    }
}

/// The FIFOs of one download.
pub(crate) struct Streams<'s> {
    tree: &'s Tree,
    with_sizes: bool,
    deadline: Instant,
    clock: &'s dyn Clock,
}

impl<'s> Streams<'s> {
    /// Makes the FIFO that the module reads names from. `with_sizes` adds the size of each file to its name.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn new(
        tree: &'s Tree,
        with_sizes: bool,
        timeout: Duration,
        clock: &'s dyn Clock,
    ) -> io::Result<Streams<'s>> {
        make_fifo(&tree.path(NEXT))?;
        crate::atomic_file::create_private_directory(&tree.path(STREAMS))?;
        Ok(Streams { tree, with_sizes, deadline: Instant::now() + timeout, clock })
    }

    /// Streams all files. The module that reads them is `group`.
    ///
    /// # Errors
    /// When the artifact is bad, or the module closes a file early.
    pub(crate) fn feed(
        &self,
        payload: &mut PayloadReader,
        group: &mut ProcessGroup,
        progress: &mut dyn Progress,
    ) -> Result<Taken, StreamError> {
        let mut asked = false;
        loop {
            let Some(mut next) = self.open(&self.tree.path(NEXT), group)? else {
                return Ok(if asked { Taken::Part } else { Taken::Nothing });
            };
            asked = true;
            let mut file = match payload.next_file() {
                Ok(Some(file)) => file,
                // Closed without a name: that is how the module learns that there is no more. Behind this the whole
                // artifact has been read and was right.
                Ok(None) => return Ok(Taken::All),
                Err(error) => {
                    group.kill();
                    return Err(StreamError::Artifact(error));
                }
            };
            let name = format!("{STREAMS}/{}", file.name());
            // Before its name is told: who hears of it must find it.
            make_fifo(&self.tree.path(&name))?;
            let line =
                if self.with_sizes { format!("{name} {}\n", file.size()) } else { format!("{name}\n") };
            // Shorter than the least that a FIFO takes at once, and this one is empty.
            match next.write_all(line.as_bytes()) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Taken::Part),
                written => written?,
            }
            drop(next);
            let Some(fifo) = self.open(&self.tree.path(&name), group)? else { return Ok(Taken::Part) };
            if !self.pump(&mut file, &fifo, group, progress)? {
                return Ok(Taken::Part);
            }
        }
    }

    /// Writes one file. Whether it was written to its end.
    fn pump(
        &self,
        file: &mut PayloadFile<'_>,
        mut fifo: &File,
        group: &mut ProcessGroup,
        progress: &mut dyn Progress,
    ) -> Result<bool, StreamError> {
        // Best effort: fewer changes between the two processes.
        let _ = fcntl(fifo, FcntlArg::F_SETPIPE_SZ(FIFO_BYTES));
        let total_bytes = file.size();
        let mut done_bytes = 0;
        loop {
            let bytes = match file.fill_buf() {
                Ok(bytes) => bytes,
                Err(error) => {
                    // The FIFO is still open: the module cannot have taken this for the end.
                    group.kill();
                    return Err(StreamError::Artifact(ArtifactError::from_io(error)));
                }
            };
            if bytes.is_empty() {
                progress.written(done_bytes, total_bytes);
                return Ok(true);
            }
            let count = match fifo.write(bytes) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.is_over(group, Duration::ZERO) {
                        return Ok(false);
                    }
                    wait_for_room(fifo)?;
                    0
                }
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Err(StreamError::ClosedEarly { file: file.name().to_owned() });
                }
                Err(error) => return Err(error.into()),
            };
            file.consume(count);
            let before = done_bytes / PROGRESS_BYTES;
            done_bytes += count as u64;
            if done_bytes / PROGRESS_BYTES > before {
                progress.written(done_bytes, total_bytes);
            }
        }
    }

    /// Opens a FIFO as soon as somebody reads it. `None` when the module has ended or its time is over.
    fn open(&self, path: &Path, group: &mut ProcessGroup) -> io::Result<Option<File>> {
        let [mut look, most] = LOOK;
        loop {
            // Before the attempt: a reader that came and ended is not missed then.
            let over = self.is_over(group, Duration::ZERO);
            let opened = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path);
            match opened {
                Ok(file) => return Ok(Some(file)),
                Err(error) if error.raw_os_error() != Some(libc::ENXIO) => return Err(error),
                Err(_) if over => return Ok(None),
                Err(_) => {}
            }
            self.is_over(group, look);
            look = (look * 2).min(most);
        }
    }

    /// Whether nothing more is to be expected of the module; waits for its end for a moment.
    fn is_over(&self, group: &mut ProcessGroup, moment: Duration) -> bool {
        group.has_ended(moment) || Instant::now() >= self.deadline || self.clock.stop_requested()
    }
}

/// Later calls find a tree without FIFOs.
impl Drop for Streams<'_> {
    fn drop(&mut self) {
        // What stays is removed with the tree.
        let _ = fs::remove_file(self.tree.path(NEXT));
        let _ = fs::remove_dir_all(self.tree.path(STREAMS));
    }
}

fn make_fifo(path: &Path) -> io::Result<()> {
    Ok(mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?)
}

fn wait_for_room(fifo: &File) -> io::Result<()> {
    let mut polled = [PollFd::new(fifo.as_fd(), PollFlags::POLLOUT)];
    match poll(&mut polled, PollTimeout::from(ROOM_MILLISECONDS)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
