//! Reproducible numbers and ids: the same inputs give the same values in every run.

/// A UUID that looks random: the `n`th of a family.
pub(crate) fn uuid(family: u64, n: u64) -> String {
    let (high, low) = (scramble(family ^ n.rotate_left(32)), scramble(n.wrapping_add(family.rotate_left(17))));
    uuid::Builder::from_random_bytes((u128::from(high) << 64 | u128::from(low)).to_be_bytes()).into_uuid().to_string()
}

/// One step of the splitmix64 generator.
pub(crate) const fn scramble(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
