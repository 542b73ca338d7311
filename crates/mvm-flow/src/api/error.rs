//! Errors as clients see them.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::{ask::Denied, id::BadId, journal::Refused, module::NotAModule};

/// What a client is told went wrong.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.message }))).into_response()
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let status = match refused {
            Refused::UnknownExecution(_) | Refused::UnknownModule(_) => StatusCode::NOT_FOUND,
            Refused::VersionTaken { .. }
            | Refused::Finished { .. }
            | Refused::CannotRetry { .. }
            | Refused::NotPaused { .. }
            | Refused::JournalFull { .. }
            | Refused::Lost { .. } => StatusCode::CONFLICT,
            Refused::Invalid { .. } => StatusCode::BAD_REQUEST,
            Refused::InboxFull { .. } => StatusCode::TOO_MANY_REQUESTS,
            Refused::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Refused::Unknown { .. } => StatusCode::GATEWAY_TIMEOUT,
            Refused::Broken { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, refused.to_string())
    }
}

impl From<BadId> for ApiError {
    fn from(error: BadId) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        let status = match denied {
            Denied::Refused(refused) => return refused.into(),
            Denied::Module(NotAModule::TooLarge { .. }) | Denied::TooLarge { .. } => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Denied::NoModule { .. } | Denied::NoVersion { .. } | Denied::NoWorkflow { .. } => {
                StatusCode::NOT_FOUND
            }
            Denied::Module(_)
            | Denied::CannotRun(_)
            | Denied::NoJson { .. }
            | Denied::NoType
            | Denied::NoRecord(_) => StatusCode::BAD_REQUEST,
        };
        Self::new(status, denied.to_string())
    }
}
