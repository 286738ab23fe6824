use crate::{Authority, Certificate, PATIENCE, RedisServer, wait_until};

/// A Redis Cluster of masters without replicas.
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts `masters` nodes, distributes the slots, and waits until all nodes agree on them.
    pub fn start(masters: usize) -> RedisCluster {
        let nodes: Vec<_> = (0..masters).map(|_| RedisServer::start_with(&ARGS)).collect();
        let port = nodes[0].port();
        RedisCluster::join(nodes, port)
    }

    /// Starts `masters` nodes that use TLS with clients and with each other.
    pub fn start_tls(masters: usize, authority: &Authority, certificate: &Certificate) -> RedisCluster {
        let args = [&ARGS[..], &["--tls-cluster", "yes"]].concat();
        let nodes: Vec<_> =
            (0..masters).map(|_| RedisServer::start_tls(authority, certificate, &args)).collect();
        let port = nodes[0].tls_port();
        RedisCluster::join(nodes, port)
    }

    /// Joins nodes to a cluster. `port` is the one at which they meet the first node.
    fn join(nodes: Vec<RedisServer>, port: u16) -> RedisCluster {
        let masters = nodes.len();
        for (i, node) in nodes.iter().enumerate() {
            let slots = (i * SLOTS / masters..(i + 1) * SLOTS / masters).map(|slot| slot.to_string());
            let command: Vec<String> =
                ["CLUSTER".into(), "ADDSLOTS".into()].into_iter().chain(slots).collect();
            node.cli(&command);
            node.cli(&["CLUSTER", "MEET", "127.0.0.1", &port.to_string()]);
        }
        for node in &nodes {
            wait_until(PATIENCE, "the cluster's nodes agree", || {
                let info = node.cli(&["CLUSTER", "INFO"]);
                let has = |line: &str| info.lines().any(|found| found.trim() == line);
                has("cluster_state:ok")
                    && has(&format!("cluster_known_nodes:{masters}"))
                    && has("cluster_slots_assigned:16384")
            });
        }
        RedisCluster { nodes }
    }

    /// All nodes.
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// All nodes' addresses.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(RedisServer::url).collect()
    }
}

const ARGS: [&str; 4] = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
const SLOTS: usize = 16_384;
