//! Looks into a ClientHello before the handshake starts: which SRTP profiles does the client offer? The library would
//! follow the client's order; we want GCM wherever there is GCM.

use std::ops::RangeInclusive;

use bytes::BytesMut;

use crate::media::api::SrtpProfile;

/// Datagrams a ClientHello may be spread over, and repeats; one with post-quantum key shares takes two.
const MAX_DATAGRAMS: usize = 8;
/// Longest ClientHello put together, bytes.
const MAX_HELLO_LEN: usize = 8192;
/// Record content type and handshake type (RFC 5246 section 6.2.1, 7.4).
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// RFC 5764 section 9.
const USE_SRTP: u16 = 14;
/// RFC 7714 section 14.2.
const AEAD_AES_128_GCM: u16 = 0x0007;
/// RFC 5764 section 4.1.2.
const AES128_CM_HMAC_SHA1_80: u16 = 0x0001;

/// What the datagrams so far say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hello {
    /// More of it has to come.
    Incomplete,
    /// No profile we speak, or not a ClientHello.
    Unusable,
    /// The profile to agree on.
    Offers(SrtpProfile),
}

/// First bytes of records on a port that has other protocols too (RFC 7983 section 7).
const RECORDS: RangeInclusive<u8> = 20..=63;

/// Whether a datagram holds a handshake record; `None` if it is not a run of whole records.
pub(super) fn has_handshake(datagram: &[u8]) -> Option<bool> {
    let mut rest = Reader(datagram);
    let mut found = false;
    while !rest.0.is_empty() {
        let (content_type, _) = rest.record()?;
        found |= content_type == HANDSHAKE;
    }
    Some(found)
}

/// Reads the ClientHello out of the first datagrams of a client.
pub(super) fn read(datagrams: &[BytesMut]) -> Hello {
    let Some(message) = assemble(datagrams) else {
        return if datagrams.len() < MAX_DATAGRAMS { Hello::Incomplete } else { Hello::Unusable };
    };
    match profiles(&message).map(|offered| choose(&offered)) {
        Some(Some(profile)) => Hello::Offers(profile),
        _ => Hello::Unusable,
    }
}

fn choose(offered: &[u16]) -> Option<SrtpProfile> {
    let offers = |profile| offered.contains(&profile);
    if offers(AEAD_AES_128_GCM) {
        return Some(SrtpProfile::AeadAes128Gcm);
    }
    offers(AES128_CM_HMAC_SHA1_80).then_some(SrtpProfile::Aes128CmHmacSha1_80)
}

struct Fragment<'a> {
    total: usize,
    offset: usize,
    body: &'a [u8],
}

/// Puts the fragments of the first handshake message together (RFC 6347 section 4.2.3).
fn assemble(datagrams: &[BytesMut]) -> Option<Vec<u8>> {
    let mut fragments: Vec<Fragment<'_>> = datagrams.iter().flat_map(|d| fragments(d)).collect();
    fragments.sort_by_key(|f| f.offset);
    let total = fragments.first()?.total;
    let mut message = Vec::with_capacity(total.min(MAX_HELLO_LEN));
    for fragment in fragments.iter().filter(|f| f.total == total && total <= MAX_HELLO_LEN) {
        // Overlaps and repeats bring nothing new.
        if let Some(news) = message.len().checked_sub(fragment.offset).and_then(|known| fragment.body.get(known..)) {
            message.extend_from_slice(news);
        }
    }
    (message.len() == total).then_some(message)
}

fn fragments(datagram: &[u8]) -> Vec<Fragment<'_>> {
    let mut found = Vec::new();
    let mut rest = Reader(datagram);
    while let Some((content_type, mut record)) = rest.record() {
        if content_type != HANDSHAKE {
            continue;
        }
        while let Some((is_hello, fragment)) = record.fragment() {
            if is_hello {
                found.push(fragment);
            }
        }
    }
    found
}

