//! `cargo xtask fleet nodes` and `drain`: which nodes there are, and how one is emptied before its machine is ended.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use shared::control::{DRAIN_PATH, DrainRequest, NEED_PATH, NODES_PATH, NodeStatus, RegionNeed};
use shared::ids::NodeId;

/// Between two looks at what still goes on.
const LOOK: Duration = Duration::from_secs(5);

/// Posts JSON to the edge and gives its answer.
pub(super) trait Edge {
    /// To this path, as an operator.
    fn ask(&self, path: &str, body: &str) -> Result<String>;
}

/// A line for each node.
pub(super) fn list(edge: &impl Edge) -> Result<()> {
    let line = |[node, region, address, sessions, cpu, version]: [&str; 6]| {
        println!("{node:<18} {region:<16} {address:<40} {sessions:>16} {cpu:>6}  {version}");
    };
    let nodes = nodes(edge)?;
    line(["node", "region", "address", "sessions", "cpu", "version"]);
    for node in nodes {
        let (sessions, cpu) = match node.load {
            Some(load) => (load.sessions.to_string(), format!("{:.0} %", load.cpu * 100.0)),
            None => ("?".to_owned(), "?".to_owned()),
        };
        let address = node.address.map(|address| address.to_string()).unwrap_or_default();
        let sessions = format!("{sessions} of {}", node.info.max_sessions);
        let version = if node.draining { node.info.version + ", draining" } else { node.info.version };
        line([&node.node.to_string(), &node.info.region.to_string(), &address, &sessions, &cpu, &version]);
    }
    Ok(())
}

/// A line for each region.
pub(super) fn needs(edge: &impl Edge) -> Result<()> {
    let needs: Vec<RegionNeed> =
        serde_json::from_str(&edge.ask(NEED_PATH, "{}")?).context("the edge's list of needs")?;
    println!("{:<16} {:>6} {:>8} {:>9} {:>6}  why", "region", "nodes", "draining", "sessions", "wanted");
    for RegionNeed { region, nodes, draining, sessions, wanted, why, .. } in needs {
        println!("{:<16} {nodes:>6} {draining:>8} {sessions:>9} {wanted:>6}  {why:?}", region.to_string());
    }
    Ok(())
}

/// Has nodes drain, or take rooms again; gives which.
pub(super) fn drain(edge: &impl Edge, named: &[String], draining: bool) -> Result<BTreeSet<NodeId>> {
    let chosen = choose(&nodes(edge)?, named)?;
    for node in &chosen {
        edge.ask(DRAIN_PATH, &serde_json::to_string(&DrainRequest { node: node.clone(), draining })?)?;
        println!(
            "{node} {}",
            if draining {
                "drains: it gets no room any more, and its calls move to others"
            } else {
                "gets rooms again"
            }
        );
    }
    Ok(chosen)
}

/// Waits until no session is left on them.
pub(super) fn wait_until_empty(edge: &impl Edge, chosen: &BTreeSet<NodeId>) -> Result<()> {
    let mut told = None;
    loop {
        match sessions(&nodes(edge)?, chosen)? {
            Some(0) => break,
            left @ Some(count) if left != told => {
                println!("{count} sessions are left");
                told = left;
            }
            _ => {}
        }
        thread::sleep(LOOK);
    }
    println!("no session is left");
    Ok(())
}

fn nodes(edge: &impl Edge) -> Result<Vec<NodeStatus>> {
    serde_json::from_str(&edge.ask(NODES_PATH, "{}")?).context("the edge's list of nodes")
}

/// The nodes of these ids and addresses. A machine has two addresses, of which the edge sees one.
fn choose(nodes: &[NodeStatus], named: &[String]) -> Result<BTreeSet<NodeId>> {
    let mut chosen = BTreeSet::new();
    for name in named {
        match name.parse::<IpAddr>() {
            Ok(address) => {
                chosen.extend(nodes.iter().filter(|node| node.address == Some(address)).map(|node| node.node.clone()));
            }
            Err(_) => {
                chosen.insert(NodeId::try_from(name.as_str()).with_context(|| format!("{name}: no address, no id"))?);
            }
        }
    }
    if chosen.is_empty() {
        bail!("the edge sees no node at these addresses: `cargo xtask fleet … nodes` lists them");
    }
    Ok(chosen)
}

