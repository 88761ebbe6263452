use std::fmt;
use std::rc::Rc;

use super::answer::Answer;
use super::field::Fields;
use super::request::Request;
use super::respond::Response;
use super::service::Service;
use super::status::Status;

/// Answers one request, with the state of its connection.
pub type RouteFn<S> = fn(&mut S, &Request<'_>, &mut Response<'_>);

const PLAIN: Fields<'static> = Fields::new("Content-Type: text/plain; charset=utf-8\r\n");

/// Paths and methods, and what answers them. 404 answers another path, 405 with Allow another
/// method, and OPTIONS gets its Allow unless it has a route. A route for GET answers HEAD too,
/// whose content is left out.
///
/// A path is compared as it was sent, not percent-decoded. One that ends in `/*` stands for all
/// that begin so; an exact path goes first, then the longest such beginning.
///
/// ```
/// use reev::http1::{Fields, Request, Response, Router, Status};
///
/// #[derive(Default)]
/// struct App {
///     visits: u64,
/// }
///
/// fn hello(app: &mut App, _req: &Request<'_>, res: &mut Response<'_>) {
///     app.visits += 1;
///     res.send(Status::OK, Fields::NONE, b"hello");
/// }
///
/// let router = Router::new().get("/hello", hello);
/// // In a reactor's setup:
/// // reactor.accept(listener, move |_peer| http.connection(router.service(App::default())))
/// # let _ = router;
/// ```
pub struct Router<S> {
    exact: Vec<Path<S>>,
    /// The longest first.
    prefixes: Vec<Path<S>>,
}

struct Path<S> {
    path: &'static str,
    methods: Vec<(&'static str, RouteFn<S>)>,
    allow: String,
}

impl<S: 'static> Router<S> {
    /// No routes.
    pub fn new() -> Router<S> {
        Router { exact: Vec::new(), prefixes: Vec::new() }
    }

    /// Adds a route; one for the same path and method is replaced.
    #[must_use]
    pub fn route(
        mut self,
        method: &'static str,
        path: &'static str,
        answer: RouteFn<S>,
    ) -> Router<S> {
        let (paths, path) = match path.strip_suffix('*') {
            Some(prefix) if prefix.ends_with('/') => (&mut self.prefixes, prefix),
            _ => (&mut self.exact, path),
        };
        let at = paths.iter().position(|known| known.path == path).unwrap_or_else(|| {
            paths.push(Path { path, methods: Vec::new(), allow: String::new() });
            paths.len() - 1
        });
        let known = &mut paths[at];
        known.methods.retain(|(other, _)| *other != method);
        known.methods.push((method, answer));
        known.allow =
            known.methods.iter().map(|(method, _)| *method).collect::<Vec<_>>().join(", ");
        let has = |wanted| known.methods.iter().any(|(method, _)| *method == wanted);
        let (head, options) = (has("GET") && !has("HEAD"), !has("OPTIONS"));
        known.allow += if head { ", HEAD" } else { "" };
        known.allow += if options { ", OPTIONS" } else { "" };
        self.exact.sort_by_key(|known| known.path);
        self.prefixes.sort_by_key(|known| std::cmp::Reverse(known.path.len()));
        self
    }

    /// Adds a route for GET and HEAD.
    #[must_use]
    pub fn get(self, path: &'static str, answer: RouteFn<S>) -> Router<S> {
        self.route("GET", path, answer)
    }

    /// Adds a route for POST.
    #[must_use]
    pub fn post(self, path: &'static str, answer: RouteFn<S>) -> Router<S> {
        self.route("POST", path, answer)
    }

