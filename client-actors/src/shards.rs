//! The brokers and their shards: who leads what, how far the members are, and moving leaders.

use futures_util::future::join_all;
use grus_protocol::ids::BrokerAddress;
use grus_protocol::message::{
    ChangeReplicas, DescribeShards, HandOverShards, HandOverShardsReply, ShardDescription,
};
use grus_protocol::{BrokerId, ErrorCode, ErrorReply, ShardId};

use crate::client::Client;
use crate::error::{ClientError, Refusal};

/// A broker, and its shards as it knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerShards {
    /// The broker, and where it is reached.
    pub broker: BrokerAddress,
    /// Its shards; else why it did not say.
    pub shards: Result<Vec<ShardDescription>, String>,
}

impl Client {
    /// Asks every broker that is there for its shards: those that it has alone, and those that it is a
    /// member of. Brokers that do not answer are named with the reason.
    ///
    /// # Errors
    /// [`ClientError::Timeout`] and [`ClientError::Closed`], where nobody says which brokers there are.
    pub async fn describe_shards(&self) -> Result<Vec<BrokerShards>, ClientError> {
        let brokers = self.brokers().await?;
        let limit = self.core.config.request_timeout;
        let asked = brokers.iter().map(|broker| self.ask_broker(broker, &DescribeShards {}, limit));
        let answers = join_all(asked).await;
        let told = brokers.into_iter().zip(answers).map(|(broker, answer)| {
            let shards = answer.map(|reply| reply.shards).map_err(|error| error.to_string());
            BrokerShards { broker, shards }
        });
        Ok(told.collect())
    }

    /// Has shards of several brokers get other members: `add` in place of `remove`, or one of the two alone.
    /// Ends when that is written; whoever leads each shard sees to it from then on. Gives the shards that
    /// are to change now.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: `InvalidRequest` when that cannot be of one of them, `UnknownTopic`;
    /// [`ClientError::Timeout`]; [`ClientError::Closed`].
    pub async fn change_replicas(&self, ask: &ChangeReplicas) -> Result<Vec<ShardId>, ClientError> {
        let limit = self.core.config.request_timeout;
        let mut last = None;
        // Any of them has the registry do it.
        for broker in self.brokers().await? {
            match self.ask_broker(&broker, ask, limit).await {
                Ok(done) => return Ok(done.shards),
                Err(ClientError::Refused(refusal)) => return Err(ClientError::Refused(refusal)),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(ClientError::Closed))
    }

    /// Has a broker give shards that it leads to other members.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: `UnknownBroker` when it is not there, `InvalidRequest` when it has no
    /// member of a shard, or the one that is to lead has not; [`ClientError::Timeout`];
    /// [`ClientError::Closed`].
    pub async fn hand_over_shards(
        &self,
        broker: BrokerId,
        ask: &HandOverShards,
    ) -> Result<HandOverShardsReply, ClientError> {
        let brokers = self.brokers().await?;
        let Some(at) = brokers.iter().find(|at| at.id == broker) else {
            let text = format!("broker {broker} is not there");
            let error = ErrorReply::new(ErrorCode::UnknownBroker, text);
            return Err(ClientError::Refused(Refusal::from(error)));
        };
        self.ask_broker(at, ask, self.core.config.request_timeout).await
    }
}
