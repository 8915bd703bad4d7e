//! Everything that is encoded is decoded as it was, and no bytes make a decoder panic.

use super::*;
use bytes::BytesMut;
use handover::Position;
use proptest::prelude::*;

#[test]
fn positions_are_exact_and_ordered() {
    for bad in ["", "r", "r1", "r1.", "r01.2", "1.2.3.4.5.6", "+1.00000000.00000000.1.00000000.00000000", "1", "r-1.2"]
    {
        let position = Position::parse(bad).expect("printable");
        assert!(matches!(Point::parse(&position), Err(Error::Corrupt(_))), "{bad:?} was taken for a position");
    }
    let point = |seq, frame| Point::Wal { seq, salt: [1, 2], frame, checksum: [3, 4] };
    assert!(point(1, 1) < point(2, 1));
    assert_eq!(point(1, 1).partial_cmp(&point(1, 2)), None);
    assert_eq!(point(9, 1).to_string(), "9.00000001.00000002.1.00000003.00000004");
}

#[test]
fn a_fence_in_the_log_is_refused() {
    let mut page = vec![0; 512];
    page[header::WRITE_VERSION] = header::FENCED;
    let mut out = BytesMut::new();
    begin_log(&mut out, 512);
    push_frame(&mut out, Frame { pgno: 1, commit: 1, page: &page });
    assert!(matches!(Log::decode(&out), Err(Error::Corrupt(_))));
}

#[test]
fn a_sparse_chunk_says_nothing_when_nothing_differs() {
    assert!(Sparse::new(1024, None).finish().is_empty());
    let last = ChunkPayload::decode(&Sparse::new(1024, Some(7)).finish(), 512).expect("decoded");
    assert_eq!(last.file_bytes, Some(7));
}

#[test]
fn digests_tell_pages_apart() {
    let mut bytes = vec![0; 1024];
    bytes[512] = 1;
    let digest = Digest::decode(&Digest::of(&bytes, 512).encode()).expect("decoded");
    assert_eq!(digest.pages(), 2);
    assert!(digest.matches(1, &bytes[512..]) && !digest.matches(0, &bytes[512..]) && !digest.matches(2, &bytes[..512]));
}

proptest! {
    #[test]
    fn positions_come_back(seq: u64, salt: [u32; 2], frame: u32, checksum: [u32; 2], pass: u32) {
        for point in [Point::Wal { seq, salt, frame, checksum }, Point::Rollback { pass, seq }] {
            prop_assert_eq!(Point::parse(&point.position()).expect("parsed"), point);
        }
    }

    #[test]
    fn any_text_is_judged(text in "[ -~]{0,80}") {
        if let Some(position) = Position::parse(&text) {
            let _ = Point::parse(&position);
        }
    }

    #[test]
    fn sparse_chunks_come_back(picked in prop::collection::btree_map(0u32..16, any::<u8>(), 0..16), last: Option<u64>) {
        let mut sparse = Sparse::new(16 * 512, last);
        for (index, fill) in &picked {
            sparse.push(*index, &[*fill; 512]);
        }
        let chunk = ChunkPayload::decode(&sparse.finish(), 512).expect("decoded");
        let Body::Sparse { pages, .. } = chunk.body else { panic!("not sparse") };
        prop_assert_eq!(chunk.file_bytes, last);
        prop_assert_eq!(pages.len(), picked.len());
        for ((index, page), (want, fill)) in pages.iter().zip(&picked) {
            prop_assert!(index == want && page[..] == [*fill; 512]);
        }
    }

    #[test]
    fn full_chunks_come_back(pages in 0usize..4, fill: u8, last: Option<u64>) {
        let mut out = BytesMut::new();
        full_prefix(&mut out, last);
        out.extend_from_slice(&vec![fill; pages * 512]);
        let chunk = ChunkPayload::decode(&out.freeze(), 512).expect("decoded");
        prop_assert_eq!(chunk, ChunkPayload { body: Body::Full(vec![fill; pages * 512].into()), file_bytes: last });
    }

    #[test]
    fn logs_come_back(frames in prop::collection::vec((1u32.., any::<u32>(), 0u8..3), 1..9)) {
        let mut out = BytesMut::new();
        begin_log(&mut out, 1024);
        for (pgno, commit, fill) in &frames {
            push_frame(&mut out, Frame { pgno: *pgno, commit: *commit, page: &[*fill; 1024] });
        }
        let log = Log::decode(&out).expect("decoded");
        prop_assert_eq!(log.len(), frames.len());
        for (frame, (pgno, commit, fill)) in log.frames().zip(&frames) {
            prop_assert_eq!(frame, Frame { pgno: *pgno, commit: *commit, page: &[*fill; 1024] });
        }
    }

    #[test]
    fn plan_headers_come_back(bits in 9u32..=16, rollback: bool, pages in 0u64..1 << 32, mode in 0u32..0o10000) {
        let page_size = 1 << bits;
        let journal = if rollback { Journal::Rollback } else { Journal::Wal };
        let file_bytes = pages * u64::from(page_size);
        let header = SeedHeader { page_size, journal, file_bytes, part_bytes: PART_BYTES, mode };
        prop_assert_eq!(SeedHeader::decode(&header.encode()).expect("decoded"), header);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..2000), kind in 0u8..6, size in 0u32..3) {
        if bytes.len() > 8 {
            bytes[0] = VERSION;
            bytes[1] = kind;
            bytes[4..8].copy_from_slice(&(512u32 << size).to_le_bytes());
        }
        let bytes = Bytes::from(bytes);
        let _ = ChunkPayload::decode(&bytes, 512);
        let _ = Digest::decode(&bytes).map(|d| d.matches(3, &[0; 512]));
        let _ = Log::decode(&bytes).map(|l| l.frames().count());
        let _ = SeedHeader::decode(&bytes);
        let _ = Requirements::decode(&bytes);
    }
}
