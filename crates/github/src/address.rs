//! Addresses: an entity's web address, its REST paths, and paths of the Actions service.
//!
//! The manager stores an endpoint's addresses as the operator typed them, with or without trailing slashes. The API's
//! root follows the manager's own rule (`docs/reference/actions-service.md` §1.1): `/api/v3/` is added unless it is
//! there, or the host is an `api.` one. Without an API address it is derived from the web address. Names and ids become
//! single, percent-encoded path segments, so that none can lead a request elsewhere.

use medic_core::model::{Endpoint, Entity, EntityKind, SessionId};
use url::Url;

/// The query parameter that every request to the service carries (`docs/reference/actions-service.md` §2).
const API_VERSION: (&str, &str) = ("api-version", "6.0-preview");

/// Why an address cannot be used. The address is not repeated: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AddressError(String);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// The API's root, with a trailing slash.
    api: Url,
    /// `repos/o/r`, `orgs/o` or `enterprises/e`.
    scope: Vec<String>,
    /// The entity's web address, which the runner registration names.
    web: Url,
}

impl Addresses {
    pub fn of(endpoint: &Endpoint, entity: &Entity) -> Result<Self, AddressError> {
        let base = parsed(&endpoint.base_url, "base_url")?;
        let api = if endpoint.api_base_url.trim().is_empty() {
            derived_api(&base)?
        } else {
            api_root(&parsed(&endpoint.api_base_url, "api_base_url")?)
        };
        let names: Vec<&str> = match entity.kind {
            EntityKind::Repository => entity.name.split('/').collect(),
            EntityKind::Organization | EntityKind::Enterprise => vec![entity.name.as_str()],
        };
        let parts = if entity.kind == EntityKind::Repository { 2 } else { 1 };
        if names.len() != parts || !names.iter().all(|name| is_name(name)) {
            return Err(AddressError(format!("the {}'s name is not one that GitHub gives", entity.kind)));
        }
        let (scope, path): (&str, Option<&str>) = match entity.kind {
            EntityKind::Repository => ("repos", None),
            EntityKind::Organization => ("orgs", None),
            EntityKind::Enterprise => ("enterprises", Some("enterprises")),
        };
        Ok(Self {
            web: joined(&base, path.into_iter().chain(names.iter().copied())),
            scope: std::iter::once(scope).chain(names).map(str::to_owned).collect(),
            api,
        })
    }

    /// `POST …/access_tokens` (`docs/reference/actions-service.md` §1.3).
    pub fn installation_token(&self, installation: u64) -> Url {
        joined(&self.api, ["app", "installations", &installation.to_string(), "access_tokens"])
    }

    /// `POST …/registration-token` (`docs/reference/actions-service.md` §1.4).
    pub fn registration_token(&self) -> Url {
        let scope = self.scope.iter().map(String::as_str);
        joined(&self.api, scope.chain(["actions", "runners", "registration-token"]))
    }

    /// `POST …/runner-registration` (`docs/reference/actions-service.md` §1.5).
    pub fn runner_registration(&self) -> Url {
        joined(&self.api, ["actions", "runner-registration"])
    }

    /// The web address: `https://github.com/owner/name`.
    pub const fn web(&self) -> &Url {
        &self.web
    }

    /// The service's address as GitHub gave it, if it may be used: absolute, without credentials, and encrypted where
    /// the API is, because an admin token goes there.
    pub fn service(&self, text: &str) -> Result<Url, AddressError> {
        let url = parsed(text, "the Actions service's address")?;
        if self.api.scheme() == "https" && url.scheme() != "https" {
            return Err(AddressError("the Actions service's address is not https".to_owned()));
        }
        Ok(url)
    }
}

