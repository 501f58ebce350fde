//! Command line and environment.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::thread::available_parallelism;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use shared::control::NodeLimits;
use shared::geo::Place;
use shared::ids::RegionName;
use url::Url;

use crate::conference::placement::Fullness;
use crate::media::api::{MAX_SHARDS, ShardIndex};
use crate::tls::acme::Order;
use crate::tls::{Files, Source};

/// Meridian's media node: takes sessions from the edge and forwards their media.
#[derive(Debug, Clone, Parser)]
#[command(version)]
pub(crate) struct Config {
    /// The edge, `https://…` (`http://…` on a machine of one's own).
    #[arg(long, env = "MERIDIAN_EDGE_URL", value_parser = edge_url)]
    pub(crate) edge_url: Url,
    /// Region's name and place: `NAME@LATITUDE,LONGITUDE`.
    #[arg(long, env = "MERIDIAN_REGION")]
    pub(crate) region: Region,
    /// Where the node keeps its key and id.
    #[arg(long, env = "MERIDIAN_STATE_DIR", default_value = "/var/lib/meridian")]
    pub(crate) state_dir: PathBuf,
    /// Lets a new node enrol its key at the edge; without one it waits until its address is admitted there. Better in the environment: every user of a machine can read arguments.
    #[arg(long, env = "MERIDIAN_ENROL_TOKEN", hide_env_values = true, value_parser = secret)]
    pub(crate) enrol_token: Option<Secret>,
    /// Address the media socket binds; all, if not given.
    #[arg(long, env = "MERIDIAN_BIND_ADDRESS")]
    pub(crate) bind_address: Option<IpAddr>,
    /// Addresses clients reach it at, preferred first. If not given: the bind address, else those the edge sees it at.
    #[arg(long = "public-address", env = "MERIDIAN_PUBLIC_ADDRESS", value_delimiter = ',')]
    pub(crate) public_addresses: Vec<IpAddr>,
    /// UDP port for media: the first shard's. Each further shard takes the next one.
    #[arg(long, env = "MERIDIAN_UDP_PORT", default_value_t = 7900)]
    pub(crate) udp_port: u16,
    /// Media threads; as many as there are cores, if not given.
    #[arg(long, env = "MERIDIAN_SHARDS", default_value_t = cores(), value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_SHARDS)))]
    pub(crate) shards: u8,
    /// Sessions on a shard from which on its rooms take further shards.
    #[arg(long, env = "MERIDIAN_SPREAD_SESSIONS", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    spread_sessions: u32,
    /// Packets received and sent by a shard per second from which on its rooms take further shards.
    #[arg(long, env = "MERIDIAN_SPREAD_PACKETS", default_value_t = 150_000, value_parser = clap::value_parser!(u32).range(1..))]
    spread_packets: u32,
    /// Microphones of a room that are heard at once: the loudest, in rooms where more are on.
    #[arg(long, env = "MERIDIAN_AUDIBLE_MICROPHONES", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    audible_microphones: u16,
    /// Serves rooms alone: no pipes to other nodes (docs/pipes.md). For a node whose UDP ports others of the fleet cannot reach.
    #[arg(long, env = "MERIDIAN_NO_PIPES")]
    no_pipes: bool,
    /// Health and metrics.
    #[arg(long, env = "MERIDIAN_HTTP_ADDR", default_value = "127.0.0.1:7980")]
    pub(crate) http_addr: SocketAddr,
    /// Certificate chain, PEM: health and metrics are served over HTTPS. Read again when it changes.
    #[arg(long, env = "MERIDIAN_TLS_CERT", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of that certificate, PEM.
    #[arg(long, env = "MERIDIAN_TLS_KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Names of this node: it gets a certificate for them by ACME, proven on the port of --http-addr, which the server must reach as 443 (tls-alpn-01). Who sets this agrees to the server's terms.
    #[arg(long = "acme-domain", env = "MERIDIAN_ACME_DOMAIN", value_delimiter = ',', conflicts_with = "tls_cert")]
    acme_domains: Vec<String>,
    /// Mail address that the ACME server may warn.
    #[arg(long, env = "MERIDIAN_ACME_CONTACT", requires = "acme_domains")]
    acme_contact: Option<String>,
    /// The ACME server's directory.
    #[arg(long, env = "MERIDIAN_ACME_DIRECTORY", default_value = "https://acme-v02.api.letsencrypt.org/directory")]
    acme_directory: Url,
    /// Certificates, PEM, that the ACME server's own is trusted by; the public ones, if not given.
    #[arg(long, env = "MERIDIAN_ACME_CA", requires = "acme_domains")]
    acme_ca: Option<PathBuf>,
    /// Most sessions the node takes.
    #[arg(long, env = "MERIDIAN_MAX_SESSIONS", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) max_sessions: u32,
    /// Most media the node is to send, Mb/s: the edge places no room where it would be more.
    #[arg(long, env = "MERIDIAN_MAX_EGRESS_MBPS", value_parser = clap::value_parser!(u32).range(1..))]
    max_egress_mbps: Option<u32>,
    /// Most packets a second the node is to receive and send.
    #[arg(long, env = "MERIDIAN_MAX_PACKETS", value_parser = clap::value_parser!(u32).range(1..))]
    max_packets: Option<u32>,
    /// What is paid for what the node sends, US cents a gigabyte: the edge prefers cheap nodes of those about as near.
    #[arg(long, env = "MERIDIAN_EGRESS_COST", value_parser = cents)]
    egress_cost: Option<f32>,
    /// Send and receive buffer asked for the media socket, bytes each.
    #[arg(long, env = "MERIDIAN_SOCKET_BUFFER", default_value_t = 4 * 1024 * 1024)]
    pub(crate) socket_buffer: usize,
    /// Seconds that sessions may go on after SIGTERM.
    #[arg(long, env = "MERIDIAN_DRAIN_SECS", default_value_t = 3)]
    drain_secs: u32,
    /// How logs are written.
    #[arg(long, env = "MERIDIAN_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// What is logged (`tracing` filter syntax).
    #[arg(long, env = "MERIDIAN_LOG", default_value = "info,rtc_dtls=error")]
    pub(crate) log: String,
    /// Checks the configuration and exits.
    #[arg(long)]
    pub(crate) check_config: bool,
}

