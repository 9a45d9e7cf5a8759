//! Shared by `predict`, `locate` and `extract`: the list of photos, and answers that are written one at a time, in the order of
//! the photos.

use super::progress::Progress;
use super::{interruptible, say};
use crate::data::photo::Photo;
use crate::data::table;
use crate::error::At;
use crate::face::Workers;
use crate::weights::keep_inputs;
use crate::{Error, Result};
use serde_json::Value;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

/// The photos to process.
#[derive(clap::Args)]
pub struct PhotoArgs {
    /// Photos: JPEG, PNG, WebP, BMP, TIFF, GIF, PNM
    #[arg(value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Read more photo names from a file, one per line or each terminated by NUL (find -print0); - reads standard input
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
}

impl PhotoArgs {
    /// Naming no photo and no list is incorrect usage.
    pub fn usage(&self) -> Result<(), clap::Error> {
        if self.images.is_empty() && self.list.is_none() {
            return Err(super::missing("no photos: give <IMAGE>... or --list <FILE>"));
        }
        Ok(())
    }

    /// The names, as given.
    ///
    /// # Errors
    /// A list that cannot be read or is empty.
    pub fn names(&self) -> Result<Vec<PathBuf>> {
        let mut names = self.images.clone();
        if let Some(list) = &self.list {
            let mut bytes = Vec::new();
            match list.as_os_str() == "-" {
                true => io::stdin().lock().read_to_end(&mut bytes),
                false => File::open(list).and_then(|mut file| file.read_to_end(&mut bytes)),
            }
            .at(list)?;
            names.extend(listed(&bytes));
            if names.is_empty() {
                return Err(Error::file(list, "names no photo").advise("write a name on each line"));
            }
        }
        Ok(names)
    }

    /// The file that lists the photos, which is an input as well.
    pub fn list(&self) -> impl Iterator<Item = PathBuf> {
        self.list.iter().filter(|list| list.as_os_str() != "-").cloned()
    }
}

/// The names in a list. If it contains a NUL, names end at NUL and may contain line breaks; blank lines are ignored.
fn listed(bytes: &[u8]) -> impl Iterator<Item = PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let end = if bytes.contains(&0) { 0 } else { b'\n' };
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    bytes.split(move |&byte| byte == end).filter_map(move |name| {
        let name = if end == b'\n' { name.strip_suffix(b"\r").unwrap_or(name) } else { name };
        (!name.is_empty()).then(|| PathBuf::from(std::ffi::OsStr::from_bytes(name)))
    })
}

/// Format and destination of the answers.
#[derive(Default, clap::Args)]
pub struct AnswerArgs {
    /// Write one JSON list with one object per photo
    #[arg(long, conflicts_with_all = ["jsonl", "csv"])]
    json: bool,
    /// Write one JSON object per line
    #[arg(long, conflicts_with = "csv")]
    jsonl: bool,
    /// Write a CSV table (RFC 4180) with a row for every photo; fields without a value are empty
    #[arg(long)]
    csv: bool,
    /// Write the answers to this new file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Continue with the photos that have no answer in the --output file yet
    #[arg(long, requires = "output")]
    resume: bool,
}

impl AnswerArgs {
    /// On standard output, as text or as one list.
    pub fn printed(json: bool) -> Self {
        Self { json, ..Self::default() }
    }
}

/// A command's answer for one photo.
pub trait Answer {
    /// As a JSON object.
    fn json(&self, image: &str) -> Value;
    /// Table rows without the image's name; at least one.
    fn rows(&self) -> Vec<Vec<String>>;
    /// As readable text.
    fn text(&self, image: &str) -> String;
}

/// The format of the answers as a table.
pub struct Table {
    /// Columns after the image's name.
    pub columns: Vec<String>,
    /// A photo may have several consecutive rows.
    pub several: bool,
}

