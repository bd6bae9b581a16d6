//! The routes of the API: each module says its own in a `ROUTES` beside its `route`. A request for anything else is answered
//! before a module sees it, and the OpenAPI description is made from the same lines.

mod describe;
mod schema;

use std::sync::LazyLock;

use hyper::header::{ALLOW, HeaderValue};
use hyper::{Method, StatusCode};

pub(crate) use describe::description;
pub(super) use schema::{Maker, made};

use super::{
    ApiError, Call, Reply, artifacts, audit, connect, deltas, deployments, devauth, device, deviceconfig,
    direct, download, integrations, internal, inventory, login, mail, monitor, releases, search,
    second_factor, users,
};

/// A path of both versions.
const BOTH: &str = "v1|v2";

/// One method of one path, and what is said about it.
pub(super) struct Route {
    method: &'static str,
    /// As OpenAPI writes it: `/api/management/v1/useradm/users/{user}`. The version `v1|v2` is for both.
    path: &'static str,
    summary: &'static str,
    takes: Takes,
    /// Names in the query. `name*` may be there more than once, `name#` is a number.
    queries: &'static [&'static str],
    paged: Paged,
    status: u16,
    gives: Gives,
    /// Further answers that are no error.
    also: &'static [u16],
    /// Errors that are not those of every route.
    fails: &'static [u16],
}

/// The body of a request.
#[derive(Clone, Copy)]
enum Takes {
    Nothing,
    /// The type that reads it says what it is.
    Json(Maker),
    /// It may be missing.
    Optional(Maker),
    /// A form with these fields; those with a `?` may be missing, and the last one is a file.
    Form(&'static [&'static str]),
    /// Bytes.
    Bytes,
}

/// Where a page of a list is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Paged {
    No,
    ByQuery,
    ByBody,
}

/// The body of the answer.
#[derive(Clone, Copy)]
enum Gives {
    Nothing,
    /// In the words of [`schema`].
    Json(&'static str),
    /// The type that is written.
    Made(Maker),
    /// Text of this type.
    Text(&'static str),
}

impl Route {
    const fn new(method: &'static str, path: &'static str, summary: &'static str) -> Route {
        Route {
            method,
            path,
            summary,
            takes: Takes::Nothing,
            queries: &[],
            paged: Paged::No,
            status: 204,
            gives: Gives::Nothing,
            also: &[],
            fails: &[],
        }
    }

    pub(super) const fn get(path: &'static str, summary: &'static str) -> Route {
        Route::new("GET", path, summary)
    }

    pub(super) const fn head(path: &'static str, summary: &'static str) -> Route {
        Route::new("HEAD", path, summary)
    }

    pub(super) const fn post(path: &'static str, summary: &'static str) -> Route {
        Route::new("POST", path, summary)
    }

    pub(super) const fn put(path: &'static str, summary: &'static str) -> Route {
        Route::new("PUT", path, summary)
    }

    pub(super) const fn patch(path: &'static str, summary: &'static str) -> Route {
        Route::new("PATCH", path, summary)
    }

    pub(super) const fn delete(path: &'static str, summary: &'static str) -> Route {
        Route::new("DELETE", path, summary)
    }

    /// Its body is JSON: `takes(made::<NewUser>)`.
    pub(super) const fn takes(self, made: Maker) -> Route {
        Route { takes: Takes::Json(made), ..self }
    }

    /// The same, when there is a body.
    pub(super) const fn may_take(self, made: Maker) -> Route {
        Route { takes: Takes::Optional(made), ..self }
    }

    pub(super) const fn takes_form(self, fields: &'static [&'static str]) -> Route {
        Route { takes: Takes::Form(fields), ..self }
    }

    pub(super) const fn takes_bytes(self) -> Route {
        Route { takes: Takes::Bytes, ..self }
    }

    pub(super) const fn queries(self, queries: &'static [&'static str]) -> Route {
        Route { queries, ..self }
    }

    /// It has `page` and `per_page` in the query.
    pub(super) const fn paged(self) -> Route {
        Route { paged: Paged::ByQuery, ..self }
    }

    /// It has them in its body.
    pub(super) const fn paged_by_body(self) -> Route {
        Route { paged: Paged::ByBody, ..self }
    }

