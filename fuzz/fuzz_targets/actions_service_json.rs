#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| scaleset_medic_fuzz::properties::actions_service_json(bytes));
