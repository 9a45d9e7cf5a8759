//! Whatever number is on the command line, the program answers immediately, in one line, and uses no more memory than there is.

mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use support::{Folder, Output};
use weft::net::{Net, Spec};
use weft::rng::Rng;
use weft::weights::{Dtype, Named, TensorFile, TensorWriter, write, write_npy};

/// A net for patches with many features and little arithmetic.
const NET: &str = r#"
name = "wide"
input = [3, 9, 9]
[[layer]]
name = "c"
type = "conv"
filters = 4
kernel = 3
stride = 2
[[layer]]
name = "fc"
type = "linear"
outputs = 400
"#;
/// Address space of the program, in KiB: a fraction of what is requested.
const LIMIT: u64 = 4 << 20;
/// A refusal is immediate: the refused work would take hours. The limit leaves room for a slow and busy machine.
const AT_ONCE: Duration = Duration::from_secs(60);

fn wide() -> Folder {
    let folder = Folder::new();
    folder.write("net.toml", NET);
    let net = Net::new(Spec::parse(NET, "net").unwrap()).unwrap();
    net.save_parameters(folder.path("w"), &net.initial_parameters(1), Dtype::F32, &[]).unwrap();
    folder
}

fn photo(folder: &Folder, name: &str, width: usize, height: usize) {
    let mut rng = Rng::new(5, 0);
    let mut bytes = format!("P6\n{width} {height}\n255\n").into_bytes();
    let end = bytes.len() + 3 * width * height;
    while bytes.len() < end {
        bytes.extend_from_slice(&rng.word().to_le_bytes());
    }
    bytes.truncate(end);
    folder.write(name, bytes);
}

/// Peak resident size of a process so far, in bytes.
fn peak(child: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}

/// Runs `weft` with the given address space in KiB; it must end in time. Returns its answer and its peak resident size.
#[track_caller]
fn limited(folder: &Folder, line: &str, kilobytes: u64, most: Duration) -> (Output, u64) {
    let mut command = Command::new("sh");
    let script = format!("ulimit -v {kilobytes}; exec \"$0\" {line}");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_weft")]).current_dir(&folder.0);
    let (stdout, stderr) = (folder.path("stdout"), folder.path("stderr"));
    command.stdin(Stdio::null()).stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap());
    let start = Instant::now();
    let mut child = command.spawn().unwrap();
    let mut largest = 0;
    let status = loop {
        largest = largest.max(peak(&child).unwrap_or(0));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > most {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("weft {line}: not done in {most:?}");
        }
        sleep(Duration::from_millis(2));
    };
    let text = |path| fs::read_to_string(path).unwrap();
    (Output { code: status.code(), stdout: text(stdout), stderr: text(stderr) }, largest)
}

/// The run fails immediately: exit code 1 and one line with all of `parts`.
#[track_caller]
fn refused(folder: &Folder, line: &str, parts: &[&str]) {
    let (Output { code, stdout, stderr }, _) = limited(folder, line, LIMIT, AT_ONCE);
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "weft {line}: {stderr}");
    assert!(stderr.starts_with("weft: ") && stderr.lines().count() == 1, "weft {line}: {stderr}");
    for part in parts {
        assert!(stderr.contains(part), "weft {line}: no {part:?} in {stderr}");
    }
}

#[test]
fn batches_that_do_not_fit_are_priced() {
    let folder = wide();
    for device in ["cpu", "simt"] {
        for batch in ["10000000", "1000000000", "18446744073709551615"] {
            let parts = [&format!("--batch {batch}: ")[..], "needs ", " of memory, ", " are free; at most ", " fits"];
            for command in
                ["profile net.toml", "profile net.toml --train", "bench ops net.toml", "bench train net.toml"]
            {
                refused(&folder, &format!("{command} --batch {batch} --device {device}"), &parts);
            }
        }
    }
    let parts = ["--batch 1000000000: needs ", " of memory, ", "; at most "];
    refused(&folder, "plan net.toml --batch 1000000000", &parts);
    refused(&folder, "profile net.toml --batch 100000000 --size 16384x16384 --device cpu", &["net.toml: layer fc"]);
}

#[test]
fn a_net_too_large_for_one_sample_says_so() {
    let folder = Folder::new();
    let text = "name = 'n'\ninput = [3, 16000, 16000]\n[[layer]]\nname = 'r'\ntype = 'relu'\n";
    folder.write("net.toml", text);
    let parts = ["--batch 1: needs ", " of memory, ", " are free; not even 1 fits"];
    refused(&folder, "profile net.toml --device cpu", &parts);
    // Parameters alone: 4.2 GB.
    let conv = "type = 'conv'\nfilters = 10000\nkernel = 103\n";
    folder.write("large.toml", format!("name = 'n'\ninput = [10, 103, 103]\n[[layer]]\nname = 'c'\n{conv}"));
    refused(&folder, "profile large.toml --device cpu", &parts);
    refused(&folder, "bench train large.toml --batch 1 --device simt", &parts);
    folder.write("rgb.toml", format!("name = 'n'\ninput = [3, 103, 103]\n[[layer]]\nname = 'c'\n{conv}"));
    refused(&folder, "bench interweave --net rgb.toml --image 103x103 --device cpu", &["--image 103x103", "needs "]);
}