    /// It answers JSON of this shape.
    pub(super) const fn gives(self, shape: &'static str) -> Route {
        Route { status: 200, gives: Gives::Json(shape), ..self }
    }

    /// It answers JSON of a type.
    pub(super) const fn gives_made(self, made: Maker) -> Route {
        Route { status: 200, gives: Gives::Made(made), ..self }
    }

    /// It answers a text, or bytes, of a type of content.
    pub(super) const fn gives_text(self, kind: &'static str) -> Route {
        Route { status: 200, gives: Gives::Text(kind), ..self }
    }

    /// It answers with this status, and no body unless one was named.
    pub(super) const fn status(self, status: u16) -> Route {
        Route { status, ..self }
    }

    pub(super) const fn also(self, also: &'static [u16]) -> Route {
        Route { also, ..self }
    }

    pub(super) const fn fails(self, fails: &'static [u16]) -> Route {
        Route { fails, ..self }
    }
}

/// A route of one version of the API.
struct Entry {
    path: String,
    route: &'static Route,
}

impl Entry {
    fn pieces(&self) -> impl Iterator<Item = &str> {
        self.path.trim_start_matches('/').split('/')
    }

    /// How many pieces of what is asked are parameters of this path, if it is this path.
    fn parameters_for(&self, asked: &[&str]) -> Option<usize> {
        let (mut pieces, mut parameters) = (self.pieces(), 0);
        for asked in asked {
            match pieces.next()? {
                piece if is_parameter(piece) => parameters += 1,
                piece if piece == *asked => {}
                _ => return None,
            }
        }
        pieces.next().is_none().then_some(parameters)
    }
}

/// All of them.
static ROUTES: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let tables = [
        internal::ROUTES,
        device::ROUTES,
        download::ROUTES,
        direct::ROUTES,
        devauth::ROUTES,
        inventory::ROUTES,
        search::ROUTES,
        artifacts::ROUTES,
        releases::ROUTES,
        deployments::ROUTES,
        deltas::ROUTES,
        deviceconfig::ROUTES,
        connect::ROUTES,
        monitor::ROUTES,
        mail::ROUTES,
        login::ROUTES,
        users::ROUTES,
        second_factor::ROUTES,
        audit::ROUTES,
        integrations::ROUTES,
    ];
    let mut all = Vec::new();
    for route in tables.into_iter().flatten() {
        match route.path.contains(BOTH) {
            true => {
                let of = |version| Entry { path: route.path.replacen(BOTH, version, 1), route };
                all.extend(["v1", "v2"].map(of));
            }
            false => all.push(Entry { path: route.path.to_owned(), route }),
        }
    }
    all
});

fn is_parameter(piece: &str) -> bool {
    piece.starts_with('{')
}

/// The answer to a request that is for none of the routes. Of two paths the one with fewer parameters is meant.
pub(super) fn refuse(call: &Call) -> Option<Reply> {
    let asked = call.segments();
    let mut fewest = usize::MAX;
    let mut methods: Vec<&str> = Vec::new();
    for entry in ROUTES.iter() {
        let Some(parameters) = entry.parameters_for(&asked) else { continue };
        if parameters < fewest {
            fewest = parameters;
            methods.clear();
        }
        if parameters == fewest {
            methods.push(entry.route.method);
        }
    }
    if methods.is_empty() {
        return Some(ApiError::no_route().into_reply());
    }
    if methods.contains(&call.method.as_str()) {
        return None;
    }
    methods.sort_unstable();
    methods.dedup();
    Some(only(&methods.join(", ")))
}

/// The answer to a method that a path has not.
pub(super) fn only(methods: &str) -> Reply {
    let text = "the path has other methods, and not this one";
    let mut reply = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, text).into_reply();
    if let Ok(allowed) = HeaderValue::from_str(methods) {
        reply.headers_mut().insert(ALLOW, allowed);
    }
    reply
}

/// Whether a request may have a body.
fn has_body(route: &Route) -> bool {
    route.method == Method::POST.as_str()
        || route.method == Method::PUT.as_str()
        || route.method == Method::PATCH.as_str()
}