impl Config {
    /// What clap cannot see from one value alone.
    ///
    /// # Errors
    /// One line saying what to change.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let unfit = |address: &IpAddr| address.is_unspecified() || address.is_multicast();
        if self.public_addresses.iter().any(unfit) || self.bind_address.is_some_and(|address| address.is_multicast()) {
            return Err(ConfigError::NoPublicAddress);
        }
        if self.http_addr.port() == 0 || self.udp_port == 0 {
            return Err(ConfigError::NoPort);
        }
        if self.udp_port.checked_add(u16::from(self.shards) - 1).is_none() {
            return Err(ConfigError::PortsExhausted);
        }
        Ok(())
    }

    /// Whether only the edge can say where clients reach this node.
    pub(crate) fn asks_for_addresses(&self) -> bool {
        self.public_addresses.is_empty() && self.bind_address.is_none_or(|address| address.is_unspecified())
    }

    /// Where the first media socket binds.
    pub(crate) fn bind(&self) -> SocketAddr {
        let public = &self.public_addresses;
        let address = self.bind_address.unwrap_or_else(|| match public.as_slice() {
            // A node for this machine alone is not open to others.
            [only] if only.is_loopback() => *only,
            // An IPv6 wildcard socket takes IPv4 too.
            _ if public.iter().any(IpAddr::is_ipv6) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        });
        SocketAddr::new(address, self.udp_port)
    }

    /// What stands in the candidates of a session on this shard.
    pub(crate) fn candidates(&self, shard: ShardIndex) -> Vec<SocketAddr> {
        let port = self.udp_port.saturating_add(shard.0.into());
        let bound = [self.bind().ip()];
        let addresses: &[IpAddr] = if self.public_addresses.is_empty() { &bound } else { &self.public_addresses };
        addresses.iter().map(|address| SocketAddr::new(*address, port)).collect()
    }

    /// Where the certificate comes from, if health and metrics are served over HTTPS.
    pub(crate) fn tls(&self) -> Option<Source> {
        if !self.acme_domains.is_empty() {
            return Some(Source::Acme(Order {
                domains: self.acme_domains.clone(),
                contact: self.acme_contact.clone(),
                directory: self.acme_directory.clone(),
                roots: self.acme_ca.clone(),
                cache: self.state_dir.join("acme"),
            }));
        }
        Some(Source::Files(Files { chain: self.tls_cert.clone()?, key: self.tls_key.clone()? }))
    }

    /// When a room leaves its shard.
    pub(crate) fn fullness(&self) -> Fullness {
        Fullness { sessions: self.spread_sessions, packets_per_second: self.spread_packets }
    }

    /// Microphones of a room that are heard at once.
    pub(crate) fn audible(&self) -> usize {
        self.audible_microphones.into()
    }

    /// What the node can carry, as far as it is known.
    pub(crate) fn limits(&self) -> NodeLimits {
        NodeLimits {
            max_egress_bps: self.max_egress_mbps.map(|megabits| u64::from(megabits) * 1_000_000),
            max_packets_per_second: self.max_packets,
            egress_cost: self.egress_cost,
        }
    }

    /// Whether rooms may have other nodes beside this one.
    pub(crate) fn pipes(&self) -> bool {
        !self.no_pipes
    }

    /// How long sessions may go on after SIGTERM.
    pub(crate) fn drain_limit(&self) -> Duration {
        Duration::from_secs(self.drain_secs.into())
    }
}