    /// The router as one that services of many connections share, with [`Shared::service`].
    ///
    /// ```no_run
    /// use reev::http1::{Http1, Options, Request, Response, Router};
    ///
    /// #[derive(Default)]
    /// struct App(Vec<u8>);
    ///
    /// fn read(app: &mut App, _req: &Request<'_>, res: &mut Response<'_>) {
    ///     res.body(&app.0);
    /// }
    ///
    /// fn write(app: &mut App, req: &Request<'_>, res: &mut Response<'_>) {
    ///     app.0 = req.body().to_vec();
    ///     res.body(b"kept\n");
    /// }
    ///
    /// let mut server = reev::Server::new(reev::Config::default())?;
    /// let listener = server.listen("127.0.0.1:8080")?;
    /// server.run(move |reactor| {
    ///     let router = Router::new().get("/note", read).post("/note", write).route("PUT", "/note", write);
    ///     let (http, router) = (Http1::new(Options::default()), router.shared());
    ///     reactor.accept(listener, move |_peer| http.connection(router.service(App::default())))
    /// })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn shared(self) -> Shared<S> {
        Shared(Rc::new(self))
    }

    /// A service with a router of its own; see [`Router::shared`] for many.
    pub fn service(self, state: S) -> Routed<S> {
        self.shared().service(state)
    }

    /// Answers a request: for services that do more than routing.
    #[inline]
    pub fn answer(&self, state: &mut S, req: &Request<'_>, res: &mut Response<'_>) {
        let path = req.path();
        let Some(found) = self.find(path) else {
            return not_found(path, res);
        };
        match found.method(req.method()) {
            Some(answer) => answer(state, req, res),
            None => found.refuse(req.method(), res),
        }
    }

    fn find(&self, path: &str) -> Option<&Path<S>> {
        match self.exact.binary_search_by_key(&path, |known| known.path) {
            Ok(at) => Some(&self.exact[at]),
            Err(_) => self.prefixes.iter().find(|known| path.starts_with(known.path)),
        }
    }
}

impl<S> Path<S> {
    #[inline]
    fn method(&self, method: &str) -> Option<RouteFn<S>> {
        let find = |wanted: &str| self.methods.iter().find(|(known, _)| *known == wanted);
        let found = find(method).or_else(|| if method == "HEAD" { find("GET") } else { None });
        found.map(|&(_, answer)| answer)
    }

    /// RFC 9110 sections 15.5.6 and 9.3.7.
    #[cold]
    fn refuse(&self, method: &str, res: &mut Response<'_>) {
        let status = match method {
            "OPTIONS" => Status::NO_CONTENT,
            _ => Status::METHOD_NOT_ALLOWED,
        };
        match Answer::new(status).header("Allow", &self.allow) {
            Ok(answer) => res.answer(answer.fields(PLAIN).body("method not allowed\n")),
            Err(_) => res.send(status, PLAIN, b"method not allowed\n"), // a method with a control
        }
    }
}

#[cold]
fn not_found(path: &str, res: &mut Response<'_>) {
    if path == "*" {
        return res.send(Status::NO_CONTENT, Fields::NONE, b""); // OPTIONS, of the server itself
    }
    res.send(Status::NOT_FOUND, PLAIN, b"not found\n");
}

impl<S: 'static> Default for Router<S> {
    fn default() -> Router<S> {
        Router::new()
    }
}

impl<S> fmt::Debug for Router<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths = self.exact.iter().chain(&self.prefixes).map(|known| known.path);
        f.debug_list().entries(paths).finish()
    }
}

/// A router that the connections of a reactor share.
#[derive(Debug)]
pub struct Shared<S>(Rc<Router<S>>);

impl<S: 'static> Shared<S> {
    /// A service of one connection, with its own state.
    pub fn service(&self, state: S) -> Routed<S> {
        Routed { router: self.0.clone(), state }
    }
}

/// A [`Service`] made of a [`Router`] and a state.
#[derive(Debug)]
pub struct Routed<S> {
    router: Rc<Router<S>>,
    state: S,
}

impl<S: 'static> Service for Routed<S> {
    #[inline]
    fn on_request(&mut self, req: &Request<'_>, res: &mut Response<'_>) {
        self.router.answer(&mut self.state, req, res);
    }

    fn name(&self) -> &'static str {
        std::any::type_name::<S>()
    }
}
