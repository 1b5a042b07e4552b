//! Tells interceptors how what they saw leave has ended.

use std::sync::{Arc, OnceLock};

use grus_mailbox::{Dropped, Port};

use crate::error::SendError;
use crate::guard::Guard;
use crate::interceptor::Interceptors;
use crate::message::Message;
use crate::receipt::{BatchReceipt, Receipt};
use crate::send::gone;

/// Knows why a message was not even taken, whose port is dropped then.
#[derive(Debug, Default)]
pub(crate) struct Watch(Option<Arc<OnceLock<SendError>>>);

impl Watch {
    /// A watch for messages that somebody intercepts.
    pub(crate) fn for_some() -> Self {
        Self(Some(Arc::default()))
    }

    /// The message was not taken: to be said before its port is dropped.
    pub(crate) fn refused(&self, error: SendError) -> SendError {
        if let Some(cell) = &self.0 {
            let _ = cell.set(error.clone());
        }
        error
    }

    /// A port for one message's outcome that tells the interceptors first.
    pub(crate) fn over_one(
        &self,
        hooks: Interceptors,
        guard: Guard,
        message: Message,
        port: Port<Result<Receipt, SendError>>,
    ) -> Port<Result<Receipt, SendError>> {
        let refused = self.0.clone();
        Port::call(move |answer: Result<_, Dropped>| {
            let result = answer.unwrap_or_else(|dropped| never_taken(refused.as_ref(), dropped));
            hooks.after_send(&guard, &message, &result);
            port.send(result);
        })
    }

    /// The same for the messages of a batch, each with its own receipt.
    pub(crate) fn over_many(
        &self,
        hooks: Interceptors,
        guard: Guard,
        messages: Vec<Message>,
        port: Port<Result<BatchReceipt, SendError>>,
    ) -> Port<Result<BatchReceipt, SendError>> {
        let refused = self.0.clone();
        Port::call(move |answer: Result<Result<BatchReceipt, _>, Dropped>| {
            let result = answer.unwrap_or_else(|dropped| never_taken(refused.as_ref(), dropped));
            match &result {
                Ok(receipt) => {
                    for (message, receipt) in messages.iter().zip(receipt.receipts()) {
                        hooks.after_send(&guard, message, &Ok(receipt));
                    }
                }
                Err(error) => {
                    let failed = Err(error.clone());
                    for message in &messages {
                        hooks.after_send(&guard, message, &failed);
                    }
                }
            }
            port.send(result);
        })
    }
}

fn never_taken<T>(
    refused: Option<&Arc<OnceLock<SendError>>>,
    dropped: Dropped,
) -> Result<T, SendError> {
    match refused.and_then(|cell| cell.get()) {
        Some(error) => Err(error.clone()),
        None => gone(dropped),
    }
}
