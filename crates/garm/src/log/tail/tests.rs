use super::*;
use crate::testing::append;
use proptest::prelude::*;
use std::fs::OpenOptions;
use std::io::Write as _;
use tempfile::TempDir;

/// A manager's log on disk, and everything that was ever written to it.
struct Writer {
    folder: TempDir,
    written: Vec<String>,
    torn: String,
    stamps: u32,
    pieces: u32,
}

impl Writer {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), written: Vec::new(), torn: String::new(), stamps: 0, pieces: 0 }
    }
    fn path(&self) -> PathBuf {
        self.folder.path().join("garm.log")
    }
    fn sibling(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
    fn raw(&self, bytes: &[u8]) {
        append(&self.path(), bytes);
    }
    fn piece(&mut self, text: &str) {
        self.torn.push_str(text);
        self.raw(text.as_bytes());
    }
    fn line(&mut self) {
        let text = format!("line {} {}", self.written.len(), "x".repeat(self.written.len() % 700));
        self.piece(&text);
        self.end_line();
    }
    fn end_line(&mut self) {
        self.raw(b"\n");
        self.written.push(std::mem::take(&mut self.torn));
    }
    fn whole_line(&mut self) {
        if !self.torn.is_empty() {
            self.end_line();
        }
    }
    /// As lumberjack does it: a date in the name, a new file.
    fn rename_dated(&mut self) {
        self.whole_line();
        self.stamps += 1;
        let name = format!("garm-2026-11-23T18-45-{:06}.000.log", self.stamps);
        rename(&self.path(), &self.sibling(&name));
    }
    fn shift(&self) {
        for number in (1..100).rev() {
            rename(&self.sibling(&format!("garm.log.{number}")), &self.sibling(&format!("garm.log.{}", number + 1)));
        }
    }
    fn rename_numbered(&mut self) {
        self.whole_line();
        self.shift();
        rename(&self.path(), &self.sibling("garm.log.1"));
    }
    fn copy_and_truncate(&mut self) {
        self.whole_line();
        if self.path().exists() {
            self.shift();
            std::fs::copy(self.path(), self.sibling("garm.log.1")).unwrap();
            OpenOptions::new().write(true).open(self.path()).unwrap().set_len(0).unwrap();
        }
    }
}

fn rename(from: &Path, to: &Path) {
    if from.exists() {
        std::fs::rename(from, to).unwrap();
    }
}

fn read(tail: &mut Tail) -> (Vec<String>, Vec<Notice>) {
    let (mut lines, mut notices) = (Vec::new(), Vec::new());
    for _ in 0..1000 {
        let step = tail.step(&mut |line| lines.push(String::from_utf8_lossy(line).into_owned())).unwrap();
        notices.extend(step.notices);
        match step.reached {
            Reached::End | Reached::Missing => return (lines, notices),
            Reached::Within => {}
        }
    }
    panic!("no end in sight");
}

fn restarted(tail: &Tail) -> Tail {
    let position = tail.position(ParserState::default());
    // As the store keeps it.
    let kept: Option<LogPosition> = serde_json::from_str(&serde_json::to_string(&position).unwrap()).unwrap();
    Tail::new(tail.path(), kept)
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Line,
    Piece,
    EndLine,
    Rotate,
    Read,
    Restart,
}

#[derive(Debug, Clone, Copy)]
enum Rotation {
    Dated,
    Numbered,
    Copy,
}

