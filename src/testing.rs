//! What unit tests share: how many cases a property is tried on.

use proptest::test_runner::Config;

/// A couple of thousand cases for a property, and two million where `RAPPORT_TEST_SCALE` is `large`: five properties make
/// ten million. Failures are shown, and not kept beside the sources.
pub(crate) fn fuzzing() -> Config {
    #[expect(clippy::disallowed_methods, reason = "a test asks how much it is to do")]
    let is_large = std::env::var("RAPPORT_TEST_SCALE").is_ok_and(|scale| scale == "large");
    let cases = if is_large { 2_000_000 } else { 2000 };
    Config { cases, max_shrink_iters: 10_000, failure_persistence: None, ..Config::default() }
}

/// A sound text with a few of its bytes changed, added, or taken out: what comes close to being understood.
pub(crate) fn damaged(mut bytes: Vec<u8>, changes: &[(proptest::sample::Index, u8, u8)]) -> Vec<u8> {
    for (place, how, byte) in changes {
        if bytes.is_empty() {
            bytes.push(*byte);
            continue;
        }
        let place = place.index(bytes.len());
        match how % 3 {
            0 => bytes[place] = *byte,
            1 => bytes.insert(place, *byte),
            _ => drop(bytes.remove(place)),
        }
    }
    bytes
}
