//! xDS: extension configuration discovery (ECDS), state of the world, over gRPC.
//!
//! In: a stream of `DiscoveryRequest`s of one Envoy, and snapshots of the board. Out: a `DiscoveryResponse` when a node subscribes and whenever what it is to have changes, and in [`Answers`]
//! what became of it. Served as its own service and within ADS. The rules are those of Envoy's "xDS REST and gRPC protocol": a response carries a nonce, an ACK repeats
//! it with the version, a NACK repeats it with an error and the version before. What was refused is not sent again: Envoy keeps what it has,
//! and the next version is another text.
//!
//! Refuses other types (nothing is sent, as the protocol has it), a stream without a node, and a node that is not its caller's.

use super::answers::Answers;
use super::board::{Board, Node, Published};
use super::extension::{Module, type_url};
use crate::guard::{Guard, Pass};
use crate::role::Right;
use envoy_types::pb::envoy::config::core::v3::Node as EnvoyNode;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::envoy::service::extension::v3::extension_config_discovery_service_server::{
    ExtensionConfigDiscoveryService, ExtensionConfigDiscoveryServiceServer,
};
use envoy_types::pb::google::protobuf::value::Kind;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

/// Largest request, bytes: a node with its extensions is some 20 kB.
const REQUEST_MAX: usize = 1 << 20;

