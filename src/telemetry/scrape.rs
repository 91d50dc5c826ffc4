//! The endpoint that Prometheus reads: `/metrics` over plain HTTP on a port of its own, and nothing else. Who may reach it
//! is the network's business; there is nothing personal in it.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::Metrics;

/// The most connections at once; more wait.
const MAX_CONNECTIONS: usize = 16;
/// How long a request may take to arrive.
const HEADER_LIMIT: Duration = Duration::from_secs(5);
/// How long a connection may last, which carries one request.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);
/// How long nothing is accepted after that failed, as when files run out.
const PAUSE: Duration = Duration::from_millis(200);
/// The version of the text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves the metrics until it is dropped.
pub async fn serve(listener: TcpListener, metrics: Metrics) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let metrics = metrics.clone();
                tokio::spawn(async move {
                    // Whoever is slow, or speaks no HTTP, is left.
                    let _ = timeout(CONNECTION_LIMIT, converse(stream, &metrics)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("nobody can read the metrics: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, metrics: &Metrics) -> Result<(), hyper::Error> {
    let mut connection = http1::Builder::new();
    connection.timer(TokioTimer::new()).header_read_timeout(HEADER_LIMIT).keep_alive(false);
    let answer = service_fn(async |request: Request<Incoming>| Ok::<_, Infallible>(answer(&request, metrics)));
    connection.serve_connection(TokioIo::new(stream), answer).await
}

fn answer(request: &Request<Incoming>, metrics: &Metrics) -> Response<String> {
    let refusal = |status| {
        let mut response = Response::new(String::new());
        *response.status_mut() = status;
        response
    };
    if request.uri().path() != "/metrics" {
        return refusal(StatusCode::NOT_FOUND);
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return refusal(StatusCode::METHOD_NOT_ALLOWED);
    }
    match metrics.text() {
        Ok(text) => {
            let mut response = Response::new(String::from_utf8_lossy(&text).into_owned());
            response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(TEXT));
            response
        }
        Err(error) => {
            tracing::error!("the metrics cannot be written: {error}");
            refusal(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}
