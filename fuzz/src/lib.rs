//! The properties that the ordinary tests run too, for the fuzz targets.

#[path = "../../tests/it/fuzz/properties.rs"]
pub mod properties;
#[path = "../../tests/it/fuzz/servers.rs"]
pub mod servers;
