//! Profiles: settings that go together, as files. They are layered under a configuration file, which may change each of them.

/// Name and text of each.
pub const PROFILES: &[(&str, &str)] = &[
    ("laptop", include_str!("../profiles/laptop.toml")),
    ("dense", include_str!("../profiles/dense.toml")),
    ("latency", include_str!("../profiles/latency.toml")),
    ("throughput", include_str!("../profiles/throughput.toml")),
];

/// The text of a profile.
pub fn profile(name: &str) -> Option<&'static str> {
    PROFILES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_is_toml_and_says_what_it_is_for() {
        for (name, text) in PROFILES {
            assert!(text.starts_with("# "), "{name}");
            text.parse::<toml::Table>().expect(name);
        }
    }
}