/// Calls `answer` for each photo, with one of the `workers`, and writes each result as soon as those before it are written, so that a
/// later failure loses nothing. A photo that fails produces one line on standard error and an answer that says so.
///
/// Ctrl-C ends the work after the current photos, with all answers written and the list closed.
///
/// # Errors
/// An output that cannot be written; an interruption.
pub fn answer_all<W: Send, A: Answer + Send>(
    photos: &[PathBuf],
    args: &AnswerArgs,
    table: &Table,
    reads: &[PathBuf],
    workers: &mut Workers<W>,
    answer: impl Fn(&mut W, usize, &Path) -> Result<A> + Sync,
) -> Result<ExitCode> {
    let mut answers = Answers::open(args, table, photos, reads)?;
    let stop = interruptible("photo")?;
    // On a terminal the answers themselves show the progress.
    let shown = photos.len() > 1 && (args.output.is_some() || !io::stdout().is_terminal());
    let progress = shown.then(|| Progress::new(photos.len() as u64, "photos"));
    let (mut failed, mut done) = (false, 0);
    let wanted: Vec<usize> =
        (0..photos.len()).filter(|&number| !answers.has(&photos[number].display().to_string())).collect();
    let work = |worker: &mut W, number: usize| {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        let path = &photos[number];
        // In a table the name must not be ambiguous.
        let named = if args.csv { table::name(path).map(drop) } else { Ok(()) };
        Some(named.and_then(|()| answer(worker, number, path)))
    };
    workers.run(&wanted, work, |number, result: Result<A>| {
        let image = photos[number].display().to_string();
        match result {
            Ok(answer) => answers.write(&image, &answer)?,
            Err(error) => {
                failed = true;
                say(format_args!("weft: {error}"));
                answers.write(&image, &Failed { error, columns: table.columns.len() })?;
            }
        }
        done += 1;
        if let Some(progress) = &progress {
            progress.set((photos.len() - wanted.len() + done) as u64);
        }
        Ok(())
    })?;
    let done = photos.len() - wanted.len() + done;
    if let Some(progress) = progress {
        progress.finish();
    }
    answers.close()?;
    if done < photos.len() {
        let advice = match &args.output {
            Some(file) => format!("go on with --output {} --resume", file.display()),
            None => "the answers so far are whole; --output FILE could go on with --resume".into(),
        };
        return Err(Error::new("", format!("stopped after {done} of {} photos", photos.len())).advise(advice));
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Opens a photo to process: if its data is truncated, the part that is present is used, with a line on standard error.
///
/// # Errors
/// As [`Photo::open_lenient`].
pub fn open_photo(path: &Path) -> Result<Photo> {
    let (photo, warning) = Photo::open_lenient(path)?;
    if let Some(warning) = warning {
        say(format_args!("weft: warning: {warning}"));
    }
    Ok(photo)
}

/// The answer for a photo that cannot be read.
struct Failed {
    error: Error,
    columns: usize,
}

impl Answer for Failed {
    fn json(&self, image: &str) -> Value {
        serde_json::json!({ "image": image, "error": self.error.to_string() })
    }

    fn rows(&self) -> Vec<Vec<String>> {
        vec![vec![String::new(); self.columns]]
    }

    /// Empty: the message is on standard error.
    fn text(&self, _: &str) -> String {
        String::new()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
    Lines,
    Csv,
}

/// Where answers go, each as soon as it is known.
struct Answers {
    format: Format,
    place: PathBuf,
    out: Box<dyn Write>,
    /// To be synced to disk at the end.
    file: Option<File>,
    /// Something has been written.
    begun: bool,
    /// Photos that have an answer from an earlier run, and how often.
    done: HashMap<String, usize>,
}

impl Answers {
    fn open(args: &AnswerArgs, table: &Table, photos: &[PathBuf], reads: &[PathBuf]) -> Result<Self> {
        let format = match args {
            AnswerArgs { json: true, .. } => Format::Json,
            AnswerArgs { jsonl: true, .. } => Format::Lines,
            AnswerArgs { csv: true, .. } => Format::Csv,
            _ => Format::Text,
        };
        if args.resume && format == Format::Text {
            return Err(Error::new("--resume", "cannot read answers for people").advise("add --jsonl, --json or --csv"));
        }
        let (place, out, file) = match &args.output {
            None => (PathBuf::from("standard output"), Box::new(BufWriter::new(io::stdout())) as Box<dyn Write>, None),
            Some(path) => {
                keep_inputs("--output", path, photos.iter().chain(reads))?;
                let file = open_output(path, args.resume)?;
                (path.clone(), Box::new(BufWriter::new(file.try_clone().at(path)?)) as Box<dyn Write>, Some(file))
            }
        };
        let mut answers = Self { format, place, out, file, begun: false, done: HashMap::new() };
        let header = row("image", &table.columns);
        if args.resume
            && let Some(mut file) = answers.file.as_ref()
        {
            let mut old = Vec::new();
            file.read_to_end(&mut old).at(&answers.place)?;
            let found = whole(format, &old, table).map_err(|e| e.within(answers.place.display()))?;
            answers.begun = found.begun;
            answers.done = found.images;
            file.set_len(found.end as u64).at(&answers.place)?;
            file.seek(SeekFrom::End(0)).at(&answers.place)?;
        }
        if format == Format::Csv && !answers.begun {
            answers.put(&header)?;
            answers.begun = true;
        }
        Ok(answers)
    }

    /// Whether there is already an answer for this photo; each answer counts for one photo of that name.
    fn has(&mut self, image: &str) -> bool {
        match self.done.get_mut(image) {
            Some(count) if *count > 0 => {
                *count -= 1;
                true
            }
            _ => false,
        }
    }

    fn write(&mut self, image: &str, answer: &impl Answer) -> Result<()> {
        let text = match self.format {
            Format::Text => {
                let text = answer.text(image);
                if text.is_empty() { text } else { text + "\n" }
            }
            Format::Lines => format!("{}\n", answer.json(image)),
            Format::Json => {
                let object = serde_json::to_string_pretty(&answer.json(image)).map_err(|e| Error::new("JSON", e))?;
                let before = if self.begun { ",\n  " } else { "[\n  " };
                format!("{before}{}", object.replace('\n', "\n  "))
            }
            Format::Csv => answer.rows().iter().map(|fields| row(image, fields)).collect(),
        };
        self.begun = true;
        self.put(&text)
    }

    /// Writes and hands the data to the operating system: killing the process loses nothing that was written.
    fn put(&mut self, text: &str) -> Result<()> {
        match self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()) {
            // If the reader has gone away (`weft ... | head`), the program ends quietly.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
            result => result.at(&self.place),
        }
    }

    /// Closes a list; syncs a file.
    fn close(mut self) -> Result<()> {
        match (self.format, self.begun) {
            (Format::Json, true) => self.put("\n]\n")?,
            (Format::Json, false) => self.put("[]\n")?,
            _ => {}
        }
        self.file.take().map_or(Ok(()), |file| file.sync_all().at(&self.place))
    }
}

/// Opens the output file and locks it: a second process continuing the same file would interleave its answers.
fn open_output(path: &Path, resume: bool) -> Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).at(path)?;
    let found = file.metadata().at(path)?;
    if !found.is_file() {
        return Err(Error::file(path, "is not a regular file").advise("give a file, or leave --output out"));
    }
    if file.try_lock().is_err() {
        return Err(Error::file(path, "another program writes to it").advise("wait for it, or choose another file"));
    }
    if !resume && found.len() > 0 {
        return Err(Error::file(path, "exists already")
            .advise("go on with the photos that it lacks by --resume, or choose another file"));
    }
    Ok(file)
}

