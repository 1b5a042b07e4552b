//! Where the reply to one request of a session goes.

use grus_mailbox::{Credit, Dropped, Port};
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::frame::FrameHead;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::error::RegistryError;
use crate::frames::{self, Backlog, Outgoing};

/// Where the reply to a request goes.
pub(crate) struct ReplyTo {
    pub(crate) head: FrameHead,
    pub(crate) credit: Credit,
    pub(crate) out: mpsc::UnboundedSender<Outgoing>,
    pub(crate) backlog: Backlog,
}

impl ReplyTo {
    pub(crate) fn result<T: Serialize>(self, result: Result<T, ErrorReply>) {
        let Self { head, credit, out, backlog } = self;
        if head.wants_no_reply() {
            return;
        }
        let close_after = result.as_ref().is_err_and(|error| error.code.closes_connection());
        let frame = match result {
            Ok(header) => frames::encode(head.reply(), &header),
            Err(error) => frames::encode(head.error_reply(), &error),
        };
        let waiting = Some(backlog.add(frame.len()));
        // The peer may have left.
        let _ = out.send(Outgoing { frame, credit: Some(credit), close_after, waiting });
    }

    pub(crate) fn error(self, error: ErrorReply) {
        self.result::<()>(Err(error));
    }

    /// A port whose answer is the reply.
    pub(crate) fn port<T: Serialize + Send + 'static>(self) -> Port<Result<T, ErrorReply>> {
        Port::call(move |answer: Result<Result<T, ErrorReply>, Dropped>| {
            self.result(answer.unwrap_or_else(|Dropped| Err(busy())));
        })
    }

    /// A port whose answer becomes the reply.
    pub(crate) fn map<T: Send + 'static, H: Serialize>(
        self,
        header: impl FnOnce(T) -> H + Send + 'static,
    ) -> Port<Result<T, RegistryError>> {
        Port::call(move |answer: Result<Result<T, RegistryError>, Dropped>| {
            self.result(match answer {
                Ok(Ok(value)) => Ok(header(value)),
                Ok(Err(error)) => Err(error.to_reply()),
                Err(Dropped) => Err(busy()),
            });
        })
    }
}

fn busy() -> ErrorReply {
    ErrorReply::new(ErrorCode::Overloaded, "the registry has no room now").with_retry_after_ms(50)
}
