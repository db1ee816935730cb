//! HTTP/2 over the `h2` crate: its heads in our form and back, and bodies that honour flow control on both sides.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, header};
use lateen_engine::config::cluster::Http2Options;
use lateen_engine::message::{Headers, RequestHead, ResponseHead, Scheme, Version};

use crate::http::body::{BodyError, Frame};

/// The largest decoded header list, in bytes; 60 KiB as for HTTP/1.1.
pub(crate) const MAX_HEADER_LIST: u32 = 60 << 10;

/// Why a head in this form cannot be sent, or one that came cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unfit;

/// A server's handshake settings.
pub(crate) fn server(options: &Http2Options, max_header_list: usize) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(options.initial_stream_window)
        .initial_connection_window_size(options.initial_connection_window)
        .max_concurrent_streams(options.max_concurrent_streams)
        .max_header_list_size(u32::try_from(max_header_list).unwrap_or(MAX_HEADER_LIST))
        .max_concurrent_reset_streams(50)
        .max_pending_accept_reset_streams(100)
        .max_send_buffer_size(256 << 10);
    builder
}

/// A client's handshake settings.
pub(crate) fn client(options: &Http2Options) -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(options.initial_stream_window)
        .initial_connection_window_size(options.initial_connection_window)
        .max_header_list_size(MAX_HEADER_LIST)
        .enable_push(false)
        .max_send_buffer_size(256 << 10);
    builder
}

/// A request's head as it came. RFC 9113 section 8.3.1: a `Host` beside `:authority` must agree with it.
pub(crate) fn request_head(request: http::request::Parts, scheme: Scheme) -> Result<RequestHead, Unfit> {
    let mut headers = headers(request.headers);
    one_length(&headers)?;
    let host = headers.get(&header::HOST).map(|host| Bytes::copy_from_slice(host.as_bytes()));
    let authority = match (request.uri.authority(), host) {
        (Some(authority), host) => {
            let authority = Bytes::copy_from_slice(authority.as_str().as_bytes());
            if host.is_some_and(|host| !host.eq_ignore_ascii_case(&authority)) {
                return Err(Unfit);
            }
            authority
        }
        (None, Some(host)) => host,
        (None, None) => return Err(Unfit),
    };
    headers.remove(&header::HOST);
    join_cookies(&mut headers);
    let path =
        request.uri.path_and_query().map_or(Bytes::new(), |path| Bytes::copy_from_slice(path.as_str().as_bytes()));
    Ok(RequestHead { method: request.method, scheme, authority, path, headers, version: Version::Http2 })
}

/// A second `Content-Length` would go on to a peer that may believe that one (RFC 9110 section 8.6).
fn one_length(headers: &Headers) -> Result<(), Unfit> {
    if headers.get_all(&header::CONTENT_LENGTH).count() > 1 { Err(Unfit) } else { Ok(()) }
}

/// RFC 9113 section 8.2.3: cookie crumbs become one field again.
fn join_cookies(headers: &mut Headers) {
    let crumbs: Vec<&[u8]> = headers.get_all(&header::COOKIE).map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1 {
        let joined = crumbs.join(&b"; "[..]);
        if let Ok(value) = HeaderValue::from_bytes(&joined) {
            headers.set(header::COOKIE, value);
        }
    }
}

fn headers(map: HeaderMap) -> Headers {
    let mut headers = Headers::with_capacity(map.len() + 4);
    for (name, value) in map {
        match name {
            Some(name) => headers.append(name, value),
            // One more value of the name before.
            None => headers.append_again(value),
        }
    }
    headers
}

fn map(headers: &Headers) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter().filter(|(name, _)| !is_connection_specific(name)) {
        map.append(name.clone(), value.clone());
    }
    map
}

/// RFC 9113 section 8.2.2.
fn is_connection_specific(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// A request's head to be sent.
pub(crate) fn to_request(head: &RequestHead) -> Result<Request<()>, Unfit> {
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(match head.scheme {
        Scheme::Http => http::uri::Scheme::HTTP,
        Scheme::Https => http::uri::Scheme::HTTPS,
    });
    uri.authority = Some(Authority::from_maybe_shared(head.authority.clone()).map_err(|_| Unfit)?);
    uri.path_and_query = Some(PathAndQuery::from_maybe_shared(head.path.clone()).map_err(|_| Unfit)?);
    let mut request = Request::new(());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| Unfit)?;
    *request.headers_mut() = map(&head.headers);
    Ok(request)
}

pub(crate) fn response_head(response: http::response::Parts) -> Result<ResponseHead, Unfit> {
    let headers = headers(response.headers);
    one_length(&headers)?;
    Ok(ResponseHead { status: response.status, headers, version: Version::Http2 })
}

pub(crate) fn to_response(head: &ResponseHead) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = head.status;
    *response.headers_mut() = map(&head.headers);
    response
}

/// A body that comes in. Its window opens again as frames are taken.
#[derive(Debug)]
pub(crate) struct Incoming {
    stream: RecvStream,
    trailers: bool,
}

impl Incoming {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self { stream, trailers: false }
    }

    pub(crate) fn is_end(&self) -> bool {
        self.stream.is_end_stream()
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if !self.trailers {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // What was taken is counted at once: the sender behind has a buffer bound of its own.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::Data(data))));
                }
                Some(Err(_)) => return Poll::Ready(Some(Err(BodyError::Ended))),
                None => self.trailers = true,
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::Trailers(headers(trailers))))),
            Ok(None) => Poll::Ready(None),
            Err(_) => Poll::Ready(Some(Err(BodyError::Ended))),
        }
    }
}

/// Sends data, waiting for the peer's window.
pub(crate) async fn send_data(stream: &mut SendStream<Bytes>, mut data: Bytes, end: bool) -> Result<(), h2::Error> {
    if data.is_empty() {
        return if end { stream.send_data(data, true) } else { Ok(()) };
    }
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = if stream.capacity() > 0 {
            stream.capacity()
        } else {
            match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(Ok(room)) => room,
                Some(Err(error)) => return Err(error),
                None => return Err(Reason::CANCEL.into()),
            }
        };
        let part = data.split_to(room.min(data.len()));
        let last = end && data.is_empty();
        stream.send_data(part, last)?;
    }
    Ok(())
}

pub(crate) fn send_trailers(stream: &mut SendStream<Bytes>, trailers: &Headers) -> Result<(), h2::Error> {
    stream.send_trailers(map(trailers))
}