/// One row of a table, with its line ending.
fn row(image: &str, fields: &[String]) -> String {
    table::line(std::iter::once(image).chain(fields.iter().map(String::as_str))) + "\n"
}

/// The remains of an earlier run.
#[derive(Default)]
struct Whole {
    /// Length in bytes of the complete answers.
    end: usize,
    begun: bool,
    images: HashMap<String, usize>,
}

/// Finds the complete answers at the beginning of a file; a truncated one is excluded.
///
/// # Errors
/// Content that this command does not write, with its line: nothing may be truncated in such a file.
fn whole(format: Format, old: &[u8], table: &Table) -> Result<Whole> {
    match format {
        Format::Csv => whole_rows(old, table),
        Format::Lines => whole_lines(old),
        Format::Json | Format::Text => whole_objects(old),
    }
}

fn foreign<T>(line: usize) -> Result<T> {
    Err(Error::new(format!("line {line}"), "is not an answer of this command in this format")
        .advise("resume with the format of the first run, or choose another file"))
}

fn image_of(answer: &Value) -> Option<String> {
    answer.get("image").and_then(Value::as_str).map(str::to_string)
}

fn whole_rows(old: &[u8], table: &Table) -> Result<Whole> {
    let header = row("image", &table.columns);
    let mut found = Whole::default();
    if !old.starts_with(header.as_bytes()) {
        // Truncated within the header, or something else.
        return if header.as_bytes().starts_with(old) { Ok(found) } else { foreign(1) };
    }
    found.begun = true;
    found.end = header.len();
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(&old[header.len()..]);
    let mut record = csv::ByteRecord::new();
    // The photo to which the latest rows belong, and where the first of them begins.
    let mut last: Option<(String, usize)> = None;
    while reader.read_byte_record(&mut record).is_ok_and(|more| more) {
        let end = header.len() + reader.position().byte() as usize;
        // The last row is complete only with its line ending.
        if record.len() != table.columns.len() + 1 || old[end - 1] != b'\n' {
            if end < old.len() {
                return foreign(1 + record.position().map_or(1, csv::Position::line) as usize);
            }
            break;
        }
        let image = String::from_utf8_lossy(&record[0]).into_owned();
        if !(table.several && last.as_ref().is_some_and(|(name, _)| *name == image)) {
            *found.images.entry(image.clone()).or_default() += 1;
            last = Some((image, found.end));
        }
        found.end = end;
    }
    // Whether all rows of the last photo are there is unknown, so it is processed again.
    if let Some((image, start)) = last.filter(|_| table.several) {
        found.images.entry(image).and_modify(|count| *count -= 1);
        found.end = start;
    }
    Ok(found)
}

