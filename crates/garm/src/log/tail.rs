//! Follows a log file through rotation and truncation, and returns every line exactly once.
//!
//! **A position in the log is identified by the bytes before it**, not by a name or an inode: names move, inodes are
//! reused, and a truncated file can grow past the old position. So the last bytes read are compared again before new
//! bytes are used; where they are missing, the rotated files are searched for them.
//!
//! Edge cases: rename (the old file is read to its end, then those in between, then the new one); copy and truncate (the
//! copy is found by its bytes and read on); truncation without a copy (unread lines are lost, with a notice); a missing
//! file (waited for); a line without an end (kept until its end comes, dropped if the file is followed by another);
//! megabytes without a line feed (cut at [`LINE_MAX`]); NULs of a sparse file (skipped); a restart (the position is the
//! start of a line). Bytes that were written and truncated between two steps, before any byte of the file was read,
//! leave no trace.
//!
//! Everything here blocks for a bounded time: call it on a thread that may block.

use super::format::LINE_MAX;
use super::rotated::{Rotated, rotated};
use medic_core::model::closed::closed_enum;
use medic_core::model::log_fact::{LogPosition, ParserState};
use memchr::memchr;
use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Bytes one step reads at most, give or take a chunk.
pub const STEP_MAX: u64 = 8 * 1024 * 1024;
/// Bytes read of a log that was never read before: its end, in whatever files that is.
pub const FIRST_READ_MAX: u64 = 64 * 1024 * 1024;

const CHUNK: usize = 128 * 1024;
/// Bytes that identify a position.
const CONTEXT: usize = 256;
/// Files held open while they wait to be read.
const WAITING_MAX: usize = 32;

#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    start: Start,
    first_read_max: u64,
    current: Option<Open>,
    next: VecDeque<Open>,
    line: Line,
    buffer: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Start {
    Fresh,
    At(LogPosition),
    Done,
}

closed_enum! {
    /// Where a step ended.
    pub enum Reached {
        /// At the log's present end.
        End = "end",
        /// Within the log: there is more to read at once.
        Within = "within",
        Missing = "missing",
    }
}