/// What is wrong with the configuration as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    /// A wildcard or multicast address is no candidate.
    #[error("clients need addresses to reach this node at: --public-address must be neither a wildcard nor multicast")]
    NoPublicAddress,
    /// A random port cannot be found by clients or health checks.
    #[error("--udp-port and the port of --http-addr must not be 0")]
    NoPort,
    /// The last shard's port would be above 65535.
    #[error("--udp-port leaves no ports for all --shards")]
    PortsExhausted,
}

fn cores() -> u8 {
    let cores = available_parallelism().map_or(1, std::num::NonZero::get);
    u8::try_from(cores).unwrap_or(MAX_SHARDS).min(MAX_SHARDS)
}

fn cents(text: &str) -> Result<f32, String> {
    let cents: f32 = text.parse().map_err(|_| "must be a number of US cents".to_owned())?;
    if (0.0..=1000.0).contains(&cents) { Ok(cents) } else { Err("must be from 0 to 1000".to_owned()) }
}

/// Text that no log may show.
#[derive(Clone)]
pub(crate) struct Secret(String);

impl Secret {
    /// The text.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// A region's name and place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Region {
    /// Its name.
    pub(crate) name: RegionName,
    /// Where it is.
    pub(crate) place: Place,
}

impl FromStr for Region {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "must be NAME@LATITUDE,LONGITUDE, such as local-a@52.5,13.4".to_owned();
        let (name, place) = text.split_once('@').ok_or_else(form)?;
        let (latitude, longitude) = place.split_once(',').ok_or_else(form)?;
        let degrees = |text: &str, limit: f64| {
            let value: f64 = text.trim().parse().map_err(|_| form())?;
            if value.abs() <= limit { Ok(value) } else { Err(format!("{value} is not within ±{limit} degrees")) }
        };
        Ok(Self {
            name: RegionName::try_from(name).map_err(|error| format!("the region's name {error}"))?,
            place: Place { latitude: degrees(latitude, 90.0)?, longitude: degrees(longitude, 180.0)? },
        })
    }
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Reads the edge's address.
pub(crate) fn edge_url(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|error| format!("{error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("must be http://HOST… or https://HOST…".to_owned());
    }
    Ok(url)
}

