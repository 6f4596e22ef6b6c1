//! `frame` against flate2, and against bodies made by hand.
//!
//! Not proven here: DEFLATE itself, which is `miniz_oxide`'s, beyond what round trips and damaged data show.

use flate2::{Compression, GzBuilder, write::DeflateEncoder, write::GzEncoder};
use phoenix_filter::frame::*;
use phoenix_filter::wire::Span;
use proptest::prelude::*;
use std::io::{Read, Write};

const LIMIT: usize = 1 << 20;

fn gzip(data: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(vec![], Compression::new(level));
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
    [&[flag][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

fn frames(body: &[u8]) -> Result<Vec<Frame>, FrameError> {
    let (mut frames, mut all) = (Frames::new(body), vec![]);
    loop {
        match frames.next() {
            Ok(Some(frame)) => all.push(frame),
            Ok(None) => return Ok(all),
            Err(e) => {
                assert_eq!(frames.next(), Err(e), "an error repeats");
                return Err(e);
            }
        }
    }
}

fn messages(body: &[u8], encoding: Encoding, limit: usize) -> Result<Vec<Vec<u8>>, FrameError> {
    let mut scratch = b"from before".to_vec();
    frames(body)?.iter().map(|f| f.message(body, encoding, limit, &mut scratch).map(<[u8]>::to_vec)).collect()
}

#[test]
fn encodings() {
    for (value, encoding) in [
        (None, Encoding::Identity),
        (Some("identity"), Encoding::Identity),
        (Some(""), Encoding::Identity),
        (Some("gzip"), Encoding::Gzip),
        (Some(" GZIP "), Encoding::Gzip),
        (Some("zstd"), Encoding::Unknown),
        (Some("snappy"), Encoding::Unknown),
        (Some("gzip, gzip"), Encoding::Unknown),
    ] {
        assert_eq!(Encoding::of_header(value.map(str::as_bytes)), encoding, "{value:?}");
    }
}

#[test]
fn bodies() {
    let check = |body: &[u8], expected: &[&[u8]]| {
        assert_eq!(messages(body, Encoding::Gzip, LIMIT), Ok(expected.iter().map(|m| m.to_vec()).collect()));
    };
    check(b"", &[]);
    check(&frame(0, b""), &[b""]);
    check(&frame(0, b"abc"), &[b"abc"]);
    check(&[frame(0, b"abc"), frame(1, &gzip(b"def", 6)), frame(0, b"")].concat(), &[b"abc", b"def", b""]);
    check(&frame(1, &gzip(b"", 6)), &[b""]);
    // Plain messages are read whatever the encoding.
    assert_eq!(messages(&frame(0, b"abc"), Encoding::Unknown, 0), Ok(vec![b"abc".to_vec()]));
    assert_eq!(messages(&frame(0, b"abc"), Encoding::Identity, 0), Ok(vec![b"abc".to_vec()]));
}

#[test]
fn spans() {
    let body = [frame(0, b"abc"), frame(1, b"z")].concat();
    let all = frames(&body).unwrap();
    let (first, second) = (Span { start: 0, end: 8 }, Span { start: 8, end: 14 });
    assert_eq!(all[0], Frame { span: first, payload: Span { start: 5, end: 8 }, compressed: false });
    assert_eq!(all[1], Frame { span: second, payload: Span { start: 13, end: 14 }, compressed: true });
}

#[test]
fn bad_bodies() {
    use FrameErrorKind::*;
    let check = |body: &[u8], encoding, limit, kind, at| {
        assert_eq!(messages(body, encoding, limit), Err(FrameError { kind, at }), "{body:02x?}");
    };
    let packed = frame(1, &gzip(&[7; 1000], 6));
    check(b"\0", Encoding::Gzip, LIMIT, Truncated, 0);
    check(b"\0\0\0\0", Encoding::Gzip, LIMIT, Truncated, 0);
    check(&[frame(0, b"abc"), vec![0; 4]].concat(), Encoding::Gzip, LIMIT, Truncated, 8);
    check(b"\0\0\0\0\x01", Encoding::Gzip, LIMIT, LengthPastEnd, 0);
    check(b"\0\xff\xff\xff\xffabc", Encoding::Gzip, LIMIT, LengthPastEnd, 0);
    check(&frame(2, b"abc"), Encoding::Gzip, LIMIT, BadFlag, 0);
    check(&frame(0x80, b"abc"), Encoding::Gzip, LIMIT, BadFlag, 0); // the trailers of gRPC-Web
    check(&[frame(0, b"abc"), packed.clone()].concat(), Encoding::Identity, LIMIT, UnknownEncoding, 8);
    check(&packed, Encoding::Unknown, LIMIT, UnknownEncoding, 0);
    check(&packed, Encoding::Gzip, 999, TooLarge, 15);
    check(&frame(1, b""), Encoding::Gzip, LIMIT, Gunzip(GunzipErrorKind::Truncated), 5);
    check(&frame(1, b"abc"), Encoding::Gzip, LIMIT, Gunzip(GunzipErrorKind::BadHeader), 5);
    assert!(messages(&packed, Encoding::Gzip, 1000).is_ok());
}

#[test]
fn written_frames() {
    let body = [frame(1, &gzip(b"abc", 6)), frame(0, b"def")].concat();
    let all = frames(&body).unwrap();
    let mut out = vec![];
    all[0].put_unchanged(&body, &mut out);
    put_frame(&mut out, b"changed").unwrap();
    put_frame_header(&mut out, 1).unwrap();
    out.push(b'!');
    assert_eq!(out, [frame(1, &gzip(b"abc", 6)), frame(0, b"changed"), frame(0, b"!")].concat());
    if let Some(too_long) = 1_usize.checked_shl(32) {
        let before = out.clone();
        let error = FrameError { kind: FrameErrorKind::Unframable, at: out.len() };
        assert_eq!(put_frame_header(&mut out, too_long), Err(error));
        assert_eq!(out, before);
    }
}

#[track_caller]
fn refuse(input: &[u8], limit: usize, kind: GunzipErrorKind, at: usize) {
    assert_eq!(gunzip(input, limit), Err(GunzipError { kind, at }));
    let mut out = b"before".to_vec();
    assert_eq!(gunzip_into(input, limit, &mut out), Err(GunzipError { kind, at }));
    assert_eq!(out, b"before");
}

#[test]
fn headers() {
    let parts = |f: &dyn Fn(GzBuilder) -> GzBuilder| {
        let mut encoder = f(GzBuilder::new()).write(vec![], Compression::default());
        encoder.write_all(b"data").unwrap();
        encoder.finish().unwrap()
    };
    for input in [
        parts(&|b| b.filename("name")),
        parts(&|b| b.comment("a comment")),
        parts(&|b| b.extra(vec![1; 300])),
        parts(&|b| b.extra(vec![]).filename("").comment("")),
        parts(&|b| b.extra(vec![0; 3]).filename("n").comment("c").mtime(7)),
    ] {
        assert_eq!(gunzip(&input, LIMIT).as_deref(), Ok(&b"data"[..]));
        (0..input.len()).for_each(|end| {
            let e = gunzip(&input[..end], LIMIT).unwrap_err();
            assert_eq!(e.kind, GunzipErrorKind::Truncated, "at {end}");
        });
    }
    // A header checksum: the CRC-16 of what is before it.
    let plain = gzip(b"data", 6);
    let mut header = plain[..10].to_vec();
    header[3] |= 2;
    let mut crc = flate2::Crc::new();
    crc.update(&header);
    let sum = (crc.sum() as u16).to_le_bytes();
    assert_eq!(gunzip(&[&header[..], &sum, &plain[10..]].concat(), LIMIT).as_deref(), Ok(&b"data"[..]));
    let wrong = [sum[0] ^ 1, sum[1]];
    refuse(&[&header[..], &wrong, &plain[10..]].concat(), LIMIT, GunzipErrorKind::BadHeader, 0);
}

#[test]
fn bad_gzip() {
    use GunzipErrorKind::*;
    let good = gzip(b"some data", 6);
    let end = good.len();
    let with = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] = byte;
        bad
    };
    refuse(b"", LIMIT, Truncated, 0);
    refuse(b"\x1f", LIMIT, Truncated, 0);
    refuse(b"zip", LIMIT, BadHeader, 0);
    refuse(&with(0, 0), LIMIT, BadHeader, 0);
    refuse(&with(2, 7), LIMIT, BadHeader, 0);
    refuse(&with(3, 0x20), LIMIT, BadHeader, 0);
    refuse(&with(10, 0x07), LIMIT, BadData, 10); // a block of the reserved type
    refuse(&with(end - 8, good[end - 8] ^ 1), LIMIT, BadChecksum, end - 8);
    refuse(&with(end - 4, good[end - 4] ^ 1), LIMIT, BadLength, end - 8);
    refuse(&good[..end - 1], LIMIT, Truncated, end - 8);
    refuse(&good[..end - 9], LIMIT, Truncated, 10);
    refuse(&[&good[..], b"junk"].concat(), LIMIT, BadHeader, end);
    refuse(&[&good[..], &[0; 4]].concat(), LIMIT, BadHeader, end);
    refuse(&[&good[..], &good[..4]].concat(), LIMIT, Truncated, end);
    refuse(&good, 8, TooLarge, 10);
    refuse(&good, 0, TooLarge, 10);
}

#[test]
fn a_bomb_allocates_no_more_than_the_limit() {
    let bomb = gzip(&vec![0; 64 << 20], 9);
    assert!(bomb.len() < 100_000);
    for limit in [0, 1, 4096, 100_000, LIMIT, LIMIT + 1] {
        let mut out = Vec::new();
        let error = gunzip_into(&bomb, limit, &mut out).unwrap_err();
        assert_eq!(error.kind, GunzipErrorKind::TooLarge);
        assert!(out.is_empty());
        assert!(out.capacity() <= limit, "{} > {limit}", out.capacity());
    }
    // The limit is that of all members together.
    let two = [gzip(&[0; 600], 6), gzip(&[0; 600], 6)].concat();
    assert_eq!(gunzip(&two, 1200).map(|out| out.len()), Ok(1200));
    assert_eq!(gunzip(&two, 1199).map_err(|e| e.kind), Err(GunzipErrorKind::TooLarge));
}

#[test]
fn large_data_and_every_block_type() {
    let text = "k8s.pod.name=checkout-7d9f http.route=/cart ".repeat(30_000).into_bytes();
    let noise: Vec<u8> = (0..300_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for data in [&text, &noise] {
        for level in [0, 1, 6, 9] {
            let packed = gzip(data, level);
            assert_eq!(gunzip(&packed, data.len()).as_deref(), Ok(&data[..]), "level {level}");
            assert_eq!(gunzip(&packed, data.len() - 1).map_err(|e| e.kind), Err(GunzipErrorKind::TooLarge));
        }
    }
    // Data that ends with the output full and empty blocks still to come.
    let mut encoder = DeflateEncoder::new(vec![], Compression::default());
    encoder.write_all(b"data").unwrap();
    encoder.flush().unwrap();
    encoder.flush().unwrap();
    let (mut crc, deflated) = (flate2::Crc::new(), encoder.finish().unwrap());
    crc.update(b"data");
    let header = b"\x1f\x8b\x08\0\0\0\0\0\0\xff";
    let packed = [&header[..], &deflated, &crc.sum().to_le_bytes(), &4_u32.to_le_bytes()].concat();
    assert_eq!(gunzip(&packed, 4).as_deref(), Ok(&b"data"[..]));
}

proptest! {
    #[test]
    fn gunzip_is_flate2s(
        members in prop::collection::vec((prop::collection::vec(0_u8..20, 0..5000), 0_u32..10), 1..4),
        slack in 0_usize..3,
    ) {
        let packed: Vec<u8> = members.iter().flat_map(|(data, level)| gzip(data, *level)).collect();
        let data: Vec<u8> = members.iter().flat_map(|(data, _)| data.clone()).collect();
        let mut out = b"before".to_vec();
        prop_assert_eq!(gunzip_into(&packed, data.len() + slack, &mut out), Ok(()));
        prop_assert_eq!(&out[6..], &data[..]);
        if !data.is_empty() {
            prop_assert_eq!(gunzip(&packed, data.len() - 1).map_err(|e| e.kind), Err(GunzipErrorKind::TooLarge));
        }
    }

    /// Damage is an error, or leaves the data as they were; what flate2 refuses we refuse.
    #[test]
    fn damaged_gzip(data in prop::collection::vec(0_u8..20, 0..500), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut packed = gzip(&data, 6);
        let at = at.index(packed.len());
        packed[at] ^= 1_u8 << bit;
        let mut theirs = vec![];
        let read = flate2::bufread::MultiGzDecoder::new(&packed[..]).read_to_end(&mut theirs);
        match gunzip(&packed, LIMIT) {
            Ok(out) => {
                prop_assert_eq!(&out, &data);
                prop_assert!(read.is_ok());
            }
            Err(e) => prop_assert!(e.at <= packed.len()),
        }
    }

    #[test]
    fn any_body(body in prop::collection::vec(prop_oneof![0_u8..3, any::<u8>()], 0..60)) {
        if let Ok(all) = frames(&body) {
            let mut out = vec![];
            all.iter().for_each(|frame| frame.put_unchanged(&body, &mut out));
            prop_assert_eq!(out, body.clone());
        }
        let _ = messages(&body, Encoding::Gzip, LIMIT);
        let _ = gunzip(&body, LIMIT);
        let _ = gunzip(&[b"\x1f\x8b\x08", &body[..]].concat(), LIMIT);
    }

    #[test]
    fn bodies_round_trip(all in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..300), any::<bool>()), 0..6)) {
        let body: Vec<u8> =
            all.iter().flat_map(|(m, packed)| if *packed { frame(1, &gzip(m, 6)) } else { frame(0, m) }).collect();
        let read = messages(&body, Encoding::Gzip, 300);
        prop_assert_eq!(read, Ok(all.iter().map(|(m, _)| m.clone()).collect()));
    }
}
