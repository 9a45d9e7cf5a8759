//! The cascade on a GPU, for a whole photo at once: the photo goes up as bytes, every level, view, response and peak is computed
//! there, and faces and maps come down. One upload, one graph, one download.
//!
//! It computes what [`super::cascade`] does with the same nets. What depends on the photo has a fixed number of places: there are
//! views for as many faces as there can be, and those of no face are computed for nothing. A program is recorded for each
//! combination of level sizes, of which photos share few, see [`super::grid::Grid::covering`].

use super::cascade::{Candidate, FAINT, HOPELESS, Level, SAME, inside, square};
use super::density::Peak;
use super::gpu::{
    FaceRecord, FollowParams, LevelRecord, MOST_FACES, POINT, PeakParams, PhotoRecord, ViewParams, record_follow,
    record_peaks, record_response, record_views,
};
use super::recent::Recent;
use super::response::cells_within;
use super::{Locate, Map, Responder, StageConfig};
use crate::data::photo::{Photo, Rect};
use crate::device::{Gpu, Memory, Pinned, Program, Ptr, Recorder};
use crate::net::photos::{Batch, PhotoWindow};
use crate::net::{Parameters, Purpose, Session};
use crate::{Result, trace};
use bytemuck::{bytes_of, cast_slice, pod_collect_to_vec};
use std::ops::Range;
use std::sync::Arc;

/// Programs that are kept: photos of both orientations in a few formats.
const PROGRAMS: usize = 8;
/// Parts of what goes up begin at multiples of this number of bytes.
const ALIGN: usize = 256;
/// Bytes of pixels that there is room for at first: those of a photo as large as any that is not shrunk.
const PIXELS: usize = 3 << 20;

/// What was found in a photo.
pub(super) struct Found {
    /// LNet_o's pyramid.
    pub pyramid: Vec<Level>,
    /// Best first.
    pub faces: Vec<Candidate>,
}

/// The two nets of a cascade on a GPU.
pub(super) struct Chain {
    gpu: Gpu,
    /// By the sizes of LNet_o's levels.
    programs: Recent<Vec<[usize; 2]>, Recorded>,
    sessions: Vec<Kept>,
    intake: Intake,
}

/// A session that programs use, by its stage and the size of its batch.
type Kept = ((Stage, [usize; 3]), Arc<Session>);

/// What goes up, in pinned host memory and on the device.
struct Intake {
    host: Box<dyn Pinned>,
    device: Memory,
    /// The photo's record, the windows and records of LNet_o's levels, and pixels.
    photo: Range<usize>,
    windows: Range<usize>,
    levels: Range<usize>,
    pixels: Range<usize>,
}

/// The program for photos of some size, and what it reads and writes.
struct Recorded {
    program: Program,
    passes: u64,
    answer: Answer,
    /// Kept for the program, which reads and writes their memory.
    _memory: Vec<Memory>,
    _sessions: Vec<Arc<Session>>,
}

/// What comes down: faces after the first and after the second look, LNet_s's levels of the second look, and the responses of
/// LNet_o and of that look.
struct Answer {
    host: Box<dyn Pinned>,
    device: Ptr,
    faces: [Range<usize>; 2],
    views: Range<usize>,
    responses: [Range<usize>; 2],
}

/// Consecutive ranges of bytes, each aligned.
struct Layout(usize);

impl Layout {
    fn place(&mut self, bytes: usize) -> Range<usize> {
        let start = self.0.next_multiple_of(ALIGN);
        self.0 = start + bytes;
        start..self.0
    }
}

impl Intake {
    fn new(gpu: &Gpu, levels: usize, pixels: usize) -> Result<Self> {
        let mut layout = Layout(0);
        let photo = layout.place(size_of::<PhotoRecord>());
        let windows = layout.place(levels * size_of::<PhotoWindow>());
        let levels = layout.place(levels * size_of::<LevelRecord>());
        let pixels = layout.place(pixels);
        let (host, device) = (gpu.driver.pinned(layout.0)?, gpu.memory(layout.0)?);
        Ok(Self { host, device, photo, windows, levels, pixels })
    }

    fn address(&self, part: &Range<usize>) -> Ptr {
        self.device.ptr.offset(part.start)
    }
}

/// Which net.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Coarse,
    Fine,
}

/// A stage of the cascade.
#[derive(Clone, Copy)]
pub(super) struct ChainStage<'a> {
    pub responder: &'a Responder,
    pub config: &'a StageConfig,
}

