//! The root context: configuration, ticks, queues, and the answers to our calls. Envoy makes a new one at each push; what must
//! live longer stands in [`crate::worker`].

use crate::request::Request;
use crate::worker::Worker;
use crate::{config, host, ownership, sender, worker};
use phoenix_filter::emit::Answer;
use phoenix_filter::units::UnixNanos;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;
use std::rc::Rc;

/// A root context under one configuration.
pub struct Root {
    id: u32,
    config: Option<Rc<config::Config>>,
    /// Envoy wants it to go; it stays until its calls are answered.
    leaving: bool,
}

impl Root {
    /// Not configured yet.
    pub fn new(id: u32) -> Root {
        Root { id, config: None, leaving: false }
    }

    /// Go, once no call of this root context waits for an answer.
    fn leave(&self) {
        let id = self.id;
        if self.leaving && worker::with(|w| w.waits(id)) == Some(false) {
            host::done();
        }
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, num_headers: usize, body_len: usize, _: usize) {
        let now_ns = host::now_ns();
        worker::with(|w| {
            if w.peers.answered(token, num_headers, body_len, &mut w.stats, now_ns)
                || w.reports.answered(token, num_headers, &mut w.stats)
            {
                return;
            }
            let protocol = w.sender.protocol(token);
            let answer = sender::read_answer(protocol, num_headers);
            if answer == Answer::Accepted {
                let rejected = sender::rejected_points(protocol, body_len);
                w.stats.emitted_rejected = w.stats.emitted_rejected.saturating_add(rejected);
            }
            w.answered(token, answer, now_ns);
        });
        self.leave();
    }

    /// A push puts another root context in the place of this one. Envoy would cancel its calls: the upstream may have accepted what
    /// they carried, and would get it twice. So it stays until they are answered, which their time-out bounds.
    fn on_done(&mut self) -> bool {
        let id = self.id;
        self.leaving = worker::with(|w| w.waits(id)).unwrap_or(false);
        !self.leaving
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let id = self.id;
        worker::with(|w| w.root_gone(id, host::now_ns()));
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, len: usize) -> bool {
        let wall = UnixNanos(host::now_ns());
        let in_force = |w: &mut Worker| w.config.clone().map(|c| (w.scratch.now(&c.plan, wall), c));
        let (now, before) = worker::with(in_force).flatten().map_or((wall, None), |(now, c)| (now, Some(c)));
        let config = match config::parse(&host::plugin_configuration(len), before.as_deref(), now) {
            Ok(config) => Rc::new(config),
            Err(why) => {
                host::warn(&why);
                return false;
            }
        };
        let asked = config.plan.plan.shards;
        if let Some(running) = ownership::process().map(|p| p.shards)
            && running != asked
        {
            host::warn(&format!(
                "plan refused: field shards: value {asked} is not allowed; allowed: {running}, the number this process began with \
                 (restart to change it)"
            ));
            return false;
        }
        host::set_tick_period(u32::try_from(config.envoy.tick.0).unwrap_or(1_000));
        self.config = Some(config.clone());
        // Runs in the main thread's VMs too, a canary among them: nothing here may touch what workers share.
        worker::with(|w| w.configure(config, host::now_ns())).is_some()
    }

    fn on_tick(&mut self) {
        if self.leaving {
            // Its successor ticks; it makes no further call.
            self.leave();
            return;
        }
        let (id, now_ns) = (self.id, host::now_ns());
        worker::with(|w| w.tick(id, now_ns));
    }

    fn on_queue_ready(&mut self, _: u32) {
        let now_ns = host::now_ns();
        // Were a callback running already, the next tick would drain it.
        worker::with(|w| w.drain(now_ns));
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Request::new(self.config.clone())))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}