fn op() -> impl Strategy<Value = Op> {
    use Op::{EndLine, Line, Piece, Read, Restart, Rotate};
    let weighted = [(5, Line), (2, Piece), (2, EndLine), (2, Rotate), (3, Read), (1, Restart)];
    proptest::sample::select(weighted.into_iter().flat_map(|(n, op)| vec![op; n]).collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_line_comes_exactly_once_through_any_rotation(
        rotation in proptest::sample::select(vec![Rotation::Dated, Rotation::Numbered, Rotation::Copy]),
        ops in proptest::collection::vec(op(), 1..60),
    ) {
        let mut writer = Writer::new();
        let mut tail = Tail::new(writer.path(), None);
        let mut given = Vec::new();
        // A first line is read before anything happens: earlier bytes may leave no trace.
        writer.line();
        given.extend(read(&mut tail).0);
        let mut read_of_this_file = true;
        for op in ops {
            match op {
                Op::Line => {
                    writer.whole_line();
                    writer.line();
                }
                Op::Piece => {
                    // No two alike, as dated lines are.
                    writer.pieces += 1;
                    writer.piece(&format!("piece {} ", writer.pieces));
                }
                Op::EndLine => writer.whole_line(),
                Op::Rotate => match rotation {
                    Rotation::Dated => writer.rename_dated(),
                    Rotation::Numbered => writer.rename_numbered(),
                    // A file of which no line was read cannot be distinguished from a truncated one.
                    Rotation::Copy if !read_of_this_file => {}
                    Rotation::Copy => {
                        writer.copy_and_truncate();
                        read_of_this_file = false;
                    }
                },
                Op::Read | Op::Restart => {
                    if matches!(op, Op::Restart) {
                        tail = restarted(&tail);
                    }
                    given.extend(read(&mut tail).0);
                    let live = std::fs::metadata(writer.path()).map_or(0, |live| live.ino());
                    let place = tail.position(ParserState::default()).unwrap();
                    read_of_this_file |= place.inode == live && place.offset > 0;
                }
            }
        }
        writer.whole_line();
        given.extend(read(&mut tail).0);
        prop_assert_eq!(given, writer.written);
    }

}

#[test]
fn missing_file_is_waited_for() {
    let mut writer = Writer::new();
    let mut tail = Tail::new(writer.path(), None);
    assert_eq!(tail.step(&mut |_| {}).unwrap().reached, Reached::Missing);
    assert_eq!(tail.position(ParserState::default()), None);
    writer.line();
    assert_eq!(read(&mut tail).0.len(), 1);
    // Removed, and created again by a restarted manager.
    std::fs::remove_file(writer.path()).unwrap();
    assert_eq!(read(&mut tail).0.len(), 0);
    writer.line();
    let (lines, notices) = read(&mut tail);
    assert_eq!(lines, writer.written[1..]);
    assert_eq!(notices, [Notice::Renamed]);
}

#[test]
fn truncation_without_a_copy_gives_a_notice() {
    let mut writer = Writer::new();
    let mut tail = Tail::new(writer.path(), None);
    writer.line();
    writer.line();
    read(&mut tail);
    std::fs::write(writer.path(), "again\n").unwrap();
    assert_eq!(read(&mut tail), (vec!["again".to_owned()], vec![Notice::Truncated]));
    // Filled again past the old position: the bytes differ.
    std::fs::write(writer.path(), format!("{}\n", "longer than before\n".repeat(100))).unwrap();
    let (lines, notices) = read(&mut tail);
    assert_eq!((lines.len(), notices), (100, vec![Notice::Truncated]));
    // The same during a restart.
    let position = tail.position(ParserState::default());
    std::fs::write(writer.path(), "other\n".repeat(1000)).unwrap();
    let (lines, notices) = read(&mut Tail::new(writer.path(), position));
    assert_eq!((lines.len(), notices), (1000, vec![Notice::PlaceLost]));
}

#[test]
fn hole_of_a_truncated_file_is_skipped() {
    let mut writer = Writer::new();
    let mut tail = Tail::new(writer.path(), None);
    for _ in 0..20 {
        writer.line();
    }
    read(&mut tail);
    let file = OpenOptions::new().write(true).open(writer.path()).unwrap();
    file.set_len(0).unwrap();
    file.write_all_at(b"behind the hole\n", 1_000_000).unwrap();
    assert_eq!(read(&mut tail), (vec!["behind the hole".to_owned()], vec![Notice::Truncated]));
}

#[test]
fn line_of_megabytes_is_cut_and_costs_no_memory() {
    let writer = Writer::new();
    let mut tail = Tail::new(writer.path(), None);
    for _ in 0..20 {
        writer.raw(&vec![b'a'; 1024 * 1024]);
        assert_eq!(read(&mut tail).0.len(), 0);
        assert!(tail.line.bytes.capacity() <= 2 * LINE_MAX);
    }
    writer.raw(b"\nnext\n");
    let (lines, _) = read(&mut tail);
    assert_eq!((lines[0].len(), lines[1].as_str()), (LINE_MAX, "next"));
}

#[test]
fn step_is_bounded() {
    let writer = Writer::new();
    writer.raw(&b"a line of twenty b.\n".repeat(600_000));
    let mut tail = Tail::new(writer.path(), None);
    let mut lines = 0;
    let first = tail.step(&mut |_| lines += 1).unwrap();
    assert_eq!(first.reached, Reached::Within);
    assert!(first.bytes <= STEP_MAX + CHUNK as u64);
    let second = tail.step(&mut |_| lines += 1).unwrap();
    assert_eq!((second.reached, lines), (Reached::End, 600_000));
}

#[test]
fn first_read_of_a_large_log_begins_near_its_end() {
    let mut writer = Writer::new();
    for _ in 0..100 {
        writer.line();
    }
    let mut tail = Tail::new(writer.path(), None);
    tail.first_read_max = 1000;
    let (lines, notices) = read(&mut tail);
    assert_eq!(notices, [Notice::BeginningSkipped]);
    assert!(lines.len() > 1);
    assert!(writer.written.ends_with(&lines), "{lines:?}");
    // A saved position is resumed, however large the log.
    let mut tail = restarted(&tail);
    tail.first_read_max = 10;
    for _ in 0..10 {
        writer.line();
    }
    assert_eq!(read(&mut tail), (writer.written[100..].to_vec(), vec![]));
}

#[test]
fn first_read_includes_rotated_files() {
    for (first_read_max, skipped) in [(FIRST_READ_MAX, false), (1000, true)] {
        let mut writer = Writer::new();
        for _ in 0..5 {
            for _ in 0..10 {
                writer.line();
            }
            writer.rename_dated();
        }
        writer.line();
        let mut tail = Tail::new(writer.path(), None);
        tail.first_read_max = first_read_max;
        let (lines, notices) = read(&mut tail);
        assert_eq!(lines == writer.written, !skipped);
        assert!(lines.len() > 3 && writer.written.ends_with(&lines), "{lines:?}");
        assert_eq!(notices.contains(&Notice::BeginningSkipped), skipped);
    }
}

#[test]
fn torn_last_line_is_dropped_after_a_rotation() {
    let mut writer = Writer::new();
    let mut tail = Tail::new(writer.path(), None);
    writer.line();
    writer.raw(b"torn");
    assert_eq!(read(&mut tail).0.len(), 1);
    rename(&writer.path(), &writer.sibling("garm.log.1"));
    assert_eq!(read(&mut tail).0.len(), 0);
    writer.raw(b"new run\n");
    assert_eq!(read(&mut tail).0, ["new run"]);
}

#[test]
fn renamed_file_is_read_while_the_new_one_is_empty() {
    let mut writer = Writer::new();
    let mut tail = Tail::new(writer.path(), None);
    writer.line();
    read(&mut tail);
    let mut old = OpenOptions::new().append(true).open(writer.path()).unwrap();
    rename(&writer.path(), &writer.sibling("garm.log.1"));
    std::fs::write(writer.path(), "").unwrap();
    let mut later = restarted(&tail);
    for tail in [&mut tail, &mut later] {
        assert_eq!(read(tail), (vec![], vec![]));
    }
    old.write_all(b"late\n").unwrap();
    for tail in [&mut tail, &mut later] {
        assert_eq!(read(tail).0, ["late"]);
    }
}

#[test]
fn folder_in_place_of_the_log_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut tail = Tail::new(folder.path(), None);
    assert!(tail.step(&mut |_| {}).is_err());
}