impl ChainStage<'_> {
    /// Parameters of its peaks: `groups` of `levels` maps with `points` cells.
    fn peaks(&self, [groups, levels, points, most]: [usize; 4]) -> PeakParams {
        let StageConfig { floor, spread: [position, spread], shift: [shift_x, shift_y], .. } = *self.config;
        let [groups, levels, points_in, most] = [groups, levels, points, most].map(|number| number as u32);
        let null = Ptr::NULL;
        PeakParams {
            levels_in: null,
            response: null,
            points: null,
            density: null,
            ranks: null,
            peaks: null,
            groups,
            levels,
            points_in,
            most,
            floor,
            position,
            spread,
            shift_x,
            shift_y,
            share: 0.0,
        }
    }
}

/// Where the search for peaks keeps what it knows of each cell.
#[derive(Clone, Copy)]
struct Scratch {
    points: Ptr,
    density: Ptr,
    ranks: Ptr,
}

impl Chain {
    /// Prepares the chain of a cascade with these parameters; memory for photos is allocated now, the rest for the first photo of
    /// each size. `None` where passes cannot be parts of a larger program.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(config: &Locate, parameters: &Parameters) -> Result<Option<Self>> {
        let Some(gpu) = parameters.gpu() else { return Ok(None) };
        let intake = Intake::new(gpu, config.lnet_o.sides.len(), PIXELS)?;
        Ok(Some(Self { gpu: gpu.clone(), programs: Recent::new(PROGRAMS), sessions: Vec::new(), intake }))
    }

    /// The faces of a photo; those with a hopeless score, measured by `least`, had no second look.
    ///
    /// # Errors
    /// Out of memory; responses that are not finite; a launch that failed.
    pub fn find(&mut self, config: &Locate, stages: [ChainStage<'_>; 2], photo: &Photo, least: f32) -> Result<Found> {
        if photo.rgb.len() > self.intake.pixels.len() {
            // The programs read the old one.
            self.programs.clear();
            self.intake = Intake::new(&self.gpu, config.lnet_o.sides.len(), photo.rgb.len())?;
        }
        let [coarse, fine] = stages;
        let zooms: Vec<f32> = coarse.config.zooms(photo);
        let input =
            |&zoom: &f32| [photo.height, photo.width].map(|side| coarse.responder.grid().covering(side as f32 * zoom));
        let sizes: Vec<[usize; 2]> = zooms.iter().map(input).collect();
        if !self.programs.has(&sizes) {
            self.programs.make_room();
            // Those of no program any more.
            self.sessions.retain(|(_, session)| Arc::strong_count(session) > 1);
            let recorded = self.record(config, stages, &sizes)?;
            self.programs.get(sizes.clone(), || Ok(recorded))?;
        }
        let recorded = self.programs.get(sizes.clone(), || unreachable!("it was recorded"))?;
        let levels = trace::span(
            "copies",
            || "to the device".into(),
            || self.intake.upload(coarse, photo, least, &zooms, &sizes),
        )?;
        let Recorded { program, passes, answer: Answer { host, device, faces, views, responses }, .. } = recorded;
        let bytes = trace::span("lnets", String::new, || {
            trace::count(|counts| counts.passes += *passes);
            program.run(&self.gpu)?;
            host.download(*device, 0..responses[1].end)?;
            host.bytes()
        })?;
        let read = |range: &Range<usize>| &bytes[range.clone()];
        let [first, second] = [&faces[0], &faces[1]].map(|range| pod_collect_to_vec::<u8, FaceRecord>(read(range)));
        let views = pod_collect_to_vec::<u8, LevelRecord>(read(views));
        let [on_photo, on_views] =
            [&responses[0], &responses[1]].map(|range| pod_collect_to_vec::<u8, f32>(read(range)));
        coarse.responder.check_finite(&on_photo)?;
        fine.responder.check_finite(&on_views)?;
        let pyramid = levels.iter().map(|record| coarse.level(record, &on_photo)).collect();
        let count = fine.config.looks()[1].len();
        let points = on_views.len() / first.len().max(1);
        let candidate = |face: &FaceRecord| {
            let from = face.from as usize;
            let around = &first[from];
            let levels = &views[from * count..(from + 1) * count];
            Candidate {
                peak: peak(face),
                head: inside(square(&peak(around), config.head * around.width), photo),
                levels: levels.iter().map(|record| fine.level(record, &on_views[from * points..])).collect(),
            }
        };
        Ok(Found { pyramid, faces: second.iter().filter(|face| face.width > 0.0).map(candidate).collect() })
    }

    /// The session of a stage for `[n, height, width]`.
    fn session(&mut self, stage: ChainStage<'_>, which: Stage, size: [usize; 3]) -> Result<Arc<Session>> {
        if let Some((_, session)) = self.sessions.iter().find(|(key, _)| *key == (which, size)) {
            return Ok(session.clone());
        }
        let [n, height, width] = size;
        let net = Arc::new(stage.responder.net().at_size(height, width)?);
        let session = Arc::new(Session::new(net, stage.responder.parameters(), n, Purpose::Inference)?);
        self.sessions.push(((which, size), session.clone()));
        Ok(session)
    }

    fn record(
        &mut self,
        config: &Locate,
        [coarse, fine]: [ChainStage<'_>; 2],
        sizes: &[[usize; 2]],
    ) -> Result<Recorded> {
        let gpu = self.gpu.clone();
        let faces = coarse.config.peaks.min(MOST_FACES);
        let [some, all] = fine.config.looks();
        let on_photo =
            sizes.iter().map(|[h, w]| self.session(coarse, Stage::Coarse, [1, *h, *w])).collect::<Result<Vec<_>>>()?;
        let side = fine.responder.grid().nearest(fine.config.view_side());
        let looks = [&some, &all].map(|sides| {
            let session = self.session(fine, Stage::Fine, [faces * sides.len(), side, side])?;
            Ok((sides, session))
        });
        let [first, second]: [Result<_>; 2] = looks;
        let looks = [first?, second?];
        let cells = |session: &Session| session.net().output().area();
        let points_on_photo: usize = on_photo.iter().map(|session| cells(session)).sum();
        let points = |(sides, session): &(&Vec<usize>, Arc<Session>)| sides.len() * cells(session);
        let [points_first, points_second] = [points(&looks[0]), points(&looks[1])];

        let mut layout = Layout(0);
        let face = size_of::<FaceRecord>();
        let answer_faces = [layout.place(faces * face), layout.place(faces * face)];
        let views = layout.place(faces * all.len() * size_of::<LevelRecord>());
        let responses = [layout.place(4 * points_on_photo), layout.place(4 * faces * points_second)];
        let mut memory = Vec::new();
        let mut room = |bytes: usize| -> Result<Ptr> {
            memory.push(gpu.memory(bytes)?);
            Ok(memory[memory.len() - 1].ptr)
        };
        let device = room(layout.0)?;
        let most = points_on_photo.max(faces * points_first.max(points_second));
        let scratch = Scratch { points: room(POINT * most)?, density: room(4 * most)?, ranks: room(4 * most)? };
        let peaks = room(faces * fine.config.peaks * face)?;
        let proposals = room(faces * face)?;
        let windows = room(faces * all.len() * size_of::<PhotoWindow>())?;
        let first_views = room(faces * some.len() * size_of::<LevelRecord>())?;
        let first_response = room(4 * faces * points_first)?;
        let zooms = |sides: &[usize]| sides.iter().map(|side| *side as f32 / config.head).collect::<Vec<f32>>();
        let zooms = [gpu.upload(&zooms(&some))?, gpu.upload(&zooms(&all))?];

        let mut to = Recorder::new(&gpu);
        to.label("LNet_o");
        let (mut response, pyramid) = (device.offset(responses[0].start), device.offset(responses[0].start));
        let mut window = self.intake.address(&self.intake.windows);
        for session in &on_photo {
            self.pass(coarse, session, window, response, &mut to)?;
            response = response.offset(4 * cells(session));
            window = window.offset(size_of::<PhotoWindow>());
        }
        let parameters = coarse.peaks([1, sizes.len(), points_on_photo, faces]);
        let levels_in = self.intake.address(&self.intake.levels);
        let Scratch { points, density, ranks } = scratch;
        record_peaks(
            &PeakParams {
                levels_in,
                response: pyramid,
                points,
                density,
                ranks,
                peaks: proposals,
                share: FAINT,
                ..parameters
            },
            &mut to,
        );

        to.label("LNet_s");
        let photo = self.intake.address(&self.intake.photo);
        let found = [0, 1].map(|look: usize| device.offset(answer_faces[look].start));
        for (look, (sides, session)) in looks.iter().enumerate() {
            let (faces_in, views, response) = match look {
                0 => (proposals, first_views, first_response),
                _ => (found[0], device.offset(views.start), device.offset(responses[1].start)),
            };
            let grid = fine.responder.grid();
            let view = ViewParams {
                photo,
                faces_in,
                zooms: zooms[look].ptr,
                windows,
                views,
                faces: faces as u32,
                levels: sides.len() as u32,
                pixels: side as f32,
                input: side as u32,
                cells: session.net().output().w as u32,
                first: grid.first,
                stride: grid.stride,
                width: fine.config.width,
            };
            record_views(&view, &mut to);
            self.pass(fine, session, windows, response, &mut to)?;
            let parameters = fine.peaks([faces, sides.len(), sides.len() * cells(session), fine.config.peaks]);
            record_peaks(
                &PeakParams { levels_in: views, response, points, density, ranks, peaks, ..parameters },
                &mut to,
            );
            // After the second look the host decides.
            let (count, most, share) = (faces as u32, fine.config.peaks as u32, if look == 0 { HOPELESS } else { 0.0 });
            let follow =
                FollowParams { photo, faces: faces_in, peaks, found: found[look], count, most, share, same: SAME };
            record_follow(&follow, &mut to);
        }
        let host = gpu.driver.pinned(layout.0)?;
        let program = Program::new(to.launches)?;
        memory.extend(zooms);
        let sessions: Vec<_> = on_photo.into_iter().chain(looks.into_iter().map(|(.., session)| session)).collect();
        let answer = Answer { host, device, faces: answer_faces, views, responses };
        Ok(Recorded { program, passes: sessions.len() as u64, answer, _memory: memory, _sessions: sessions })
    }

    /// Records a pass: the photo resampled in `windows`, the net, and its response.
    fn pass(
        &self,
        stage: ChainStage<'_>,
        session: &Session,
        windows: Ptr,
        response: Ptr,
        to: &mut Recorder<'_>,
    ) -> Result<()> {
        let net = session.net();
        let (n, shape, normalise) = (session.samples(), net.spec.input, net.spec.normalise);
        let Some(part) = session.on_gpu() else { unreachable!("the parameters are on a GPU") };
        let photos = self.intake.address(&self.intake.pixels);
        Batch { photos, windows, out: part.input, n, h: shape.h, w: shape.w, normalise }.record_samples(to);
        to.launches.extend_from_slice(part.launches);
        record_response(part.output, n, net.output(), stage.responder.read_channel(), response, to);
        Ok(())
    }
}

impl Intake {
    /// Starts to copy a photo and its pyramid; returns the levels.
    fn upload(
        &mut self,
        stage: ChainStage<'_>,
        photo: &Photo,
        least: f32,
        zooms: &[f32],
        sizes: &[[usize; 2]],
    ) -> Result<Vec<LevelRecord>> {
        let (mut first, mut windows, mut levels) = (0, Vec::new(), Vec::new());
        for (&zoom, &[height, width]) in zooms.iter().zip(sizes) {
            let record = stage.record(photo, zoom, [height, width], first);
            first += record.h * record.w;
            levels.push(record);
            let (w, h) = (width as f32 / zoom, height as f32 / zoom);
            let window = Rect::new(0.0, 0.0, w, h);
            windows.push(PhotoWindow::new(0, (photo.width, photo.height), window, false));
        }
        let record = PhotoRecord { w: photo.width as u32, h: photo.height as u32, least, unused: 0 };
        let bytes = self.host.bytes()?;
        let mut write = |part: &Range<usize>, content: &[u8]| {
            bytes[part.start..part.start + content.len()].copy_from_slice(content);
        };
        write(&self.photo, bytes_of(&record));
        write(&self.windows, cast_slice(&windows));
        write(&self.levels, cast_slice(&levels));
        write(&self.pixels, &photo.rgb);
        self.host.upload(0..self.pixels.start + photo.rgb.len(), self.device.ptr)?;
        Ok(levels)
    }
}

impl ChainStage<'_> {
    /// The level of a pyramid at `zoom`, in an input of `height` x `width`, whose cells begin at `first`.
    fn record(&self, photo: &Photo, zoom: f32, [height, width]: [usize; 2], first: u32) -> LevelRecord {
        let grid = self.responder.grid();
        let (origin, step) = (grid.first / zoom, grid.stride / zoom);
        let [h, w] = [height, width].map(|side| grid.cells(side));
        let columns = cells_within(origin, step, w, 0.0..photo.width as f32);
        let rows = cells_within(origin, step, h, 0.0..photo.height as f32);
        LevelRecord {
            x: origin,
            y: origin,
            step,
            size: (self.config.width / zoom).ln(),
            first,
            h: h as u32,
            w: w as u32,
            left: columns.start as u32,
            right: columns.end as u32,
            top: rows.start as u32,
            bottom: rows.end as u32,
            unused: 0,
        }
    }

    /// A level, from its record and the responses of its group.
    fn level(&self, record: &LevelRecord, responses: &[f32]) -> Level {
        let LevelRecord { x, y, step, size, first, w, left, right, top, bottom, .. } = *record;
        let row = |row: u32| {
            let start = (first + row * w) as usize;
            &responses[start + left as usize..start + right as usize]
        };
        let map = Map {
            height: (bottom - top) as usize,
            width: (right - left) as usize,
            values: (top..bottom).flat_map(row).copied().collect(),
            origin: (x + step * left as f32, y + step * top as f32),
            step: (step, step),
        };
        Level { map, zoom: self.config.width / size.exp() }
    }
}

fn peak(face: &FaceRecord) -> Peak {
    Peak { x: face.x, y: face.y, width: face.width, score: face.score }
}
