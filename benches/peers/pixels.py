"""Small pictures in every variant of every format, and what Pillow makes of them: the corpus of tests/pixels.rs.

    python pixels.py tests/data/pixels.bin           writes the corpus anew
    python pixels.py tests/data/pixels.bin --unpack FOLDER     and each picture as a file, to look at

The corpus holds, per picture, a line "NAME BYTES WIDTH HEIGHT TOLERANCE NOTE" with tabs between, the file of BYTES bytes,
and WIDTH * HEIGHT * 3 bytes of RGB, with zlib over all of it. A picture that must be refused has size 0 x 0, and NOTE is
what the message must contain. Pillow decides, except where a comment says what is expected instead, and why.
"""

import argparse
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, ImageFile, ImageOps

W, H = 16, 12
ROTATED = 6                       # EXIF: turn by 90 degrees clockwise

# Tolerances, in 255ths.
EXACT = 0
ROUNDING = 1                      # alpha and 16 bits: we round to nearest, Pillow cuts off
JPEG = 4                          # inverse DCT and colour conversion, without subsampled chroma
CHROMA = 6                        # upsampling differs between decoders; these pictures have no edges

out = {}                          # name -> (file, expected, tolerance, note)


def gradient(w=W, h=H):
    y, x = np.mgrid[0:h, 0:w]
    return np.stack([x * 255 // (w - 1), y * 255 // (h - 1), (x * 9 + y * 5) % 256], -1).astype(np.uint8)


def smooth(w=W, h=H):
    """For JPEG: no edges."""
    y, x = np.mgrid[0:h, 0:w]
    return np.stack([60 + x * 120 // w, 80 + y * 100 // h, 150 - x * 60 // w], -1).astype(np.uint8)


RGB = gradient()
GREY = RGB[..., 2]
ALPHA = np.where(np.arange(W) < 4, 0, np.arange(W) * 17).astype(np.uint8)[None, :].repeat(H, 0)


def pillow(data, truncated=False):
    """What Pillow shows: turned, over white."""
    ImageFile.LOAD_TRUNCATED_IMAGES = truncated
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.has_transparency_data or image.mode in ("La", "RGBa"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def saved(image, format, **options):
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def add(name, data, expected=None, tolerance=EXACT, truncated=False):
    expected = pillow(data, truncated) if expected is None else expected
    assert name not in out
    out[name] = (data, np.ascontiguousarray(expected, np.uint8), tolerance, "-")


def refused(name, data, note):
    out[name] = (data, np.zeros((0, 0, 3), np.uint8), 0, note)


def grey_rgb(grey):
    return np.repeat(np.asarray(grey)[..., None], 3, -1)


def over_white(rgb, alpha):
    """Of 0..=1, rounded to nearest."""
    return np.floor((rgb * alpha[..., None] + 1 - alpha[..., None]) * 255 + 0.5).astype(np.uint8)


# --- EXIF ------------------------------------------------------------------------------------------------------------

KINDS = {  # type -> its value as bytes, by byte order
    "byte": (1, lambda o, v: struct.pack("B", v)),
    "ascii": (2, lambda o, v: b"%d\0" % v),
    "short": (3, lambda o, v: struct.pack(o + "H", v)),
    "long": (4, lambda o, v: struct.pack(o + "L", v)),
    "rational": (5, lambda o, v: struct.pack(o + "LL", 2 * v, 2)),
    "sbyte": (6, lambda o, v: struct.pack("b", v)),
    "undefined": (7, lambda o, v: struct.pack("B", v)),
    "sshort": (8, lambda o, v: struct.pack(o + "h", v)),
    "slong": (9, lambda o, v: struct.pack(o + "l", v)),
    "srational": (10, lambda o, v: struct.pack(o + "ll", -2 * v, -2)),
    "float": (11, lambda o, v: struct.pack(o + "f", v)),
    "double": (12, lambda o, v: struct.pack(o + "d", v)),
}
UNREAD_BY_PILLOW = ("byte", "ascii", "undefined")


def exif(value=ROTATED, kind="short", order="<", count=1, before=()):
    """A TIFF header and a directory with the orientation; `before` are entries of other tags, as bytes of 12."""
    code, pack = KINDS[kind]
    data = pack(order, value) * count
    count = len(data) if kind == "ascii" else count
    entries = len(before) + 1
    end = 8 + 2 + 12 * entries + 4
    field, tail = (data.ljust(4, b"\0"), b"") if len(data) <= 4 else (struct.pack(order + "L", end), data)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "LH", 8, entries)
    return head + b"".join(before) + struct.pack(order + "HHL", 0x112, code, count) + field + bytes(4) + tail


def app1(content, marker=0xE1):
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def jpeg_with(*segments, picture=None):
    """Segments behind the start of image."""
    picture = picture or PLAIN_JPEG
    return picture[:2] + b"".join(segments) + picture[2:]


def exif_segment(*args, **kw):
    return app1(b"Exif\0\0" + exif(*args, **kw))


def xmp(value, form='<rdf:Description tiff:Orientation="%d"/>'):
    return b'<x:xmpmeta xmlns:x="adobe:ns:meta/">' + (form % value).encode() + b"</x:xmpmeta>"


PLAIN_JPEG = saved(smooth(), "JPEG", quality=90, subsampling=0)
TURNED = np.rot90(pillow(PLAIN_JPEG), -1)


def chunk(kind, data):
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def png_with(*chunks, behind=False, picture=None):
    """Chunks before or behind the pixels."""
    picture = picture or PLAIN_PNG
    at = picture.index(b"IEND") - 4 if behind else 33
    return picture[:at] + b"".join(chunks) + picture[at:]


PLAIN_PNG = saved(RGB, "PNG")


def profile(block, name="exif"):
    """ImageMagick's form."""
    digits = block.hex()
    lines = "\n".join(digits[i:i + 72] for i in range(0, len(digits), 72))
    return f"\n{name}\n{len(block):8}\n{lines}\n".encode()


def webp_with(block, lossless=True):
    return saved(RGB, "WEBP", lossless=lossless, exif=block)


def make_orientations():
    for value in range(0, 10):
        add(f"exif-{value}.jpg", jpeg_with(exif_segment(value)), tolerance=JPEG)
    for kind in KINDS:
        for order, letter in (("<", "le"), (">", "be")):
            # Pillow compares bytes and strings with numbers; browsers and ExifTool do see the 6.
            expected = TURNED if kind in UNREAD_BY_PILLOW else None
            add(f"exif-{kind}-{letter}.jpg", jpeg_with(exif_segment(kind=kind, order=order)), expected, JPEG)
    add("exif-count-2.jpg", jpeg_with(exif_segment(count=2)), tolerance=JPEG)
    add("exif-long-count-2.jpg", jpeg_with(exif_segment(kind="long", count=2, order=">")), tolerance=JPEG)
    add("exif-65542.jpg", jpeg_with(exif_segment(65536 + 6, "long")), tolerance=JPEG)
    add("exif-first-of-two.jpg", jpeg_with(exif_segment(6), exif_segment(1)), tolerance=JPEG)
    add("exif-first-of-two-upright.jpg", jpeg_with(exif_segment(1), exif_segment(6)), tolerance=JPEG)
    two = (struct.pack("<HHLHH", 0x112, 3, 1, 8, 0),)
    add("exif-tag-twice.jpg", jpeg_with(exif_segment(6, before=two)), tolerance=JPEG)
    make = (struct.pack("<HHLL", 0x10F, 2, 4_000_000_000, 12), struct.pack("<HHLL", 0x110, 77, 3, 0))
    add("exif-behind-broken-tags.jpg", jpeg_with(exif_segment(6, before=make)), tolerance=JPEG)
    add("exif-header-twice.jpg", jpeg_with(app1(b"Exif\0\0Exif\0\0" + exif())), tolerance=JPEG)
    add("exif-before-and-after-jfif.jpg", PLAIN_JPEG[:20] + exif_segment(3) + PLAIN_JPEG[20:], tolerance=JPEG)
    # Broken metadata: Pillow raises, we show the picture as it is stored.
    plain = pillow(PLAIN_JPEG)
    for name, block in (
        ("no-header", b"XX" + exif()[2:]), ("cut", exif()[:15]), ("empty", b""), ("far", b"II*\0\xff\xff\xff\xff"),
        ("many", b"II*\0\x08\0\0\0\xff\xff"),
    ):
        add(f"exif-broken-{name}.jpg", jpeg_with(app1(b"Exif\0\0" + block)), plain, JPEG)
    # XMP counts where EXIF is silent.
    ns = b"http://ns.adobe.com/xap/1.0/\0"
    add("xmp.jpg", jpeg_with(app1(ns + xmp(6))), tolerance=JPEG)
    add("xmp-element.jpg", jpeg_with(app1(ns + xmp(8, "<tiff:Orientation>%d</tiff:Orientation>"))), tolerance=JPEG)
    add("xmp-against-exif.jpg", jpeg_with(app1(ns + xmp(6)), exif_segment(1)), tolerance=JPEG)
    # PNG
    named = b"Exif\0\0" + exif()
    add("exif-chunk.png", png_with(chunk(b"eXIf", exif())))
    add("exif-chunk-behind.png", png_with(chunk(b"eXIf", exif(8, "long", ">")), behind=True))
    add("exif-chunk-named.png", png_with(chunk(b"eXIf", named)))
    key = b"Raw profile type exif\0"
    add("exif-profile-text.png", png_with(chunk(b"tEXt", key + profile(named))))
    add("exif-profile-ztxt.png", png_with(chunk(b"zTXt", key + b"\0" + zlib.compress(profile(named)))))
    add("exif-profile-itxt.png", png_with(chunk(b"iTXt", key + b"\0\0\0\0" + profile(named))))
    add("exif-profile-itxt-packed.png", png_with(chunk(b"iTXt", key + b"\1\0\0\0" + zlib.compress(profile(named)))))
    add("exif-profile-behind.png", png_with(chunk(b"zTXt", key + b"\0" + zlib.compress(profile(named))), behind=True))
    add("exif-chunk-before-profile.png", png_with(chunk(b"tEXt", key + profile(named)), chunk(b"eXIf", exif(3))))
    # ImageMagick's older name for it, which Pillow does not know.
    text = b"Raw profile type APP1\0" + profile(named, "generic profile")
    add("exif-profile-app1.png", png_with(chunk(b"tEXt", text)), np.rot90(RGB, -1))
    add("exif-profile-broken.png", png_with(chunk(b"tEXt", key + b"\nexif\n 9\nzz"), ), RGB)
    add("exif-profile-broken-zlib.png", png_with(chunk(b"zTXt", key + b"\0garbage")), RGB)
    # A wrong checksum: libpng drops the chunk, Pillow the picture.
    add("exif-chunk-broken-sum.png", png_with(chunk(b"eXIf", exif())[:-1] + b"\0"), RGB)
    add("xmp.png", png_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(3))))
    # WebP
    add("exif.webp", webp_with(exif()))
    add("exif-named.webp", webp_with(b"Exif\0\0" + exif(5, "long", ">")))
    add("xmp.webp", saved(RGB, "WEBP", lossless=True, xmp=xmp(6)))
    # TIFF's own tag
    for value in range(1, 9):
        add(f"orientation-{value}.tif", saved(RGB, "TIFF", tiffinfo={274: value}))
    add("orientation-long.tif", tiff(RGB, extra=[(274, 4, (6,))]), np.rot90(RGB, -1))
    add("xmp.tif", tiff(RGB, extra=[(700, 1, xmp(6))]))


# --- TIFF ------------------------------------------------------------------------------------------------------------

def reversed_bits(data):
    return np.packbits(np.unpackbits(np.frombuffer(data, np.uint8).reshape(-1, 1), axis=1)[:, ::-1], axis=1).tobytes()


def tiff(array, photometric=None, bits=8, extra_samples=(), extra=(), fill_order=None, order="<", strips=1,
         compression=1, big=False, packed=None):
    """A TIFF from scratch. `array`: HxW or HxWxN; `extra`: (tag, type, values); `packed`: the strips as they are."""
    height, width = array.shape[:2]
    samples = 1 if array.ndim == 2 else array.shape[2]
    photometric = photometric if photometric is not None else (1 if samples == 1 else 2)
    rows = -(-height // strips)
    if packed is None:
        packed = []
        for y in range(0, height, rows):
            part = array[y:y + rows]
            if bits < 8:
                plane = np.unpackbits(part.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits:]
                data = np.packbits(plane.reshape(part.shape[0], -1), axis=1).tobytes()
            else:
                data = part.astype(order + ("u1" if bits == 8 else "u2")).tobytes()
            packed.append(zlib.compress(data) if compression == 8 else data)
    if fill_order == 2:
        packed = [reversed_bits(data) for data in packed]
    tags = [(256, 4, (width,)), (257, 4, (height,)), (258, 3, (bits,) * samples), (259, 3, (compression,)),
            (262, 3, (photometric,)), (277, 3, (samples,)), (278, 4, (rows,)), *extra]
    if extra_samples:
        tags.append((338, 3, extra_samples))
    if fill_order:
        tags.append((266, 3, (fill_order,)))
    offsets, at = [], 16 if big else 8
    for data in packed:
        offsets.append(at)
        at += len(data)
    at += at % 2
    tags += [(273, 4, offsets), (279, 4, [len(data) for data in packed])]
    tags.sort(key=lambda t: t[0])
    mark = b"II" if order == "<" else b"MM"
    if big:
        head = mark + struct.pack(order + "HHHQ", 43, 8, 0, at)
    else:
        head = mark + struct.pack(order + "HL", 42, at)
    body = head + b"".join(packed)
    body += bytes(at - len(body))
    pointer, entry = (8, 20) if big else (4, 12)
    tail_at = at + (8 if big else 2) + entry * len(tags) + pointer
    directory, tail = struct.pack(order + ("Q" if big else "H"), len(tags)), b""
    for tag, kind, values in tags:
        data = bytes(values) if kind in (1, 7) else struct.pack(order + {3: "H", 4: "L"}[kind] * len(values), *values)
        if len(data) <= pointer:
            field = data.ljust(pointer, b"\0")
        else:
            field = struct.pack(order + ("Q" if big else "L"), tail_at + len(tail))
            tail += data + b"\0" * (len(data) % 2)
        directory += struct.pack(order + "HH" + ("Q" if big else "L"), tag, kind, len(values)) + field
    return body + directory + bytes(pointer) + tail


def with_tifffile(array, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, array, metadata=None, software=False, **options)
    return file.getvalue()


def make_tiffs():
    a = ALPHA / 255.0
    straight = np.concatenate([RGB, ALPHA[..., None]], -1)
    multiplied = np.concatenate([np.round(RGB * a[..., None]).astype(np.uint8), ALPHA[..., None]], -1)
    # Colours already multiplied are only added to the white that shines through; Pillow divides and multiplies again.
    over = (multiplied[..., :3] + (255 - ALPHA)[..., None]).astype(np.uint8)
    add("alpha-associated.tif", tiff(multiplied, extra_samples=(1,)), over)
    assert np.abs(pillow(out["alpha-associated.tif"][0]).astype(int) - over).max() <= 1
    add("alpha-unassociated.tif", tiff(straight, extra_samples=(2,)), tolerance=ROUNDING)
    add("alpha-unspecified.tif", tiff(straight, extra_samples=(0,)))
    add("alpha-untagged.tif", tiff(straight), tolerance=ROUNDING)
    add("alpha-corel.tif", tiff(straight, extra_samples=(999,)), tolerance=ROUNDING)
    five = np.concatenate([multiplied, GREY[..., None]], -1)
    add("alpha-associated-and-more.tif", tiff(five, extra_samples=(1, 0)), over)
    add("alpha-associated-lzw.tif", with_tifffile(multiplied, photometric="rgb", extrasamples=["assocalpha"],
                                                  compression="lzw", predictor=True), over)
    add("alpha-unassociated-planar.tif", with_tifffile(np.moveaxis(straight, -1, 0).copy(), photometric="rgb",
                                                       planarconfig="separate", extrasamples=["unassalpha"]),
        tolerance=ROUNDING)
    add("padding-lzw-predictor.tif", with_tifffile(straight, photometric="rgb", extrasamples=["unspecified"],
                                                   compression="lzw", predictor=True))
    deep = lambda x: (x.astype(np.uint16) * 257)
    add("alpha-associated-16.tif", tiff(deep(multiplied), bits=16, extra_samples=(1,)), over)
    add("alpha-unassociated-16.tif", tiff(deep(straight), bits=16, extra_samples=(2,), order=">"), tolerance=ROUNDING)
    grey_alpha = np.stack([GREY, ALPHA], -1)
    add("grey-alpha-unassociated.tif", tiff(grey_alpha, 1, extra_samples=(2,)), tolerance=ROUNDING)
    grey_multiplied = np.stack([np.round(GREY * a).astype(np.uint8), ALPHA], -1)
    add("grey-alpha-associated.tif", tiff(grey_multiplied, 1, extra_samples=(1,)),
        grey_rgb((grey_multiplied[..., 0] + (255 - ALPHA)).astype(np.uint8)))
    add("grey-padding.tif", tiff(grey_alpha, 1, extra_samples=(0,)))

    # 16 bits are rounded, not cut off, and never clipped as Pillow does with grey.
    fine = (np.arange(W * H).reshape(H, W) * 341 + 77).astype(np.uint16)
    rounded = ((fine.astype(np.uint32) + 128) // 257).astype(np.uint8)
    for order, letter in (("<", "le"), (">", "be")):
        add(f"grey-16-{letter}.tif", tiff(fine, bits=16, order=order), grey_rgb(rounded))
    add("grey-16-white-is-zero.tif", tiff(fine, 0, bits=16), grey_rgb(255 - rounded))
    add("grey-16-predictor.tif", with_tifffile(fine, photometric="minisblack", compression="deflate", predictor=True),
        grey_rgb(rounded))
    add("rgb-16.tif", tiff(np.stack([fine, fine[::-1], fine[:, ::-1]], -1), bits=16), tolerance=ROUNDING)
    add("rgb-16-planar.tif", with_tifffile(np.stack([fine, fine[::-1], fine[:, ::-1]]), photometric="rgb",
                                           planarconfig="separate"),
        np.stack([rounded, rounded[::-1], rounded[:, ::-1]], -1))

    for bits in (1, 2, 4, 8):
        low = (GREY >> (8 - bits)).astype(np.uint8)[:, :13]        # rows that end inside of a byte
        # Pillow lacks the second fill order here and there; the colours are those of the first.
        for fill in (1, 2):
            for photometric, name in ((1, "grey"), (0, "white-is-zero")):
                add(f"{name}-{bits}-fill-{fill}.tif", tiff(low, photometric, bits=bits, fill_order=fill),
                    pillow(tiff(low, photometric, bits=bits)))
            map_ = [(i * 7919 * (c + 1)) % 65536 for c in range(3) for i in range(1 << bits)]
            add(f"palette-{bits}-fill-{fill}.tif", tiff(low, 3, bits=bits, fill_order=fill, extra=[(320, 3, map_)]),
                pillow(tiff(low, 3, bits=bits, extra=[(320, 3, map_)])))
    # A palette of 8-bit values, against the standard: libtiff's tools and viewers see what was meant, Pillow black.
    map_ = [(i * (c + 3)) % 256 for c in range(3) for i in range(256)]
    add("palette-8-short.tif", tiff(GREY, 3, extra=[(320, 3, map_)]),
        np.stack([np.array(map_[c * 256:c * 256 + 256])[GREY] for c in range(3)], -1))
    add("rgb-fill-2.tif", tiff(RGB, fill_order=2, strips=3), RGB)
    add("rgb-deflate-fill-2.tif", tiff(RGB, fill_order=2, strips=3, compression=8))
    add("grey-16-fill-2.tif", tiff(fine, bits=16, fill_order=2), grey_rgb(rounded))
    add("rgb-strips-be.tif", tiff(RGB, strips=4, order=">"))
    add("rgb-big.tif", tiff(RGB, strips=4, big=True))
    add("rgb-big-be-turned.tif", tiff(RGB, strips=4, big=True, order=">", extra=[(274, 3, (6,))]), np.rot90(RGB, -1))

    for compression in ("lzw", "deflate", "packbits"):
        add(f"rgb-{compression}.tif", with_tifffile(RGB, photometric="rgb", compression=compression, rowsperstrip=5))
        add(f"rgb-{compression}-tiles.tif", with_tifffile(gradient(40, 24), photometric="rgb", compression=compression,
                                                          tile=(16, 16)))
    add("rgb-planar.tif", with_tifffile(np.moveaxis(RGB, -1, 0).copy(), photometric="rgb", planarconfig="separate"))
    add("rgb-two-pages.tif", saved(RGB, "TIFF", save_all=True, append_images=[Image.new("RGB", (3, 3))]))
    for fill in (1, 2):
        for photometric in (0, 1):
            bilevel = saved(Image.fromarray(GREY > 90), "TIFF", compression="group4",
                            tiffinfo={266: fill, 262: photometric})
            add(f"fax4-{photometric}-fill-{fill}.tif", bilevel)
    inks = np.concatenate([255 - RGB, (GREY // 3)[..., None]], -1)
    add("cmyk.tif", tiff(inks, 5), tolerance=ROUNDING)
    add("cmyk-lzw.tif", with_tifffile(inks, photometric="separated", compression="lzw"), tolerance=ROUNDING)
    add("jpeg-rgb.tif", with_tifffile(smooth(32, 32), photometric="rgb", compression="jpeg"), tolerance=JPEG)
    add("jpeg-grey.tif", with_tifffile(smooth(32, 32)[..., 0].copy(), photometric="minisblack", compression="jpeg"),
        tolerance=JPEG)
    add("jpeg-ycbcr.tif", saved(smooth(32, 24), "TIFF", compression="jpeg"), tolerance=CHROMA)
    add("jpeg-ycbcr-tiles.tif", with_tifffile(smooth(48, 40), photometric="ycbcr", compression="jpeg", tile=(32, 32),
                                              subsampling=(1, 1)), tolerance=JPEG)
    add("float-rgb.tif", with_tifffile((RGB / 255).astype(np.float32), photometric="rgb"), RGB)
    refused("old-jpeg.tif", tiff(RGB, compression=6), "ompression")
    refused("zstd.tif", with_tifffile(RGB, photometric="rgb", compression="zstd"), "ompression")
    refused("lab.tif", tiff(RGB, 8), "PhotometricInterpretation")
    refused("12-bit.tif", tiff(GREY, bits=12, packed=[bytes(W * H * 3 // 2)]), "12")
    refused("seven-samples.tif", tiff(np.zeros((H, W, 7), np.uint8), 2, extra_samples=(0,) * 4), "7 samples")
    refused("cut.tif", tiff(RGB)[:400], "; ")


# --- JPEG ------------------------------------------------------------------------------------------------------------

def make_jpegs():
    busy = smooth(40, 40)
    for name, options, tolerance in (
        ("444", dict(subsampling=0), JPEG), ("422", dict(subsampling=1), CHROMA), ("420", dict(subsampling=2), CHROMA),
        ("progressive", dict(subsampling=2, progressive=True), CHROMA),
        ("restarts", dict(subsampling=2, restart_marker_blocks=2), CHROMA),
        ("optimized", dict(subsampling=0, optimize=True), JPEG), ("rgb", dict(subsampling=0, keep_rgb=True), JPEG),
        ("worst", dict(subsampling=0, quality=10), JPEG), ("best", dict(subsampling=0, quality=100), JPEG),
    ):
        add(f"{name}.jpg", saved(busy, "JPEG", **options), tolerance=tolerance)
    add("odd-420.jpg", saved(smooth(19, 13), "JPEG", subsampling=2), tolerance=CHROMA)
    add("one-pixel.jpg", saved(smooth(1, 1), "JPEG"), tolerance=JPEG)
    add("grey.jpg", saved(busy[..., 0].copy(), "JPEG"), tolerance=JPEG)
    add("grey-progressive.jpg", saved(busy[..., 0].copy(), "JPEG", progressive=True), tolerance=JPEG)
    cmyk = Image.fromarray(np.concatenate([255 - busy, busy[..., :1] // 4], -1), "CMYK")
    add("cmyk.jpg", saved(cmyk, "JPEG", quality=95), tolerance=JPEG)
    whole = saved(busy, "JPEG", subsampling=0)
    add("garbage-behind.jpg", whole + b"garbage \xff\xd8\xff\xe0" * 5, tolerance=JPEG)
    add("second-behind.jpg", whole + saved(smooth(8, 8), "JPEG"), tolerance=JPEG)
    mpo = io.BytesIO()
    Image.fromarray(busy).save(mpo, "MPO", save_all=True, append_images=[Image.fromarray(busy[::-1].copy())],
                               subsampling=0)
    add("stereo.mpo", mpo.getvalue(), tolerance=JPEG)
    at = whole.index(b"\xff\xdb")
    add("fill-before-marker.jpg", whole[:at] + b"\xff\xff\xff" + whole[at:], tolerance=JPEG)
    add("bytes-before-marker.jpg", whole[:at] + b"\1\2\3\4\5\6" + whole[at:], tolerance=JPEG)
    add("thumbnail.jpg", jpeg_with(app1(b"Exif\0\0" + exif() + saved(smooth(8, 8), "JPEG")), picture=whole), tolerance=JPEG)
    adobe = lambda transform: b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([transform])
    no_jfif = whole[:2] + whole[20:]
    add("adobe-ycbcr.jpg", no_jfif[:2] + adobe(1) + no_jfif[2:], tolerance=JPEG)
    add("adobe-rgb.jpg", no_jfif[:2] + adobe(0) + no_jfif[2:], tolerance=JPEG)
    frame = whole.index(b"\xff\xc0")
    changed = lambda at, byte: whole[:at] + bytes([byte]) + whole[at + 1:]
    refused("12-bit.jpg", changed(frame + 4, 12), "12 bits")
    refused("arithmetic.jpg", changed(frame + 1, 0xC9), "arithmetic")
    refused("lossless.jpg", changed(frame + 1, 0xC3), "lossless")


# --- The others ------------------------------------------------------------------------------------------------------

def png(rows, bits, color, extra=(), w=W, h=H):
    """A PNG from its rows of bytes."""
    head = struct.pack(">LLBBBBB", w, h, bits, color, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(extra) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def make_others():
    fine = (np.arange(W * H).reshape(H, W) * 341 + 77).astype(np.uint16)
    rounded = ((fine.astype(np.uint32) + 128) // 257).astype(np.uint8)
    big = lambda x: [row.astype(">u2").tobytes() for row in x.reshape(H, -1)]
    # As with TIFF: Pillow clips 16-bit grey at 255 and cuts off the lower byte of colours; we round.
    add("grey-16.png", png(big(fine), 16, 0), grey_rgb(rounded))
    three = np.stack([fine, fine[::-1], fine[:, ::-1]], -1)
    add("rgb-16.png", png(big(three), 16, 2), tolerance=ROUNDING)
    alpha = np.broadcast_to((np.arange(W) * 4369).astype(np.uint16), (H, W))
    add("rgba-16.png", png(big(np.dstack([three, alpha])), 16, 6), tolerance=ROUNDING)
    add("grey-alpha-16.png", png(big(np.dstack([fine, alpha])), 16, 4), tolerance=ROUNDING)
    for bits in (1, 2, 4, 8):
        plane = np.unpackbits((GREY >> (8 - bits))[..., None], axis=-1)[..., 8 - bits:]
        rows = [row.tobytes() for row in np.packbits(plane.reshape(H, -1), axis=1)]
        add(f"grey-{bits}.png", png(rows, bits, 0))
        # By the standard, the sample as it is stored is compared; Pillow compares the one stretched to 8 bits.
        stretched, clear = pillow(out[f"grey-{bits}.png"][0]), (GREY >> (8 - bits)) == 1
        add(f"grey-{bits}-transparent.png", png(rows, bits, 0, [chunk(b"tRNS", b"\0\1")]),
            np.where(clear[..., None], 255, stretched))
        colors = b"".join(bytes([(i * 37) % 256, (i * 11) % 256, (i * 201) % 256]) for i in range(1 << bits))
        add(f"palette-{bits}.png", png(rows, bits, 3, [chunk(b"PLTE", colors)]))
        add(f"palette-{bits}-alpha.png", png(rows, bits, 3, [chunk(b"PLTE", colors), chunk(b"tRNS", b"\0\x80")]),
            tolerance=ROUNDING)
    key = RGB[3, 5].tobytes()
    rows = [row.tobytes() for row in RGB.reshape(H, -1)]
    add("rgb-transparent.png", png(rows, 8, 2, [chunk(b"tRNS", b"".join(b"\0" + bytes([c]) for c in key))]))
    straight = np.concatenate([RGB, ALPHA[..., None]], -1)
    add("rgba.png", saved(straight, "PNG"), tolerance=ROUNDING)
    add("interlaced.png", _interlaced())

    add("first-frame.gif", saved(RGB // 64 * 64, "GIF", save_all=True, append_images=[Image.new("RGB", (W, H), "red")]))
    quantized = Image.fromarray(RGB).quantize(16)
    add("transparent.gif", saved(quantized, "GIF", transparency=quantized.getpixel((3, 3))))
    # What no frame covers is clear, as in browsers; for Pillow it has colour 0 (not that of the background, either).
    frame = _gif(transparency=None)
    add("smaller-frame.gif", frame, np.pad(pillow(frame)[3:9, 4:12], ((3, 3), (4, 4), (0, 0)), constant_values=255))
    add("smaller-frame-transparent.gif", _gif(transparency=0))
    add("interlaced.gif", saved(quantized, "GIF", interlace=True))

    add("lossless.webp", saved(RGB, "WEBP", lossless=True))
    add("alpha.webp", saved(straight, "WEBP", lossless=True, exact=True), tolerance=ROUNDING)
    add("alpha-lossy.webp", saved(np.concatenate([smooth(), ALPHA[..., None]], -1), "WEBP", quality=95), tolerance=CHROMA)
    add("lossy.webp", saved(smooth(40, 40), "WEBP", quality=90), tolerance=CHROMA)
    add("animated.webp", saved(RGB, "WEBP", lossless=True, save_all=True, append_images=[Image.new("RGB", (W, H), "red")]))
    add("animated-alpha.webp", saved(straight, "WEBP", lossless=True, exact=True, save_all=True,
                                     append_images=[Image.new("RGBA", (W, H), "red")]), tolerance=ROUNDING)

    for mode in ("1", "L", "P", "RGB"):
        image = Image.fromarray(RGB).quantize(8) if mode == "P" else Image.fromarray(RGB).convert(mode)
        add(f"{mode.lower()}.bmp", saved(image, "BMP"))
    bgra = straight[..., [2, 1, 0, 3]]
    add("rgba-bitfields.bmp", saved(straight, "BMP"), tolerance=ROUNDING)
    add("bgra-v4.bmp", _bmp(bgra.tobytes(), 32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000)), tolerance=ROUNDING)
    add("rgba-v4.bmp", _bmp(straight.tobytes(), 32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000)), tolerance=ROUNDING)
    add("bgrx.bmp", _bmp(bgra.tobytes(), 32, None))
    zero = np.concatenate([RGB[..., ::-1], np.zeros((H, W, 1), np.uint8)], -1)
    add("bgrx-zero.bmp", _bmp(zero.tobytes(), 32, None))
    five = ((RGB[..., 0].astype(np.uint16) >> 3) << 10) | ((RGB[..., 1].astype(np.uint16) >> 3) << 5) | (RGB[..., 2] >> 3)
    add("rgb-555.bmp", _bmp(five.astype("<u2").tobytes(), 16, None), tolerance=ROUNDING)
    six = ((RGB[..., 0].astype(np.uint16) >> 3) << 11) | ((RGB[..., 1].astype(np.uint16) >> 2) << 5) | (RGB[..., 2] >> 3)
    add("rgb-565.bmp", _bmp(six.astype("<u2").tobytes(), 16, (0xF800, 0x7E0, 0x1F, 0)), tolerance=ROUNDING)

    head = lambda kind, most: b"P%d\n# a comment\n%d %d\n%d\n" % (kind, W, H, most)
    add("p1.pbm", b"P1\n%d %d\n" % (W, H) + b"\n".join(b" ".join(b"%d" % (v > 90) for v in row) for row in GREY) + b"\n")
    add("p4.pbm", saved(Image.fromarray(GREY > 90), "PPM"))
    for most in (1, 7, 100, 255):
        low = (GREY.astype(int) * most // 255).astype(np.uint8)
        add(f"p5-{most}.pgm", head(5, most) + low.tobytes(), tolerance=ROUNDING)
        add(f"p2-{most}.pgm", head(2, most) + b"\n".join(b" ".join(b"%d" % v for v in row) for row in low) + b"\n",
            tolerance=ROUNDING)
        color = (RGB.astype(int) * most // 255).astype(np.uint8)
        add(f"p6-{most}.ppm", head(6, most) + color.tobytes(), tolerance=ROUNDING)
    for most in (256, 1023, 65535):
        low = (fine.astype(np.uint64) * most // 65535)
        # 16-bit grey: scaled, where Pillow clips.
        expected = np.floor(low * 255 / most + 0.5).astype(np.uint8)
        add(f"p5-{most}.pgm", head(5, most) + low.astype(">u2").tobytes(), grey_rgb(expected), ROUNDING)
        low = (three.astype(np.uint64) * most // 65535)
        add(f"p6-{most}.ppm", head(6, most) + low.astype(">u2").tobytes(), tolerance=ROUNDING)


def _interlaced():
    """Adam7, by hand: Pillow does not write it."""
    data = b""
    for x0, y0, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)):
        for row in RGB[y0::dy, x0::dx]:
            data += b"\0" + row.tobytes()
    head = struct.pack(">LLBBBBB", W, H, 8, 2, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def _gif(transparency):
    """A frame of 8 x 6 at (4, 3) on a canvas of 16 x 12, with colour 1 as its background."""
    small = Image.fromarray((np.arange(48).reshape(6, 8) % 4).astype(np.uint8))
    small = small.convert("P")
    small.putpalette([200, 30, 30, 30, 200, 30, 30, 30, 200, 220, 220, 30])
    options = {} if transparency is None else {"transparency": transparency}
    data = bytearray(saved(small, "GIF", optimize=False, **options))
    struct.pack_into("<HH", data, 6, W, H)
    data[11] = 1
    # The image descriptor lies behind the colours and the extension, if there is one.
    at = 13 + 3 * (2 << (data[10] & 7))
    while data[at] == 0x21:
        at += 2
        while data[at]:
            at += data[at] + 1
        at += 1
    assert data[at] == 0x2C
    struct.pack_into("<HH", data, at + 1, 4, 3)
    return bytes(data)


def _bmp(rows, bits, masks):
    """Top down, with a header of version 4 if there are masks."""
    size = 108 if masks else 40
    head = struct.pack("<LllHHLLllLL", size, W, -H, 1, bits, 3 if masks else 0, len(rows), 0, 0, 0, 0)
    if masks:
        head += struct.pack("<LLLL", *masks) + b"BGRs" + bytes(48)
    return b"BM" + struct.pack("<LHHL", 14 + size + len(rows), 0, 0, 14 + size) + head + rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--unpack", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    make_orientations()
    make_tiffs()
    make_jpegs()
    make_others()
    packed = b""
    for name, (data, expected, tolerance, note) in out.items():
        h, w = expected.shape[:2]
        packed += f"{name}\t{len(data)}\t{w}\t{h}\t{tolerance}\t{note}\n".encode() + data + expected.tobytes()
        if arguments.unpack:
            arguments.unpack.mkdir(parents=True, exist_ok=True)
            (arguments.unpack / name).write_bytes(data)
    arguments.corpus.write_bytes(zlib.compress(packed, 9))
    print(f"{len(out)} pictures, {len(packed)} bytes, {arguments.corpus.stat().st_size} packed")


if __name__ == "__main__":
    main()
