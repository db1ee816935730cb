//! Requests that somebody watches while they pass.

/// Which requests to tell of, and how many.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Tap {
    #[prost(uint32, tag = "1")]
    pub id: u32,
    /// Name of the metric, one of those that are asked for, by whose labels a request is told.
    #[prost(string, tag = "2")]
    pub metric: String,
    /// All of these hold.
    #[prost(message, repeated, tag = "3")]
    pub conditions: Vec<Condition>,
    /// Empty: any.
    #[prost(string, tag = "4")]
    pub method: String,
    /// What the path begins with.
    #[prost(string, tag = "5")]
    pub path: String,
    #[prost(uint32, tag = "6")]
    pub status_least: u32,
    /// 0: any status.
    #[prost(uint32, tag = "7")]
    pub status_most: u32,
    /// How long it took at least.
    #[prost(uint64, tag = "8")]
    pub least_micros: u64,
    /// Of a million that fit, so many are looked at.
    #[prost(uint32, tag = "9")]
    pub share: u32,
    /// So many a second at most, of each proxy.
    #[prost(uint32, tag = "10")]
    pub rate: u32,
    /// With their headers.
    #[prost(bool, tag = "11")]
    pub headers: bool,
    /// Headers, and fields of bodies, whose values are told though they are not known to be harmless; never those that carry credentials.
    #[prost(string, repeated, tag = "12")]
    pub reveal: Vec<String>,
    /// With so many bytes of their bodies; 0: without.
    #[prost(uint32, tag = "13")]
    pub body_bytes: u32,
}

/// One of these holds.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Condition {
    #[prost(message, repeated, tag = "1")]
    pub any: Vec<Is>,
}

/// A label that was asked for has this value.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Is {
    #[prost(string, tag = "1")]
    pub label: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A request that is over.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Tapped {
    /// [`Tap::id`].
    #[prost(uint32, tag = "1")]
    pub tap: u32,
    /// Of the labels that were asked for.
    #[prost(string, repeated, tag = "2")]
    pub values: Vec<String>,
    /// When it began: microseconds of the epoch, by the proxy's clock.
    #[prost(uint64, tag = "3")]
    pub at_micros: u64,
    #[prost(string, tag = "4")]
    pub method: String,
    #[prost(string, tag = "5")]
    pub authority: String,
    /// As the client asked for it; the query has names alone.
    #[prost(string, tag = "6")]
    pub path: String,
    /// 0: there was no answer.
    #[prost(uint32, tag = "7")]
    pub status: u32,
    #[prost(uint64, tag = "8")]
    pub took_micros: u64,
    /// Bytes of the bodies, from the client and to it.
    #[prost(uint64, tag = "9")]
    pub received: u64,
    #[prost(uint64, tag = "10")]
    pub sent: u64,
    /// The upstream has shown a certificate with a name.
    #[prost(bool, tag = "11")]
    pub server_is_known: bool,
    /// The downstream has shown a certificate.
    #[prost(bool, tag = "12")]
    pub client_is_known: bool,
    #[prost(message, repeated, tag = "13")]
    pub request_headers: Vec<Header>,
    #[prost(message, repeated, tag = "14")]
    pub response_headers: Vec<Header>,
    /// What the bodies begin with, where they are JSON or forms: names of fields, and values that may be told.
    #[prost(string, optional, tag = "15")]
    pub request_body: Option<String>,
    #[prost(string, optional, tag = "16")]
    pub response_body: Option<String>,
}

/// A header; without its value where that may be a secret.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Header {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, optional, tag = "2")]
    pub value: Option<String>,
}

/// Requests that fitted and were over the rate, or found no room.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Lost {
    /// [`Tap::id`].
    #[prost(uint32, tag = "1")]
    pub tap: u32,
    #[prost(uint64, tag = "2")]
    pub count: u64,
}