/// What happens on a stream and is worth a line in the audit log.
pub type Noted = Arc<dyn Fn(&Node, Event<'_>) + Send + Sync>;

/// One of these things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A version was given to it.
    Sent(&'a str),
    /// It took it.
    Taken(&'a str),
    /// It refused it, with a reason.
    Refused(&'a str, &'a str),
    /// It was not let in, with a reason.
    Denied(&'a str),
}

/// The service.
#[derive(Clone)]
pub struct Xds {
    /// What is to be in force.
    pub board: Board,
    /// What became of it.
    pub answers: Arc<Answers>,
    /// Where Envoy finds the module.
    pub module: Arc<Module>,
    /// Who is told.
    pub noted: Noted,
}

type Responses = Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;
type NoDeltas = Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

impl Xds {
    /// Its routes, for a port; for embedders.
    pub fn routes(self, guard: &Guard) -> axum::Router {
        let own =
            ExtensionConfigDiscoveryServiceServer::new(self.clone()).max_decoding_message_size(REQUEST_MAX);
        let all = AggregatedDiscoveryServiceServer::new(self).max_decoding_message_size(REQUEST_MAX);
        let routes = Routes::new(own).add_service(all).into_axum_router().reset_fallback();
        guard.over_all(routes, Right::Embed)
    }

    fn stream(&self, request: Request<Streaming<DiscoveryRequest>>) -> Result<Response<Responses>, Status> {
        let pass = request.extensions().get::<Pass>().cloned();
        let pass = pass.ok_or_else(|| Status::internal("nobody looked who it is"))?;
        let (out, responses) = mpsc::channel(2);
        let (xds, asked) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            if let Err(status) = xds.clone().talk(asked, &out, &pass).await {
                let _ = out.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }

    /// One Envoy, from its first word to its last.
    async fn talk(
        self,
        mut asked: Streaming<DiscoveryRequest>,
        out: &mpsc::Sender<Result<DiscoveryResponse, Status>>,
        pass: &Pass,
    ) -> Result<(), Status> {
        let mut watch = self.board.watch();
        let mut stream = Told::default();
        loop {
            let mut said = None;
            tokio::select! {
                request = asked.next() => {
                    let Some(Ok(request)) = request else { break };
                    if stream.node.is_none() {
                        let node = request.node.as_ref().filter(|node| !node.id.is_empty()).map(node_of);
                        let node = node.ok_or_else(|| Status::invalid_argument("node.id: empty; allowed: an id"))?;
                        if let Err(denied) = pass.caller.speaks_for(&node.id) {
                            (self.noted)(&node, Event::Denied(denied.why()));
                            return Err(denied.status());
                        }
                        self.answers.connected(&node, true, now_ns());
                        stream.node = Some(node);
                    }
                    if request.type_url != type_url() && !request.type_url.is_empty() {
                        continue;
                    }
                    said = Some(request);
                }
                changed = watch.changed() => if changed.is_err() { break },
            }
            // A stream may stand for weeks: who is no longer named, or no longer for this node, is given nothing more.
            if let Some(node) = &stream.node
                && let Err(denied) = pass.still(&node.id)
            {
                (self.noted)(node, Event::Denied(denied.why()));
                self.answers.connected(node, false, now_ns());
                return Err(denied.status());
            }
            if let Some(request) = said {
                self.heard(&mut stream, &request);
            }
            let response = self.due(&mut stream, &watch.borrow_and_update().clone());
            if let Some(response) = response
                && out.send(Ok(response)).await.is_err()
            {
                break;
            }
        }
        if let Some(node) = &stream.node {
            self.answers.connected(node, false, now_ns());
        }
        Ok(())
    }

    /// A request: a subscription, or what became of the last response.
    fn heard(&self, stream: &mut Told, request: &DiscoveryRequest) {
        stream.wants =
            request.resource_names.is_empty() || request.resource_names.contains(&self.module.name);
        let (Some(node), Some((nonce, version))) = (&stream.node, &stream.sent) else { return };
        // An answer to an older response says nothing about the newest.
        if request.response_nonce != nonce.to_string() || !stream.is_open {
            return;
        }
        stream.is_open = false;
        match &request.error_detail {
            Some(error) => {
                self.answers.refused(node, version, &error.message, now_ns());
                (self.noted)(node, Event::Refused(version, &error.message));
            }
            None => {
                self.answers.taken(node, version, now_ns());
                (self.noted)(node, Event::Taken(version));
            }
        }
    }

    /// The response that is due.
    fn due(&self, stream: &mut Told, snapshot: &super::board::Snapshot) -> Option<DiscoveryResponse> {
        let node = stream.node.as_ref().filter(|_| stream.wants)?;
        let Published { version, config } = snapshot.of(node)?;
        if stream.sent.as_ref().is_some_and(|(_, sent)| sent == version) {
            return None;
        }
        let nonce = stream.sent.as_ref().map_or(1, |(nonce, _)| nonce + 1);
        stream.sent = Some((nonce, version.clone()));
        stream.is_open = true;
        self.answers.sent(node, version, now_ns());
        (self.noted)(node, Event::Sent(version));
        Some(DiscoveryResponse {
            version_info: version.to_string(),
            resources: vec![self.module.resource(config)],
            type_url: type_url(),
            nonce: nonce.to_string(),
            ..DiscoveryResponse::default()
        })
    }
}

/// What was said on a stream.
#[derive(Default)]
struct Told {
    node: Option<Node>,
    wants: bool,
    /// Nonce and version of the last response.
    sent: Option<(u64, Arc<str>)>,
    /// It was not answered yet.
    is_open: bool,
}

fn node_of(node: &EnvoyNode) -> Node {
    let tenant =
        node.metadata.as_ref().and_then(|it| it.fields.get("tenant")).and_then(|it| it.kind.as_ref());
    let tenant = match tenant {
        Some(Kind::StringValue(tenant)) => tenant.clone(),
        _ => String::new(),
    };
    Node { id: node.id.clone(), cluster: node.cluster.clone(), tenant }
}

pub(crate) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

const ONLY: &str = "state of the world is served, and as a stream";

#[tonic::async_trait]
impl ExtensionConfigDiscoveryService for Xds {
    type StreamExtensionConfigsStream = Responses;
    type DeltaExtensionConfigsStream = NoDeltas;

    async fn stream_extension_configs(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Responses>, Status> {
        self.stream(request)
    }

    async fn delta_extension_configs(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<NoDeltas>, Status> {
        Err(Status::unimplemented(ONLY))
    }

    async fn fetch_extension_configs(
        &self,
        _: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented(ONLY))
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Xds {
    type StreamAggregatedResourcesStream = Responses;
    type DeltaAggregatedResourcesStream = NoDeltas;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Responses>, Status> {
        self.stream(request)
    }

    async fn delta_aggregated_resources(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<NoDeltas>, Status> {
        Err(Status::unimplemented(ONLY))
    }
}
