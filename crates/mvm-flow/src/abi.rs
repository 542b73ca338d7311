//! What guests ask for and what they are told: the `wasabi` interface of flawless 1.0.0-beta.3, as JSON.
//!
//! The shapes are those of the crate `flawless-wasabi`, which guests are built with; a test compares the two. How the
//! text crosses the border between guest and host is in [`crate::guest`], what each command means in
//! [`crate::execution`].

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// What a guest asks for.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum Command {
    /// The input that the workflow was started with.
    GetInput,
    /// A line for the log.
    Log(Line),
    /// The answer to whoever started the workflow; JSON text.
    SendResponse(String),
    /// A random value of the same type as the one given.
    Random(Number),
    /// At least so long a pause.
    Sleep(Duration),
    /// A request to a server.
    #[serde(rename = "HTTPRequest")]
    HttpRequest(HttpRequest),
    /// A secret, by its name.
    GetSecret(String),
    /// The wall clock.
    TimeNow,
    /// The first message of one of these types; for ever, if there is no limit.
    RecvMessage(Option<Duration>, Vec<String>),
    /// Another workflow of the same module: its name and input, which is JSON text.
    StartWorkflow(String, String),
    /// A line for whoever watches a replay; nothing otherwise.
    ReplayDebug(String),
}

/// What a guest is told.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum Answer {
    /// Done.
    Unit,
    /// A number or a boolean.
    Value(Number),
    /// The input, as JSON text.
    String(String),
    /// Whether anybody was there to take the response.
    ResponseSent(bool),
    /// What a server said, or why it could not be asked.
    #[serde(rename = "HTTPResponse")]
    HttpResponse(Result<HttpResponse, HttpError>),
    /// The wall clock.
    Time(SystemTime),
    /// A message: its type, and its data as JSON text.
    Message(String, String),
    /// No message came in time.
    Timeout,
    /// The secret, if there is one of that name.
    Secret(Option<String>),
}

/// A number or a boolean.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[expect(missing_docs, reason = "they say what they are")]
pub enum Number {
    Bool(bool),
    I32(i32),
    I64(i64),
    F32(f32),
    F64(f64),
}

/// A line of the log, at its level.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[expect(missing_docs, reason = "they say what they are")]
pub enum Line {
    Info(String),
    Warn(String),
    Error(String),
    Debug(String),
    Trace(String),
}

impl Line {
    /// Its level, in lower case, and its text.
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Info(text) => ("info", text),
            Self::Warn(text) => ("warn", text),
            Self::Error(text) => ("error", text),
            Self::Debug(text) => ("debug", text),
            Self::Trace(text) => ("trace", text),
        }
    }
}

/// How a request is made.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct HttpConfig {
    /// Whether it may be sent again if nobody knows whether it arrived.
    pub idempotent: bool,
    /// How long all of it may take.
    pub timeout: Duration,
    /// What is beyond so many bytes of the answer's body is cut off.
    pub response_body_limit: u64,
}

/// A request to a server.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct HttpRequest {
    /// How it is made.
    pub config: HttpConfig,
    /// The method, in upper case.
    pub method: String,
    /// The address.
    pub url: String,
    /// Header lines.
    pub headers: Vec<(String, String)>,
    /// The body, as base64.
    pub body: String,
}

/// What a server said.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct HttpResponse {
    /// The status.
    pub status_code: u16,
    /// Where it came from in the end.
    pub url: String,
    /// Header lines; names in lower case, because the guests' library looks them up by bytes.
    pub headers: Vec<(String, String)>,
    /// The body, as base64.
    pub body: String,
}

/// Why a request has no good answer.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum HttpError {
    /// A status of 400 and above.
    Status(u16, HttpResponse),
    /// No answer.
    Transport(HttpTransportError),
}

/// Why there is no answer.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct HttpTransportError {
    /// The sort of error.
    pub kind: HttpErrorKind,
    /// For people.
    pub message: Option<String>,
    /// The address.
    pub url: Option<String>,
}

/// The sorts of errors that guests know.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum HttpErrorKind {
    /// The address is none.
    InvalidUrl,
    /// Neither http nor https.
    UnknownScheme,
    /// The name has no address.
    Dns,
    /// Nobody listens there, or the way is closed.
    ConnectionFailed,
    /// It was sent on too often.
    TooManyRedirects,
    /// The status line is none.
    BadStatus,
    /// A header line is none.
    BadHeader,
    /// The engine died while the request was under way; nobody knows whether it arrived.
    RequestInterrupted,
    /// Anything else, also a timeout.
    Io,
    /// A status of 400 and above.
    StatusCode,
}