#[test]
fn numbers_that_make_no_sense_are_wrong_usage() {
    let folder = wide();
    let photos = "--photos none.csv --backgrounds none";
    let lines = [
        "profile net.toml --batch {}".to_string(),
        "profile net.toml --runs {}".into(),
        "profile net.toml --size {}x9".into(),
        "plan net.toml --batch {}".into(),
        "bench ops net.toml --runs {}".into(),
        "bench train net.toml --steps {}".into(),
        "bench predict --rounds {}".into(),
        "bench windows --boxes none.csv --count {}".into(),
        "bench interweave --net net.toml --image {}x30".into(),
        "bench interweave --net net.toml --image 30x{}".into(),
        "bench interweave --net net.toml --stride {}".into(),
        "bench interweave --net net.toml --rounds {}".into(),
        "extract --net net.toml --stride {} --plan 30x30".into(),
        "extract --net net.toml --stride 8 --plan {}x100".into(),
        "data synth d --images {}".into(),
        "data synth d --identities {}".into(),
        "data synth d --width {}".into(),
        "data synth d --height 40-{}".into(),
        "data synth d --face {}".into(),
        format!("data scenes d {photos} --side {{}}"),
        format!("data scenes d {photos} --count {{}}"),
        format!("data scenes d {photos} --scale {{}}"),
        format!("data scenes d {photos} --fade {{}}"),
    ];
    for line in &lines {
        let may_be_large = line.contains("--batch");
        for number in ["0", "-1", "NaN", "inf", "", "1e30", "4000000000", "9223372036854775808", "99999999999999999999"]
        {
            if number.is_empty() || (may_be_large && ["4000000000", "9223372036854775808"].contains(&number)) {
                continue;
            }
            // A fade of zero is valid.
            if number == "0" && line.contains("--fade") {
                continue;
            }
            let line = line.replace("{}", number);
            let (Output { code, stdout, stderr }, _) = limited(&folder, &line, LIMIT, AT_ONCE);
            assert_eq!((code, stdout.as_str()), (Some(2), ""), "weft {line}: {stderr}");
        }
    }
    assert!(!folder.path("d").exists());
}

#[test]
fn a_plan_costs_what_its_axes_cost() {
    let folder = Folder::new();
    let net = Net::load(concat!(env!("CARGO_MANIFEST_DIR"), "/nets/anet.toml")).unwrap();
    folder.write("anet.toml", net.spec.to_toml());
    let table = |size: &str, stride: usize| {
        let line = format!("extract --net anet.toml --stride {stride} --plan {size}");
        let (Output { code, stdout, stderr }, peak) = limited(&folder, &line, LIMIT, AT_ONCE);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{line}");
        (stdout, peak)
    };
    let (_, small) = table("100x100", 8);
    for (size, stride) in [("100000x100000", 8), ("100000000x100000000", 1)] {
        let (text, peak) = table(size, stride);
        assert!(text.lines().count() > 9, "{text}");
        // A few MB more than for a small image.
        assert!(peak < small + (8 << 20), "{size}: {peak} bytes, {small} for a small image");
    }
    let (text, _) = table("100000x100000", 8);
    assert!(text.starts_with("12490 x 12490 patches of 3x88x88, 8 pixels apart\n"), "{text}");
    // For a large image only the first patches are drawn, and this is reported.
    let line = "extract --net anet.toml --stride 8 --plan 100000x1000 --draw plan.svg";
    let (Output { code, stderr, .. }, _) = limited(&folder, line, LIMIT, AT_ONCE);
    assert_eq!((code, stderr.as_str()), (Some(0), "plan.svg: draws 200 x 115 patches\n"));
    assert!(fs::metadata(folder.path("plan.svg")).unwrap().len() < 1 << 20);
}

#[test]
fn images_that_do_not_fit_are_priced() {
    let folder = wide();
    let line = "bench interweave --net net.toml --image 16384x16384 --stride 1 --device cpu";
    refused(
        &folder,
        line,
        &["--image 16384x16384 --stride 1: needs ", " of memory, ", " are free; use a smaller image"],
    );
    refused(
        &folder,
        "bench interweave --net net.toml --image 8x8 --device cpu",
        &["--image: 8 x 8 pixels are smaller"],
    );
}

#[test]
fn a_tensor_that_does_not_fit_is_priced() {
    let folder = wide();
    let n = 200_000_000;
    // A sparse file: as large as it claims, but without disk blocks.
    let header =
        format!("{{\"input\":{{\"dtype\":\"F32\",\"shape\":[{n},3,9,9],\"data_offsets\":[0,{}]}}}}", n * 243 * 4);
    let mut file = File::create(folder.path("in")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + n * 243 * 4).unwrap();
    let start = Instant::now();
    folder.fails(
        "run net.toml --weights w --input in --output out --device cpu",
        &["in: a batch of 200000000: needs ", " of memory, ", "; at most "],
    );
    assert!(start.elapsed() < AT_ONCE);
    // Where not even the memory map of the file fits.
    refused(&folder, "run net.toml --weights w --input in --output out --device cpu", &["in: "]);
    assert!(!folder.path("out").exists());
}

