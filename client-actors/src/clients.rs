//! Who is connected to the brokers.

use futures_util::future::join_all;
use grus_protocol::ids::BrokerAddress;
use grus_protocol::message::{ClientDescription, ListClients};
use grus_protocol::{BrokerId, TopicName};

use crate::client::Client;
use crate::error::ClientError;

/// A topic that nobody has: of routes that are asked for, only the brokers are wanted.
pub(crate) fn nobodys_topic() -> TopicName {
    TopicName::try_from("0.no.topic").expect("a name")
}

/// One connection to a broker, and what it has shown of its client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectedClient {
    /// The broker it is connected to.
    pub broker: BrokerId,
    /// The connection, its producers and its readers.
    pub client: ClientDescription,
}

/// Who is connected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ConnectedClients {
    /// The connections, by broker, in the order in which they were opened.
    pub clients: Vec<ConnectedClient>,
    /// Brokers that could not be asked, and why.
    pub unasked: Vec<(BrokerId, String)>,
}

impl Client {
    /// Lists those who are connected to each broker, this client included; `all`: also those that
    /// have sent nothing for the broker's session timeout (10 s unless configured otherwise).
    ///
    /// # Errors
    /// What the last broker said when none could be asked; [`ClientError::Timeout`],
    /// [`ClientError::Closed`].
    pub async fn list_clients(&self, all: bool) -> Result<ConnectedClients, ClientError> {
        let brokers = self.brokers().await?;
        let asked = brokers.iter().map(|broker| self.list_clients_of(broker, all));
        let (mut listed, mut failed) = (ConnectedClients::default(), None);
        for (broker, answer) in brokers.iter().zip(join_all(asked).await) {
            match answer {
                Ok(clients) => listed.clients.extend(clients),
                Err(error) => {
                    listed.unasked.push((broker.id, error.to_string()));
                    failed = Some(error);
                }
            }
        }
        match failed {
            Some(error) if listed.unasked.len() == brokers.len() => Err(error),
            _ => Ok(listed),
        }
    }

    /// All brokers that are there.
    pub(crate) async fn brokers(&self) -> Result<Vec<BrokerAddress>, ClientError> {
        Ok(self.routes_of(&nobodys_topic()).await?.0)
    }

    async fn list_clients_of(
        &self,
        broker: &BrokerAddress,
        all: bool,
    ) -> Result<Vec<ConnectedClient>, ClientError> {
        let limit = self.core.config.request_timeout;
        let (mut clients, mut after) = (Vec::new(), None);
        loop {
            let ask = ListClients { after, clients_max: 0, all };
            let page = self.ask_broker(broker, &ask, limit).await?;
            let described = page.clients.into_iter();
            clients.extend(described.map(|client| ConnectedClient { broker: broker.id, client }));
            match page.next {
                None => return Ok(clients),
                next if next <= after => {
                    let text = "the next page does not come behind the one before".to_owned();
                    return Err(ClientError::BadReply(text));
                }
                next => after = next,
            }
        }
    }
}
