//! The loop and the one-shot: sweep → diagnose → decide → treat → export; shutdown.
