//! Keeps an agent alive: delivers its messages, and builds it anew when it panicked.
//!
//! An actor that panics takes its mailbox with it, and `actix::Supervisor` would restart the same broken struct. So a
//! keeper owns the subscription and a factory instead. It delivers nothing twice: the session hears that the agent was
//! started anew, asks again what matters, and gives up on an agent that ends again and again.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use actix::{Actor, Addr, Context, Handler, Message};
use dagwright_bus::{Bus, Subscription, Topic, envelope};
use dagwright_model::message::{Envelope, Party};

/// A message for an agent.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub(crate) struct Deliver(pub(crate) Envelope);

/// Subscribes `party` and keeps its agent while `on_duty`: `build` starts one, `restarted` hears of each further one.
///
/// # Errors
/// When the bus was shut down.
pub(crate) async fn keep<A>(
    bus: Arc<dyn Bus>,
    party: Party,
    build: impl Fn() -> Addr<A> + 'static,
    restarted: impl Fn(Party) + 'static,
    on_duty: Arc<AtomicBool>,
) -> Result<(), dagwright_bus::Error>
where
    A: Actor<Context = Context<A>> + Handler<Deliver>,
{
    let subscription = bus.subscribe(Topic::Agents, &party.to_string()).await?;
    actix::spawn(deliver_all(subscription, party, build, restarted, on_duty));
    Ok(())
}

async fn deliver_all<A>(
    mut subscription: Subscription,
    party: Party,
    build: impl Fn() -> Addr<A>,
    restarted: impl Fn(Party),
    on_duty: Arc<AtomicBool>,
) where
    A: Actor<Context = Context<A>> + Handler<Deliver>,
{
    let mut agent = build();
    while let Some(record) = subscription.next().await {
        let envelope = match envelope::from_record(&record) {
            Ok(envelope) if envelope.to == party => envelope,
            Ok(_) => continue,
            Err(error) => {
                tracing::warn!(%party, %error, "dropped a message that cannot be read");
                continue;
            }
        };
        let session = envelope.session.clone();
        if agent.send(Deliver(envelope)).await.is_err() {
            if !on_duty.load(Relaxed) {
                return;
            }
            tracing::error!(%party, %session, "agent panicked, building it anew");
            agent = build();
            restarted(party.clone());
        }
    }
}
