//! librdkafka's in-process cluster: the real wire protocol, no broker to run. It keeps what it is sent in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use super::DemoError;
use super::story::Told;
use crate::plan::{Plan, Topics};

/// Few, because the cluster sets 5 MB aside for each.
const PARTITIONS: i32 = 4;

pub struct DemoKafka {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl DemoKafka {
    /// Starts the cluster with the topics that the projections name.
    ///
    /// # Errors
    /// When librdkafka refuses.
    pub fn start(plans: &[Plan]) -> Result<DemoKafka, DemoError> {
        let failed = |error| DemoError::new(format!("the in-process Kafka does not start: {error}"));
        let cluster = MockCluster::new(1).map_err(failed)?;
        let mut topics = BTreeSet::new();
        for source in plans.iter().flat_map(|plan| &plan.sources) {
            if let Topics::Named(topic) = &source.topics {
                topics.insert(topic.as_str());
            }
        }
        for topic in topics {
            cluster.create_topic(topic, PARTITIONS, 1).map_err(failed)?;
        }
        Ok(DemoKafka { cluster })
    }

    pub fn brokers(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// Sends the story. Returns how many events each topic has now.
    ///
    /// # Errors
    /// When an event does not arrive.
    pub fn play(&self, story: &[Told]) -> Result<BTreeMap<String, i64>, DemoError> {
        let failed = |error| DemoError::new(format!("the story cannot be told to Kafka: {error}"));
        let producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext> = ClientConfig::new()
            .set("bootstrap.servers", self.brokers())
            .set("enable.idempotence", "true")
            .create()
            .map_err(failed)?;
        let mut sent = BTreeMap::new();
        for told in story {
            let record = BaseRecord::to(told.topic).key(&told.key).payload(&told.payload);
            producer.send(record).map_err(|(error, _)| failed(error))?;
            *sent.entry(told.topic.to_string()).or_insert(0) += 1;
        }
        producer.flush(Duration::from_secs(30)).map_err(failed)?;
        Ok(sent)
    }
}