/// A path under the service's address, whose own path and query are kept (`docs/reference/actions-service.md` §1.6).
pub(super) fn under_service<'a>(service: &Url, path: impl IntoIterator<Item = &'a str>) -> Url {
    let mut url = joined(service, ["_apis", "runtime", "runnerscalesets"].into_iter().chain(path));
    if !url.query_pairs().any(|(key, _)| key.eq_ignore_ascii_case(API_VERSION.0)) {
        url.query_pairs_mut().append_pair(API_VERSION.0, API_VERSION.1);
    }
    url
}

/// Whether a session id may stand in a path: GitHub's are UUIDs, and the zero UUID is nobody's.
pub(super) fn is_session_id(session: &SessionId) -> bool {
    uuid::Uuid::try_parse(session.as_str()).is_ok_and(|id| !id.is_nil())
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && !matches!(name, "." | "..")
        && name.chars().all(|c| !c.is_control() && !matches!(c, '/' | '\\' | '?' | '#'))
}

fn parsed(text: &str, what: &str) -> Result<Url, AddressError> {
    let refuse = |why: &str| Err(AddressError(format!("{what} cannot be used: {why}")));
    let Ok(url) = Url::parse(text.trim()) else {
        return refuse("it is not an absolute address");
    };
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return refuse("it is neither http nor https");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("it holds credentials");
    }
    Ok(url)
}

fn api_root(api: &Url) -> Url {
    let host = api.host_str().unwrap_or_default();
    let whole = host.starts_with("api.") || host.contains(".api.") || has_v3(api);
    if whole { joined(api, []) } else { joined(api, ["api", "v3"]) }
}

fn has_v3(api: &Url) -> bool {
    api.path().trim_end_matches('/').ends_with("/api/v3")
}

/// Hosted GitHub has an `api.` host, everything else an `/api/v3` path.
fn derived_api(base: &Url) -> Result<Url, AddressError> {
    let host = base.host_str().unwrap_or_default().to_ascii_lowercase();
    let hosted =
        matches!(host.as_str(), "github.com" | "www.github.com" | "github.localhost") || host.ends_with(".ghe.com");
    if !hosted || base.port().is_some() {
        return Ok(joined(base, ["api", "v3"]));
    }
    let mut api = base.clone();
    let name = host.strip_prefix("www.").unwrap_or(&host);
    api.set_host(Some(&format!("api.{name}")))
        .map_err(|_| AddressError("base_url cannot be used: its host is no name".to_owned()))?;
    api.set_path("");
    Ok(api)
}

