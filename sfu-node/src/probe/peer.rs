//! The probe's media connection: the `webrtc` crate, with the codecs and extensions that an SFU's clients have.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use url::{Host, Url};
use webrtc::error::Result;
use webrtc::media_stream::MediaStreamTrack;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_remote::TrackRemote;
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceConnectionState,
    RTCPeerConnectionState, RTCSessionDescription, Registry, SettingEngineBuilder, register_default_interceptors,
};
use webrtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};

use super::media::{Kind, Outgoing};

/// What happens to a connection.
pub(super) enum PeerEvent {
    /// ICE found a path, at this time.
    Path(Instant),
    /// DTLS is done, at this time.
    Connected(Instant),
    /// The connection broke.
    Broken(String),
    /// Media comes.
    Track(Arc<dyn TrackRemote>),
}

/// Events that may wait: a handful happen.
const EVENTS: usize = 32;

/// A media connection.
pub(super) struct Peer {
    connection: Arc<dyn PeerConnection>,
    events: mpsc::Receiver<PeerEvent>,
}

struct Handler {
    events: mpsc::Sender<PeerEvent>,
}

impl Handler {
    async fn tell(&self, event: PeerEvent) {
        // Fails when nobody listens any more.
        let _ = self.events.send(event).await;
    }
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_connection_state_change(&self, state: RTCIceConnectionState) {
        match state {
            RTCIceConnectionState::Connected => self.tell(PeerEvent::Path(Instant::now())).await,
            RTCIceConnectionState::Failed => self.tell(PeerEvent::Broken("ICE found no path".to_owned())).await,
            _ => {}
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        match state {
            RTCPeerConnectionState::Connected => self.tell(PeerEvent::Connected(Instant::now())).await,
            RTCPeerConnectionState::Failed => self.tell(PeerEvent::Broken("it failed".to_owned())).await,
            _ => {}
        }
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        self.tell(PeerEvent::Track(track)).await;
    }
}

impl Peer {
    /// A connection that has offered nothing yet.
    ///
    /// # Errors
    /// No socket, or no certificate.
    pub(super) async fn new(edge: &Url) -> Result<Self> {
        let mut engine = MediaEngine::default();
        for kind in Kind::ALL {
            engine.register_codec(kind.codec(), kind.rtp())?;
        }
        let registry = register_default_interceptors(Registry::new(), &mut engine)?;
        let mut addresses = vec!["0.0.0.0:0", "[::]:0"];
        // A wildcard leaves out loopback, where a node on this machine takes media.
        let local = is_local(edge);
        if local {
            addresses.push("127.0.0.1:0");
        }
        let (sender, events) = mpsc::channel(EVENTS);
        let connection = PeerConnectionBuilder::new()
            .with_media_engine(engine)
            .with_interceptor_registry(registry)
            .with_setting_engine(SettingEngineBuilder::new().with_include_loopback_candidate(local).build())
            .with_handler(Arc::new(Handler { events: sender }))
            .with_udp_addrs(addresses)
            .build()
            .await?;
        Ok(Self { connection: Arc::new(connection), events })
    }

    /// Sends this track from the next offer on.
    ///
    /// # Errors
    /// The connection is closed.
    pub(super) async fn send(&self, track: &Outgoing) -> Result<Arc<TrackLocalStaticRTP>> {
        let stream = MediaStreamTrack::new(
            "probe".to_owned(),
            track.cid().to_owned(),
            track.cid().to_owned(),
            track.kind().rtp(),
            vec![track.encoding()],
        );
        let local = Arc::new(TrackLocalStaticRTP::new(stream));
        let init = RTCRtpTransceiverInit {
            direction: RTCRtpTransceiverDirection::Sendonly,
            ..RTCRtpTransceiverInit::default()
        };
        self.connection.add_transceiver_from_track(local.clone(), Some(init)).await?;
        Ok(local)
    }

    /// Can receive one more track of this kind from the next offer on.
    ///
    /// # Errors
    /// The connection is closed.
    pub(super) async fn receive(&self, kind: Kind) -> Result<()> {
        let init = RTCRtpTransceiverInit {
            direction: RTCRtpTransceiverDirection::Recvonly,
            ..RTCRtpTransceiverInit::default()
        };
        self.connection.add_transceiver_from_kind(kind.rtp(), Some(init)).await.map(drop)
    }

    /// The next offer. The node learns addresses from checks: none need be gathered first.
    ///
    /// # Errors
    /// The connection is closed.
    pub(super) async fn offer(&self) -> Result<String> {
        let offer = self.connection.create_offer(None).await?;
        let sdp = offer.sdp.clone();
        self.connection.set_local_description(offer).await?;
        Ok(sdp)
    }

    /// Takes the answer to it.
    ///
    /// # Errors
    /// It does not fit.
    pub(super) async fn answer(&self, sdp: String) -> Result<()> {
        self.connection.set_remote_description(RTCSessionDescription::answer(sdp)?).await
    }

    /// What happens next; `None`: nothing any more. Cancel safe.
    pub(super) async fn event(&mut self) -> Option<PeerEvent> {
        self.events.recv().await
    }

    /// Closes it.
    pub(super) async fn close(&self) {
        if let Err(error) = self.connection.close().await {
            tracing::warn!(%error, "closing the media connection");
        }
    }
}

/// Whether the edge, and so perhaps a node, is on this machine.
fn is_local(edge: &Url) -> bool {
    match edge.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}
