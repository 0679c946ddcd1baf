//! `firn broker`: empty a broker before it is taken away, or when it is lost, and put it out of the cluster.
//!
//! That a broker is to be emptied is a config of it (`firn.broker.drain`), which the controller goes by: the command may be
//! interrupted, and be given again to look on.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::{Args, Subcommand};
use firn_client::cluster::Cluster;
use firn_client::configs::{self, Resource};
use firn_client::error::Error;
use firn_client::{brokers, topics};
use firn_model::broker_config::definitions::DRAIN;
use tokio::time::Instant;

use crate::command::{Failure, To, cluster};
use crate::output::{Output, json};
use crate::progress::Progress;

/// How often it is looked what is left.
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// How long nothing may move until it counts as stuck: the controller begins moves within a second.
const STUCK_AFTER: Duration = Duration::from_secs(15);
/// Partitions that are named where they do not move.
const NAMED_MAX: usize = 5;

#[derive(Debug, Clone, Args)]
pub struct Arguments {
    #[command(flatten)]
    to: To,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// Have all replicas of a broker moved to others, a few at a time, and wait for the end. It gets no new ones. It may be lost already.
    Drain {
        /// The broker's id.
        broker: i32,
        /// Ask for it, and do not wait.
        #[arg(long, conflicts_with = "cancel")]
        no_wait: bool,
        /// Let the broker have replicas again. Those that have moved stay where they are, until replicas are spread evenly again.
        #[arg(long)]
        cancel: bool,
    },
    /// Put a broker out that has stopped for good. What replicas it still has are created anew on others.
    Unregister {
        /// The broker's id.
        broker: i32,
    },
}

pub(crate) async fn run(arguments: Arguments) -> Result<String, Failure> {
    let (cluster, output) = (cluster(&arguments.to.bootstrap), arguments.to.output);
    match arguments.action {
        Action::Drain { broker, cancel: true, .. } => {
            mark(&cluster, broker, None).await?;
            told(output, broker, "kept", format!("Broker {broker} gets replicas again."))
        }
        Action::Drain { broker, no_wait, .. } => {
            mark(&cluster, broker, Some("true".to_owned())).await?;
            if no_wait {
                return told(output, broker, "draining", format!("Broker {broker} is being emptied."));
            }
            wait_until_empty(&cluster, broker).await?;
            let next = format!(
                "Broker {broker} has no replicas. Stop it, and then: firn broker unregister {broker}"
            );
            told(output, broker, "empty", next)
        }
        Action::Unregister { broker } => {
            let connection = cluster.any().await?;
            let voters = brokers::voters(&connection).await.unwrap_or_default();
            // What is only to be told keeps nobody from being put out.
            let left = look(&cluster, broker).await.unwrap_or_default();
            brokers::unregister(&connection, broker).await?;
            told(output, broker, "unregistered", unregistered(broker, left.partitions.len(), &voters))
        }
    }
}

/// What went with a broker that had so many replicas, of a cluster in which these voted on the metadata.
fn unregistered(broker: i32, replicas: usize, voters: &BTreeSet<i32>) -> String {
    let mut text = format!("Broker {broker} is no longer registered.");
    if replicas > 0 {
        text += &format!(" It had {replicas} replica(s), which are created anew on others.");
    }
    if voters.contains(&broker) {
        let left = voters.len() - 1;
        text += &format!(
            " It had a vote on the metadata; {left} broker(s) vote now: give another one a vote with kafka-metadata-quorum.sh add-controller"
        );
    }
    text
}

fn told(output: Output, broker: i32, state: &str, text: String) -> Result<String, Failure> {
    match output {
        Output::Table => Ok(text + "\n"),
        Output::Json => json(&serde_json::json!({ "broker": broker, "state": state })),
    }
}

async fn mark(cluster: &Cluster, broker: i32, value: Option<String>) -> Result<(), Error> {
    let resource = Resource::Broker(broker.to_string());
    configs::alter(&*cluster.any().await?, &resource, &[(DRAIN.to_owned(), value)]).await
}