/// The profiles in the `use_srtp` extension (RFC 5764 section 4.1.1); `None` if malformed or absent.
fn profiles(hello: &[u8]) -> Option<Vec<u16>> {
    let mut hello = Reader(hello);
    let (_version, _random) = (hello.take(2)?, hello.take(32)?);
    for width in [1, 1, 2, 1] {
        // Session id, cookie, cipher suites, compression methods.
        hello.vector(width)?;
    }
    let mut extensions = hello.vector(2)?;
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let mut extension = extensions.vector(2)?;
        if kind == usize::from(USE_SRTP) {
            let mut list = extension.vector(2)?;
            return std::iter::from_fn(|| list.number(2)).map(|p| u16::try_from(p).ok()).collect();
        }
    }
    None
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    fn number(&mut self, width: usize) -> Option<usize> {
        Some(self.take(width)?.iter().fold(0, |n, byte| n << 8 | usize::from(*byte)))
    }

    fn vector(&mut self, width: usize) -> Option<Reader<'a>> {
        let len = self.number(width)?;
        self.take(len).map(Reader)
    }

    /// Content type and body of the next record (RFC 6347 section 4.1).
    fn record(&mut self) -> Option<(u8, Reader<'a>)> {
        let header = self.take(11)?;
        let content_type = header.first().copied().filter(|first| RECORDS.contains(first))?;
        Some((content_type, self.vector(2)?))
    }

    /// Next handshake fragment (RFC 6347 section 4.2.2), and whether it is of a ClientHello that opens a handshake.
    fn fragment(&mut self) -> Option<(bool, Fragment<'a>)> {
        let kind = self.number(1)?;
        let total = self.number(3)?;
        let sequence = self.number(2)?;
        let offset = self.number(3)?;
        let body = self.vector(3)?.0;
        Some((kind == usize::from(CLIENT_HELLO) && sequence == 0, Fragment { total, offset, body }))
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, RngCore, SeedableRng};

    use super::*;

    fn hello(profiles: &[u16], padding: usize) -> Vec<u8> {
        let mut extensions = vec![0, 21];
        extensions.extend(u16::try_from(padding).unwrap().to_be_bytes());
        extensions.extend(vec![0; padding]);
        let list: Vec<u8> = profiles.iter().flat_map(|p| p.to_be_bytes()).collect();
        extensions.extend([0, 14]);
        extensions.extend(u16::try_from(list.len() + 3).unwrap().to_be_bytes());
        extensions.extend(u16::try_from(list.len()).unwrap().to_be_bytes());
        extensions.extend(list);
        extensions.push(0);
        let mut hello = vec![0xfe, 0xfd];
        hello.extend([7; 32]);
        hello.extend([0, 0, 0, 2, 0xc0, 0x2b, 1, 0]);
        hello.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
        hello.extend(extensions);
        hello
    }

    fn datagram(message: &[u8], from: usize, to: usize) -> BytesMut {
        let u24 = |n: usize| u32::try_from(n).unwrap().to_be_bytes()[1..].to_vec();
        let body = [&[1][..], &u24(message.len()), &[0, 0], &u24(from), &u24(to - from), &message[from..to]].concat();
        let len = u16::try_from(body.len()).unwrap().to_be_bytes();
        BytesMut::from(&[&[22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0][..], &len, &body].concat()[..])
    }

    /// Found by fuzzing: what the demultiplexer would not take for DTLS was, for a record further on.
    #[test]
    fn a_run_that_begins_with_no_record_is_none() {
        let record = |content_type: u8| [&[content_type, 0xfe, 0xfd][..], &[0; 8], &[0, 1, 9]].concat();
        assert_eq!(has_handshake(&[record(21), record(22)].concat()), Some(true));
        assert_eq!(has_handshake(&[record(21), record(23)].concat()), Some(false));
        for other in [0, 13, 64, 128] {
            assert_eq!(has_handshake(&[record(other), record(22)].concat()), None);
            assert_eq!(has_handshake(&[record(22), record(other)].concat()), None);
        }
    }

    #[test]
    fn gcm_wins_wherever_it_stands() {
        let whole = |message: Vec<u8>| read(&[datagram(&message, 0, message.len())]);
        assert_eq!(whole(hello(&[1, 2, 7], 0)), Hello::Offers(SrtpProfile::AeadAes128Gcm));
        assert_eq!(whole(hello(&[8, 1], 0)), Hello::Offers(SrtpProfile::Aes128CmHmacSha1_80));
        assert_eq!(whole(hello(&[8, 2], 0)), Hello::Unusable);
        assert_eq!(whole(hello(&[], 0)), Hello::Unusable);
    }

    #[test]
    fn fragments_come_in_any_order() {
        let message = hello(&[1, 7], 1500);
        let (a, b) = (datagram(&message, 0, 1000), datagram(&message, 900, message.len()));
        assert_eq!(read(std::slice::from_ref(&b)), Hello::Incomplete);
        assert_eq!(read(&[b.clone(), b.clone(), a.clone()]), Hello::Offers(SrtpProfile::AeadAes128Gcm));
        assert_eq!(read(&vec![b; MAX_DATAGRAMS]), Hello::Unusable);
    }

    #[test]
    fn garbage_is_never_more_than_unusable() {
        let mut rng = StdRng::seed_from_u64(5764);
        let message = hello(&[1, 7], 200);
        for _ in 0..20_000 {
            let mut bytes = datagram(&message, 0, message.len());
            for _ in 0..rng.random_range(1..6) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = rng.random();
            }
            bytes.truncate(rng.random_range(0..=bytes.len()));
            has_handshake(&bytes);
            read(&[bytes]);
            let mut noise = vec![0; 64];
            rng.fill_bytes(&mut noise);
            has_handshake(&noise);
            read(&[BytesMut::from(&noise[..])]);
        }
    }
}