fn whole_lines(old: &[u8]) -> Result<Whole> {
    let mut found = Whole::default();
    for (number, line) in old.split_inclusive(|byte| *byte == b'\n').enumerate() {
        // The last line is complete only with its line ending.
        if !line.ends_with(b"\n") {
            break;
        }
        let Some(image) = serde_json::from_slice(line).ok().as_ref().and_then(image_of) else {
            return foreign(number + 1);
        };
        found.end += line.len();
        found.begun = true;
        *found.images.entry(image).or_default() += 1;
    }
    Ok(found)
}

fn whole_objects(old: &[u8]) -> Result<Whole> {
    let mut found = Whole::default();
    let Some(start) = old.iter().position(|byte| !byte.is_ascii_whitespace()) else { return Ok(found) };
    if old[start] != b'[' {
        return foreign(1);
    }
    let mut at = start + 1;
    loop {
        at += old[at..].iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == b',').count();
        let mut values = serde_json::Deserializer::from_slice(&old[at..]).into_iter::<Value>();
        let line = || 1 + old[..at].iter().filter(|byte| **byte == b'\n').count();
        match values.next() {
            Some(Ok(value)) => {
                let Some(image) = image_of(&value) else { return foreign(line()) };
                at += values.byte_offset();
                found.end = at;
                found.begun = true;
                *found.images.entry(image).or_default() += 1;
            }
            // Truncated here, or the end of the list.
            None => return Ok(found),
            Some(Err(e)) if e.is_eof() || old[at..].trim_ascii() == b"]" => return Ok(found),
            Some(Err(_)) => return foreign(line()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(several: bool) -> Table {
        Table { columns: vec!["x".into(), "score".into()], several }
    }

    #[test]
    fn lists_end_names_by_line_or_by_nul() {
        let names = |bytes: &[u8]| listed(bytes).map(|p| p.display().to_string()).collect::<Vec<_>>();
        assert_eq!(names(b"a b.jpg\r\n\n-x.jpg\nc"), ["a b.jpg", "-x.jpg", "c"]);
        assert_eq!(names(b"a\nb.jpg\0c.jpg\0"), ["a\nb.jpg", "c.jpg"]);
        assert_eq!(names(b"\n\n"), [""; 0]);
    }

    /// Truncated anywhere, a file retains the answers that were complete, and no part of another.
    #[test]
    fn what_is_whole_is_kept_wherever_a_file_was_cut() {
        let images = ["a.jpg", "q,\"x\"\n.jpg", "a.jpg", "b.jpg"];
        let object = |image: &str| serde_json::json!({ "image": image, "face": { "x": 1 } });
        let mut ends = [vec![], vec![], vec![]];
        let mut files = [row("image", &table(false).columns), String::new(), String::new()];
        for (i, image) in images.iter().enumerate() {
            files[0] += &row(image, &["1.0".into(), String::new()]);
            files[1] += &format!("{}\n", object(image));
            files[2] += if i == 0 { "[\n  " } else { ",\n  " };
            files[2] += &serde_json::to_string_pretty(&object(image)).unwrap().replace('\n', "\n  ");
            (0..3).for_each(|f| ends[f].push(files[f].len()));
        }
        files[2] += "\n]\n";
        for (f, format) in [Format::Csv, Format::Lines, Format::Json].into_iter().enumerate() {
            let file = files[f].as_bytes();
            for cut in 0..=file.len() {
                let found = whole(format, &file[..cut], &table(false)).unwrap();
                let expected = ends[f].iter().filter(|end| **end <= cut).count();
                assert_eq!(found.images.values().sum::<usize>(), expected, "{format:?} cut at {cut}");
                if expected > 0 {
                    assert_eq!(found.end, ends[f][expected - 1], "{format:?} cut at {cut}");
                }
                assert_eq!(found.images.get(images[0]).copied().unwrap_or(0), [0, 1, 1, 2, 2][expected]);
            }
        }
    }

    #[test]
    fn with_several_rows_a_photo_the_last_photo_is_asked_about_again() {
        let old = "image,x,score\na,1,2\nb,3,4\nb,5,6\n";
        let found = whole(Format::Csv, old.as_bytes(), &table(true)).unwrap();
        assert_eq!((found.end, found.images["a"], found.images["b"]), (old.len() - 12, 1, 0));
    }

    #[test]
    fn nothing_is_cut_off_a_file_of_another_kind() {
        for (format, old, line) in [
            (Format::Csv, "image,y\na,1\n", "line 1"),
            (Format::Csv, "image,x,score\na,1\nb,1,2\n", "line 2"),
            (Format::Lines, "{\"image\":\"a\"}\nnotes\n", "line 2"),
            (Format::Lines, "[\n  {\n", "line 1"),
            (Format::Json, "{\"image\":\"a\"}\n", "line 1"),
            (Format::Json, "[\n{\"image\":\"a\"},\nnotes,\n{\"image\":\"b\"}]", "line 3"),
            (Format::Json, "[\n{\"other\":1}]", "line 2"),
        ] {
            let error = whole(format, old.as_bytes(), &table(false)).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(error.starts_with(line), "{old}: {error}");
        }
    }
}