/// What a broker still has.
#[derive(Debug, Default)]
struct Left {
    partitions: BTreeSet<(String, i32)>,
    /// Some of it moves.
    moves: bool,
}

async fn look(cluster: &Cluster, broker: i32) -> Result<Left, Error> {
    let connection = cluster.any().await?;
    let moving = brokers::moving(&connection).await?;
    let mut left = Left::default();
    for topic in topics::describe(&connection, None).await? {
        let here = topic.partitions.iter().filter(|partition| partition.replicas.contains(&broker));
        left.partitions.extend(here.map(|partition| (topic.name.clone(), partition.index)));
    }
    left.moves = left.partitions.iter().any(|partition| moving.contains(partition));
    Ok(left)
}

async fn wait_until_empty(cluster: &Cluster, broker: i32) -> Result<(), Failure> {
    let mut progress: Option<(Progress, u64)> = None;
    let (mut moved, mut fewest) = (Instant::now(), usize::MAX);
    loop {
        match look(cluster, broker).await {
            Ok(left) if left.partitions.is_empty() => return Ok(()),
            Ok(left) => {
                let count = left.partitions.len();
                let (bar, total) = progress.get_or_insert_with(|| {
                    (Progress::of_silent_work("partitions", count as u64), count as u64)
                });
                bar.at(total.saturating_sub(count as u64));
                if left.moves || count < fewest {
                    (moved, fewest) = (Instant::now(), count);
                }
                if moved.elapsed() > STUCK_AFTER {
                    return Err(stuck(broker, &left.partitions).into());
                }
            }
            // A controller that has just gone has a heir soon.
            Err(error) if error.is_retriable() && moved.elapsed() < STUCK_AFTER => {}
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}

fn stuck(broker: i32, left: &BTreeSet<(String, i32)>) -> String {
    let mut names: Vec<String> =
        left.iter().take(NAMED_MAX).map(|(topic, index)| format!("{topic}-{index}")).collect();
    if left.len() > NAMED_MAX {
        names.push("…".to_owned());
    }
    format!(
        "{} partition(s) stay on broker {broker}, and nothing moves them: {}. Either every other broker that may take a replica has one, or nobody leads them. Broker {broker} is still to be emptied, and will be once that has changed; firn broker drain {broker} --cancel takes it back",
        left.len(),
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::typed;

    #[test]
    fn what_does_not_move_is_named_with_what_to_do() {
        let left: BTreeSet<_> = (0..7).map(|index| ("snow".to_owned(), index)).collect();
        let said = stuck(3, &left);
        assert!(said.starts_with("7 partition(s) stay on broker 3"), "{said}");
        assert!(said.contains("snow-4, …. ") && !said.contains("snow-5"), "{said}");
        assert!(said.contains("firn broker drain 3 --cancel"), "{said}");
        let said = stuck(3, &left.into_iter().take(1).collect());
        assert!(said.contains("moves them: snow-0. "), "{said}");
    }

    #[test]
    fn what_goes_with_a_broker_is_said() {
        let voters = BTreeSet::from([1, 2, 3]);
        assert_eq!(unregistered(4, 0, &voters), "Broker 4 is no longer registered.");
        let said = unregistered(3, 12, &voters);
        assert!(said.contains("12 replica(s)") && said.contains("2 broker(s) vote now"), "{said}");
    }

    #[test]
    fn who_takes_it_back_waits_for_nothing() {
        assert!(
            typed::<Arguments>("drain 3 --cancel").is_ok() && typed::<Arguments>("drain 3 --no-wait").is_ok()
        );
        assert!(
            typed::<Arguments>("drain 3 --cancel --no-wait").unwrap_err().contains("cannot be used with")
        );
        assert!(typed::<Arguments>("drain").is_err() && typed::<Arguments>("unregister x").is_err());
    }

    #[test]
    fn scripts_are_told_what_became_of_it() {
        assert_eq!(
            told(Output::Json, 3, "empty", String::new()).unwrap(),
            "{\"broker\":3,\"state\":\"empty\"}\n"
        );
        assert_eq!(told(Output::Table, 3, "empty", "Done.".to_owned()).unwrap(), "Done.\n");
    }
}