closed_enum! {
    /// What an operator should know.
    pub enum Notice {
        /// The log was never read and is large: only its end was read.
        BeginningSkipped = "beginning_skipped",
        /// The saved position was not found: lines may be missing.
        PlaceLost = "place_lost",
        /// The log was renamed away and a new one begun.
        Renamed = "renamed",
        /// The log was truncated; a copy had the unread lines.
        CopiedAndTruncated = "copied_and_truncated",
        /// The log was truncated and no copy was found: lines may be missing.
        Truncated = "truncated",
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub bytes: u64,
    pub reached: Reached,
    pub notices: Vec<Notice>,
}

#[derive(Debug)]
struct Open {
    file: File,
    device: u64,
    inode: u64,
    /// Everything before has been read.
    read_to: u64,
    /// The last bytes before `read_to`.
    before: Vec<u8>,
    /// The start of the first line that was not returned.
    line_start: u64,
    /// Hash of the last bytes before `line_start`.
    line_hash: u64,
    /// Length and modification when the end was last reached.
    end_seen: Option<(u64, i64, i64)>,
}

enum Read {
    Bytes(usize),
    End,
    Truncated,
}

#[derive(Debug, Default)]
struct Line {
    bytes: Vec<u8>,
    /// The rest up to the next line feed is skipped.
    skipping: bool,
}

impl Tail {
    pub fn new(path: impl Into<PathBuf>, position: Option<LogPosition>) -> Self {
        Self {
            path: path.into(),
            start: position.map_or(Start::Fresh, Start::At),
            first_read_max: FIRST_READ_MAX,
            current: None,
            next: VecDeque::new(),
            line: Line::default(),
            buffer: Vec::new(),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The position after the last line returned. Save it together with what the lines changed.
    pub fn position(&self, parser: ParserState) -> Option<LogPosition> {
        match (&self.current, self.start) {
            (Some(open), _) => Some(LogPosition {
                device: open.device,
                inode: open.inode,
                offset: open.line_start,
                tail_hash: open.line_hash,
                parser,
            }),
            (None, Start::At(position)) => Some(LogPosition { parser, ..position }),
            (None, Start::Fresh | Start::Done) => None,
        }
    }

    /// Reads new bytes, up to about [`STEP_MAX`], and passes each whole line, without its line feed, to `sink`.
    pub fn step(&mut self, sink: &mut dyn FnMut(&[u8])) -> io::Result<Step> {
        let mut step = Step { bytes: 0, reached: Reached::Within, notices: Vec::new() };
        if self.current.is_none() && !self.begin(&mut step)? {
            step.reached = Reached::Missing;
            return Ok(step);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let outcome = self.read_on(&mut buffer, &mut step, sink);
        self.buffer = buffer;
        if step.bytes == 0 {
            // An idle log costs no memory.
            self.buffer = Vec::new();
        }
        outcome.map(|()| step)
    }

    fn read_on(&mut self, buffer: &mut Vec<u8>, step: &mut Step, sink: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        while step.bytes < STEP_MAX {
            let Some(current) = self.current.as_mut() else { break };
            match current.read(buffer)? {
                Read::Bytes(count) => {
                    let chunk = buffer.get(..count).unwrap_or_default();
                    let ended = self.line.feed(chunk, sink);
                    current.advance(chunk, ended);
                    step.bytes = step.bytes.saturating_add(count as u64);
                }
                Read::Truncated if self.next.is_empty() => self.on_truncated(step)?,
                Read::End | Read::Truncated => {
                    if !self.on_end(step)? {
                        step.reached = Reached::End;
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// At the end of the current file: whether there is more to read now.
    fn on_end(&mut self, step: &mut Step) -> io::Result<bool> {
        if let Some(next) = self.next.pop_front() {
            // A file followed by another is complete. An unfinished last line was torn by a crash, and in the text form
            // it can read as a whole one about another set: it is dropped.
            self.line = Line::default();
            self.current = Some(next);
            return Ok(true);
        }
        let Some(current) = &self.current else { return Ok(false) };
        if metadata(&self.path)?.is_some_and(|live| current.is(&live)) {
            return Ok(false);
        }
        self.next = self.open_newer_than(current)?;
        self.push_live_if_written()?;
        if self.next.is_empty() {
            return Ok(false);
        }
        // The current file is read once more to its end before the next one.
        step.notices.push(Notice::Renamed);
        if let Some(current) = self.current.as_mut() {
            current.end_seen = None;
        }
        Ok(true)
    }

    fn on_truncated(&mut self, step: &mut Step) -> io::Result<()> {
        let Some(mut live) = self.current.take() else { return Ok(()) };
        let copy = self.find(|file| live.continued_in(file))?;
        let restarted = Open::at_start(live.file.try_clone()?)?;
        if let Some(copy) = copy {
            step.notices.push(Notice::CopiedAndTruncated);
            self.next = self.open_newer_than(&copy)?;
            push_new(&mut self.next, restarted);
            // The unfinished line goes on in the copy.
            live.file = copy.file;
            (live.device, live.inode, live.end_seen) = (copy.device, copy.inode, None);
            self.current = Some(live);
        } else {
            step.notices.push(Notice::Truncated);
            self.line = Line::default();
            self.current = Some(restarted);
        }
        Ok(())
    }

    /// Opens the first file to read; returns whether there is one.
    fn begin(&mut self, step: &mut Step) -> io::Result<bool> {
        let live = open(&self.path)?;
        match self.start {
            Start::At(position) => {
                let siblings = open_all(&rotated(&self.path).unwrap_or_default());
                if live.is_none() && siblings.is_empty() {
                    return Ok(false);
                }
                self.resume(position, live, siblings, step)?;
            }
            Start::Fresh | Start::Done => {
                let Some(live) = live else { return Ok(false) };
                let older = open_all(&rotated(&self.path).unwrap_or_default());
                self.begin_without_position(live, older, step)?;
            }
        }
        self.start = Start::Done;
        Ok(self.current.is_some())
    }

    fn resume(
        &mut self,
        position: LogPosition,
        live: Option<Open>,
        siblings: Vec<Open>,
        step: &mut Step,
    ) -> io::Result<()> {
        // By inode first: a copy holds the same bytes as its original.
        let mut candidates: Vec<Open> = live.into_iter().chain(siblings.into_iter().rev()).collect();
        candidates.sort_by_key(|file| (file.device, file.inode) != (position.device, position.inode));
        for mut file in candidates {
            if file.seek_to(position)? {
                if metadata(&self.path)?.is_none_or(|live| !file.is(&live)) {
                    self.next = self.open_newer_than(&file)?;
                    self.push_live_if_written()?;
                }
                self.current = Some(file);
                return Ok(());
            }
        }
        step.notices.push(Notice::PlaceLost);
        let read_to = position.parser.last_dated.map_or(u64::MAX, |at| at.0);
        let newer = rotated(&self.path).unwrap_or_default();
        let newer: Vec<Rotated> = newer.into_iter().filter(|file| file.modified_millis() > read_to).collect();
        self.next = open_all(&newer).into();
        if let Some(live) = open(&self.path)? {
            if self.next.is_empty() {
                // Older files were read before.
                return self.begin_without_position(live, Vec::new(), step);
            }
            push_new(&mut self.next, live);
        }
        self.current = self.next.pop_front();
        Ok(())
    }

    /// Begins a log at the first line of `older` (oldest first) and `live`, or near the end of it all.
    fn begin_without_position(&mut self, live: Open, mut older: Vec<Open>, step: &mut Step) -> io::Result<()> {
        let mut left = self.first_read_max;
        let mut chosen = VecDeque::new();
        let mut candidate = Some(live);
        while let Some(mut file) = candidate {
            let length = file.file.metadata()?.len();
            if length > left {
                step.notices.push(Notice::BeginningSkipped);
                file.place_at(length.saturating_sub(left))?;
                self.line.skipping = file.before.last() != Some(&b'\n');
                chosen.push_front(file);
                break;
            }
            left = left.saturating_sub(length);
            chosen.push_front(file);
            candidate = older.pop();
        }
        self.current = chosen.pop_front();
        self.next = chosen;
        Ok(())
    }

    /// While the new file is empty, the manager may still write to the old one.
    fn push_live_if_written(&mut self) -> io::Result<()> {
        if let Some(live) = open(&self.path)?
            && live.file.metadata()?.len() > 0
        {
            push_new(&mut self.next, live);
        }
        Ok(())
    }

    /// The rotated files that were written after `than`, oldest first.
    fn open_newer_than(&self, than: &Open) -> io::Result<VecDeque<Open>> {
        let files = rotated(&self.path)?;
        let known = files.iter().position(|file| (file.device, file.inode) == (than.device, than.inode));
        let newer: Vec<Rotated> = if let Some(at) = known {
            files.into_iter().skip(at.saturating_add(1)).collect()
        } else {
            // Compressed or removed while it was open: compare dates.
            let metadata = than.file.metadata()?;
            let last = (metadata.mtime(), metadata.mtime_nsec());
            files.into_iter().filter(|file| file.modified > last).collect()
        };
        Ok(open_all(&newer).into())
    }

    fn find(&self, mut fits: impl FnMut(&Open) -> io::Result<bool>) -> io::Result<Option<Open>> {
        for file in open_all(&rotated(&self.path)?).into_iter().rev() {
            if fits(&file)? {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }
}

impl Open {
    fn at_start(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        Ok(Self {
            file,
            device: metadata.dev(),
            inode: metadata.ino(),
            read_to: 0,
            before: Vec::new(),
            line_start: 0,
            line_hash: hash(&[]),
            end_seen: None,
        })
    }

    fn is(&self, metadata: &Metadata) -> bool {
        (self.device, self.inode) == (metadata.dev(), metadata.ino())
    }

    fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<Read> {
        let metadata = self.file.metadata()?;
        let seen = (metadata.len(), metadata.mtime(), metadata.mtime_nsec());
        if metadata.len() < self.read_to {
            return Ok(Read::Truncated);
        }
        if self.end_seen == Some(seen) && metadata.len() == self.read_to {
            return Ok(Read::End);
        }
        // Only here: checking an unchanged log needs no memory.
        buffer.resize(CHUNK, 0);
        let count = self.file.read_at(buffer, self.read_to)?;
        // After the read: a file that was truncated and filled again by now is detected here.
        if !self.continued_in(self)? {
            return Ok(Read::Truncated);
        }
        if count == 0 {
            self.end_seen = Some(seen);
            return Ok(Read::End);
        }
        self.end_seen = None;
        Ok(Read::Bytes(count))
    }

    /// Whether the last bytes read are at the same position of `other`.
    fn continued_in(&self, other: &Self) -> io::Result<bool> {
        if self.before.is_empty() {
            return Ok((self.device, self.inode) == (other.device, other.inode));
        }
        let mut there = [0; CONTEXT];
        let Some(there) = there.get_mut(..self.before.len()) else { return Ok(false) };
        let from = self.read_to.saturating_sub(there.len() as u64);
        match other.file.read_exact_at(there, from) {
            Ok(()) => Ok(there == self.before),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Notes a chunk that was read; `ended` of its bytes belong to lines that were returned.
    fn advance(&mut self, chunk: &[u8], ended: Option<usize>) {
        if let Some(ended) = ended {
            let mut window = self.before.clone();
            extend(&mut window, chunk.get(..ended).unwrap_or_default());
            self.line_hash = hash(&window);
            self.line_start = self.read_to.saturating_add(ended as u64);
        }
        extend(&mut self.before, chunk);
        self.read_to = self.read_to.saturating_add(chunk.len() as u64);
    }

    /// Goes to a saved position, if this file has it.
    fn seek_to(&mut self, position: LogPosition) -> io::Result<bool> {
        if self.file.metadata()?.len() < position.offset {
            return Ok(false);
        }
        if position.offset == 0 {
            return Ok((self.device, self.inode) == (position.device, position.inode));
        }
        self.place_at(position.offset)?;
        if self.line_hash == position.tail_hash {
            return Ok(true);
        }
        self.place_at(0)?;
        Ok(false)
    }

    fn place_at(&mut self, offset: u64) -> io::Result<()> {
        let length = usize::try_from(offset).unwrap_or(usize::MAX).min(CONTEXT);
        let mut before = vec![0; length];
        self.file.read_exact_at(&mut before, offset.saturating_sub(length as u64))?;
        (self.read_to, self.line_start) = (offset, offset);
        self.line_hash = hash(&before);
        self.before = before;
        Ok(())
    }
}

impl Line {
    /// Returns the lines that end in `chunk` to `sink`, and how many of its bytes belong to them.
    fn feed(&mut self, chunk: &[u8], sink: &mut dyn FnMut(&[u8])) -> Option<usize> {
        let mut rest = chunk;
        while let Some(at) = memchr(b'\n', rest) {
            let part = rest.get(..at).unwrap_or_default();
            rest = rest.get(at.saturating_add(1)..).unwrap_or_default();
            if self.bytes.is_empty() && !self.skipping {
                give(part, sink);
            } else {
                self.append(part);
                self.finish(sink);
            }
        }
        let ended = chunk.len().saturating_sub(rest.len());
        self.append(rest);
        (ended > 0).then_some(ended)
    }

    fn append(&mut self, part: &[u8]) {
        if self.skipping {
            return;
        }
        let part = if self.bytes.is_empty() { without_nuls(part) } else { part };
        let kept = LINE_MAX.saturating_sub(self.bytes.len()).min(part.len());
        self.bytes.extend_from_slice(part.get(..kept).unwrap_or_default());
    }

    fn finish(&mut self, sink: &mut dyn FnMut(&[u8])) {
        give(&self.bytes, sink);
        self.skipping = false;
        self.bytes.clear();
    }
}

fn give(line: &[u8], sink: &mut dyn FnMut(&[u8])) {
    let line = without_nuls(line);
    if !line.is_empty() {
        sink(line.get(..LINE_MAX).unwrap_or(line));
    }
}

fn without_nuls(line: &[u8]) -> &[u8] {
    let start = line.iter().position(|b| *b != 0).unwrap_or(line.len());
    line.get(start..).unwrap_or_default()
}

/// Appends, and keeps the last [`CONTEXT`] bytes.
fn extend(window: &mut Vec<u8>, bytes: &[u8]) {
    let fresh = bytes.get(bytes.len().saturating_sub(CONTEXT)..).unwrap_or_default();
    let keep = CONTEXT.saturating_sub(fresh.len());
    window.drain(..window.len().saturating_sub(keep));
    window.extend_from_slice(fresh);
}

/// FNV-1a: stable across releases, which a stored position needs.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn metadata(path: &Path) -> io::Result<Option<Metadata>> {
    absent_is_none(std::fs::metadata(path))
}

fn open(path: &Path) -> io::Result<Option<Open>> {
    absent_is_none(File::open(path))?.map(Open::at_start).transpose()
}

fn open_all(files: &[Rotated]) -> Vec<Open> {
    let skip = files.len().saturating_sub(WAITING_MAX);
    // A file that cannot be opened is gone or not readable.
    files.iter().skip(skip).filter_map(|file| open(&file.path).ok().flatten()).collect()
}

fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Appends unless the same file waits already.
fn push_new(waiting: &mut VecDeque<Open>, file: Open) {
    if !waiting.iter().any(|known| (known.device, known.inode) == (file.device, file.inode)) {
        waiting.push_back(file);
    }
}

impl Rotated {
    fn modified_millis(&self) -> u64 {
        let millis = self.modified.0.saturating_mul(1000).saturating_add(self.modified.1 / 1_000_000);
        u64::try_from(millis).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
