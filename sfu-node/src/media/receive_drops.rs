//! Datagrams the kernel dropped because a socket's receive buffer was full (`drops` in `/proc/net/udp`, proc_net(5)).

use std::fs;
use std::os::fd::AsRawFd;

/// Finds a socket's line among all.
#[derive(Debug)]
pub(super) struct ReceiveDrops {
    inode: Option<String>,
}

impl ReceiveDrops {
    /// Of `socket`; nothing is counted where the system does not say.
    pub(super) fn of(socket: &impl AsRawFd) -> Self {
        let link = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok();
        let name = link.and_then(|link| link.to_str().map(str::to_owned));
        let inode = name.and_then(|name| Some(name.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()));
        Self { inode }
    }

    /// How many since the socket was bound.
    pub(super) fn read(&self) -> u64 {
        let Some(inode) = &self.inode else { return 0 };
        let tables = ["/proc/net/udp", "/proc/net/udp6"].into_iter().filter_map(|path| fs::read_to_string(path).ok());
        tables.filter_map(|table| drops(&table, inode)).next().unwrap_or(0)
    }
}

/// The last field of the line whose tenth is `inode`.
fn drops(table: &str, inode: &str) -> Option<u64> {
    let lines = table.lines().skip(1).map(str::split_ascii_whitespace);
    lines.filter_map(|mut fields| (fields.nth(9)? == inode).then_some(fields.last()?)).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn datagrams_for_a_full_buffer_are_counted() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let drops = ReceiveDrops::of(&socket);
        assert!(drops.inode.is_some());
        assert_eq!(drops.read(), 0);
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        // Nobody reads: more than any default buffer holds.
        for _ in 0..10_000 {
            sender.send_to(&[0; 1400], socket.local_addr().unwrap()).unwrap();
        }
        assert!(drops.read() > 0);
    }
}