/// Sessions on all of these; `None` while one has not said.
fn sessions(nodes: &[NodeStatus], chosen: &BTreeSet<NodeId>) -> Result<Option<u32>> {
    let mut sum = Some(0_u32);
    for id in chosen {
        let node = nodes.iter().find(|node| node.node == *id);
        let node = node.with_context(|| format!("{id} has no link to the edge: look at it before you end it"))?;
        sum = sum.zip(node.load).map(|(sum, load)| sum.saturating_add(load.sessions));
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;

    use shared::control::{CONTROL_VERSION, NodeInfo, NodeLimits, NodeLoad};
    use shared::geo::Place;
    use shared::ids::RegionName;

    use super::*;

    fn node(id: &str, address: &str, sessions: Option<u32>) -> NodeStatus {
        let (region, place) = (RegionName::try_from("fra").unwrap(), Place { latitude: 50.1, longitude: 8.7 });
        let version = "0.1.0".to_owned();
        NodeStatus {
            node: NodeId::try_from(id).unwrap(),
            address: Some(address.parse().unwrap()),
            info: NodeInfo {
                version,
                control_version: CONTROL_VERSION,
                region,
                place,
                max_sessions: 10,
                limits: NodeLimits::default(),
                pipes: false,
            },
            load: sessions.map(|sessions| NodeLoad { sessions, ..NodeLoad::default() }),
            draining: false,
        }
    }

    /// Answers each question for the list with the next one, and keeps what it is told.
    struct Told {
        lists: RefCell<VecDeque<Vec<NodeStatus>>>,
        drained: RefCell<Vec<DrainRequest>>,
    }

    impl Edge for Told {
        fn ask(&self, path: &str, body: &str) -> Result<String> {
            if path == DRAIN_PATH {
                self.drained.borrow_mut().push(serde_json::from_str(body)?);
                return Ok("null".to_owned());
            }
            let next = self.lists.borrow_mut().pop_front().context("asked once more")?;
            Ok(serde_json::to_string(&next)?)
        }
    }

    fn told(lists: impl IntoIterator<Item = Vec<NodeStatus>>) -> Told {
        Told { lists: RefCell::new(lists.into_iter().collect()), drained: RefCell::default() }
    }

    #[test]
    fn a_node_is_named_by_its_id_or_by_one_of_its_addresses() {
        let nodes = [node("ND_a", "192.0.2.1", None), node("ND_b", "2001:db8::2", None)];
        let choose = |named: &[&str]| choose(&nodes, &named.iter().map(ToString::to_string).collect::<Vec<_>>());
        let ids = |ids: &[&str]| ids.iter().map(|id| NodeId::try_from(*id).unwrap()).collect::<BTreeSet<_>>();
        assert_eq!(choose(&["192.0.2.1", "2001:db8::1"]).unwrap(), ids(&["ND_a"]), "it dials in from one of both");
        assert_eq!(choose(&["2001:db8:0::2", "ND_c"]).unwrap(), ids(&["ND_b", "ND_c"]));
        assert!(choose(&["192.0.2.9"]).is_err(), "nobody is there");
        assert!(choose(&["fra-1"]).is_err(), "Terraform's names are not the edge's");
    }

    #[test]
    fn it_is_empty_when_it_says_so() {
        let (a, all) = ("192.0.2.1", [NodeId::try_from("ND_a").unwrap()].into());
        assert_eq!(sessions(&[node("ND_a", a, Some(3))], &all).unwrap(), Some(3));
        assert_eq!(sessions(&[node("ND_a", a, None)], &all).unwrap(), None, "its link is new");
        assert!(sessions(&[node("ND_b", a, Some(0))], &all).is_err(), "calls may go on without a link");

        let edge = told([vec![node("ND_a", a, Some(1))], vec![node("ND_a", a, Some(0))]]);
        let drained = drain(&edge, &["ND_a".to_owned()], true).unwrap();
        let asked = DrainRequest { node: NodeId::try_from("ND_a").unwrap(), draining: true };
        assert_eq!(*edge.drained.borrow(), [asked]);
        wait_until_empty(&edge, &drained).unwrap();
        assert!(edge.lists.borrow().is_empty());
    }
}
