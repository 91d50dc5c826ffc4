//! Files that nobody made well: every line is an interaction, passed over, or rejected with a reason, and nothing panics.

use std::io::Cursor;

use proptest::{collection::vec, prelude::*, sample::Index};

use crate::testing::{damaged, fuzzing};

use super::{Format, Input, Line, Mapping};

const SOUND: [(Format, &str); 3] = [
    (
        Format::Tsv,
        "actor\trecipients\ttime\tkind\teffort_minutes\ttopics\n\
         bob\tada;zoë\t1767225600.5\tHELP\t45\trust;go\nada\tada\t2026-01-01T00:00:00Z\tMESSAGE\t\t\n",
    ),
    (
        Format::Csv,
        "actor,recipients,time,kind,goal\nbob,\"ada;zoë\",1767225600,HELP,\"ship, \"\"soon\"\"\nbob,ada,2,IDEA,\"two\nlines\"\n",
    ),
    (
        Format::Jsonl,
        "{\"actor\":\"bob\",\"recipients\":[\"ada\"],\"time\":1767225600,\"kind\":\"HELP\",\"effort\":\"90s\"}\n\
         {\"interactionId\":\"i\",\"actor\":7,\"recipients\":\"ada\",\"interactionTime\":\"2026-01-01T00:00:00Z\",\
         \"kind\":\"INTERACTION_KIND_ASK\",\"unprompted\":true}\n",
    ),
];

/// Reads it all; how many lines were handed on.
fn read(bytes: Vec<u8>, format: Format) -> usize {
    let mapping = Mapping { id_prefix: "file".to_owned(), ..Mapping::default() };
    // What is no gzip although it begins as such cannot be read at all.
    let Ok(input) = Input::new(Cursor::new(bytes), None, format, mapping, 0) else { return 0 };
    let (mut lines, mut last) = (0, 0);
    let read = input.read(|read| {
        assert!(read.number > last, "lines are numbered upward");
        last = read.number;
        match read.line {
            Line::Interaction(interaction) => assert!(!interaction.interaction_id.is_empty()),
            Line::Rejected(reason) => assert!(!reason.is_empty()),
            Line::TowardSelf => {}
        }
        lines += 1;
        true
    });
    assert!(read.is_ok() || lines == 0 || format == Format::Jsonl, "only a heading, or the input itself, fails it all");
    lines
}

#[test]
fn what_is_damaged_here_is_sound() {
    for (format, text) in SOUND {
        assert_eq!(read(text.as_bytes().to_vec(), format), 2, "{format:?}");
    }
}

proptest! {
    #![proptest_config(fuzzing())]

    #[test]
    fn any_file_is_read_line_by_line(
        bytes in vec(any::<u8>(), 0..200),
        which in 0..SOUND.len(),
        changes in vec((any::<Index>(), 0_u8..3, any::<u8>()), 0..8),
    ) {
        let (format, sound) = SOUND[which];
        read(bytes, format);
        read(damaged(sound.as_bytes().to_vec(), &changes), format);
    }
}