/// Reads a secret, without the line end of the file it came from.
pub(crate) fn secret(text: &str) -> Result<Secret, String> {
    Ok(Secret(text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(more: &[&str]) -> Result<Config, clap::Error> {
        let base = ["sfu-node", "--edge-url", "http://localhost:7880", "--region", "a@52.5,13.4"];
        Config::try_parse_from(base.iter().chain(more))
    }

    #[test]
    fn a_node_needs_an_address_clients_can_reach() {
        for unfit in ["0.0.0.0", "::", "239.0.0.1"] {
            assert_eq!(parse(&["--public-address", unfit]).unwrap().check(), Err(ConfigError::NoPublicAddress));
        }
        let asking = parse(&[]).unwrap();
        assert!(asking.check().is_ok() && asking.asks_for_addresses());
        assert!(parse(&["--bind-address", "0.0.0.0"]).unwrap().asks_for_addresses());
        assert!(!parse(&["--bind-address", "192.0.2.1"]).unwrap().asks_for_addresses());
        let config = parse(&["--public-address", "192.0.2.1,2001:db8::1"]).unwrap();
        assert_eq!(config.check(), Ok(()));
        assert_eq!(config.candidates(ShardIndex(0)).len(), 2);
        assert!(!config.asks_for_addresses());
        assert!(config.bind().is_ipv6(), "one socket for both families");
        assert!(parse(&["--public-address", "192.0.2.1"]).unwrap().bind().ip().is_unspecified());
        assert!(parse(&["--public-address", "127.0.0.1"]).unwrap().bind().ip().is_loopback());
        assert_eq!(parse(&["--bind-address", "192.0.2.1"]).unwrap().check(), Ok(()));
    }

    #[test]
    fn each_shard_has_a_port_of_its_own() {
        let config = parse(&["--public-address", "192.0.2.1", "--udp-port", "65533", "--shards", "3"]).unwrap();
        assert_eq!(config.check(), Ok(()));
        let ports: Vec<u16> = ShardIndex::all(3).map(|shard| config.candidates(shard)[0].port()).collect();
        assert_eq!((config.bind().port(), ports), (65533, vec![65533, 65534, 65535]));
        let config = parse(&["--public-address", "192.0.2.1", "--udp-port", "65533", "--shards", "4"]).unwrap();
        assert_eq!(config.check(), Err(ConfigError::PortsExhausted));
        assert!(parse(&["--shards", "0"]).is_err() && parse(&["--shards", "65"]).is_err());
    }

    #[test]
    fn bad_values_are_refused() {
        assert!(Region::from_str("local-a").is_err());
        assert!(Region::from_str("@1,2").is_err());
        assert!(Region::from_str("a@91,0").is_err());
        assert!(Region::from_str("a@NaN,0").is_err());
        assert!(edge_url("ftp://x").is_err());
        assert!(parse(&["--max-sessions", "0"]).is_err());
        assert!(parse(&["--tls-cert", "chain.pem"]).is_err(), "a certificate needs its key");
        assert!(parse(&["--tls-cert", "chain.pem", "--tls-key", "key.pem"]).unwrap().tls().is_some());
        assert!(parse(&["--acme-contact", "a@b.example"]).is_err(), "a contact for nothing");
        let both = ["--tls-cert", "chain.pem", "--tls-key", "key.pem", "--acme-domain", "a.example"];
        assert!(parse(&both).is_err(), "one certificate from two sources");
        let acme = parse(&["--acme-domain", "a.example,b.example", "--state-dir", "/state"]).unwrap().tls();
        let Some(Source::Acme(order)) = acme else { panic!("{acme:?}") };
        assert_eq!((order.domains.len(), order.cache.as_path()), (2, Path::new("/state/acme")));
    }

    #[test]
    fn the_enrolment_token_is_not_shown() {
        let config = parse(&["--enrol-token", "very-secret"]).unwrap();
        assert!(!format!("{config:?}").contains("very-secret"));
    }
}