#[test]
fn a_large_image_is_extracted_in_bounded_memory() {
    let folder = wide();
    photo(&folder, "large.ppm", 4000, 3000);
    // 1.2 GB of features.
    let line = "extract large.ppm --net net.toml --weights w --stride 4 --device cpu --json";
    let (Output { code, stdout, stderr }, peak) = limited(&folder, line, LIMIT, Duration::from_secs(900));
    assert_eq!(code, Some(0), "{stderr}");
    let document: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&document["patches"], &document["features"]), (&[748, 998].into(), &400.into()));
    assert!(peak < 800 << 20, "{} MB", peak >> 20);
    println!("{} MB at most for 1194 MB of features", peak >> 20);
}

#[test]
fn features_are_written_as_they_come_by_every_method() {
    let folder = wide();
    photo(&folder, "p.ppm", 101, 75);
    let mut all: Vec<Vec<f32>> = Vec::new();
    for method in ["interweave", "patchwise"] {
        for device in ["cpu", "simt"] {
            let line =
                format!("extract p.ppm --net net.toml --weights w --stride 3 --method {method} --device {device}");
            folder.ok(&format!("{line} -o f.safetensors"));
            let file = TensorFile::open(folder.path("f.safetensors")).unwrap();
            let features = file.require("features").unwrap();
            assert_eq!(features.shape, [23, 31, 400]);
            let values = features.to_f32().unwrap().into_owned();
            folder.ok(&format!("{line} -o f.npy"));
            let mut bytes = Vec::new();
            File::open(folder.path("f.npy")).unwrap().read_to_end(&mut bytes).unwrap();
            write_npy(folder.path("expected.npy"), &[23, 31, 400], &values).unwrap();
            assert!(bytes == fs::read(folder.path("expected.npy")).unwrap(), "{line}");
            all.push(values);
        }
    }
    let largest = all[0].iter().fold(0.0f32, |most, v| most.max(v.abs()));
    for other in &all[1..] {
        assert!(all[0].iter().zip(other).all(|(a, b)| (a - b).abs() <= 1e-5 * largest));
    }
}

#[test]
fn an_image_that_fails_does_not_end_the_others() {
    let folder = wide();
    photo(&folder, "a.ppm", 30, 20);
    photo(&folder, "tiny.ppm", 5, 5);
    photo(&folder, "z.ppm", 20, 30);
    let line = "extract a.ppm none.ppm tiny.ppm z.ppm --net net.toml --weights w --stride 8 --device cpu -o out";
    let Output { code, stdout, stderr } = folder.weft(line);
    assert_eq!((code, stdout.lines().count(), stderr.lines().count()), (Some(1), 2, 2), "{stdout}{stderr}");
    assert!(stderr.contains("weft: none.ppm: ") && stderr.contains("weft: tiny.ppm: 5 x 5 pixels"), "{stderr}");
    assert_eq!(folder.tree("out").len(), 2);
    let Output { code, stdout, .. } = folder.weft(&format!("{line} --json"));
    let document: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let failed: Vec<bool> = document.as_array().unwrap().iter().map(|entry| entry["error"].is_string()).collect();
    assert_eq!((code, failed), (Some(1), vec![false, true, true, false]));
    assert_eq!(document[1]["image"], "none.ppm");
}

#[test]
fn a_file_written_in_parts_is_the_file_written_at_once() {
    let folder = Folder::new();
    let (a, b): (Vec<f32>, Vec<f32>) = ((0..60).map(|i| i as f32).collect(), vec![-1.5; 7]);
    let named = |name, shape, data| Named { name, shape, dtype: Dtype::F32, data };
    write(folder.path("whole"), &[named("a", &[3, 4, 5], &a), named("b", &[7], &b)], &[]).unwrap();
    let mut parts = TensorWriter::create(folder.path("parts"), &[("a", &[3, 4, 5]), ("b", &[7])]).unwrap();
    for part in a.chunks(7).chain(b.chunks(3)) {
        parts.push(part).unwrap();
    }
    assert!(parts.push(&[0.0]).unwrap_err().to_string().contains("more than its shapes hold"));
    assert!(!folder.path("parts").exists());
    parts.finish().unwrap();
    assert_eq!(fs::read(folder.path("whole")).unwrap(), fs::read(folder.path("parts")).unwrap());
    let short = TensorWriter::create(folder.path("short"), &[("a", &[2])]).unwrap();
    assert!(short.finish().unwrap_err().to_string().contains("2 values have not come"));
    assert!(TensorWriter::create(folder.path("huge"), &[("a", &[usize::MAX, 2])]).is_err());
    assert_eq!(fs::read_dir(folder.0.path()).unwrap().count(), 2);
}
