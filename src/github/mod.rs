//! The GitHub adapter: authentication, registration, the Actions service. Wire types stay inside.
