//! Configuration: raw (serde) → checked, all mistakes in one report; secrets.
