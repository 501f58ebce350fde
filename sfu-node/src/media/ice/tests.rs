//! The responder against requests made with another ICE implementation's rules in mind.

use rtc::crypto::RTCCryptoProvider;
use rtc::crypto::providers::AwsLcRsProvider;
use rtc::stun::attributes::{ATTR_FINGERPRINT, ATTR_ICE_CONTROLLING, RawAttribute};
use rtc::stun::message::{Getter, TransactionId};
use rtc::stun::textattrs::TextAttribute;

use super::*;

const PASSWORD: &str = "a-password-of-22-chars";

fn agent() -> Agent {
    Agent::new(IceCredentials { ufrag: "node".into(), password: PASSWORD.into() })
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn request(ufrag: &str, password: &str, extra: &[(AttrType, &[u8])]) -> Vec<u8> {
    request_of(ufrag, "peer", password, extra)
}

fn request_of(ufrag: &str, peer: &str, password: &str, extra: &[(AttrType, &[u8])]) -> Vec<u8> {
    let provider = AwsLcRsProvider::new();
    let mut setters: Vec<Box<dyn Setter>> = vec![
        Box::new(BINDING_REQUEST),
        Box::new(TransactionId::new()),
        Box::new(TextAttribute::new(ATTR_USERNAME, format!("{ufrag}:{peer}"))),
    ];
    for (typ, value) in extra {
        setters.push(Box::new(RawAttribute {
            typ: *typ,
            length: u16::try_from(value.len()).unwrap(),
            value: value.to_vec(),
        }));
    }
    setters.push(Box::new(MessageIntegrity::new_short_term_integrity_with_provider(
        password.to_owned(),
        provider.crypto(),
    )));
    setters.push(Box::new(FINGERPRINT));
    let mut message = Message::new();
    message.build(&setters).unwrap();
    message.raw
}

fn handle(agent: &mut Agent, now: Instant, from: SocketAddr, datagram: &[u8]) -> Result<Accepted, Refused> {
    agent.handle(now, from, Request::parse(datagram).unwrap(), AwsLcRsProvider::new().crypto())
}

fn error_code(response: &[u8]) -> u16 {
    let mut message = Message::new();
    message.unmarshal_binary(response).unwrap();
    let mut code = ErrorCodeAttribute::default();
    code.get_from(&message).unwrap();
    code.code.0
}

const CONTROLLING: (AttrType, &[u8]) = (ATTR_ICE_CONTROLLING, &[1; 8]);
const NOMINATE: (AttrType, &[u8]) = (ATTR_USE_CANDIDATE, &[]);

#[test]
fn answers_an_authenticated_request_with_the_mapped_address() {
    let (mut agent, now) = (agent(), Instant::now());
    let accepted = handle(&mut agent, now, at(5000), &request("node", PASSWORD, &[CONTROLLING])).unwrap();

    assert!(accepted.learned);
    assert_eq!(agent.selected(), Some(at(5000).into()));
    let mut message = Message::new();
    message.unmarshal_binary(&accepted.response).unwrap();
    assert_eq!(message.typ, BINDING_SUCCESS);
    FINGERPRINT.check(&message).unwrap();
    MessageIntegrity::check(&mut message, PASSWORD.as_bytes(), AwsLcRsProvider::new().crypto()).unwrap();
    let mut mapped = XorMappedAddress::default();
    mapped.get_from(&message).unwrap();
    assert_eq!((mapped.ip, mapped.port), (at(5000).ip(), 5000));
}

#[test]
fn a_wrong_password_learns_nothing_and_gets_no_reply() {
    let (mut agent, now) = (agent(), Instant::now());
    let refused = handle(&mut agent, now, at(5000), &request("node", "guess", &[CONTROLLING]));
    assert_eq!(refused, Err(Refused::Unauthenticated(None)));
    assert_eq!(agent.addresses().count(), 0);
    assert_eq!(agent.next_timeout(), None);
}

#[test]
fn a_validated_address_is_told_what_is_wrong() {
    let (mut agent, now) = (agent(), Instant::now());
    handle(&mut agent, now, at(5000), &request("node", PASSWORD, &[CONTROLLING])).unwrap();
    let bad = handle(&mut agent, now, at(5000), &request("node", "guess", &[]));
    assert!(matches!(bad, Err(Refused::Unauthenticated(Some(r))) if error_code(&r) == 401));
    let unknown_user = handle(&mut agent, now, at(5000), &request("other", PASSWORD, &[]));
    assert!(matches!(unknown_user, Err(Refused::Unauthenticated(Some(r))) if error_code(&r) == 400));
}

#[test]
fn attributes_behind_the_integrity_do_not_count() {
    let (mut agent, now) = (agent(), Instant::now());
    handle(&mut agent, now, at(5000), &request("node", PASSWORD, &[CONTROLLING])).unwrap();
    // An attacker on the path appends USE-CANDIDATE behind MESSAGE-INTEGRITY and repairs the fingerprint.
    let mut message = Message::new();
    message.unmarshal_binary(&request("node", PASSWORD, &[CONTROLLING])).unwrap();
    message.attributes.0.retain(|a| a.typ != ATTR_FINGERPRINT);
    message.encode();
    message.add(ATTR_USE_CANDIDATE, &[]);
    FINGERPRINT.add_to(&mut message).unwrap();

    handle(&mut agent, now, at(6000), &message.raw).unwrap();
    assert_eq!(agent.selected(), Some(at(5000).into()));
}

#[test]
fn a_username_behind_the_integrity_does_not_count() {
    let mut message = Message::new();
    message.build(&[Box::new(BINDING_REQUEST), Box::new(TransactionId::new())]).unwrap();
    message.add(ATTR_MESSAGE_INTEGRITY, &[0; 20]);
    message.add(ATTR_USERNAME, b"node:peer");
    FINGERPRINT.add_to(&mut message).unwrap();
    assert_eq!(Request::parse(&message.raw).unwrap().local_ufrag(), None);
}

#[test]
fn requests_without_a_right_fingerprint_are_nothing() {
    let mut datagram = request("node", PASSWORD, &[CONTROLLING]);
    *datagram.last_mut().unwrap() ^= 1;
    assert!(Request::parse(&datagram).is_none());
}

#[test]
fn media_follows_the_nomination() {
    let (mut agent, now) = (agent(), Instant::now());
    handle(&mut agent, now, at(5000), &request("node", PASSWORD, &[CONTROLLING, NOMINATE])).unwrap();
    handle(&mut agent, now, at(6000), &request("node", PASSWORD, &[CONTROLLING])).unwrap();
    assert_eq!(agent.selected(), Some(at(5000).into()));
    handle(&mut agent, now, at(6000), &request("node", PASSWORD, &[CONTROLLING, NOMINATE])).unwrap();
    assert_eq!(agent.selected(), Some(at(6000).into()));
}

#[test]
fn the_address_table_is_bounded_and_keeps_the_nominated_one() {
    let (mut agent, start) = (agent(), Instant::now());
    handle(&mut agent, start, at(1), &request("node", PASSWORD, &[CONTROLLING, NOMINATE])).unwrap();
    for port in 2..100 {
        let now = start + Duration::from_millis(u64::from(port));
        let accepted = handle(&mut agent, now, at(port), &request("node", PASSWORD, &[CONTROLLING])).unwrap();
        let oldest = port.checked_sub(u16::try_from(MAX_ADDRESSES).unwrap() - 1).filter(|p| *p > 1).map(at);
        assert_eq!(accepted.evicted, oldest);
    }
    assert_eq!(agent.addresses().count(), MAX_ADDRESSES);
    assert!(agent.addresses().any(|a| a == at(1)));
}

#[test]
fn a_controlled_peer_is_told_to_switch() {
    let (mut agent, now) = (agent(), Instant::now());
    let refused = handle(&mut agent, now, at(5000), &request("node", PASSWORD, &[(ATTR_ICE_CONTROLLED, &[9; 8])]));
    assert!(matches!(refused, Err(Refused::Rejected(r)) if error_code(&r) == 487));
    assert_eq!(agent.addresses().count(), 0);
}

#[test]
fn unknown_required_attributes_are_refused() {
    let (mut agent, now) = (agent(), Instant::now());
    let refused = handle(&mut agent, now, at(5000), &request("node", PASSWORD, &[(AttrType(0x7777), &[1])]));
    assert!(matches!(refused, Err(Refused::Rejected(r)) if error_code(&r) == 420));
}

#[test]
fn consent_lapses_and_comes_back() {
    let (mut agent, start) = (agent(), Instant::now());
    let hello = |agent: &mut Agent, now| handle(agent, now, at(1), &request("node", PASSWORD, &[NOMINATE])).unwrap();
    hello(&mut agent, start);
    assert_eq!(agent.handle_timeout(start + Duration::from_secs(9)), None);
    assert_eq!(agent.next_timeout(), Some(start + DISCONNECTED_AFTER));
    assert_eq!(agent.handle_timeout(start + DISCONNECTED_AFTER), Some(Silence::Disconnected));
    assert_eq!(agent.handle_timeout(start + DISCONNECTED_AFTER), None);
    assert!(hello(&mut agent, start + Duration::from_secs(20)).reconnected);
    assert!(!hello(&mut agent, start + Duration::from_secs(21)).reconnected);
    assert_eq!(agent.handle_timeout(start + Duration::from_secs(51)), Some(Silence::Expired));
}

#[test]
fn consent_counts_from_the_address_that_gets_media() {
    let (mut agent, start) = (agent(), Instant::now());
    handle(&mut agent, start, at(1), &request("node", PASSWORD, &[NOMINATE])).unwrap();
    // Requests from elsewhere do not keep a flow to the nominated address alive.
    handle(&mut agent, start + Duration::from_secs(29), at(2), &request("node", PASSWORD, &[])).unwrap();
    assert_eq!(agent.handle_timeout(start + CONSENT_EXPIRES_AFTER), Some(Silence::Expired));
}

#[test]
fn a_restart_accepts_both_credentials_until_the_new_ones_are_used() {
    let (mut agent, now) = (agent(), Instant::now());
    agent.restart(IceCredentials { ufrag: "new".into(), password: "new-password".into() });
    assert!(handle(&mut agent, now, at(1), &request("node", PASSWORD, &[])).is_ok());
    let accepted = handle(&mut agent, now, at(1), &request("new", "new-password", &[])).unwrap();
    assert_eq!(accepted.retired.as_deref(), Some("node"));
    assert!(handle(&mut agent, now, at(1), &request("node", PASSWORD, &[])).is_err());
    assert!(handle(&mut agent, now, at(1), &request("new", "new-password", &[])).is_ok());
}

#[test]
fn a_peer_that_restarts_is_checked_with_what_it_uses_itself() {
    let (mut agent, now) = (agent(), Instant::now());
    let remote = |ufrag: &str| IceCredentials { ufrag: ufrag.into(), password: format!("password-of-{ufrag}") };
    let mut port = 10;
    let mut checked_as = |agent: &mut Agent| {
        port += 1;
        agent.take_up(at(port).into());
        let now = now + Duration::from_secs(port.into());
        let check = agent.check(now, TransactionId::new(), AwsLcRsProvider::new().crypto()).unwrap();
        let check = Request::parse(&check).unwrap();
        (check.local_ufrag().unwrap().to_owned(), check.peer_ufrag().unwrap().to_owned())
    };
    agent.set_remote(remote("peer"));
    handle(&mut agent, now, at(1), &request("node", PASSWORD, &[NOMINATE])).unwrap();
    agent.restart(IceCredentials { ufrag: "new".into(), password: "new-password".into() });
    agent.set_remote(remote("peer2"));
    assert_eq!(checked_as(&mut agent), ("peer".into(), "node".into()), "it has not begun");
    // From its new port, before it has the answer.
    handle(&mut agent, now, at(2), &request_of("node", "peer2", PASSWORD, &[NOMINATE])).unwrap();
    assert_eq!(checked_as(&mut agent), ("peer2".into(), "node".into()));
    handle(&mut agent, now, at(1), &request("node", PASSWORD, &[])).unwrap();
    assert_eq!(checked_as(&mut agent), ("peer2".into(), "node".into()), "its former port says nothing new");
    handle(&mut agent, now, at(2), &request_of("new", "peer2", "new-password", &[])).unwrap();
    assert_eq!(checked_as(&mut agent), ("peer2".into(), "new".into()));
}

#[test]
fn media_follows_the_first_check_of_a_restart() {
    let (mut agent, now) = (agent(), Instant::now());
    handle(&mut agent, now, at(1), &request("node", PASSWORD, &[NOMINATE])).unwrap();
    agent.restart(IceCredentials { ufrag: "new".into(), password: "new-password".into() });
    handle(&mut agent, now, at(2), &request("node", PASSWORD, &[])).unwrap();
    assert_eq!(agent.selected(), Some(at(1).into()));
    handle(&mut agent, now, at(3), &request("new", "new-password", &[])).unwrap();
    assert_eq!(agent.selected(), Some(at(3).into()));
    handle(&mut agent, now, at(4), &request("new", "new-password", &[])).unwrap();
    assert_eq!(agent.selected(), Some(at(3).into()));
}

#[test]
fn a_nomination_elsewhere_is_a_move() {
    let (mut agent, now) = (agent(), Instant::now());
    let moved =
        |agent: &mut Agent, port, extra| handle(agent, now, at(port), &request("node", PASSWORD, extra)).unwrap().moved;
    assert!(!moved(&mut agent, 1, &[NOMINATE]), "the first");
    assert!(!moved(&mut agent, 2, &[CONTROLLING]) && !moved(&mut agent, 1, &[NOMINATE]));
    assert!(moved(&mut agent, 2, &[NOMINATE]) && !moved(&mut agent, 2, &[NOMINATE]));
}

#[test]
fn mapped_ipv4_is_answered_in_plain_form() {
    let (mut agent, now) = (agent(), Instant::now());
    let from: SocketAddr = "[::ffff:192.0.2.7]:77".parse().unwrap();
    let accepted = handle(&mut agent, now, from, &request("node", PASSWORD, &[])).unwrap();
    let mut message = Message::new();
    message.unmarshal_binary(&accepted.response).unwrap();
    let mut mapped = XorMappedAddress::default();
    mapped.get_from(&message).unwrap();
    assert_eq!(mapped.ip.to_string(), "192.0.2.7");
}

#[test]
fn checks_remembered_are_bounded() {
    let (mut agent, now) = (agent(), Instant::now());
    for _ in 0..3 * RECENT_CHECKS {
        handle(&mut agent, now, at(5000), &request("node", PASSWORD, &[CONTROLLING])).unwrap();
    }
    assert_eq!(agent.recent.ids.len(), RECENT_CHECKS);
}

#[test]
fn a_check_caught_on_its_way_works_from_nowhere_else() {
    let (mut agent, now) = (agent(), Instant::now());
    let check = request("node", PASSWORD, &[CONTROLLING, NOMINATE]);
    handle(&mut agent, now, at(5000), &check).unwrap();
    assert!(handle(&mut agent, now, at(5000), &check).is_ok(), "a retransmission");
    assert_eq!(handle(&mut agent, now, at(6666), &check), Err(Refused::Unauthenticated(None)));
    assert_eq!((agent.selected(), agent.addresses().count()), (Some(at(5000).into()), 1));
}

#[test]
fn requests_longer_than_any_real_one_are_not_read() {
    let padding = AttrType(0xc001);
    assert!(Request::parse(&request("node", PASSWORD, &[(padding, &[0; 400])])).is_some());
    assert!(Request::parse(&request("node", PASSWORD, &[(padding, &[0; 576])])).is_none());
}