/// `base` with more segments, each percent-encoded; slashes at the end of `base` do not matter.
fn joined<'a>(base: &Url, segments: impl IntoIterator<Item = &'a str>) -> Url {
    let mut url = base.clone();
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    url.set_fragment(None);
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use medic_core::model::EndpointName;

    fn addresses(base: &str, api: &str, kind: EntityKind, name: &str) -> Result<Addresses, AddressError> {
        let endpoint =
            Endpoint { name: EndpointName::new("e"), base_url: base.to_owned(), api_base_url: api.to_owned() };
        Addresses::of(&endpoint, &Entity { kind, name: name.to_owned() })
    }

    #[test]
    fn api_root_is_found_in_every_spelling() {
        for (base, api, expected) in [
            ("https://github.com", "https://api.github.com/", "https://api.github.com/"),
            ("https://github.com/", "https://api.github.com", "https://api.github.com/"),
            ("https://github.com", "", "https://api.github.com/"),
            ("https://www.github.com/", "", "https://api.github.com/"),
            ("https://acme.ghe.com", "", "https://api.acme.ghe.com/"),
            ("https://acme.ghe.com", "https://api.acme.ghe.com", "https://api.acme.ghe.com/"),
            ("https://ghes.acme.io", "https://ghes.acme.io/api/v3", "https://ghes.acme.io/api/v3/"),
            ("https://ghes.acme.io/", "https://ghes.acme.io/api/v3/", "https://ghes.acme.io/api/v3/"),
            ("https://ghes.acme.io/", "https://ghes.acme.io//", "https://ghes.acme.io/api/v3/"),
            ("https://ghes.acme.io", "https://ghes.acme.io", "https://ghes.acme.io/api/v3/"),
            ("https://ghes.acme.io", "", "https://ghes.acme.io/api/v3/"),
            ("http://127.0.0.1:9901", "http://127.0.0.1:9901", "http://127.0.0.1:9901/api/v3/"),
            ("http://127.0.0.1:9901", "", "http://127.0.0.1:9901/api/v3/"),
        ] {
            let found = addresses(base, api, EntityKind::Organization, "acme").unwrap();
            assert_eq!(found.runner_registration().as_str(), format!("{expected}actions/runner-registration"));
            assert_eq!(
                found.installation_token(7).as_str(),
                format!("{expected}app/installations/7/access_tokens"),
                "{base} {api}"
            );
        }
    }

    #[test]
    fn paths_depend_on_the_kind_of_entity() {
        for (kind, name, path, web) in [
            (EntityKind::Repository, "acme/app", "repos/acme/app", "acme/app"),
            (EntityKind::Organization, "acme", "orgs/acme", "acme"),
            (EntityKind::Enterprise, "big", "enterprises/big", "enterprises/big"),
        ] {
            let found = addresses("https://github.com/", "https://api.github.com/", kind, name).unwrap();
            let token = format!("https://api.github.com/{path}/actions/runners/registration-token");
            assert_eq!(found.registration_token().as_str(), token);
            assert_eq!(found.web().as_str(), format!("https://github.com/{web}"));
        }
    }

    #[test]
    fn name_that_leads_elsewhere_is_refused() {
        for (kind, name) in [
            (EntityKind::Organization, ""),
            (EntityKind::Organization, ".."),
            (EntityKind::Organization, "acme/app"),
            (EntityKind::Organization, "acme?x=1"),
            (EntityKind::Repository, "acme"),
            (EntityKind::Repository, "acme/app/x"),
            (EntityKind::Repository, "../app"),
            (EntityKind::Enterprise, "a\nb"),
        ] {
            assert!(addresses("https://github.com", "", kind, name).is_err(), "{name}");
        }
        for base in ["", "github.com", "ftp://github.com", "https://me:hunter2@github.com"] {
            let error = addresses(base, "", EntityKind::Organization, "acme").unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn service_address_keeps_its_path_and_query() {
        for (service, path, query) in [
            ("https://b.example/rest/", "/rest", "api-version=6.0-preview"),
            ("https://b.example/rest", "/rest", "api-version=6.0-preview"),
            ("https://b.example", "", "api-version=6.0-preview"),
            ("https://b.example/t/?tenant=1", "/t", "tenant=1&api-version=6.0-preview"),
            ("https://b.example/?api-version=7", "", "api-version=7"),
        ] {
            let expected = format!("https://b.example{path}/_apis/runtime/runnerscalesets/7?{query}");
            assert_eq!(under_service(&Url::parse(service).unwrap(), ["7"]).as_str(), expected);
        }
    }

    #[test]
    fn service_address_must_be_encrypted_like_the_api() {
        let secure = addresses("https://github.com", "", EntityKind::Organization, "acme").unwrap();
        let local = addresses("http://127.0.0.1:1", "", EntityKind::Organization, "acme").unwrap();
        assert!(secure.service("https://b.example/rest/").is_ok());
        for odd in ["http://b.example/rest/", "", "/rest/", "file:///etc/passwd", "https://u:p@b.example/"] {
            assert!(secure.service(odd).is_err(), "{odd}");
        }
        assert!(local.service("http://127.0.0.1:1/svc/").is_ok());
    }

    #[test]
    fn session_id_must_be_a_uuid() {
        for (text, good) in [
            ("5e551011-0000-4000-8000-00000000002a", true),
            ("00000000-0000-0000-0000-000000000000", false),
            ("", false),
            ("../../7", false),
        ] {
            assert_eq!(is_session_id(&SessionId::new(text)), good, "{text}");
        }
    }
}
