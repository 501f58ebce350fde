//! Delivering webhooks: **at least once, to each receiver in order, never in anybody's way.**

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{Either, select};
use livekit_protocol::WebhookEvent;
use worker::wasm_bindgen::JsValue;
use worker::{
    AbortController, Delay, Fetch, Headers, Method, Request, RequestInit, RequestRedirect, Result, console_error,
};

use super::Shell;
use super::outbox::{Outbox, Waiting};
use crate::report::Report;
use crate::room::event::UnixMs;
use crate::runtime;
use crate::webhook::{ANSWER_LIMIT_MS, CONTENT_TYPE, KEPT_FOR_MS, retry_after_ms};

/// When to look again at a delivery that is on its way: an object that fell asleep meanwhile has forgotten it.
const LOOK_AGAIN_MS: u64 = 2 * ANSWER_LIMIT_MS;

/// Who is being delivered to.
#[derive(Debug, Default)]
pub(super) struct Deliveries(std::cell::RefCell<BTreeSet<String>>);

/// One receiver is being delivered to; **over when dropped, also by a panic**.
struct Delivery {
    shell: Rc<Shell>,
    url: String,
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.shell.deliveries.0.borrow_mut().remove(&self.url);
    }
}

impl Shell {
    fn outbox(&self) -> Outbox {
        Outbox::new(&self.state)
    }

    /// Keeps an event until every receiver has it.
    pub(super) fn keep_webhook(&self, event: &WebhookEvent) -> Result<()> {
        let deployment = self.deployment()?;
        if deployment.webhooks.urls().is_empty() {
            return Ok(());
        }
        let body = serde_json::to_string(event)?;
        let lost = self.outbox().push(runtime::now(), &body, deployment.webhooks.urls())?;
        self.outbox_used.set(Some(true));
        if lost > 0 {
            runtime::report(&self.env, &[Report::WebhookLost { reason: "too_many_wait", count: lost }]);
        }
        Ok(())
    }

    /// Delivers what is due, in the background; when to look again.
    pub(super) fn deliver_webhooks(self: &Rc<Self>) -> Result<Option<UnixMs>> {
        let used = match self.outbox_used.get() {
            Some(used) => used,
            None => self.outbox().exists()?,
        };
        let due = if used { self.outbox().due()? } else { Vec::new() };
        self.outbox_used.set(Some(!due.is_empty()));
        let now = runtime::now();
        let mut next = None;
        for receiver in due {
            let at = if self.deliveries.0.borrow().contains(&receiver.url) {
                now.after(LOOK_AGAIN_MS)
            } else if receiver.at() <= now {
                self.deliver_to(receiver.url);
                now.after(LOOK_AGAIN_MS)
            } else {
                receiver.at()
            };
            next = Some(next.map_or(at, |earlier: UnixMs| earlier.min(at)));
        }
        Ok(next)
    }

    fn deliver_to(self: &Rc<Self>, url: String) {
        self.deliveries.0.borrow_mut().insert(url.clone());
        let delivery = Delivery { shell: Rc::clone(self), url };
        self.state.wait_until(async move {
            let shell = Rc::clone(&delivery.shell);
            let delivered = shell.deliver_all(&delivery.url).await;
            drop(delivery);
            // What came meanwhile, and the next try.
            if let Err(error) = delivered.and(shell.settle().await) {
                console_error!("webhooks wait: {error}");
            }
        });
    }

    /// One after the other, until nothing waits or one does not arrive.
    async fn deliver_all(&self, url: &str) -> Result<()> {
        let deployment = self.deployment()?;
        if !deployment.webhooks.urls().iter().any(|known| known == url) {
            // The deployment has other receivers now.
            return self.outbox().forget(url);
        }
        while let Some(waiting) = self.outbox().first(url)? {
            let now = runtime::now();
            if now >= waiting.created().after(KEPT_FOR_MS) {
                self.outbox().remove(&waiting)?;
                runtime::report(&self.env, &[Report::WebhookLost { reason: "too_old", count: 1 }]);
                continue;
            }
            let authorization = deployment.webhooks.authorization(&deployment.keys, &waiting.body, now.secs());
            let authorization = authorization.map_err(|error| worker::Error::RustError(error.to_string()))?;
            if self.arrives(url, &waiting, &authorization).await {
                self.outbox().remove(&waiting)?;
                if waiting.failures() > 0 {
                    self.outbox().note(url, 0, now)?;
                }
            } else {
                let failures = waiting.failures().saturating_add(1);
                let [random] = runtime::random()?;
                return self.outbox().note(url, failures, runtime::now().after(retry_after_ms(failures, random)));
            }
        }
        Ok(())
    }

    /// Posts an event; whether its receiver has it.
    async fn arrives(&self, url: &str, waiting: &Waiting, authorization: &str) -> bool {
        let status = match post(url, &waiting.body, authorization).await {
            Ok(status) if (200..300).contains(&status) => return true,
            Ok(status) => Some(status),
            Err(_) => None,
        };
        runtime::report(&self.env, &[Report::WebhookFailed { status, failures: waiting.failures() + 1 }]);
        false
    }
}

/// The status that the receiver answered.
async fn post(url: &str, body: &str, authorization: &str) -> Result<u16> {
    let headers = Headers::new();
    headers.set("Content-Type", CONTENT_TYPE)?;
    headers.set("Authorization", authorization)?;
    headers.set("User-Agent", "LiveKit")?;
    let mut init = RequestInit::new();
    // Who is sent elsewhere would show a signed event to somebody that was not configured.
    init.with_redirect(RequestRedirect::Manual);
    init.with_method(Method::Post).with_headers(headers).with_body(Some(JsValue::from_str(body)));
    let request = Fetch::Request(Request::new_with_init(url, &init)?);
    let controller = AbortController::default();
    let signal = controller.signal();
    let answer = std::pin::pin!(request.send_with_signal(&signal));
    match select(answer, Delay::from(Duration::from_millis(ANSWER_LIMIT_MS))).await {
        Either::Left((answer, _)) => Ok(answer?.status_code()),
        Either::Right(_) => {
            controller.abort();
            Err(worker::Error::RustError("no answer".to_owned()))
        }
    }
}