/// The largest text a guest may hand over, and the largest it is handed.
///
/// Four thirds, for base64, of the ten million bytes that an answer's body may have, and as much again.
pub const TEXT_BYTES_MAX: usize = 28 * 1024 * 1024;

/// Error codes of `submit`, as `flawless-wasabi` numbers them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "they say what they are")]
pub enum SubmitError {
    NoAllocExport = -1,
    NoMemoryExport = -2,
    AllocCallFailed = -3,
    InputDeserializationFailed = -5,
    OutputWriteFailed = -7,
}

#[cfg(test)]
mod tests {
    use flawless_wasabi::{Input, Output};

    use super::*;

    /// Ours must write what theirs reads, and read what theirs writes.
    #[track_caller]
    fn same<Ours, Theirs>(text: &str)
    where
        Ours: Serialize + for<'a> Deserialize<'a>,
        Theirs: Serialize + for<'a> Deserialize<'a>,
    {
        let ours: Ours = serde_json::from_str(text).unwrap();
        let theirs: Theirs = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&ours).unwrap(), text);
        assert_eq!(serde_json::to_string(&theirs).unwrap(), text);
    }

    #[test]
    fn commands_are_those_of_the_vendor() {
        for text in [
            r#""GetInput""#,
            r#"{"Log":{"Info":"a"}}"#,
            r#"{"Log":{"Warn":"a"}}"#,
            r#"{"Log":{"Error":"a"}}"#,
            r#"{"Log":{"Debug":"a"}}"#,
            r#"{"Log":{"Trace":"a"}}"#,
            r#"{"SendResponse":"null"}"#,
            r#"{"Random":{"Bool":true}}"#,
            r#"{"Random":{"F32":0.5}}"#,
            r#"{"Sleep":{"secs":1,"nanos":2}}"#,
            r#"{"HTTPRequest":{"config":{"idempotent":true,"timeout":{"secs":120,"nanos":0},"response_body_limit":10000000},"method":"GET","url":"http://a/","headers":[["a","b"]],"body":""}}"#,
            r#"{"GetSecret":"a"}"#,
            r#""TimeNow""#,
            r#"{"RecvMessage":[null,["a","b"]]}"#,
            r#"{"RecvMessage":[{"secs":1,"nanos":0},[]]}"#,
            r#"{"StartWorkflow":["a","null"]}"#,
            r#"{"ReplayDebug":"a"}"#,
        ] {
            same::<Command, Input>(text);
        }
    }

    #[test]
    fn answers_are_those_of_the_vendor() {
        let response = r#"{"status_code":404,"url":"http://a/","headers":[],"body":""}"#;
        let status = format!(r#"{{"HTTPResponse":{{"Err":{{"Status":[404,{response}]}}}}}}"#);
        let good = format!(r#"{{"HTTPResponse":{{"Ok":{response}}}}}"#);
        for text in [
            r#""Unit""#,
            r#"{"Value":{"I64":-1}}"#,
            r#"{"Value":{"I32":-1}}"#,
            r#"{"Value":{"F64":0.5}}"#,
            r#"{"String":"null"}"#,
            r#"{"ResponseSent":true}"#,
            &status,
            &good,
            r#"{"Time":{"secs_since_epoch":1,"nanos_since_epoch":2}}"#,
            r#"{"Message":["a","null"]}"#,
            r#""Timeout""#,
            r#"{"Secret":null}"#,
            r#"{"Secret":"a"}"#,
        ] {
            same::<Answer, Output>(text);
        }
    }

    #[test]
    fn errors_of_transport_are_those_of_the_vendor() {
        use HttpErrorKind::{
            BadHeader, BadStatus, ConnectionFailed, Dns, InvalidUrl, Io, RequestInterrupted,
            StatusCode, TooManyRedirects, UnknownScheme,
        };
        for kind in [
            InvalidUrl,
            UnknownScheme,
            Dns,
            ConnectionFailed,
            TooManyRedirects,
            BadStatus,
            BadHeader,
            RequestInterrupted,
            Io,
            StatusCode,
        ] {
            let error = HttpError::Transport(HttpTransportError {
                kind,
                message: Some("m".into()),
                url: None,
            });
            let answer = Answer::HttpResponse(Err(error));
            same::<Answer, Output>(&serde_json::to_string(&answer).unwrap());
        }
    }
}
