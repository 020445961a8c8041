//! How agents send: by the bus of their process, or through its office, and they need not know which.

use std::{collections::BTreeSet, sync::Arc};

use dagwright_bus::{Bus, Topic, letter};
use dagwright_model::{
    id::RequestId,
    message::{Envelope, Party},
};

use crate::office::Office;

/// How agents send.
#[derive(Clone)]
pub(crate) struct Mail {
    pub(crate) near: Arc<dyn Bus>,
    pub(crate) here: Arc<BTreeSet<Party>>,
    pub(crate) office: Option<Arc<Office>>,
}

// === impl Mail ===

impl Mail {
    /// Sends an orchestrator's messages in order, each to wherever its receiver runs.
    pub(crate) async fn ask(self, messages: Vec<Envelope>) {
        for message in messages {
            match &self.office {
                Some(office) if !self.here.contains(&message.to) => {
                    trace(&message);
                    office.ask(message);
                }
                _ => self.within(&message).await,
            }
        }
    }

    /// Sends a participant's messages in order to whoever asked: a process, or this one where that is empty.
    pub(crate) async fn answer(self, to_host: String, messages: Vec<Envelope>) {
        for message in messages {
            match &self.office {
                Some(office) if !to_host.is_empty() => {
                    trace(&message);
                    office.answer(&to_host, message);
                }
                _ => self.within(&message).await,
            }
        }
    }

    /// Forgets a session that ended.
    pub(crate) fn forget(&self, session: &RequestId) {
        if let Some(office) = &self.office {
            office.forget(session);
        }
    }

    async fn within(&self, message: &Envelope) {
        trace(message);
        if let Err(error) = self.near.publish(Topic::Agents, letter::within("", message)).await {
            tracing::error!(session = %message.session, %error, "could not send message");
        }
    }
}

fn trace(message: &Envelope) {
    tracing::trace!(session = %message.session, to = %message.to, kind = message.body.kind(), "sending message");
}
