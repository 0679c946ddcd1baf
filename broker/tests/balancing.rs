//! Brokers in one process, among which leaders are kept even.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

mod brokers;
mod topics;

use brokers::{Cluster, stop_all, wait_for};
use firn::node::Node;
use firn_metadata::image::Partition;
use topics::create_replicated;

const TOPIC: &str = "snow";

/// The topic's partitions, as this broker knows them.
fn known(node: &Node) -> Vec<Partition> {
    let image = node.context.controller.image();
    let partitions = image.topic(TOPIC).map(|topic| topic.partitions.clone()).unwrap_or_default();
    partitions.iter().map(|partition| Partition::clone(partition)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_leads_again_what_it_is_to_lead() {
    let mut cluster = Cluster::new(3);
    cluster.more = "leader.imbalance.check.interval.seconds=1\n".to_owned();
    let mut nodes = cluster.start_all().await;
    create_replicated(&cluster.connect(0).await, TOPIC, 6, 3, &[]).await;
    let gone = nodes.remove(2);
    let id = gone.context.node_id;
    gone.stop().await;
    let others_lead = || {
        let now = known(&nodes[0]);
        (now.len() == 6 && now.iter().all(|now| now.leader != id && !now.isr.contains(&id))).then_some(())
    };
    wait_for("the others lead", others_lead).await;
    nodes.push(cluster.start(id as usize, &[0, 1, 2]).await.unwrap());
    for node in &nodes {
        let leads = || known(node).iter().all(|now| now.leader == now.replicas[0]).then_some(());
        wait_for("preferred leaders", leads).await;
        assert_eq!(known(node).iter().filter(|now| now.leader == id).count(), 2);
    }
    stop_all(nodes).await;
}
